"""Calling an operation by its record: for what goes through all of them, such as tests and ``graphc check``."""

from __future__ import annotations

from graphc.dsl import composite, functions
from graphc.dsl.tensor import Tensor, TensorLike, apply
from graphc.errors import InternalError
from graphc.ops.record import AttrValue, Record


def call(record: Record, *operands: TensorLike, **attrs: AttrValue) -> Tensor:
    """The operation of ``record`` on operands, with attributes as its samples give them."""
    if record.build is not None:
        return apply(record, *operands, **attrs)
    function = getattr(composite, record.name, None) or getattr(functions, record.name, None)
    if function is None:
        raise InternalError(f"call: nothing is called {record.name}")
    result = function(list(operands), **attrs) if record.name == "stack" else function(*operands, **attrs)
    if not isinstance(result, Tensor):
        raise InternalError(f"call: {record.name} gives a {type(result).__name__}")
    return result
