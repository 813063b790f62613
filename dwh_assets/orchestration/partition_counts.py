"""How many rows each of the partitions that a run wrote holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.types import StringType

from dwh_assets.iceberg.scan import read, scan
from dwh_assets.orchestration.partitions import (
    PartitionExpr,
    bound,
    columns_by_dimension,
    dimensions,
    partition_filter,
    single_column,
    typed,
)

# Planning a count costs as much as the table has manifests; for many partitions, one read costs less.
_FEW = 16


def partition_counts(
    table: Table,
    snapshot_id: int | None,
    definition: dg.PartitionsDefinition,
    keys: Sequence[str],
    partition_expr: PartitionExpr | None,
) -> Mapping[str, int]:
    """Return the number of rows of each key at a snapshot.

    A few are counted one by one, which reads no data where files hold one partition; of many, the columns
    that tell the partition are read once.
    """
    name = ".".join(table.name())
    columns = _columns(definition, partition_expr, name)
    if len(keys) > _FEW and not any("." in column for column in columns.values()):
        where = partition_filter(definition, keys, partition_expr, table.schema(), name)
        rows = scan(table, columns=sorted(set(columns.values())), where=where, snapshot_id=snapshot_id)
        return _Numbers(definition, keys, columns, table.schema(), name).count(read(rows))
    return {
        key: scan(
            table,
            where=partition_filter(definition, [key], partition_expr, table.schema(), name),
            snapshot_id=snapshot_id,
        ).count()
        for key in keys
    }


def _columns(
    definition: dg.PartitionsDefinition, partition_expr: PartitionExpr | None, table: str
) -> dict[str, str]:
    """Return the column of each dimension; partitions in one dimension have one without a name."""
    if isinstance(definition, dg.MultiPartitionsDefinition):
        return columns_by_dimension(definition, partition_expr, table)
    return {"": single_column(partition_expr, table)}


class _Numbers:
    """Numbers the keys of each dimension, finds each row's number, and counts the rows of each cell."""

    def __init__(
        self,
        definition: dg.PartitionsDefinition,
        keys: Sequence[str],
        columns: Mapping[str, str],
        schema: Schema,
        table: str,
    ) -> None:
        multi = isinstance(definition, dg.MultiPartitionsDefinition)
        parts = {"": definition}
        if isinstance(definition, dg.MultiPartitionsDefinition):
            parts = {part.name: part.partitions_def for part in definition.partitions_defs}
        cells = {key: dimensions(definition, key) if multi else {"": key} for key in keys}  # type: ignore[arg-type]
        self.columns = columns
        self.numbered = {
            name: _Dimension(part, {cell[name] for cell in cells.values()}, columns[name], schema, table)
            for name, part in parts.items()
        }
        self.cells = {
            key: tuple(self.numbered[name].numbers[cell[name]] for name in parts)
            for key, cell in cells.items()
        }

    def count(self, rows: pa.RecordBatchReader) -> dict[str, int]:
        """Return the number of rows of each key."""
        counted: Counter[tuple[int, ...]] = Counter()
        for batch in rows:
            found = [part.find(batch.column(self.columns[name])) for name, part in self.numbered.items()]
            cells, times = np.unique(np.stack(found, axis=1), axis=0, return_counts=True)
            for cell, number in zip(cells.tolist(), times.tolist(), strict=True):
                counted[tuple(cell)] += number
        return {key: counted[cell] for key, cell in self.cells.items()}


class _Dimension:
    """The keys of one dimension in the order of the values that they begin with, or are."""

    def __init__(
        self, definition: dg.PartitionsDefinition, keys: set[str], column: str, schema: Schema, table: str
    ) -> None:
        kind = schema.find_field(column).field_type
        values: dict[str, Any]
        self.is_time = isinstance(definition, dg.TimeWindowPartitionsDefinition) and not isinstance(
            kind, StringType
        )
        if isinstance(definition, dg.TimeWindowPartitionsDefinition) and self.is_time:
            starts = {key: definition.time_window_for_partition_key(key).start for key in keys}
            values = {key: bound(start, column, kind, table) for key, start in starts.items()}
        else:
            values = {key: typed(key, kind, column, table) for key in keys}
        ordered = sorted(set(values.values()))
        self.values = ordered
        self.numbers = {key: ordered.index(value) for key, value in values.items()}

    def find(self, column: pa.Array) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Return each row's number; the rows are known to lie in one of the partitions."""
        if self.is_time:
            starts = pa.array(self.values, column.type)
            return np.searchsorted(_integers(starts), _integers(column), side="right") - 1
        values = pa.array(self.values).cast(column.type)
        return np.asarray(pc.index_in(column, value_set=values))


def _integers(moments: pa.Array) -> np.ndarray[Any, np.dtype[np.int64]]:
    width = pa.int32() if pa.types.is_date32(moments.type) else pa.int64()
    return np.asarray(moments.cast(width).cast(pa.int64()))
