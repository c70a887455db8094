"""Training in the native loop: the same as calls, shuffling, short batches, stopping, Ctrl-C, the progress bar."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import handmade
import numpy as np
import pytest
from handmade import values

from graphc import errors
from graphc.graph.dtypes import float32
from graphc.kernels.layout import Buffer
from graphc.runtime import epoch, fit
from graphc.runtime.compiled import Compiled
from graphc.runtime.step import TrainStep

ROOT = Path(__file__).parent.parent


@pytest.fixture
def step(program: Compiled) -> TrainStep:
    return handmade.make_step(program)


@pytest.mark.parametrize(("n_rows", "batch_size"), [(64, 16), (70, 16), (5, 16), (16, 16), (17, 16), (3, 1), (100, 33)])
def test_unshuffled_epochs_are_calls_in_order(
    program: Compiled, rng: np.random.Generator, n_rows: int, batch_size: int
) -> None:
    data = handmade.batch(rng, n_rows)
    one, other = handmade.make_step(program), handmade.make_step(program)
    history = one.fit(data, batch_size=batch_size, epochs=3, shuffle=False, progress=False)
    losses, weights, means, predictions = [], [], [], []
    for _ in range(3):
        total, predicted = 0.0, 0.0
        for first in range(0, n_rows, batch_size):
            rows = {name: a[first : first + batch_size] for name, a in data.items()}
            loss, outputs = other(**rows)
            losses.append(loss)
            weights.append(len(rows["y"]))
            total += loss * weights[-1]
            predicted += float(outputs["pred"].astype(float).sum())
        means.append(total / n_rows)
        predictions.append(predicted / n_rows)
    np.testing.assert_array_equal(history.step_losses, losses)
    assert history.losses == means
    np.testing.assert_allclose(history.outputs["pred"], predictions, rtol=1e-12, atol=1e-12)
    assert values(one) == values(other)
    assert one.stats().calls == len(losses) == int(one.state["step_count"])
    assert history.validation == [] and history.seconds > 0


def test_shuffled_epochs_see_every_row_once(program: Compiled, rng: np.random.Generator) -> None:
    """With no learning rate, an epoch's mean loss is the data's, whatever the order."""
    data = handmade.batch(rng, 1003)
    step = handmade.make_step(program)
    step.hyper["lr"] = 0.0
    history = step.fit(data, batch_size=10, epochs=5, progress=False)
    expected = np.mean((data["x"] @ handmade.START - data["y"]).astype(float) ** 2)
    np.testing.assert_allclose(history.losses, expected, rtol=1e-6)
    by_epoch = history.step_losses.reshape(5, 101)
    assert len({row.tobytes() for row in by_epoch}) == 5  # another order in every epoch


def test_the_order_follows_from_the_seed(program: Compiled, rng: np.random.Generator) -> None:
    data = handmade.batch(rng, 100)

    def trained(seed: int | None, step_seed: int = 0, epochs: tuple[int, ...] = (2,)) -> dict[str, bytes]:
        step = handmade.make_step(program, seed=step_seed)
        for number in epochs:
            step.fit(data, batch_size=8, epochs=number, progress=False, seed=seed)
        return values(step)

    assert trained(None) == trained(None)
    assert trained(5) == trained(5)
    assert len({tuple(t.values()) for t in (trained(5), trained(6), trained(None), trained(None, step_seed=1))}) == 4
    assert trained(5, epochs=(1, 1)) != trained(5, epochs=(2,))  # a given seed begins anew


def test_shuffling_is_fair(program: Compiled) -> None:
    """Every row reaches every place equally often: chi-square over 40,000 shuffles of 8 rows, 120 far beyond chance."""
    step = handmade.make_step(program)
    shuffle = step.program.shuffle_entry()
    state = np.zeros(1, np.int64)
    counts = np.zeros((8, 8))
    order = np.arange(8)
    for _ in range(40_000):
        shuffle(order.ctypes.data, 0, 8, state.ctypes.data)
        counts[np.arange(8), order] += 1
    assert sorted(order) == list(range(8))
    assert ((counts - 5000) ** 2 / 5000).sum() < 120  # 49 degrees of freedom


def test_many_rows_are_shuffled_in_pieces(
    program: Compiled, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = handmade.batch(rng, 1000)
    one, other = handmade.make_step(program), handmade.make_step(program)
    history = one.fit(data, batch_size=32, epochs=4, progress=False, seed=1)
    monkeypatch.setattr(fit, "_SHUFFLE_BLOCK", 170)
    assert other.fit(data, batch_size=32, epochs=4, progress=False, seed=1).losses == history.losses
    assert values(one) == values(other)


def test_many_epochs_go_in_blocks(program: Compiled, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    data = handmade.batch(rng, 20)
    one, other = handmade.make_step(program), handmade.make_step(program)
    history = one.fit(data, batch_size=7, epochs=25, progress=False)
    monkeypatch.setattr(fit, "_EPOCH_BLOCK", 4)
    again = other.fit(data, batch_size=7, epochs=25, progress=False)
    assert again.losses == history.losses and len(again.losses) == 25
    np.testing.assert_array_equal(again.step_losses, history.step_losses)
    np.testing.assert_array_equal(again.outputs["pred"], history.outputs["pred"])
    assert values(one) == values(other)


def test_until_ends_the_training(step: TrainStep, rng: np.random.Generator) -> None:
    data = handmade.batch(rng, 128)
    history = step.fit(data, batch_size=16, epochs=500, until=1e-4, progress=False)
    assert history.losses[-1] <= 1e-4 < history.losses[-2]
    assert len(history.losses) < 50
    assert int(step.state["step_count"]) == 8 * len(history.losses) == len(history.step_losses)
    assert len(step.fit(data, epochs=500, until=1e-4, progress=False).losses) == 1


def test_no_epochs_are_no_steps(step: TrainStep, rng: np.random.Generator) -> None:
    history = step.fit(handmade.batch(rng, 8), epochs=0, progress=False)
    assert history.losses == [] and history.step_losses.size == 0 and int(step.state["step_count"]) == 0


def test_validation_is_the_mean_over_its_rows(program: Compiled, rng: np.random.Generator) -> None:
    data, held_out = handmade.batch(rng, 64), handmade.batch(rng, 37)
    one, other = handmade.make_step(program), handmade.make_step(program)
    history = one.fit(data, batch_size=16, epochs=3, validation=held_out, progress=False, seed=3)
    other.fit(data, batch_size=16, epochs=1, progress=False, seed=3)
    expected = np.mean((held_out["x"] @ np.asarray(other.params["w"]) - held_out["y"]).astype(float) ** 2)
    assert len(history.validation) == 3
    assert history.validation[0] == pytest.approx(expected, rel=1e-5)
    assert history.validation[2] < history.validation[0]


def test_data_is_taken_as_calls_take_it(program: Compiled, rng: np.random.Generator) -> None:
    data = handmade.batch(rng, 40)
    one, other = handmade.make_step(program), handmade.make_step(program)
    labels = data["k"].astype(">i8")[::-1].copy()[::-1]
    other_data = {"x": data["x"].astype(float), "y": data["y"].tolist(), "k": labels}
    a = one.fit(data, batch_size=16, epochs=2, progress=False)
    b = other.fit(other_data, batch_size=16, epochs=2, progress=False)
    assert a.losses == b.losses and values(one) == values(other)


def test_a_bad_index_leaves_the_last_whole_step(program: Compiled, rng: np.random.Generator) -> None:
    data = handmade.batch(rng, 100)
    data["k"][57] = 10
    one, other = handmade.make_step(program), handmade.make_step(program)
    with pytest.raises(errors.IndexRangeError) as caught:
        one.fit(data, batch_size=16, epochs=2, shuffle=False, progress=False)
    assert str(caught.value) == (
        "take: index 10 at position 9; needs 0 <= index < 10 (step.fit: epoch 1 of 2, step 4 of 7)\n  model.py:9: t[k]"
    )
    for first in (0, 16, 32):
        other(**{name: a[first : first + 16] for name, a in data.items()})
    assert values(one) == values(other)
    good = handmade.batch(rng, 32)
    assert one.fit(good, progress=False).losses == other.fit(good, progress=False).losses


def test_a_bad_index_in_the_short_batch(program: Compiled, rng: np.random.Generator) -> None:
    data = handmade.batch(rng, 35)
    data["k"][34] = -3
    step = handmade.make_step(program)
    with pytest.raises(errors.IndexRangeError, match=r"index -3 at position 2.*epoch 1 of 1, step 3 of 3"):
        step.fit(data, batch_size=16, shuffle=False, progress=False)
    assert int(step.state["step_count"]) == 2


def test_debug_restores_within_fit(rng: np.random.Generator) -> None:
    late = handmade.compiled(fail_late=True)
    data = handmade.batch(rng, 100)
    data["k"][57] = 10
    step, twin = handmade.make_step(late, debug=True), handmade.make_step(late, debug=True)
    with pytest.raises(errors.IndexRangeError):
        step.fit(data, batch_size=16, shuffle=False, progress=False)
    twin.fit({name: a[:48] for name, a in data.items()}, batch_size=16, shuffle=False, progress=False)
    assert values(step) == values(twin)


Y = "\n  model.py:4: y = gc.input('y', (N,))"
REFUSED: list[tuple[dict[str, object], dict[str, object], type[Exception], str]] = [
    ({"y": ...}, {}, errors.InputError, f"step.fit: input 'y' is missing; needs float32[N]{Y}"),
    ({"z": [1]}, {}, errors.InputError, "step.fit: 'z' given is no input; needs x, y, k"),
    ({"lr": 0.1}, {}, errors.InputError, "step.fit: 'lr' given is no input; needs x, y, k"),
    (
        {"y": np.zeros(9)}, {}, errors.ShapeError,
        f"step.fit: input 'y' of shape (9,): axis 0 has size 9, needs N = 8 (N = 8 by input 'x'); declared (N,){Y}",
    ),
    ({}, {"batch_size": 0}, errors.InputError, "step.fit: batch_size=0 given; needs an integer of at least 1"),
    ({}, {"batch_size": 2.5}, errors.InputError, "step.fit: batch_size=2.5 given; needs an integer of at least 1"),
    ({}, {"epochs": -1}, errors.InputError, "step.fit: epochs=-1 given; needs an integer of at least 0"),
    ({}, {"epochs": True}, errors.InputError, "step.fit: epochs=True given; needs an integer of at least 0"),
    ({}, {"until": "low"}, errors.InputError, "step.fit: until='low' given; needs a number or None"),
    (
        {}, {"validation": {"x": np.zeros((3, 3))}}, errors.InputError,
        f"step.fit: validation: input 'y' is missing; needs float32[N]{Y}",
    ),
    (
        {}, {"validation": [1]}, errors.InputError,
        "step.fit: validation: list given; needs a dict with an array for each input",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("changed", "options", "error", "message"), REFUSED)
def test_mistakes_are_found_before_the_first_step(
    step: TrainStep,
    rng: np.random.Generator,
    changed: dict[str, object],
    options: dict[str, object],
    error: type[Exception],
    message: str,
) -> None:
    data = {name: value for name, value in {**handmade.batch(rng, 8), **changed}.items() if value is not ...}
    before = values(step)
    with pytest.raises(error) as caught:
        step.fit(data, progress=False, **options)  # type: ignore[arg-type]
    assert str(caught.value) == message
    assert values(step) == before


def test_data_must_be_a_dict(step: TrainStep) -> None:
    with pytest.raises(errors.InputError, match=r"step\.fit: list given; needs a dict with an array for each input"):
        step.fit([1], progress=False)  # type: ignore[arg-type]


def test_a_step_without_batches_says_why() -> None:
    one = handmade.layout(training=True)
    none = type(one)(one.dims, one.buffers, one.arena, one.results, one.checks)
    assert epoch.can_fit(one) and not epoch.can_fit(none)
    turned = Buffer("t", "input", float32, (3, handmade.N))
    other = type(one)(one.dims, (*one.buffers, turned), one.arena, one.results, one.checks, 0, "N")
    assert not epoch.can_fit(other) and epoch.unsliceable(other) == "t"


def test_calls_between_the_chunks_are_served(step: TrainStep, rng: np.random.Generator) -> None:
    """Another thread predicts while the step trains."""
    data = handmade.batch(rng, 512)
    small = handmade.batch(rng, 3)
    function = step.function(None)
    seen: list[float] = []
    worker = threading.Thread(target=lambda: step.fit(data, epochs=40_000, progress=False))
    worker.start()
    while worker.is_alive() and len(seen) < 1000:
        seen.append(float(function(**small)))
        step(**small)
    worker.join()
    assert len(seen) >= 2 and all(np.isfinite(seen))


# Signals and the bar

INTERRUPTED = """
import os, signal, sys, threading, time
sys.path.insert(0, "tests")
import handmade, numpy as np
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
step, rng = handmade.make_step(), np.random.default_rng(0)
data = handmade.batch(rng, 4096)
sent = []
def send():
    time.sleep(0.3)
    sent.append(time.perf_counter())
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=send, daemon=True).start()
try:
    step.fit(data, batch_size=16, epochs=10**9, progress=sys.argv[1] == "bar")
