"""Which partition each row belongs to: one sort by the partition values, cut at their boundaries."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table.sorting import NullOrder, SortDirection, SortOrder
from pyiceberg.transforms import Transform, TruncateTransform, VoidTransform
from pyiceberg.typedef import Record
from pyiceberg.types import BinaryType

# Column, direction and where nulls go, as pyarrow.compute.sort_indices takes them.
SortKey = tuple[str, str, str]


def partition_columns(spec: PartitionSpec, schema: Schema, rows: pa.Table) -> dict[str, pa.Array]:
    """Return one array of partition values per spec field, in Iceberg's internal representation."""
    return {
        f"partition_{position}": _internal(_transformed(partition_field, schema, rows))
        for position, partition_field in enumerate(spec.fields)
    }


def _transformed(partition_field: PartitionField, schema: Schema, rows: pa.Table) -> pa.Array:
    transform = partition_field.transform
    source = schema.find_field(partition_field.source_id)
    if isinstance(transform, VoidTransform):
        return pa.nulls(rows.num_rows, pa.int32())
    column = _column(rows, schema.find_column_name(source.field_id) or source.name)
    if isinstance(transform, TruncateTransform) and isinstance(source.field_type, BinaryType):
        return pc.binary_slice(column, 0, transform.width)  # PyIceberg's has no kernel for it
    return transform.pyarrow_transform(source.field_type)(column)


def _column(rows: pa.Table, path: str) -> pa.Array:
    if path in rows.column_names:
        return rows.column(path).combine_chunks()
    first, *rest = path.split(".")
    return pc.struct_field(rows.column(first).combine_chunks(), rest)


def truncation_wraps(transform: Transform[Any, Any], value: Any) -> bool:
    """Tell whether truncating an integer leaves its type: Arrow and Java wrap then, Python does not."""
    if not isinstance(transform, TruncateTransform) or not isinstance(value, int):
        return False
    return any(lowest <= value < lowest + transform.width for lowest in (-(2**31), -(2**63)))


def _internal(values: pa.Array) -> pa.Array:
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if isinstance(values, pa.ExtensionArray):
        return values.storage
    if pa.types.is_date32(values.type):
        return values.cast(pa.int32())
    if pa.types.is_timestamp(values.type) or pa.types.is_time64(values.type):
        return values.cast(pa.int64())
    return values


@dataclass(frozen=True)
class PartitionOrder:
    """How to put rows in order: `indices` sorts them by partition, and `starts` are where each one begins."""

    indices: pa.Array
    starts: list[int]
    partitions: list[Record]

    def spans(self) -> Iterator[tuple[Record, int, int]]:
        """Yield each partition with the first and the end of its sorted rows."""
        ends = [*self.starts[1:], len(self.indices)]
        return zip(self.partitions, self.starts, ends, strict=True)


def partition_order(spec: PartitionSpec, schema: Schema, order: SortOrder, rows: pa.Table) -> PartitionOrder:
    """Sort rows by partition and within it by `order`; the cost does not depend on how many there are."""
    keys = partition_columns(spec, schema, rows)
    columns = {name: _grouping(array) for name, array in keys.items() if not pa.types.is_null(array.type)}
    sort_keys: list[SortKey] = [(name, "ascending", "at_start") for name in columns]
    for key, array in sort_columns(order, schema, rows):
        columns[key[0]] = array
        sort_keys.append(key)
    indices = _sorted_indices(columns, sort_keys, rows.num_rows)
    sorted_keys = [array.take(indices) for array in keys.values()]
    starts = _boundaries(sorted_keys, rows.num_rows)
    partitions = [Record(*(key[start].as_py() for key in sorted_keys)) for start in starts]
    return PartitionOrder(indices, starts, partitions)


def _grouping(values: pa.Array) -> pa.Array:
    """Return what equal partition values have in common: -0.0 sorts as 0.0 does, and is another partition."""
    if not pa.types.is_floating(values.type):
        return values
    return values.view({16: pa.int16(), 32: pa.int32(), 64: pa.int64()}[values.type.bit_width])


def _sorted_indices(columns: dict[str, pa.Array], sort_keys: list[SortKey], rows: int) -> pa.Array:
    if not sort_keys:
        return pa.array(np.arange(rows))
    if len(sort_keys) == 1:
        # Sorts integers of a small range, such as days, by counting; a table's sort never does.
        ((_, order, placement),) = sort_keys
        (column,) = columns.values()
        return pc.array_sort_indices(column, order=order, null_placement=placement)
    return pc.sort_indices(pa.table(columns), sort_keys=sort_keys)


def split_by_partition(
    spec: PartitionSpec, schema: Schema, order: SortOrder, rows: pa.Table
) -> Iterator[tuple[Record, pa.Table]]:
    """Yield each partition's rows once, sorted by `order`; the slices share the sorted chunk's memory."""
    found = partition_order(spec, schema, order, rows)
    ordered = rows.combine_chunks().take(found.indices)
    for partition, start, end in found.spans():
        yield partition, ordered.slice(start, end - start)


def sort_columns(order: SortOrder, schema: Schema, rows: pa.Table) -> Iterator[tuple[SortKey, pa.Array]]:
    """Yield what to sort by. To Iceberg NaN is the greatest number; PyArrow puts it beside the nulls."""
    for position, sort_field in enumerate(order.fields):
        source = schema.find_field(sort_field.source_id)
        column = _column(rows, schema.find_column_name(source.field_id) or source.name)
        values = _internal(sort_field.transform.pyarrow_transform(source.field_type)(column))
        direction = "descending" if sort_field.direction == SortDirection.DESC else "ascending"
        placement = "at_end" if sort_field.null_order == NullOrder.NULLS_LAST else "at_start"
        if pa.types.is_floating(values.type):
            yield (f"sort_{position}_nan", direction, placement), pc.is_nan(values).cast(pa.int8())
        yield (f"sort_{position}", direction, placement), values


def _boundaries(sorted_keys: list[pa.Array], rows: int) -> list[int]:
    starts = {0} if rows else set()
    for key in sorted_keys:
        if pa.types.is_null(key.type):
            continue
        run_ends = pc.run_end_encode(key, run_end_type=pa.int64()).run_ends
        starts.update(run_ends.to_pylist()[:-1])
    return sorted(starts)
