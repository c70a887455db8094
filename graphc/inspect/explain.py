"""The chain rule as a ledger: for every node its formula, and for each of its consumers upstream, local, product, and
the sum.

The ledger is the one that the differentiator itself wrote while it built the backward graph; nothing is derived twice.
What is differentiated has passed the stable forms first, so the ledger speaks of those, and says what they stand for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from graphc.diff.derivatives import one
from graphc.diff.reverse import Backward, Row, Term, backward, local_derivatives
from graphc.dsl.intern import intern
from graphc.dsl.tensor import Tensor, fail
from graphc.errors import NotDifferentiable, UsageError
from graphc.graph.formula import Formula, plain
from graphc.graph.graph import Array, ConstValue, Graph, Node, Passage
from graphc.graph.show import formula_text, told_apart, type_text
from graphc.inspect.live import Live, n_saturated, numbers, sizes_text
from graphc.inspect.trail import Trail
from graphc.notation.show import to_text
from graphc.ops.record import text
from graphc.rewrite.phases import BEFORE_DERIVATIVES, PHASES, Rewritten, run
from graphc.rewrite.solve import solve
from graphc.rewrite.work import Firing
from graphc.structs import dataclass


@dataclass(frozen=True, slots=True)
class TermText:
    """One consumer's part of a row, as text: who reads, its cotangent (upstream), the local derivative, their
    product.
    """

    consumer: str
    upstream: str
    local: tuple[str, ...]
    product: str


@dataclass(frozen=True, slots=True)
class RowText:
    """One node of the ledger, as text. became: the node that took its cotangent's place in the rewritten graph, or why
    there is none; live: numbers of value and cotangent where values were given."""

    name: str
    type: str
    formula: str
    source: str
    seed: str
    terms: tuple[TermText, ...]
    total: str
    became: str = ""
    live: Live | None = None


@dataclass(frozen=True, slots=True)
class Form:
    """A value that was put into a stable form before it was differentiated: as declared, and as it now stands."""

    declared: str
    stable: str
    source: str

    def __str__(self) -> str:
        return f"{self.declared}  ->  {self.stable}" + (f"    [{self.source}]" if self.source else "")


@dataclass(frozen=True, slots=True)
class Explanation:
    """The ledger, from the loss back to the inputs. ``print`` it, or read ``rows``.

    forms: what stands in another form than declared. note: where live numbers may differ from a step's.
    """

    rows: tuple[RowText, ...]
    forms: tuple[Form, ...] = ()
    note: str = ""

    def __str__(self) -> str:
        parts = [row_text(row) for row in self.rows]
        if self.forms:
            parts.insert(0, "\n".join(["differentiated in stable forms", *(f"  {form}" for form in self.forms)]))
        live = [row.live for row in self.rows if row.live is not None]
        if live:
            parts.append(sizes_text(live))
        return "\n\n".join([*parts, *([self.note] if self.note else [])]) + "\n"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """What a notebook shows: the text, its lines unbroken."""
        return f'<pre style="line-height: 1.2">{escape(str(self))}</pre>'


@dataclass(frozen=True, slots=True)
class Ledger:
    """A loss's ledger, with the graph that it speaks of, whose outputs are ``loss`` and the leaves' cotangents.

    leaves: the declared leaves by name. became: of a cotangent what took its place in the rewritten graph.
    """

    graph: Graph
    backward: Backward
    leaves: Mapping[str, Tensor]
    became: Mapping[Node, str]
    forms: tuple[Form, ...]

    def explained(self, values: Mapping[Node, Array] | None = None, note: str = "") -> Explanation:
        """The ledger as text; values: of the nodes in ``shown_nodes``, for live numbers."""
        return explained(self.graph, self.backward, values, self.became, self.forms, note)

    def shown_nodes(self) -> list[Node]:
        """Every node whose live numbers are shown."""
        found: dict[Node, None] = {}
        for row in self.backward.ledger:
            found.update(dict.fromkeys([row.node, row.total, *(t.product for t in row.terms if _is_elementwise(t))]))
        return list(found)


def ledger_of(loss: Tensor) -> Ledger:
    """The ledger of a scalar loss, back to every floating input and parameter.

    Raises: NotDifferentiable for a loss that is no floating scalar.
    """
    if not isinstance(loss, Tensor):
        fail(UsageError(f"explain: {type(loss).__name__} given; needs a scalar loss"))
    if loss.shape != () or loss.dtype.kind != "f":
        fail(NotDifferentiable(f"explain: a loss of {loss.dtype} {text(loss.shape)} given; needs a floating scalar"))
    interned = intern({"loss": loss})
    interned.graph.updates = {}
    stable = run(interned.graph, BEFORE_DERIVATIVES)
    graph = stable.graph
    node = graph.outputs["loss"]
    wanted = [n for n in graph.live() if n.dtype.kind == "f" and n.kind in ("param", "input")]
    found = backward(graph, {node: one(graph, loss.dtype.name)}, wanted)
    graph.outputs |= {f"d_{n.attr}": ct for n, ct in zip(wanted, found.cotangents, strict=True) if ct is not None}
    passages: list[Passage] = []
    made = run(graph, PHASES, passages=passages)
    became = rewritten_as(passages, made.log, [row.total for row in found.ledger])
    return Ledger(graph, found, interned.leaves, became, forms_of(interned.graph, stable))


def rewritten_as(passages: Sequence[Passage], log: Sequence[Firing], nodes: Iterable[Node]) -> dict[Node, str]:
    """What took the place of some nodes of the first graph in the last one, which is the rewritten one, or which
    rewrites left them without. log: of all passages."""
    trail = Trail(passages, [0] * len(passages))
    found = {}
    for node in nodes:
        fate = trail.fate(node, 0)
        if fate.node is not None:
            found[node] = f"%{fate.node.number} of the rewritten graph"
            continue
        rules = dict.fromkeys(f"{log[k].rule} ({log[k].label})" for k in fate.removed)
        taken = " ".join(f"%{reader.number}" for reader in fate.readers)
        by = f"removed by {', '.join(rules)}" if rules else fate.reason
        found[node] = by + (f"; {taken} of the rewritten graph does its work" if taken else "")
    return found


def forms_of(declared: Graph, stable: Rewritten) -> tuple[Form, ...]:
    """The values that stand in another form after the stable forms were put in, each with what took its place."""
    found = []
    for old, new in stable.replaced.items():
        if isinstance(new, Node) and not _is_same(old, new, stable.replaced):
            site = next((str(o.site) for o in declared.origins.get(old, ()) if o.site), "")
            found.append(Form(_maths(declared, old), _maths(stable.graph, new), site))
    return tuple(form for form in found if form.declared != form.stable)


def _is_same(old: Node, new: Node, replaced: Mapping[Node, Node | str]) -> bool:
    """Whether a node computes what it did: the same operations, in any order, on what its operands became."""
    if old.kind != "formula" or new.kind != "formula":
        return old.kind == new.kind
    operations = [sorted(instr.op for instr in n.formula.body.instrs) for n in (old, new)]
    operands = [{replaced.get(i) for i in old.inputs}, set(new.inputs)]  # compared, never iterated
    return operations[0] == operations[1] and old.formula.combine == new.formula.combine and operands[0] == operands[1]


def _maths(graph: Graph, node: Node) -> str:
    return to_text(graph, [node], define=False).replace("\n", "; ")


def explained(
    graph: Graph,
    backward: Backward,
    values: Mapping[Node, Array] | None = None,
    became: Mapping[Node, str] | None = None,
    forms: tuple[Form, ...] = (),
    note: str = "",
) -> Explanation:
    """The ledger of a backward pass as text.

    values: numbers of nodes, where they are known. became: of a node, what took its place in the rewritten graph.
    """
    names = _names(graph, backward)
    rows = []
    for row in backward.ledger:
        live = _live(row, values, names) if values is not None else None
        rows.append(_row(graph, row, names, (became or {}).get(row.total, ""), live))
    return Explanation(tuple(rows), forms, note)


def _names(graph: Graph, backward: Backward) -> dict[Node, str]:
    """A name for each node: the user's, ``d_`` and that for its cotangent, else a number."""
    names: dict[Node, str] = {}
    taken: dict[str, int] = {}

    def name(node: Node, wished: str) -> None:
        if node not in names:
            names[node] = told_apart(wished, taken)

    for node in graph.nodes:
        own = graph.name(node)
        if own:
            name(node, own)
    for row in backward.ledger:
        name(row.node, _fallback(graph, row.node))
    for row in backward.ledger:
        name(row.total, f"d_{names[row.node]}")
        for term in row.terms:
            name(term.product, f"d_{names[row.node]}_by_{names[term.consumer]}")
    for node in graph.nodes:
        name(node, _fallback(graph, node))
    return names


