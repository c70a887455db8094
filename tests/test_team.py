"""Steps on a team of threads: the bits of one thread, failures, forks, idle members, steps beside each other."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from loops import EACH, call, compiled, make
from numpy.typing import NDArray
from test_lower import close, wanted

import graphc as gc
from graphc.kernels import blocks, evaluate, split
from graphc.kernels.layout import FIRST_DIM_WORD, WORD_ALONE, WORD_CREDIT, WORD_RESERVE, WORD_REST
from graphc.kernels.lower import lower
from graphc.kernels.memory import place
from graphc.kernels.split import waits
from graphc.llvm.judge import (
    ALONE,
    FIRST_RESERVE,
    JUDGE,
    LOSS,
    MOST_CREDIT,
    MOST_RESERVE,
    PERIOD,
    RESTS,
    STALL,
    judge_texts,
)
from graphc.llvm.target import host
from graphc.llvm.team import LINE_WORDS, MEMBERS, SET_APART
from graphc.runtime import program
from graphc.runtime.jit import compile_objects, load
from graphc.runtime.team import team_of, thread_count

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.skipif(thread_count(2) < 2, reason="one core, or no way to wake a thread")


@pytest.fixture(autouse=True)
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every call goes to the team, however short."""
    monkeypatch.setattr(program, "_TEAM_ABOVE_NS", -1)
    monkeypatch.setattr(program, "_ALWAYS", 1)


def classifier(threads: int, widths: tuple[int, ...] = (19, 70, 33, 10)) -> gc.TrainStep:
    """Products, row reductions, a loss, indices from data, an optimizer with states."""
    x, y = gc.input("x", (gc.dim("N"), widths[0])), gc.input("y", (gc.dim("N"),), dtype="int32")
    h = gc.nn.mlp(x, list(widths[1:]), activation="tanh")
    loss = gc.mean(gc.cross_entropy(h, y))
    return gc.compile(loss, gc.optim.adam(lr=0.01), threads=threads, cache=False)


def batch(n: int, seed: int = 0) -> dict[str, NDArray[np.generic]]:
    """Rows for the classifier."""
    rng = np.random.default_rng(seed)
    return {"x": rng.standard_normal((n, 19)).astype(np.float32), "y": rng.integers(0, 10, n).astype(np.int32)}


def test_the_bits_of_one_thread() -> None:
    one, two = classifier(1), classifier(2)
    for turn, n in enumerate([1, 2, 7, 8, 16, 33, 64, 257] * 4):
        assert one(**batch(n, turn)) == two(**batch(n, turn))
    for name, value in one.params.items():
        np.testing.assert_array_equal(value, two.params[name])
    for name, value in one.state.items():
        np.testing.assert_array_equal(value, two.state[name])


@pytest.mark.parametrize(("name", "dtype"), EACH)
def test_members_in_any_order_give_the_same(name: str, dtype: str) -> None:
    """In the evaluator: what lies between two waits does not depend on who is first, nor on where the cuts lie."""
    case = make(name, dtype)
    program = place(lower(case.graph))
    for n in (1, 9, 70):
        arrays = case.arrays(np.random.default_rng(1), n)
        found = []
        for members in ((0,), (1, 0), (2, 0, 1)):
            own = {key: value.copy() for key, value in arrays.items()}
            outputs = evaluate.run(program, own, {"N": n}, members)
            found.append([value.tobytes() for value in (*outputs.values(), *own.values())])
        assert found[0] == found[1] == found[2]


