"""The graph made ready for loops: formulas solved, markers removed, views composed, products given a layout.

After this every formula is in the form that lowering takes: a gather (plain write map) or a scatter. A node that merely
reads another (a transpose, a slice, a broadcast) is composed into its readers. An operand of a product whose vector
axis would be strided is copied once into the layout that the product wants.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.graph.formula import (
    Affine,
    Formula,
    FromData,
    Guard,
    Index,
    Read,
    map_operands,
    plain,
    range_of,
    substitute,
    substitute_guard,
    substitute_read,
    var,
)
from graphc.graph.graph import Graph, Node, Origin, Passage, copy_node, rebuild, users
from graphc.graph.scalar import BodyBuilder, Scalar, trace
from graphc.graph.sizes import SizeLike, at_most
from graphc.kernels.form import LANES
from graphc.kernels.schedule import NOMINAL, nominal, pays_as_dots
from graphc.ops.combiners import COMBINERS
from graphc.ops.special import SPECIAL
from graphc.rewrite.solve import solve, tidy
from graphc.structs import dataclass, replace

MARK = "copy"  # a formula node with this origin rule is a layout copy, which is not composed away


@dataclass(frozen=True, slots=True)
class Product:
    """A sum of products of two reads as a matrix product: out axes ``row`` (of read ``left``) and ``column`` (of
    ``right``).
    """

    left: int
    right: int
    row: int
    column: int


def prepare(graph: Graph, passages: list[Passage] | None = None) -> tuple[Graph, dict[Node, Node]]:
    """The prepared graph and the map from the old nodes. passages: where each of the three steps is noted."""
    first, one = rebuild(graph, _solved)
    single = {n for n, readers in users(first.live()).items() if len(readers) == 1}
    second, two = rebuild(first, lambda g, node, inputs: _composed(g, node, inputs, single))
    third, three = rebuild(second, _laid_out)
    if passages is not None:
        passages.append(Passage("solved", graph, first, one, tuple(first.nodes)))
        passages.append(Passage("composed", first, second, two, tuple(second.nodes)))
        passages.append(Passage("laid out", second, third, three, tuple(third.nodes)))
    return third, {old: three[two[mid]] for old, mid in one.items() if mid in two and two[mid] in three}


def _solved(graph: Graph, node: Node, inputs: tuple[Node, ...]) -> Node:
    if node.kind in SPECIAL and SPECIAL[node.kind].is_operand:
        return inputs[0]
    if node.kind != "formula":
        return copy_node(graph, node, inputs)
    formula = solve(node.formula)
    expand = COMBINERS[formula.combine].expand
    return expand(graph, formula, inputs) if expand is not None else graph.formula(formula, inputs)


def is_view(node: Node) -> bool:
    """Whether a node only reads another at other indices: it is composed into its readers."""
    if node.kind != "formula":
        return False
    f = node.formula
    return f.combine == "none" and f.body.is_read() is not None and len(f.reads) == 1


def is_layout(graph: Graph, node: Node) -> bool:
    """Whether a node is a copy made for a product's sake."""
    return any(o.rule == MARK for o in graph.origins.get(node, ()))


def _composed(graph: Graph, node: Node, inputs: tuple[Node, ...], single: set[Node]) -> Node:
    """``node`` over new inputs, with reads of views replaced by reads of what they view. single: old nodes of one
    reader.
    """
    if node.kind != "formula":
        return copy_node(graph, node, inputs)
    formula = node.formula
    operands = list(inputs)
    for k, read in enumerate(formula.reads):
        if node.inputs[read.operand] in single and any(isinstance(i, FromData) for i in read.index):
            formula = _picked(formula, k, operands)
    changed = True
    while changed:
        changed = False
        reads = list(formula.reads)
        for k, read in enumerate(reads):
            view = operands[read.operand]
            if not is_view(view):
                continue
            new = compose(read, view, operands)
            if new is not None:
                reads[k] = new
                changed = True
        if changed:
            formula = replace(formula, reads=tuple(reads))
    formula, used = drop_unused(formula, operands)
    return graph.formula(tidy(formula) if formula.combine in ("sum", "none") else formula, used)


def _picked(formula: Formula, number: int, operands: list[Node]) -> Formula:
    """The formula with an elementwise node that read ``number`` picks elements of computed at those elements alone."""
    read = formula.reads[number]
    picked = operands[read.operand]
    if picked.kind != "formula" or picked.formula.combine != "none" or picked.formula.guards or read.guards:
        return formula
    if picked.formula.body.indices():
        return formula
    known = len(operands)
    found = [compose_indices(read.index, inner, (), picked, operands) for inner in picked.formula.reads]
    if any(f is None for f in found):
        del operands[known:]
        return formula
    reads = formula.reads + tuple(f[0] for f in found if f is not None)
    builder = BodyBuilder()
    first = len(formula.reads)
    own = [builder.read(first + k, operands[reads[first + k].operand].dtype) for k in range(len(found))]
    value = builder.include(picked.formula.body, own)[-1]
    table: list[Scalar | None] = [None] * first
    table[number] = value
    body = builder.finish(builder.include(formula.body, table)[-1])
    return replace(formula, reads=reads, body=body)


