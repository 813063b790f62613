"""A copy of one Iceberg table in one warehouse, always at a known snapshot."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from operator import methodcaller
from typing import Any, Protocol

import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.table import Table

from dwh_assets.errors import (
    ConfigurationError,
    ConflictError,
    NotFoundError,
    UnavailableError,
    UnsupportedError,
)
from dwh_assets.ledger import Ledger, Pin
from dwh_assets.warehouses.arriving import Arriving
from dwh_assets.warehouses.base import Mode, ReplicaState, SyncResult, Target
from dwh_assets.warehouses.columns import decoded, fetched_sql, replica_columns
from dwh_assets.warehouses.dialect import Dialect, ReplicaColumn
from dwh_assets.warehouses.external import ShowFiles
from dwh_assets.warehouses.history import KeepChanges, KeepVersions, current_rows_sql
from dwh_assets.warehouses.options import ReplicaOptions
from dwh_assets.warehouses.parity import verify
from dwh_assets.warehouses.parity_report import Level, ParityReport
from dwh_assets.warehouses.patience import Patience
from dwh_assets.warehouses.repair import repair
from dwh_assets.warehouses.session import Purpose, Session
from dwh_assets.warehouses.source import Source, open_source
from dwh_assets.warehouses.state import Records
from dwh_assets.warehouses.sync import Brought, Sync, require_same_history

SYNCS: dict[Mode, type[Sync]] = {
    "copy": Sync,
    "merge_into": KeepVersions,
    "append_only": KeepChanges,
    "external": ShowFiles,
}


class Sessions(Protocol):
    """A warehouse: how its SQL is, and how to connect to it."""

    @property
    def dialect(self) -> Dialect:
        """How its SQL is."""
        ...

    @property
    def wait_seconds(self) -> float:
        """How long somebody else is waited for."""
        ...

    def open(self, purpose: Purpose, *, read_only: bool = False) -> AbstractContextManager[Session]:
        """Return a context manager with a session, which it closes whatever happens."""
        ...


@dataclass(frozen=True)
class Replica:
    """The replica of the lake's `table` at `target`, as a warehouse's `replica` returns it."""

    sessions: Sessions
    table: str
    target: Target
    mode: Mode = "copy"
    options: ReplicaOptions = field(default_factory=ReplicaOptions)

    @property
    def warehouse(self) -> str:
        """Which warehouse it is in: duckdb, motherduck, snowflake or bigquery."""
        return self.sessions.dialect.capabilities.warehouse

    @property
    def into(self) -> str:
        """Where it is in the warehouse, dotted."""
        return str(self.target)

    @property
    def owner(self) -> str:
        """Under which name its pins are in the ledger."""
        return f"replica {self.warehouse}/{self.into}"

    @property
    def snapshot_id(self) -> int | None:
        """The snapshot that the replica holds; None before the first sync and for a table without any."""
        state = self.state()
        return state.snapshot_id if state else None

    def state(self) -> ReplicaState | None:
        """Return what the replica holds; None when it was never loaded.

        Of a replica that was left in the midst of what is no transaction no snapshot is claimed.
        """
        try:
            with self._open(read_only=True) as session:
                found = Records(session, self.target).read()
        except NotFoundError:
            return None
        if found is None or found.table != self.table or found.synced_at is None:
            return None
        return replace(found, snapshot_id=None, logical_snapshot_id=None) if found.pending else found

    def sync(
        self,
        catalog_or_table: Catalog | Table,
        snapshot_id: int | None = None,
        *,
        on_progress: Callable[[str], None] | None = None,
        run_id: str | None = None,
        ledger: Ledger | None = None,
    ) -> SyncResult:
        """Bring the replica to a snapshot of its table; None means the newest one of `main`.

        Applies what changed since the snapshot that it holds, loads all rows where there is no other way,
        and does nothing when it holds the same rows and columns already. Readers see the old replica until
        the new one is complete; a sync that dies leaves the old one, or what the next sync finishes. Of two
        syncs at once one waits. `on_progress` gets a line of text every few seconds. `run_id` is recorded
        with the replica. With a `ledger` the held snapshot is pinned there, see `ReplicaOptions.pin_days`.

        Raises `NotFoundError` for a missing table or snapshot, `SchemaError` and `UnsupportedError` for
        columns that the warehouse cannot hold, `ConfigurationError` when `into` is somebody else's table,
        and `UnavailableError` when the warehouse is not free in time.
        """

        def bring(session: Session) -> SyncResult:
            # Opened once the warehouse is: what was newest before the wait may be so no more.
            source = open_source(catalog_or_table, self.table, snapshot_id)
            self._pin(ledger, source.snapshot_id)
            result = self._brought(session, source, methodcaller("bring"), on_progress, run_id)
            self._unpin_others(ledger, source.snapshot_id)
            return result

        return self._patiently(bring, run_id)

    def verify(self, catalog_or_table: Catalog | Table, level: Level = "fingerprint") -> ParityReport:
        """Compare the replica with its table at the snapshot that it holds.

        `count` compares numbers of rows; `fingerprint` hashes of all values, each side computing its own;
        `full` fetches all rows and names those that differ. Raises `NotFoundError` for a replica never
        loaded and for a snapshot that was expired, `UnsupportedError` for one that holds changes.
        """
        with self._open(read_only=True) as session:
            current_sql = self._current_sql(session.dialect)
            held = self._held(session)
            columns = list(self._held_columns(session, held).values())
            source = open_source(catalog_or_table, self.table, held.snapshot_id)
            return verify(session, self.target, columns, source, level, current_sql=current_sql)

    def repair(
        self,
        catalog_or_table: Catalog | Table,
        report: ParityReport,
        *,
        on_progress: Callable[[str], None] | None = None,
        run_id: str | None = None,
    ) -> SyncResult:
        """Load what a report says to differ again: just those parts, or all rows where it names none.

        Raises `ConfigurationError` for a report of another replica.
        """
        if (report.table, report.target) != (self.table, self.target):
            raise ConfigurationError(
                f"This is a report on {report.target} of {report.table}, not on {self.into} of {self.table}.",
                remedy="Verify this replica.",
            )

        def mend(session: Session) -> SyncResult:
            source = open_source(catalog_or_table, self.table, report.snapshot_id)
            parts = ", ".join(part.name for part in report.partitions)
            how: Callable[[Sync], Brought]
            if report.groups and self.mode == "copy":
                columns = self._held_columns(session, self._held(session))
                found = repair(report, list(columns.values()), source)
                how = methodcaller("mend", found, f"repair of {parts}")
            else:
                how = methodcaller("reload", "repair")
            return self._brought(session, source, how, on_progress, run_id)

        return self._patiently(mend, run_id)

    def read(
        self, columns: Sequence[str] | None = None, where: Mapping[str, Any] | None = None
    ) -> pa.RecordBatchReader:
        """Stream the replica's rows in the table's columns and types; `columns` are its names, None is all.

        `where` asks for equality with each of its values (None: is null). The connection stays open until
        the reader is read to its end or dropped. Raises `NotFoundError` for an unknown column or a replica
        never loaded.
        """
        with ExitStack() as stack:
            session = stack.enter_context(self._open(read_only=True))
            held = self._held_columns(session, self._held(session))
            chosen = [_named(held, name, self.into) for name in columns] if columns else list(held.values())
            query_sql, values = self._query(session.dialect, chosen, held, where or {})
            rows = decoded(session.stream(query_sql, *values), chosen, self.into)
            return pa.RecordBatchReader.from_batches(rows.schema, _until_read(rows, stack.pop_all()))

    def count(self) -> int:
        """Return how many rows the replica has, counted; `NotFoundError` when it was never loaded."""
        with self._open(read_only=True) as session:
            self._held(session)
            rows_sql = f"{session.dialect.qualify(self.target)} WHERE {self._current_sql(session.dialect)}"
            return int(session.fetch(f"SELECT count(*) FROM {rows_sql}")[0][0])

    def drop(self, ledger: Ledger | None = None) -> None:
        """Drop the replica, its record and its pins; nothing happens when there is none."""
        with self._open() as session:
            records = Records(session, self.target)
            held = records.read()
            if held and held.table == self.table:
                # A table without a record would be nobody's; a record without a table is loaded again.
                session.drop_table(self.target)
                with session.transaction():
                    records.delete(held)
        if ledger:
            ledger.unpin(self.owner)

    def _patiently(self, work: Callable[[Session], SyncResult], run_id: str | None) -> SyncResult:
        """Do it over a session of its own, again while another sync is in the way."""
        started = time.monotonic()
        patience = Patience(self.sessions.wait_seconds)
        while True:
            try:
                with self._open(run_id=run_id) as session:
                    result = work(session)
                return replace(result, seconds=time.monotonic() - started)
            except ConflictError as conflict:
                patience.wait(f"The replica {self.into}", "another sync", conflict)

    def _brought(
        self,
        session: Session,
        source: Source,
        how: Callable[[Sync], Brought],
        on_progress: Callable[[str], None] | None,
        run_id: str | None,
    ) -> SyncResult:
        arriving = Arriving(f"{self.table} into {self.into}", on_progress)
        sync = SYNCS[self.mode](session, self.target, source, self.mode, self.options, arriving, run_id)
        brought = how(sync)
        if brought.method != "none":
            session.sweep(self.target)
        return SyncResult(
            mode=self.mode,
            method=brought.method,
            reason=brought.reason,
            from_snapshot=brought.before.snapshot_id if brought.before else None,
            to_snapshot=source.snapshot_id,
            rows_inserted=brought.rows_inserted,
            rows_updated=brought.rows_updated,
            rows_deleted=brought.rows_deleted,
            bytes=arriving.bytes,
            statements=session.statements,
            seconds=0.0,
        )

    def _pin(self, ledger: Ledger | None, snapshot_id: int | None) -> None:
        """Keep the snapshot from being expired, before the replica holds it."""
        if ledger and snapshot_id is not None:
            until = datetime.now(UTC) + timedelta(days=self.options.pin_days)
            reason = "the next sync applies what changed since"
            ledger.pin(Pin(self.table, snapshot_id, self.owner, reason, until))

    def _unpin_others(self, ledger: Ledger | None, snapshot_id: int | None) -> None:
        if ledger:
            ledger.unpin(self.owner, keep=snapshot_id)

    @contextmanager
    def _open(self, *, read_only: bool = False, run_id: str | None = None) -> Iterator[Session]:
        with self.sessions.open(Purpose(self.table, run_id), read_only=read_only) as session:
            if self.mode == "external":
                session.require_files()
            yield session

    def _held(self, session: Session) -> ReplicaState:
        """Return the record of what the replica holds."""
        held = Records(session, self.target).read()
        if held is None or held.synced_at is None or held.table != self.table:
            raise NotFoundError(f"The replica {self.into} was never loaded.", remedy="Sync it first.")
        require_same_history(self.target, held.mode, self.mode)
        if held.pending:
            since, _, doing = held.pending.partition(" ")
            raise UnavailableError(
                f"{self.into}: since {since} a sync is {doing}; nobody knows which version this is.",
                remedy="Wait for it, or sync again if it has died.",
            )
        if session.describe(self.target) is None:
            raise NotFoundError(f"The replica's table {self.into} was dropped.", remedy="Sync it again.")
        return held

    def _held_columns(self, session: Session, held: ReplicaState) -> dict[str, ReplicaColumn]:
        """The columns that the replica holds, by their names in the lake."""
        columns = replica_columns(held.schema, session.dialect, held.types, self.table)
        return {column.field.name: column for column in columns}

    def _query(
        self,
        dialect: Dialect,
        columns: Sequence[ReplicaColumn],
        held: Mapping[str, ReplicaColumn],
        where: Mapping[str, Any],
    ) -> tuple[str, list[Any]]:
        values_sql = ", ".join(fetched_sql(dialect, column) for column in columns)
        query_sql = (
            f"SELECT {values_sql} FROM {dialect.qualify(self.target)} WHERE {self._current_sql(dialect)}"
        )
        conditions = {_named(held, name, self.into): value for name, value in where.items()}
        conditions_sql = "".join(
            f" AND {dialect.quote(column.name)} IS NULL"
            if value is None
            else f" AND {dialect.quote(column.name)} = {dialect.parameters_sql(1)}"
            for column, value in conditions.items()
        )
        values = [value for value in conditions.values() if value is not None]
        return query_sql + conditions_sql, values

    def _current_sql(self, dialect: Dialect) -> str:
        """The condition under which a row is one of the table's at the snapshot that is held."""
        if self.mode == "append_only":
            raise UnsupportedError(
                f"{self.into} has mode append_only: it holds changes, and not the rows of one version.",
                remedy="Query it in the warehouse.",
            )
        return current_rows_sql(dialect) if self.mode == "merge_into" else "TRUE"


def as_recorded(sessions: Sessions, target: Target, state: ReplicaState) -> Replica:
    """Return a replica as its record tells of it; a column that the table loses stays, it might have to."""
    options = ReplicaOptions(types=state.types, dropped_columns="keep")
    return Replica(sessions, state.table, target, state.mode, options)


def _named(held: Mapping[str, ReplicaColumn], name: str, where: str) -> ReplicaColumn:
    if name not in held:
        raise NotFoundError(f"{where} has no column {name!r}.", remedy=f"It has {', '.join(held)}.")
    return held[name]


def _until_read(reader: pa.RecordBatchReader, stack: ExitStack) -> Iterator[pa.RecordBatch]:
    with stack:
        yield from reader