@pytest.fixture
def many_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every sum that may go in blocks does, in short ones."""
    for name, value in (("LONG_PS", 0), ("MUCH", 1 << 60), ("LITTLE", 1 << 60), ("FEW", 1 << 60), ("MOST", 16)):
        monkeypatch.setattr(blocks, name, value)
    monkeypatch.setattr(blocks, "FEWEST", 16)


@pytest.mark.parametrize(("name", "dtype"), EACH)
def test_sums_in_blocks(many_blocks: None, name: str, dtype: str) -> None:
    """The same for every team, in the evaluator and compiled, and what the operation means."""
    case = make(name, dtype)
    program = place(lower(case.graph))
    made = compiled(case.graph, host())
    for n in (1, 16, 70):
        arrays = case.arrays(np.random.default_rng(1), n)
        found = []
        for members in ((0,), (1, 0)):
            own = {key: value.copy() for key, value in arrays.items()}
            outputs = evaluate.run(program, own, {"N": n}, members)
            found.append([value.tobytes() for value in (*outputs.values(), *own.values())])
        assert found[0] == found[1]
        expected = wanted(case, arrays)
        found = []
        for team in (None, team_of(2), team_of(4)):
            own = {key: value.copy() for key, value in arrays.items()}
            outputs = call(made, own, {"N": n}, team)
            outputs |= {f"new {t.attr}": own[str(t.attr)] for t in case.graph.updates}
            for key, value in expected.items():
                close(outputs[key], value, 256)
            found.append([value.tobytes() for value in (*outputs.values(), *own.values())])
        assert found[0] == found[1] == found[2]


def test_a_long_sum_goes_in_blocks() -> None:
    """A loss that takes most of the time is divided; members wait once for all that joins blocks."""
    x, w = gc.input("x", (gc.dim("N"), 4)), gc.param("w", (4, 2), init=gc.init.he_normal())
    z = x @ w
    loss = gc.mean(gc.sigmoid(z[:, 1]) * gc.log(gc.cosh(gc.sum(x, axis=1) - z[:, 0])))
    step = gc.compile(loss, gc.optim.sgd(lr=0.1), cache=False)
    text = step.show("kernels")
    assert text.count("in blocks of") >= 2
    alone = gc.compile(loss, gc.optim.sgd(lr=0.1), cache=False, threads=1)
    for n in (1, 100, 511, 512, 513, 5000):
        data = np.random.default_rng(n).standard_normal((n, 4)).astype(np.float32)
        assert step(x=data) == alone(x=data)
    np.testing.assert_array_equal(step.params["w"], alone.params["w"])


def test_members_do_not_wait_for_their_own_rows(many_blocks: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels that are cut at the same rows and name only those run without a wait between them."""
    programs = [lower(make(name, dtype).graph) for name, dtype in EACH]
    few = [sum(waits(program)) for program in programs]
    monkeypatch.setattr(split, "_row", lambda kernel, access, cut: 0)
    many = [sum(waits(program)) for program in programs]
    assert all(a <= b for a, b in zip(few, many, strict=True)) and sum(few) < sum(many)


@pytest.mark.parametrize(("name", "dtype"), EACH)
def test_every_kind_of_nest(name: str, dtype: str) -> None:
    case = make(name, dtype)
    made = compiled(case.graph, host())
    for n in (1, 9, 70):
        arrays = case.arrays(np.random.default_rng(1), n)
        found = []
        for team in (None, team_of(2), team_of(4)):
            own = {key: value.copy() for key, value in arrays.items()}
            outputs = call(made, own, {"N": n}, team)
            found.append([value.tobytes() for value in (*outputs.values(), *own.values())])
        assert found[0] == found[1] == found[2]


def test_functions_of_every_kind_of_loop() -> None:
    x = gc.input("x", (gc.dim("N"), 12))
    table = gc.input("table", (9, 5))
    at = gc.input("at", (gc.dim("N"),), dtype="int32")
    made = {
        "running": gc.cumsum(x, axis=1),
        "running over rows": gc.cumsum(x, axis=0),
        "turned": gc.transpose(x) * 2,
        "folded": gc.sum(x, axis=0),
        "all": gc.sum(x),
        "scattered": gc.index_add(table, at, gc.exp(x[:, :5])),
        "dots": x @ gc.const(np.linspace(0, 1, 12, dtype=np.float32)),
        "batched": gc.matmul(gc.expand_dims(x, 2), gc.expand_dims(x, 1)),
        "best": gc.argmax(x, axis=1),
    }
    one, two = (gc.compile(made, threads=t, cache=False) for t in (1, 2))
    rng = np.random.default_rng(0)
    for n in (1, 2, 15, 16, 40):
        given = {
            "x": rng.standard_normal((n, 12)).astype(np.float32),
            "table": rng.standard_normal((9, 5)).astype(np.float32),
            "at": rng.integers(0, 9, n).astype(np.int32),
        }
        first, second = one(**given), two(**given)
        for name, value in first.items():
            np.testing.assert_array_equal(value, second[name], err_msg=f"{name} at {n}")


def test_a_failed_check_leaves_all_members_ready() -> None:
    one, two = classifier(1), classifier(2)
    for n in (5, 40):
        bad = batch(n)
        bad["y"][n - 1] = 10
        for _ in range(50):
            with pytest.raises(gc.IndexRangeError, match=f"index 10 at position {n - 1}"):
                two(**bad)
        assert one(**batch(n)) == two(**batch(n))


