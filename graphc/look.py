"""Looking into a program: its stages as text, as maths and as a drawing, built when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from graphc.diff.reverse import Backward
from graphc.errors import UsageError
from graphc.graph.graph import Graph, Node, Passage, rebuild
from graphc.graph.text import to_text
from graphc.inspect.annotated import annotated, phases_of, rewrites_text
from graphc.inspect.draw import Drawing, drawing_of
from graphc.inspect.explain import Explanation, explained, forms_of, rewritten_as
from graphc.inspect.links import DECLARED, DERIVED, Links, link
from graphc.inspect.profile import Profile
from graphc.inspect.report import (
    FormulaData,
    cost_data,
    formulas_data,
    ledger_data,
    links_data,
    memory_data,
    page,
    passes_of,
    phases_data,
    rewrites_data,
)
from graphc.inspect.spans import asm_code, llvm_code
from graphc.inspect.trail import Trail
from graphc.kernels.cost import cost
from graphc.kernels.lower import prepared
from graphc.kernels.show import listing, memory_text, program_text
from graphc.llvm.emit import emit
from graphc.llvm.target import host
from graphc.notation.expressions import graph_lines, has_name
from graphc.notation.show import to_mathml
from graphc.notation.show import to_text as maths
from graphc.notation.tree import Line
from graphc.pipeline import Declared, Options, Stages, derive, gradient_name, stages, uncollected
from graphc.rewrite.phases import PHASES, run
from graphc.rewrite.work import Firing
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
    made = stages(declared, options, traced=stage in ("", "asm", "ledger", "rewrites"))
    found: dict[str, Callable[[], str]] = {
        "declared": lambda: to_text(declared.graph),
        "forward": lambda: maths(declared.graph, dict(declared.graph.outputs)) + "\n",
        "grad": lambda: _maths(_gradients(made.derived, made.backward, declared)) if made.backward else _NO_LOSS,
        "update": lambda: _maths(_updates(declared)),
        "ledger": lambda: _ledger(made),
        "optimized": lambda: to_text(made.rewritten.graph),
        "rewrites": lambda: rewrites_text(phases_of(made.passages), _firings(made)),
        "kernels": lambda: program_text(made.program, prepared(made.rewritten.graph)),
        "memory": lambda: memory_text(made.program),
        "llvm": lambda: emit(made.program, host()),
        "asm": lambda: _annotated(made),
        "svg": lambda: _drawing(made).svg,
    }
    if stage:
        return found[stage]()
    return "\n".join(f"== {name} ==\n{found[name]()}" for name in STAGES if name != "svg")


_NO_LOSS = "a plain function has no loss that was differentiated\n"


def rich(declared: Declared, options: Options) -> str:
    """The maths of forward pass, gradients and update as HTML with MathML in it."""
    parts = [("Forward pass", to_mathml(declared.graph, dict(declared.graph.outputs)))]
    derived = derive(declared, options.fast_math)
    if derived.backward is not None:
        parts.append(("Back propagation", to_mathml(_gradients(derived.source, derived.backward, declared))))
        parts.append(("Update", to_mathml(_updates(declared))))
    return "".join(f"<h4>{title}</h4>{element}" for title, element in parts)


def _maths(graph: Graph) -> str:
    """A graph as lines of maths."""
    return maths(graph) + "\n"


def _gradients(
    graph: Graph, found: Backward, declared: Declared, passages: list[Passage] | None = None
) -> Graph:
    """The graph of the derivatives by every trained parameter, simplified by rules that keep every bit."""
    named_by = zip(declared.trained, found.cotangents, strict=True)
    graph.outputs = {f"d_{name}": node for name, node in named_by if node is not None}
    graph.updates = {}
    named = frozenset(node for node in graph.live() if has_name(graph, node))
    return run(graph, PHASES, fast_math=False, protect=named, passages=passages).graph


def _ledger(made: Stages) -> str:
    """The chain rule of a step, row by row."""
    return str(_explained(made, made.backward)) if made.backward is not None else _NO_LOSS


def _explained(made: Stages, backward: Backward) -> Explanation:
    forms = forms_of(made.declared.graph, made.stable) if made.stable is not None else ()
    first = next(k for k, p in enumerate(made.passages) if p.name == "derived")
    end = next(k for k, p in enumerate(made.passages) if p.before is made.rewritten.graph)
    totals = [row.total for row in backward.ledger]
    became = rewritten_as(made.passages[first:end], made.rewritten.log, totals)
    return explained(made.derived, backward, became=became, forms=forms)


def _annotated(made: Stages) -> str:
    """The assembly, with comments that say what it comes from."""
    links = _links(made)
    return annotated(links, links.asm, "\t#" if host().triple.startswith("x86") else "\t//")


@uncollected()
def report(declared: Declared, options: Options, title: str, profile: object = None, training: str = "") -> str:
    """The report of a program, a page of HTML. profile: for measured times; training: HTML about it.

    Raises: UsageError for a profile that is none of this program.
    """
    made = stages(declared, options, traced=True)
    n_kernels = len(made.program.kernels)
    if profile is not None and not (isinstance(profile, Profile) and len(profile.kernels) == n_kernels):
        of = f" of {len(profile.kernels)} kernels" if isinstance(profile, Profile) else ""
        given = f"{type(profile).__name__}{of}"
        raise UsageError(f"report: profile: {given} given; needs what step.profile gave for this step")
    links = _links(made)
    formulas, forward, backward, updates = _formulas(made, links)
    outputs = dict(declared.graph.outputs)
    drawing = drawing_of(declared.graph, outputs, backward, updates if made.backward else (), forward=forward)
    target = host()
    data = links_data(links) | cost_data(cost(made.program), made.program, links, passes_of(formulas, links), profile)
    data |= {
        "about": f"{len(links.values)} values, {n_kernels} kernels; {target.cpu}, {target.triple}",
        "formulas": formulas, "ledger": [], "rewrites": rewrites_data(_firings(made)),
        "phases": phases_data(phases_of(made.passages)), "memory": memory_data(made.program, links),
        "drawing": drawing.svg, "training": training,
    }  # fmt: skip
    if made.backward is not None:
        data["ledger"] = ledger_data(_explained(made, made.backward), made.backward, _carried(made), links)
    return page(title, data)


def _formulas(
    made: Stages, links: Links
) -> tuple[list[FormulaData], Sequence[Line], Sequence[Line], Sequence[Line]]:
    """The maths of a program, each line with its values; and the lines of its forward pass, gradients and updates."""
    declared = made.declared
    place = {(v.stage, v.number): k for k, v in enumerate(links.values)}
    at = {node: [place[DECLARED, node.number]] for node in declared.graph.live()}
    forward = graph_lines(declared.graph, dict(declared.graph.outputs))
    found = formulas_data("Forward pass", forward, declared.graph, at)
    backward: Sequence[Line] = ()
    changes: Sequence[Line] = ()
    if made.backward is not None:
        passages: list[Passage] = []
        gradients = _gradients(made.derived, made.backward, declared, passages)
        carried, origins = _carried(made), Trail(passages, [0] * len(passages)).origins(made.derived, 0)
        into = {old: place.get((DERIVED, new.number)) for old, new in carried.items()}
        where = {node: [k for k in map(into.get, roots) if k is not None] for node, roots in origins.items()}
        backward = graph_lines(gradients)
        found += formulas_data("Back propagation", backward, gradients, where)
    if declared.graph.updates:
        updates, new = _updates_from(declared)
        where = {node: at[old] for old, node in new.items()}
        changes = graph_lines(updates)
        found += formulas_data("Update", changes, updates, where)
    return found, forward, backward, changes


def _carried(made: Stages) -> Mapping[Node, Node]:
    """Of a node of the ledger's graph the one in the whole step's."""
    return next(p.new for p in made.passages if p.name == "derived")


def _firings(made: Stages) -> tuple[Firing, ...]:
    """Every rewrite that fired, those before derivatives were taken first."""
    return (made.stable.log if made.stable is not None else ()) + made.rewritten.log


def links_of(declared: Declared, options: Options) -> Links:
    """The links between values, kernels, LLVM and assembly."""
    return _links(stages(declared, options, traced=True))


def _links(made: Stages) -> Links:
    traced = made.llvm
    llvm, callers = llvm_code(traced, emit(made.program, host()))
    asm = asm_code(assembly([traced], host()), callers)
    n_stable = len(made.stable.log) if made.stable is not None else 0
    behind = next((k for k, p in enumerate(made.passages) if p.name == "derived"), -1)
    offsets = [0 if k < behind else n_stable for k in range(len(made.passages))]
    graphs = {DECLARED: made.declared.graph, DERIVED: made.step}
    names = [f"{kernel.name}_{position}" for position, kernel in enumerate(made.program.kernels)]
    lines = listing(made.program, made.passages[-1].after)
    return link(graphs, made.passages, offsets, made.rewritten.graph, lines, llvm, asm, names)


def _drawing(made: Stages) -> Drawing:
    """The drawing of a step: forward pass, gradients, update."""
    graph, declared = made.declared.graph, made.declared
    if made.backward is None:
        return drawing_of(graph, dict(graph.outputs))
    backward = graph_lines(_gradients(made.derived, made.backward, declared))
    return drawing_of(graph, dict(graph.outputs), backward, graph_lines(_updates(declared)))


def _updates(declared: Declared) -> Graph:
    """The graph of the new values of parameters and states, over gradients as ``d_`` and their names."""
    return _updates_from(declared)[0]


def _updates_from(declared: Declared) -> tuple[Graph, dict[Node, Node]]:
    """That graph, and its node for each of the declared one."""
    names = {gradient_name(name): f"d_{name}" for name in declared.trained}

    def make(result: Graph, node: Node, inputs: tuple[Node, ...]) -> Node:
        attr = names.get(str(node.attr), node.attr) if node.kind == "input" else node.attr
        return result.add(node.kind, inputs, attr, node.dtype, node.shape)

    graph, new = rebuild(declared.graph, make)
    graph.outputs = {}
    return graph, new