def compose(read: Read, view: Node, operands: list[Node]) -> Read | None:
    """``read`` of ``view`` as a read of what it views; new operands are appended. None where index maps do not
    compose.
    """
    f = view.formula
    inner = f.reads[0]
    found = compose_indices(read.index, inner, f.guards, view, operands)
    if found is None:
        return None
    moved, guards = found
    return Read(moved.operand, moved.index, tuple(dict.fromkeys(read.guards + guards + moved.guards)))


def compose_indices(
    index: tuple[Index, ...], inner: Read, guards: tuple[Guard, ...], view: Node, operands: list[Node]
) -> tuple[Read, tuple[Guard, ...]] | None:
    """``inner`` (a read of ``view``'s formula, with that formula's guards) where the view itself is read at
    ``index``.
    """
    data_axes = {v for v, i in enumerate(index) if isinstance(i, FromData)}
    table: list[Affine | None] = [i if isinstance(i, Affine) else None for i in index]

    def operand(number: int) -> int:
        node = view.inputs[number]
        for k, known in enumerate(operands):
            if known is node:
                return k
        operands.append(node)
        return len(operands) - 1

    def moved_guard(guard: Guard) -> Guard | None:
        terms = [v for v, _ in guard.expr.terms] + [
            v for i in (guard.data.index if guard.data else ()) for v, _ in i.terms
        ]
        if any(v in data_axes for v in terms):
            return None
        moved = substitute_guard(guard, table)
        return replace(moved, data=replace(moved.data, operand=operand(moved.data.operand))) if moved.data else moved

    def moved_index(i: Index) -> Index | None:
        if isinstance(i, FromData):
            if any(v in data_axes for a in i.index for v, _ in a.terms):
                return None
            return FromData(operand(i.operand), tuple(substitute(a, table) for a in i.index), i.bound)
        used = [v for v, _ in i.terms if v in data_axes]
        if not used:
            return substitute(i, table)
        if i.variable() is None:
            return None
        return index[used[0]]

    new_guards = [moved_guard(g) for g in guards]
    own_guards = [moved_guard(g) for g in inner.guards]
    new_index = [moved_index(i) for i in inner.index]
    if any(g is None for g in new_guards + own_guards) or any(i is None for i in new_index):
        return None
    kept = tuple(i for i in new_index if i is not None)
    return (
        Read(operand(inner.operand), kept, tuple(g for g in own_guards if g is not None)),
        tuple(g for g in new_guards if g is not None),
    )


def drop_unused(formula: Formula, operands: Sequence[Node]) -> tuple[Formula, tuple[Node, ...]]:
    """The formula over those operands alone that it names, each once."""
    order: dict[Node, int] = {}
    numbers: dict[int, int] = {}

    def new(old: int) -> int:
        if old not in numbers:
            numbers[old] = order.setdefault(operands[old], len(order))
        return numbers[old]

    moved = map_operands(formula, new)
    reads: dict[Read, int] = {}
    table: list[int] = []
    for read in moved.reads:
        table.append(reads.setdefault(read, len(reads)))
    if len(reads) < len(moved.reads):
        builder = BodyBuilder()
        nodes = list(order)
        replaced: list[Scalar | None] = [
            builder.read(table[k], nodes[r.operand].dtype) for k, r in enumerate(moved.reads)
        ]
        body = builder.finish(builder.include(moved.body, replaced)[-1])
        moved = replace(moved, reads=tuple(reads), body=body)
    return moved, tuple(order)


def in_bounds(read: Read, shape: Sequence[SizeLike], extents: tuple[SizeLike, ...]) -> bool:
    """Whether every affine index of a read lies inside ``shape`` at every point, guards aside."""
    for index, extent in zip(read.index, shape, strict=True):
        if isinstance(index, Affine):
            low, high = range_of(index, extents)
            if not at_most(0, low) or not at_most(high, extent - 1):
                return False
    return True


