"""The profile: the step's own kernels are timed, all of them, on a copy of the weights."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from typing import Any, cast

import numpy as np
import pytest

import graphc as gc
from graphc.errors import InputError
from graphc.inspect.profile import GROUP_S, Profile, grouped
from graphc.kernels.cost import Cost
from graphc.llvm.emit import emit
from graphc.llvm.target import host
from graphc.pipeline import Declared, Options, stages
from graphc.runtime.step import TrainStep
from graphc.runtime.team import thread_count

N = gc.dim("N")


def step_of(width: int = 8, threads: int = 1, rate: float = 0.1) -> TrainStep:
    x = gc.input("x", (N, 6))
    y = gc.input("y", (N,), dtype="int32")
    hidden = gc.relu(gc.nn.dense(x, width, name="first"))
    loss = gc.mean(gc.cross_entropy(gc.nn.dense(hidden, 3, name="second"), y))
    return gc.compile(loss, gc.optim.sgd(lr=rate, momentum=0.9), threads=threads)


def batch(rng: np.random.Generator, n: int = 16) -> dict[str, Any]:
    return {"x": rng.normal(size=(n, 6)).astype(np.float32), "y": rng.integers(0, 3, n).astype(np.int32)}


def profile_of(step: TrainStep, **inputs: object) -> Profile:
    return cast(Profile, step.profile(0.02, **inputs))


def test_all_kernels_are_there_and_add_up(rng: np.random.Generator) -> None:
    step = step_of()
    found = profile_of(step, **batch(rng))
    assert [k.name for k in found.kernels] == [row.name for row in cast(Cost, step.cost()).kernels]
    assert found.total + found.rest == pytest.approx(found.counted)
    assert found.overhead == pytest.approx(found.counted / found.step - 1)
    assert all(k.seconds >= 0 and k.floor > 0 for k in found.kernels)
    assert (found.dims, found.threads) == ({"N": 16}, 1)
    updated = next(k for k in found.kernels if "first.w" in k.told.values)
    assert updated.told.line.startswith(__file__)


def test_weights_states_and_calls_are_as_before(rng: np.random.Generator) -> None:
    step, twin = step_of(), step_of()
    data = batch(rng)
    before = [step(**data), twin(**data)]
    profile_of(step, **data)
    assert before[0] == before[1]
    for live, other in ((step.params, twin.params), (step.state, twin.state)):
        for name, value in live.items():
            np.testing.assert_array_equal(value, other[name])
    assert step.stats().calls == 1
    assert step(**data) == twin(**data)


def test_counted_kernels_are_the_same() -> None:
    """The functions of all kernels are those of the step, word for word."""
    made = stages(cast(Declared, step_of().origin), Options())
    counted = emit(made.program, host(), counted=True)
    kernels = re.compile(r"^define internal \w+ @(?:k|check)\d+_\d+\(.*?^}", re.MULTILINE | re.DOTALL)
    assert kernels.findall(counted) == kernels.findall(made.llvm)
    assert len(kernels.findall(counted)) == len(made.program.kernels)


def test_many_kernels_in_parts(rng: np.random.Generator) -> None:
    x = gc.input("x", (N, 4))
    h = x
    for k in range(30):
        h = gc.tanh(h @ gc.param(f"w{k}", (4, 4), init=gc.init.normal(0.5)))
    step = gc.compile(gc.mean(h * h), gc.optim.sgd(lr=0.01))
    found = profile_of(step, x=rng.normal(size=(64, 4)).astype(np.float32))
    assert len(found.kernels) > 40
    assert all(k.seconds > 0 for k in found.kernels)


def test_inputs_are_drawn_where_none_is_given() -> None:
    assert profile_of(step_of()).dims == {"N": 32}


def test_a_function_has_a_profile(rng: np.random.Generator) -> None:
    x = gc.input("x", (N, 5))
    w = gc.param("w", (5, 3))
    function = gc.compile(gc.exp(x @ w))
    given = {"x": rng.normal(size=(7, 5)), "w": rng.normal(size=(5, 3))}
    found = function.profile(0.02, **given)
    assert found.what == "function"
    assert found.kernels


def test_run_time_scalars_are_those_of_the_step(rng: np.random.Generator) -> None:
    """A rate that would spoil the weights is used, and spoils only the copy."""
    step = step_of(rate=0.0)
    step.hyper["lr"] = 1e30
    profile_of(step, **batch(rng))
    profile_of(step, lr=1e20, **batch(rng))
    assert all(np.isfinite(w).all() for w in step.params.values())


def test_with_a_team(rng: np.random.Generator) -> None:
    if thread_count(2) < 2:
        pytest.skip("one core")
    found = profile_of(step_of(64, threads=2), **batch(rng, 2048))
    assert found.threads == 2
    assert "the kernels' times are those of the first of 2 threads" in str(found)
    assert found.total + found.rest == pytest.approx(found.counted)


@pytest.mark.parametrize(
    ("seconds", "change", "error", "message"),
    [
        (0.0, {}, gc.GraphcError, "profile: 0.0 s given; needs a time above 0"),
        (0.02, {"z": 1.0}, InputError, "step: 'z' given is no input"),
        (0.02, {"y": np.full(16, 3, np.int32)}, gc.IndexRangeError, "cross_entropy: index 3 at position 0 of y"),
    ],
)
def test_mistakes(
    seconds: float, change: dict[str, object], error: type[Exception], message: str, rng: np.random.Generator
) -> None:
    with pytest.raises(error, match=re.escape(message)):
        step_of().profile(seconds, **{**batch(rng), **change})


def test_short_neighbours_are_timed_together(rng: np.random.Generator) -> None:
    times = [float(t) for t in rng.uniform(0, 2 * GROUP_S, 50)]
    groups = grouped(times)
    assert [k for group in groups for k in group] == list(range(50))
    for group in groups:
        own = [times[k] for k in group]
        assert len(own) == 1 or (max(own) < GROUP_S and sum(own[:-1]) < GROUP_S)


def test_table_and_picture(rng: np.random.Generator) -> None:
    found = profile_of(step_of(), **batch(rng))
    lines = str(found).splitlines()
    assert re.fullmatch(r"step with N = 16 on one thread: [\d,.]+ us", lines[0])
    assert lines[1].split() == "kernel us of all floor us x floor by computes".split()
    assert any(re.match(r"k\d+ .*second\.w.*test_profile\.py:\d+$", line) for line in lines)
    assert lines[2 + len(found.kernels)].startswith("outside")
    drawing = ET.fromstring(found.svg)
    assert len([e for e in drawing.iter() if e.tag.endswith("rect")]) == 2 * len(found.kernels)
    assert "<pre" in found._repr_html_()
