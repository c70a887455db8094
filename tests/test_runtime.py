"""The runtime on a step written by hand: calls, arguments, live weights, saving, threads, memory."""

from __future__ import annotations

import copy
import gc
import mmap
import os
import pickle
import resource
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Mapping
from pathlib import Path

import handmade
import numpy as np
import pytest
from numpy.typing import NDArray

from graphc import errors
from graphc.graph.dtypes import float32
from graphc.graph.sizes import dim
from graphc.kernels.layout import Buffer, Layout, Results, slot_offsets, verify
from graphc.runtime import fastcall
from graphc.runtime import program as program_module
from graphc.runtime.arguments import DimSolver, input_slots
from graphc.runtime.memory import Guarded, guarded, zeroed
from graphc.runtime.program import Compiled, Program
from graphc.runtime.step import TrainStep
from graphc.runtime.store import make_store

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def program() -> Compiled:
    return handmade.compiled()


@pytest.fixture(scope="module")
def bare() -> Compiled:
    return handmade.compiled(bare=True)


@pytest.fixture(params=["outputs", "bare"])
def step(request: pytest.FixtureRequest, program: Compiled, bare: Compiled) -> TrainStep:
    """A step called through Python, and one without further outputs, whose calls are native where they can be."""
    return handmade.make_step(bare if request.param == "bare" else program)


def loss_of(result: object) -> float:
    loss = result[0] if isinstance(result, tuple) else result
    assert type(loss) is float
    return loss


def values(step: TrainStep) -> dict[str, bytes]:
    """Everything persistent, bit for bit."""
    return {name: a.tobytes() for live in (step.params, step.state) for name, a in live.items()}


# Calls


def test_steps_of_any_batch_size_are_numpys(program: Compiled, rng: np.random.Generator) -> None:
    step = handmade.make_step(program)
    reference = handmade.Reference()
    for n in (32, 1, 7, 1000, 32):
        data = handmade.batch(rng, n)
        x, y = data["x"].astype(np.float32), data["y"].astype(np.float32)
        expected = x @ reference.w
        result = step(**data)
        assert isinstance(result, tuple)
        assert loss_of(result) == pytest.approx(reference.step(x, y), rel=1e-5)
        np.testing.assert_allclose(result[1]["pred"], expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(step.params["w"], reference.w, rtol=1e-5)
    assert int(step.state["step_count"]) == 5
    assert step.stats().compiles == 1
    assert step.stats().calls == 5


def test_outputs_are_the_callers_own(program: Compiled, rng: np.random.Generator) -> None:
    step = handmade.make_step(program)
    data = handmade.batch(rng, 4)
    first = step(**data)
    assert isinstance(first, tuple)
    before = first[1]["pred"].copy()
    step(**data)
    np.testing.assert_array_equal(first[1]["pred"], before)
    first[1]["pred"][:] = 0


def test_a_hyper_parameter_holds_for_one_call(program: Compiled, rng: np.random.Generator) -> None:
    data = handmade.batch(rng, 8)
    one, other = handmade.make_step(program), handmade.make_step(program)
    for lr in (0.5, 0.125, 0.25):
        one(**data, lr=lr)
        one(**data)
        other.hyper["lr"] = lr
        other(**data)
        other.hyper["lr"] = 0.125
        other(**data)
    assert values(one) == values(other)
    assert one.hyper["lr"] == 0.125 and dict(one.hyper) == {"lr": 0.125}


def test_a_failing_override_leaves_the_default(step: TrainStep, rng: np.random.Generator) -> None:
    data = handmade.batch(rng, 8)
    twin = handmade.make_step(handmade.compiled())
    bad = {**data, "k": np.full(8, 10, np.int32)}
    with pytest.raises(errors.IndexRangeError):
        step(**bad, lr=100.0)
    with pytest.raises(errors.DTypeError):
        step(**data, lr="fast")
    assert loss_of(step(**data)) == loss_of(twin(**data))
    assert values(step) == values(twin)


def test_a_function_reads_the_live_weights(step: TrainStep, rng: np.random.Generator) -> None:
    data = handmade.batch(rng, 8)
    function = step.function(None)
    first = function(**data)
    assert isinstance(first, np.ndarray) and first.shape == ()
    assert float(first) == loss_of(step(**data))
    assert float(function(**data)) < float(first)  # type: ignore[arg-type]
    step.params["w"] = [1.0, -2.0, 0.5]
    assert float(function(**data)) < 1e-12  # type: ignore[arg-type]


def test_arena_is_known_before_running(program: Compiled) -> None:
    offsets, total = slot_offsets(program.layout, {"N": 100})
    assert offsets == (0, 64, 64 + 448) and total == 64 + 448 + 64
    step = handmade.make_step(program)
    assert step.program.arena_bytes({"N": 100}) == total and step.stats().arena_bytes == 0


@pytest.mark.skipif(sys.platform != "linux", reason="guard pages need mprotect")
def test_nothing_is_written_outside_the_arena(step: TrainStep, rng: np.random.Generator) -> None:
    made: list[Guarded] = []

    def allocate(n_bytes: int) -> NDArray[np.uint8]:
        made.append(guarded(n_bytes))
        return made[-1].block

    step.program.use_allocator(allocate)
    for n in (1, 7, 1000):
        data = handmade.batch(rng, n)
        step(**data)
        arena = made[-1]
        assert arena.block.size == step.program.arena_bytes({"N": n})
        assert arena.n_written_before() == 0
        # The gradient's twelve bytes are the last of the plan, but for the padding of its slot.
        assert arena.highest_written() == arena.block.size - 64 + 12 - 1


@pytest.mark.skipif(sys.platform != "linux", reason="guard pages need mprotect")
def test_guard_pages_are_deadly() -> None:
    for offset in (64, -mmap.PAGESIZE + 63):
        code = (
            "import ctypes; from graphc.runtime.memory import guarded\n"
            f"ctypes.memset(guarded(64).block.ctypes.data + {offset}, 0, 1)"
        )
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, timeout=60)
        assert done.returncode == -signal.SIGSEGV


