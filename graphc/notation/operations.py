"""Operations shown by their own name: ``relu(z)``, where the node is what that operation's record says."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from graphc.errors import GraphcError
from graphc.graph.dtypes import DType
from graphc.graph.formula import Formula, Shape
from graphc.graph.graph import Node, Origin
from graphc.notation.tree import Applied, Tree
from graphc.ops.record import TensorType, formula_of
from graphc.ops.registry import REGISTRY

# Functions of their operands alone that read best by name; what has a sign of its own (x + y, xᵀ, x²) is not here.
BY_NAME = (
    "relu", "gelu", "silu", "selu", "softsign", "hardtanh", "softplus", "logaddexp", "elu", "leaky_relu", "sigmoid",
    "tanh", "cumsum", "trace", "diag", "square", "clip",
)  # fmt: skip


def operation_tree(origins: Sequence[Origin], node: Node, operands: Sequence[Tree]) -> Tree | None:
    """``op(operands)`` where an origin says that a node is an operation and its formula is that one's; else None.

    A user's own operation (``gc.elementwise``) has no record: its name is believed while it is the only origin.
    """
    for origin in origins:
        if origin.op in BY_NAME:
            types = tuple((i.shape, i.dtype) for i in node.inputs)
            if _record_formula(origin.op, types) == node.attr:
                return Applied(origin.op, tuple(operands))
        elif origin.op and len(origins) == 1 and origin.op not in REGISTRY and origin.op.isidentifier():
            return Applied(origin.op, tuple(operands)) if node.kind == "formula" and operands else None
    return None


@lru_cache(maxsize=4096)
def _record_formula(op: str, types: tuple[tuple[Shape, DType], ...]) -> Formula | None:
    """The formula of an operation for operands of these types and no attributes; None where it takes others."""
    record = REGISTRY.get(op)
    if record is None or record.build is None:
        return None
    try:
        return formula_of(record, tuple(TensorType(*t) for t in types), (), tuple(range(len(types))))
    except (GraphcError, TypeError):
        return None
