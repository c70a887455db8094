"""Operations shown by their own name: ``relu(z)``, where the node is what that operation's record says."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from graphc.errors import GraphcError
from graphc.graph.dtypes import DType
from graphc.graph.formula import Formula, Shape
from graphc.graph.graph import Node, Origin
from graphc.notation.tree import Applied, Symbol, Tree
from graphc.ops.record import TensorType, formula_of
from graphc.ops.registry import REGISTRY

# Functions of their operands alone that read best by name; what has a sign of its own (x + y, xᵀ, x²) is not here.
BY_NAME = (
    "relu", "gelu", "silu", "selu", "softsign", "hardtanh", "softplus", "logaddexp", "elu", "leaky_relu", "sigmoid",
    "tanh", "cumsum", "trace", "diag", "clip",
)  # fmt: skip
BY_AXIS = ("concat", "cumsum", "flip")  # those that take an axis, which is tried


def operation_tree(origins: Sequence[Origin], node: Node, operands: Sequence[Tree]) -> Tree | None:
    """``op(operands)`` where an origin says that a node is an operation and its formula is that one's; else None.

    A user's own operation (``gc.elementwise``) has no record: its name is believed while it is the only origin.
    """
    for origin in origins:
        types = tuple((i.shape, i.dtype) for i in node.inputs)
        if origin.op in BY_NAME and _record_formula(origin.op, types) == node.attr:
            return Applied(origin.op, tuple(operands))
        if origin.op in BY_AXIS:
            for axis in range(len(node.shape)):
                if _record_formula(origin.op, types, axis) == node.attr:
                    return Applied(origin.op, (*operands, Symbol(f"axis={axis}")))
        if origin.op and len(origins) == 1 and origin.op not in REGISTRY and origin.op.isidentifier():
            return Applied(origin.op, tuple(operands)) if node.kind == "formula" and operands else None
    return None


@lru_cache(maxsize=4096)
def _record_formula(op: str, types: tuple[tuple[Shape, DType], ...], axis: int | None = None) -> Formula | None:
    """The formula of an operation for operands of these types, and the axis where one is given; else None."""
    record = REGISTRY.get(op)
    if record is None or record.build is None:
        return None
    try:
        attrs = () if axis is None else (("axis", axis),)
        return formula_of(record, tuple(TensorType(*t) for t in types), attrs, tuple(range(len(types))))
    except (GraphcError, TypeError):
        return None
