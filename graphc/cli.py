"""The command line: ``graphc demo``, ``graphc show``, ``graphc report``, ``graphc check``, ``graphc bench``.

Exit codes: 0 for success, 1 for a check that failed, 2 for a mistake in what was asked. Errors come without traceback.
Colours are for terminals: none in a file or a pipe, or where ``NO_COLOR`` is set (no-color.org) or ``TERM`` is dumb.
"""

from __future__ import annotations

import argparse
import os
import runpy
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import numpy as np

from graphc import __version__, compiler, errors, look, study
from graphc.data import digits
from graphc.dsl import functions, init, optim
from graphc.dsl.composite import cross_entropy, mean
from graphc.dsl.declare import dim, param
from graphc.dsl.declare import input as declare_input
from graphc.runtime.step import Function, TrainStep

HELD_OUT = 397  # images, drawn at random by a fixed seed, that training does not see

EXAMPLES = """\
A script declares a network and compiles it; FILE[:NAME] names the script and the variable in it:

  import graphc as gc
  x = gc.input("x", (gc.dim("N"), 4))
  t = gc.input("t", (gc.dim("N"),))
  w = gc.param("w", (4,))
  step = gc.compile(gc.mse(x @ w, t), gc.optim.sgd(lr=0.1))

  graphc show model.py --stage grad       the derivatives, as maths
  graphc show model.py:step --stage asm   the machine code
  graphc report model.py -o page.html     a page: formulas, kernels and machine code, all linked
  graphc check model.py                   are derivatives and compiled results right?
  graphc bench model.py --size N=64       how long a step takes, and what it could take

The script runs as a module that is imported does, so keep training behind: if __name__ == "__main__":
"""
STAGE_HELP = """\
stages, in the order in which they are made:
  declared    the graph as text that parses back
  forward     the forward pass, as maths
  grad        the derivatives, as maths
  update      the optimizer's update, as maths
  ledger      the chain rule, node by node: upstream x local, summed
  rewrites    every rewrite that fired, before and after
  optimized   the graph after rewriting
  kernels     the fused loops
  memory      which buffer lies where in the arena, from which kernel to which
  llvm, asm   the code
  svg         a drawing: forward pass, gradients, update
"""
REPORT_HELP = """\
One file of HTML that needs no network: drawing, formulas, the chain rule's ledger, rewrites, kernels, cost, memory,
LLVM and assembly. Click anything, and what belongs to it lights up everywhere; press ? for the keys.

  graphc report model.py:step -o page.html
"""
CHECK_HELP = """\
Draws inputs and weights (integer inputs inside the bounds of what they index) and compares
  - what the compiled step computes, loss and derivatives, with a plain evaluation in float64;
  - each derivative with a central difference of the forward pass in float64.
Exit code 0: all agree; 1: something differs; 2: the script or the name is not as it should be.
"""
BENCH_HELP = """\
Draws inputs (integer inputs inside the bounds of what they index), runs the step on them for about a second and prints
  - the time of a call, from Python;
  - its operations and the least bytes that it must move, and how fast a core can do either (measured);
  - the floor that follows (the roofline, of as many cores as share a call), and how far the step is from it.
Weights are put back before each of twelve blocks. For a quiet figure leave the machine alone meanwhile.

  graphc bench model.py:step --size N=64 --size T=20
  graphc bench model.py --kernels     and each kernel's time inside the step, beside its own floor
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the process's exit code."""
    parser = _parser()
    given = parser.parse_args(arguments)
    try:
        code = int(given.run(given))
        sys.stdout.flush()
        return code
    except errors.GraphcError as error:
        print(f"{_coloured(type(error).__name__, _RED, sys.stderr)}: {error}", file=sys.stderr)
    except BrokenPipeError:  # the reader of a pipe, ``head`` say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that nothing is flushed into it at exit
        return 0
    except OSError as error:
        print(f"{error.filename or 'file'}: {error.strerror}", file=sys.stderr)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    return 2


_BOLD, _RED, _GREEN = "1", "1;31", "32"


