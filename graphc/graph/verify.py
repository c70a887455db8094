"""The verifier of graphs: what every stage may rely on, checked between stages.

Each node's inputs stand before it; kinds are known; a formula is well formed, its operands have the ranks and types
that it reads, every read and write is provably in bounds, and its body is typed as the primitives' records say.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from graphc.errors import DTypeError, InternalError
from graphc.graph.bounds import within
from graphc.graph.dtypes import DType, boolean, int64
from graphc.graph.formula import Affine, Formula, FromData, Guard, Index, Shape, check
from graphc.graph.graph import LEAVES, NAMED, ConstValue, Graph, Node
from graphc.graph.primitives import PRIMITIVES
from graphc.graph.scalar import Body, Instr, const_text, const_value
from graphc.graph.show import affine_text, formula_text, index_names, read_text
from graphc.graph.sizes import Size, SizeLike, at_most

SPECIAL_KINDS = ("reshape", "stop_gradient", "variable")  # the second kind of record: ops/special.py holds their rules
UPDATED = ("param", "state", "count")

Types = tuple[tuple[DType, Shape], ...]


def verify(graph: Graph, special_kinds: Collection[str] = SPECIAL_KINDS) -> None:
    """Returns nothing where the graph is sound.

    Raises: InternalError that names the node, what it holds and the rule that it breaks.

    >>> from graphc.graph.dtypes import float32
    >>> g = Graph()
    >>> g.outputs["x"] = g.add("input", (), "x", float32, (3,))
    >>> verify(g)
    >>> g.outputs["y"] = g.add("frob", (g.nodes[0],), None, float32, (3,))
    >>> verify(g)
    Traceback (most recent call last):
    ...
    graphc.errors.InternalError: verify: %1 frob float32[3]: no node of this kind is known
    """
    checked: dict[int, Types] = {}  # formulas by identity: equal ones are nearly always one object
    names: dict[tuple[str, object], Node] = {}
    for place, node in enumerate(graph.nodes):
        _place(graph, place, node)
        if node.kind == "formula":
            formula = node.attr
            if not isinstance(formula, Formula):
                raise _fault(node, "a formula node without a formula")
            types = tuple((i.dtype, i.shape) for i in node.inputs)
            if checked.get(id(formula)) != types:
                _formula(node, formula, types)
                checked[id(formula)] = types
            if formula.dtype != node.dtype or formula.shape != node.shape:
                raise _fault(node, f"its formula gives {formula.dtype}{list(formula.shape)}")
        elif node.kind in LEAVES:
            _leaf(node)
            if node.kind in NAMED and names.setdefault((node.kind, node.attr), node) is not node:
                raise _fault(node, f"the {node.kind} {node.attr!r} stands twice, with another type")
        elif node.kind not in special_kinds:
            raise _fault(node, "no node of this kind is known")
    _ends(graph)


def _fault(node: Node, rule: str) -> InternalError:
    shape = ", ".join(str(s) for s in node.shape)
    return InternalError(f"verify: %{node.number} {node.kind} {node.dtype}[{shape}]: {rule}")


def _place(graph: Graph, place: int, node: Node) -> None:
    if node.number != place:
        raise _fault(node, f"it stands at {place}")
    for operand in node.inputs:
        if not operand.number < place:
            raise _fault(node, f"its input %{operand.number} does not stand before it")
        if graph.nodes[operand.number] is not operand:
            raise _fault(node, f"its input %{operand.number} belongs to another graph")
    for size in node.shape:
        if isinstance(size, bool) or not isinstance(size, (int, Size)) or (isinstance(size, int) and size < 0):
            raise _fault(node, f"{size!r} is no size")


def _leaf(node: Node) -> None:
    if node.inputs:
        raise _fault(node, "a leaf with inputs")
    if node.kind in NAMED and not (isinstance(node.attr, str) and node.attr):
        raise _fault(node, "it has no name")
    if node.kind in ("hyper", "count", "training") and node.shape:
        raise _fault(node, "it has axes; needs a single value")
    if node.kind == "const":
        value = node.attr
        if not isinstance(value, ConstValue):
            raise _fault(node, "a constant without a value")
        count = node.dtype.itemsize
        for size in value.shape:
            count *= size
        if value.dtype != node.dtype.name or value.shape != node.shape or len(value.data) != count:
            raise _fault(node, f"its value is {value.dtype}{list(value.shape)} in {len(value.data)} bytes")


def _ends(graph: Graph) -> None:
    for name, node in graph.outputs.items():
        _stands(graph, node, f"output {name!r}")
    for target, value in graph.updates.items():
        _stands(graph, target, "update")
        _stands(graph, value, "update")
        if target.kind not in UPDATED:
            raise _fault(target, f"it is updated; needs one of {', '.join(UPDATED)}")
        if value.dtype != target.dtype or value.shape != target.shape:
            raise _fault(target, f"its new value %{value.number} is {value.dtype}{list(value.shape)}")


def _stands(graph: Graph, node: Node, what: str) -> None:
    if not (0 <= node.number < len(graph.nodes) and graph.nodes[node.number] is node):
        raise _fault(node, f"the {what} belongs to another graph")


def _formula(node: Node, formula: Formula, types: Types) -> None:
    """Checks a formula over operands of the given types."""
    try:
        check(formula)
    except InternalError as error:
        raise _fault(node, str(error)) from error
    if formula.operands() != len(types):
        raise _fault(node, f"{len(types)} inputs; its formula names {formula.operands()}")
    if formula.combine in ("argmax", "argmin") and len(formula.extents) != len(formula.write) + 1:
        raise _fault(node, f"{formula.combine} joins over one index")
    if formula.combine in ("any", "all") and formula.body.dtype != boolean:
        raise _fault(node, f"{formula.combine} of {formula.body.dtype}; needs bool")
    if formula.combine == "logsumexp" and formula.body.dtype.kind != "f":
        raise _fault(node, f"logsumexp of {formula.body.dtype}; needs a float")
    _guards(node, formula, formula.guards, formula.guards, types)
    for axis, (index, size) in enumerate(zip(formula.write, formula.shape, strict=True)):
        _index(node, formula, index, size, formula.guards, types, f"axis {axis} of the result")
    for read in formula.reads:
        _, shape = types[read.operand]
        operand = f"%{node.inputs[read.operand].number}"
        if len(read.index) != len(shape):
            text = read_text(read, index_names(formula))
            raise _fault(node, f"the read {text} of {operand}, which has {len(shape)} axes")
        guards = formula.guards + read.guards
        _guards(node, formula, read.guards, guards, types)
        for axis, (index, size) in enumerate(zip(read.index, shape, strict=True)):
            _index(node, formula, index, size, guards, types, f"axis {axis} of {operand}")
    for instr in formula.body.instrs:
        if instr.op == "read" and isinstance(instr.attr, int):
            operand_number = formula.reads[instr.attr].operand
            if instr.dtype != types[operand_number][0]:
                given = f"%{node.inputs[operand_number].number}, which is {types[operand_number][0]}"
                raise _fault(node, f"the body reads as {instr.dtype} {given}")
    _body(node, formula.body)


def _index(
    node: Node, formula: Formula, index: Index, size: SizeLike, guards: tuple[Guard, ...], types: Types, where: str
) -> None:
    if isinstance(index, FromData):
        _data(node, formula, index, guards, types)
        if not at_most(index.bound, size):
            raise _fault(node, f"{where} has {size}; its index from data goes below {index.bound}")
        return
    _variables(node, formula, index)
    if not within(index, size, formula.extents, guards):
        text = affine_text(index, index_names(formula))
        raise _fault(node, f"{where}, size {size}: {text} is not provably in bounds; {formula_text(formula)}")


def _guards(node: Node, formula: Formula, own: Sequence[Guard], given: tuple[Guard, ...], types: Types) -> None:
    for guard in own:
        _variables(node, formula, guard.expr)
        kinds = ("ge", "eq", "div") if guard.data is None else ("eq",)
        if guard.kind not in kinds or guard.divisor < 1:
            raise _fault(node, f"no guard is {guard}")
        if guard.data is not None:
            affine = tuple(g for g in given if g.data is None)
            _data(node, formula, guard.data, affine, types)


def _data(node: Node, formula: Formula, data: FromData, guards: tuple[Guard, ...], types: Types) -> None:
    if not 0 <= data.operand < len(types):
        raise _fault(node, f"an index from operand {data.operand}, which does not stand")
    dtype, shape = types[data.operand]
    number = node.inputs[data.operand].number
    if dtype.kind != "i":
        raise _fault(node, f"an index from %{number}, which is {dtype}; needs integers")
    if len(data.index) != len(shape):
        raise _fault(node, f"an index from %{number} at {len(data.index)} indices; it has {len(shape)} axes")
    for axis, (index, size) in enumerate(zip(data.index, shape, strict=True)):
        _index(node, formula, index, size, guards, types, f"axis {axis} of %{number}")


def _variables(node: Node, formula: Formula, expr: Affine) -> None:
    if any(not 0 <= v < len(formula.extents) for v, _ in expr.terms):
        raise _fault(node, "an index variable without extent")
    if any(c == 0 for _, c in expr.terms) or list(expr.terms) != sorted(expr.terms):
        raise _fault(node, f"the index expression {expr.terms} is not in normal form")


def _body(node: Node, body: Body) -> None:
    for place, instr in enumerate(body.instrs):
        if any(not 0 <= a < place for a in instr.args):
            raise _fault(node, f"body: {instr.op} at {place} names a later value")
        wrong = _typing(instr, [body.instrs[a].dtype for a in instr.args])
        if wrong:
            raise _fault(node, f"body: {instr.op} at {place}: {wrong}")


def _typing(instr: Instr, args: list[DType]) -> str:
    """What is wrong with an instruction; empty where nothing is."""
    if instr.op in ("read", "index", "size", "const", "cast"):
        return _source(instr, args)
    primitive = PRIMITIVES.get(instr.op)
    if primitive is None:
        return "no such primitive"
    if len(args) != primitive.arity or instr.attr is not None:
        return f"{len(args)} operands; takes {primitive.arity}"
    if instr.op == "where":
        if args[0] != boolean:
            return f"a condition of type {args[0]}; takes bool"
        args = args[1:]
    if any(a != args[0] for a in args):
        return f"operands of types {', '.join(a.name for a in args)}; takes one type"
    kinds = {"f": "f", "n": "fi", "b": "b", "a": "fib"}[primitive.takes]
    if args[0].kind not in kinds:
        return f"operands of type {args[0]}"
    result = boolean if primitive.result == "bool" else args[0]
    return "" if instr.dtype == result else f"its type is {instr.dtype}; needs {result}"


def _source(instr: Instr, args: list[DType]) -> str:
    if instr.op == "cast":
        return "" if len(args) == 1 and instr.attr is None else "a conversion of one value is needed"
    if args:
        return "a source with operands"
    if instr.op in ("index", "size") and instr.dtype != int64:
        return f"its type is {instr.dtype}; needs int64"
    if instr.op in ("read", "index"):
        return "" if isinstance(instr.attr, int) and instr.attr >= 0 else f"its number is {instr.attr!r}"
    if instr.op == "size":
        return "" if isinstance(instr.attr, Size) else f"its size is {instr.attr!r}"
    try:
        whole = const_text(const_value(instr), instr.dtype) == instr.attr
    except (InternalError, DTypeError, ValueError):
        whole = False
    return "" if whole else f"its text is {instr.attr!r}"