except KeyboardInterrupt:
    spent = time.perf_counter() - sent[0]
    count = int(step.state["step_count"])
    calls = step.stats().calls
    step(**{name: a[:16] for name, a in data.items()})
    print("answered", spent, count, calls)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT to itself")
@pytest.mark.parametrize("bar", ["bar", "none"])
def test_ctrl_c_is_answered_and_leaves_whole_steps(bar: str) -> None:
    answers = []
    for _ in range(3):  # a busy machine may keep any one process waiting
        command = [sys.executable, "-c", INTERRUPTED, bar]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        words = done.stdout.split()
        assert words[0] == "answered"
        assert int(words[2]) == int(words[3]) > 1000
        if bar == "bar":
            assert done.stderr.endswith("\n")  # the bar was closed
        answers.append(float(words[1]))
        if answers[-1] < 0.1:
            return
    pytest.fail(f"seconds from signal to KeyboardInterrupt: {answers}; needs less than 0.1")


def test_the_bar_shows_epoch_and_loss(
    step: TrainStep, rng: np.random.Generator, capfd: pytest.CaptureFixture[str]
) -> None:
    before = threading.active_count()
    history = step.fit(handmade.batch(rng, 64), batch_size=16, epochs=3)
    shown = capfd.readouterr().err
    assert "12/12" in shown and f"epoch 3/3, loss {history.losses[-1]:.4g}" in shown
    assert threading.active_count() == before


