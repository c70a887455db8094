"""The command line: ``graphc demo``, ``graphc show``, ``graphc check``.

Exit codes: 0 for success, 1 for a check that failed, 2 for a mistake in what was asked. Errors come without traceback.
"""

from __future__ import annotations

import argparse
import runpy
import sys
import time
import traceback
from collections.abc import Sequence

import numpy as np

from graphc import compiler, errors
from graphc.data import digits
from graphc.dsl import functions, init, optim
from graphc.dsl.composite import cross_entropy, mean
from graphc.dsl.declare import dim, param
from graphc.dsl.declare import input as declare_input
from graphc.runtime.step import Function, TrainStep

HELD_OUT = 397  # images, drawn at random by a fixed seed, that training does not see


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the process's exit code."""
    parser = _parser()
    given = parser.parse_args(arguments)
    try:
        return int(given.run(given))
    except errors.GraphcError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
    except OSError as error:
        print(f"{error.filename or 'file'}: {error.strerror}", file=sys.stderr)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="graphc", description="Turn a declared network into one native function: forward, backward, update."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    demo = commands.add_parser("demo", help="train a network on handwritten digits, showing the maths first")
    demo.add_argument("--epochs", type=int, default=60, help="passes over the training images (60)")
    demo.add_argument("--no-progress", action="store_true", help="without a progress bar")
    demo.set_defaults(run=_demo)
    show = commands.add_parser("show", help="print a stage of a compiled step")
    _target(show)
    show.add_argument("--stage", choices=compiler.STAGES, default="forward", help="the stage to print (forward)")
    show.set_defaults(run=_show)
    check = commands.add_parser("check", help="compare a step's gradients and results with slower, plainer ones")
    _target(check)
    check.add_argument("--seed", type=int, default=0, help="of the inputs that are drawn (0)")
    check.set_defaults(run=_check)
    return parser


def _target(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "target", metavar="FILE[:NAME]", help="a Python script and the variable in it that holds the step (step)"
    )


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

    print("1. Forward pass: the loss is the negative log-likelihood of the softmax, one value a row, averaged.\n")
    print(_indented(step.show("forward")))
    print("\n2. Back propagation: derived from the lines above by the chain rule.\n")
    print(_indented(step.show("grad")))
    print("\n3. Update: stochastic gradient descent with momentum.\n")
    print(_indented(step.show("update")))
    print(f"\nCompiled into one native function in {seconds:.2f} s; training on {n_train} images.")
    data = {"x": images[:n_train], "y": labels[:n_train]}
    history = step.fit(data, batch_size=32, epochs=given.epochs, progress=not given.no_progress)
    predict = step.function(logits)
    scores = predict(x=images[n_train:])
    right = int((np.argmax(np.asarray(scores), axis=1) == labels[n_train:]).sum())
    print(f"loss {history.losses[0]:.4f} -> {history.losses[-1]:.4f} in {history.seconds:.2f} s")
    print(f"time {time.perf_counter() - started:.2f} s in all")
    print(f"held-out accuracy {right / HELD_OUT:.4f} ({right} of {HELD_OUT})")
    return 0


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.rstrip().splitlines())


def _loaded(target: str) -> TrainStep | Function:
    """The step that a script's variable holds. Raises UsageError where there is none."""
    file, _, name = target.rpartition(":") if ":" in target[2:] else (target, "", "")
    try:
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
        there = f"there are {', '.join(steps)}" if steps else "there is none"
        raise errors.UsageError(f"{file}: {name or 'step'} is no compiled step; {there}")
    return found


def _show(given: argparse.Namespace) -> int:
    step = _loaded(given.target)
    print(step.show(given.stage))
    return 0


def _check(given: argparse.Namespace) -> int:
    report = compiler.check(_loaded(given.target), given.seed)
    print(report)
    return 0 if report.passed else 1


if __name__ == "__main__":
    sys.exit(main())