def test_a_failure_inside_a_long_program() -> None:
    """More calls than one function holds, with an index that is computed inside and out of range."""
    x = gc.input("x", (gc.dim("N"), 4))
    table = gc.input("table", (8, 4))
    value = x
    for k in range(70):
        value = gc.tanh(value @ gc.const(np.full((4, 4), 0.1 + k / 100, np.float32)))
        if k % 20 == 10:
            value = value + gc.take(table, gc.cast(gc.sum(x, axis=1), "int32"), axis=0)
    function = gc.compile(value, threads=2, cache=False)
    alone = gc.compile(value, threads=1, cache=False)
    table_now = np.ones((8, 4), np.float32)
    for n in (3, 20):
        for row in (0, n - 1):
            bad = np.zeros((n, 4), np.float32)
            bad[row] = 2
            with pytest.raises(gc.IndexRangeError, match=f"index 8 at position {row}"):
                function(x=bad, table=table_now)
        good = np.full((n, 4), 0.5, np.float32)
        np.testing.assert_array_equal(function(x=good, table=table_now), alone(x=good, table=table_now))


class Judge:
    """The functions of ``llvm/judge.py`` on a context of their own, and a program that does nothing."""

    def __init__(self) -> None:
        target = host()
        text = f"""target triple = "{target.triple}"
declare i64 @llvm.smin.i64(i64, i64)
declare i64 @llvm.smax.i64(i64, i64)
define i32 @run(ptr %ctx, i64 %member, i64 %shift, ptr %team) {{
  ret i32 7
}}
"""
        text += "\n".join(judge_texts("run", target.triple).values()).replace("define internal", "define")
        self.native = load(compile_objects([text], target), [RESTS, ALONE, JUDGE], target)
        self.words = (ctypes.c_int64 * FIRST_DIM_WORD)()
        for word, value in ((WORD_ALONE, 1000), (WORD_REST, -1), (WORD_CREDIT, 4000), (WORD_RESERVE, 64000)):
            self.words[word] = value

    def after(self, *turns: int) -> tuple[int, int, int]:
        """Rest, credit and reserve after calls together that took so long."""
        judge = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_void_p, ctypes.c_int64)(self.native.addresses[JUDGE])
        for each in turns:
            assert judge(ctypes.addressof(self.words), each) == (each > self.words[WORD_ALONE])
        return self.words[WORD_REST], self.words[WORD_CREDIT], self.words[WORD_RESERVE]

    def rests(self) -> bool:
        """Whether the next call runs alone."""
        asked = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_void_p)(self.native.addresses[RESTS])
        return bool(asked(ctypes.addressof(self.words)))

    def alone(self) -> None:
        """A call alone."""
        call = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p)(self.native.addresses[ALONE])
        assert call(ctypes.addressof(self.words)) == 7


def test_what_calls_save_is_credit_and_then_reserve() -> None:
    judge = Judge()
    assert judge.after(900) == (-2, 4100, 64000)
    assert judge.after(*[500] * 120)[1:] == (64000, 64100)
    assert judge.after(*[500] * 880)[1:] == (64000, 504100) and not judge.rests()
    assert judge.after(*[500] * 23) == (-PERIOD - 1, 64000, 512000) and judge.rests()
    judge.alone()
    assert judge.words[WORD_REST] == 0 and 0 < judge.words[WORD_ALONE] <= 1125  # a stall is no measure


