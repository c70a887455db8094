"""Small graphs written by hand, and a bare runner of compiled programs: the loop form tested without the language."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from graphc.errors import IndexRangeError
from graphc.graph.dtypes import DTYPES, DType, boolean, float32, int32, int64
from graphc.graph.formula import (
    Affine,
    Formula,
    FromData,
    Guard,
    Read,
    Shape,
    constant,
    plain,
    var,
)
from graphc.graph.graph import Graph, Node
from graphc.graph.scalar import trace
from graphc.graph.sizes import SizeLike, dim, evaluate
from graphc.graph.sym import sym
from graphc.kernels.form import IndexCheck, Program
from graphc.kernels.layout import (
    FIRST_DIM_WORD,
    WORD_ALWAYS,
    WORD_CHECK,
    WORD_POSITION,
    WORD_TEAM,
    WORD_VALUE,
)
from graphc.kernels.lower import lower
from graphc.kernels.memory import place
from graphc.llvm.emit import emit
from graphc.llvm.target import Target
from graphc.runtime.jit import Native, compile_objects, load
from graphc.runtime.team import Team
from graphc.structs import replace

Array = NDArray[np.generic]
N = dim("N")
PATTERN = 0xA5


# Building


def leaf(graph: Graph, name: str, shape: Shape, dtype: DType = float32, kind: str = "input") -> Node:
    """A leaf by name."""
    return graph.add(kind, (), name, dtype, shape)


def maps(graph: Graph, function: Callable[..., object], *nodes: Node) -> Node:
    """An elementwise function with NumPy broadcasting."""
    rank = max(len(n.shape) for n in nodes)
    shape: list[SizeLike] = [1] * rank
    for node in nodes:
        for axis, size in enumerate(node.shape, rank - len(node.shape)):
            shape[axis] = size if shape[axis] == 1 else shape[axis]
    reads = []
    for k, node in enumerate(nodes):
        first = rank - len(node.shape)
        index = [constant(0) if s == 1 and shape[first + a] != 1 else var(first + a) for a, s in enumerate(node.shape)]
        reads.append(Read(k, tuple(index)))
    body = trace(function, [n.dtype for n in nodes])
    return graph.formula(Formula(tuple(shape), plain(rank), tuple(shape), tuple(reads), body), nodes)


def view(graph: Graph, node: Node, shape: Shape, index: Sequence[Affine], guards: Sequence[Guard] = ()) -> Node:
    """``node`` read at affine indices; 0 where a guard fails."""
    read = Read(0, tuple(index), tuple(guards))
    return graph.formula(Formula(shape, plain(len(shape)), shape, (read,), trace(lambda x: x, [node.dtype])), (node,))


def reduces(graph: Graph, node: Node, axes: Sequence[int], combine: str, guards: Sequence[Guard] = ()) -> Node:
    """``node`` reduced over some axes."""
    kept = [a for a in range(len(node.shape)) if a not in axes]
    number = {a: k for k, a in enumerate([*kept, *axes])}
    shape = tuple(node.shape[a] for a in kept)
    extents = shape + tuple(node.shape[a] for a in axes)
    read = Read(0, tuple(var(number[a]) for a in range(len(node.shape))))
    body = trace(lambda x: x, [node.dtype])
    return graph.formula(Formula(extents, plain(len(kept)), shape, (read,), body, combine, tuple(guards)), (node,))


def product(graph: Graph, a: Node, b: Node, spec: str) -> Node:
    """An einsum of two operands, such as ``ij,jk->ik``."""
    left, right = spec.split("->")[0].split(",")
    out = spec.split("->")[1]
    letters = out + "".join(dict.fromkeys(c for c in left + right if c not in out))
    size = {**dict(zip(left, a.shape, strict=True)), **dict(zip(right, b.shape, strict=True))}
    reads = [Read(k, tuple(var(letters.index(c)) for c in names)) for k, names in enumerate((left, right))]
    body = trace(lambda x, y: x * y, [a.dtype, b.dtype])
    extents, shape = tuple(size[c] for c in letters), tuple(size[c] for c in out)
    return graph.formula(Formula(extents, plain(len(out)), shape, tuple(reads), body, "sum"), (a, b))


# Running


@dataclass(slots=True)
class Compiled:
    """A placed program with its machine code."""

    program: Program
    text: str
    native: Native


def compiled(graph: Graph, target: Target) -> Compiled:
    """The machine code of a graph."""
    program = place(lower(graph))
    text = emit(program, target)
    return Compiled(program, text, load(compile_objects([text], target), ["step"], target))


def memory(
    program: Program, arrays: Mapping[str, Array], dims: Mapping[str, int], members: int = 1, apart: bool = True
) -> tuple[list[Array], Array, list[int]]:
    """The array of each buffer that has a context word, the arena, and the slots' offsets in it.

    apart: with a gap between any two slots; else as planned, with a gap before the first and behind the last.
    """
    planned = program.arena
    if apart:
        each = tuple(64 + size for size in planned.slots)
        planned = replace(planned, slots=each, below=tuple((k - 1,) if k else () for k in range(len(each))))
    inside, total = planned.offsets(dims, members)
    arena = np.full(total + 192, PATTERN, np.uint8)
    start = 64 + (-arena.ctypes.data) % 64
    offsets = [start + offset for offset in inside]
    held: list[Array] = []
    for k, buffer in enumerate(program.buffers):
        if buffer.value is not None:
            continue
        shape = tuple(evaluate(s, dims) for s in buffer.shape)
        if buffer.role in ("temp", "output"):
            n_bytes = int(np.prod(shape, dtype=np.int64)) * buffer.dtype.itemsize
            start = offsets[program.slot[k]]
            held.append(arena[start : start + n_bytes].view(buffer.dtype.numpy).reshape(shape))
        else:
            held.append(arrays[buffer.name])
    return held, arena, offsets


def call(
    made: Compiled, arrays: Mapping[str, Array], dims: Mapping[str, int], team: Team | None = None, apart: bool = True
) -> dict[str, Array]:
    """The outputs of one run; persistent arrays are written in place. The gaps between slots must stay as they were.
    team: what the run is shared by. apart: as for ``memory``.

    Raises: IndexRangeError where an index check fails.
    """
    program = made.program
    held, arena, offsets = memory(program, arrays, dims, team.size if team is not None else 1, apart)
    words = np.zeros(FIRST_DIM_WORD + len(program.dims) + len(held), np.int64)
    words[[WORD_TEAM, WORD_ALWAYS]] = (team.address, 1) if team is not None else (0, 0)
    words[FIRST_DIM_WORD : FIRST_DIM_WORD + len(program.dims)] = [dims[d] for d in program.dims]
    words[FIRST_DIM_WORD + len(program.dims) :] = [a.ctypes.data for a in held]
    code = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(made.native.addresses["step"])(words.ctypes.data)
    if code:
        checks = {k.number: k for k in program.kernels if isinstance(k, IndexCheck)}
        check = checks[int(words[WORD_CHECK])]
        assert code == check.number + 1
        bound = evaluate(check.bound, dims)
        raise IndexRangeError(
            check.message.format(value=int(words[WORD_VALUE]), position=int(words[WORD_POSITION]), bound=bound)
        )
    for slot, start in enumerate(offsets):
        end = start + evaluate(program.arena.slots[slot], dims)
        if apart and not (team is not None and slot in program.arena.private):
            assert (arena[end : end + 64] == PATTERN).all()
    first = min(offsets, default=0)
    assert (arena[:first] == PATTERN).all() and (arena[len(arena) - 64 :] == PATTERN).all()
    number = {k: n for n, k in enumerate(k for k, b in enumerate(program.buffers) if b.value is None)}
    return {name: held[number[k]].copy() for name, k in program.outputs}


# Cases


@dataclass(slots=True)
class Case:
    """A graph with the values of its leaves. bounds: index tensors and what they stay below."""

    graph: Graph
    bounds: dict[str, int] = field(default_factory=dict)

    def arrays(self, rng: np.random.Generator, n: int) -> dict[str, Array]:
        """Random values for every leaf, small integers for integer types."""
        result: dict[str, Array] = {}
        for node in self.graph.live():
            if node.kind not in ("input", "param", "state", "hyper"):
                continue
            name = str(node.attr)
            shape = tuple(evaluate(s, {"N": n}) for s in node.shape)
            if node.dtype.kind == "f":
                value: Array = rng.uniform(-2, 2, shape)
            elif node.dtype.kind == "b":
                value = rng.integers(0, 2, shape)
            else:
                low, high = (0, self.bounds[name]) if name in self.bounds else (-5, 6)
                value = rng.integers(low, high, shape)
            result[name] = np.array(value, dtype=node.dtype.numpy, order="C")
        return result


def _broadcasts(t: DType) -> Case:
    g = Graph()
    x, b, c = leaf(g, "x", (N, 5), t), leaf(g, "b", (5,), t), leaf(g, "c", (N, 1), t)
    s = maps(g, lambda p, q, r: p * q + r, x, b, c)
    g.outputs = {"s": s, "d": maps(g, lambda p, q: p - q * 2, s, b), "e": maps(g, lambda p: p + 1, c)}
    return Case(g)


def _chain(t: DType) -> Case:
    """A long chain with uses far apart."""
    g = Graph()
    x = first = leaf(g, "x", (N, 3), t)
    for k in range(40):
        x = maps(g, lambda p, q, k=k: p * 0.5 + q if t.kind == "f" else p - q, x, first)
    g.outputs = {"x": x}
    return Case(g)


def _pads(t: DType) -> Case:
    g = Graph()
    x = leaf(g, "x", (N, 6), t)
    padded = view(
        g,
        x,
        (N + 3, 9),
        (var(0, -1), var(1, -2)),
        (
            Guard("ge", var(0, -1)),
            Guard("ge", Affine(N) - var(0)),
            Guard("ge", var(1, -2)),
            Guard("ge", constant(7) - var(1)),
        ),
    )
    y = leaf(g, "y", (N, 6), t)
    low, high = Guard("ge", constant(5) - var(1)), Guard("ge", var(1, -6))
    reads = (Read(0, plain(2), (low,)), Read(1, (var(0), var(1, -6)), (high,)))
    body = trace(lambda a, b: a + b, [t, t])
    joined = g.formula(Formula((N, 12), plain(2), (N, 12), reads, body), (x, y))
    back = view(g, x, (N, 6), (Affine(N - 1) - var(0), var(1)))
    strided = view(g, x, (N, 2), (var(0), var(1, 5, -3)))
    turned = view(g, x, (6, N), (var(1), var(0)))
    g.outputs = {
        "padded": maps(g, lambda a: a * 2, padded),
        "joined": maps(g, lambda a: a + 1, joined),
        "back": maps(g, lambda a, b: a + b, back, x),
        "strided": strided,
        "turned": turned,
        "sum": reduces(g, padded, (1,), "sum"),
    }
    return Case(g)


def _diagonal(t: DType) -> Case:
    g = Graph()
    x = leaf(g, "x", (N, N), t)
    g.outputs = {
        "d": view(g, x, (N,), (var(0), var(0))),
        "t": reduces(g, view(g, x, (N,), (var(0), var(0))), (0,), "sum"),
    }
    return Case(g)


def _reduces(t: DType) -> Case:
    g = Graph()
    x = leaf(g, "x", (N, 5, 18), t)
    combiners = ["any", "all"] if t.kind == "b" else ["sum", "prod", "max", "min"]
    for combine in combiners:
        for axes in ((0,), (1,), (2,), (0, 2), (1, 2), (0, 1, 2), (2, 0)):
            name = f"{combine}{''.join(map(str, axes))}"
            source = maps(g, lambda a: a * 0.3 + 0.9, x) if combine == "prod" and t.kind == "f" else x
            g.outputs[name] = reduces(g, source, axes, combine)
    return Case(g)


def _softmax(t: DType) -> Case:
    g = Graph()
    x = leaf(g, "x", (N, 11), t)
    lse = reduces(g, x, (1,), "logsumexp")
    wide = view(g, lse, (N, 11), (var(0),))
    p = maps(g, lambda a, b: sym.exp(a - b), x, wide)
    g.outputs = {"lse": lse, "p": p, "loss": reduces(g, lse, (0,), "sum")}
    return Case(g)


def _arg(t: DType) -> Case:
    g = Graph()
    x, y, z = leaf(g, "x", (N, 7), t), leaf(g, "y", (N, 40), t), leaf(g, "z", (N,), t)
    g.outputs = {
        "r": reduces(g, x, (1,), "argmax"),
        "c": reduces(g, x, (0,), "argmin"),
        "m": reduces(g, x, (0,), "argmax"),
        "wide": reduces(g, y, (1,), "argmax"),
        "least": reduces(g, y, (1,), "argmin"),
        "one": reduces(g, z, (0,), "argmax"),
    }
    return Case(g)


def _reversed(t: DType) -> Case:
    """Loads that run backwards, whole, masked and guarded."""
    g = Graph()
    x, y = leaf(g, "x", (N, 6), t), leaf(g, "y", (N, 40), t)
    inside = (Guard("ge", var(1, -3)), Guard("ge", constant(38) - var(1)))
    g.outputs = {
        "x": maps(g, lambda a, b: a + b, view(g, x, (N, 6), (var(0), constant(5) - var(1))), x),
        "y": maps(g, lambda a, b: a + b, view(g, y, (N, 40), (var(0), constant(39) - var(1))), y),
        "z": maps(g, lambda a, b: a + b, view(g, y, (N, 40), (var(0), constant(42) - var(1)), inside), y),
        "s": reduces(g, view(g, y, (N, 40), (var(0), constant(39) - var(1))), (1,), "max" if t.kind == "i" else "sum"),
    }
    return Case(g)


def _cumulative(t: DType) -> Case:
    """Running sums along each axis, forwards, backwards and exclusive."""
    g = Graph()
    x = leaf(g, "x", (N, 9), t)
    body = trace(lambda a: a, [t])
    forward = Formula(
        (N, 9, 9), plain(2), (N, 9), (Read(0, (var(0), var(2))),), body, "sum", (Guard("ge", var(1) - var(2)),)
    )
    down = Formula(
        (N, 9, N), plain(2), (N, 9), (Read(0, (var(2), var(1))),), body, "sum", (Guard("ge", var(0) - var(2)),)
    )
    reverse = Formula(
        (N, 9, 9), plain(2), (N, 9), (Read(0, (var(0), var(2))),), body, "sum", (Guard("ge", var(2) - var(1)),)
    )
    before = Formula(
        (N, 9, 9), plain(2), (N, 9), (Read(0, (var(0), var(2))),), body, "sum", (Guard("ge", var(1, -1) - var(2)),)
    )
    after = Formula(
        (N, 9, N), plain(2), (N, 9), (Read(0, (var(2), var(1))),), body, "sum", (Guard("ge", var(2) - var(0)),)
    )
    g.outputs = {
        name: g.formula(f, (x,))
        for name, f in (
            ("forward", forward),
            ("down", down),
            ("reverse", reverse),
            ("before", before),
            ("after", after),
        )
    }
    times = Formula(
        (N, 9, 9),
        plain(2),
        (N, 9),
        (Read(0, (var(0), var(2))), Read(0, (var(0), var(1)))),
        trace(lambda a, b: a * b, [t, t]),
        "sum",
        (Guard("ge", var(1) - var(2)),),
    )
    for name, extent, guard in (
        ("late", 14, var(1, -3) - var(2)),
        ("early", 4, var(1, 6) - var(2)),
        ("from", 14, var(2, 2) - var(1)),
        ("upto", 4, var(2, -3) - var(1)),
    ):
        other = Formula(
            (N, extent, 9), plain(2), (N, extent), (Read(0, (var(0), var(2))),), body, "sum", (Guard("ge", guard),)
        )
        g.outputs[name] = g.formula(other, (x,))
    g.outputs["times"] = g.formula(times, (x,))
    top = Formula(
        (N, 9, 9), plain(2), (N, 9), (Read(0, (var(0), var(2))),), body, "max", (Guard("ge", var(1) - var(2)),)
    )
    g.outputs["top"] = g.formula(top, (x,))
    return Case(g)


def _scatters(t: DType) -> Case:
    g = Graph()
    x, at = leaf(g, "x", (N, 5), t), leaf(g, "at", (N,), int64)
    rows = FromData(1, (var(0),), 8)
    body = trace(lambda a: a, [t])
    table = g.formula(Formula((N, 5), (rows, var(1)), (8, 5), (Read(0, plain(2)),), body, "sum"), (x, at))
    strided = g.formula(
        Formula((N, 5), (var(0, 1, 2), var(1, 0, 3)), (2 * N + 1, 15), (Read(0, plain(2)),), body, "sum"), (x,)
    )
    short = leaf(g, "short", (N,), int32)
    counts = g.formula(Formula((N,), (FromData(0, (var(0),), 4),), (4,), (), trace(lambda: 1, []), "sum"), (short,))
    g.outputs = {"table": table, "strided": strided, "counts": counts, "twice": maps(g, lambda a: a + a, table)}
    return Case(g, {"at": 8, "short": 4})


def _gathers(t: DType) -> Case:
    g = Graph()
    table, at = leaf(g, "table", (8, 5), t), leaf(g, "at", (N,), int32)
    rows = g.formula(
        Formula((N, 5), plain(2), (N, 5), (Read(0, (FromData(1, (var(0),), 8), var(1))),), trace(lambda a: a, [t])),
        (table, at),
    )
    col = leaf(g, "col", (N,), int64)
    x = leaf(g, "x", (N, 6), t)
    picked = g.formula(
        Formula((N,), plain(1), (N,), (Read(0, (var(0), FromData(1, (var(0),), 6))),), trace(lambda a: a, [t])),
        (maps(g, lambda a: ~a if t.kind == "b" else a + a, x), col),
    )
    hot = g.formula(
        Formula(
            (N, 6),
            plain(2),
            (N, 6),
            (),
            trace(lambda: 1, []),
            "none",
            (Guard("eq", var(1), data=FromData(0, (var(0),), 6)),),
        ),
        (col,),
    )
    ct = g.formula(
        Formula(
            (N, 6),
            plain(2),
            (N, 6),
            (Read(0, (var(0),)),),
            trace(lambda a: a, [t]),
            "none",
            (Guard("eq", var(1), data=FromData(1, (var(0),), 6)),),
        ),
        (leaf(g, "ct", (N,), t), col),
    )
    g.outputs = {
        "rows": rows,
        "picked": picked,
        "hot": hot,
        "ct": ct,
        "all": reduces(g, rows, (0,), "all" if t.kind == "b" else "sum"),
    }
    return Case(g, {"at": 8, "col": 6})


def _products(t: DType) -> Case:
    g = Graph()
    x, w, v = leaf(g, "x", (N, 20), t), leaf(g, "w", (20, 37), t), leaf(g, "v", (37, 20), t)
    ct = leaf(g, "ct", (N, 37), t)
    q = leaf(g, "q", (20,), t)
    g.outputs = {
        "ab": product(g, x, w, "ij,jk->ik"),
        "abt": product(g, x, v, "ij,kj->ik"),
        "atb": product(g, x, ct, "ni,nj->ij"),
        "mv": product(g, x, q, "ij,j->i"),
        "outer": product(g, q, leaf(g, "r", (9,), t), "i,j->ij"),
        "gram": product(g, x, x, "ni,nj->ij"),
        "rows": product(g, x, x, "ik,jk->ij"),
    }
    return Case(g)


def _odd_products(t: DType) -> Case:
    """Operands of products that are guarded, picked by data, reversed, strided or of more than one summed index."""
    g = Graph()
    x, w, at = leaf(g, "x", (N, 20), t), leaf(g, "w", (20, 37), t), leaf(g, "at", (N,), int32)
    inside = (Guard("ge", var(0, -1)), Guard("ge", constant(20) - var(0)))
    tall = view(g, w, (22, 37), (var(0, -1), var(1)), inside)
    wide = view(g, x, (N, 22), (var(0), var(1, -1)), (Guard("ge", var(1, -1)), Guard("ge", constant(20) - var(1))))
    picked = g.formula(
        Formula((N, 37), plain(2), (N, 37), (Read(0, (FromData(1, (var(0),), 20), var(1))),), trace(lambda a: a, [t])),
        (w, at),
    )
    turned = view(g, x, (N, 20), (Affine(N - 1) - var(0), constant(19) - var(1)))
    halved = view(g, x, (N, 10), (var(0), var(1, 0, 2)))
    y, z = leaf(g, "y", (N, 4, 5), t), leaf(g, "z", (40, 4, 5), t)
    g.outputs = {
        "tall": product(g, wide, tall, "ij,jk->ik"),
        "picked": product(g, picked, w, "ij,kj->ik"),
        "picks": product(g, x, picked, "ni,nj->ij"),
        "turned": product(g, turned, w, "ij,jk->ik"),
        "turns": product(g, w, turned, "ji,kj->ki"),
        "halved": product(g, halved, halved, "ik,jk->ij"),
        "two": product(g, y, z, "iab,jab->ij"),
        "last": product(g, y, z, "iab,jab->ji"),
    }
    return Case(g, {"at": 20})


def _batched(t: DType) -> Case:
    g = Graph()
    x, y = leaf(g, "x", (N, 3, 10), t), leaf(g, "y", (N, 10, 17), t)
    z = leaf(g, "z", (10, 17), t)
    g.outputs = {
        "b": product(g, x, y, "bij,bjk->bik"),
        "s": product(g, x, z, "bij,jk->bik"),
        "d": product(g, x, y, "bij,bjk->ik"),
        "t": product(g, y, x, "bjk,bij->bki"),
    }
    return Case(g)


def _dense(t: DType) -> Case:
    """Bias, activation and its derivative beside products, forward and backward, with the update in place."""
    g = Graph()
    x, y = leaf(g, "x", (N, 12), t), leaf(g, "y", (N, 3), t)
    w1, b1 = leaf(g, "w1", (12, 33), t, "param"), leaf(g, "b1", (33,), t, "param")
    w2 = leaf(g, "w2", (33, 3), t, "param")
    rate = leaf(g, "rate", (), t, "hyper")
    act = (lambda a: sym.tanh(a)) if t.kind == "f" else (lambda a: sym.maximum(a, 0))
    slope = (lambda d, h: d * (1 - h * h)) if t.kind == "f" else (lambda d, h: sym.where(h > 0, d, 0))
    z = maps(g, lambda a, b: a + b, product(g, x, w1, "ij,jk->ik"), b1)
    h = maps(g, act, z)
    d = maps(g, lambda a, b: a - b, product(g, h, w2, "ij,jk->ik"), y)
    dz = maps(g, slope, product(g, d, w2, "ij,kj->ik"), h)
    step = (lambda w, c, r: w - r * c) if t.kind == "f" else (lambda w, c, r: w - c)
    g.updates = {
        w1: maps(g, step, w1, product(g, x, dz, "ni,nj->ij"), rate),
        w2: maps(g, step, w2, product(g, h, d, "ni,nj->ij"), rate),
        b1: maps(g, step, b1, reduces(g, dz, (0,), "sum"), rate),
    }
    g.outputs = {"loss": reduces(g, maps(g, lambda a: a * a, d), (0, 1), "sum")}
    return Case(g)


def _states(t: DType) -> Case:
    """Exchanged states, a state that reads another's old value, one that reads itself elsewhere, a count."""
    g = Graph()
    a, b = leaf(g, "a", (7, 3), t, "state"), leaf(g, "b", (7, 3), t, "state")
    c, d = leaf(g, "c", (7, 3), t, "state"), leaf(g, "d", (7,), t, "state")
    rolled = view(g, c, (7, 3), (constant(6) - var(0), var(1)))
    g.updates = {
        a: b,
        b: a,
        c: maps(g, lambda p, q: p + q, rolled, a),
        d: maps(g, lambda p, q: p + q, d, reduces(g, c, (1,), "sum")),
    }
    g.outputs = {"a": a, "s": maps(g, lambda p, q: p * q, c, d_wide(g, d))}
    return Case(g)


