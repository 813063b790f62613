"""The partitions that some data fell into, and which files and rows of a table lie in them."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable
from typing import Any
from uuid import UUID

import pyarrow as pa
from pyiceberg.manifest import DataFile
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table.sorting import SortOrder
from pyiceberg.transforms import VoidTransform
from pyiceberg.typedef import Record
from pyiceberg.types import DoubleType, FloatType

from dwh_assets.iceberg.files.metrics import bound_value
from dwh_assets.iceberg.files.partitioning import split_by_partition, truncation_wraps

_UNSORTED = SortOrder(order_id=0)


class PartitionSet:
    """Some partitions of one spec. Null is a value like any other, NaN equals NaN, -0.0 equals 0.0."""

    def __init__(self, spec: PartitionSpec, schema: Schema, partitions: Iterable[Record]) -> None:
        self._spec = spec
        self._schema = schema
        self._keys = {_key(partition) for partition in partitions}
        self._values = [_FieldValues(values) for values in zip(*self._keys, strict=True)]

    def __bool__(self) -> bool:
        return bool(self._keys)

    def holds_whole(self, file: DataFile) -> bool:
        """Tell by the file's partition alone whether each of its rows lies in one of the partitions."""
        if self._is_undivided:
            return bool(self._keys)
        return file.spec_id == self._spec.spec_id and _key(file.partition) in self._keys

    def may_hold(self, file: DataFile) -> bool:
        """Tell by partition and column bounds whether a row of the file can lie in one of the partitions."""
        if not self._keys or self._is_undivided or file.spec_id == self._spec.spec_id:
            return self.holds_whole(file)
        fields = zip(self._spec.fields, self._values, strict=True)
        return all(self._may_meet(field, values, file) for field, values in fields)

    def outside(self, rows: pa.Table) -> pa.Table:
        """Return the rows that lie in none of the partitions, whatever file they come from."""
        parts = split_by_partition(self._spec, self._schema, _UNSORTED, rows)
        return pa.concat_tables(
            [rows.slice(0, 0), *(part for partition, part in parts if _key(partition) not in self._keys)]
        )

    @property
    def _is_undivided(self) -> bool:
        """Whether the table has one partition, which is the whole of it."""
        return all(isinstance(field.transform, VoidTransform) for field in self._spec.fields)

    def _may_meet(self, field: PartitionField, values: _FieldValues, file: DataFile) -> bool:
        """Compare a file of another spec: where order is preserved, bounds are bounds of partition values."""
        source = self._schema.find_type(field.source_id)
        bounds = [(side or {}).get(field.source_id) for side in (file.lower_bounds, file.upper_bounds)]
        nulls = (file.null_value_counts or {}).get(field.source_id)
        if values.with_null and nulls != 0:
            return True
        if not field.transform.preserves_order or isinstance(source, FloatType | DoubleType):
            return True  # of floating-point columns, bounds say nothing of NaN
        if any(bound and truncation_wraps(field.transform, bound_value(source, bound)) for bound in bounds):
            return True
        low, high = (
            None if bound is None else field.transform.transform(source)(bound_value(source, bound))
            for bound in bounds
        )
        return low is None or high is None or values.any_between(_comparable(low), _comparable(high))


class _FieldValues:
    """The values that one field has in some partitions."""

    def __init__(self, values: Iterable[Any]) -> None:
        distinct = set(values)
        self.with_null = None in distinct
        self._known = distinct - {None}
        self._ordered: list[Any] | None = None

    def any_between(self, low: Any, high: Any) -> bool:
        self._ordered = self._ordered or sorted(self._known)
        position = bisect_left(self._ordered, low)
        return position < len(self._ordered) and bool(self._ordered[position] <= high)


def _key(partition: Record) -> tuple[Any, ...]:
    return tuple(_comparable(partition[position]) for position in range(len(partition)))


def _comparable(value: Any) -> Any:
    """Return what compares as partition values do: a UUID comes as such or as its bytes; NaN equals NaN."""
    if isinstance(value, UUID):
        return value.bytes
    return "NaN" if isinstance(value, float) and math.isnan(value) else value
