"""Every operation record, compiled: its value within a bound of what rounding may do, and its gradient; counts."""

from __future__ import annotations

import ast
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
from graphc.llvm.vecmath import VECTOR_MATHS
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


def test_one_table_holds_all_code_by_name() -> None:
    """Scalar functions whose code does not follow from their record, and the second kind: 40 rows, a reason each."""
    reasons = [code.reason for code in VECTOR_MATHS.values()] + [special.reason for special in SPECIAL.values()]
    assert len(reasons) <= 40 and all(len(reason) > 10 for reason in reasons)
    assert set(VECTOR_MATHS) == {p.name for p in PRIMITIVES.values() if not (p.floats or p.integers or p.booleans)}
    for p in PRIMITIVES.values():
        by_hand = p.name in VECTOR_MATHS
        kinds = (p.floats or by_hand, p.integers or (by_hand and VECTOR_MATHS[p.name].integers), p.booleans)
        takes = {"f": "f", "n": "fi", "b": "b", "a": "fib"}[p.takes]
        assert [bool(k) for k in kinds] == [kind in takes for kind in "fib"], p.name


# What formulas are made of besides scalar functions: combiners, and instructions that are no functions.
FORMULAS = {*COMBINERS, "cast", "index", "read", "const", "size"}
# Calls that take LLVM's instructions, or labels in its text, which share some names with operations.
LLVM_CALLS = {"op", "_op", "cast", "label"}


def allowed(node: ast.AST) -> list[ast.AST]:
    """The parts of a syntax node where a string is no operation's name: LLVM's instructions and labels, the kinds of
    guards, and coefficients.
    """
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LLVM_CALLS:
        return [part for arg in node.args for part in ast.walk(arg)]
    if isinstance(node, ast.Compare) and ast.unparse(node.left) == "guard.kind":
        return list(node.comparators)
    if isinstance(node, ast.Subscript) and ast.unparse(node.value).split(".")[-1] == "table":
        return [node.slice]
    return []


@pytest.mark.parametrize("folder", ["diff", "kernels", "llvm"])
def test_no_operation_is_named_behind_the_language(folder: str) -> None:
    """Differentiator, kernels and emission name no operation, as a string or of the scalar namespace, but in the table.

    ``vecmath_tables.py`` has coefficients alone.
    """
    names = {*PRIMITIVES, *REGISTRY, *SPECIAL} - FORMULAS
    found, in_table = [], []
    for path in sorted((PACKAGE / folder).glob("*.py")):
        if path.name == "vecmath_tables.py":
            continue
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        free = {id(part) for node in nodes for part in allowed(node)}
        for node in nodes:
            if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "VECTOR_MATHS":
                assert isinstance(node.value, ast.Dict)
                keys = [key for key in node.value.keys if isinstance(key, ast.Constant)]
                in_table += [key.value for key in keys]
                free |= {id(key) for key in keys}
        for node in nodes:
            named = isinstance(node, ast.Constant) and node.value in names and id(node) not in free
            scalar = isinstance(node, ast.Attribute) and ast.unparse(node.value) == "sym"
            if named or scalar:
                found.append(f"{path.name}:{node.lineno}: {ast.unparse(node)}")  # type: ignore[attr-defined]
    assert found == []
    assert in_table == (list(VECTOR_MATHS) if folder == "llvm" else [])