def d_wide(g: Graph, node: Node) -> Node:
    """A vector over the rows of a (7, 3) matrix."""
    return view(g, node, (7, 3), (var(0),))


def _tied(t: DType) -> Case:
    """One weight used twice, transposed the second time; its update needs both."""
    g = Graph()
    x, w = leaf(g, "x", (N, 6), t), leaf(g, "w", (6, 10), t, "param")
    h = product(g, x, w, "ij,jk->ik")
    out = product(g, h, w, "ik,jk->ij")
    d = maps(g, lambda a, b: a - b, out, x)
    dw = maps(
        g, lambda p, q: p + q, product(g, d, h, "nj,nk->jk"), product(g, x, product(g, d, w, "nj,jk->nk"), "ni,nk->ik")
    )
    norm = reduces(g, maps(g, lambda p: p * p, dw), (0, 1), "sum")
    new = maps(g, lambda p, q, s: p - q * 0.1 / (1 + s) if t.kind == "f" else p - q, w, dw, norm)
    g.updates = {w: new}
    g.outputs = {"norm": norm}
    return Case(g)


def _relabels(t: DType) -> Case:
    g = Graph()
    x = leaf(g, "x", (N, 12), t)
    folded = g.add("reshape", (maps(g, lambda a: a + a, x),), None, t, (N, 3, 4))
    flat = g.add("reshape", (x,), None, t, (N * 12,))
    g.outputs = {
        "folded": folded,
        "s": reduces(g, folded, (1,), "sum"),
        "flat": flat,
        "q": reduces(g, flat, (0,), "sum"),
    }
    return Case(g)


