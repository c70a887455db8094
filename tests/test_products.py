"""Matrix products with few rows and with many, the number being known at run time: values, bits, teams."""

from __future__ import annotations

import numpy as np
import pytest
from loops import Array, N, call, compiled, leaf, maps, product
from test_emit import TARGETS

from graphc.graph.dtypes import DTYPES
from graphc.graph.formula import Shape
from graphc.graph.graph import Graph
from graphc.llvm.target import Target
from graphc.runtime.team import team_of, thread_count

FORMS = {"AB": "ij,jk->ik", "AtB": "ji,jk->ik", "ABt": "ij,kj->ik"}
LAYERS = ((70, 10), (37, 149), (261, 21), (90, 1), (45, 3), (53, 5), (301, 230))
BATCHES = (1, 2, 3, 4, 5, 7, 8, 9, 15, 26, 50)


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("layer", LAYERS, ids=str)
@pytest.mark.parametrize("form", FORMS)
def test_any_number_of_rows(
    form: str, layer: tuple[int, int], dtype: str, target: Target, rng: np.random.Generator
) -> None:
    """Values against float64; the same bits on a team; a row of A B has the same bits in every batch."""
    n_in, n_out = layer
    left: Shape = (N, n_out) if form == "ABt" else (N, n_in)
    right: Shape = (N, n_out) if form == "AtB" else (n_in, n_out)
    graph, kind = Graph(), DTYPES[dtype]
    result = product(graph, leaf(graph, "a", left, kind), leaf(graph, "b", right, kind), FORMS[form])
    width = leaf(graph, "bias", (n_in if form == "ABt" else n_out,), kind)
    graph.outputs = {"c": maps(graph, lambda c, b: c + b, result, width)}
    made = compiled(graph, target)
    rows: Array = rng.standard_normal((max(BATCHES), n_out if form == "ABt" else n_in)).astype(dtype)
    others: Array = rng.standard_normal((max(BATCHES), n_out) if form == "AtB" else (n_in, n_out)).astype(dtype)
    bias = rng.standard_normal(width.shape[0]).astype(dtype)
    first: Array | None = None
    for batch in BATCHES:
        a, b = rows[:batch].copy(), others[:batch].copy() if form == "AtB" else others
        arrays = {"a": a, "b": b, "bias": bias}
        found = call(made, arrays, {"N": batch})["c"].astype(dtype)
        exact = np.einsum(FORMS[form], a.astype(np.float64), b.astype(np.float64)) + bias
        depth = {"AB": n_in, "AtB": batch, "ABt": n_out}[form]
        np.testing.assert_allclose(found, exact, rtol=0, atol=8 * depth * float(np.finfo(dtype).eps))
        for members in (2, 4) if thread_count(2) > 1 else ():
            assert call(made, arrays, {"N": batch}, team_of(members))["c"].tobytes() == found.tobytes()
        if form == "AB":
            first = found if first is None else first
            assert found[0].tobytes() == first[0].tobytes()
