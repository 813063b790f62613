"""Replicas in a DuckDB database: loaded whole, in one transaction with the record of their snapshot."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from datetime import UTC, datetime
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import duckdb
import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.table import Table

from dwh_assets.errors import ConfigurationError, NotFoundError
from dwh_assets.iceberg.sql import qualified, quote_identifier
from dwh_assets.warehouses.arriving import Arriving
from dwh_assets.warehouses.base import ReplicaState, SyncResult
from dwh_assets.warehouses.duckdb_connection import (
    ConnectionFactory,
    DuckDBConnections,
    Patience,
    Transaction,
)
from dwh_assets.warehouses.duckdb_load import load, rows_in_any_order
from dwh_assets.warehouses.duckdb_state import delete_state, exists, read_state, read_targets, write_state
from dwh_assets.warehouses.source import Source, open_source

_BATCH_ROWS = 122_880


class DuckDBWarehouse:
    """A DuckDB database that holds replicas.

    `database` is a file (made, with its folders, by the first sync), or a function without arguments that
    returns a context manager with a connection, which is closed after each use. `config` are DuckDB's
    settings for a file; all connections that a process holds to one file must agree on them. A file that
    somebody else holds is waited for, `wait_seconds` at most.
    """

    def __init__(
        self,
        database: str | PathLike[str] | ConnectionFactory,
        *,
        config: Mapping[str, Any] | None = None,
        wait_seconds: float = 60.0,
    ) -> None:
        opened = database if callable(database) else _file(database)
        self._connections = DuckDBConnections(opened, config or {}, wait_seconds)

    def connect(self, *, read_only: bool = False) -> AbstractContextManager[duckdb.DuckDBPyConnection]:
        """Return a context manager with a connection, which it closes whatever happens.

        Raises `UnavailableError` that names the file and its holder when it is not free in time.
        """
        return self._connections.open(read_only=read_only)

    def replica(self, table: str, into: str | None = None, mode: Literal["copy"] = "copy") -> DuckDBReplica:
        """Return the replica of the lake's `table` in `into`: schema.table, the last dot parts them.

        Without `into` it has the name that the table has in the lake; without a dot it is in `main`.
        Raises `ConfigurationError` for another mode than `copy`.
        """
        if mode != "copy":
            raise ConfigurationError(f"A DuckDB replica cannot have mode {mode!r}.", remedy="Use mode: copy.")
        schema, _, name = (into or table).rpartition(".")
        return DuckDBReplica(self._connections, table, schema or "main", name)

    def replicas(self) -> list[DuckDBReplica]:
        """Return every replica that was loaded into the database; raises what `connect` raises."""
        with self._connections.open(read_only=True) as connection, Transaction(connection) as transaction:
            return [
                DuckDBReplica(self._connections, table, schema, name)
                for schema, name, table in read_targets(transaction)
            ]


class DuckDBReplica:
    """A copy of one Iceberg table in a DuckDB database, always at a known snapshot."""

    def __init__(self, connections: DuckDBConnections, table: str, schema: str, name: str) -> None:
        self.table = table
        self._connections = connections
        self._target = (schema, name)
        self._target_sql = qualified(schema, name)
        self._name = f"{schema}.{name}"

    @property
    def into(self) -> str:
        """Where it is in the database: schema.table."""
        return self._name

    @property
    def snapshot_id(self) -> int | None:
        """The snapshot that the replica holds; None before the first sync and for a table without any."""
        state = self.state()
        return state.snapshot_id if state else None

    def state(self) -> ReplicaState | None:
        """Return what the replica holds; None when it was never loaded."""
        try:
            with self._connections.open(read_only=True) as connection, Transaction(connection) as transaction:
                held = read_state(transaction, *self._target)
                return held if held and held.table == self.table else None
        except NotFoundError:
            return None

    def sync(
        self,
        catalog_or_table: Catalog | Table,
        snapshot_id: int | None = None,
        *,
        on_progress: Callable[[str], None] | None = None,
        run_id: str | None = None,
    ) -> SyncResult:
        """Bring the replica to a snapshot of its table; None means the newest one of `main`.

        Does nothing when it holds the same rows and columns already. Otherwise loads all rows: readers see
        the old replica until the new one is complete, and a sync that dies leaves the old one.
        `on_progress` gets a line of text every few seconds. `run_id` is recorded with the replica.

        Raises `NotFoundError` for a missing table or snapshot, `SchemaError` and `UnsupportedError` for
        columns that DuckDB cannot hold, `ConfigurationError` when `into` is somebody else's table, and
        `UnavailableError` when the database is not free in time.
        """
        started = time.monotonic()
        patience = Patience(self._connections.wait_seconds)
        while True:
            try:
                with self._connections.open() as connection, rows_in_any_order(connection):
                    # Opened once the database is: what was newest before the wait may be so no more.
                    source = open_source(catalog_or_table, self.table, snapshot_id)
                    arriving = Arriving(f"{self.table} into {self._name}", on_progress)
                    return self._bring(connection, source, arriving, run_id, started)
            except duckdb.TransactionException as error:
                if "conflict" not in str(error).lower():
                    raise
                patience.wait(f"The replica {self._name}", "another sync in this process")

    def read(
        self, columns: Sequence[str] | None = None, where: Mapping[str, Any] | None = None
    ) -> pa.RecordBatchReader:
        """Stream the replica's rows; the database stays open until the reader is read to its end or dropped.

        `columns` selects and orders columns, None means all; `where` asks for equality with each of its
        values (None: is null). Raises `NotFoundError` for an unknown column or a replica never loaded.
        """
        with ExitStack() as stack:
            connection = stack.enter_context(self._connections.open(read_only=True))
            reader = self._query(connection, columns, where or {}).to_arrow_reader(_BATCH_ROWS)
            return pa.RecordBatchReader.from_batches(reader.schema, _until_read(reader, stack.pop_all()))

    def count(self) -> int:
        """Return how many rows the replica has, counted; `NotFoundError` when it was never loaded."""
        with self._connections.open(read_only=True) as connection:
            counted = self._query(connection, None, {}).aggregate("count(*)").fetchone()
            return int(counted[0]) if counted else 0

    def drop(self) -> None:
        """Drop the replica and its record; nothing happens when there is none."""
        with self._connections.open() as connection, Transaction(connection) as transaction:
            held = read_state(transaction, *self._target)
            if held and held.table == self.table:
                transaction.execute(f"DROP TABLE IF EXISTS {self._target_sql}")
                delete_state(transaction, *self._target)

    def _bring(
        self,
        connection: duckdb.DuckDBPyConnection,
        source: Source,
        arriving: Arriving,
        run_id: str | None,
        started: float,
    ) -> SyncResult:
        with Transaction(connection) as transaction:
            held = read_state(transaction, *self._target)
            reason = self._reason_to_load(transaction, held, source)
            if reason:
                load(transaction, *self._target, source, arriving)
                write_state(transaction, *self._target, _state_of(source, arriving.rows, run_id))
            elif held and held.snapshot_id != source.snapshot_id:
                # The rows are those of the newer snapshot too, and the older one may soon expire.
                write_state(transaction, *self._target, _state_of(source, held.rows, run_id))
        return SyncResult(
            mode="copy",
            method="full" if reason else "none",
            reason=reason or _already(source),
            from_snapshot=held.snapshot_id if held else None,
            to_snapshot=source.snapshot_id,
            rows_inserted=arriving.rows,
            rows_updated=0,
            rows_deleted=held.rows if held and reason else 0,
            bytes=arriving.bytes,
            statements=transaction.statements,
            seconds=time.monotonic() - started,
        )

    def _reason_to_load(self, transaction: Transaction, held: ReplicaState | None, source: Source) -> str:
        found = exists(transaction, *self._target)
        if found and (held is None or held.table != self.table):
            raise ConfigurationError(
                f"{self._name} in DuckDB is "
                + (f"a replica of {held.table}, not of {self.table}." if held else "not a replica."),
                remedy="Choose another `into`, or drop that table first.",
            )
        if held is None:
            return "it is the first load"
        return source.difference(held) if found else "the replica's table was dropped"

    def _query(
        self, connection: duckdb.DuckDBPyConnection, columns: Sequence[str] | None, where: Mapping[str, Any]
    ) -> duckdb.DuckDBPyRelation:
        # An instant has no zone of its own: without this, Arrow would show the zone of the machine.
        connection.execute("SET SESSION TimeZone = 'UTC'")
        try:
            rows = connection.sql(f"SELECT * FROM {self._target_sql}")
        except duckdb.CatalogException:
            raise NotFoundError(
                f"The replica {self._name} was never loaded.", remedy="Sync it first."
            ) from None
        for column in [*(columns or []), *where]:
            if column not in rows.columns:
                raise NotFoundError(
                    f"{self._name} has no column {column!r}.", remedy=f"It has {', '.join(rows.columns)}."
                )
        for column, value in where.items():
            rows = rows.filter(_equals(column, value))
        return rows if columns is None else rows.select(*map(_column, columns))


def _file(database: str | PathLike[str]) -> Path:
    if str(database).startswith(":memory:"):
        raise ConfigurationError(
            "A database in memory is gone when its connection closes, and a replica with it.",
            remedy="Give a file, or a function that yields a cursor of a connection that stays open.",
        )
    return Path(database)


def _state_of(source: Source, rows: int, run_id: str | None) -> ReplicaState:
    return ReplicaState(
        table=source.name,
        table_uuid=source.table_uuid,
        snapshot_id=source.snapshot_id,
        logical_snapshot_id=source.logical_snapshot_id,
        schema_id=source.schema.schema_id,
        rows=rows,
        synced_at=datetime.now(UTC),
        run_id=run_id,
    )


def _already(source: Source) -> str:
    if source.snapshot is None:
        return "the table has no snapshot yet"
    return f"its rows are those of snapshot {source.logical_snapshot_id}"


def _equals(column: str, value: Any) -> duckdb.Expression:
    if value is None:
        return _column(column).isnull()
    return _column(column) == duckdb.ConstantExpression(value)


def _column(name: str) -> duckdb.Expression:
    # A ColumnExpression splits names at dots and does not know doubled quotes.
    return duckdb.SQLExpression(quote_identifier(name))


def _until_read(reader: pa.RecordBatchReader, stack: ExitStack) -> Iterator[pa.RecordBatch]:
    with stack:
        yield from reader