def test_repr_says_what_it_is(step: TrainStep) -> None:
    assert repr(step) == "<graphc step (x: float32[N, 3], y: float32[N], k: int32[N]), 3 weights in 1 params>"
    assert repr(step.function(None)) == "<graphc function (x: float32[N, 3], y: float32[N], k: int32[N]) -> float32[]>"
    assert repr(step.params) == "<step.params: w: float32[3]>"
    assert step.show("llvm") == "stage llvm"


@pytest.mark.parametrize("action", [pickle.dumps, copy.copy, copy.deepcopy])
def test_pickling_is_refused(step: TrainStep, action: object) -> None:
    assert callable(action)
    with pytest.raises(errors.UsageError, match="cannot be pickled or copied"):
        action(step)


# Arguments


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
        "step: 'lr' of shape (1,); needs a single number",
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


def test_debug_restores_what_a_late_check_has_spoilt(rng: np.random.Generator) -> None:
    late = handmade.compiled(fail_late=True)
    data = handmade.batch(rng, 6)
    bad = {**data, "k": np.full(6, 11, np.int32)}
    for debug in (False, True):
        step = handmade.make_step(late, debug=debug)
        before = values(step)
        with pytest.raises(errors.IndexRangeError):
            step(**bad)
        assert (values(step) == before) is debug  # without debug the fault of this program shows


# Native calls


def n_fast(step: TrainStep) -> int:
    call = step.program._fast
    return fastcall.calls(call) if call is not None else 0


needs_fast = pytest.mark.skipif(not fastcall.usable(), reason="this interpreter has no fast way in")