BAR = """
import sys, time
sys.path.insert(0, "tests")
import handmade, numpy as np
class Clock:
    times = []
    def write(self, text):
        if text.strip(): self.times.append(time.perf_counter())
    def flush(self): pass
step, rng = handmade.make_step(), np.random.default_rng(0)
sys.stderr, real = Clock(), sys.stderr
try:
    t = time.perf_counter()
    step.fit(handmade.batch(rng, 4096), batch_size=16, epochs=40000)
    t = time.perf_counter() - t
finally:
    sys.stderr = real
gaps = np.diff(Clock.times)
print(t, len(gaps), float(np.median(gaps)))
"""


def test_the_bar_is_redrawn_within_100_ms() -> None:
    done = subprocess.run([sys.executable, "-c", BAR], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    seconds, n_gaps, median = map(float, done.stdout.split())
    assert seconds > 0.3 and n_gaps > 3 and median <= 0.1


def test_chunks_take_about_25_ms(step: TrainStep, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    spent: list[float] = []
    real = fit._run_chunk

    def timed(*arguments: object) -> object:
        began = time.perf_counter()
        result = real(*arguments)  # type: ignore[arg-type]
        spent.append(time.perf_counter() - began)
        return result

    monkeypatch.setattr(fit, "_run_chunk", timed)
    step.fit(handmade.batch(rng, 4096), batch_size=16, epochs=20_000, progress=False)
    assert len(spent) > 8
    assert 0.01 < float(np.median(spent)) < 0.06


def test_plot_draws_or_says_what_is_missing(step: TrainStep, rng: np.random.Generator, tmp_path: Path) -> None:
    history = step.fit(handmade.batch(rng, 64), epochs=3, validation=handmade.batch(rng, 8), progress=False)
    assert re.fullmatch(r"<history: 3 epochs, 6 steps, last loss [\d.e-]+, [\d.e-]+ s>", repr(history))
    if importlib.util.find_spec("matplotlib") is None:
        with pytest.raises(errors.UsageError, match="pip install matplotlib"):
            history.plot()
        return
    history.plot(str(tmp_path / "losses.png"))
    assert (tmp_path / "losses.png").stat().st_size > 1000


def test_fit_leaves_the_users_cache_and_signals_alone(step: TrainStep, rng: np.random.Generator) -> None:
    assert os.environ.get("GRAPHC_CACHE_DIR")  # the run's own folder, never the user's
    before = signal.getsignal(signal.SIGINT)
    step.fit(handmade.batch(rng, 64), epochs=2, progress=False)
    assert signal.getsignal(signal.SIGINT) is before
