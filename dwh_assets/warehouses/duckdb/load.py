"""Put all rows of a table into DuckDB: it reads the files itself where it can open them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import duckdb
from pyiceberg.table import FileScanTask

from dwh_assets.iceberg.matching.live_rows import live_rows
from dwh_assets.iceberg.planning import planned_files
from dwh_assets.warehouses.arriving import Arriving
from dwh_assets.warehouses.dialect import ReplicaColumn
from dwh_assets.warehouses.source import Source, portions

# What one statement reads. Between two of them progress is told, and positions of deleted rows are forgotten.
_PORTION_BYTES = 1 << 30


def can_read_files(connection: duckdb.DuckDBPyConnection, columns: Sequence[ReplicaColumn]) -> bool:
    """Tell whether rows go from the files into the table as they are, and this database may open files."""
    allowed = connection.execute("SELECT current_setting('enable_external_access')").fetchone()
    return bool(allowed and allowed[0]) and all(column.holding.encode is None for column in columns)


def load_files(
    connection: duckdb.DuckDBPyConnection,
    source: Source,
    insert: Callable[[str, tuple[object, ...]], int],
    arriving: Arriving,
) -> None:
    """Pass queries over the live rows of the snapshot, and their parameters, to `insert`, which counts."""
    for tasks in portions(planned_files(source.scan), _PORTION_BYTES):
        rows = live_rows(connection, source.table, tasks, source.schema)
        with source.reading():
            inserted = insert(rows.sql, rows.parameters)
        arriving.arrived(inserted, _bytes(tasks))


def _bytes(tasks: Sequence[FileScanTask]) -> int:
    return sum(task.file.file_size_in_bytes for task in tasks)


@contextmanager
def rows_in_any_order(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Let DuckDB write the rows of an INSERT as they come.

    A load is then twice as fast and holds half as much memory, and its row groups go to the file once:
    in order, those of a parallel insert are written again at the next checkpoint. The setting belongs to
    the database, not to the connection, so it is put back; by a connection of its own, as one whose
    transaction failed does nothing more.
    """
    other = connection.cursor()
    found = other.execute("SELECT current_setting('preserve_insertion_order')").fetchone()
    other.execute("SET preserve_insertion_order = false")
    try:
        yield
    finally:
        if found and found[0]:
            other.execute("SET preserve_insertion_order = true")
        other.close()