@needs_fast
def test_native_calls_are_the_slow_ones(bare: Compiled, rng: np.random.Generator) -> None:
    """Whatever happens between the calls: other sizes, scalars, conversions, failures, weights written, fits."""
    step, twin = handmade.make_step(bare), handmade.make_step(handmade.compiled())
    batches = [handmade.batch(rng, n) for n in (4, 4, 9, 1, 300)]
    for turn in range(400):
        data: dict[str, object] = dict(batches[rng.integers(len(batches)) if turn % 4 == 0 else 0])
        action = int(rng.integers(12))
        if action == 0:
            data["lr"] = float(rng.random()) * 0.1
        elif action == 1:
            data["lr"] = 0
        elif action == 2:
            data["x"] = np.asarray(data["x"]).astype(np.float64)
        elif action == 3:
            step.params["w"] = twin.params["w"] = rng.standard_normal(3)
        elif action == 4:
            step.hyper["lr"] = twin.hyper["lr"] = float(rng.random()) * 0.1
        elif action == 5:
            data["k"] = np.asarray(data["k"]) + np.int32(10)
        elif action == 6:
            for one in (step, twin):
                one.fit(batches[4], progress=False)
        elif action == 7:
            step.program.use_allocator(zeroed)
        names = list(data)
        rng.shuffle(names)
        order = {name: data[name] for name in names}
        if action == 5:
            for one in (step, twin):
                with pytest.raises(errors.IndexRangeError):
                    one(**order)
        else:
            assert loss_of(step(**order)) == loss_of(twin(**order)), (turn, action)
        assert values(step) == values(twin)
    assert n_fast(step) > 100
    assert step.stats().calls == twin.stats().calls


@needs_fast
def test_native_calls_take_names_that_are_not_interned(bare: Compiled, rng: np.random.Generator) -> None:
    step, twin = handmade.make_step(bare), handmade.make_step(bare)
    data = handmade.batch(rng, 4)
    for _ in range(3):
        fresh = {"".join(["x"]): data["x"], "".join(["", "y"]): data["y"], str(b"k", "ascii"): data["k"]}
        assert loss_of(step(**fresh)) == loss_of(twin(**data))


@needs_fast
def test_a_scalar_given_natively_leaves_the_default(bare: Compiled, rng: np.random.Generator) -> None:
    step, twin = handmade.make_step(bare), handmade.make_step(bare)
    data = handmade.batch(rng, 4)
    for lr in (0.5, 0.0, float("nan"), 1e300, 0.25):
        assert loss_of(step(**data)) == loss_of(twin._slow_call(**data))
        start = values(step)
        bad = {**data, "k": np.full(4, 77, np.int32)}
        with pytest.raises(errors.IndexRangeError):
            step(**bad, lr=lr)
        assert values(step) == start
        for scalars in ({}, {"lr": lr}, {}):
            step(**data, **scalars)
            twin._slow_call(**data, **scalars)
        assert values(step) == values(twin)
        step.params["w"] = twin.params["w"] = [1, 2, 3]
        step.state["m"] = twin.state["m"] = [0, 0, 0]
    assert n_fast(step) >= 10  # in each round two of three calls at least


@needs_fast
def test_other_objects_go_the_slow_way(bare: Compiled, rng: np.random.Generator) -> None:
    step = handmade.make_step(bare)
    data = handmade.batch(rng, 4)
    step(**data)
    before = n_fast(step)
    step(**data)
    assert n_fast(step) == before + 1
    for changed in (
        {"x": data["x"].tolist()}, {"y": data["y"].astype(np.float64)}, {"x": np.asfortranarray(data["x"])},
        {"y": np.frombuffer(b"\0" + data["y"].tobytes(), np.float32, offset=1)}, {"k": data["k"].view(_Special)},
        {"x": step.params["w"].reshape(1, 3), "y": data["y"][:1], "k": data["k"][:1]},
    ):  # fmt: skip
        step(**data)
        before = n_fast(step)
        step(**{**data, **changed})
        assert n_fast(step) == before
    for wrong in ({"z": 1.0}, {"lr": "a"}, {"y": None}):
        with pytest.raises(errors.GraphcError):
            step(**{**data, **wrong})
    with pytest.raises(TypeError):
        step(data["x"], **data)  # type: ignore[call-arg]
    with pytest.raises(errors.InputError):
        step()


class _Special(np.ndarray):
    """Any subclass."""


