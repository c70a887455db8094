"""A module cut into parts: the same functions, once each, and the same machine code."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest

import graphc as gc
from graphc.llvm.emit import emit
from graphc.llvm.parts import cut
from graphc.llvm.target import host
from graphc.pipeline import Declared, Options, Stages, stages
from graphc.runtime import jit, named

N = gc.dim("N")


def model() -> gc.Tensor:
    x = gc.input("x", (N, 12))
    y = gc.input("y", (N,), dtype="int64")
    table = gc.const(np.linspace(0.5, 2.0, 12, dtype=np.float32))
    return gc.mean(gc.cross_entropy(gc.nn.mlp(gc.log(x * x + 1) * table, [20, 9, 5]), y))


def compiled() -> gc.TrainStep:
    return gc.compile(model(), gc.optim.adam(lr=0.01), seed=3, cache=False)


def made() -> Stages:
    declared = compiled().origin
    assert isinstance(declared, Declared)
    return stages(declared, Options())


def batch(n: int) -> dict[str, object]:
    rng = np.random.default_rng(5)
    return {"x": rng.normal(size=(n, 12)).astype(np.float32), "y": rng.integers(0, 5, n)}


@pytest.mark.parametrize("n_parts", [2, 3, 1000])
def test_each_function_is_in_one_part_with_its_instructions(n_parts: int) -> None:
    text = made().llvm
    parts = cut(text, n_parts)
    bodies = {}
    for part in parts:
        for head, _, body in (f.partition("{\n") for f in part.split("\ndefine ")[1:]):
            name = head[head.index("@") :].partition("(")[0]
            assert name not in bodies
            bodies[name] = body.partition("\n}\n")[0]
    assert len(bodies) == text.count("\ndefine ")
    assert all(body in text for body in bodies.values())


@pytest.mark.parametrize("n_parts", [2, 5])
def test_machine_code_of_a_function_does_not_depend_on_the_parts(n_parts: int) -> None:
    text = made().llvm
    parts = cut(text, n_parts)
    assert len(parts) == n_parts
    several = {name: code for part in parts for name, code in functions(jit.assembly([part], host())).items()}
    assert several == functions(jit.assembly([text], host()))


def functions(assembly: str) -> dict[str, str]:
    """The instructions of each function; labels without number, a function's second name ``.Lname$local`` left out."""
    assembly = re.sub(r"^\.L\w+\$local:\n\t\.type[^\n]*\n", "", assembly, flags=re.MULTILINE)
    assembly = re.sub(r"\.L(\w+)\$local", r"\1", assembly)
    labels = re.compile(r"\.L(BB|CPI|JTI|tmp|func_end|func_begin)\d+")
    found = re.findall(r"^(\w+):[^\n]*\n(.*?)^\.Lfunc_end\d+:", assembly, re.MULTILINE | re.DOTALL)
    assert len(found) > 1
    return {name: labels.sub(r"\1", body) for name, body in found}


def test_a_step_in_parts_has_the_bits_of_a_whole_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jit, "_n_cpus", lambda: 1)
    whole = compiled()
    monkeypatch.setattr(jit, "_n_cpus", lambda: 4)
    monkeypatch.setattr(jit, "_PART", 1000)
    several = compiled()
    for n in (1, 7, 32):
        assert whole(**batch(n)) == several(**batch(n))
    for name, value in whole.params.items():
        assert np.array_equal(value, several.params[name])
    one, other = (step.fit(batch(64), batch_size=16, epochs=2, progress=False) for step in (whole, several))
    assert one.losses == other.losses


def test_a_variable_is_one_for_all_parts() -> None:
    """The counters of a profiled step are added to by many functions."""
    text = emit(made().program, host(), counted=True)
    parts = cut(text, 4)
    assert sum(" = global " in part for part in parts) == 1
    assert sum(" = external global " in part for part in parts) >= 1
    jit.load(jit.compile_objects([text], host(), n_parts=4), ["step"], host())


@pytest.mark.skipif(sys.platform != "linux", reason="perf's file, and ELF, are Linux's")
def test_perf_is_told_the_functions_of_all_parts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = made().llvm
    monkeypatch.setenv(named.PERF, "1")
    monkeypatch.setattr(named, "map_file", lambda: tmp_path / "perf.map")
    jit.load(jit.compile_objects([text], host(), n_parts=3), ["step"], host())
    noted = {line.split()[3] for line in (tmp_path / "perf.map").read_text().splitlines()}
    assert noted == set(re.findall(r"^define .*?@(\w+)", text, re.MULTILINE))


def test_a_text_that_llvm_refuses_is_an_error_whichever_part_it_is_in() -> None:
    good = "define void @f() {\n  ret void\n}\n"
    for name, longer in (("a", ""), ("b", "  ; " + "-" * 80 + "\n")):
        text = good + f"define void @{name}() {{\n{longer}  ret i32 0\n}}\n"
        with pytest.raises(gc.InternalError, match="LLVM refuses the program"):
            jit.compile_objects([text], host(), n_parts=2)