def _fallback(graph: Graph, node: Node) -> str:
    origins = graph.origins.get(node, ())
    op = next((o.op for o in origins if o.op), "")
    if node.kind == "const":
        return "c"
    return op or "t"


def _row(graph: Graph, row: Row, names: dict[Node, str], became: str, live: Live | None) -> RowText:
    node = row.node
    site = next((str(o.site) for o in graph.origins.get(node, ()) if o.site), "")
    return RowText(
        names[node],
        type_text(node.dtype, node.shape),
        _formula(node, names),
        site,
        "" if row.seed is None else _inline(row.seed, names),
        tuple(_term(graph, t, names) for t in row.terms),
        names[row.total],
        became,
        live,
    )


def _term(graph: Graph, term: Term, names: dict[Node, str]) -> TermText:
    parts = local_derivatives(graph, term)
    for _, inputs in parts:
        for node in inputs:
            names.setdefault(node, _fallback(graph, node))
    local = tuple(named_formula(f, inputs, names) for f, inputs in parts) or (f"{term.consumer.kind}, the other way",)
    product = _inline(term.product, names)
    return TermText(names[term.consumer], names[term.upstream], local, f"{names[term.product]} = {product}")


def _inline(node: Node, names: Mapping[Node, str]) -> str:
    """A derived node: its formula solved, so that it reads as a sum where it was written as a scatter."""
    return named_formula(solve(node.formula), node.inputs, names) if node.kind == "formula" else _formula(node, names)


