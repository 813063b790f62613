"""What the changed rows hold, column by column: as they were, and as they are.

"Before" are the rows that went and those that were updated as they had been; "after" those that came and
the updated ones as they are. Rows that did not change are in neither: they are not read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.schema import Schema
from pyiceberg.types import DecimalType, DoubleType, FloatType, IntegerType, LongType, NestedField

from dwh_assets.iceberg.arrow.types import shown_values
from dwh_assets.iceberg.diff.changed_rows import ChangedRows
from dwh_assets.iceberg.diff.netting import CHANGE, INSERT, UPDATE_AFTER, UPDATE_BEFORE
from dwh_assets.iceberg.sql import quote_identifier, quote_text

_NUMBERS = (IntegerType, LongType, FloatType, DoubleType, DecimalType)
_CHANGE_SQL = quote_identifier(CHANGE)


@dataclass(frozen=True)
class ColumnValues:
    """The values of a column in some rows; `distinct` is an estimate, within a few percent.

    The least and greatest value are None for nested columns and where every value is null, the mean is None
    for columns that are not numbers.
    """

    rows: int = 0
    nulls: int = 0
    distinct: int = 0
    least: Any = None
    greatest: Any = None
    mean: float | None = None

    @property
    def null_rate(self) -> float | None:
        """The share of nulls, from 0 to 1; None without rows."""
        return self.nulls / self.rows if self.rows else None


@dataclass(frozen=True)
class ColumnDiff:
    """A column in the changed rows of both versions.

    `rows_changed` is in how many updated rows it has another value; None where rows have no key.
    """

    name: str
    field_id: int
    rows_changed: int | None
    before: ColumnValues
    after: ColumnValues

    @property
    def mean_drift(self) -> float | None:
        """By how much the mean is greater after than before."""
        if self.before.mean is None or self.after.mean is None:
            return None
        return self.after.mean - self.before.mean


def column_diffs(rows: ChangedRows, shown: Schema) -> tuple[ColumnDiff, ...]:
    """Look at all changed rows, in bounded memory; `shown` are their columns under the table's names."""
    fields = rows.columns.fields
    sides = _sides(rows, fields)
    changed = _rows_changed(rows, fields) if rows.keys else [None] * len(fields)
    return tuple(
        ColumnDiff(column.name, column.field_id, count, sides[False][place], sides[True][place])
        for place, (column, count) in enumerate(zip(shown.fields, changed, strict=True))
    )


def _sides(rows: ChangedRows, fields: tuple[NestedField, ...]) -> dict[bool, list[ColumnValues]]:
    """Return the values of each column, after (True) and before (False)."""
    found = {side: [ColumnValues() for _ in fields] for side in (False, True)}
    tables = rows.tables()
    first = next(tables, None)
    if first is None:
        return found
    reader = pa.RecordBatchReader.from_batches(first.schema, _batches(first, tables))
    aggregates_sql = ", ".join(_aggregates_sql(field) for field in fields)
    cursor = rows.connection.cursor()
    cursor.register("changed", reader)
    came_sql = f"{_CHANGE_SQL} IN ({quote_text(INSERT)}, {quote_text(UPDATE_AFTER)})"
    summed = cursor.execute(
        f"SELECT {came_sql}, count(*), {aggregates_sql} FROM changed GROUP BY 1"
    ).to_arrow_table()
    for side, count, *values in zip(*map(shown_values, summed.columns), strict=True):
        found[side] = [_values(count, values[at : at + 5]) for at in range(0, len(values), 5)]
    return found


def _batches(first: pa.Table, others: Iterator[pa.Table]) -> Iterator[pa.RecordBatch]:
    yield from first.to_batches()
    for table in others:
        yield from table.to_batches()


def _aggregates_sql(field: NestedField) -> str:
    name_sql = quote_identifier(field.name)
    ordered_sql = name_sql if field.field_type.is_primitive else "NULL"
    number_sql = name_sql if isinstance(field.field_type, _NUMBERS) else "NULL"
    return (
        f"count({name_sql}), approx_count_distinct({name_sql}), min({ordered_sql}), max({ordered_sql}),"
        f" avg({number_sql}::DOUBLE)"
    )


def _values(rows: int, aggregates: list[Any]) -> ColumnValues:
    present, distinct, least, greatest, mean = aggregates
    return ColumnValues(rows, rows - present, distinct, least, greatest, mean)


def _rows_changed(rows: ChangedRows, fields: tuple[NestedField, ...]) -> list[int]:
    """Count in how many pairs of an update each column differs."""
    names_sql = [quote_identifier(field.name) for field in fields]
    differ_sql = ", ".join(
        f"count(*) FILTER (WHERE old.{name_sql} IS DISTINCT FROM new.{name_sql})" for name_sql in names_sql
    )
    counts = np.zeros(len(fields), np.int64)
    for table in rows.tables():
        cursor = rows.connection.cursor()
        for name, kind in (("old", UPDATE_BEFORE), ("new", UPDATE_AFTER)):
            cursor.register(name, _numbered(table.filter(pc.equal(table[CHANGE], kind))))
        counts += _row(cursor, f"SELECT {differ_sql} FROM old JOIN new USING (number)")
    return [int(count) for count in counts]


def _numbered(rows: pa.Table) -> pa.Table:
    """Number rows in their order: those of an update stand at the same place among their like."""
    return rows.append_column("number", pa.array(np.arange(rows.num_rows)))


def _row(cursor: duckdb.DuckDBPyConnection, query_sql: str) -> tuple[Any, ...]:
    return cursor.execute(query_sql).fetchone() or ()
