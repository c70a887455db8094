"""Random graphs through every stage: compiled values against the reference, gradients against differences of it.

Every draft takes operations in turn from the registry, on samples of theirs, with operands that are inputs, earlier
values brought into shape and domain, or numbers; sizes are made symbolic at random. A draft that a type rule refuses
counts as rejected.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import pytest
from numpy.typing import NDArray

import graphc as gc
from graphc.dsl.calls import call
from graphc.dsl.intern import Interned, intern
from graphc.graph.sizes import SizeLike
from graphc.graph.sizes import evaluate as size_at
from graphc.graph.text import to_text
from graphc.graph.verify import verify
from graphc.kernels.prepare import prepare
from graphc.ops.record import Draw, Record
from graphc.ops.registry import REGISTRY
from graphc.reference import evaluate
from graphc.rewrite.phases import PHASES, run
from graphc.rewrite.work import Work

Array = NDArray[np.generic]
Values = dict[str, Array]
GRAPHS = 2000 if os.environ.get("GRAPHC_NIGHTLY") == "1" else 100
DEEPEST = 30
DIFFERENCE = 1e-6
RECORDS = list(REGISTRY.values())


def value_of(draw: Draw, dtype: str, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Random numbers of an operand's range."""
    if dtype.startswith("float"):
        return rng.uniform(draw.low, draw.high, shape).astype(dtype)
    if dtype == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    return rng.integers(int(draw.low), max(int(draw.high), int(draw.low) + 1), shape).astype(dtype)


@dataclass
class Draft:
    """A graph under construction: its inputs and what they hold, and every tensor made so far.

    dims: the symbolic sizes by name, each with the size that the samples have. depth: operations above each tensor.
    """

    rng: np.random.Generator
    dtype: str
    deep: bool
    inputs: dict[str, tuple[gc.Tensor, Draw]] = field(default_factory=dict)
    pool: list[gc.Tensor] = field(default_factory=list)
    made: list[gc.Tensor] = field(default_factory=list)
    depth: dict[gc.Tensor, int] = field(default_factory=dict)
    used: Counter[str] = field(default_factory=Counter)
    rejected: int = 0
    dims: dict[str, int] = field(default_factory=dict)
    symbolic: bool = True

    def input(self, draw: Draw) -> gc.Tensor:
        """A new input for a sample's operand; each of its sizes is symbolic or not by chance."""
        shape: list[SizeLike] = []
        for size in draw.shape:
            if size > 1 and self.symbolic and self.rng.random() < 0.3:
                shape.append(gc.dim(f"N{size}"))
                self.dims[f"N{size}"] = size
            else:
                shape.append(size)
        name = f"x{len(self.inputs)}"
        tensor = gc.input(name, tuple(shape), self.dtype if draw.dtype == "f" else draw.dtype)
        self.inputs[name] = tensor, draw
        if draw.dtype == "f":
            self.pool.append(tensor)
        return tensor

    def operand(self, draw: Draw) -> gc.Tensor:
        """An operand for a sample: an input, or an earlier value brought into the shape and the domain."""
        deep = self.deep and bool(self.made) and self.rng.random() < 0.8
        if draw.dtype != "f" or not self.pool or (not deep and self.rng.random() < 0.3):
            return self.input(draw)
        earlier = self.made[-1] if deep else self.pool[int(self.rng.integers(len(self.pool)))]
        inside = draw.low + (draw.high - draw.low) * gc.sigmoid(0.5 * earlier)
        same = list(earlier.shape) == list(draw.shape)
        found = inside if same else gc.mean(inside) * self.input(Draw(draw.shape, 0.9, 1.0)) + 0.05 * draw.low
        self.depth[found] = self.depth.get(earlier, 0)
        return found

    def grow(self, record: Record) -> None:
        """Apply a record to one of its samples; where a type rule refuses run-time sizes, once more with known ones."""
        for symbolic in (record.name != "slice", False):  # `[]` itself refuses places that a run-time size may lack
            self.symbolic = symbolic
            sample = record.samples[int(self.rng.integers(len(record.samples)))]
            operands = [self.operand(o) if isinstance(o, Draw) else o for o in sample.operands]
            try:
                result = call(record, *operands, **dict(sample.attrs))
            except gc.GraphcError:
                self.rejected += 1
                continue
            self.used[record.name] += 1
            below = max((self.depth.get(o, 0) for o in operands if isinstance(o, gc.Tensor)), default=0)
            self.made.append(gc.cast(result, self.dtype))
            self.pool.append(self.made[-1])
            self.depth[self.made[-1]] = below + 1
            return

    def loss(self) -> gc.Tensor:
        """A bounded scalar of every result."""
        total = gc.mean(gc.tanh(self.made[0]))
        for tensor in self.made[1:]:
            total = total + gc.mean(gc.tanh(tensor))
        return total / len(self.made)

    def values(self, names: Iterable[str], grown: int, rng: np.random.Generator) -> Values:
        """Random inputs, with symbolic sizes by so much larger than the samples', each by one more."""
        dims = {name: size + (grown + k if grown else 0) for k, (name, size) in enumerate(self.dims.items())}
        found: Values = {}
        for name in names:
            tensor, draw = self.inputs[name]
            shape = tuple(size_at(size, dims) for size in tensor.shape)
            found[name] = value_of(draw, tensor.dtype.name, shape, rng)
        return found


