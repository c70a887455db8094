"""``debug=True``: the first value that is no finite number is found, named and explained; nothing has changed."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from handmade import values

import graphc as gc
from graphc import probes
from graphc.errors import NonFiniteError
from graphc.inspect.autopsy import Autopsy
from graphc.runtime import program
from graphc.runtime.step import TrainStep
from graphc.runtime.team import thread_count

N = gc.dim("N")
Data = Mapping[str, Any]
HERE = Path(__file__).read_text(encoding="utf-8").splitlines()


def told(error: NonFiniteError) -> str:
    """The message, with the mark at the end of a source line in the place of file, number and text."""

    def mark(found: re.Match[str]) -> str:
        line = HERE[int(found[1]) - 1]
        return f"<{line.rpartition('# ')[2]}>" if "# " in line else found[0]

    return re.sub(rf"{re.escape(__file__)}:(\d+)(?:: .*)?", mark, str(error).replace("]\n", "\x00]\n")).replace(
        "\x00", ""
    )


def weights(n: int = 3) -> gc.Tensor:
    return gc.param("w", (n,), init=gc.init.ones())  # w


def log_of_zero() -> tuple[TrainStep, Data]:
    x = gc.input("x", (N, 3))  # x
    p = gc.relu(x @ weights())  # p
    loss = -gc.mean(gc.log(p))  # log
    return gc.compile(loss, gc.optim.sgd(lr=0.1), debug=True), {"x": [[1, 2, 3], [-1, -1, -1]]}


def exp_overflows() -> tuple[TrainStep, Data]:
    x = gc.input("x", (N, 3))  # x
    z = x @ weights()  # z
    scale = gc.exp(z)  # exp
    return gc.compile(gc.mean(scale), gc.optim.sgd(lr=0.1), debug=True), {"x": [[0, 0, 0], [40, 40, 40]]}


def empty_mask() -> tuple[TrainStep, Data]:
    x, m = gc.input("x", (N,)), gc.input("m", (N,))  # x
    err = gc.square(x * gc.param("s", (), init=gc.init.ones()))  # err
    loss = gc.sum(err * m) / gc.sum(m)  # mean
    return gc.compile(loss, gc.optim.sgd(lr=0.1), debug=True), {"x": [1, 1, 1, 1], "m": [0, 0, 0, 0]}


def exploding_rate() -> tuple[TrainStep, Data]:
    x, t = gc.input("x", (N, 3)), gc.input("t", (N,))  # x
    loss = gc.mse(x @ weights(), t)  # mse
    step = gc.compile(loss, gc.optim.sgd(lr=1e19), debug=True)  # sgd
    data = {"x": [[1, 1, 1], [2, 2, 2]], "t": [0, 0]}
    step(**data)
    return step, data


def sqrt_at_zero() -> tuple[TrainStep, Data]:
    x = gc.input("x", (N, 3))  # x
    d = gc.sqrt(x @ weights())  # sqrt
    return gc.compile(gc.mean(d), gc.optim.sgd(lr=0.1), debug=True), {"x": [[3, 3, 3], [0, 0, 0]]}


def bad_input() -> tuple[TrainStep, Data]:
    x = gc.input("x", (N, 3))  # x
    loss = gc.mean(gc.tanh(x @ weights()))
    return gc.compile(loss, gc.optim.sgd(lr=0.1), debug=True), {"x": [[1, 2, 3], [1, np.nan, 0]]}


def update_overflows() -> tuple[TrainStep, Data]:
    x = gc.input("x", (N, 3))  # x
    step = gc.compile(gc.mean(x @ weights()), gc.optim.sgd(lr=1e38), debug=True)  # sgd
    return step, {"x": [[4, 4, 4], [4, 4, 4]]}


LOG = """\
debug: log is -inf at [1] (1 of 2 elements are no finite numbers): the first such value, in the forward pass
  <log>
  log: float32[N] = log(p[i])
    of p (2,): 0 to 6, norm 6, 1 of 2 are 0; [1] is 0
  the way there:
    x (2, 3): -1 to 3, norm 4.123    [<x>]
    matmul (2,): -3 to 6, norm 6.708    [<p>]
    p (2,): 0 to 6, norm 6, 1 of 2 are 0    [<p>]
    log (2,): 1.792 to 1.792, norm 1.792, 1 of 2 are no finite number    [<log>]
  with lr = 0.1
  weights and states are as before it"""
EXP = """\
debug: scale is inf at [1] (1 of 2 elements are no finite numbers): the first such value, in the forward pass
  <exp>
  scale: float32[N] = exp(z[i])
    of z (2,): 0 to 120, norm 120, 1 of 2 are 0; [1] is 120
  the way there:
    x (2, 3): 0 to 40, norm 69.28, 3 of 6 are 0    [<x>]
    z (2,): 0 to 120, norm 120, 1 of 2 are 0    [<z>]
    scale (2,): 1 to 1, norm 1, 1 of 2 are no finite number    [<exp>]
  with lr = 0.1
  weights and states are as before it"""
MASK = """\
debug: loss is nan: the first such value, in the forward pass
  <mean>
  loss: float32[] = sum[] / sum_2[]
    of sum = 0
    of sum_2 = 0
  the way there:
    x (4,): 1 to 1, norm 2    [<x>]
    multiply (4,): 1 to 1, norm 2    [<err>]
    err (4,): 1 to 1, norm 2    [<err>]
    multiply_2 (4,): 0 to 0, norm 0, 4 of 4 are 0    [<mean>]
    sum = 0    [<mean>]
    loss = nan    [<mean>]
  with lr = 0.1
  weights and states are as before it"""
RATE = """\
debug: square is inf at [0] (2 of 2 elements are no finite numbers): the first such value, in the forward pass
  <mse>
  square: float32[N] = subtract[i] * subtract[i]
    of subtract (2,): -9e+20 to -4.5e+20, norm 1.006e+21; [0] is -4.5e+20
  the way there:
    w (3,): -1.5e+20 to -1.5e+20, norm 2.598e+20    [<w>]
    matmul (2,): -9e+20 to -4.5e+20, norm 1.006e+21    [<mse>]
    subtract (2,): -9e+20 to -4.5e+20, norm 1.006e+21    [<mse>]
    square (2,): no element is a finite number    [<mse>]
  with lr = 1e+19
  weights and states are as before it"""
SQRT = """\
debug: d_matmul is inf at [1] (1 of 2 elements are no finite numbers): the first such value, in back propagation
  <sqrt>
  d_matmul: float32[N] = 0.5 / d[i] / float32(size(N))
    of d (2,): 0 to 3, norm 3, 1 of 2 are 0; [1] is 0
  the way there:
    x (2, 3): 0 to 3, norm 5.196, 3 of 6 are 0    [<x>]
    matmul (2,): 0 to 9, norm 9, 1 of 2 are 0    [<sqrt>]
    d (2,): 0 to 3, norm 3, 1 of 2 are 0    [<sqrt>]
    d_matmul (2,): 0.08333 to 0.08333, norm 0.08333, 1 of 2 are no finite number    [<sqrt>]
  with lr = 0.1
  weights and states are as before it"""
INPUT = """\
debug: x is nan at [1, 1] (1 of 6 elements are no finite numbers): an input
  <x>
  with lr = 0.1
  weights and states are as before it"""
UPDATE = """\
debug: multiply is inf at [0] (3 of 3 elements are no finite numbers): the first such value, in the update
  <sgd>
  multiply: float32[3] = lr[] * d_w[i]
    of lr = 1e+38
    of d_w (3,): 4 to 4, norm 6.928; [0] is 4
  the way there:
    x (2, 3): 4 to 4, norm 9.798    [<x>]
    d_w (3,): 4 to 4, norm 6.928    [<sgd>]
    multiply (3,): no element is a finite number    [<sgd>]
  with lr = 1e+38
  weights and states are as before it"""


@pytest.mark.parametrize(
    ("planted", "message"),
    [
        (log_of_zero, LOG), (exp_overflows, EXP), (empty_mask, MASK), (exploding_rate, RATE), (sqrt_at_zero, SQRT),
        (bad_input, INPUT), (update_overflows, UPDATE),
    ],
)  # fmt: skip
def test_a_planted_fault_is_found(planted: Callable[[], tuple[TrainStep, Data]], message: str) -> None:
    step, data = planted()
    before = values(step)
    with pytest.raises(NonFiniteError) as raised:
        step(**data)
    assert told(raised.value) == message
    assert values(step) == before


def test_fit_names_epoch_and_step() -> None:
    step, _ = log_of_zero()
    rows = np.array([[1, 2, 3], [1, 1, 1], [-1, -1, -1], [1, 0, 0]], np.float32)
    twin, _ = log_of_zero()
    with pytest.raises(NonFiniteError) as raised:
        step.fit({"x": rows}, batch_size=2, shuffle=False, progress=False)
    first, line = told(raised.value).splitlines()[:2]
    assert first.endswith("the first such value, in the forward pass (step.fit: epoch 1 of 1, step 2 of 2)")
    assert line == "  <log>"
    twin(x=rows[:2])
    assert values(step) == values(twin)


def test_a_function_too() -> None:
    x = gc.input("x", (N, 3))  # x
    slope = gc.grad(gc.sum(gc.sqrt(x)), x)  # grad
    with pytest.raises(NonFiniteError) as raised:
        gc.compile([slope], debug=True)(x=[[1, 4, 0]])
    found = raised.value.autopsy
    assert isinstance(found, Autopsy)
    assert (found.name, found.at, found.count, found.of, found.where) == ("d_x", (0, 2), 1, 3, "in the function")
    assert told(raised.value).splitlines()[1] == "  <grad>"


def test_a_weight_that_was_set_so() -> None:
    step, _ = log_of_zero()
    step.params["w"] = [1, np.inf, 1]
    with pytest.raises(NonFiniteError) as raised:
        step(x=[[1, 2, 3]])
    head = "debug: w is inf at [1] (1 of 3 elements are no finite numbers): a param"
    assert told(raised.value).splitlines()[:2] == [head, "  <w>"]


def masked() -> TrainStep:
    x, m = gc.input("x", (N, 3)), gc.input("m", (N, 3), dtype="bool")
    a = gc.softmax(gc.where(m, x * weights(), -np.inf), axis=1)  # softmax
    return gc.compile(gc.mean(a * a), gc.optim.sgd(lr=0.1), debug=True)


def test_infinities_that_are_meant_pass(rng: np.random.Generator) -> None:
    mask = np.ones((4, 3), bool)
    mask[:, 1] = False
    x = rng.normal(size=(4, 3)).astype(np.float32)
    step = masked()
    assert np.isfinite(step(x=x, m=mask))
    mask[2] = False  # a softmax over nothing
    with pytest.raises(NonFiniteError) as raised:
        step(x=x, m=mask)
    found = raised.value.autopsy
    assert isinstance(found, Autopsy)
    assert np.isnan(found.value) and found.at[0] == 2
    assert told(raised.value).splitlines()[1] == "  <softmax>"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n", [1, 7, 8, 15, 16, 17, 33])
def test_a_bad_element_is_found_wherever_it_is(n: int, dtype: str, rng: np.random.Generator) -> None:
    x = gc.input("x", (N,), dtype=dtype)
    function = gc.compile(gc.exp(x) * 1, debug=True)
    array = rng.normal(size=n).astype(dtype)
    function(x=array)
    for bad in (np.nan, np.inf):
        for k in range(n):
            spoilt = array.copy()
            spoilt[k] = bad
            with pytest.raises(NonFiniteError, match=rf"x is {bad} at \[{k}\]"):
                function(x=spoilt)


def test_debug_keeps_the_bits(rng: np.random.Generator) -> None:
    x = gc.input("x", (N, 6))
    y = gc.input("y", (N,), dtype="int32")
    loss = gc.mean(gc.cross_entropy(gc.nn.mlp(x, [6, 8, 3], activation="tanh"), y))
    steps = [gc.compile(loss, gc.optim.adam(lr=0.01), debug=debug) for debug in (False, True)]
    data = {"x": rng.normal(size=(9, 6)).astype(np.float32), "y": rng.integers(0, 3, 9).astype(np.int32)}
    for _ in range(3):
        assert steps[0](**data) == steps[1](**data)
    assert values(steps[0]) == values(steps[1])


def test_a_team_finds_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    if thread_count(2) < 2:
        pytest.skip("one core")
    monkeypatch.setattr(program, "_ALWAYS", 1)
    x = gc.input("x", (N, 64))
    w = gc.param("w", (64, 64), init=gc.init.he_normal())
    loss = gc.mean(gc.log(gc.exp(gc.tanh(x @ w)) - 1))  # log
    step = gc.compile(loss, gc.optim.sgd(lr=0.1), debug=True, threads=2)
    before = values(step)
    with pytest.raises(NonFiniteError) as raised:
        step(x=np.full((2048, 64), 0.5, np.float32))
    found = raised.value.autopsy
    assert isinstance(found, Autopsy)
    assert told(raised.value).splitlines()[1] == "  <log>"
    assert values(step) == before


def test_without_a_finding_the_kernel_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where fusion alone rounds to an infinity."""
    monkeypatch.setattr(probes, "autopsy", lambda *given: None)
    step, data = exp_overflows()
    with pytest.raises(NonFiniteError) as raised:
        step(**data)
    head, line, end = told(raised.value).splitlines()
    assert re.fullmatch(r"debug: inf at position 1 of scale \(.*exp.*\), computed from x, w", head)
    assert line.startswith("  <")
    assert end == "  weights and states are as before it"
    assert raised.value.autopsy is None


def test_a_users_name_is_kept_where_an_operations_would_take_it() -> None:
    w = weights()
    scale = gc.exp(gc.sum(w) * gc.tanh(gc.sum(w * w)))
    sum_2 = gc.log(w - 1.0)
    step = gc.compile(scale * gc.sum(sum_2), gc.optim.sgd(), debug=True)
    with pytest.raises(NonFiniteError, match=r"^debug: sum_2 is -inf"):
        step()


def test_a_long_way_is_cut() -> None:
    x = gc.input("x", (N, 2))
    h = x
    for k in range(12):
        h = gc.exp(h @ gc.param(f"w{k}", (2, 2), init=gc.init.constant(0.3)))
    with pytest.raises(NonFiniteError) as raised:
        gc.compile(gc.mean(h), gc.optim.sgd(lr=0.1), debug=True)(x=[[1, 1]])
    lines = str(raised.value).splitlines()
    assert len(lines) < 22
