"""The durable record beside the tables: pins, expired intervals, and a journal of operations.

SQLite by default, PostgreSQL for a team; safe for many processes at once. What a table holds is never
decided by the ledger, only what is to be kept of it, what once was, and how far an operation over many
tables has come.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Engine,
    ForeignKey,
    Integer,
    MetaData,
    Row,
    String,
    Table,
    Text,
    UniqueConstraint,
    create_engine,
    delete,
    event,
    insert,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, NoSuchModuleError, OperationalError

from dwh_assets.errors import ConfigurationError, NotFoundError, UnavailableError

SCHEMA_VERSION = 1
_WAIT_SECONDS = 60
# Any number will do, as long as every process that makes the tables locks the same.
_POSTGRES_LOCK = 0x647768

OperationState = Literal["running", "incomplete", "done"]
StepState = Literal["pending", "failed", "done"]

_metadata = MetaData()
_versions = Table("dwh_ledger", _metadata, Column("version", Integer, primary_key=True))
# Moments are microseconds since 1970 in UTC: both databases compare them exactly, and without time zones.
_pins = Table(
    "dwh_pins",
    _metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("table_name", String(400), nullable=False, index=True),
    Column("snapshot_id", BigInteger, nullable=False),
    Column("owner", String(400), nullable=False),
    Column("reason", Text, nullable=False),
    Column("made_at", BigInteger, nullable=False),
    Column("until", BigInteger),
    UniqueConstraint("table_name", "snapshot_id", "owner"),
)
_expired = Table(
    "dwh_expired",
    _metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("table_name", String(400), nullable=False, index=True),
    Column("snapshot_id", BigInteger, nullable=False),
    Column("shown_from", BigInteger),
    Column("shown_to", BigInteger),
    Column("reason", Text, nullable=False),
)
_operations = Table(
    "dwh_operations",
    _metadata,
    Column("id", String(400), primary_key=True),
    Column("kind", String(40), nullable=False, index=True),
    Column("state", String(20), nullable=False),
    Column("plan", Text, nullable=False),
    Column("began_at", BigInteger, nullable=False),
    Column("ended_at", BigInteger),
)
_steps = Table(
    "dwh_steps",
    _metadata,
    Column("operation_id", ForeignKey("dwh_operations.id"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("item", String(400), nullable=False),
    Column("state", String(20), nullable=False),
    Column("detail", Text, nullable=False),
)


@dataclass(frozen=True)
class Pin:
    """This snapshot of this table is needed: by whom, why, until when (None: until it is unpinned)."""

    table: str
    snapshot_id: int
    owner: str
    reason: str
    until: datetime | None = None


@dataclass(frozen=True)
class Expired:
    """`main` showed this snapshot from a moment up to (not including) another; it has been removed since.

    Both moments are None for one that `main` never showed. `reason` names the policy or person.
    """

    table: str
    snapshot_id: int
    shown_from: datetime | None
    shown_to: datetime | None
    reason: str


@dataclass(frozen=True)
class Step:
    """One part of an operation: done, failed (`detail` says why), or still to do."""

    item: str
    state: StepState
    detail: str


@dataclass(frozen=True)
class Operation:
    """Work over many tables: what was planned, and how far it has come.

    `running` is also what an interrupted one still says; `incomplete` has ended with parts that failed.
    """

    id: str
    kind: str
    state: OperationState
    plan: dict[str, Any]
    began_at: datetime
    ended_at: datetime | None
    steps: tuple[Step, ...]

    @property
    def open_items(self) -> tuple[str, ...]:
        """What is not done."""
        return tuple(step.item for step in self.steps if step.state != "done")


class Ledger:
    """The ledger at a SQLAlchemy URL; its tables, and the folder of a SQLite file, are made at first use."""

    def __init__(self, url: str) -> None:
        self._engine = _engine(url)
        self._prepared = False

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    # --- Pins ---

    def pin(self, *pins: Pin) -> None:
        """Record pins; one that its owner has already is replaced."""
        with self._transaction() as connection:
            for pin in pins:
                same = (_pins.c.table_name == pin.table) & (_pins.c.snapshot_id == pin.snapshot_id)
                connection.execute(delete(_pins).where(same & (_pins.c.owner == pin.owner)))
                connection.execute(
                    insert(_pins).values(
                        table_name=pin.table,
                        snapshot_id=pin.snapshot_id,
                        owner=pin.owner,
                        reason=pin.reason,
                        made_at=_number(datetime.now(UTC)),
                        until=None if pin.until is None else _number(pin.until),
                    )
                )

    def unpin(self, owner: str, *, keep: int | None = None) -> None:
        """Remove every pin of an owner, but for those of the snapshot `keep`."""
        with self._transaction() as connection:
            unwanted = _pins.c.owner == owner
            if keep is not None:
                unwanted &= _pins.c.snapshot_id != keep
            connection.execute(delete(_pins).where(unwanted))

    def pins(self, table: str) -> list[Pin]:
        """Return the pins of a table that hold now."""
        now = _number(datetime.now(UTC))
        holds = or_(_pins.c.until.is_(None), _pins.c.until > now)
        wanted = select(_pins).where((_pins.c.table_name == table) & holds).order_by(_pins.c.id)
        with self._transaction() as connection:
            return [
                Pin(
                    row.table_name,
                    row.snapshot_id,
                    row.owner,
                    row.reason,
                    None if row.until is None else _moment(row.until),
                )
                for row in connection.execute(wanted)
            ]

    # --- Expired intervals ---

    def record_expired(self, *expired: Expired) -> None:
        """Record what is about to be removed; what is recorded already stays as it is."""
        with self._transaction() as connection:
            for one in expired:
                shown_from = None if one.shown_from is None else _number(one.shown_from)
                same = (_expired.c.table_name == one.table) & (_expired.c.snapshot_id == one.snapshot_id)
                known = select(_expired.c.id).where(
                    same & _expired.c.shown_from.is_not_distinct_from(shown_from)
                )
                if connection.execute(known).first() is None:
                    connection.execute(
                        insert(_expired).values(
                            table_name=one.table,
                            snapshot_id=one.snapshot_id,
                            shown_from=shown_from,
                            shown_to=None if one.shown_to is None else _number(one.shown_to),
                            reason=one.reason,
                        )
                    )

    def expired_intervals(self, table: str) -> list[Expired]:
        """Return what is recorded of the snapshots of `namespace.table` that are gone, oldest first."""
        wanted = select(_expired).where(_expired.c.table_name == table)
        with self._transaction() as connection:
            return [
                Expired(
                    row.table_name,
                    row.snapshot_id,
                    None if row.shown_from is None else _moment(row.shown_from),
                    None if row.shown_to is None else _moment(row.shown_to),
                    row.reason,
                )
                for row in connection.execute(wanted.order_by(_expired.c.shown_from, _expired.c.id))
            ]

    # --- Operations ---

    def begin(self, operation_id: str, kind: str, plan: Mapping[str, Any], items: Sequence[str]) -> Operation:
        """Record an operation and its parts before anything is done; `plan` is plain JSON.

        Raises `ConfigurationError` when there is one of that id: it is resumed, not begun again.
        """
        with self._transaction() as connection:
            try:
                connection.execute(
                    insert(_operations).values(
                        id=operation_id,
                        kind=kind,
                        state="running",
                        plan=json.dumps(plan),
                        began_at=_number(datetime.now(UTC)),
                    )
                )
            except IntegrityError:
                raise ConfigurationError(
                    f"There is a {kind} {operation_id!r} in the ledger already.", remedy="Resume it."
                ) from None
            for position, item in enumerate(items):
                connection.execute(
                    insert(_steps).values(
                        operation_id=operation_id, position=position, item=item, state="pending", detail=""
                    )
                )
        return self.operation(operation_id)

    def operation(self, operation_id: str) -> Operation:
        """Return an operation with its parts; raises `NotFoundError`."""
        with self._transaction() as connection:
            row = connection.execute(select(_operations).where(_operations.c.id == operation_id)).first()
            if row is None:
                raise NotFoundError(f"The ledger has no operation {operation_id!r}.")
            return _operation(connection, row)

    def operations(self, kind: str) -> list[Operation]:
        """Return the operations of a kind, oldest first."""
        wanted = select(_operations).where(_operations.c.kind == kind)
        with self._transaction() as connection:
            rows = connection.execute(wanted.order_by(_operations.c.began_at, _operations.c.id)).all()
            return [_operation(connection, row) for row in rows]

    def mark(self, operation_id: str, item: str, state: StepState, detail: str = "") -> None:
        """Record how far one part of an operation has come."""
        with self._transaction() as connection:
            step = (_steps.c.operation_id == operation_id) & (_steps.c.item == item)
            connection.execute(update(_steps).where(step).values(state=state, detail=detail))

    def end(self, operation_id: str) -> Operation:
        """Record that nothing more is under way: `done` if every part is, else `incomplete`."""
        state = "incomplete" if self.operation(operation_id).open_items else "done"
        with self._transaction() as connection:
            connection.execute(
                update(_operations)
                .where(_operations.c.id == operation_id)
                .values(state=state, ended_at=_number(datetime.now(UTC)))
            )
        return self.operation(operation_id)

    def forget(self, operation_id: str) -> None:
        """Remove an operation and its parts."""
        with self._transaction() as connection:
            connection.execute(delete(_steps).where(_steps.c.operation_id == operation_id))
            connection.execute(delete(_operations).where(_operations.c.id == operation_id))

    # --- The database ---

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        try:
            self._prepare()
            with self._engine.begin() as connection:
                yield connection
        except OperationalError as error:
            raise UnavailableError(
                f"The ledger {self._engine.url.render_as_string()} cannot be used: {error.orig}.",
                remedy="Check that its database answers and can be written; then repeat the call.",
            ) from error

    def _prepare(self) -> None:
        """Make the tables where they are missing, one process at a time; refuse those of a newer release."""
        if self._prepared:
            return
        with self._engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _POSTGRES_LOCK})
            _metadata.create_all(connection)
            found = connection.execute(select(_versions.c.version)).scalar()
            if found is None:
                connection.execute(insert(_versions).values(version=SCHEMA_VERSION))
        if found not in (None, SCHEMA_VERSION):
            raise ConfigurationError(
                f"The ledger {self._engine.url.render_as_string()} has version {found}, this release knows "
                f"{SCHEMA_VERSION}.",
                remedy="Use the release that made it, or a newer one.",
            )
        self._prepared = True


def _engine(url: str) -> Engine:
    try:
        parsed = make_url(url)
        engine = create_engine(parsed)
    except (ArgumentError, NoSuchModuleError, ImportError) as error:
        raise ConfigurationError(
            f"The ledger cannot be opened: {error}.",
            remedy="Set DWH_LEDGER_URL to e.g. sqlite:///lake/ledger.db or postgresql+psycopg2://…",
        ) from None
    if parsed.get_backend_name() == "sqlite":
        if parsed.database and parsed.database != ":memory:":
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_at_once)
    return engine


def _prepare_sqlite(connection: Any, _: Any) -> None:
    """Wait for others, let them read meanwhile, and leave transactions to SQLAlchemy."""
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout = {_WAIT_SECONDS * 1000:d}")
    _wait_for_wal(connection, time.monotonic() + _WAIT_SECONDS)


def _wait_for_wal(connection: Any, until: float) -> None:
    """Switch to the write-ahead log; of all statements this one does not wait for others by itself."""
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > until:
                raise
            time.sleep(0.02)


def _begin_at_once(connection: Connection) -> None:
    """Lock now: a transaction that reads first and then writes fails at once when another was faster."""
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _operation(connection: Connection, row: Row[Any]) -> Operation:
    wanted = select(_steps).where(_steps.c.operation_id == row.id).order_by(_steps.c.position)
    return Operation(
        row.id,
        row.kind,
        row.state,
        json.loads(row.plan),
        _moment(row.began_at),
        None if row.ended_at is None else _moment(row.ended_at),
        tuple(Step(step.item, step.state, step.detail) for step in connection.execute(wanted)),
    )


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _number(moment: datetime) -> int:
    difference = moment - _EPOCH
    return (difference.days * 86_400 + difference.seconds) * 1_000_000 + difference.microseconds


def _moment(number: int) -> datetime:
    seconds, microseconds = divmod(number, 1_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=microseconds)
