"""Every operation, from its record: the formula run by the reference evaluator equals the record's own NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from graphc.dsl.calls import call
from graphc.dsl.declare import input
from graphc.dsl.tensor import Tensor, TensorLike
from graphc.ops.record import Draw, Record, Sample
from graphc.ops.registry import REGISTRY

Array = NDArray[Any]
CASES = [
    pytest.param(record, sample, id=f"{record.name}-{k}")
    for record in REGISTRY.values()
    for k, sample in enumerate(record.samples)
]


def drawn(sample: Sample, rng: np.random.Generator, dtype: str) -> list[Array]:
    """The arrays of a sample's tensor operands; ``dtype`` where the sample leaves the type open."""
    arrays: list[Array] = []
    for operand in sample.operands:
        if isinstance(operand, Draw):
            if operand.dtype == "f":
                arrays.append(rng.uniform(operand.low, operand.high, operand.shape).astype(dtype))
            else:
                high = 2 if operand.dtype == "bool" else int(operand.high)
                arrays.append(rng.integers(int(operand.low), high, operand.shape).astype(operand.dtype))
    return arrays


def declared(record: Record, sample: Sample, arrays: list[Array]) -> Tensor:
    """The operation on inputs ``x0, x1, …`` of the arrays' types."""
    names = iter(range(len(arrays)))
    operands: list[TensorLike] = []
    for operand in sample.operands:
        if isinstance(operand, Draw):
            k = next(names)
            operands.append(input(f"x{k}", arrays[k].shape, arrays[k].dtype))
        else:
            operands.append(operand)
    return call(record, *operands, **dict(sample.attrs))


def expected(record: Record, sample: Sample, arrays: list[Array]) -> Array:
    """The record's own NumPy."""
    rest = iter(arrays)
    operands = [next(rest) if isinstance(o, Draw) else o for o in sample.operands]
    return np.asarray(record.reference(*operands, **dict(sample.attrs)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("record", "sample"), CASES)
def test_reference_equals_numpy(record: Record, sample: Sample, dtype: str, rng: np.random.Generator) -> None:
    arrays = drawn(sample, rng, dtype)
    tensor = declared(record, sample, arrays)
    value = tensor.eval(**{f"x{k}": a for k, a in enumerate(arrays)})
    wanted = expected(record, sample, arrays)
    assert value.shape == tensor.shape == wanted.shape
    assert value.dtype.name == tensor.dtype.name
    if tensor.dtype.kind == "f":
        scale = 1e-5 if tensor.dtype.name == "float32" or dtype == "float32" else 1e-12
        np.testing.assert_allclose(value, wanted, rtol=scale, atol=scale)
    else:
        np.testing.assert_array_equal(value, wanted)
