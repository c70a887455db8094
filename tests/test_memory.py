"""The memory plan: what is in use at once never overlaps, for any program, size and team; and little is wasted."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from loops import EACH, make
from numpy.typing import NDArray
from test_fuzz import draft

import graphc as gc
from graphc.dsl.intern import intern
from graphc.graph.sizes import Size, SizeLike, dim, evaluate
from graphc.kernels import evaluate as evaluator
from graphc.kernels.arena import Arena
from graphc.kernels.form import Nest, Program
from graphc.kernels.lower import lower
from graphc.kernels.memory import lives, place
from graphc.kernels.order import ordered
from graphc.kernels.pack import Block, least_height, pack
from graphc.kernels.pack import ordered as from_the_bottom
from graphc.pipeline import Options, declare_step, stages
from graphc.rewrite.phases import PHASES, run
from graphc.runtime.memory import Guarded, guarded
from graphc.structs import replace

BENCHMARKS = Path(__file__).parent / "benchmarks"
SIZES = (1, 2, 7, 31, 64, 333, 1000, 4096)
DENSE = ("mlp_digits", "mlp_mnist", "mlp_wide", "autoencoder_deep", "custom_loss", "lenet", "rnn_char", "lstm")


def phases(program: Program) -> list[int]:
    """For each kernel how often a team has waited before it; then the same for the end."""
    found = [int(n) for n in np.cumsum(program.waits)]
    return [*found, found[-1]] if found else [0]


def check_no_overlap(program: Program) -> None:
    """Any two buffers in use between the same two waits lie apart, unless one takes the place of the other."""
    born, dies = lives(program)
    phase = phases(program)
    for n in SIZES:
        dims = dict.fromkeys(program.dims, n)
        for members in (1, 2, 4):
            offsets, total = program.arena.offsets(dims, members)
            spans = []
            for k in born:
                slot, buffer = program.slot[k], program.buffers[k]
                n_bytes = evaluate(buffer.size, dims) * buffer.dtype.itemsize
                n_bytes *= members if slot in program.arena.private else 1
                assert offsets[slot] % 64 == 0 and offsets[slot] + n_bytes <= total
                spans.append((offsets[slot], offsets[slot] + n_bytes, phase[born[k]], phase[dies[k]], slot, k))
            spans.sort()
            for at, (start, end, first, last, slot, k) in enumerate(spans):
                for other_start, _, other_first, other_last, other_slot, other in spans[at + 1 :]:
                    if other_start >= end:
                        break
                    if other_slot == slot:
                        early, late = sorted((k, other), key=lambda b: born[b])
                        assert dies[early] <= born[late]
                        nest = program.kernels[born[late]]
                        assert dies[early] < born[late] or (isinstance(nest, Nest) and early in nest.reads())
                    elif start < end:
                        assert last < other_first or other_last < first, (start, other_start, n)


@pytest.mark.parametrize(("name", "dtype"), EACH)
def test_nothing_in_use_at_once_overlaps(name: str, dtype: str) -> None:
    check_no_overlap(place(lower(make(name, dtype).graph)))


@pytest.mark.parametrize("block", range(4))
def test_random_programs(block: int) -> None:
    """Random graphs with their gradients: no overlap at any size; and the plain evaluator, which refuses to read
    outside an array, finds the bits of a plan in which nothing shares memory, whoever of a team is first."""
    for number in range(block, 100, 12):
        made = draft(number)
        loss = made.loss()
        leaves = [t for t, _ in made.inputs.values() if t.dtype.kind == "f"]
        gradients = {f"g{k}": g for k, g in enumerate(gc.grad(loss, leaves, unused="zero"))}
        graph = run(intern({"loss": loss, **gradients}).graph, PHASES).graph
        program = place(lower(graph))
        check_no_overlap(program)
        slots = program.arena.slots
        one_above_another = tuple((k - 1,) if k else () for k in range(len(slots)))
        apart = replace(program, arena=Arena(slots, one_above_another))
        given = made.values([b.name for b in program.buffers if b.role == "input"], 3, np.random.default_rng(number))
        dims = {name: size + 3 + k for k, (name, size) in enumerate(made.dims.items())}
        found = [
            [value.tobytes() for value in evaluator.run(p, given, dims, members).values()]
            for p, members in ((apart, (0,)), (program, (0,)), (program, (1, 0)))
        ]
        assert found[0] == found[1] == found[2], number


def random_blocks(rng: np.random.Generator) -> list[Block]:
    """Blocks of all sizes and lengths of use, some empty, some that must lie below others."""
    n = int(rng.integers(1, 40))
    first = rng.integers(0, 20, n)
    length = rng.integers(0, 8, n)
    size = 64 * rng.integers(0, 50, n)
    buried = (rng.random(n) < 0.2) & (length == 0)
    return [Block(int(s), int(f), int(f + d), bool(b)) for s, f, d, b in zip(size, first, length, buried, strict=True)]


def meet(a: Block, b: Block) -> bool:
    """Whether two blocks are in use at once."""
    return a.first <= b.last and b.first <= a.last


def test_packings_of_random_blocks(rng: np.random.Generator) -> None:
    """No overlap, buried blocks below another, no more than half wasted, and never less than the bound."""
    for _ in range(300):
        blocks = random_blocks(rng)
        offsets = pack(blocks)
        height = max(o + b.size for o, b in zip(offsets, blocks, strict=True))
        assert least_height(blocks) <= height <= 1.5 * least_height(blocks)
        for k, (at, block) in enumerate(zip(offsets, blocks, strict=True)):
            others = [j for j in range(len(blocks)) if j != k and meet(block, blocks[j])]
            for j in others:
                assert at + block.size <= offsets[j] or offsets[j] + blocks[j].size <= at
            above = [j for j in others if not blocks[j].buried]
            if block.buried and above:
                assert any(offsets[j] >= at + block.size for j in above)


def test_a_plan_for_one_size_is_one_for_every_size(rng: np.random.Generator) -> None:
    """Which block lies below which, kept from a packing, gives offsets without overlap for any other sizes."""
    n = dim("N")
    for _ in range(100):
        symbolic: list[SizeLike] = [
            int(rng.integers(0, 9)) * 64 * n + int(rng.integers(0, 9)) * 1000 for _ in range(int(rng.integers(1, 30)))
        ]
        spans = [(int(f), int(f + d)) for f, d in rng.integers(0, 9, (len(symbolic), 2))]
        blocks = [Block(evaluate(s, {"N": 64}), *span) for s, span in zip(symbolic, spans, strict=True)]
        order, below = from_the_bottom(blocks, pack(blocks))
        private = tuple(k for k in range(len(order)) if rng.random() < 0.1)
        arena = Arena(tuple(symbolic[k] for k in order), tuple(below), private)
        for value in SIZES:
            for members in (1, 4):
                offsets, total = arena.offsets({"N": value}, members)
                ends = []
                for place_, (at, size) in enumerate(zip(offsets, arena.slots, strict=True)):
                    ends.append(at + evaluate(size, {"N": value}) * (members if place_ in private else 1))
                assert max(ends) <= total
                for a in range(len(order)):
                    for b in range(a):
                        if meet(blocks[order[a]], blocks[order[b]]):
                            assert ends[b] <= offsets[a]
            largest = max(evaluate(size, {"N": value}) for size in arena.most_bytes())
            assert largest <= arena.offsets({"N": value})[1] < largest + 64 * len(order) + 1


def test_kernels_are_ordered_by_what_they_free(rng: np.random.Generator) -> None:
    """Every order keeps what comes before; none has more alive at once than that by rank."""

    def alive(order: list[int], uses: list[list[int]], n_bytes: dict[int, int]) -> int:
        at = {item: k for k, item in enumerate(order)}
        spans = {k: [at[i] for i, used in enumerate(uses) if k in used] for k in n_bytes}
        return max(
            sum(n_bytes[k] for k, places in spans.items() if places and min(places) <= t <= max(places))
            for t in range(len(order))
        )

    for _ in range(200):
        n = int(rng.integers(1, 25))
        before = [sorted({int(k) for k in rng.integers(0, item, 2)}) if item else [] for item in range(n)]
        n_bytes = {k: int(rng.integers(0, 100)) for k in range(n)}
        uses = [sorted({item, *earlier}) for item, earlier in enumerate(before)]
        order = ordered(list(range(n)), before, uses, n_bytes)
        assert sorted(order) == list(range(n))
        at = {item: k for k, item in enumerate(order)}
        assert all(at[e] < at[item] for item, earlier in enumerate(before) for e in earlier)
        assert alive(order, uses, n_bytes) <= alive(list(range(n)), uses, n_bytes)


@pytest.mark.parametrize("name", DENSE)
def test_a_step_wastes_less_than_a_tenth(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The arena is at most 1.1 times the bytes that live at once, which no plan goes below: at the workload's batch,
    and at others but for what slots leave free up to a multiple of 64. Nothing overlaps."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import arena as benchmark
    import workloads

    program = benchmark.planned(name).program
    rounding = 64 * len(program.arena.slots)
    for n, free in ((workloads.get(name).batch, 0), *((n, rounding) for n in (32, 100, 256, 1000))):
        total = program.arena.offsets(dict.fromkeys(program.dims, n))[1]
        assert total <= 1.1 * benchmark.most_live_bytes(program, n) + free, n
    check_no_overlap(program)


def test_the_size_is_known_as_a_formula() -> None:
    """The arena's size is a maximum of polynomials."""
    program = place(lower(make("dense", "float32").graph))
    assert all(isinstance(size, (int, Size)) for size in program.arena.most_bytes())


