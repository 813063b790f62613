"""Which data files may hold a key of the source? Partitions and column bounds rule the others out unread."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from pyiceberg.expressions import (
    AlwaysTrue,
    And,
    BooleanExpression,
    GreaterThanOrEqual,
    LessThanOrEqual,
    Reference,
)
from pyiceberg.expressions.literals import literal
from pyiceberg.manifest import DataFile
from pyiceberg.schema import Schema
from pyiceberg.table import FileScanTask, Table
from pyiceberg.types import (
    DateType,
    DecimalType,
    DoubleType,
    FloatType,
    IcebergType,
    IntegerType,
    LongType,
    NestedField,
    StringType,
    TimestampType,
    TimestamptzType,
    UUIDType,
)

from dwh_assets.iceberg.files.metrics import bound_value
from dwh_assets.iceberg.files.partitioning import truncation_wraps
from dwh_assets.iceberg.files.position_deletes import Positions
from dwh_assets.iceberg.matching.source_rows import SourceRows
from dwh_assets.iceberg.planning import planned_files

# The least and the greatest value of some key columns.
Ranges = Mapping[str, tuple[Any, Any]]
# Key columns whose bounds are compared here; PyIceberg's planning does so for the others.
_COMPARED = (IntegerType, LongType, DateType, TimestampType, TimestamptzType, StringType, DecimalType)


def candidate_tasks(
    source: SourceRows, table: Table, keys: Mapping[str, str], snapshot_id: int
) -> list[FileScanTask]:
    """Return the data files of a snapshot that may hold a source key, by bounds alone.

    `keys` says which column of the source has to equal which one of the table. Raises `UnsupportedError`
    for a table with equality deletes.
    """
    if not source.count:
        return []
    schema = table.schema()
    known = {ours: theirs for theirs, ours in keys.items() if _prunes(schema, ours)}
    found = {ours: source.key_range(theirs) for ours, theirs in known.items()}
    ranges = {key: bounds for key, bounds in found.items() if bounds is not None}
    planned = table.scan(row_filter=_between(_left_to_planning(table, ranges)), snapshot_id=snapshot_id)
    tasks = _overlapping(planned_files(planned), schema, ranges)
    for key in ranges:
        if isinstance(schema.find_field(key).field_type, IntegerType | LongType):
            return _holding(tasks, schema.find_field(key), source.sorted_values(known[key]))
    return tasks


def is_floating(iceberg: IcebergType) -> bool:
    """Tell whether a column may hold NaN."""
    return isinstance(iceberg, FloatType | DoubleType)


def _prunes(schema: Schema, key: str) -> bool:
    """Bounds of floats say nothing of NaN, UUIDs lie anywhere; nested and new columns have no bounds."""
    column = next((field for field in schema.fields if field.name == key), None)
    if column is None or not column.field_type.is_primitive:
        return False
    return not is_floating(column.field_type) and not isinstance(column.field_type, UUIDType)


def _left_to_planning(table: Table, ranges: Ranges) -> Ranges:
    """Return the ranges that may prune whole manifests, and those that are not compared here.

    PyIceberg's planning takes long over each file that a filter does not rule out.
    """
    fields = [field for spec in table.specs().values() for field in spec.fields]
    partitioned = {field.source_id for field in fields}
    columns = {key: table.schema().find_field(key) for key in ranges}
    return {
        key: ranges[key]
        for key, column in columns.items()
        if column.field_id in partitioned or not isinstance(column.field_type, _COMPARED)
        if not any(
            field.source_id == column.field_id and truncation_wraps(field.transform, ranges[key][0])
            for field in fields
        )
    }


def _between(ranges: Ranges) -> BooleanExpression:
    expression: BooleanExpression = AlwaysTrue()
    for key, (low, high) in ranges.items():
        at_least = GreaterThanOrEqual(term=Reference(key), value=literal(low))
        expression = And(expression, And(at_least, LessThanOrEqual(term=Reference(key), value=literal(high))))
    return expression


def _overlapping(tasks: list[FileScanTask], schema: Schema, ranges: Ranges) -> list[FileScanTask]:
    """Keep the files whose bounds leave room for the range of every key."""
    columns = {key: schema.find_field(key) for key in ranges}
    wanted = [
        (column, *(literal(value).to(column.field_type).value for value in ranges[key]))
        for key, column in columns.items()
        if isinstance(column.field_type, _COMPARED)
    ]

    def overlaps(file: DataFile) -> bool:
        for column, low, high in wanted:
            bounds = _bounds(file, column)
            if bounds is not None and (high < bounds[0] or bounds[1] < low):
                return False
        return True

    return [task for task in tasks if overlaps(task.file)]


def _holding(tasks: list[FileScanTask], column: NestedField, values: Positions) -> list[FileScanTask]:
    """Keep the files between whose bounds at least one of the sorted key values lies."""

    def may_hold(file: DataFile) -> bool:
        bounds = _bounds(file, column)
        if bounds is None:
            return True
        return bool(np.searchsorted(values, bounds[0], "left") < np.searchsorted(values, bounds[1], "right"))

    return [task for task in tasks if may_hold(task.file)]


def _bounds(file: DataFile, column: NestedField) -> tuple[Any, Any] | None:
    """Return the file's least and greatest value of a column, as far as it says."""
    low = (file.lower_bounds or {}).get(column.field_id)
    high = (file.upper_bounds or {}).get(column.field_id)
    if low is None or high is None:
        return None
    return bound_value(column.field_type, low), bound_value(column.field_type, high)
