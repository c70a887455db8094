"""Compiles one vector function and measures it: shared by ``test_vecmath.py`` and ``benchmarks/vecmath.py``."""

from __future__ import annotations

import ctypes
import platform
from dataclasses import dataclass

import llvmlite.binding as llvm
import numpy as np
from numpy.typing import NDArray

from graphc.graph.primitives import PRIMITIVES
from graphc.llvm.scalars import emit_primitive
from graphc.llvm.target import Target, host, machine
from graphc.llvm.text import Module, Value, Writer, const, vector
from graphc.llvm.vecmath import VECTOR_MATHS, call_out_of_line
from graphc.llvm.vecmath_power import fmod

Array = NDArray[np.floating]
LANES = {"float": 16, "double": 8}
# The functions of floats that are more than an instruction, those that round, and fmod, of which others are made.
NAMES = (*VECTOR_MATHS, "rsqrt", "sqrt", "floor", "ceil", "trunc", "sign", "fmod")
ARITY = {name: PRIMITIVES[name].arity if name in PRIMITIVES else 2 for name in NAMES}
SCALARS: dict[str, type[np.floating]] = {"float": np.float32, "double": np.float64}


@dataclass(frozen=True, slots=True)
class Compiled:
    """A function over arrays; ``engine`` keeps its code alive."""

    name: str
    scalar: str
    address: int
    n_lines: int
    engine: object

    def __call__(self, *args: Array) -> Array:
        """The function of each element; any length."""
        dtype, lanes = SCALARS[self.scalar], 16
        padded = [np.concatenate([a, np.ones(-len(a) % lanes, dtype)]).astype(dtype) for a in args]
        out = np.empty_like(padded[0])
        call = ctypes.CFUNCTYPE(None, *([ctypes.c_void_p] * (len(args) + 1)), ctypes.c_int64)(self.address)
        call(*(a.ctypes.data for a in padded), out.ctypes.data, len(out))
        return out[: len(args[0])]


def source(
    name: str, scalar: str, lanes: int, fma: bool, outside: bool = False, avx512: bool = False, symbol: str = ""
) -> Module:
    """A module with ``kernel(operands..., out, n)``, n a multiple of the lanes. symbol: a library's, to call."""
    module = Module(fma=fma, avx512=avx512)
    w = Writer(module)
    kind = vector(scalar, lanes)
    pointers = [Value(f"%x{n}", "ptr") for n in range(ARITY[name])]
    out, n = Value("%out", "ptr"), Value("%n", "i64")
    loop = w.loop(const("i64", 0), n, const("i64", max(lanes, 1)))
    args = [w.load(kind, w.gep(p, loop.index, scalar)) for p in pointers]
    if symbol:
        module.declare(symbol, kind, [kind] * len(args))
        y = w.call(symbol, kind, args)
    elif name == "fmod":
        y = fmod(w, *args)
    else:
        y = call_out_of_line(w, name, args) if outside and name in VECTOR_MATHS else emit_primitive(w, name, args)
    w.store(y, w.gep(out, loop.index, scalar))
    w.end_loop(loop)
    w.ret()
    module.define("kernel", "void", [*pointers, out, n], w)
    return module


def compiled(
    name: str, scalar: str, lanes: int | None = None, target: Target | None = None, outside: bool = False
) -> Compiled:
    """The function compiled for the target (the host) with that many lanes (the type's own)."""
    target = target or host()
    module = source(name, scalar, LANES[scalar] if lanes is None else lanes, target.fma, outside, target.avx512)
    return linked(name, scalar, module, target)


def libmvec(name: str, scalar: str) -> Compiled | None:
    """glibc's vector function in the same loop; None where there is none for this CPU's widest registers."""
    letter = {512: "e", 256: "d"}.get(host().vector_bits) if platform.machine() == "x86_64" else None
    lanes = host().vector_bits // (32 if scalar == "float" else 64)
    symbol = f"_ZGV{letter}N{lanes}{'v' * ARITY[name]}_{name}{'f' if scalar == 'float' else ''}"
    try:
        llvm.load_library_permanently("libmvec.so.1")
    except RuntimeError:
        return None
    if letter is None or not llvm.address_of_symbol(symbol):
        return None
    return linked(name, scalar, source(name, scalar, lanes, fma=True, symbol=symbol), host())


def linked(name: str, scalar: str, module: Module, target: Target) -> Compiled:
    """A module's kernel as a function."""
    made = machine(target)
    parsed = llvm.parse_assembly(module.text())
    parsed.verify()
    jit = llvm.create_lljit_compiler(made, use_jit_link=True)
    library = (
        llvm.JITLibraryBuilder()
        .add_object_img(made.emit_object(parsed))
        .add_current_process()
        .export_symbol("kernel")
        .link(jit, "kernel")
    )
    return Compiled(name, scalar, library["kernel"], len(module.text().splitlines()), (jit, library))


def ulps(got: Array, reference: Array, scalar: str) -> Array:
    """The distance of each result from the exact one, in units of the last place of the exact one.

    reference: of a wider type. Infinity counts as the power of two after the largest number; NaN must meet NaN, an
    infinite reference infinity, else the distance is infinite.
    """
    digits, least, top = (24, -149, 128) if scalar == "float" else (53, -1074, 1024)
    wide = reference.dtype.type
    limit = np.ldexp(wide(1), top)
    with np.errstate(all="ignore"):
        value = np.where(np.isinf(got), np.copysign(limit, got), got.astype(wide))
        exact = np.clip(reference, -limit, limit)
        unit = np.ldexp(wide(1), np.maximum(np.frexp(exact)[1] - digits, least))
        distance = np.abs(value - exact) / unit
    distance = np.where(np.isinf(reference), np.where(got == reference, 0.0, np.inf), distance)
    distance = np.where(np.isnan(reference), np.where(np.isnan(got), 0.0, np.inf), distance)
    return np.where(np.isnan(got) & ~np.isnan(reference), np.inf, distance)


def worst_of_every_float(name: str) -> tuple[float, np.float32]:
    """The largest error of a function of one float32 over every float32, in ULP, and where.

    Against the float64 form of the same function, whose errors are measured too; 3 of its ULP are 6e-9 here.
    """
    single, double = compiled(name, "float"), compiled(name, "double")
    worst, where = -1.0, np.float32(0)
    step = 2**18
    with np.errstate(all="ignore"):
        for start in range(0, 2**32, step):
            x = np.arange(start, start + step, dtype=np.uint64).astype(np.uint32).view(np.float32)
            error = ulps(single(x), double(x.astype(np.float64)), "float")
            at = int(np.argmax(error))
            if error[at] > worst:
                worst, where = float(error[at]), x[at]
    return worst, where
