"""Looking into a program: its stages as text, as maths and as a drawing, built when they are asked for."""

from __future__ import annotations

from collections.abc import Callable

from graphc.diff.reverse import Backward
from graphc.errors import UsageError
from graphc.graph.graph import Graph, Node, rebuild
from graphc.graph.text import to_text
from graphc.inspect.draw import Drawing, drawing_of
from graphc.inspect.explain import explained, forms_of
from graphc.kernels.show import memory_text, program_text
from graphc.llvm.target import host
from graphc.notation.expressions import graph_lines, has_name
from graphc.notation.show import to_mathml
from graphc.notation.show import to_text as maths
from graphc.pipeline import Declared, Options, Stages, derive, gradient_name, stages
from graphc.rewrite.phases import BEFORE_DERIVATIVES, PHASES, run
from graphc.runtime.jit import assembly

STAGES = (
    "declared", "forward", "grad", "update", "ledger", "optimized", "rewrites", "kernels", "memory", "llvm", "asm",
    "svg",
)  # fmt: skip


def show(declared: Declared, options: Options, stage: str = "") -> str:
    """The text of one stage of a program, or of all of them; the stages are built again.

    Raises: UsageError for an unknown stage.
    """
    if stage and stage not in STAGES:
        raise UsageError(f"show: stage {stage!r} given; needs one of {', '.join(STAGES)}")
    made = stages(declared, options)
    found: dict[str, Callable[[], str]] = {
        "declared": lambda: to_text(declared.graph),
        "forward": lambda: maths(declared.graph, dict(declared.graph.outputs)) + "\n",
        "grad": lambda: _maths(_gradients(made.derived, made.backward, declared)) if made.backward else _NO_LOSS,
        "update": lambda: _maths(_updates(declared)),
        "ledger": lambda: _ledger(made, options),
        "optimized": lambda: to_text(made.rewritten.graph),
        "rewrites": lambda: made.rewritten.text(),
        "kernels": lambda: program_text(made.program),
        "memory": lambda: memory_text(made.program),
        "llvm": lambda: made.llvm,
        "asm": lambda: assembly([made.llvm], host()),
        "svg": lambda: _drawing(made).svg,
    }
    if stage:
        return found[stage]()
    return "\n".join(f"== {name} ==\n{found[name]()}" for name in STAGES if name != "svg")


_NO_LOSS = "a plain function has no loss that was differentiated\n"


def rich(declared: Declared, options: Options) -> str:
    """The maths of forward pass, gradients and update as HTML with MathML in it."""
    parts = [("Forward pass", to_mathml(declared.graph, dict(declared.graph.outputs)))]
    _, found, derived = derive(declared, options.fast_math)
    if found is not None:
        parts.append(("Back propagation", to_mathml(_gradients(derived, found, declared))))
        parts.append(("Update", to_mathml(_updates(declared))))
    return "".join(f"<h4>{title}</h4>{element}" for title, element in parts)


def _maths(graph: Graph) -> str:
    """A graph as lines of maths."""
    return maths(graph) + "\n"


def _gradients(graph: Graph, found: Backward, declared: Declared) -> Graph:
    """The graph of the derivatives by every trained parameter, simplified by rules that keep every bit."""
    named_by = zip(declared.trained, found.cotangents, strict=True)
    graph.outputs = {f"d_{name}": node for name, node in named_by if node is not None}
    graph.updates = {}
    named = frozenset(node for node in graph.live() if has_name(graph, node))
    return run(graph, PHASES, fast_math=False, protect=named).graph


def _ledger(made: Stages, options: Options) -> str:
    """The chain rule of a step, row by row."""
    if made.backward is None:
        return _NO_LOSS
    stable = run(made.declared.graph, BEFORE_DERIVATIVES, fast_math=options.fast_math)
    return str(explained(made.derived, made.backward, forms=forms_of(made.declared.graph, stable)))


def _drawing(made: Stages) -> Drawing:
    """The drawing of a step: forward pass, gradients, update."""
    graph, declared = made.declared.graph, made.declared
    if made.backward is None:
        return drawing_of(graph, dict(graph.outputs))
    backward = graph_lines(_gradients(made.derived, made.backward, declared))
    return drawing_of(graph, dict(graph.outputs), backward, graph_lines(_updates(declared)))


def _updates(declared: Declared) -> Graph:
    """The graph of the new values of parameters and states, over gradients as ``d_`` and their names."""
    names = {gradient_name(name): f"d_{name}" for name in declared.trained}

    def make(result: Graph, node: Node, inputs: tuple[Node, ...]) -> Node:
        attr = names.get(str(node.attr), node.attr) if node.kind == "input" else node.attr
        return result.add(node.kind, inputs, attr, node.dtype, node.shape)

    graph = rebuild(declared.graph, make)[0]
    graph.outputs = {}
    return graph
