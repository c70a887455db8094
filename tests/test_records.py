"""Every operation record, compiled: its value within a bound of what rounding may do, and its gradient; counts."""

from __future__ import annotations

import re
import zlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from test_ops import CASES, declared, drawn

import graphc as gc
from graphc.dsl.build import Built, build
from graphc.graph.dtypes import DType
from graphc.graph.primitives import PRIMITIVES
from graphc.graph.rules import RULES
from graphc.ops.combiners import COMBINERS
from graphc.ops.record import Record, Sample
from graphc.ops.registry import REGISTRY
from graphc.ops.special import SPECIAL
from graphc.reference import evaluate

Array = NDArray[np.generic]
Floats = NDArray[np.float64]

PACKAGE = Path(gc.__file__).parent
SMOOTH = [case for case in CASES if case.values[1].grad]  # type: ignore[union-attr]


def problem(record: Record, sample: Sample, dtype: str) -> tuple[gc.Tensor, dict[str, Array], np.random.Generator]:
    """The operation on inputs, and values for them."""
    rng = np.random.default_rng(zlib.crc32(record.name.encode()))
    arrays = drawn(sample, rng, dtype)
    return declared(record, sample, arrays), {f"x{k}": a for k, a in enumerate(arrays)}, rng


def reference(built: Built, values: dict[str, Array], tensor: gc.Tensor, absolute: bool = False) -> Array:
    """The tensor's value, or its magnitude, computed in float64."""
    node = built.node[tensor]
    return evaluate(built.graph, values, [node], dtype64=True, absolute=absolute)[node]


def assert_rounded(found: Array, wanted: Array, magnitude: Array, dtype: DType, terms: int = 4) -> None:
    """|found - wanted| <= ``terms`` eps * magnitude + 4 ULP of the result; the same NaN and infinities."""
    value, exact = np.asarray(found, np.float64), np.asarray(wanted, np.float64)
    np.testing.assert_array_equal(np.isfinite(value), np.isfinite(exact))
    finite = np.isfinite(exact)
    eps = float(np.finfo(dtype.numpy).eps)
    ulp = np.asarray(np.spacing(np.abs(exact[finite]).astype(dtype.numpy)), np.float64)
    allowed = terms * eps * np.abs(np.asarray(magnitude, np.float64)[finite]) + 4 * ulp
    excess = np.abs(value[finite] - exact[finite]) / allowed
    assert excess.size == 0 or excess.max() <= 1, f"{excess.max():.2f} of what is allowed"


def test_the_bound_is_a_bound() -> None:
    one = np.ones(1, np.float32)
    assert_rounded(one + np.float32(3e-7), one, one, gc.float32)
    for wrong in (1 + 2e-6, np.nan, np.inf):
        with pytest.raises(AssertionError):
            assert_rounded(one * np.float32(wrong), one, one, gc.float32)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("record", "sample"), CASES)
def test_compiled_value(record: Record, sample: Sample, dtype: str) -> None:
    tensor, values, _ = problem(record, sample, dtype)
    found = gc.compile(tensor, cache=False)(**values)
    assert isinstance(found, np.ndarray)
    built = build({"y": tensor})
    wanted = reference(built, values, tensor)
    assert (found.shape, found.dtype.name) == (wanted.shape, tensor.dtype.name)
    if tensor.dtype.kind == "f":
        assert_rounded(found, wanted, reference(built, values, tensor, absolute=True), tensor.dtype)
    else:
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("record", "sample"), SMOOTH)
def test_compiled_gradient(record: Record, sample: Sample, dtype: str) -> None:
    """Against the reference of the same graph, whose derivative test_ops_gradients compares with differences."""
    tensor, values, rng = problem(record, sample, dtype)
    inputs = [t for t in build({"y": tensor}).leaves.values() if isinstance(t, gc.Tensor) and t.dtype.kind == "f"]
    shape = tuple(int(str(s)) for s in tensor.shape)
    loss = gc.sum(tensor * gc.const(rng.uniform(0.5, 1.5, shape).astype(dtype)))
    gradients = gc.grad(loss, inputs, unused="zero")
    built = build({str(k): g for k, g in enumerate(gradients)})
    given = {name: a for name, a in values.items() if name in built.leaves}
    for gradient, found in zip(gradients, gc.compile(gradients, cache=False)(**given), strict=True):
        wanted = reference(built, given, gradient)
        # A gradient is several formulas, each of which may round as one does.
        assert_rounded(found, wanted, reference(built, given, gradient, absolute=True), gradient.dtype, terms=16)


def test_counts(capsys: pytest.CaptureFixture[str]) -> None:
    combiners = [c.name for c in COMBINERS.values() if c.law is not None and not c.linear]
    by_hand = len(RULES) + len(combiners)
    with capsys.disabled():
        print(f"\n{len(REGISTRY)} records, {by_hand} derivatives written by hand, {len(SPECIAL)} of the second kind")
    assert by_hand <= 12
    assert len(REGISTRY) >= 120


# Words of the language of formulas, or of English, that some operation is also called.
ORDINARY = [*COMBINERS]
ORDINARY += ["slice", "where", "split", "repeat", "round", "outer", "index", "take", "square", "trace", "cast"]


@pytest.mark.parametrize("folder", ["diff", "kernels", "llvm"])
def test_no_operation_is_named_behind_the_language(folder: str) -> None:
    """Differentiator, kernels and emission know formulas, scalar functions and the second kind, no operation."""
    scalar = dict.fromkeys(PRIMITIVES)
    names = [n for n in REGISTRY if n not in scalar and n not in SPECIAL and n not in ORDINARY]
    pattern = re.compile(rf"""["']({"|".join(names)})["']""")
    found = [
        f"{path.name}:{number}: {line.strip()}"
        for path in sorted((PACKAGE / folder).glob("*.py"))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if pattern.search(line)
    ]
    assert found == []
