"""Native calls do what calls through Python do, whatever happens between them."""

from __future__ import annotations

import functools
import gc as garbage
import inspect
import operator
import sys
import weakref
from collections.abc import Callable
from typing import Any

import handmade
import numpy as np
import pytest
from handmade import loss_of, values

import graphc as gc
from graphc import errors
from graphc.runtime import fastcall
from graphc.runtime.compiled import Compiled
from graphc.runtime.memory import zeroed
from graphc.runtime.step import TrainStep


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
def test_native_calls_take_names_that_are_not_interned(rng: np.random.Generator) -> None:
    rows, target = gc.input("rows", (gc.dim("N"), 3)), gc.input("target", (gc.dim("N"),))
    w = gc.param("w", (3,), init=gc.init.ones())
    step, twin = (gc.compile(gc.mean((rows @ w - target) ** 2), gc.optim.sgd()) for _ in range(2))
    data = {"rows": rng.random((4, 3), np.float32), "target": rng.random(4, np.float32)}
    assert step(**data) == twin(**data)
    before = n_fast(step)

    def fresh(name: str) -> str:
        made = "".join(list(name))
        assert made is not name
        return made

    def read(**more: float) -> dict[str, Any]:
        return {fresh(name): value for name, value in {**data, **more}.items()}

    for turn in range(4):
        assert step(**read()) == twin(**data)
        assert step(**dict(reversed(read(lr=0.25).items()))) == twin(**data, lr=0.25)
        assert step(**{fresh("target"): data["target"]}, rows=data["rows"]) == twin(**data)
        assert n_fast(step) == before + 3 * (turn + 1)
        for wrong in ({"rowz": 1.0}, {fresh("target "): 1.0}, {f"n{k}": 1.0 for k in range(9)}):
            with pytest.raises(errors.InputError, match="given is no input"):
                step(**read(), **wrong)
    name = fresh("rows")
    count = sys.getrefcount(name)
    for _ in range(20):
        step(**{name: data["rows"], "target": data["target"]})
    assert sys.getrefcount(name) == count


@needs_fast
def test_a_scalar_given_natively_leaves_the_default(bare: Compiled, rng: np.random.Generator) -> None:
    step, twin = handmade.make_step(bare), handmade.make_step(bare)
    data = handmade.batch(rng, 4)
    for lr in (0.5, 0.0, float("nan"), 1e300, 0.25):
        assert loss_of(step(**data)) == loss_of(TrainStep.__call__(twin, **data))
        start = values(step)
        bad = {**data, "k": np.full(4, 77, np.int32)}
        with pytest.raises(errors.IndexRangeError):
            step(**bad, lr=lr)
        assert values(step) == start
        for scalars in ({}, {"lr": lr}, {}):
            step(**data, **scalars)
            TrainStep.__call__(twin, **data, **scalars)
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
        step(data["x"], **data)
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
    native, itself = weakref.ref(step.program._native.keep[-1]), weakref.ref(step)
    garbage.collect()
    garbage.disable()
    try:
        del step
        assert itself() is None and native() is None  # at once: no cycle holds them
    finally:
        garbage.enable()


@needs_fast
def test_a_step_is_called_as_any_object_is(bare: Compiled, rng: np.random.Generator) -> None:
    step, twin = handmade.make_step(bare), handmade.make_step(bare)
    data = handmade.batch(rng, 4)
    loss = twin(**data)
    calls: list[Callable[[], object]] = [
        lambda: step(**data), lambda: step.__call__(**data), lambda: TrainStep.__call__(step, **data),
        lambda: operator.call(step, **data), functools.partial(step, **data),
    ]  # fmt: skip
    assert calls[0]() == loss
    for call in calls[1:]:
        assert call() == twin(**data)
    assert inspect.signature(step) == inspect.signature(TrainStep.__call__.__get__(step))
    assert type(step).__doc__ == TrainStep.__doc__ and type(step).__module__ == TrainStep.__module__
    step.note = "a name of the user's own"  # type: ignore[attr-defined]
    assert vars(step)["note"] == step.note  # type: ignore[attr-defined]


@needs_fast
def test_a_class_of_the_users_own(bare: Compiled, rng: np.random.Generator) -> None:
    class Counting(TrainStep):
        n = 0

        def __call__(self, /, *given: object, **inputs: object) -> object:
            self.n += 1
            return super().__call__(*given, **inputs)

    made = handmade.make_step(bare)
    step = Counting(made.program, made._tools)
    data = handmade.batch(rng, 4)
    for _ in range(3):
        step(**data)
    assert step.n == 3