def draft(number: int) -> Draft:
    """Graph ``number``: every record comes up in turn, further ones by chance; each twentieth is deep."""
    rng = np.random.default_rng(number)
    deep = number % 20 == 0
    made = Draft(rng, "float64" if number % 2 else "float32", deep)
    made.input(Draw((4, 3)))
    made.grow(RECORDS[number % len(RECORDS)])
    made.grow(RECORDS[number // 2 % len(RECORDS)])
    for _ in range(DEEPEST if deep else int(rng.integers(1, 8))):
        made.grow(RECORDS[int(rng.integers(len(RECORDS)))])
    return made


def check(number: int, made: Draft) -> None:
    """One graph through verifier, rewrites and compiler, at two sets of sizes, and through the differentiator."""
    loss = made.loss()
    built = intern({"loss": loss})
    verify(built.graph)
    rewritten = run(built.graph, PHASES).graph
    verify(rewritten)
    verify(prepare(rewritten)[0])
    compiled = gc.compile(loss, cache=False)
    wide = made.dtype == "float64" and not made.used["cast"]  # a cast to float32 rounds what follows
    rtol, atol = (1e-9, 1e-10) if wide else (2e-3, 2e-4)
    rng = np.random.default_rng(number + 1_000_000)
    for grown in (0, 2):
        given = made.values(built.leaves, grown, rng)
        exact = evaluate(built.graph, given, dtype64=True)[built.node[loss]]
        got = compiled(**given)
        np.testing.assert_allclose(np.float64(got), np.float64(exact), rtol, atol, err_msg=f"graph {number}, +{grown}")
    if wide and not made.used["stop_gradient"]:
        check_gradients(number, built, loss, given, rng)


def check_gradients(number: int, built: Interned, loss: gc.Tensor, given: Values, rng: np.random.Generator) -> None:
    """The compiled derivative in a random direction of all inputs at once, against differences of the reference."""
    floats = [leaf for leaf in built.leaves.values() if leaf.dtype.kind == "f"]
    if not floats:
        return
    gradients = gc.grad(loss, floats, unused="zero")
    try:
        function = gc.compile(gradients, cache=False)
    except gc.DefinitionError as error:
        assert "has a size" in str(error)  # a derivative that is zero and reads nothing that has its run-time size
        return
    found = function(**{slot.name: given[slot.name] for slot in function.program.slots})
    directions = {leaf.name: rng.standard_normal(given[leaf.name].shape) for leaf in floats}
    analytic = sum(float((d * g).sum()) for d, g in zip(directions.values(), found, strict=True))

    def at(step: float) -> float:
        moved = {name: np.asarray(given[name], np.float64) + step * d for name, d in directions.items()}
        return float(evaluate(built.graph, {**given, **moved})[built.node[loss]])

    numeric = (at(DIFFERENCE) - at(-DIFFERENCE)) / (2 * DIFFERENCE)
    assert abs(numeric - analytic) <= 2e-6 * max(1.0, abs(analytic)), f"graph {number}: {analytic} against {numeric}"


@pytest.mark.parametrize("block", range(10))
def test_random_graphs(block: int) -> None:
    for number in range(block, GRAPHS, 10):
        check(number, draft(number))


def test_a_later_phase_misses_nothing_where_it_asks_only_its_own_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(0, GRAPHS, 4):
        made = draft(number)
        loss = made.loss()
        leaves = [t for t, _ in made.inputs.values() if t.dtype.kind == "f"]
        gradients = dict(zip("abcdefghijklmnopqrstuvwxyz", gc.grad(loss, leaves, unused="zero"), strict=False))
        graph = intern({"loss": loss, **gradients}).graph
        quick = run(graph, PHASES)
        with monkeypatch.context() as patched:
            patched.setattr(Work, "_rests", lambda work, node, inputs, added: False)
            thorough = run(graph, PHASES)
        assert to_text(quick.graph) == to_text(thorough.graph), number
        assert quick.text() == thorough.text(), number


def test_every_record_is_drawn_often_enough() -> None:
    """Over the whole of the 2,000 graphs, which are cheap to draft."""
    used: Counter[str] = Counter()
    drafts, rejected, deepest, symbolic = 0, 0, 0, 0
    for number in range(2000):
        made = draft(number)
        used.update(dict.fromkeys(made.used, 1))
        drafts += made.rejected + sum(made.used.values())
        rejected += made.rejected
        deepest = max(deepest, *made.depth.values())
        symbolic += bool(made.dims)
    least = min(RECORDS, key=lambda record: used[record.name]).name
    print(f"{drafts} drafts of operations, {rejected / drafts:.1%} rejected; depth to {deepest}")
    print(f"{symbolic} of 2000 graphs with symbolic sizes")
    print(f"{len(RECORDS)} records, the rarest, {least}, in {used[least]} graphs")
    assert used[least] >= 20
    assert deepest >= 20
    assert rejected <= 0.2 * drafts