def test_a_buffer_takes_the_place_of_one_that_it_is_made_from() -> None:
    """A product's derivative of an activation, in whole vectors, lies where the activation's value lay; in rows of ten,
    whose last vector is masked, it does not."""
    shared = []
    for width in (32, 10):
        x, t = gc.input("x", (gc.dim("N"), 16)), gc.input("t", (gc.dim("N"), 16))
        h = gc.gelu(x @ gc.param("a", (16, width), init=gc.init.he_normal()))
        loss = gc.mse(h @ gc.param("b", (width, 16), init=gc.init.he_normal()), t)
        program = stages(declare_step(loss, gc.optim.sgd(lr=0.1), {}, {}, None), Options()).program
        held = [slot for slot in program.slot if slot >= 0]
        shared.append(len(held) - len(set(held)))
        check_no_overlap(program)
    assert shared[0] > 0 and shared[1] == 0


@pytest.mark.skipif(sys.platform != "linux", reason="guard pages need mprotect")
@pytest.mark.parametrize("name", ["mlp_mnist", "autoencoder_deep", "custom_loss"])
def test_the_arena_ends_where_the_plan_does(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The highest byte that a step writes is the last that its plan has, panels or not, and none lies outside."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import peers_graphc
    import workloads

    workload = workloads.get(name)
    step = peers_graphc.Graphc(gc, workload, 1).compiled
    made: list[Guarded] = []

    def allocate(n_bytes: int) -> NDArray[np.uint8]:
        made.append(guarded(n_bytes))
        return made[-1].block

    for n in (1, 7, 300):
        step.program.use_allocator(allocate)
        rows = [np.resize(array, (n, *array.shape[1:])) for array in workload.batches_as("int32")[0]]
        step(**dict(zip("xy", rows, strict=False)))
        arena, dims = step.program.layout.arena, dict.fromkeys(step.program.layout.dims, n)
        offsets, total = arena.offsets(dims)
        assert made[-1].block.size == total and made[-1].n_written_before() == 0
        ends = [at + evaluate(size, dims) for at, size in zip(offsets, arena.slots, strict=True)]
        assert made[-1].highest_written() == max(ends) - 1
