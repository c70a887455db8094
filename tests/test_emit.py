"""Machine code equals the loop form's evaluator, for this machine and for one without AVX."""

from __future__ import annotations

import numpy as np
import pytest
from loops import BATCHES, EACH, call, compiled, make
from test_lower import close

import graphc as gc
from graphc.errors import IndexRangeError
from graphc.kernels import evaluate
from graphc.llvm.target import Target, host, host_like

TARGETS = {"host": host(), "x86-64": host_like("x86-64")} if host().triple.startswith("x86_64") else {"host": host()}


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize(("name", "dtype"), EACH)
def test_case(name: str, dtype: str, target: Target, rng: np.random.Generator) -> None:
    case = make(name, dtype)
    made = compiled(case.graph, target)
    for n in BATCHES:
        arrays = case.arrays(rng, n)
        ours = {k: v.copy() for k, v in arrays.items()}
        theirs = {k: v.copy() for k, v in arrays.items()}
        planned = {k: v.copy() for k, v in arrays.items()}
        found, expected = call(made, ours, {"N": n}), evaluate.run(made.program, theirs, {"N": n})
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            close(found[key], value, 256)
        for key, value in theirs.items():
            close(ours[key], value, 256)
        same = call(made, planned, {"N": n}, apart=False)  # in memory that buffers share
        for one, other in ((found, same), (ours, planned)):
            assert all(value.tobytes() == other[key].tobytes() for key, value in one.items())


def test_index_out_of_range(rng: np.random.Generator) -> None:
    """The first bad index is reported with its place, and nothing else is touched."""
    case = make("scatters", "float32")
    made = compiled(case.graph, host())
    for bad in (-1, 8, 2**62, -(2**63)):
        arrays = case.arrays(rng, 32)
        arrays["at"][17] = bad
        arrays["at"][29] = -7
        with pytest.raises(IndexRangeError, match=f"index {bad} at position 17"):
            call(made, arrays, {"N": 32})


@pytest.mark.parametrize("combine", ["max", "min", "sum", "any", "all", "argmax"])
def test_special_values(combine: str, rng: np.random.Generator) -> None:
    """NaN and infinities go through reductions as NumPy's do."""
    name, dtype = ("reduces", "float32") if combine != "argmax" else ("arg", "float32")
    case = make(name, dtype)
    made = compiled(case.graph, host())
    arrays = case.arrays(rng, 7)
    for array in arrays.values():
        flat = array.reshape(-1)
        flat[::13] = np.inf
        flat[::29] = np.nan
        flat[::31] = -np.inf
        array[1] = -np.inf  # nothing is greater than the identity
    found = call(made, {k: v.copy() for k, v in arrays.items()}, {"N": 7})
    for key, value in evaluate.run(made.program, arrays, {"N": 7}).items():
        if key.startswith(combine) or combine == "argmax":
            np.testing.assert_array_equal(np.isnan(found[key]), np.isnan(value))
            close(np.nan_to_num(found[key]), np.nan_to_num(value), 256)


def test_same_text() -> None:
    """The same graph gives the same LLVM text."""
    assert (
        compiled(make("dense", "float32").graph, host()).text == compiled(make("dense", "float32").graph, host()).text
    )


@pytest.mark.parametrize("combine", ["sum", "prod", "max", "min"])
@pytest.mark.parametrize("inner", [15, 16, 19, 50])
def test_reduced_over_an_outer_and_an_inner_axis(combine: str, inner: int, rng: np.random.Generator) -> None:
    """What the turns of the outer axis before have left counts once, in however many accumulators the inner runs."""
    reduce = {"sum": gc.sum, "prod": gc.prod, "max": gc.max, "min": gc.min}[combine]
    rows, columns = gc.dim("N"), gc.dim("M")
    given = rng.uniform(0.9, 1.1, (3, inner, 6))
    wanted = getattr(np, combine)(given, axis=(0, 1))
    for shape in ((rows, inner, 6), (rows, columns, 6)):
        found = gc.compile(reduce(gc.input("x", shape, dtype="float64"), axis=(0, 1)))(x=given)
        np.testing.assert_allclose(found, wanted, rtol=1e-13)


@pytest.mark.parametrize("n", [1, 3, 40])
def test_update_of_arrays_beyond_the_caches(n: int, rng: np.random.Generator) -> None:
    """Weights so large that their lines are asked for during the sums, with rows and columns that fill no tile."""
    size = gc.dim("N")
    w = gc.param("w", (1030, 1003), init=gc.init.zeros())
    x, t = gc.input("x", (size, 1030)), gc.input("t", (size, 1003))
    step = gc.compile(gc.sum(t * (x @ w)), gc.optim.sgd(lr=0.5, momentum=0.5), cache=False)
    given = [rng.standard_normal((n, k)).astype(np.float32) for k in (1030, 1003)]
    for _ in range(2):
        step(x=given[0], t=given[1])
    np.testing.assert_allclose(step.params["w"], -1.25 * given[0].T @ given[1], rtol=1e-4, atol=1e-4)