def test_without_a_fast_way_everything_works(
    bare: Compiled, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = handmade.batch(rng, 4)
    fast = handmade.make_step(bare)
    monkeypatch.setattr(fastcall, "usable", lambda: False)
    slow = handmade.make_step(bare)
    assert [loss_of(fast(**data)) for _ in range(5)] == [loss_of(slow(**data)) for _ in range(5)]
    assert slow.program._fast is None


@needs_fast
def test_a_step_with_native_calls_is_released(bare: Compiled, rng: np.random.Generator) -> None:
    step = handmade.make_step(bare)
    step(**handmade.batch(rng, 4))
    assert isinstance(step, TrainStep) and type(step).__name__ == "TrainStep"
    alive = weakref.ref(step.program._native.keep[0])
    call = type(step).__call__
    del step
    gc.collect()
    assert alive() is not None  # the builtin alone keeps all that it needs
    assert type(call(**handmade.batch(rng, 4))) is float  # type: ignore[call-arg]
    del call
    gc.collect()
    assert alive() is None


# Live weights


def test_views_are_live_and_checked(step: TrainStep) -> None:
    view = step.params["w"]
    step.params["w"] = np.array([1, 2, 3])
    np.testing.assert_array_equal(view, np.array([1, 2, 3], np.float32))
    view[0] = 7
    assert step.params["w"][0] == 7
    step.state["step_count"] = 41
    assert int(step.state["step_count"]) == 41
    assert list(step.params) == ["w"] and list(step.state) == ["m", "step_count"]


@pytest.mark.parametrize(
    ("where", "name", "value", "error", "message"),
    [
        ("params", "w", np.zeros(4), errors.ShapeError, "step.params['w']: shape (4,) given; needs (3,)"),
        ("params", "w", 1.0, errors.ShapeError, "step.params['w']: shape () given; needs (3,)"),
        (
            "params", "w", ["a"] * 3, errors.DTypeError,
            "step.params['w']: <U1 given; needs float32: a float takes floats, integers and booleans",
        ),
        (
            "state", "step_count", 1.5, errors.DTypeError,
            "step.state['step_count']: float64 given; needs int64: an integer takes integers and booleans",
        ),
        ("params", "m", np.zeros(3), errors.UnknownNameError, "step.params: 'm' given; there are w"),
        ("state", "v", 1.0, errors.UnknownNameError, "step.state: 'v' given; there are m, step_count"),
        ("hyper", "momentum", 1.0, errors.UnknownNameError, "step.hyper: 'momentum' given; there are lr"),
    ],
)  # fmt: skip
def test_wrong_weights_are_refused(
    step: TrainStep, where: str, name: str, value: object, error: type[Exception], message: str
) -> None:
    before = values(step)
    with pytest.raises(error) as caught:
        getattr(step, where)[name] = value
    assert str(caught.value) == message
    assert values(step) == before
    if error is errors.UnknownNameError:
        with pytest.raises(KeyError):
            getattr(step, where)[name]
    with pytest.raises(errors.UsageError):
        del getattr(step, where)[next(iter(getattr(step, where)))]


def test_views_outlive_the_step(rng: np.random.Generator) -> None:
    step = handmade.make_step()
    step(**handmade.batch(rng, 4))
    view = step.params["w"]
    expected = view.copy()
    del step
    gc.collect()
    np.testing.assert_array_equal(view, expected)


def test_two_programs_must_agree_on_an_array() -> None:
    one = handmade.layout(training=True)
    changed = [Buffer(b.name, b.role, b.dtype, (4,), b.slot) if b.name == "w" else b for b in one.buffers]
    other = Layout(one.dims, tuple(changed), one.slots, one.results, one.checks)
    with pytest.raises(errors.InternalError, match="disagree on 'w'"):
        make_store((one, other), {})


# Layouts


def test_layouts_go_through_json() -> None:
    for training in (False, True):
        one = handmade.layout(training)
        verify(one)
        assert Layout.from_json(one.to_json()) == one
    with pytest.raises(errors.InternalError, match="cannot read"):
        Layout.from_json("{}")


def test_ill_formed_layouts_are_refused() -> None:
    one = handmade.layout(training=True)
    x = one.buffers[0]
    for buffers, message in (
        ((*one.buffers, x), "the name occurs twice"),
        ((*one.buffers, Buffer("t", "scratch", x.dtype)), "unknown role"),
        ((*one.buffers, Buffer("t", "temp", x.dtype, (), 9)), "slot 9 of 3"),
        ((*one.buffers, Buffer("t", "hyper", x.dtype)), "needs a default"),
        ((*one.buffers, Buffer("t", "input", x.dtype, (dim("M"),))), "dimension M is not one of N"),
    ):
        with pytest.raises(errors.InternalError, match=message):
            verify(Layout(one.dims, buffers, one.slots, one.results, one.checks))


def test_sizes_are_solved_from_the_shapes() -> None:
    n, m = dim("N"), dim("M")
    shapes = ((2 * n + 1, m), (n * m,), (n // 2 + 1,))
    buffers = tuple(Buffer(f"a{k}", "input", float32, shape) for k, shape in enumerate(shapes))
    solver = DimSolver(("N", "M"), input_slots(Layout(("N", "M"), buffers, (), Results("list"))))
    assert solver.solve(((7, 5), (15,), (2,)), "f") == {"N": 3, "M": 5}
    with pytest.raises(errors.ShapeError, match=r"no N of at least 1 gives 2\*N \+ 1 = 6"):
        solver.solve(((6, 5), (15,), (2,)), "f")
    with pytest.raises(errors.ShapeError, match=r"axis 0 has size 16, needs M\*N = 15 \(N = 3 by input 'a0', M = 5"):
        solver.solve(((7, 5), (16,), (2,)), "f")
    with pytest.raises(errors.InternalError, match="no input's shape gives dimension K"):
        DimSolver(("K",), input_slots(Layout(("N", "M"), buffers, (), Results("list"))))


# Saving


def test_training_resumes_with_the_same_bits(step: TrainStep, rng: np.random.Generator, tmp_path: Path) -> None:
    batches = [handmade.batch(rng, 8) for _ in range(6)]
    for data in batches[:3]:
        step(**data)
    step.save(tmp_path / "model.safetensors")
    resumed = handmade.make_step()
    resumed.load(str(tmp_path / "model.safetensors"))
    assert values(resumed) == values(step)
    for data in batches[3:]:
        assert loss_of(step(**data)) == loss_of(resumed(**data))
    assert values(resumed) == values(step)
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]


def test_a_file_that_does_not_fit_changes_nothing(step: TrainStep, tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    good = tmp_path / "good"
    step.save(good)
    content = good.read_bytes()
    metadata = {"format": "graphc-step-1", "roles": '{"w": "param", "m": "state", "step_count": "count"}'}
    right = {"w": np.zeros(3, np.float32), "m": np.zeros(3, np.float32), "step_count": np.zeros((), np.int64)}
    cases: dict[str, tuple[object, str]] = {
        "empty": (b"", "is no file that step.save wrote"),
        "text": (b"hello" * 100, "is no file that step.save wrote"),
        "cut": (content[:-3], "is no file that step.save wrote"),
        "cut header": (content[:40], "is no file that step.save wrote"),
        "grown": (content + b"\0", "is no file that step.save wrote"),
        "others' file": ((right, None), "is no file that step.save wrote"),
        "lacks": (({"w": right["w"]}, metadata), "lacks m, step_count; needs w, m, step_count"),
        "besides": (({**right, "v": right["w"]}, metadata), "holds v besides; needs w, m, step_count"),
        "shape": (({**right, "w": np.zeros(4, np.float32)}, metadata), r"w is float32 of shape \(4,\); needs float32"),
        "dtype": (({**right, "m": np.zeros(3)}, metadata), r"m is float64 of shape \(3,\); needs float32"),
        "role": (
            (right, {**metadata, "roles": metadata["roles"].replace("state", "param")}), "m is a param; needs a state",
        ),
    }
    step.params["w"] = [3, 4, 5]
    before = values(step)
    for name, (what, message) in cases.items():
        path = tmp_path / "bad"
        if isinstance(what, bytes):
            path.write_bytes(what)
        else:
            assert isinstance(what, tuple)
            save_file(what[0], path, what[1])
        with pytest.raises(errors.FileFormatError, match=message):
            step.load(path)
        assert values(step) == before, name
    with pytest.raises(errors.FileAccessError, match="cannot be read: No such file"):
        step.load(tmp_path / "none")
    with pytest.raises(errors.FileAccessError, match="cannot write"):
        step.save(tmp_path / "no" / "folder")
    assert values(step) == before
    step.load(good)
    assert values(step) != before


SAVER = """
import sys
sys.path.insert(0, "tests")
import handmade, numpy as np
step = handmade.make_step()
print("ready", flush=True)
number = 0
while True:
    number += 1
    step.params["w"] = np.full(3, number)
    step.state["m"] = np.full(3, number)
    step.save(sys.argv[1])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9")
def test_a_kill_while_saving_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    step = handmade.make_step()
    step.save(path)
    seen: list[float] = []
    for n in range(12):
        child = subprocess.Popen([sys.executable, "-c", SAVER, str(path)], cwd=ROOT, stdout=subprocess.PIPE)
        assert child.stdout is not None and child.stdout.readline() == b"ready\n"
        time.sleep(0.003 + 0.0017 * n)
        child.kill()
        child.communicate()
        step.load(path)  # raises unless the file is whole
        assert step.params["w"][0] == step.params["w"][2] or n == 0
        if step.params["w"][1] != handmade.START[1]:
            assert np.all(step.params["w"] == step.params["w"][0])
            assert np.all(step.state["m"] == step.params["w"])
        seen.append(float(step.params["w"][0]))
    assert max(seen) >= 1


# Threads


def test_threads_on_one_step_are_serialised(rng: np.random.Generator) -> None:
    """Each batch's steps commute with itself alone, so the count and the end of training must come out right."""
    for cost_ns, bare in ((0, False), (1_000_000, False), (0, True), (1_000_000, True)):
        # Called through Python or natively, with the interpreter lock kept or released.
        step = handmade.make_step(handmade.compiled(cost_ns=cost_ns, bare=bare))
        twin = handmade.make_step()
        data = handmade.batch(rng, 64)
        faults: list[object] = []
        n_each = 2000

        def work(
            step: TrainStep = step, data: handmade.Batch = data, faults: list[object] = faults, n: int = n_each
        ) -> None:
            try:
                for _ in range(n):
                    step(**data)
            except BaseException as error:
                faults.append(error)

        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not faults
        for _ in range(2 * n_each):
            twin(**data)
        assert values(step) == values(twin)
        assert int(step.state["step_count"]) == 2 * n_each


@pytest.mark.parametrize(("bare", "cost_ns"), [(False, 0), (True, 0), (True, 1_000_000)])
def test_threads_with_batches_of_different_sizes(rng: np.random.Generator, bare: bool, cost_ns: int) -> None:
    step = handmade.make_step(handmade.compiled(bare=bare, cost_ns=cost_ns))
    step.hyper["lr"] = 0.0
    sizes = (1, 7, 300, 2000)
    batches = {n: handmade.batch(rng, n) for n in sizes}
    expected = {n: loss_of(step(**data)) for n, data in batches.items()}
    faults: list[object] = []

    def work(n: int) -> None:
        for _ in range(300):
            loss = loss_of(step(**batches[n]))
            if loss != expected[n]:
                faults.append((n, loss))

    threads = [threading.Thread(target=work, args=(n,)) for n in sizes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults


# Memory


def _resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_stays_flat(step: TrainStep, rng: np.random.Generator) -> None:
    batches = [handmade.batch(rng, n) for n in (16, 1, 33)]
    function = step.function(None)
    bad = {**batches[0], "k": np.full(16, 10, np.int32)}

    def work(n: int) -> None:
        for number in range(n):
            data = batches[number % 3]
            step(**data, lr=0.01)
            function(**data)
            if number % 10 == 0:
                with pytest.raises(errors.IndexRangeError):
                    step(**bad)

    work(2000)
    gc.collect()
    before = _resident_bytes()
    work(10_000)
    gc.collect()
    assert _resident_bytes() - before < 1 << 20


def test_many_batch_sizes_do_not_pile_up(step: TrainStep, rng: np.random.Generator) -> None:
    data = handmade.batch(rng, 3000)
    for n in range(3000, 0, -1):
        step(**{name: a[:n] for name, a in data.items()})
    assert len(step.program._by_shapes) <= program_module._MOST_CONTEXTS


def test_native_code_is_released_with_its_program() -> None:
    program = Program(handmade.compiled(training=False), handmade.HOST, make_store((handmade.layout(False),), {}))
    alive = weakref.ref(program._native.keep[0])
    del program
    gc.collect()
    assert alive() is None
