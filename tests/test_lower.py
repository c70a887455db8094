"""The loop form, run by its plain evaluator, equals the graph's reference."""

from __future__ import annotations

import numpy as np
import pytest
from loops import BATCHES, EACH, Array, Case, make

import graphc as gc
from graphc.dsl.intern import intern
from graphc.errors import IndexRangeError
from graphc.graph.graph import Graph
from graphc.kernels import evaluate
from graphc.kernels.form import IndexCheck, Nest
from graphc.kernels.lower import lower
from graphc.kernels.memory import place
from graphc.reference import evaluate as reference
from graphc.rewrite.phases import PHASES, run


def wanted(case: Case, arrays: dict[str, Array]) -> dict[str, Array]:
    """Outputs and new values by name, after the reference."""
    graph = case.graph
    found = reference(graph, arrays)
    result = {name: found[node] for name, node in graph.outputs.items()}
    result.update({f"new {target.attr}": found[value] for target, value in graph.updates.items()})
    return result


def close(got: Array, want: Array, bound: float) -> None:
    """Equal for exact types; for floats within ``bound`` roundings of the largest value's size."""
    assert got.dtype == want.dtype and got.shape == want.shape
    if want.dtype.kind != "f":
        np.testing.assert_array_equal(got, want)
        return
    exact = want.astype(np.float64)
    error = bound * {4: 2.0**-23, 8: 2.0**-52}[want.dtype.itemsize]
    scale = float(np.max(np.abs(exact), initial=1.0))
    np.testing.assert_allclose(got.astype(np.float64), exact, rtol=error, atol=error * scale)


@pytest.mark.parametrize(("name", "dtype"), EACH)
def test_case(name: str, dtype: str, rng: np.random.Generator) -> None:
    case = make(name, dtype)
    program = place(lower(case.graph))
    for n in BATCHES:
        arrays = case.arrays(rng, n)
        expected = wanted(case, arrays)
        changed = {k: v.copy() for k, v in arrays.items()}
        found = evaluate.run(program, changed, {"N": n})
        found.update({f"new {t.attr}": changed[str(t.attr)] for t in case.graph.updates})
        for key, value in expected.items():
            close(found[key], value, 256)


def test_checks_come_before_updates(rng: np.random.Generator) -> None:
    """An index out of range is found before anything persistent is written."""
    case = make("gathers", "float32")
    program = place(lower(case.graph))
    checks = [k for k, kernel in enumerate(program.kernels) if isinstance(kernel, IndexCheck)]
    assert checks
    for bad in (-1, 8, 2**31 - 1):
        arrays = case.arrays(rng, 7)
        arrays["at"][3] = bad
        with pytest.raises(IndexRangeError, match=f"index {bad} at position 3 of at given; needs 0 <= index < 8"):
            evaluate.run(program, arrays, {"N": 7})


def test_epilogues_share_the_nest_of_their_product() -> None:
    """Bias and activation run in the product's nest; the update in that of the gradient, which has no buffer."""
    case = make("dense", "float32")
    program = lower(case.graph)
    nests = [k for k in program.kernels if isinstance(k, Nest)]
    assert sum(1 for k in nests if k.schedule.tile_row >= 0) == 5
    assert len(nests) <= 8
    stored = {b.name for b in program.buffers if b.role == "temp" and not b.name.endswith(".panel")}
    assert len(stored) == 3, stored


def test_cumulative_sums_are_one_pass() -> None:
    """Each element adds to the sum before it, in both directions, unless the summed value names the element itself."""
    case = make("cumulative", "float32")
    nests = {k.nodes: k for k in lower(case.graph).kernels if isinstance(k, Nest)}
    running = [nest.schedule.running >= 0 for nest in nests.values()]
    assert running.count(False) == 1 and len(running) == len(case.graph.outputs)


def test_reductions_visit_with_what_they_reduce() -> None:
    """Elementwise nodes, those made from them and the reductions of both are one nest, which stores them on the way."""
    case = make("visits", "float32")
    nests = [k for k in lower(case.graph).kernels if isinstance(k, Nest)]
    visits = [k for k in nests if k.inner]
    assert visits and max(len(k.reductions) for k in visits) >= 2
    assert max(len(k.inner) for k in visits) >= 2


def test_rows_are_joined_a_vector_at_once() -> None:
    """Sums along rows keep the partial results of as many rows as a vector has lanes."""
    case = make("rows_joined", "float32")
    nests = [k for k in lower(case.graph).kernels if isinstance(k, Nest)]
    assert sum(k.schedule.rows >= 0 for k in nests) == 3


def test_a_guarded_value_is_loaded_inside_its_array_alone(rng: np.random.Generator) -> None:
    """A node without a buffer that is read by a guarded one without a buffer: the guard holds for its loads too."""
    x = gc.input("x", (5,))
    loss = gc.mean(gc.tanh(gc.roll(x, 2)))
    graph = run(intern({"loss": loss, "g": gc.grad(loss, [x])[0]}).graph, PHASES).graph
    arrays = {"x": rng.standard_normal(5).astype(np.float32)}
    found = evaluate.run(place(lower(graph)), arrays, {})["g"]
    close(found, np.asarray(reference(graph, arrays)[graph.outputs["g"]]), 256)


def test_nothing_depends_on_the_order_of_sets() -> None:
    """The same graph gives the same program."""
    assert lower(make("dense", "float32").graph) == lower(make("dense", "float32").graph)


def test_empty_graph() -> None:
    """No outputs, no kernels."""
    assert lower(Graph()).kernels == ()