def product_of(formula: Formula) -> Product | None:
    """The matrix product that a formula is, or None.

    A sum whose body multiplies two different reads, each with an axis of the result that the other lacks; ``column`` is
    the result's last such axis, and the read that has it is ``right``.
    """
    if formula.combine != "sum" or not formula.is_plain() or not formula.reduced():
        return None
    last = formula.body.result
    instrs = formula.body.instrs
    if (
        len(instrs) != 3
        or not last.is_product
        or any(instrs[a].op != "read" for a in last.args)
        or last.args[0] == last.args[1]
    ):
        return None
    names = [set(_variables(formula.reads[k])) for k in (0, 1)]
    shared = names[0] & names[1]
    if not any(v in shared for v in formula.reduced()):
        return None
    own = [[v for v in range(len(formula.shape)) if v in names[k] and v not in names[1 - k]] for k in (0, 1)]
    if not own[0] or not own[1]:
        return None
    right = 0 if own[0][-1] > own[1][-1] else 1
    return Product(1 - right, right, own[1 - right][-1], own[right][-1])


def _variables(read: Read) -> tuple[int, ...]:
    affines = [a for i in read.index for a in ((i,) if isinstance(i, Affine) else i.index)]
    return tuple(dict.fromkeys(v for a in affines for v, _ in a.terms))


def _laid_out(graph: Graph, node: Node, inputs: tuple[Node, ...]) -> Node:
    """A product with those of its operands copied that its tile cannot read as they lie."""
    if node.kind != "formula":
        return copy_node(graph, node, inputs)
    formula, operands = node.formula, inputs
    product = product_of(formula)
    if product is not None:
        for number, column in ((product.left, None), (product.right, product.column)):
            if not _lies_well(formula, formula.reads[number], column):
                formula, operands = _copied(graph, formula, operands, number, column)
        left, right = product.left, product.right
        for few, own, many in ((left, product.row, right), (right, product.column, left)):
            if _is_few(formula, formula.reads[few], own, formula.reads[many]):
                formula, operands = _copied(graph, formula, operands, few, formula.reduced()[0])
    return graph.formula(formula, operands)


def _is_few(formula: Formula, few: Read, own: int, many: Read) -> bool:
    """Whether an operand with the variable ``own`` is worth copying so that it lies along the sum as the other does:
    the product is then dot products, for which the other need not be turned."""
    summed = formula.reduced()
    if len(summed) != 1 or [read.index[-1] == var(summed[0]) for read in (few, many)] != [False, True]:
        return False
    extents, lanes = formula.extents, LANES[formula.dtype.name]
    others = [v for v in _variables(many) if v != summed[0]]
    enough = any(nominal(extents[v]) >= NOMINAL for v in others)
    return enough and extents[own] != 1 and pays_as_dots(extents[own], extents[summed[0]], lanes)


def _lies_well(formula: Formula, read: Read, column: int | None) -> bool:
    """Whether a tile reads an operand in place: unguarded, by affine indices, and the right one (which has the column)
    side by side along the columns or along the one summed variable."""
    if read.guards or not all(isinstance(i, Affine) for i in read.index):
        return False
    if column is None:
        return True
    last, rest = read.index[-1], [v for i in read.index[:-1] for v in _axis_variables(i)]
    if isinstance(last, Affine) and last.coefficient(column) == 1 and column not in rest:
        return True
    summed = formula.reduced()
    return len(summed) == 1 and isinstance(last, Affine) and last.terms == ((summed[0], 1),) and summed[0] not in rest


def _copied(
    graph: Graph, formula: Formula, inputs: tuple[Node, ...], number: int, column: int | None
) -> tuple[Formula, tuple[Node, ...]]:
    """The formula with read ``number`` from a copy of its own, whose axes are the read's variables, the column last."""
    read = formula.reads[number]
    guards = [v for g in read.guards for e in (g.expr, *(g.data.index if g.data else ())) for v, _ in e.terms]
    variables = dict.fromkeys([*_variables(read), *guards])
    axes = sorted(v for v in variables if v != column) + ([] if column is None else [column])
    table: list[Affine] = [var(0)] * len(formula.extents)
    for k, v in enumerate(axes):
        table[v] = var(k)
    extents = tuple(formula.extents[v] for v in axes)
    body = trace(lambda x: x, [inputs[read.operand].dtype])
    copied, operands = drop_unused(
        Formula(extents, plain(len(axes)), extents, (substitute_read(read, table),), body), inputs
    )
    layout = graph.formula(copied, operands, [Origin(rule=MARK)])
    reads = list(formula.reads)
    reads[number] = Read(len(inputs), tuple(var(v) for v in axes))
    return drop_unused(replace(formula, reads=tuple(reads)), inputs + (layout,))


def _axis_variables(index: Index) -> tuple[int, ...]:
    affines = (index,) if isinstance(index, Affine) else index.index
    return tuple(v for a in affines for v, _ in a.terms)
