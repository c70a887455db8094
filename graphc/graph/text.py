"""The text form of a graph: one line a node, stable, complete, and parsed back to the same graph.

    graph 1
    %0: float32[N, 64] is input "x"
    %1: float32[64, 10] is param "w"
    %2: float32[N, 10] = sum(k<64) %0[i, k] * %1[k, j]      # matmul scores fit.py:3
    %3: float32[10] = max(j<N) %2[j, i]
    output "scores" %2

A formula is written as ``graph/show.py`` says; where a node's inputs are not its operands in order of appearance, they
stand before it, ``(%2, %2) $0[i] * $1[i]``. Nodes are numbered anew in their order, so that what was dropped leaves no
trace. Constants are named by a digest of their bytes, which stand at the end.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Sequence
from functools import lru_cache

from graphc.errors import DefinitionError
from graphc.graph.dtypes import DTYPES, DType
from graphc.graph.formula import Formula, Shape
from graphc.graph.formula_reader import read_formula
from graphc.graph.graph import Attr, ConstValue, Graph, Node, Origin
from graphc.graph.show import formula_text, type_text
from graphc.graph.sizes import Size, parse_size
from graphc.structs import dataclass

_HEADER = "graph 1"
_LINE = re.compile(r"%(\d+): (\w+)\[([^\]]*)\] (is|=) (.*)")
_OPERAND = re.compile(r"\$(\d+)")
_NODE = re.compile(r"%(\d+)")


def to_text(graph: Graph, origins: bool | Callable[[Node], bool] = True) -> str:
    """The text of the live nodes of ``graph``, its outputs, updates and constants.

    origins: whether a line ends in a comment that says where its node came from: each, none, or those of some nodes.
    Without them, equal graphs have equal texts wherever they were declared.

    >>> from graphc.graph.dtypes import float32
    >>> from graphc.graph.formula import Read, plain
    >>> from graphc.graph.scalar import trace
    >>> g = Graph()
    >>> x = g.add("input", (), "x", float32, (3,))
    >>> formula = Formula((3,), plain(1), (3,), (Read(0, plain(1)),), trace(lambda x: x + 1, [float32]))
    >>> g.outputs["y"] = g.formula(formula, (x,))
    >>> print(to_text(g))
    graph 1
    %0: float32[3] is input "x"
    %1: float32[3] = %0[i] + 1.0
    output "y" %1
    """
    nodes = graph.live()
    number = {node: k for k, node in enumerate(nodes)}
    lines = [_HEADER]
    data: dict[str, bytes] = {}
    for node in nodes:
        line = _node_line(node, number)
        if isinstance(node.attr, ConstValue):
            data[node.attr.digest()] = node.attr.data
        wanted = origins(node) if callable(origins) else origins
        comment = _comment(graph.origins.get(node, ())) if wanted else ""
        lines.append(f"{line}  # {comment}" if comment else line)
    lines += [f"output {json.dumps(name)} %{number[node]}" for name, node in graph.outputs.items()]
    lines += [f"update %{number[target]} %{number[value]}" for target, value in graph.updates.items()]
    lines += [f"data {digest} {base64.b64encode(raw).decode()}" for digest, raw in data.items()]
    return "\n".join(lines)


def node_text(node: Node, number: dict[Node, int] | None = None) -> str:
    """One node's line, its operands by their numbers in the graph or those given."""
    return _node_line(node, number)


def _node_line(node: Node, number: dict[Node, int] | None) -> str:
    own, *inputs = [f"%{n.number if number is None else number[n]}" for n in (node, *node.inputs)]
    head = f"{own}: {type_text(node.dtype, node.shape)}"
    if isinstance(node.attr, Formula):
        template = _template(node.attr)
        if template.in_order == len(inputs) == len(dict.fromkeys(inputs)):
            return f"{head} = " + "".join([inputs[t] if isinstance(t, int) else t for t in template.pieces])
        return f"{head} = ({', '.join(inputs)}) {template.text}"
    given = f"({', '.join(inputs)})" if inputs else ""
    return f"{head} is {node.kind}{given}{_attr_text(node.attr)}"


@dataclass(frozen=True, slots=True)
class _Template:
    """A formula's text; its pieces, an operand being its number; how many operands first appear in order, or -1."""

    text: str
    pieces: tuple[str | int, ...]
    in_order: int


@lru_cache(maxsize=65536)
def _template(formula: Formula) -> _Template:
    text = formula_text(formula)
    pieces = tuple([int(p) if k % 2 else p for k, p in enumerate(_OPERAND.split(text))])
    order = list(dict.fromkeys(pieces[1::2]))
    return _Template(text, pieces, len(order) if order == list(range(len(order))) else -1)


def _comment(origins: Sequence[Origin]) -> str:
    parts = []
    for o in origins:
        where = f"{o.site.file}:{o.site.line}" if o.site else ""
        words = [o.op, o.name, o.note, f"by {o.rule}" if o.rule else "", where]
        parts.append(" ".join(w for w in words if w))
    return "; ".join(p for p in dict.fromkeys(parts) if p).replace("\n", " ")


def _attr_text(attr: Attr) -> str:
    if attr is None:
        return ""
    return " " + (attr.digest() if isinstance(attr, ConstValue) else _literal(attr))


def _literal(value: object) -> str:
    """An attribute: a number, a text, a size in braces, an element type, or a tuple of these."""
    if isinstance(value, tuple):
        return f"({''.join(_literal(v) + ', ' for v in value).strip()})"
    if isinstance(value, Size):
        return f"{{{value}}}"
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, DType):
        return value.name
    if value is None or isinstance(value, (bool, int, float)):
        return repr(value)
    raise DefinitionError(f"text: an attribute of type {type(value).__name__} has no text form")


