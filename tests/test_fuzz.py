"""Random graphs through every stage: compiled values against the reference, gradients against differences of it.

Every draft takes operations in turn from the registry, on samples of theirs, with operands that are inputs, earlier
values brought into shape and domain, or numbers; sizes are made symbolic at random. A draft that a type rule refuses
counts as rejected.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pytest
from numpy.typing import NDArray

import graphc as gc
from graphc.dsl.calls import call
from graphc.dsl.intern import intern
from graphc.graph.sizes import SizeLike
from graphc.graph.verify import verify
from graphc.kernels.prepare import prepare
from graphc.ops.record import Draw, Record
from graphc.ops.registry import REGISTRY
from graphc.reference import evaluate
from graphc.rewrite.phases import PHASES, run

Array = NDArray[np.generic]
GRAPHS = 2000 if os.environ.get("GRAPHC_NIGHTLY") == "1" else 100
DEEPEST = 30
DIFFERENCE = 1e-6
RECORDS = list(REGISTRY.values())


@dataclass
class Draft:
    """A graph under construction: its inputs with values, and every tensor made so far."""

    rng: np.random.Generator
    dtype: str
    values: dict[str, Array] = field(default_factory=dict)
    pool: list[gc.Tensor] = field(default_factory=list)
    used: Counter[str] = field(default_factory=Counter)
    rejected: int = 0
    dims: dict[int, str] = field(default_factory=dict)
    symbolic: bool = True

    def input(self, draw: Draw) -> gc.Tensor:
        """A new input for a sample's operand; each of its sizes is symbolic or not by chance."""
        shape: list[SizeLike] = []
        for size in draw.shape:
            if size > 1 and self.symbolic and self.rng.random() < 0.3:
                shape.append(gc.dim(self.dims.setdefault(size, f"N{size}")))
            else:
                shape.append(size)
        name = f"x{len(self.values)}"
        dtype = self.dtype if draw.dtype == "f" else draw.dtype
        if dtype.startswith("float"):
            value: Array = self.rng.uniform(draw.low, draw.high, draw.shape).astype(dtype)
        elif dtype == "bool":
            value = self.rng.integers(0, 2, draw.shape).astype(bool)
        else:
            value = self.rng.integers(int(draw.low), max(int(draw.high), int(draw.low) + 1), draw.shape).astype(dtype)
        self.values[name] = value
        tensor = gc.input(name, tuple(shape), dtype)
        if dtype == self.dtype:
            self.pool.append(tensor)
        return tensor

    def operand(self, draw: Draw) -> gc.Tensor:
        """An operand for a sample: an input, or an earlier value brought into the shape and the domain."""
        floats = [t for t in self.pool if t.dtype.kind == "f"]
        if draw.dtype != "f" or not floats or self.rng.random() < 0.4:
            return self.input(draw)
        earlier = floats[int(self.rng.integers(len(floats)))]
        inside = draw.low + (draw.high - draw.low) * gc.sigmoid(0.5 * earlier)
        same = list(earlier.shape) == list(draw.shape)
        return inside if same else gc.mean(inside) * self.input(Draw(draw.shape, 0.9, 1.0)) + 0.05 * draw.low

    def grow(self, record: Record) -> None:
        """Apply a record to one of its samples; where a type rule refuses run-time sizes, once more with known ones."""
        for symbolic in (record.name != "slice", False):  # `[]` itself refuses places that a run-time size may lack
            self.symbolic = symbolic
            sample = record.samples[int(self.rng.integers(len(record.samples)))]
            operands = [self.operand(o) if isinstance(o, Draw) else o for o in sample.operands]
            try:
                made = call(record, *operands, **dict(sample.attrs))
            except gc.GraphcError:
                self.rejected += 1
                continue
            self.used[record.name] += 1
            self.pool.append(gc.cast(made, self.dtype))
            return

    def loss(self) -> gc.Tensor:
        """A bounded scalar of the last values."""
        total = gc.mean(gc.tanh(self.pool[-1]))
        for tensor in self.pool[-4:-1]:
            total = total + 0.5 * gc.mean(gc.tanh(tensor))
        return total


def draft(number: int) -> Draft:
    """Graph ``number``: every record comes up in turn, further ones by chance."""
    rng = np.random.default_rng(number)
    made = Draft(rng, "float64" if number % 2 else "float32")
    made.input(Draw((4, 3)))
    made.grow(RECORDS[number % len(RECORDS)])
    made.grow(RECORDS[number // 2 % len(RECORDS)])
    for _ in range(int(rng.integers(1, DEEPEST if number % 10 == 0 else 8))):
        made.grow(RECORDS[int(rng.integers(len(RECORDS)))])
    return made


def check(number: int, made: Draft) -> None:
    """One graph through verifier, rewrites, compiler and differentiator."""
    loss = made.loss()
    built = intern({"loss": loss})
    verify(built.graph)
    rewritten = run(built.graph, PHASES).graph
    verify(rewritten)
    verify(prepare(rewritten)[0])
    given = {name: made.values[name] for name in built.leaves}
    exact = evaluate(built.graph, given, dtype64=True)[built.node[loss]]
    got = gc.compile(loss, cache=False)(**given)
    wide = made.dtype == "float64" and not made.used["cast"]  # a cast to float32 rounds what follows
    rtol, atol = (1e-9, 1e-10) if wide else (2e-3, 2e-4)
    np.testing.assert_allclose(np.float64(got), np.float64(exact), rtol, atol, err_msg=f"graph {number}")
    floats = [leaf for leaf in built.leaves.values() if leaf.dtype.kind == "f"]
    if not wide or not floats or made.used["stop_gradient"]:
        return
    chosen = floats[number % len(floats)]
    gradient = gc.grad(loss, chosen, unused="zero")
    try:
        function = gc.compile(gradient, cache=False)
    except gc.DefinitionError as error:
        assert "has a size" in str(error)  # a derivative that is zero and reads nothing that has its run-time size
        return
    derived = np.asarray(function(**{slot.name: given[slot.name] for slot in function.program.slots}))
    direction = np.random.default_rng(number).standard_normal(derived.shape)

    def at(step: float) -> float:
        moved = {**given, chosen.name: np.asarray(given[chosen.name], np.float64) + step * direction}
        return float(evaluate(built.graph, moved)[built.node[loss]])

    numeric = (at(DIFFERENCE) - at(-DIFFERENCE)) / (2 * DIFFERENCE)
    analytic = float((derived * direction).sum())
    assert abs(numeric - analytic) <= 2e-6 * max(1.0, abs(analytic)), f"graph {number}: {analytic} against {numeric}"


@pytest.mark.parametrize("block", range(10))
def test_random_graphs(block: int) -> None:
    used: Counter[str] = Counter()
    rejected = 0
    for number in range(block, GRAPHS, 10):
        made = draft(number)
        check(number, made)
        used.update(dict.fromkeys(made.used, 1))
        rejected += made.rejected
    print(f"block {block}: {sum(used.values())} operations, {rejected} rejected")


def test_every_record_is_drawn_often_enough() -> None:
    used: Counter[str] = Counter()
    rejected = 0
    for number in range(2000):
        made = draft(number)
        used.update(dict.fromkeys(made.used, 1))
        rejected += made.rejected
    rare = {r.name: used[r.name] for r in RECORDS if used[r.name] < 20}
    print(f"rejected {rejected / (rejected + sum(used.values())):.1%} of all drafts")
    assert not rare
