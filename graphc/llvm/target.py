"""The machine that code is made for.

Vectors in LLVM text have fixed lanes (16 floats, 8 doubles) on every target; LLVM cuts them to the registers there are.
So results do not depend on the width, only on whether the target has a fused multiply-add.
"""

from __future__ import annotations

from functools import cache
from typing import Protocol

from graphc.structs import dataclass

LANES = {"float": 16, "double": 8, "i32": 16, "i64": 8, "i1": 16, "i8": 16}


class TargetMachine(Protocol):
    """What graphc uses of llvmlite's target machine."""

    target_data: object

    def emit_object(self, module: object) -> bytes:
        """The object file of a parsed module."""

    def emit_assembly(self, module: object) -> str:
        """The assembly of a parsed module."""


@dataclass(frozen=True, slots=True)
class Target:
    """A machine: LLVM's triple, CPU and features, and what schedules ask about.

    vector_bits: of the widest float register; 0 without one. n_vector_registers: how many there are.
    fma: whether it has a fused multiply-add, which decides the bits of results. native: whether this process can run
    its code. avx512: whether it has AVX-512.
    """

    triple: str
    cpu: str
    features: str
    vector_bits: int
    n_vector_registers: int
    fma: bool
    native: bool
    avx512: bool = False


@cache
def host() -> Target:
    """The machine that this process runs on.

    >>> host().native
    True
    """
    import llvmlite.binding as llvm

    found = llvm.get_host_cpu_features()
    features = ",".join(f"{'+' if found[name] else '-'}{name}" for name in sorted(found))
    return described(llvm.get_process_triple(), llvm.get_host_cpu_name(), features, native=True)


def host_like(cpu: str) -> Target:
    """An older CPU of the host's family, such as ``x86-64`` or ``haswell``, whose code runs on this process too."""
    import llvmlite.binding as llvm

    return described(llvm.get_process_triple(), cpu, "", native=True)


def described(triple: str, cpu: str, features: str, native: bool = False) -> Target:
    """The target of a triple, CPU and LLVM feature string; widths follow from the features and the CPU's name.

    >>> described("x86_64-unknown-linux-gnu", "x86-64", "").vector_bits
    128
    """
    arch = triple.split("-")[0]
    has = {part[1:] for part in features.split(",") if part.startswith("+")} | _CPU_FEATURES.get(cpu, frozenset())
    if arch in ("x86_64", "i386", "i686"):
        if "avx512f" in has:
            return Target(triple, cpu, features, 512, 32, True, native, avx512=True)
        return Target(triple, cpu, features, 256 if "avx" in has else 128, 16, "fma" in has, native)
    if arch.startswith(("aarch64", "arm64")):
        return Target(triple, cpu, features, 128, 32, True, native)
    if arch.startswith("riscv"):
        vector = "v" in has or "zve32f" in has
        return Target(triple, cpu, features, 128 if vector else 0, 32, "f" in has, native)
    return Target(triple, cpu, features, 128 if "simd128" in has else 0, 16, not arch.startswith("wasm"), native)


_AVX = frozenset({"avx"})
_AVX2 = _AVX | {"avx2", "fma"}
_AVX512 = _AVX2 | {"avx512f"}
_CPU_FEATURES: dict[str, frozenset[str]] = {
    **dict.fromkeys(("sandybridge", "ivybridge"), _AVX),
    **dict.fromkeys(("haswell", "broadwell", "skylake", "x86-64-v3", "znver1", "znver2", "znver3"), _AVX2),
    **dict.fromkeys(("x86-64-v4", "skylake-avx512", "znver4", "znver5"), _AVX512),
}


def machine(target: Target, pic: bool = True) -> TargetMachine:
    """LLVM's target machine at code generation level 2, which FACTS found as good as 3; made anew at each call.

    Raises: RuntimeError from LLVM when the triple is unknown.
    """
    import llvmlite.binding as llvm

    if target.native:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
    else:
        llvm.initialize_all_targets()
        llvm.initialize_all_asmprinters()
    found = llvm.Target.from_triple(target.triple)
    # llvmlite's "jitdefault" means the large model on x86-64: a register and a 64-bit constant for every read of a
    # constant and every call. JITLink lays an object out in one piece, so the small model holds.
    made: TargetMachine = found.create_target_machine(
        cpu=target.cpu, features=target.features, opt=2, reloc="pic" if pic else "static", codemodel="small"
    )
    return made
