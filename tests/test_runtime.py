"""The runtime on a step written by hand: calls, arguments, live weights, saving, threads, memory."""

from __future__ import annotations

import copy
import gc
import mmap
import pickle
import resource
import signal
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path

import handmade
import numpy as np
import pytest
from handmade import loss_of, values
from numpy.typing import NDArray

from graphc import errors
from graphc.graph.sizes import dim
from graphc.kernels.layout import Buffer, Layout, verify
from graphc.runtime import program as program_module
from graphc.runtime.compiled import Compiled
from graphc.runtime.memory import Guarded, guarded
from graphc.runtime.program import Program
from graphc.runtime.step import TrainStep
from graphc.runtime.store import make_store

ROOT = Path(__file__).parent.parent


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
    assert float(function(**data)) < float(first)
    step.params["w"] = [1.0, -2.0, 0.5]
    assert float(function(**data)) < 1e-12


def test_arena_is_known_before_running(program: Compiled) -> None:
    offsets, total = program.layout.arena.offsets({"N": 100})
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
    other = Layout(one.dims, tuple(changed), one.arena, one.results, one.checks)
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
            verify(Layout(one.dims, buffers, one.arena, one.results, one.checks))


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
number = 0
while True:
    number += 1
    step.params["w"] = np.full(3, number)
    step.state["m"] = np.full(3, number)
    step.save(sys.argv[1])
    if number == 1:
        print("ready", flush=True)
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
    compiled, store = handmade.compiled(training=False), make_store((handmade.layout(False),), {})
    program = Program(compiled, handmade.HOST, store)
    library = weakref.ref(program._native.keep[-1])
    del program
    gc.collect()
    assert library() is None
    grown = []
    for _ in range(3):
        before = _resident_bytes()
        for _ in range(500):
            Program(compiled, handmade.HOST, store)
        gc.collect()
        grown.append(_resident_bytes() - before)
    assert min(grown) < 500 * 1024  # linkers that live are let go too