def _coloured(text: str, colour: str, stream: TextIO) -> str:
    """The text, in a colour where the stream is a terminal that has some."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not stream.isatty()
    return text if plain else f"\x1b[{colour}m{text}\x1b[0m"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="graphc",
        description="Turn a declared network into one native function: forward pass, back propagation, update.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"graphc {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    demo = commands.add_parser("demo", help="train a network on handwritten digits, showing the maths first")
    demo.add_argument("--epochs", type=_positive, default=60, help="passes over the training images (60)")
    demo.add_argument("--no-progress", action="store_true", help="without a progress bar")
    demo.add_argument("--report", metavar="FILE", help="write a page on which formulas and their code are linked")
    demo.set_defaults(run=_demo)
    show = _with_target(commands, "show", "print a stage of a compiled step or function", STAGE_HELP)
    show.add_argument(
        "--stage",
        choices=look.STAGES,
        default="forward",
        metavar="S",
        help="the stage to print, of those below (forward)",
    )
    show.set_defaults(run=_show)
    report = _with_target(commands, "report", "write a page on which formulas and their code are linked", REPORT_HELP)
    report.add_argument("-o", "--output", metavar="FILE", default="report.html", help="the page (report.html)")
    report.set_defaults(run=_report)
    check = _with_target(commands, "check", "compare a step's results and derivatives with plainer ones", CHECK_HELP)
    check.add_argument("--seed", type=int, default=0, help="of the inputs that are drawn (0)")
    check.set_defaults(run=_check)
    bench = _with_target(commands, "bench", "time a step and set it against this machine's roofline", BENCH_HELP)
    bench.add_argument(
        "--size", type=_size, action="append", default=[], metavar="NAME=VALUE", help="of a run-time dimension (32)"
    )
    bench.add_argument("--seconds", type=float, default=1.0, help="how long to measure, about (1)")
    bench.add_argument("--kernels", action="store_true", help="each kernel's time inside the step too")
    bench.set_defaults(run=_bench)
    return parser


def _with_target(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, what: str, epilog: str
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name, help=what, description=what, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "target",
        metavar="FILE[:NAME]",
        help="a Python script and the variable in it that holds the step or function (step)",
    )
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} given; needs at least 1")
    return number


def _size(text: str) -> tuple[str, int]:
    name, _, value = text.partition("=")
    if not name.isidentifier() or not value.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} given; needs NAME=VALUE, such as N=64")
    return name, int(value)


def _demo(given: argparse.Namespace) -> int:
    """Declare, show, train and judge a linear-ReLU-linear-softmax network on the UCI digits."""
    images, labels = digits()
    order = np.random.default_rng(0).permutation(len(images))
    images, labels = images[order], labels[order]
    n_train = len(images) - HELD_OUT
    rows = dim("N")
    x = declare_input("x", (rows, 64))
    y = declare_input("y", (rows,), dtype="int32")
    w1 = param("w1", (64, 128), init=init.he_normal())
    b1 = param("b1", (128,))
    w2 = param("w2", (128, 10), init=init.glorot_uniform())
    b2 = param("b2", (10,))
    z = (x @ w1 + b1).named("z")
    hidden = functions.relu(z).named("hidden")
    logits = (hidden @ w2 + b2).named("logits")
    loss = mean(cross_entropy(logits, y)).named("loss")
    started = time.perf_counter()
    step = compiler.compile(loss, optim.sgd(lr=0.05, momentum=0.9), seed=0)
    seconds = time.perf_counter() - started

    first = "the loss is the negative log-likelihood of the softmax, one value a row, averaged"
    print(f"{_heading('1. Forward pass')}: {first}.\n")
    print(_indented(step.show("forward")))
    print(f"\n{_heading('2. Back propagation')}: derived from the lines above by the chain rule.\n")
    print(_indented(step.show("grad")))
    print(f"\n{_heading('3. Update')}: stochastic gradient descent with momentum.\n")
    print(_indented(step.show("update")))
    print(f"\nCompiled into one native function in {seconds:.2f} s.")
    print(f"Training on {n_train} images; {HELD_OUT}, drawn at random by a fixed seed, are held out.")
    data = {"x": images[:n_train], "y": labels[:n_train]}
    history = step.fit(data, batch_size=32, epochs=given.epochs, progress=not given.no_progress)
    predict = step.function(logits)
    scores = predict(x=images[n_train:])
    right = int((np.argmax(np.asarray(scores), axis=1) == labels[n_train:]).sum())
    if given.report:
        step.report(given.report, title="digits")
        print(f"{given.report} written")
    print(f"loss {history.losses[0]:.4f} -> {history.losses[-1]:.4f} in {history.seconds:.2f} s")
    print(f"time {time.perf_counter() - started:.2f} s in all")
    print(f"held-out accuracy {right / HELD_OUT:.4f} ({right} of {HELD_OUT})")
    return 0


def _heading(text: str) -> str:
    return _coloured(text, _BOLD, sys.stdout)


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.rstrip().splitlines())


def _loaded(target: str) -> TrainStep | Function:
    """The step that a script's variable holds. Raises UsageError where there is none."""
    file, _, name = target.rpartition(":") if ":" in target[2:] else (target, "", "")
    try:
        with _beside(file):
            variables = runpy.run_path(file, run_name="__graphc__")
    except (errors.GraphcError, OSError):
        raise
    except (Exception, SystemExit) as error:  # whatever the user's script may raise
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
        place = f"{file}:{lines[-1]}" if lines else file
        raise errors.UsageError(f"{place}: the script stops with {type(error).__name__}: {error}") from None
    found = variables.get(name or "step")
    if not isinstance(found, (TrainStep, Function)):
        steps = [key for key, value in variables.items() if isinstance(value, (TrainStep, Function))]
        there = f"there {'is' if len(steps) < 2 else 'are'} {', '.join(steps) or 'none'}"
        raise errors.UsageError(f"{file}: {name or 'step'} is no compiled step; {there}")
    return found


@contextmanager
def _beside(file: str) -> Iterator[None]:
    """With the script's folder first where modules are looked for, as Python has it for a script that it runs."""
    before = list(sys.path)
    sys.path.insert(0, str(Path(file).resolve().parent))
    try:
        yield
    finally:
        sys.path[:] = before


def _show(given: argparse.Namespace) -> int:
    step = _loaded(given.target)
    print(step.show(given.stage))
    return 0


def _report(given: argparse.Namespace) -> int:
    step = _loaded(given.target)
    step.report(given.output, title=Path(given.target.partition(":")[0]).stem)
    print(f"{given.output} written")
    return 0


def _check(given: argparse.Namespace) -> int:
    report = study.check(_loaded(given.target), given.seed)
    for line in str(report).splitlines():
        colour = _RED if line.startswith("FAIL") else _GREEN if line.startswith("ok") else ""
        word = line[:4] if colour else ""
        print((_coloured(word, colour, sys.stdout) if word else "") + line[len(word) :])
    return 0 if report.passed else 1


def _bench(given: argparse.Namespace) -> int:
    step, sizes = _loaded(given.target), dict(given.size)
    print(study.bench(step, sizes, given.seconds))
    if given.kernels:
        print()
        print(step.profile(given.seconds, **study.inputs_for(step, sizes)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