def test_a_team_that_is_slower_call_after_call_rests_soon() -> None:
    """After what credit pays for, however much lies in the reserve."""
    judge = Judge()
    judge.words[WORD_CREDIT], judge.words[WORD_RESERVE] = 64000, 512000
    assert judge.after(*[2500] * 42) == (-43, 1000, 512000) and not judge.rests()
    assert judge.after(2500) == (LOSS * 500 // 1000, 0, 512000) and judge.rests()


def test_the_first_call_after_a_rest_may_be_slow() -> None:
    """It wakes the members: what it loses counts once another is slower too."""
    judge = Judge()
    judge.words[WORD_CREDIT] = judge.words[WORD_REST] = 0
    assert judge.after(2500) == (-1, -1500, 64000)
    assert judge.after(800, 800) == (-3, -1100, 64000) and not judge.rests()
    assert judge.after(2500) == (LOSS * 2600 // 1000, 0, 64000)
    judge.words[WORD_REST] = 0
    assert judge.after(41_000) == (-1, -STALL * 1000, 64000 - 40_000 + STALL * 1000)


def test_a_stall_of_a_team_that_saves_changes_nothing() -> None:
    """The reserve pays, until it is spent: then as many calls run alone as the stalls were long."""
    judge = Judge()
    assert judge.after(*[500] * 8)[1:] == (8000, 64000)
    assert judge.after(51_000) == (-10, 0, 64000 - 50_000 + STALL * 1000)
    assert judge.after(500, 500) == (-12, 1000, 22000)
    judge.words[WORD_CREDIT] = 64000
    assert judge.after(51_000) == (LOSS * (128_000 + 20_000) // 1000, 0, FIRST_RESERVE * 1000)


def test_calls_of_a_rest_run_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The program is told what a call takes alone: far too little, then far too much."""
    monkeypatch.setattr(program, "_ALWAYS", 0)
    one, two = classifier(1), classifier(2)
    assert one(**batch(64)) == two(**batch(64))
    context = next(iter(two.program._by_shapes.values()))
    assert context.words[WORD_CREDIT] == 0
    assert context.words[WORD_RESERVE] == FIRST_RESERVE * context.words[WORD_ALONE] > 0
    context.words[WORD_REST] = 0
    context.words[WORD_ALONE] = context.words[WORD_CREDIT] = context.words[WORD_RESERVE] = 1
    assert one(**batch(64)) == two(**batch(64))
    resting = context.words[WORD_REST]
    assert resting > LOSS * FIRST_RESERVE
    for turn in range(LOSS):
        assert one(**batch(64)) == two(**batch(64))
        assert context.words[WORD_REST] == resting - turn - 1
        assert context.words[WORD_CREDIT] == 0
    context.words[WORD_REST] = 0
    for turn in range(2 * PERIOD):
        context.words[WORD_ALONE] = 1 << 50
        two(**batch(64))
        assert context.words[WORD_REST] == -((turn + 1) % (PERIOD + 1))
    assert context.words[WORD_CREDIT] == MOST_CREDIT << 50
    assert context.words[WORD_RESERVE] == MOST_RESERVE << 50


def test_epochs_in_native_code() -> None:
    one, two = classifier(1), classifier(2)
    data = batch(230)
    first = one.fit(data, batch_size=32, epochs=3, progress=False)
    second = two.fit(data, batch_size=32, epochs=3, progress=False)
    assert first.step_losses.tolist() == second.step_losses.tolist()


def test_steps_of_two_python_threads_at_once() -> None:
    steps = [classifier(2) for _ in range(2)]
    alone = classifier(1)
    wanted = [alone(**batch(64, k)) for k in range(60)]
    found: list[list[float]] = [[], []]

    def work(number: int) -> None:
        found[number] += [steps[number](**batch(64, k)) for k in range(60)]

    threads = [threading.Thread(target=work, args=(k,)) for k in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [wanted, wanted]


def test_a_member_leaves_its_callers_core() -> None:
    """One that says that it was last on the caller's core is kept off it; another caller's core it may use again."""
    team = team_of(2)
    time.sleep(0.01)  # it sleeps
    line = (MEMBERS + 1) * LINE_WORDS
    apart = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(int(team.words[SET_APART * LINE_WORDS]))
    allowed = os.sched_getaffinity(0)
    try:
        for core in sorted(allowed):
            os.sched_setaffinity(0, {core})
            team.words[line + 1] = core
            apart(team.address)
            assert os.sched_getaffinity(int(team.words[line])) == allowed - {core}
    finally:
        os.sched_setaffinity(0, allowed)


def test_an_idle_team_uses_no_core() -> None:
    step = classifier(2)
    step(**batch(64))
    time.sleep(0.1)
    before = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - before < 0.05


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_runs_alone() -> None:
    code = """
import os, sys
sys.path.insert(0, "tests")
import test_team as t
from graphc.runtime import program
program._TEAM_ABOVE_NS, program._ALWAYS = -1, 1
step = t.classifier(2)
step(**t.batch(64))
child = os.fork()
loss = step(**t.batch(64, 1))
if child == 0:
    other = t.classifier(2)
    other(**t.batch(64))
    os._exit(0 if other(**t.batch(64, 1)) == loss else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, timeout=120)
    assert done.returncode == 0


def test_the_variable_and_what_it_may_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHC_THREADS", "1")
    assert thread_count(None) == 1
    monkeypatch.setenv("GRAPHC_THREADS", "some")
    with pytest.raises(gc.GraphcError, match="GRAPHC_THREADS='some' given; needs a number"):
        thread_count(None)