def _mixed(t: DType) -> Case:
    """Several types in one nest."""
    g = Graph()
    x, k, m = leaf(g, "x", (N, 20), t), leaf(g, "k", (N, 20), int32), leaf(g, "m", (N, 20), boolean)
    other = DTYPES["float64"] if t.name == "float32" else float32
    y = leaf(g, "y", (20,), other)
    chosen = maps(g, lambda p, q, r: sym.where(q, p, r), x, m, k)
    big = maps(g, lambda p, q: p + q, chosen, y)
    n_true = reduces(g, maps(g, lambda p: sym.where(p, 1, 0), m), (1,), "sum")
    g.outputs = {
        "chosen": chosen,
        "big": big,
        "n_true": n_true,
        "less": maps(g, lambda p, q: p < q, x, k),
        "index": g.formula(Formula((N, 20), plain(2), (N, 20), (Read(0, plain(2)),), _with_index(x.dtype)), (x,)),
    }
    return Case(g)


def _with_index(t: DType):  # type: ignore[no-untyped-def]
    from graphc.graph.scalar import BodyBuilder

    builder = BodyBuilder()
    x = builder.read(0, t)
    return builder.finish(sym.where(builder.index(0) >= builder.index(1), x + builder.index(1), builder.size(N - 1)))


def _empty_sums(t: DType) -> Case:
    """Sums of no reads, of one row, of constants."""
    g = Graph()
    x = leaf(g, "x", (1, N), t)
    g.outputs = {
        "one": reduces(g, x, (0,), "sum"),
        "all": reduces(g, x, (0, 1), "sum"),
        "const": g.formula(Formula((N, 4), plain(2), (N, 4), (), trace(lambda: 3, [])), ()),
        "held": maps(g, lambda a, b: a + b, x, g.const(np.arange(1, 2, dtype=t.numpy))),
    }
    return Case(g)