def from_text(text: str) -> Graph:
    """The graph that ``to_text`` wrote. Origins, being comments, are not read.

    Raises: DefinitionError for a text that is no graph's.

    >>> g = from_text('graph 1\\n%0: float32[3] is input "x"\\n%1: float32[3] = %0[i] * 2.0\\noutput "y" %1')
    >>> g.outputs, g.nodes[1].formula.body.dtype
    ({'y': %1:formula}, float32)
    """
    lines = text.splitlines()
    if not lines or lines[0].strip() != _HEADER:
        raise DefinitionError(f"text: {text[:60]!r} given; a graph's text begins with {_HEADER!r}")
    data = dict(line.split(" ")[1:3] for line in lines if line.startswith("data "))
    graph = Graph()
    nodes: list[Node] = []
    for at, line in enumerate(lines[1:], 2):
        try:
            _read_line(graph, nodes, line, data)
        except (DefinitionError, LookupError, ValueError, TypeError) as error:
            raise DefinitionError(f"text: line {at}, {line[:200]!r}: {error}") from error
    return graph


def _read_line(graph: Graph, nodes: list[Node], line: str, data: dict[str, str]) -> None:
    line = line.strip()
    if not line or line.startswith(("#", "data ")):
        return
    if line.startswith("output "):
        name, end = json.JSONDecoder().raw_decode(line[7:])
        graph.outputs[str(name)] = nodes[int(line[7 + end :].strip()[1:])]
    elif line.startswith("update "):
        target, value = (nodes[int(word[1:])] for word in line.split()[1:3])
        graph.updates[target] = value
    else:
        match = _LINE.fullmatch(_uncomment(line))
        if match is None:
            raise DefinitionError("not a node, an output, an update or data")
        if int(match[1]) != len(nodes):
            raise DefinitionError(f"%{len(nodes)} is next")
        dtype, shape = DTYPES[match[2]], tuple(parse_size(s.strip()) for s in match[3].split(",") if s.strip())
        read = _read_formula_node if match[4] == "=" else _read_other_node
        nodes.append(read(graph, nodes, dtype, shape, match[5].strip(), data))
        if nodes[-1].number != len(nodes) - 1:
            raise DefinitionError(f"this node stands already as %{nodes[-1].number}")


def _uncomment(line: str) -> str:
    """The line without its comment: a ``#`` after two spaces and outside quotation marks."""
    quoted = False
    for at, character in enumerate(line):
        if character == '"' and line[at - 1] != "\\":
            quoted = not quoted
        elif character == "#" and not quoted and line[at - 2 : at] == "  ":
            return line[:at].rstrip()
    return line


def _read_other_node(
    graph: Graph, nodes: list[Node], dtype: DType, shape: Shape, text: str, data: dict[str, str]
) -> Node:
    match = re.fullmatch(r"(\w+)(\(%[^)]*\))?(?: (.*))?", text)
    if match is None:
        raise DefinitionError("a kind, its inputs and its attribute are expected")
    kind, rest = match[1], match[3]
    inputs = [nodes[int(n)] for n in _NODE.findall(match[2] or "")]
    attr: Attr = None
    if kind == "const":
        if rest not in data:
            raise DefinitionError(f"no data line for {rest}")
        attr = ConstValue(dtype.name, tuple(int(s) for s in shape if isinstance(s, int)), base64.b64decode(data[rest]))
        if attr.digest() != rest:
            raise DefinitionError(f"the data of {rest} were changed")
    elif rest:
        value, end = _read_literal(rest, 0)
        if rest[end:].strip():
            raise DefinitionError(f"{rest[end:]!r} after the attribute")
        attr = value  # type: ignore[assignment]  # a literal is one of the types of Attr
    return graph.add(kind, inputs, attr, dtype, shape)


def _read_literal(text: str, at: int) -> tuple[object, int]:
    """The attribute that starts at ``at``, and where it ends."""
    if text[at] == "(":
        items: list[object] = []
        at += 1
        while text[at] != ")":
            item, at = _read_literal(text, at)
            items.append(item)
            while text[at] in ", ":
                at += 1
        return tuple(items), at + 1
    if text[at] == "{":
        end = text.index("}", at)
        return parse_size(text[at + 1 : end]), end + 1
    if text[at] == '"':
        value, length = json.JSONDecoder().raw_decode(text[at:])
        return value, at + int(length)
    match = re.compile(r"[-+\w.]+").match(text, at)
    if match is None:
        raise DefinitionError(f"no attribute at {text[at:]!r}")
    word = match[0]
    known: dict[str, object] = {"None": None, "True": True, "False": False, **DTYPES}
    if word in known:
        return known[word], match.end()
    return (int(word) if re.fullmatch(r"-?\d+", word) else float(word)), match.end()


def _read_formula_node(
    graph: Graph, nodes: list[Node], dtype: DType, shape: Shape, text: str, data: dict[str, str]
) -> Node:
    listed = re.match(r"\((%\d+(?:, %\d+)*)?\) (?=.)", text)
    if listed:
        numbers = [int(n) for n in _NODE.findall(listed[0])]
        text = text[listed.end() :]
    else:
        order: dict[int, int] = {}
        text = _NODE.sub(lambda m: f"${order.setdefault(int(m[1]), len(order))}", text)
        numbers = list(order)
    inputs = tuple(nodes[n] for n in numbers)
    formula = read_formula(text, shape, tuple(i.dtype for i in inputs))
    if formula.dtype != dtype:
        raise DefinitionError(f"the formula gives {formula.dtype}")
    return graph.formula(formula, inputs)
