"""Which live rows does each source row hit, at which position in which file, and do they differ?

Files that cannot hold a source key are pruned by partition and column bounds before anything is read.
Of the others only the key columns are read, and the remaining columns where unchanged rows are to be
recognised. The join runs in DuckDB, which skips row groups by the source's keys and spills to disk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.conversions import from_bytes
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
from pyiceberg.types import DoubleType, FloatType, IntegerType, LongType

from dwh_assets.iceberg.live_rows import FILE, POSITION, live_rows
from dwh_assets.iceberg.position_deletes import Positions
from dwh_assets.iceberg.source_rows import ROW, SourceRows
from dwh_assets.iceberg.sql import quote_identifier

# So few files are read sooner than the source's keys are sorted to rule some of them out.
_FEW_FILES = 8


@dataclass(frozen=True)
class Matches:
    """What the source rows hit in some data files.

    `hits` are the positions to delete by file; `matched` is how many source rows hit something, and
    `unchanged` the numbers of those of them that equal the one row that they hit.
    """

    hits: tuple[tuple[DataFile, Positions], ...] = ()
    matched: int = 0
    unchanged: pa.Array = field(default_factory=lambda: pa.array([], pa.int64()))


def candidate_tasks(
    source: SourceRows, table: Table, keys: Sequence[str], snapshot_id: int
) -> list[FileScanTask]:
    """Return the data files of a snapshot that may hold a source key, by bounds alone."""
    schema = table.schema()
    ranges = {key: source.key_range(key) for key in keys if _prunes(schema, key)}
    tasks = table.scan(row_filter=_between(ranges), snapshot_id=snapshot_id).plan_files()
    first = next(
        (key for key in ranges if isinstance(schema.find_field(key).field_type, IntegerType | LongType)), None
    )
    return list(tasks) if first is None else _holding(list(tasks), schema, first, source.sorted_values(first))


def _prunes(schema: Schema, key: str) -> bool:
    """Bounds of floating-point columns say nothing of NaN, so they do not prune."""
    return not isinstance(schema.find_field(key).field_type, FloatType | DoubleType)


def _between(ranges: dict[str, tuple[Any, Any]]) -> BooleanExpression:
    expression: BooleanExpression = AlwaysTrue()
    for key, (low, high) in ranges.items():
        if low is not None:
            at_least = GreaterThanOrEqual(term=Reference(key), value=literal(low))
            expression = And(
                expression, And(at_least, LessThanOrEqual(term=Reference(key), value=literal(high)))
            )
    return expression


def _holding(tasks: list[FileScanTask], schema: Schema, key: str, values: Positions) -> list[FileScanTask]:
    """Keep the files between whose bounds at least one of the sorted key values lies."""
    column = schema.find_field(key)

    def may_hold(file: DataFile) -> bool:
        low = (file.lower_bounds or {}).get(column.field_id)
        high = (file.upper_bounds or {}).get(column.field_id)
        if low is None or high is None:
            return True
        lowest, highest = (_integer(bound) for bound in (low, high))
        return bool(np.searchsorted(values, lowest, "left") < np.searchsorted(values, highest, "right"))

    return [task for task in tasks if may_hold(task.file)]


def _integer(bound: bytes) -> int:
    """Read an integer bound; a file from before a promotion holds four bytes where the column has eight."""
    return int(from_bytes(IntegerType() if len(bound) == 4 else LongType(), bound))


def match(
    source: SourceRows,
    table: Table,
    tasks: Sequence[FileScanTask],
    keys: Sequence[str],
    *,
    compare: Sequence[str] | None = None,
) -> Matches:
    """Join the source with the live rows of `tasks` by `keys`, and compare the columns `compare`.

    None compares nothing: every row that is hit counts as changed. A column that the table does not
    have yet differs wherever the source has a value. Rows are compared as SQL's
    `IS DISTINCT FROM` does: null equals null, NaN equals NaN, -0.0 equals 0.0.
    """
    if not tasks:
        return Matches()
    known = {column.name for column in table.schema().fields}
    schema = table.schema().select(*keys, *(column for column in compare or () if column in known))
    rows = live_rows(source.connection, table, tasks, schema)
    names = {
        "file": quote_identifier(FILE),
        "position": quote_identifier(POSITION),
        "row": quote_identifier(ROW),
    }
    on_sql = " AND ".join(
        f"live.{quote_identifier(key)} {source.equality_sql} source.{quote_identifier(key)}" for key in keys
    )
    differs_sql = "true" if compare is None else _differs_sql(compare, known)
    file_sql, position_sql, row_sql = names["file"], names["position"], names["row"]
    join_sql = (
        f"SELECT live.{file_sql}, live.{position_sql}, source.{row_sql}, {differs_sql} AS differs"
        f" FROM ({rows.sql}) AS live JOIN source ON {on_sql}"
    )
    found = source.connection.execute(join_sql, rows.parameters).to_arrow_table().combine_chunks()
    return _matches(found, rows.files)


def _differs_sql(compare: Sequence[str], known: set[str]) -> str:
    either_sql = " OR ".join(
        f"live.{quote_identifier(column)} IS DISTINCT FROM source.{quote_identifier(column)}"
        if column in known
        else f"source.{quote_identifier(column)} IS NOT NULL"
        for column in compare
    )
    return either_sql or "false"


def _matches(found: pa.Table, files: dict[str, DataFile]) -> Matches:
    if not found.num_rows:
        return Matches()
    row_numbers = found[ROW].to_numpy()
    differs = found["differs"].to_numpy().copy()
    times = np.bincount(row_numbers)
    differs |= times[row_numbers] > 1  # one row instead of several is a change
    hit = found.filter(pa.array(differs))
    return Matches(
        hits=tuple(_by_file(hit, files)),
        matched=int(np.count_nonzero(times)),
        unchanged=pa.array(row_numbers[~differs]),
    )


def _by_file(hit: pa.Table, files: dict[str, DataFile]) -> list[tuple[DataFile, Positions]]:
    if not hit.num_rows:
        return []
    encoded = pc.dictionary_encode(hit[FILE].combine_chunks())
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    file_numbers = encoded.indices.to_numpy()
    positions = hit[POSITION].to_numpy()
    order = np.lexsort((positions, file_numbers))
    file_numbers, positions = file_numbers[order], positions[order]
    starts = np.flatnonzero(np.diff(file_numbers, prepend=-1))
    names = encoded.dictionary.to_pylist()
    return [
        (files[names[file_numbers[start]]], _distinct(part))
        for start, part in zip(starts, np.split(positions, starts[1:]), strict=True)
    ]


def _distinct(ordered: Positions) -> Positions:
    """Return each position once; a target row may be hit by several source rows."""
    repeats = np.diff(ordered) == 0
    return np.unique(ordered) if repeats.any() else ordered