def _visits(t: DType) -> Case:
    """Elementwise nodes that are stored, read by one another and reduced: one visit to each of their points."""
    g = Graph()
    x, y = leaf(g, "x", (N, 37), t), leaf(g, "y", (N, 37), t)
    p = leaf(g, "p", (N, 37), t, "state")
    a = maps(g, lambda u, v: u * v - v, x, y)
    total = reduces(g, maps(g, lambda u: u * u, x), (0, 1), "sum")
    b = maps(g, lambda u, v: sym.maximum(u, v) + 1, a, x)
    rows, tops = reduces(g, b, (1,), "sum"), reduces(g, a, (1,), "max")
    columns = reduces(g, maps(g, lambda u: u - 2, y), (0,), "sum")
    pairs = view(g, maps(g, lambda u: u + u, leaf(g, "z", (N, 3), t)), (N,), (var(0), constant(1)))
    stacked = maps(g, lambda u, v: u + v, a, view(g, rows, (N, 37), (var(0),)))
    g.updates = {p: maps(g, lambda u, v: u + v, p, b)}
    g.outputs = {"a": a, "b": b, "total": total, "rows": rows, "tops": tops, "columns": columns, "stacked": stacked}
    g.outputs["pairs"] = pairs
    g.outputs["all"] = reduces(g, maps(g, lambda u: u * u, pairs), (0,), "sum")
    return Case(g)


