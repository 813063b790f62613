"""Which live rows does each source row hit, at which position in which file, and do they differ?

Only the key columns are read, and the remaining columns where unchanged rows are to be recognised. The
join runs in DuckDB, which skips row groups by the source's keys and spills to disk.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from pyiceberg.manifest import DataFile
from pyiceberg.schema import Schema
from pyiceberg.table import FileScanTask, Table
from pyiceberg.types import NestedField

from dwh_assets.iceberg.files.position_deletes import Positions
from dwh_assets.iceberg.matching.live_rows import FILE, POSITION, live_rows
from dwh_assets.iceberg.matching.pruning import is_floating
from dwh_assets.iceberg.matching.source_rows import ROW, SourceRows, internal_name
from dwh_assets.iceberg.sql import quote_identifier

# More rows than any file has.
_POSITION_BITS = 40


@dataclass(frozen=True)
class Matches:
    """What the source rows hit in some data files.

    `hits` are the positions to delete by file; `matched` is how many source rows hit something, and
    `unchanged` the numbers of those of them that equal the one row that they hit.
    """

    hits: tuple[tuple[DataFile, Positions], ...] = ()
    matched: int = 0
    unchanged: pa.Array = field(default_factory=lambda: pa.array([], pa.int64()))

    @property
    def rows_hit(self) -> int:
        """How many live rows are to go; more than `matched` where a key stands in several of them."""
        return sum(len(positions) for _, positions in self.hits)


def internal_schema(schema: Schema, columns: Collection[str]) -> Schema:
    """Return some of the columns, or the first where none is named, under their names inside DuckDB."""
    chosen = [field for field in schema.fields if field.name in columns] or list(schema.fields[:1])
    return Schema(*(field.model_copy(update={"name": internal_name(field.field_id)}) for field in chosen))


def column_sql(field: NestedField, relation: str = "") -> str:
    """Return a column inside DuckDB, of a relation where one is named.

    Filters on a floating-point column must not reach the scan: neither PyArrow nor the statistics of a
    Parquet file know NaN as DuckDB does, and rows would be lost. Subtracting zero changes no value.
    """
    name_sql = ".".join(quote_identifier(part) for part in (relation, internal_name(field.field_id)) if part)
    return f"({name_sql} - 0.0)" if is_floating(field.field_type) else name_sql


def equal_keys_sql(source: SourceRows, schema: Schema, keys: Sequence[str]) -> str:
    """Return the condition under which a row of `source` and one of `target` have the same key."""
    fields = [schema.find_field(key) for key in keys]
    return " AND ".join(
        f"{column_sql(field, 'target')} {source.equality_sql} {column_sql(field, 'source')}"
        for field in fields
    )


def match(
    source: SourceRows,
    table: Table,
    tasks: Sequence[FileScanTask],
    schema: Schema,
    keys: Sequence[str],
    *,
    compare: Sequence[str] | None = None,
) -> Matches:
    """Join the source with the live rows of `tasks` by `keys`, and compare the columns `compare`.

    `schema` is the one that the table has after the write: a column that is new is null in every live
    row. None compares nothing: every row that is hit counts as changed. Rows are compared as SQL's
    `IS DISTINCT FROM` does: null equals null, NaN equals NaN, -0.0 equals 0.0.
    """
    if not tasks:
        return Matches()
    rows = live_rows(source.connection, table, tasks, internal_schema(schema, {*keys, *(compare or ())}))
    on_sql = equal_keys_sql(source, schema, keys)
    differs_sql = "true" if compare is None else differ_sql(schema, compare)
    file_sql, position_sql, row_sql = (quote_identifier(name) for name in (FILE, POSITION, ROW))
    # A table is filled by all threads, while a result is handed over by one alone.
    join_sql = (
        f"CREATE OR REPLACE TEMP TABLE found AS"
        f" SELECT target.{file_sql}, target.{position_sql}, source.{row_sql}, {differs_sql} AS differs"
        f" FROM ({rows.sql}) AS target JOIN source ON {on_sql}"
    )
    source.connection.execute(join_sql, rows.parameters)
    found = source.connection.execute("FROM found").to_arrow_table().combine_chunks()
    return _matches(found, rows.files)


def differ_sql(schema: Schema, columns: Sequence[str]) -> str:
    """Return the condition under which a row of `source` and one of `target` differ in some column."""
    names_sql = [quote_identifier(internal_name(schema.find_field(column).field_id)) for column in columns]
    either_sql = " OR ".join(
        f"target.{name_sql} IS DISTINCT FROM source.{name_sql}" for name_sql in names_sql
    )
    return either_sql or "false"


def _matches(found: pa.Table, files: Sequence[DataFile]) -> Matches:
    if not found.num_rows:
        return Matches()
    row_numbers = found[ROW].to_numpy()
    differs = found["differs"].to_numpy().copy()
    times = np.bincount(row_numbers)
    differs |= times[row_numbers] > 1  # one row instead of several is a change
    hit = found.filter(pa.array(differs))
    return Matches(
        hits=tuple(by_file(hit, files)),
        matched=int(np.count_nonzero(times)),
        unchanged=pa.array(row_numbers[~differs]),
    )


def by_file(hit: pa.Table, files: Sequence[DataFile]) -> list[tuple[DataFile, Positions]]:
    """Return the positions that stand in a table with the columns `_file` and `_position`, by file."""
    if not hit.num_rows:
        return []
    # One number for both sorts much faster than two columns do.
    places = np.sort((hit[FILE].to_numpy() << _POSITION_BITS) | hit[POSITION].to_numpy())
    file_numbers = places >> _POSITION_BITS
    positions = places & ((1 << _POSITION_BITS) - 1)
    starts = np.flatnonzero(np.diff(file_numbers, prepend=-1))
    return [
        (files[file_numbers[start]], _distinct(part))
        for start, part in zip(starts, np.split(positions, starts[1:]), strict=True)
    ]


def _distinct(ordered: Positions) -> Positions:
    """Return each position once; a target row may be hit by several source rows."""
    repeats = np.diff(ordered) == 0
    return np.unique(ordered) if repeats.any() else ordered
