"""The arguments of a call: what is converted, and what is refused with which words."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

import handmade
import numpy as np
import pytest
from handmade import loss_of, values

import graphc as gc
from graphc import errors
from graphc.graph.dtypes import float32
from graphc.graph.sizes import dim
from graphc.kernels.arena import Arena
from graphc.kernels.layout import Buffer, Layout, Results
from graphc.runtime.arguments import DimSolver, input_slots
from graphc.runtime.compiled import Compiled
from graphc.runtime.step import TrainStep


def given(rng: np.random.Generator, **changed: object) -> dict[str, object]:
    return {**handmade.batch(rng, 6), **changed}


ACCEPTED: dict[str, object] = {
    "float64": lambda d: {"x": d["x"].astype(np.float64)},
    "float16": lambda d: {"x": d["x"].astype(np.float16)},
    "integers for floats": lambda d: {"y": np.arange(6)},
    "booleans for floats": lambda d: {"y": np.arange(6) > 3},
    "int64 for int32": lambda d: {"k": d["k"].astype(np.int64)},
    "uint8": lambda d: {"k": d["k"].astype(np.uint8)},
    "lists": lambda d: {"x": d["x"].tolist(), "k": d["k"].tolist()},
    "Fortran order": lambda d: {"x": np.asfortranarray(d["x"])},
    "strided": lambda d: {"y": np.repeat(d["y"], 2)[::2]},
    "reversed": lambda d: {"y": d["y"][::-1].copy()[::-1]},
    "big-endian": lambda d: {"x": d["x"].astype(">f4"), "k": d["k"].astype(">i4")},
    "unaligned": lambda d: {"y": np.frombuffer(b"\0" + d["y"].tobytes(), np.float32, offset=1)},
    "read-only": lambda d: {"y": np.frombuffer(d["y"].tobytes(), np.float32)},
    "a buffer": lambda d: {"y": memoryview(d["y"])},
    "a subclass": lambda d: {"x": np.asarray(d["x"]).view(np.matrix)},
}


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # of np.matrix, which stands for any subclass
@pytest.mark.parametrize("name", ACCEPTED)
def test_what_fits_is_converted(program: Compiled, rng: np.random.Generator, name: str) -> None:
    one, other = handmade.make_step(program), handmade.make_step(program)
    data = handmade.batch(rng, 6)
    change = ACCEPTED[name]
    assert callable(change)
    changed: Mapping[str, object] = change(data)
    plain = {
        key: np.ascontiguousarray(np.asarray(value), dtype=data[key].dtype).reshape(data[key].shape)
        for key, value in changed.items()
    }
    assert loss_of(one(**{**data, **changed})) == loss_of(other(**{**data, **plain}))
    assert values(one) == values(other)


X = "\n  model.py:3: x = gc.input('x', (N, 3))"
Y = "\n  model.py:4: y = gc.input('y', (N,))"
K = "\n  model.py:5: k = gc.input('k', (N,), dtype='int32')"
REFUSED: list[tuple[str, dict[str, object], type[errors.GraphcError], str]] = [
    ("missing", {"y": ...}, errors.InputError, f"step: input 'y' is missing; needs float32[N]{Y}"),
    ("unknown", {"z": 1}, errors.InputError, "step: 'z' given is no input; needs x, y, k, lr"),
    (
        "misspelt", {"y": ..., "Y": [1.0]}, errors.InputError,
        f"step: input 'y' is missing; needs float32[N]; 'Y' given is no input{Y}",
    ),
    (
        "rank", {"y": np.zeros((6, 1), np.float32)}, errors.ShapeError,
        f"step: input 'y' of shape (6, 1): has rank 2, needs rank 1; declared (N,){Y}",
    ),
    (
        "a number", {"y": 1.5}, errors.ShapeError,
        f"step: input 'y' of shape (): has rank 0, needs rank 1; declared (N,){Y}",
    ),
    (
        "size", {"x": np.zeros((6, 4), np.float32)}, errors.ShapeError,
        f"step: input 'x' of shape (6, 4): axis 1 has size 4, needs 3; declared (N, 3){X}",
    ),
    (
        "sizes that disagree", {"k": np.zeros(5, np.int32)}, errors.ShapeError,
        f"step: input 'k' of shape (5,): axis 0 has size 5, needs N = 6 (N = 6 by input 'x'); declared (N,){K}",
    ),
    (
        "a batch of zero", {"x": np.zeros((0, 3)), "y": [], "k": np.zeros(0, np.int32)}, errors.ShapeError,
        f"step: input 'x' of shape (0, 3): has no elements: every size is at least 1; declared (N, 3){X}",
    ),
    (
        "float to int", {"k": np.zeros(6)}, errors.DTypeError,
        f"step: input 'k': float64 given; needs int32: an integer takes integers and booleans{K}",
    ),
    (
        "complex", {"y": np.zeros(6, complex)}, errors.DTypeError,
        f"step: input 'y': complex128 given; needs float32: a float takes floats, integers and booleans{Y}",
    ),
    (
        "objects", {"y": np.array([None] * 6)}, errors.DTypeError,
        f"step: input 'y': object given; needs float32: a float takes floats, integers and booleans{Y}",
    ),
    (
        "text", {"y": ["a"] * 6}, errors.DTypeError,
        f"step: input 'y': <U1 given; needs float32: a float takes floats, integers and booleans{Y}",
    ),
    (
        "a string", {"y": "abc"}, errors.DTypeError,
        f"step: input 'y': 'abc' given; needs float32: a float takes floats, integers and booleans{Y}",
    ),
    (
        "None", {"y": None}, errors.DTypeError,
        f"step: input 'y': None given; needs float32: a float takes floats, integers and booleans{Y}",
    ),
    (
        "dates", {"y": np.zeros(6, "datetime64[s]")}, errors.DTypeError,
        f"step: input 'y': datetime64[s] given; needs float32: a float takes floats, integers and booleans{Y}",
    ),
    (
        "a masked array", {"y": np.ma.masked_array(np.zeros(6), np.ones(6, bool))}, errors.DTypeError,
        f"step: input 'y': a masked array given; needs float32: a float takes floats, integers and booleans{Y}",
    ),
    (
        "too large", {"k": np.array([1, 2, 2**31, 4, 5, 6])}, errors.DTypeError,
        f"step: input 'k': 2147483648 given; needs int32, from -2147483648 to 2147483647{K}",
    ),
    (
        "too small", {"k": np.array([1, 2, -(2**40), 4, 5, 6])}, errors.DTypeError,
        f"step: input 'k': -1099511627776 given; needs int32, from -2147483648 to 2147483647{K}",
    ),
    (
        "an index too large", {"k": np.array([0, 9, 10, 1, 2, 3])}, errors.IndexRangeError,
        "take: index 10 at position 2; needs 0 <= index < 10\n  model.py:9: t[k]",
    ),
    (
        "a negative index", {"k": np.array([0, 9, 1, 1, 2, -1])}, errors.IndexRangeError,
        "take: index -1 at position 5; needs 0 <= index < 10\n  model.py:9: t[k]",
    ),
    (
        "a hyper-parameter's dtype", {"lr": 1j}, errors.DTypeError,
        "step: 'lr': complex128 given; needs float32: a float takes floats, integers and booleans",
    ),
    (
        "a hyper-parameter's shape", {"lr": [0.1]}, errors.ShapeError,
        "step: 'lr' of shape (1,) given; needs a single number",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("changed", "error", "message"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED])
def test_what_does_not_fit_is_refused(
    step: TrainStep,
    rng: np.random.Generator,
    changed: dict[str, object],
    error: type[errors.GraphcError],
    message: str,
) -> None:
    step(**handmade.batch(rng, 6))
    arguments = {name: value for name, value in given(rng, **changed).items() if value is not ...}
    before = values(step)
    with pytest.raises(error) as caught:
        step(**arguments)
    assert str(caught.value) == message
    assert type(caught.value) is error
    assert values(step) == before


def test_ragged_lists_are_refused(step: TrainStep, rng: np.random.Generator) -> None:
    with pytest.raises(errors.DTypeError, match="input 'x': list given, which is not an array"):
        step(**given(rng, x=[[1, 2, 3], [1, 2]]))


def test_errors_are_the_usual_pythons_too() -> None:
    assert issubclass(errors.IndexRangeError, IndexError)
    assert issubclass(errors.UnknownNameError, KeyError)
    assert issubclass(errors.FileAccessError, OSError)


def test_random_malformed_calls_change_nothing(step: TrainStep, rng: np.random.Generator) -> None:
    twin = handmade.make_step(handmade.compiled())
    pool: list[object] = [
        None, 1, 2.5, "x", b"x", [], [1.0], {}, object(), 1j, np.zeros((6, 3)), np.zeros((6, 3), np.float32)[::2],
        np.zeros(6), np.zeros(6, np.float32), np.zeros(6, np.int32), np.zeros((0, 3)), np.zeros(6, "U3"),
        np.zeros((6, 3, 1)), np.array(3.0), [[1, 2], [3]], np.full(6, 2**40), float("nan"), np.zeros(7, np.int32),
    ]  # fmt: skip
    n_bad = 0
    for _ in range(int(os.environ.get("GRAPHC_BAD_CALLS", "3000"))):
        call = {name: pool[rng.integers(len(pool))] for name in ("x", "y", "k", "lr", "z") if rng.random() < 0.7}
        good = call.keys() >= {"x", "y", "k"} and "z" not in call
        try:
            step(**call)
        except errors.GraphcError:
            n_bad += 1
        else:
            assert good
            twin(**call)
    assert n_bad > 2000 * int(os.environ.get("GRAPHC_BAD_CALLS", "3000")) / 3000
    data = handmade.batch(rng, 16)
    assert [loss_of(step(**data)) for _ in range(5)] == [loss_of(twin(**data)) for _ in range(5)]
    assert values(step) == values(twin)


def test_an_input_that_is_a_weight_is_copied(step: TrainStep, rng: np.random.Generator) -> None:
    twin = handmade.make_step(handmade.compiled())
    data = handmade.batch(rng, 1)
    copied = {**data, "x": twin.params["w"].reshape(1, 3).copy()}
    assert loss_of(step(**{**data, "x": step.params["w"].reshape(1, 3)})) == loss_of(twin(**copied))
    assert values(step) == values(twin)


def test_sizes_are_solved_from_the_shapes() -> None:
    n, m = dim("N"), dim("M")
    shapes = ((2 * n + 1, m), (n * m,), (n // 2 + 1,))
    buffers = tuple(Buffer(f"a{k}", "input", float32, shape) for k, shape in enumerate(shapes))
    solver = DimSolver(("N", "M"), input_slots(Layout(("N", "M"), buffers, Arena(), Results("list"))))
    assert solver.solve(((7, 5), (15,), (2,)), "f") == {"N": 3, "M": 5}
    with pytest.raises(errors.ShapeError, match=r"no N of at least 1 gives 2\*N \+ 1 = 6"):
        solver.solve(((6, 5), (15,), (2,)), "f")
    with pytest.raises(errors.ShapeError, match=r"axis 0 has size 16, needs M\*N = 15 \(N = 3 by input 'a0', M = 5"):
        solver.solve(((7, 5), (16,), (2,)), "f")
    with pytest.raises(errors.InternalError, match="no input's shape gives dimension K"):
        DimSolver(("K",), input_slots(Layout(("N", "M"), buffers, Arena(), Results("list"))))


def test_a_derivative_takes_what_its_function_reads() -> None:
    """Though it does not read all of it itself, as that of a linear function; what is given is checked."""
    n = gc.dim("N")
    x, w = gc.input("x", (n, 4)), gc.param("w", (4, 2), init=gc.init.ones())
    loss = gc.sum(x @ w)
    d_w, d_x = gc.grad(loss, [w, x])
    rows, weights = np.ones((3, 4), np.float32), np.ones((4, 2))
    wanted = np.full((4, 2), 3)
    np.testing.assert_array_equal(d_w.eval(x=rows, w=weights), wanted)
    np.testing.assert_array_equal(d_x.eval(x=rows), np.full((3, 4), 2))
    for function in (gc.compile(d_w), gc.compile(2 * d_w.named("g") / 2)):
        np.testing.assert_array_equal(function(x=rows, w=weights), wanted)
        np.testing.assert_array_equal(function(x=rows), wanted)
        with pytest.raises(errors.ShapeError, match=re.escape("input 'w' of shape (4, 3): axis 1 has size 3, needs 2")):
            function(x=rows, w=np.ones((4, 3)))
        with pytest.raises(errors.DTypeError, match="input 'w': 'a' given"):
            function(x=rows, w="a")
        with pytest.raises(errors.InputError, match="'z' given is no input"):
            function(x=rows, z=rows)
    with pytest.raises(errors.ShapeError, match=re.escape("w: shape (4, 3) given")):
        d_w.eval(x=rows, w=np.ones((4, 3)))
    with pytest.raises(errors.InputError, match="'z' given"):
        d_w.eval(x=rows, z=rows)


def test_a_derivative_that_is_an_operand_takes_all_too() -> None:
    a, b = gc.input("a", (3,)), gc.input("b", (3,))
    d_b = gc.grad(gc.sum(a * b), b)
    np.testing.assert_array_equal(d_b.eval(a=np.arange(3), b=np.ones(3)), np.arange(3))
    np.testing.assert_array_equal(gc.compile(d_b)(a=np.arange(3), b=np.ones(3)), np.arange(3))
    w = gc.param("w", (3,))
    step = gc.compile(gc.sum(w * w) + gc.sum(gc.grad(gc.sum(2 * a), a)), gc.optim.sgd())
    assert step(a=np.ones(3)) == step() == 6.0
    with pytest.raises(errors.ShapeError, match="input 'a'"):
        step(a=np.ones(4))
