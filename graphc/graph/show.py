"""A formula as one line of index notation: complete, stable, and read back by ``graph/formula_reader.py``.

    sum(k<128) $0[i, k] * $1[k, j]                      a product; i and j are the result's axes
    $0[i - 1 if i >= 1] + t0; ...                       a guarded read; ``t0 = ...;`` names a value used twice
    out[$1[i]:100, j] = sum(i<N, j<8) $0[i, j]          a scatter, with its domain and its write map

Operands are ``$0``, ``$1``, …, in the order of the node's inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from graphc.graph.dtypes import DType, float32, int64
from graphc.graph.formula import Affine, Formula, FromData, Guard, Index, Read, data_indices
from graphc.graph.primitives import PRIMITIVES
from graphc.graph.scalar import Body, Instr
from graphc.graph.sizes import Size, SizeLike, names

LETTERS = ("i", "j", "k", "l", "m", "n", "p", "q", "r", "s", "u", "v", "w")
_LONGEST = 160  # characters of one inlined expression; longer ones get a name
_DEEPEST = 12  # levels of one inlined expression

# How tightly an operator binds, as Python's; a comparison takes no comparison beside it.
_BINDS = {
    "logical_or": 1, "logical_and": 3, "equal": 4, "not_equal": 4, "less": 4, "less_equal": 4,
    "add": 5, "sub": 5, "mul": 6, "div": 6, "floor_divide": 6, "pow": 8,
}  # fmt: skip
_SIGN = {"logical_or": "or", "logical_and": "and"}
_ATOM = 9


def told_apart(name: str, taken: dict[str, int]) -> str:
    """The name where nothing has it yet, else with a number behind it. taken: the names given, this one from now on.

    >>> taken = {}
    >>> [told_apart(name, taken) for name in ("h", "h_2", "h", "h")]
    ['h', 'h_2', 'h_3', 'h_4']
    """
    found = name
    while found in taken:
        taken[name] += 1
        found = f"{name}_{taken[name]}"
    taken[found] = 1
    return found


def all_told_apart(wished: Sequence[tuple[str, bool]]) -> list[str]:
    """A name for each of several values. wished: what it would be called, and whether a user called it so: those come
    first.

    >>> all_told_apart([("sum", False), ("sum", False), ("sum_2", True)])
    ['sum', 'sum_3', 'sum_2']
    """
    taken: dict[str, int] = {}
    found = {k: told_apart(wished[k][0], taken) for k in sorted(range(len(wished)), key=lambda k: not wished[k][1])}
    return [found[k] for k in range(len(wished))]


def index_names(formula: Formula) -> tuple[str, ...]:
    """A letter for each index variable, none of which is the name of a dimension that occurs.

    >>> from graphc.graph.formula import plain, Read
    >>> from graphc.graph.scalar import trace
    >>> from graphc.graph.sizes import dim
    >>> index_names(Formula((dim("i"), 3), plain(2), (dim("i"), 3), (), trace(lambda: 1.0, [])))
    ('j', 'k')
    """
    taken = [name for size in _sizes(formula) for name in names(size)]
    usual = usual_names(len(formula.extents) + len(taken))
    return tuple(letter for letter in usual if letter not in taken)[: len(formula.extents)]


def usual_names(n: int) -> tuple[str, ...]:
    """The names of n index variables where no dimension bears one of them."""
    return (LETTERS + tuple(f"v{k}" for k in range(n - len(LETTERS))))[:n]


def _sizes(formula: Formula) -> list[SizeLike]:
    exprs = [i for r in formula.reads for i in r.index if isinstance(i, Affine)]
    exprs += [w for w in formula.write if isinstance(w, Affine)]
    exprs += [g.expr for r in formula.reads for g in r.guards] + [g.expr for g in formula.guards]
    data = data_indices(formula)
    exprs += [i for d in data for i in d.index]
    sizes = [*formula.extents, *formula.shape, *(e.const for e in exprs), *(d.bound for d in data)]
    return sizes + [i.attr for i in formula.body.instrs if isinstance(i.attr, Size)]


def affine_text(expr: Affine, index: Sequence[str]) -> str:
    """An affine expression, its variables by name.

    >>> affine_text(Affine(-1, ((0, 2), (1, 1))), "ij")
    '2*i + j - 1'
    """
    parts = [(c, f"{abs(c)}*{index[v]}" if abs(c) != 1 else index[v]) for v, c in expr.terms]
    if isinstance(expr.const, Size):
        parts += [(c, str(Size(((m, abs(c)),))) if m else str(abs(c))) for m, c in expr.const.terms]
    elif expr.const or not parts:
        parts.append((expr.const, str(abs(expr.const))))
    parts.sort(key=lambda part: part[0] < 0)  # a sum that starts with what is added
    text = "".join((" - " if c < 0 else " + ") + part for c, part in parts)
    return text[3:] if text.startswith(" + ") else "-" + text[3:]


def index_text(index: Index, names_: Sequence[str]) -> str:
    """An index expression; one from data with its bound."""
    return affine_text(index, names_) if isinstance(index, Affine) else data_text(index, names_)


def data_text(data: FromData, index: Sequence[str]) -> str:
    """``$1[i]:100``: operand 1 at i, whose values lie below 100."""
    return f"${data.operand}[{', '.join(affine_text(i, index) for i in data.index)}]:{_size_text(data.bound)}"


def guard_text(guard: Guard, index: Sequence[str]) -> str:
    """A condition, with what it subtracts on the other side.

    >>> guard_text(Guard("ge", Affine(9, ((0, -1),))), "i")
    'i <= 9'
    """
    if guard.data is not None:
        return f"{affine_text(guard.expr, index)} == {data_text(guard.data, index)}"
    if guard.kind == "div":
        return f"({affine_text(guard.expr, index)}) % {guard.divisor} == 0"
    left, right = _sides(guard.expr)
    if guard.kind == "eq":
        return f"{affine_text(left, index)} == {affine_text(right, index)}"
    if right.terms and not left.terms:
        return f"{affine_text(right, index)} <= {affine_text(left, index)}"
    return f"{affine_text(left, index)} >= {affine_text(right, index)}"


def _sides(expr: Affine) -> tuple[Affine, Affine]:
    """``left - right == expr`` with neither holding a negative coefficient."""
    terms = expr.const.terms if isinstance(expr.const, Size) else (((), expr.const),) if expr.const else ()
    above: SizeLike = 0
    below: SizeLike = 0
    for monomial, c in terms:
        size: SizeLike = Size(((monomial, abs(c)),)) if monomial else abs(c)
        if c > 0:
            above = above + size
        else:
            below = below + size
    left = Affine(above, tuple((v, c) for v, c in expr.terms if c > 0))
    return left, Affine(below, tuple((v, -c) for v, c in expr.terms if c < 0))


def read_text(read: Read, index: Sequence[str]) -> str:
    """``$0[i - 1, k if i >= 1]``: an operand at its indices, with the guards outside which it reads as zero."""
    where = ", ".join(index_text(i, index) for i in read.index)
    if read.guards:
        where += (" if " if where else "if ") + ", ".join(guard_text(g, index) for g in read.guards)
    return f"${read.operand}[{where}]"


def const_text_of(instr: Instr) -> str:
    """A constant: bare where it has the type that its text suggests (float32, int64, bool), else inside its type."""
    text = str(instr.attr)
    return text if instr.dtype in (float32, int64) or instr.dtype.kind == "b" else f"{instr.dtype}({text})"


@lru_cache(maxsize=65536)
def formula_text(formula: Formula) -> str:
    """The whole formula; see the module.

    >>> from graphc.graph.formula import plain, var
    >>> from graphc.graph.scalar import trace
    >>> reads = (Read(0, (var(0), var(2))), Read(1, (var(2), var(1))))
    >>> formula_text(Formula((3, 4, 5), plain(2), (3, 4), reads, trace(lambda a, b: a * b, [float32] * 2), "sum"))
    'sum(k<5) $0[i, k] * $1[k, j]'
    """
    index = index_names(formula)
    rank = len(formula.write)
    usual = formula.is_plain() and formula.extents[:rank] == formula.shape and index[:rank] == usual_names(rank)
    head = "" if usual else f"out[{', '.join(index_text(w, index) for w in formula.write)}] = "
    listed = range(rank, len(index)) if usual else range(len(index))
    named = not _in_order(formula)
    if named:
        reads = ", ".join(read_text(r, index) for r in formula.reads)
        head += f"with ({reads}) "
    if formula.combine != "none" or not usual:
        ranges = ", ".join(f"{index[v]}<{_size_text(formula.extents[v])}" for v in listed)
        head += f"{formula.combine}({ranges}) "
    read_names = [f"r{k}" if named else read_text(r, index) for k, r in enumerate(formula.reads)]
    tail = f" if {', '.join(guard_text(g, index) for g in formula.guards)}" if formula.guards else ""
    return head + "; ".join(body_statements(formula.body, read_names, index)) + tail


def _in_order(formula: Formula) -> bool:
    """Whether the body names each read, all different, and for the first time in their order."""
    order = [i.attr for i in formula.body.instrs if i.op == "read"]
    return order == list(range(len(formula.reads))) and len(dict.fromkeys(formula.reads)) == len(order)


def _size_text(size: SizeLike) -> str:
    """A size that may stand before a comma or a closing bracket; one of several terms in parentheses."""
    text = str(size)
    return f"({text})" if " " in text else text


def body_statements(body: Body, reads: Sequence[str], index: Sequence[str]) -> list[str]:
    """The body as statements, the last being its result; reading them in order writes the very same instructions.

    Instructions are taken in order and kept on a stack until one uses them. A value used twice, or not by the next
    operation that comes, becomes a statement of its own; nothing recurses.
    """
    uses = [0] * len(body.instrs)
    for instr in body.instrs:
        for arg in instr.args:
            uses[arg] += 1
    texts: list[tuple[str, int]] = []  # of each instruction: its text, and how tightly it binds
    depths: list[int] = []
    stack: list[int] = []
    statements: list[str] = []
    bound = [0]

    def flush(count: int) -> None:
        for at in stack[:count]:
            if body.instrs[at].args:
                name = f"t{bound[0]}"
                bound[0] += 1
                statements.append(f"{name} = {texts[at][0]}")
                texts[at], depths[at] = (name, _ATOM), 0
            else:
                statements.append(texts[at][0])
        del stack[:count]

    for at, instr in enumerate(body.instrs):
        wanted = [a for a in dict.fromkeys(instr.args) if a in stack]
        while wanted != stack[len(stack) - len(wanted) :]:
            flush(1)
            wanted = [a for a in wanted if a in stack]
        del stack[len(stack) - len(wanted) :]
        texts.append(_instr_text(instr, [texts[a] for a in instr.args], reads, index))
        depths.append(1 + max((depths[a] for a in instr.args), default=-1))
        stack.append(at)
        long = len(texts[at][0]) > _LONGEST or depths[at] > _DEEPEST
        if at < len(body.instrs) - 1 and instr.args and (uses[at] > 1 or long):
            flush(len(stack))
    flush(len(stack) - 1)
    return [*statements, texts[-1][0]]


def _instr_text(
    instr: Instr, args: Sequence[tuple[str, int]], reads: Sequence[str], index: Sequence[str]
) -> tuple[str, int]:
    """An instruction over the texts of its operands, and how tightly it binds."""
    if instr.op == "const":
        text = const_text_of(instr)
        return text, 7 if text.startswith("-") else _ATOM
    if instr.op == "read":
        return reads[_number(instr)], _ATOM
    if instr.op == "index":
        return index[_number(instr)], _ATOM
    if instr.op == "size":
        return f"size({instr.attr})", _ATOM
    if instr.op == "cast":
        return f"{instr.dtype}({args[0][0]})", _ATOM
    binds = _BINDS.get(instr.op)
    if binds is None:
        return f"{instr.op}({', '.join(text for text, _ in args)})", _ATOM
    sign = _SIGN.get(instr.op) or PRIMITIVES[instr.op].infix
    left = binds + (1 if instr.op == "pow" or binds == 4 else 0)
    right = binds + (0 if instr.op == "pow" else 1)
    (a, a_binds), (b, b_binds) = args
    return f"{a if a_binds >= left else f'({a})'} {sign} {b if b_binds >= right else f'({b})'}", binds


def _number(instr: Instr) -> int:
    assert isinstance(instr.attr, int)
    return instr.attr


def type_text(dtype: DType, shape: Sequence[SizeLike]) -> str:
    """``float32[N, 10]``."""
    return f"{dtype}[{', '.join(str(s) for s in shape)}]"
