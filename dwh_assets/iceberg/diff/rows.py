"""Read the rows in which two versions may differ, each with its weight: above zero it came, below it went.

DuckDB reads local files itself and skips what positions do not need; from other stores, single rows come
out of the row groups that hold them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Self

import duckdb
import numpy as np
import pyarrow as pa
from pyiceberg.schema import Schema
from pyiceberg.table import FileScanTask, Table

from dwh_assets.iceberg.arrow.types import arrow_schema
from dwh_assets.iceberg.diff.weights import WeightedFile, groups
from dwh_assets.iceberg.files.reading import rows_at
from dwh_assets.iceberg.matching.live_rows import (
    FILE,
    POSITION,
    LiveRows,
    batch_with_place,
    live_rows,
    local_file,
    with_place,
)
from dwh_assets.iceberg.sql import quote_identifier

WEIGHT = "_weight"
SLOT = "_slot"
# Rows of the same slot may be equal; others are not.
SLOTS = 4096
_SLOTS_SQL = str(SLOTS)
# Deleted positions that are held in memory at a time
_MOST_EXCEPTIONS = 4_000_000
# DuckDB skips what a list of positions leaves out, but not what a join would.
_MOST_NAMED = 50_000
_LARGE_FILE_ROWS = 200_000
_BATCH_ROWS = 122_880
_THREADS = 8
_FILE_SQL, _POSITION_SQL, _WEIGHT_SQL, _SLOT_SQL = map(quote_identifier, (FILE, POSITION, WEIGHT, SLOT))
_numbers = count()


def weighted_rows(
    connection: duckdb.DuckDBPyConnection,
    table: Table,
    files: Sequence[WeightedFile],
    schema: Schema,
    slots_by: Sequence[str],
) -> Iterator[pa.RecordBatch]:
    """Stream rows in the columns of `schema` (named as inside DuckDB), with `_weight` and `_slot`.

    Rows that are equal in the columns `slots_by` are in the same one of `SLOTS` slots.
    """
    whole = [file for file in files if file.whole]
    named = [file for file in files if not file.whole and _is_worth_naming(file)]
    parts = [file for file in files if not file.whole and not _is_worth_naming(file)]
    for group in (
        *groups(whole, _MOST_EXCEPTIONS),
        *groups(parts, _MOST_EXCEPTIONS),
        *([file] for file in named),
    ):
        with _Group(connection, table, group) as opened:
            rows = opened.rows(schema)
            query_sql = _slotted_sql(opened.weighted_sql(rows), schema, slots_by)
            yield from connection.execute(query_sql, rows.parameters).to_arrow_reader(_BATCH_ROWS)


def _is_worth_naming(file: WeightedFile) -> bool:
    """Tell whether a query of its own, that names each position, spares more than it costs."""
    return int(file.file.record_count) > _LARGE_FILE_ROWS and file.exceptions <= _MOST_NAMED


def _slotted_sql(weighted_sql: str, schema: Schema, slots_by: Sequence[str]) -> str:
    columns_sql = ", ".join(quote_identifier(field.name) for field in schema.fields)
    hashed_sql = ", ".join(map(quote_identifier, slots_by))
    return (
        f"SELECT {columns_sql}, {_WEIGHT_SQL}, (hash({hashed_sql}) % {_SLOTS_SQL})::SMALLINT AS {_SLOT_SQL}"
        f" FROM ({weighted_sql}) AS weighted"
    )


class _Group:
    """Files that are read together: either all of their rows, or just some. Use as a context manager.

    Relations of DuckDB tell what each file weighs (`files`), and each row that weighs otherwise (`own`).
    """

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, table: Table, files: Sequence[WeightedFile]
    ) -> None:
        self._connection, self._table, self._files = connection, table, files
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="deletes") as pool:
            self._own = list(pool.map(lambda file: file.positions(table.io), files))
        self._number = next(_numbers)
        self._registered: list[str] = []

    def __enter__(self) -> Self:
        numbers = [np.full(len(positions), at) for at, (positions, _) in enumerate(self._own)]
        positions, weights = zip(*self._own, strict=True)
        columns = {FILE: numbers, POSITION: positions, WEIGHT: weights}
        own = pa.table({name: np.concatenate(parts) for name, parts in columns.items()})
        wholes = np.array([file.whole for file in self._files])
        self._own_sql = self._register("own", own)
        self._files_sql = self._register("files", pa.table({FILE: np.arange(len(wholes)), WEIGHT: wholes}))
        return self

    def __exit__(self, *_: object) -> None:
        for name in self._registered:
            self._connection.unregister(name)

    def _register(self, name: str, relation: pa.Table | pa.RecordBatchReader) -> str:
        name = f"{name}_{self._number}"
        self._connection.register(name, relation)
        self._registered.append(name)
        return quote_identifier(name)

    @property
    def _in_part(self) -> bool:
        return not any(file.whole for file in self._files)

    def rows(self, schema: Schema) -> LiveRows:
        """Return a query over rows of the files, at least those that count."""
        files = tuple(file.file for file in self._files)
        if not self._in_part or all(local_file(file.file_path) for file in files):
            live = live_rows(self._connection, self._table, [FileScanTask(file) for file in files], schema)
            return self._named(live) if self._in_part and _is_worth_naming(self._files[0]) else live
        target = with_place(arrow_schema(schema))
        batches = (
            batch_with_place(batch, number, found, target)
            for number, (file, (positions, _)) in enumerate(zip(files, self._own, strict=True))
            for batch, found in rows_at(self._table.metadata, self._table.io, file, schema, positions)
        )
        name_sql = self._register("rows", pa.RecordBatchReader.from_batches(target, batches))
        return LiveRows(f"SELECT * FROM {name_sql}", (), files)

    def _named(self, live: LiveRows) -> LiveRows:
        """Leave out the rows of the only file that do not count."""
        positions = self._own[0][0].tolist()
        bound_sql = ", ".join("?" * len(positions)) or "NULL"
        named_sql = f"SELECT * FROM ({live.sql}) AS live WHERE {_POSITION_SQL} IN ({bound_sql})"
        return LiveRows(named_sql, (*live.parameters, *positions), live.files)

    def weighted_sql(self, rows: LiveRows) -> str:
        """Select the rows that count, with their weights."""
        same_place_sql = f"live.{_FILE_SQL} = own.{_FILE_SQL} AND live.{_POSITION_SQL} = own.{_POSITION_SQL}"
        if self._in_part:
            return (
                f"SELECT live.*, own.{_WEIGHT_SQL} FROM ({rows.sql}) AS live"
                f" JOIN {self._own_sql} AS own ON {same_place_sql}"
            )
        weight_sql = f"coalesce(own.{_WEIGHT_SQL}, files.{_WEIGHT_SQL})"
        return (
            f"SELECT live.*, {weight_sql} AS {_WEIGHT_SQL} FROM ({rows.sql}) AS live"
            f" JOIN {self._files_sql} AS files USING ({_FILE_SQL})"
            f" LEFT JOIN {self._own_sql} AS own ON {same_place_sql} WHERE {weight_sql} <> 0"
        )
