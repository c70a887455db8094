"""The writer of LLVM text: loops, conditions, masks, gathers and reductions, run on this CPU and on one without AVX."""

from __future__ import annotations

import ctypes
import platform

import llvmlite.binding as llvm
import numpy as np
import pytest

from graphc.errors import InternalError
from graphc.llvm.scalars import emit_primitive
from graphc.llvm.target import Target, host, host_like, machine
from graphc.llvm.text import Module, Value, Writer, const

V = "<16 x float>"
TARGETS = [host()] + ([host_like("x86-64")] if platform.machine() in ("x86_64", "AMD64") else [])


def i64(number: int) -> Value:
    """An i64 constant."""
    return const("i64", number)


def load(module: Module, target: Target) -> tuple[int, object]:
    """The address of ``kernel`` and what keeps it alive."""
    made = machine(target)
    parsed = llvm.parse_assembly(module.text())
    parsed.verify()
    jit = llvm.create_lljit_compiler(made, use_jit_link=True)
    builder = llvm.JITLibraryBuilder().add_object_img(made.emit_object(parsed)).add_current_process()
    library = builder.export_symbol("kernel").link(jit, "kernel")
    return library["kernel"], (jit, library)


def masked_sum() -> Module:
    """kernel(x, out, n): out = 2 x + x[::-1] in lanes of 16 with a masked rest; returns the sum of out."""
    module = Module()
    w = Writer(module)
    x, out, n = Value("%x", "ptr"), Value("%out", "ptr"), Value("%n", "i64")
    zero = const(V, 0)
    loop = w.loop(i64(0), n, i64(16), [zero])
    mask = w.lane_mask(16, w.sub(n, loop.index))
    forward = w.masked_load(V, w.gep(x, loop.index, "float"), mask, zero)
    last = w.splat(w.sub(w.sub(n, i64(1)), loop.index), 16)
    backward = w.gather(V, w.gep(x, w.sub(last, w.lane_numbers("<16 x i64>")), "float"), mask, zero)
    inner = w.loop(i64(0), i64(2), i64(1), [backward])
    (y,) = w.end_loop(inner, [w.fadd(inner.carried[0], forward)])
    w.masked_store(y, w.gep(out, loop.index, "float"), mask)
    (total,) = w.end_loop(loop, [w.fadd(loop.carried[0], y)])
    w.ret(w.reduce("fadd", total))
    module.define("kernel", "float", [x, out, n], w, param_attributes={"%x": "noalias"})
    return module


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.cpu)
@pytest.mark.parametrize("n", [0, 1, 15, 16, 17, 50])
def test_nested_loops_masks_and_gather(target: Target, n: int) -> None:
    address, alive = load(masked_sum(), target)
    x = np.arange(1, n + 1, dtype=np.float32)
    out = np.full(n + 16, -7, np.float32)
    call = ctypes.CFUNCTYPE(ctypes.c_float, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)(address)
    total = call(x.ctypes.data, out.ctypes.data, n)
    np.testing.assert_array_equal(out[:n], 2 * x + x[::-1])
    np.testing.assert_array_equal(out[n:], -7)
    assert total == (2 * x + x[::-1]).sum() and alive is not None


@pytest.mark.parametrize(
    "name, reduce", [("add", np.sum), ("mul", np.prod), ("maximum", np.max), ("minimum", np.min)]
)
def test_reductions(name: str, reduce: np.ufunc) -> None:
    module = Module()
    w = Writer(module)
    w.ret(w.reduce(lambda a, b: emit_primitive(w, name, [a, b]), w.load(V, Value("%x", "ptr"))))
    module.define("kernel", "float", [Value("%x", "ptr")], w)
    address, _alive = load(module, host())
    call = ctypes.CFUNCTYPE(ctypes.c_float, ctypes.c_void_p)(address)
    x = np.array([1, 2, 0.5, -1, 4, 2, 0.25, 1, 1, -2, 8, 1, 1, 0.5, 2, 1], np.float32)
    assert call(x.ctypes.data) == reduce(x)
    x[5] = np.nan
    assert np.isnan(call(x.ctypes.data))


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.cpu)
def test_conditions_and_repetition(target: Target) -> None:
    """Collatz: the steps from n to 1, by ``repeat`` and ``if_`` with a phi."""
    module = Module()
    w = Writer(module)
    turn = w.repeat([Value("%n", "i64"), i64(0)])
    n, steps = turn.carried
    branch = w.if_(w.icmp("eq", w.and_(n, i64(1)), i64(0)))
    half, even = w.lshr(n, i64(1)), w.block
    w.else_(branch)
    more, odd = w.add(w.mul(n, i64(3)), i64(1)), w.block
    w.end_if(branch)
    following = w.phi("i64", [(half, even), (more, odd)])
    _, total = w.end_repeat(turn, [following, w.add(steps, i64(1))], w.icmp("ne", following, i64(1)))
    w.ret(total)
    module.define("kernel", "i64", [Value("%n", "i64")], w)
    address, _alive = load(module, target)
    assert ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(address)(27) == 111


def test_text_is_the_same_each_time_and_declares_once() -> None:
    text = masked_sum().text()
    assert text == masked_sum().text()
    assert text.count("declare <16 x float> @llvm.masked.load.v16f32.p0") == 1
    assert all("nounwind" in line for line in text.splitlines() if line.startswith(("define", "declare")))


def test_mistakes_are_refused() -> None:
    module = Module()
    w = Writer(module)
    with pytest.raises(InternalError, match="fadd: operands of types float and double"):
        w.fadd(const("float", 1), const("double", 1))
    with pytest.raises(InternalError, match="flags 'nnan' are not allowed"):
        w.fadd(const("float", 1), const("float", 1), "nnan")
    with pytest.raises(InternalError, match="12 lanes are not a power of two"):
        w.reduce("fadd", Value("%x", "<12 x float>"))
    with pytest.raises(InternalError, match="the last block of f has no terminator"):
        module.define("f", "void", [], w)
    w.ret()
    with pytest.raises(InternalError, match="follows the terminator of block entry"):
        w.fadd(const("float", 1), const("float", 1))
    module.define("f", "void", [], w)
    with pytest.raises(InternalError, match="function f exists"):
        module.define("f", "void", [], w)
