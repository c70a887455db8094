"""A small training step written by hand, so that the runtime is tested without the compiler.

A linear model of three features: ``pred = x @ w``, ``loss = mean((pred - y)**2)``, gradient descent with momentum 0.5
on ``w`` (state ``m``), a step count, and a label ``k`` of each row that must lie in 0 to 9.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from graphc.graph.dtypes import float32, int32, int64
from graphc.graph.sizes import dim
from graphc.kernels.arena import Arena
from graphc.kernels.layout import WORD_POSITION, WORD_VALUE, Buffer, Check, Layout, Results
from graphc.llvm import target
from graphc.llvm.text import Module, Value, Writer, const
from graphc.runtime.arguments import Array
from graphc.runtime.compiled import Compiled, compile_program
from graphc.runtime.program import Program
from graphc.runtime.step import Function, Look, Tools, TrainStep
from graphc.runtime.store import make_store

Floats = NDArray[np.float32]
Batch = dict[str, Array]

N = dim("N")
FEATURES = 3
START = np.array([0.5, -0.25, 0.125], np.float32)
HOST = target.host()


def layout(training: bool, cost_ns: int = 0, bare: bool = False) -> Layout:
    """The layout of the step, or of the function that gives the loss alone. bare: a step without further outputs."""
    buffers = [
        Buffer("x", "input", float32, (N, FEATURES), source="model.py:3: x = gc.input('x', (N, 3))"),
        Buffer("y", "input", float32, (N,), source="model.py:4: y = gc.input('y', (N,))"),
        Buffer("k", "input", int32, (N,), source="model.py:5: k = gc.input('k', (N,), dtype='int32')"),
        Buffer("w", "param", float32, (FEATURES,)),
        Buffer("loss", "output", float32, (), 0),
        Buffer("pred", "output", float32, (N,), 1),
    ]
    if training:
        buffers += [
            Buffer("lr", "hyper", float32, default=0.125),
            Buffer("m", "state", float32, (FEATURES,)),
            Buffer("step_count", "count", int64),
            Buffer("gradient", "temp", float32, (FEATURES,), 2),
        ]
    check = Check("take: index {value} at position {position}; needs 0 <= index < {bound}", 10, "model.py:9: t[k]")
    further = () if bare else (("pred", "pred"),)
    results = Results("loss", "loss", further) if training else Results("tensor", outputs=(("", "loss"),))
    arena = Arena((4, 4 * N, 12), ((), (0,), (1,))) if training else Arena((4, 4 * N), ((), (0,)))
    return Layout(("N",), tuple(buffers), arena, results, (check,), cost_ns, "N")


def module_text(training: bool, fail_late: bool = False) -> str:
    """The program. fail_late: check the labels after the update, as only ``debug`` can put right."""
    plan = layout(training)
    module = Module("handmade")
    w = Writer(module)
    context = Value("%ctx", "ptr")

    def at(name: str) -> Value:
        return w.load("ptr", w.gep(context, const("i64", plan.buffer_word(plan.index(name))), "i64"))

    n = w.load("i64", w.gep(context, const("i64", plan.dim_word(0)), "i64"))
    x, y, k, weights, loss, pred = (at(name) for name in ("x", "y", "k", "w", "loss", "pred"))
    if not fail_late:
        _check(w, context, k, n)
    zero, one, features = const("i64", 0), const("i64", 1), const("i64", FEATURES)
    gradient = at("gradient") if training else w.alloca("float", FEATURES)
    clear = w.loop(zero, features, one)
    w.store(const("float", 0), w.gep(gradient, clear.index, "float"))
    w.end_loop(clear)
    count = w.cast("sitofp", n, "float")
    rows = w.loop(zero, n, one, [const("float", 0)])
    row = w.gep(x, w.mul(rows.index, features), "float")
    dot = w.loop(zero, features, one, [const("float", 0)])
    feature, weight = (w.load("float", w.gep(array, dot.index, "float")) for array in (row, weights))
    product = w.fmul(feature, weight)
    (value,) = w.end_loop(dot, [w.fadd(dot.carried[0], product)])
    w.store(value, w.gep(pred, rows.index, "float"))
    error = w.fsub(value, w.load("float", w.gep(y, rows.index, "float")))
    scaled = w.fdiv(w.fadd(error, error), count)
    back = w.loop(zero, features, one)
    cell = w.gep(gradient, back.index, "float")
    part = w.fmul(scaled, w.load("float", w.gep(row, back.index, "float")))
    w.store(w.fadd(w.load("float", cell), part), cell)
    w.end_loop(back)
    (total,) = w.end_loop(rows, [w.fadd(rows.carried[0], w.fmul(error, error))])
    w.store(w.fdiv(total, count), loss)
    if training:
        _update(w, weights, at("m"), gradient, w.load("float", at("lr")), at("step_count"))
    if fail_late:
        _check(w, context, k, n)
    w.ret(const("i32", 0))
    module.define("step", "i32", [context], w)
    return module.text()


def _check(w: Writer, context: Value, k: Value, n: Value) -> None:
    loop = w.loop(const("i64", 0), n, const("i64", 1))
    label = w.load("i32", w.gep(k, loop.index, "i32"))
    bad = w.if_(w.icmp("uge", label, const("i32", 10)))
    w.store(loop.index, w.gep(context, const("i64", WORD_POSITION), "i64"))
    w.store(w.cast("sext", label, "i64"), w.gep(context, const("i64", WORD_VALUE), "i64"))
    w.ret(const("i32", 1))
    w.end_if(bad)
    w.end_loop(loop)


def _update(w: Writer, weights: Value, state: Value, gradient: Value, lr: Value, count: Value) -> None:
    loop = w.loop(const("i64", 0), const("i64", FEATURES), const("i64", 1))
    m, weight = w.gep(state, loop.index, "float"), w.gep(weights, loop.index, "float")
    slope = w.load("float", w.gep(gradient, loop.index, "float"))
    moved = w.fadd(w.fmul(w.load("float", m), const("float", 0.5)), slope)
    w.store(moved, m)
    w.store(w.fsub(w.load("float", weight), w.fmul(lr, moved)), weight)
    w.end_loop(loop)
    w.store(w.add(w.load("i64", count), const("i64", 1)), count)


def compiled(training: bool = True, fail_late: bool = False, cost_ns: int = 0, bare: bool = False) -> Compiled:
    """The program, compiled."""
    return compile_program(module_text(training, fail_late), layout(training, cost_ns, bare), HOST)


def make_step(
    program: Compiled | None = None, *, debug: bool = False, folder: Path | None = None, seed: int = 0
) -> TrainStep:
    """A training step that starts from ``START``."""
    program = program or compiled()
    store = make_store((program.layout,), {"w": START})
    forward = compiled(training=False)

    def function(outputs: object) -> Function:
        return Function(Program(forward, HOST, store, name="function"))

    tools = Tools(function, lambda: function(None))
    look = Look(lambda stage: f"stage {stage}", lambda: "", lambda: None, lambda *_: '', lambda *_: None, None)
    return TrainStep(Program(program, HOST, store, debug=debug), tools, seed=seed, look=look)


class Reference:
    """The same step in NumPy, float32."""

    def __init__(self) -> None:
        self.w = START.copy()
        self.m = np.zeros(FEATURES, np.float32)

    def step(self, x: Floats, y: Floats, lr: float = 0.125) -> float:
        """One step: the loss before the update."""
        error = x @ self.w - y
        gradient = (2 * error @ x / len(x)).astype(np.float32)
        self.m = np.float32(0.5) * self.m + gradient
        self.w = self.w - np.float32(lr) * self.m
        return float(np.mean(error * error))


def batch(rng: np.random.Generator, n: int) -> Batch:
    """Inputs of ``n`` rows that a linear model fits exactly."""
    x = rng.standard_normal((n, FEATURES)).astype(np.float32)
    y = (x @ np.array([1.0, -2.0, 0.5], np.float32)).astype(np.float32)
    return {"x": x, "y": y, "k": rng.integers(0, 10, n).astype(np.int32)}


def loss_of(result: object) -> float:
    """The loss in what a step gave back."""
    loss = result[0] if isinstance(result, tuple) else result
    assert type(loss) is float
    return loss


def values(step: TrainStep) -> dict[str, bytes]:
    """Everything persistent, bit for bit."""
    return {name: a.tobytes() for live in (step.params, step.state) for name, a in live.items()}
