"""Every operation by name: the records of all families, fixed when the package is imported."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from graphc.errors import InternalError
from graphc.ops import composite, elementwise, index, linalg, losses, reduce, shape
from graphc.ops.record import Record


def _registry(*families: tuple[Record, ...]) -> Mapping[str, Record]:
    table: dict[str, Record] = {}
    for record in (r for family in families for r in family):
        if record.name in table:
            raise InternalError(f"two operations are called {record.name}")
        table[record.name] = record
    return MappingProxyType(table)


REGISTRY = _registry(
    elementwise.RECORDS, reduce.RECORDS, shape.RECORDS, linalg.RECORDS, index.RECORDS, composite.RECORDS, losses.RECORDS
)
