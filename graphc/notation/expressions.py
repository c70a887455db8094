"""A graph as lines of mathematics: which values get a line, what they are called, and what stands in each.

A value has a line of its own where the user named it, where it is the derivative of something named, where it is used
more than once, or where it would make another line too long; all others stand inside the line that uses them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from graphc.graph.formula import Shape, plain
from graphc.graph.graph import LEAVES, NAMED, ConstValue, Graph, Node
from graphc.graph.sizes import names
from graphc.notation.algebra import ZERO, number
from graphc.notation.bodies import is_simple
from graphc.notation.operations import operation_tree
from graphc.notation.placing import Operand
from graphc.notation.points import point_tree
from graphc.notation.recognise import Named, gather, is_identity, named_parts, shown_inputs
from graphc.notation.shapes import shape_of
from graphc.notation.simplify import simplified
from graphc.notation.tensors import tensor_tree
from graphc.notation.tree import Applied, At, Bracket, Infix, Line, Number, Symbol, Tree, parts, symbols, weight
from graphc.notation.tree_rules import Known

_SILENT = ("stop_gradient", "variable")
_LEAF_NAMES = {"count": "step", "training": "training"}
_LIGHT = 4  # leaves of a gradient that is one number throughout, and stands where it is read
_SHORT = {"softmax": "p", "log_softmax": "logp"}


def graph_lines(
    graph: Graph, outputs: Mapping[str, Node] | Sequence[Node] | None = None, define: bool | None = None
) -> tuple[Line, ...]:
    """The lines of some nodes, by name or not (of the graph's outputs and updates, where none are given), in order.

    ``w ← …`` is an update, and ``w′`` in another line w's new value; w alone is always the value before the step.

    define: whether values that the user named are defined by lines of their own; else they are taken as known. By
    default they are, unless every output is a derivative.
    """
    given = graph.outputs if outputs is None else outputs
    ends = [(name, given[name]) for name in given] if isinstance(given, Mapping) else [("", node) for node in given]
    updates = dict(graph.updates) if outputs is None else {}
    roots = list(dict.fromkeys([*(node for _, node in ends), *updates.values()]))
    if define is None:
        define = bool(updates) or not all(_is_derived(graph, node) for node in roots)
    return _Writer(graph, ends, updates, roots, define).lines()


def has_name(graph: Graph, node: Node) -> bool:
    """Whether a value has a line by its name: the user's, or as the derivative of something that has one.

    A rewrite for show leaves such values standing.
    """
    return bool(graph.name(node) or _derivative_name(graph, node))


def _derivative_name(graph: Graph, node: Node) -> str:
    """``d_w`` or ``t_w``, where a note says so."""
    for origin in graph.origins.get(node, ()):
        if re.fullmatch(r"[dt]_\S+", origin.note):
            return origin.note
    return ""


def _is_derived(graph: Graph, node: Node) -> bool:
    """Whether a value was made by differentiation or rewriting: no operation and no name of the user's."""
    origins = graph.origins.get(node, ())
    return node.kind not in NAMED and bool(origins) and not any(o.op or o.name for o in origins)


class _Writer:
    """Writes one graph's lines."""

    def __init__(
        self,
        graph: Graph,
        ends: Sequence[tuple[str, Node]],
        updates: Mapping[Node, Node],
        roots: Sequence[Node],
        define: bool,
    ) -> None:
        self.graph = graph
        self.ends = ends
        self.updates = updates
        self.roots = roots
        self.define = define
        self.parts: dict[Node, Mapping[int, Named]] = {}
        self.pointwise: dict[Node, bool] = {}
        self.shown: dict[Node, tuple[Node, ...]] = {}
        self.uniform: dict[Node, bool] = {}
        self.nodes = self._reach()
        self.updated = {value: target for target, value in reversed(list(self.updates.items()))}
        self.name_of = self._names()
        self.taken = dict.fromkeys(self.name_of.values())
        self.own: dict[str, None] = {}  # names that stand for nothing of the user's
        self.identity = ""  # the name of identity matrices, where there are some
        self.shapes: dict[str, Shape] = {name: node.shape for node, name in self.name_of.items()}
        self.shapes |= {name: () for node in self.nodes for size in node.shape for name in names(size)}
        self.uniform_parts: list[str] = []
        self.tree_of: dict[Node, Tree] = {}
        self.written: list[Line] = []

    def lines(self) -> tuple[Line, ...]:
        """All lines."""
        uses: dict[Node, int] = {}
        indexed: dict[Node, bool] = {}
        whole: dict[Node, bool] = {}  # whose shape matters to a reader
        for node in self.nodes:
            for operand in self.shown.get(node, ()):
                uses[operand] = uses.get(operand, 0) + 1
                whole[operand] = whole.get(operand, False) or not _aligned(node)
                indexed[operand] = indexed.get(operand, False) or node in self.pointwise
        for node in self.nodes:
            self.uniform[node] = self._is_uniform(node)
            self.tree_of[node] = self._tree(node, uses.get(node, 0), indexed.get(node, False), whole.get(node, False))
        for name, node in self.ends:
            tree = self.tree_of[node]
            if (name and self.name_of.get(node) != name) or (not name and not isinstance(tree, Symbol)):
                self.written.append(Line(name, (), tree, node.shape, node=node.number))
        for target, value in self.updates.items():
            if self.updated.get(value) is not target:
                self.written.append(Line(_leaf_name(target), (), self.tree_of[value], value.shape, "←", value.number))
        if not self.written:
            self.written += [Line("", (), self.tree_of[node], node.shape, node=node.number) for _, node in self.ends]
        uniform = [name for node, name in self.name_of.items() if self.uniform.get(node)]
        uniform += [name for node in self.nodes for size in node.shape for name in names(size)]
        known = Known(self.own, [*uniform, *self.uniform_parts], self.shapes, self.identity, self.definitions())
        return tuple(simplified(self.written, known))

    def definitions(self) -> dict[Tree, Tree]:
        """What the values that are taken as known are made of, each with its name: a derivative that holds
        ``softmax(z)``, which the user called p, says p.
        """
        given = [n for n in self.nodes if n not in self.shown and n.kind not in LEAVES and n in self.name_of]
        if self.define or not given:
            return {}
        writer = _Writer(self.graph, [(self.name_of[n], n) for n in given], {}, given, True)
        found: dict[Tree, Tree] = {}
        for line in writer.lines():
            whole = not line.index and line.sign == "=" and line.name not in writer.own and parts(line.value)
            if whole and not any(name in writer.own for name in symbols(line.value)):
                found[line.value] = Symbol(line.name)
                if isinstance(line.value, Applied) and line.value.name == "relu" and parts(line.value.args[0]):
                    found[Bracket(Infix(">", line.value.args[0], ZERO))] = Bracket(Infix(">", Symbol(line.name), ZERO))
        return found

    def _reach(self) -> list[Node]:
        """The nodes that are shown, each after those that it is made of; named values are recognised on the way."""
        found: dict[Node, None] = {}
        stack = list(self.roots)
        while stack:
            node = stack.pop()
            if node in found:
                continue
            found[node] = None
            if self._is_given(node):
                continue
            self.parts[node] = named_parts(node, self._is_opaque)
            if node.kind == "formula" and len(gather(node).body.instrs) - 1 not in self.parts[node]:
                probe = [Operand(Symbol("x"), i.shape) for i in node.inputs]
                marks = {place: Symbol("x") for place in self.parts[node]}
                if tensor_tree(gather(node), probe, lambda tree: tree, marks) is None:
                    self.pointwise[node] = True
                    self.parts[node] = {}
            self.shown[node] = shown_inputs(node, self.parts[node])
            stack.extend(self.shown[node])
        return sorted(found, key=lambda n: n.number)

    def _is_opaque(self, node: Node) -> bool:
        """Whether a value has a name of the user's, so that it is not opened up."""
        return bool(self.graph.name(node))

    def _is_given(self, node: Node) -> bool:
        """Whether a value is taken as known: a leaf, or the user's own value where those are not defined."""
        if node.kind in LEAVES:
            return True
        if node.kind in _SILENT:
            return False
        return not self.define and node not in self.roots and bool(self.graph.name(node))

    def _names(self) -> dict[Node, str]:
        """Names that stand for nodes: outputs', the user's, ``d_`` and the name of what it is the derivative of."""
        chosen: dict[Node, str] = {}
        owner: dict[str, Node] = {}
        leaves = [n for n in self.nodes if n.kind in LEAVES and n.kind != "const"]
        candidates = [(n, _leaf_name(n)) for n in leaves]
        new_values = dict.fromkeys(self.updates.values())  # shown as their target's
        candidates += [(n, self.graph.name(n)) for n in self.nodes if n not in new_values]
        shown = dict.fromkeys(i for n in self.nodes for i in self.shown.get(n, ()))
        new = [n for n in self.updated if n in shown and not self._is_given(n)]
        candidates += [(n, f"{_leaf_name(self.updated[n])}′") for n in new]  # a new value that others read
        self.updated = {n: self.updated[n] for n in new}
        # The last of several terms is their sum, so it has the name.
        candidates += [(n, _derivative_name(self.graph, n)) for n in reversed(self.nodes)]
        candidates += [(n, name) for name, n in self.ends]
        for node, name in candidates:
            if name and node not in chosen and name not in owner and node.kind not in _SILENT:
                chosen[node] = name
                owner[name] = node
        for node in self.nodes:  # two values of one name, where a graph was not built from tensors
            name, count = self.graph.name(node), 1
            if name and node not in chosen and node not in new_values and node.kind not in _SILENT:
                while f"{name}_{count}" in owner:
                    count += 1
                chosen[node] = f"{name}_{count}"
                owner[chosen[node]] = node
        return chosen

    def _fresh(self, stem: str = "t") -> str:
        """A name that nothing has yet."""
        number_ = 0 if stem != "t" else 1
        while True:
            name = f"{stem}{number_ or ''}"
            if name not in self.taken:
                self.taken[name] = None
                self.own[name] = None
                return name
            number_ += 1

    def _is_uniform(self, node: Node) -> bool:
        """Whether all elements of a value are equal, so that it broadcasts to anything."""
        if not node.shape:
            return True
        if isinstance(node.attr, ConstValue):
            array = node.attr.array()
            return bool((array == array.flat[0]).all())
        if node.kind != "formula":
            return node.kind in _SILENT and self.uniform[node.inputs[0]]
        formula = gather(node)
        moves = formula.combine != "none" or formula.guards or formula.body.indices()
        guarded = any(r.guards for r in formula.reads)
        return not moves and not guarded and all(self.uniform.get(i, False) for i in node.inputs)

    def _tree(self, node: Node, uses: int, needs_name: bool, needs_shape: bool) -> Tree:
        """How a node is written where it is used; writes its line first where it has one."""
        if node.kind == "const":
            return self._const(node, needs_name)
        if self._is_given(node):
            return Symbol(self.name_of.get(node) or _leaf_name(node))
        if node.kind in _SILENT:
            return self.tree_of[node.inputs[0]]
        name = self.name_of.get(node, "")
        index: tuple[str, ...] = ()
        sign = "="
        value = self._value(node)
        if value is None:
            name = name or self._fresh()
            formula = gather(node)
            trees = [self.tree_of[i] for i in node.inputs]
            uniform = [
                self.uniform[i] and shape_of(t, self.shapes) == () for i, t in zip(node.inputs, trees, strict=True)
            ]
            operands = [Operand(t, i.shape, u) for t, i, u in zip(trees, node.inputs, uniform, strict=True)]
            index, value = point_tree(formula, operands, self._part)
            sign = "=" if formula.is_plain() else "+="
        broadcasts = shape_of(value, self.shapes) not in (None, node.shape) and not self.uniform[node]
        needs_name = needs_name or (needs_shape and broadcasts)
        derived = name == _derivative_name(self.graph, node) and node not in self.roots
        number_ = isinstance(value, Number) or (self.uniform[node] and node.shape and weight(value) <= _LIGHT)
        simple = (isinstance(value, (Symbol, Number)) and not name) or (derived and number_)
        simple = simple and not (needs_shape and broadcasts)
        if simple or not (name or needs_name or not is_simple(value) or (uses > 1 and not self._is_short(node, value))):
            return value
        whole = self._whole(node)
        name = name or self._fresh(_SHORT.get(whole.name, "t") if whole else "t")
        if name.endswith("′") and not index:
            self.written.append(Line(name[:-1], index, value, node.shape, "←", node.number))
        else:
            self.updated.pop(node, None)
            self.uniform_parts += [name] if self.uniform[node] else []
            self.shapes[name] = node.shape
            self.written.append(Line(name, index, value, node.shape, sign, node.number))
        return Symbol(name)

    def _value(self, node: Node) -> Tree | None:
        """What a node is, in whole tensors; None where it has no such form."""
        whole = self._whole(node)
        if whole is not None:
            return self._named(whole)
        if node.kind == "formula" and is_identity(gather(node)):
            self.identity = self.identity or self._fresh("I")
            self.shapes[self.identity] = node.shape
            return Symbol(self.identity)
        if node.kind == "formula":
            trees = [self.tree_of.get(i, Symbol("?")) for i in node.inputs]
            by_name = operation_tree(self.graph.origins.get(node, ()), node, trees)
            if by_name is not None and not self.parts[node]:
                return by_name
            operands = [
                Operand(t, i.shape, self.uniform.get(i, False)) for t, i in zip(trees, node.inputs, strict=True)
            ]
            marks = {place: self._named(named) for place, named in self.parts[node].items()}
            return None if node in self.pointwise else tensor_tree(gather(node), operands, self._part, marks)
        trees = [self.tree_of[i] for i in node.inputs]
        if node.kind == "reshape":
            return Applied("reshape", (*trees, Symbol(" × ".join(str(s) for s in node.shape) or "()")))
        return Applied(node.kind, tuple(trees))

    def _whole(self, node: Node) -> Named | None:
        """What a node is as a whole, where that has a name."""
        return self.parts.get(node, {}).get(len(gather(node).body.instrs) - 1) if node.kind == "formula" else None

    def _named(self, named: Named) -> Tree:
        """``softmax(x)``, with the axis where it is not the last."""
        last = named.name == "cross_entropy" or named.axis == len(named.operands[0].shape) - 1
        axis = () if last else (Symbol(f"axis={named.axis}"),)
        return Applied(named.name, (*(self.tree_of[o] for o in named.operands), *axis))

    def _is_short(self, node: Node, tree: Tree) -> bool:
        """Whether a value is as easily read again as its name."""
        return weight(tree) <= (2 if self.uniform[node] else 1)

    def _part(self, tree: Tree, letters: tuple[str, ...] = ()) -> Tree:
        """A name for a part of a body, on a line of its own."""
        for line in self.written:
            if line.value == tree and line.index == letters:
                return At(Symbol(line.name), tuple(Symbol(x) for x in letters)) if letters else Symbol(line.name)
        name = self._fresh()
        shape = shape_of(tree, self.shapes)
        if shape is not None and not letters:
            self.shapes[name] = shape
        self.written.append(Line(name, letters, tree, ()))
        return At(Symbol(name), tuple(Symbol(x) for x in letters)) if letters else Symbol(name)

    def _const(self, node: Node, needs_name: bool) -> Tree:
        """A constant: its number where it holds one number, else a name."""
        value = node.attr
        assert isinstance(value, ConstValue)
        array = value.array()
        if not needs_name and array.size and (array == array.flat[0]).all():
            return number(str(array.flat[0]), node.dtype)
        if node not in self.name_of:
            self.name_of[node] = self._fresh("const")
        return Symbol(self.name_of[node])


def _aligned(node: Node) -> bool:
    """Whether a node reads all that it reads element by element, as NumPy broadcasts."""
    if node.kind != "formula":
        return node.kind in _SILENT
    formula = gather(node)
    rank = len(formula.shape)
    own = plain(rank)
    return formula.combine == "none" and all(r.index == own[rank - len(r.index) :] for r in formula.reads)


def _leaf_name(node: Node) -> str:
    return str(node.attr) if node.kind in NAMED else _LEAF_NAMES.get(node.kind, node.kind)
