"""From values to machine code and back: every link is one that the compiler itself wrote down."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest

import graphc as gc
from graphc.dsl.intern import intern
from graphc.inspect.annotated import annotated
from graphc.inspect.links import DECLARED, DERIVED, Links, Value, value_names
from graphc.inspect.spans import asm_code, llvm_code
from graphc.kernels.show import listing, source_lines
from graphc.llvm.emit import emit
from graphc.llvm.target import described, host
from graphc.look import links_of
from graphc.pipeline import Declared, Options, stages
from graphc.runtime.jit import assembly, compile_objects
from graphc.runtime.step import Function, TrainStep

N = gc.dim("N")


def mlp() -> TrainStep:
    x, y = gc.input("x", (N, 64)), gc.input("y", (N,), dtype="int32")
    w1, b1 = gc.param("w1", (64, 128)), gc.param("b1", (128,))
    w2, b2 = gc.param("w2", (128, 10)), gc.param("b2", (10,))
    z = x @ w1 + b1
    hidden = gc.relu(z)
    logits = hidden @ w2 + b2
    return gc.compile(gc.mean(gc.cross_entropy(logits, y)), gc.optim.adam(lr=0.1))


def attention() -> TrainStep:
    x, t = gc.input("x", (gc.dim("B"), 16, 32)), gc.input("t", (gc.dim("B"), 16, 32))
    q, k, v, o = (gc.param(f"w{name}", (32, 32)) for name in "qkvo")

    def heads(a: gc.Tensor) -> gc.Tensor:
        return gc.transpose(gc.reshape(a, (a.shape[0], 16, 4, 8)), (0, 2, 1, 3))

    centred = x - gc.mean(x, axis=-1, keepdims=True)
    h = centred / gc.sqrt(gc.mean(centred * centred, axis=-1, keepdims=True) + 1e-5)
    scores = gc.softmax(heads(h @ q) @ gc.transpose(heads(h @ k), (0, 1, 3, 2)) / np.sqrt(8), axis=-1)
    mixed = gc.reshape(gc.transpose(scores @ heads(h @ v), (0, 2, 1, 3)), (x.shape[0], 16, 32)) @ o + x
    up, down = gc.param("up", (32, 128)), gc.param("down", (128, 32))
    return gc.compile(gc.mse(gc.gelu(mixed @ up) @ down + mixed, t), gc.optim.momentum(lr=0.1))


def lookups() -> TrainStep:
    """A textbook softmax, a table, slices and what the rewrites remove."""
    x, y, at = gc.input("x", (N, 8)), gc.input("y", (N,), dtype="int32"), gc.input("at", (N,), dtype="int32")
    w, table = gc.param("w", (8, 5)), gc.param("table", (20, 8))
    logits = x @ w
    softmax = gc.exp(logits) / gc.sum(gc.exp(logits), axis=1, keepdims=True)
    loss = -gc.mean(gc.gather(gc.log(softmax), y[:, None], axis=1)) + gc.mean(table[at] * x)
    running = gc.mean(gc.cumsum(logits, axis=0)) * 1 + gc.sum(w.T[1:3, ::2]) ** 1
    return gc.compile(loss + running + gc.sum(gc.tanh(w) + 0), gc.optim.sgd(lr=0.1, momentum=0.9))


def function() -> Function:
    a, b = gc.input("a", (N, 3, 7)), gc.input("b", (7, 5), dtype="float64")
    return gc.compile([gc.sin(a) @ b, gc.max(a, axis=1), gc.argmax(a, axis=2), gc.concat([a, a * 2], axis=1)])


MODELS: dict[str, Callable[[], TrainStep | Function]] = {
    "mlp": mlp, "attention": attention, "lookups": lookups, "function": function
}  # fmt: skip
_KNOWN: dict[str, Links] = {}


def declared_of(step: TrainStep | Function) -> Declared:
    assert isinstance(step.origin, Declared)
    return step.origin


def links(name: str) -> Links:
    if name not in _KNOWN:
        _KNOWN[name] = links_of(declared_of(MODELS[name]()), Options())
    return _KNOWN[name]


def text_section(text: str) -> bytes:
    import llvmlite.binding as llvm

    (code,) = compile_objects([text], host(), n_parts=1)
    found = [s.data() for s in llvm.ObjectFileRef.from_data(code).sections() if s.is_text()]
    assert found and any(found)
    return b"".join(found)


def test_no_two_values_have_one_name() -> None:
    x = gc.input("x", (5,))
    mine = gc.tanh(x).named("sum_2")
    names = value_names(intern({"loss": gc.sum(mine) * gc.sum(x)}).graph)
    assert sorted(n for n in names.values() if "sum" in n) == ["sum", "sum_2", "sum_3"]


def test_a_users_name_is_kept_where_an_operations_would_take_it() -> None:
    x = gc.input("x", (5,))
    loss = gc.log(gc.sum(x) + gc.exp(gc.sum(x * x))) * gc.sum(gc.tanh(x).named("sum_2"))
    graph = intern({"loss": loss}).graph
    names = value_names(graph)
    assert [name for node, name in names.items() if graph.name(node) == "sum_2"] == ["sum_2"]
    assert sorted(n for n in names.values() if "sum" in n) == ["sum", "sum_2", "sum_3", "sum_4"]


@pytest.mark.parametrize("name", MODELS)
def test_machine_code_is_the_same_with_and_without_locations(name: str) -> None:
    declared = declared_of(MODELS[name]())
    plain, traced = stages(declared, Options()), stages(declared, Options(), traced=True)
    assert plain.program == traced.program and plain.layout == traced.layout
    assert "!dbg" not in plain.llvm and "!dbg" in traced.llvm
    codes = [text_section(made.llvm) for made in (plain, traced)]
    assert codes[0] == codes[1]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("seed", range(3))
def test_20_random_values_lead_to_code_or_to_what_removed_them(name: str, seed: int) -> None:
    found = links(name)
    rng = np.random.default_rng(seed)
    for number in rng.permutation(len(found.values))[:20]:
        value = found.values[number]
        spans = found.asm_of(value)
        if value.removed or value.reason:
            assert value.became == -1 or value.reason or spans, value
            continue
        assert spans, value
        for span in spans:
            code = found.asm.text.splitlines()[span.start - 1 : span.end - 1]
            assert code and all(line.startswith("\t") for line in code)
        assert any(value in found.values_of(span) for span in spans), value


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("seed", range(3))
def test_20_random_ranges_lead_back(name: str, seed: int) -> None:
    found = links(name)
    rng = np.random.default_rng(seed)
    for code in (found.asm, found.llvm):
        for number in rng.permutation(len(code.spans))[:20]:
            span = code.spans[number]
            values = found.values_of(span)
            assert values, (span, [found.listing[n - 1] for n in span.sources])
            parts = [found.listing[source - 1] for source in span.sources]
            if all((part.loads and not part.nodes) or part.part == "head" for part in parts):
                continue  # what is loaded there is computed elsewhere, if at all
            own = {found.listing[line - 1].kernel for value in values for line in value.lines}
            removed = any(value.removed for value in values)  # what it was made of besides is still there
            assert {part.kernel for part in parts} & own or removed, (span, values)


@pytest.mark.parametrize("name", MODELS)
def test_every_value_has_code_or_a_reason(name: str) -> None:
    found = links(name)
    lost = [v for v in found.values if not found.asm_of(v) and not v.removed and not v.reason]
    assert lost == []
    covered = sum(span.end - span.start for span in found.asm.spans)
    inside = [line for line in kernels_part(found.asm.text) if re.match(r"\t[a-z]", line)]
    assert covered > 0.75 * len(inside)  # the rest enters and leaves functions


def kernels_part(assembly_text: str) -> list[str]:
    """The lines of an assembly without those of the exported function, which gathers the team of threads."""
    lines = assembly_text.splitlines()
    return lines[: next(n for n, line in enumerate(lines) if line.strip("_") == "step:")]


def only(found: Links, name: str, stage: str = DECLARED) -> Value:
    (value,) = [v for v in found.values if v.stage == stage and v.name == name]
    return value


def code_of(found: Links, value: Value) -> str:
    lines = found.asm.text.splitlines()
    return "\n".join(line for span in found.asm_of(value) for line in lines[span.start - 1 : span.end - 1])


def test_a_value_leads_to_the_instructions_that_compute_it() -> None:
    found = links("mlp")
    hidden, z = only(found, "hidden"), only(found, "z")
    parts = {found.listing[n - 1].text.split(" = ")[-1].split("(")[0].strip() for n in hidden.lines}
    assert {"less_equal", "where"} & parts
    assert "add" in {found.listing[n - 1].text.split(" = ")[-1].split("(")[0] for n in z.lines}
    assert {found.listing[n - 1].kernel for n in hidden.lines} <= {
        found.listing[n - 1].kernel for n in (*z.lines, *hidden.lines)
    }
    if host().triple.startswith("x86"):
        assert re.search(r"\tv?add[ps]s|\taddps", code_of(found, z))
        assert re.search(r"cmp", code_of(found, hidden))


def test_a_declared_value_and_its_derived_twin_share_code() -> None:
    found = links("mlp")
    for name in ("z", "hidden", "logits"):
        assert only(found, name).lines == only(found, name, DERIVED).lines
    gradient = next(v for v in found.values if v.name == "d_w1")
    assert gradient.stage == DERIVED and found.asm_of(gradient)


def test_the_rewrite_that_removed_a_value_is_named() -> None:
    x = gc.input("x", (4,))
    declared = declared_of(gc.compile((gc.log(1 + gc.exp(x)) * 1).named("out")))
    found = links_of(declared, Options())
    made = stages(declared, Options(), traced=True)
    rules = {made.rewritten.log[n].rule for v in found.values for n in v.removed}
    assert "across-nodes" in rules
    exp = next(v for v in found.values if v.text.startswith("exp("))
    assert exp.removed and exp.became == -1
    assert found.asm_of(exp)  # of the softplus that took it in


def test_shared_functions_name_all_whom_they_serve() -> None:
    x = gc.input("x", (100,))
    step = gc.compile([gc.sin(x), gc.sin(x * 2)[:50]])
    found = links_of(declared_of(step), Options())
    shared = [span for span in found.asm.spans if len(span.sources) > 1]
    if shared:
        assert all(len(found.values_of(span)) > 1 for span in shared)
    names = {v.text[:4] for span in found.asm.spans for v in found.values_of(span)}
    assert "sin(" in names


def test_shown_assembly_is_the_assembly_with_comments() -> None:
    step = mlp()
    shown = step.show("asm")
    assert re.search(r"^\t(#|//) k0_1 line \d+: acc0 = sum\(acc0, b2\)    matmul$", shown, re.MULTILINE)

    def instructions(text: str) -> list[str]:
        lines = (re.sub(r"\.Ltmp\d+|\.Lfunc\w+", "L", line) for line in text.splitlines())
        return [line for line in lines if re.match(r"\t[a-z]", line)]

    plain = assembly([stages(declared_of(step), Options()).llvm], host())
    assert instructions(shown) == instructions(plain)


def test_llvm_is_annotated_too() -> None:
    found = links("mlp")
    text = annotated(found, found.llvm, "  ;")
    code = [line for line in text.splitlines() if not re.match(r"  ; .* lines? \d", line)]
    assert code == stages(declared_of(mlp()), Options()).llvm.splitlines()
    compile_objects([text], host())  # comments and all


def test_shown_rewrites_say_what_fired_and_why() -> None:
    shown = lookups().show("rewrites")
    assert re.search(r"^stabilise, before derivatives +\d+ +\d+ -> \d+ +\S", shown, re.MULTILINE)
    assert re.search(r"^  gather-form \(exact, \d+ times\): A formula that scatters", shown, re.MULTILINE)
    assert re.search(r"^  0  stabilise: [a-z-]+ \(\w+\)  at .*test_links\.py:\d+", shown, re.MULTILINE)
    firings = re.findall(r"^       \S.*\n    =  \S", shown, re.MULTILINE)
    assert len(firings) > 10


def test_an_input_that_is_read_by_another_shape_leads_to_its_loads() -> None:
    a, b = gc.input("a", (4, 6)), gc.input("b", (3, 8))
    found = links_of(declared_of(gc.compile(gc.exp(a) + gc.reshape(b, (4, 6)))), Options())
    value = only(found, "b")
    assert found.asm_of(value) and all(found.listing[n - 1].loads for n in value.lines)


@pytest.mark.parametrize("triple", ["aarch64-unknown-linux-gnu", "arm64-apple-macosx14", "x86_64-pc-windows-msvc"])
def test_assembly_of_other_machines_is_read_too(triple: str) -> None:
    target = described(triple, "haswell" if triple.startswith("x86") else "", "")
    program = stages(declared_of(mlp()), Options()).program
    traced, plain = emit(program, target, lines=source_lines(program)), emit(program, target)
    llvm, callers = llvm_code(traced, plain)
    asm = asm_code(assembly([traced], target), callers)
    assert {span.function for span in asm.spans} <= set(callers)
    for code in (llvm, asm):
        found = {source for span in code.spans for source in span.sources}
        kernels = {line.kernel for n, line in enumerate(listing(program), 1) if n in found}
        assert kernels == set(range(len(program.kernels)))
    assert "debug_line" not in asm.text and ".loc" not in asm.text
