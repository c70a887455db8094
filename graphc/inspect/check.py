"""Checking a user's own step: compiled against the reference, and derivatives against differences of the forward pass.

Inputs are drawn; an integer input lies inside the bounds that its use as an index implies. Differences are central,
along one random direction a parameter, of the *forward* reference in float64, since the reference of a derived graph
runs the same derivation and could not judge it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from graphc.graph.formula import data_indices
from graphc.graph.graph import Array, Graph, Node
from graphc.graph.sizes import SizeLike, evaluate, names
from graphc.kernels.fuse import base
from graphc.reference import evaluate as reference
from graphc.structs import dataclass

Compiled = Callable[[Mapping[str, Array]], Mapping[str, Array]]
STEP = 1e-6  # of the central differences
BATCH = 6  # the first run-time size; later ones differ from it by one each


@dataclass(frozen=True, slots=True)
class CheckRow:
    """One comparison: what was compared, the largest difference relative to the values' scale, and what is allowed."""

    what: str
    difference: float
    allowed: float

    @property
    def passed(self) -> bool:
        """Whether the difference is a number within what is allowed."""
        return bool(self.difference <= self.allowed)


@dataclass(frozen=True, slots=True)
class CheckReport:
    """All comparisons of one check."""

    rows: tuple[CheckRow, ...]

    @property
    def passed(self) -> bool:
        """Whether every comparison passed."""
        return all(row.passed for row in self.rows)

    def __str__(self) -> str:
        lines = [
            f"{'ok  ' if r.passed else 'FAIL'}  {r.what}: difference {r.difference:.2e}, allowed {r.allowed:.0e}"
            for r in self.rows
        ]
        failed = sum(not r.passed for r in self.rows)
        return "\n".join([*lines, f"{len(self.rows) - failed} passed, {failed} failed"])


def check_graph(
    graph: Graph,
    compiled: Compiled,
    initial: Mapping[str, Array],
    loss: str = "",
    gradients: Mapping[str, str] | None = None,
    seed: int = 0,
) -> CheckReport:
    """The report on a graph whose outputs ``compiled`` computes.

    initial: values for leaves that are not drawn. loss: the output that was differentiated; gradients: parameter -> the
    output that is its derivative.
    """
    rng = np.random.default_rng(seed)
    values = drawn(graph, rng) | {name: np.asarray(a) for name, a in initial.items()}
    found = compiled(values)
    wide = {name: a.astype(np.float64) if a.dtype == np.float32 else a for name, a in values.items()}
    exact = reference(graph, wide, dtype64=True)
    rows = []
    for name, node in graph.outputs.items():
        allowed = 2e-4 if node.dtype.name == "float32" else 1e-9
        rows.append(CheckRow(f"compiled {name} = reference", _difference(found[name], exact[node]), allowed))
    for parameter, output in (gradients or {}).items():
        analytic = np.asarray(exact[graph.outputs[output]], dtype=np.float64)
        rows.append(_gradient_row(graph, wide, graph.outputs[loss], parameter, analytic, rng))
    return CheckReport(tuple(rows))


def _gradient_row(
    graph: Graph, values: Mapping[str, Array], loss: Node, parameter: str, analytic: Array, rng: np.random.Generator
) -> CheckRow:
    direction = rng.standard_normal(analytic.shape)

    def at(step: float) -> float:
        moved = dict(values)
        moved[parameter] = values[parameter].astype(np.float64) + step * direction
        return float(np.asarray(reference(graph, moved, [loss], dtype64=True)[loss]))

    numeric = (at(STEP) - at(-STEP)) / (2 * STEP)
    derived = float((np.asarray(analytic, dtype=np.float64) * direction).sum())
    scale = max(abs(numeric), abs(derived), 1e-3)
    return CheckRow(f"derivative by {parameter} = central difference", abs(numeric - derived) / scale, 1e-5)


def _difference(found: Array, exact: Array) -> float:
    a, b = np.asarray(found, dtype=np.float64), np.asarray(exact, dtype=np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    scale = max(float(np.max(np.abs(b[np.isfinite(b)]), initial=0.0)), 1e-6)
    with np.errstate(invalid="ignore"):
        apart = np.where(same, 0.0, np.abs(a - b))
    return float(np.max(apart, initial=0.0)) / scale


def drawn(graph: Graph, rng: np.random.Generator, sizes: Mapping[str, int] | None = None) -> dict[str, Array]:
    """Values for every input, parameter, state and hyper-parameter of a graph. sizes: run-time sizes by name; one that
    is not there is a small number."""
    live = graph.live()
    bounds = index_bounds(live)
    dims = dict(sizes or {})
    for node in live:
        for size in node.shape:
            for name in names(size):
                dims.setdefault(name, BATCH + len(dims))
    values: dict[str, Array] = {}
    for node in live:
        if node.kind not in ("input", "param", "state", "hyper"):
            continue
        shape = tuple(evaluate(size, dims) for size in node.shape)
        name = str(node.attr)
        if node.dtype.kind == "f":
            values[name] = (rng.uniform(0.1, 1.0, shape) * rng.choice([-1.0, 1.0], shape)).astype(node.dtype.numpy)
        elif node.dtype.kind == "b":
            values[name] = rng.integers(0, 2, shape).astype(bool)
        else:
            high = evaluate(bounds[node], dims) if node in bounds else 2
            values[name] = rng.integers(0, high, shape).astype(node.dtype.numpy)
    return values


def index_bounds(nodes: list[Node]) -> dict[Node, SizeLike]:
    """For each integer leaf that is used as an index, the smallest size that it indexes."""
    found: dict[Node, SizeLike] = {}
    for node in nodes:
        if node.kind != "formula":
            continue
        for data in data_indices(node.formula):
            leaf = base(node.inputs[data.operand])
            while leaf.kind == "formula" and len(leaf.inputs) == 1:
                leaf = base(leaf.inputs[0])
            known = found.get(leaf)
            if known is None or (isinstance(known, int) and isinstance(data.bound, int) and data.bound < known):
                found[leaf] = data.bound
    return found