def _rows_joined(t: DType) -> Case:
    """Sums along what lies side by side, few columns, and elements two and three apart."""
    g = Graph()
    x, w = leaf(g, "x", (N, 40), t), leaf(g, "w", (40, 2), t)
    z = product(g, x, w, "ij,jk->ik")
    first, second = (view(g, z, (N,), (var(0), constant(c))) for c in range(2))
    d = maps(g, lambda u, v: u * v - v, first, second)
    both = maps(
        g,
        lambda u, v: u + v,
        view(g, d, (N, 2), (var(0),), (Guard("eq", var(1)),)),
        view(g, maps(g, lambda u: u + u, d), (N, 2), (var(0),), (Guard("eq", var(1, -1)),)),
    )
    third = view(g, leaf(g, "q", (40, 3), t), (40,), (var(0), constant(2)))
    g.outputs = {
        "z": z,
        "both": both,
        "columns": reduces(g, both, (0,), "sum"),
        "gram": product(g, x, both, "ni,nj->ij"),
        "rows": reduces(g, x, (1,), "sum"),
        "tops": reduces(g, leaf(g, "y", (N, 40), t), (1,), "max"),
        "third": maps(g, lambda u: u + u, third),
        "mv": product(g, leaf(g, "u", (N, 40), t), third, "ij,j->i"),
    }
    return Case(g)