def _formula(node: Node, names: Mapping[Node, str]) -> str:
    if node.kind == "formula":
        return named_formula(node.formula, node.inputs, names)
    if node.inputs:
        return f"{node.kind}({', '.join(names[i] for i in node.inputs)})"
    if node.kind == "const" and node.shape == ():
        return str(node.attr.array()) if isinstance(node.attr, ConstValue) else "const"
    return node.kind


def named_formula(formula: Formula, inputs: Sequence[Node], names: Mapping[Node, str]) -> str:
    """A formula's index notation with its operands by name."""
    return re.sub(r"\$(\d+)", lambda m: names[inputs[int(m.group(1))]], formula_text(formula))


def _is_elementwise(term: Term) -> bool:
    """Whether a consumer works element by element on the operand, so that its slope there can be judged."""
    node = term.consumer
    if node.kind != "formula" or node.formula.combine != "none" or not term.reads:
        return False
    own = plain(len(node.shape))
    same = node.shape == node.inputs[term.operand].shape and node.formula.is_plain()
    return same and all(node.formula.reads[k].index == own for k in term.reads)


def _live(row: Row, values: Mapping[Node, Array], names: Mapping[Node, str]) -> Live:
    judged = [t for t in row.terms if _is_elementwise(t)]
    saturated = [(names[t.consumer], *n_saturated(values[t.upstream], values[t.product])) for t in judged]
    return Live(
        numbers(names[row.node], values[row.node]), numbers(names[row.total], values[row.total]), tuple(saturated)
    )


def row_text(row: RowText) -> str:
    """A row to read."""
    lines = [f"{row.name}: {row.type} = {row.formula}" + (f"    [{row.source}]" if row.source else "")]
    if row.seed:
        lines.append(f"  seed      {row.seed}")
    for term in row.terms:
        lines.append(f"  through {term.consumer}")
        lines.append(f"    upstream  {term.upstream}")
        lines += [f"    local     {local}" for local in term.local]
        lines.append(f"    product   {term.product}")
    if len(row.terms) + bool(row.seed) > 1:
        lines.append(f"  sum       {row.total}")
    if row.live is not None:
        lines += _live_lines(row.live)
    if row.became:
        lines.append(f"  became    {row.became}")
    return "\n".join(lines)


def _live_lines(live: Live) -> list[str]:
    lines = []
    for label, found in (("value", live.value), ("gradient", live.cotangent)):
        lines.append(f"  {label:9} {found}")
        lines += [f"            |{picture}|" for picture in found.picture]
    for consumer, count, of in live.saturated:
        if count:
            lines.append(f"  saturated {count} of {of} elements pass on under 1% of what reaches {consumer}")
    return lines
