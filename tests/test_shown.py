"""Random expressions and their derivatives, shown and then computed as they stand: a reader gets the right numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from notation_values import Unknown, computed

import graphc as gc
from graphc.dsl.intern import intern
from graphc.notation.expressions import graph_lines
from graphc.notation.show import to_text
from graphc.notation.tree import Joined, Line, parts
from graphc.reference import evaluate

SIZE = 3  # of every axis, so that any product of two is possible
CASES = 150


def leaf(name: str, rank: int) -> gc.Tensor:
    return gc.input(name, (SIZE,) * rank, dtype="float64")


def drawn(rng: np.random.Generator) -> gc.Tensor:
    """A random scalar of matrices A, B, vectors u, v and a scalar c; some of its values have names."""
    pool = [leaf("A", 2), leaf("B", 2), leaf("u", 1), leaf("v", 1), leaf("c", 0)]

    def pick(rank: int | None = None) -> gc.Tensor:
        found = [t for t in pool if rank is None or t.ndim == rank]
        return found[int(rng.integers(len(found)))]

    for step in range(int(rng.integers(4, 11))):
        a, b = pick(), pick()
        kind = int(rng.integers(14))
        if kind == 0:
            made = a + b
        elif kind == 1:
            made = a - 0.5 * b
        elif kind in (2, 3):
            made = a * b
        elif kind in (4, 5, 6):
            left, right = pick(2), pick()
            made = left @ right if right.ndim else left * right
            made = made if rng.random() < 0.7 or right.ndim != 1 else right @ left
        elif kind == 7:
            made = pick(2).T
        elif kind == 8:
            made = gc.tanh(a) * float(rng.integers(2, 5))
        elif kind == 9:
            made = gc.exp(0.1 * a)
        elif kind == 10:
            made = gc.relu(a)
        elif kind == 11:
            made = gc.softmax(pick(2)) if rng.random() < 0.5 else gc.sum(pick(2), axis=int(rng.integers(2)))
        elif kind == 12:
            made = a / (b * b + 1.0)
        else:
            made = -a / 16.0
        pool.append(made.named(f"n{step}") if rng.random() < 0.3 else made)
    return gc.sum(pool[-1] * pick())


@pytest.mark.parametrize("seed", range(CASES))
def test_what_is_shown_is_so(seed: int) -> None:
    rng = np.random.default_rng(seed)
    loss = drawn(rng)
    leaves = list(intern({"loss": loss}).leaves.values())
    by = leaves[int(rng.integers(len(leaves)))]
    shown = [loss, gc.grad(loss, by, unused="zero")]
    if by.ndim == 1:
        try:
            shown.append(gc.jacobian(shown[1], by))
        except gc.NotDifferentiable:  # the gradient does not depend on it, or is a constant
            pass
    for tensor in shown:
        interned = intern({"value": tensor})
        graph = interned.graph
        values: dict[str, Any] = {name: rng.normal(size=t.shape) for name, t in interned.leaves.items()}
        known = {graph.name(n): n for n in graph.nodes if graph.name(n)}  # what a reader takes as known
        exact = evaluate(graph, values, [graph.outputs["value"], *known.values()])
        wanted = exact[graph.outputs["value"]]
        for define in (True, None):
            given = values | ({} if define else {name: exact[n] for name, n in known.items()}) | {"I": np.eye(SIZE)}
            lines = graph_lines(graph, define=define)
            try:
                found = [f[lines[-1].name] for f in computed(lines, given)]
            except Unknown:
                continue
            close = [np.shape(f) == np.shape(wanted) and np.allclose(f, wanted, 1e-5, 1e-6) for f in found]
            assert any(close) or is_ambiguous(lines), to_text(graph, define=define)


def is_ambiguous(lines: Sequence[Line]) -> bool:
    """Whether sums over some axes of arrays with three axes occur: one may keep its axis where another drops it, which
    the reader's program cannot tell.
    """
    stack = [line.value for line in lines]
    found = False
    while stack:
        tree = stack.pop()
        found = found or (isinstance(tree, Joined) and bool(tree.letters))
        stack.extend(parts(tree))
    return found and any(len(line.shape) > 2 for line in lines)