NUMBERS = ("float32", "float64", "int32", "int64")
FLOATS = ("float32", "float64")
CASES: dict[str, tuple[Callable[[DType], Case], tuple[str, ...]]] = {
    "broadcasts": (_broadcasts, NUMBERS),
    "chain": (_chain, ("float32", "int64")),
    "pads": (_pads, NUMBERS),
    "diagonal": (_diagonal, ("float32", "int64")),
    "reduces": (_reduces, (*NUMBERS, "bool")),
    "softmax": (_softmax, FLOATS),
    "arg": (_arg, NUMBERS),
    "reversed": (_reversed, NUMBERS),
    "cumulative": (_cumulative, NUMBERS),
    "scatters": (_scatters, NUMBERS),
    "gathers": (_gathers, (*NUMBERS, "bool")),
    "products": (_products, NUMBERS),
    "odd_products": (_odd_products, NUMBERS),
    "batched": (_batched, NUMBERS),
    "dense": (_dense, NUMBERS),
    "states": (_states, NUMBERS),
    "tied": (_tied, ("float32", "float64", "int64")),
    "relabels": (_relabels, NUMBERS),
    "mixed": (_mixed, FLOATS),
    "empty_sums": (_empty_sums, NUMBERS),
    "visits": (_visits, NUMBERS),
    "rows_joined": (_rows_joined, NUMBERS),
}
EACH = [(name, dtype) for name, (_, dtypes) in CASES.items() for dtype in dtypes]
BATCHES = (1, 7, 32)


def make(name: str, dtype: str) -> Case:
    """A case by name."""
    return CASES[name][0](DTYPES[dtype])
