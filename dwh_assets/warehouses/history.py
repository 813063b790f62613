"""Replicas that keep history: old rows stay, closed (`merge_into`), or each change is a row (`append_only`).

Both follow the table snapshot by snapshot, and date what they find with the snapshot's commit. What came
before the first sync is not known to them: its rows are dated with the snapshot that was loaded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from pyiceberg.types import IcebergType, LongType, NestedField, StringType, TimestamptzType

from dwh_assets.errors import UnsupportedError
from dwh_assets.iceberg.diff.route import find_route
from dwh_assets.iceberg.keys import known_keys
from dwh_assets.iceberg.versions import moment
from dwh_assets.warehouses.apply import (
    StagedChanges,
    apart,
    can_compare,
    names_sql,
    require_as_many,
    same_rows_sql,
)
from dwh_assets.warehouses.base import ReplicaState, Target
from dwh_assets.warehouses.changes import Changes
from dwh_assets.warehouses.columns import OWN_PREFIX
from dwh_assets.warehouses.dialect import Dialect, ReplicaColumn, TypeOptions
from dwh_assets.warehouses.evolution import ColumnStep
from dwh_assets.warehouses.session import Layout
from dwh_assets.warehouses.source import open_source
from dwh_assets.warehouses.sync import Brought, ReloadNeeded, Sync, pending

# Beyond the ids that a table's own fields may have
_FIRST_OWN_ID = 2_147_483_000
VALID_FROM = f"{OWN_PREFIX}valid_from"
VALID_TO = f"{OWN_PREFIX}valid_to"
CHANGE_TYPE = f"{OWN_PREFIX}change_type"
SNAPSHOT_ID = f"{OWN_PREFIX}snapshot_id"
_START_ANEW = "Drop the replica, after keeping its history elsewhere, and sync it anew."


def current_rows_sql(dialect: Dialect) -> str:
    """Return the condition under which a row of a `merge_into` replica is one of the table's."""
    return f"{dialect.quote(dialect.name(VALID_TO))} IS NULL"


@dataclass(frozen=True)
class KeepHistory(Sync):
    """A sync that never removes a row of the replica; what it adds to the columns is `own_columns`."""

    def bring(self) -> Brought:
        """Bring the replica to each snapshot in turn; every one is a transaction, so none is lost."""
        done = [sync._bring_once() for sync in self._one_by_one()]
        return replace(
            done[-1],
            before=done[0].before,
            reason=done[-1].reason if len(done) == 1 else f"{len(done)} snapshots were followed one by one",
            rows_inserted=sum(one.rows_inserted for one in done),
            rows_updated=sum(one.rows_updated for one in done),
            rows_deleted=sum(one.rows_deleted for one in done),
        )

    @property
    def own_columns(self) -> tuple[ReplicaColumn, ...]:
        """The columns that are the replica's alone."""
        raise NotImplementedError

    def _bring_once(self) -> Brought:
        return super().bring()

    def _one_by_one(self) -> Iterator[KeepHistory]:
        """Yield a sync to each snapshot between the one that is held and the source's; rollbacks at once."""
        held = self.records.read()
        if held and held.synced_at and held.snapshot_id and self.source.snapshot_id:
            route = find_route(self.source.table, held.snapshot_id, self.source.snapshot_id)
            steps = route.steps or ()
            if not any(step.undone for step in steps):
                for step in steps[:-1]:
                    at = open_source(self.source.table, self.source.name, step.snapshot.snapshot_id)
                    yield replace(self, source=at)
        yield self

    @cached_property
    def when(self) -> datetime:
        """From when on the rows are the table's: the commit's moment, or now where it went back to it."""
        snapshot = self.source.snapshot
        held = self.records.read()
        before = self.source.table.snapshot_by_id(held.snapshot_id) if held and held.snapshot_id else None
        if snapshot is None or (before and before.timestamp_ms > snapshot.timestamp_ms):
            return datetime.now(UTC)
        return moment(snapshot.timestamp_ms)

    @property
    def _keeps_dropped(self) -> bool:
        return True

    def _require_less_than_all(self, changes: Changes, held: ReplicaState) -> None:
        """However much changed, it is all history."""

    def _make_table(self, found: Sequence[str] | None) -> None:
        if found is None:
            columns = (*self.columns, *self.own_columns)
            self.session.create_table(self.target, columns, self.options.layout, existing="keep")

    def _insert_staged(
        self,
        staging: Target,
        staged: Sequence[ReplicaColumn],
        own: Mapping[str, Any],
        where_sql: str = "TRUE",
    ) -> int:
        """Insert staged rows with values for columns of our own; return how many."""
        dialect = self.session.dialect
        names = [column.name for column in self._held_as(staged)]
        into_sql = ", ".join(map(dialect.quote, [*names, *map(dialect.name, own)]))
        markers_sql = dialect.parameters_sql(len(own))
        return self.session.execute(
            f"INSERT INTO {dialect.qualify(self.target)} ({into_sql})"
            f" SELECT {names_sql(dialect, staged)}, {markers_sql} FROM {dialect.qualify(staging)}"
            f" WHERE {where_sql}",
            *own.values(),
        )

    def _held_as(self, staged: Sequence[ReplicaColumn]) -> list[ReplicaColumn]:
        """Return the replica's columns that hold what is staged."""
        by_id = {column.field.field_id: column for column in self.columns}
        return [by_id[column.field.field_id] for column in staged]

    def _any_sql(self, table: Target, where_sql: str) -> str:
        return f"(SELECT 1 FROM {self.session.dialect.qualify(table)} WHERE {where_sql})"


class KeepVersions(KeepHistory):
    """`merge_into`: a row that changed or went is closed, and what came is a new row (type 2)."""

    @property
    def own_columns(self) -> tuple[ReplicaColumn, ...]:
        """From when to when a row was the table's; null is still."""
        return _own(self.session.dialect, {VALID_FROM: TimestamptzType(), VALID_TO: TimestamptzType()})

    def _bring_once(self) -> Brought:
        self._require_key()
        return super()._bring_once()

    def _require_key(self) -> None:
        if not known_keys(self.source.table.metadata, self.source.schema):
            raise UnsupportedError(
                f"{self.source.name} has no key, so nobody can tell which of its rows changed.",
                remedy="Declare key_columns, or replicate it with mode append_only or copy.",
            )

    def _apply_rows(self, staged: StagedChanges) -> None:
        if staged.changes.rows_deleted:
            closed = self._close(f"EXISTS {self._any_sql(staged.deletes, staged.same_sql)}")
            require_as_many("closed", staged.changes.rows_deleted, closed)
        if staged.changes.rows_inserted:
            inserted = self._insert_staged(staged.inserts, self.columns, {VALID_FROM: self.when})
            require_as_many("inserted", staged.changes.rows_inserted, inserted)

    def _reload(
        self, seen: ReplicaState, held: ReplicaState | None, found: Sequence[str] | None, reason: str
    ) -> Brought:
        """Close the rows that are not the table's any more, and insert those that are not there yet."""
        if found is not None and not can_compare(self.columns):
            raise UnsupportedError(
                f"{self.target} would have to be compared with {self.source.name} ({reason}), and nested "
                "columns cannot be.",
                remedy=_START_ANEW,
            )
        self._require_columns(found)
        self.arriving.rows = 0
        staged = apart(self.session.dialect, self.columns)
        staging = self.session.staging(self.target, "rows")
        self.session.create_table(staging, staged, Layout(), existing="replace")
        self.session.load(staging, staged, self.source, self.arriving)
        self._make_table(found)
        seen = self._follow_columns(seen, held)
        same_sql = same_rows_sql(self.session.dialect, staged, self.columns)
        with self.session.transaction():
            claimed = self.records.claim(seen)
            closed = self._close(f"NOT EXISTS {self._any_sql(staging, same_sql)}")
            open_sql = f"{current_rows_sql(self.session.dialect)} AND {same_sql}"
            missing_sql = f"NOT EXISTS {self._any_sql(self.target, open_sql)}"
            inserted = self._insert_staged(staging, staged, {VALID_FROM: self.when}, missing_sql)
            self.records.change(claimed, self._state(self.arriving.rows))
        self.session.drop_table(staging)
        return Brought("full", reason, held, inserted, 0, closed)

    def _follow_columns(self, seen: ReplicaState, held: ReplicaState | None) -> ReplicaState:
        steps = self._steps_or_refuse(held) if held and self.options.create_table else []
        if not steps:
            return seen
        intent = self.records.change(seen, replace(seen, pending=pending("changing columns")))
        self._alter(steps)
        return intent

    def _steps_or_refuse(self, held: ReplicaState) -> list[ColumnStep]:
        try:
            return self._steps(held)
        except ReloadNeeded as reason:
            raise UnsupportedError(
                f"{self.target} cannot follow the columns of {self.source.name}: {reason}.",
                remedy=_START_ANEW,
            ) from None

    def _close(self, where_sql: str) -> int:
        dialect = self.session.dialect
        to_sql = dialect.quote(dialect.name(VALID_TO))
        return self.session.execute(
            f"UPDATE {dialect.qualify(self.target)} SET {to_sql} = {dialect.parameters_sql(1)}"
            f" WHERE {current_rows_sql(dialect)} AND {where_sql}",
            self.when,
        )


class KeepChanges(KeepHistory):
    """`append_only`: every change is a row of its own: its kind, when and by which snapshot it happened.

    A deleted row is known by its key alone, or by all of its values where the table has no key.
    """

    @property
    def own_columns(self) -> tuple[ReplicaColumn, ...]:
        """What happened, when, and in which snapshot."""
        types = {CHANGE_TYPE: StringType(), VALID_FROM: TimestamptzType(), SNAPSHOT_ID: LongType()}
        return _own(self.session.dialect, types)

    def _apply_rows(self, staged: StagedChanges) -> None:
        changes, same_sql = staged.changes, staged.same_sql
        pairs = bool(changes.keys and changes.rows_deleted and changes.rows_inserted)
        if changes.rows_deleted:
            where_sql = f"NOT EXISTS {self._any_sql(staged.inserts, same_sql)}" if pairs else "TRUE"
            self._insert_staged(staged.deletes, staged.told_by, self._values("delete"), where_sql)
        if changes.rows_inserted:
            known_sql = f"EXISTS {self._any_sql(staged.deletes, same_sql)}" if pairs else "FALSE"
            self._insert_staged(staged.inserts, self.columns, self._values("update"), known_sql)
            self._insert_staged(staged.inserts, self.columns, self._values("insert"), f"NOT {known_sql}")

    def _reload(
        self, seen: ReplicaState, held: ReplicaState | None, found: Sequence[str] | None, reason: str
    ) -> Brought:
        if held is not None:
            raise UnsupportedError(
                f"{self.target} cannot follow {self.source.name}: {reason}. What changed is not known.",
                remedy="Keep this table under another name, drop the replica, and sync it anew; a longer "
                "pin_days keeps it from happening again.",
            )
        self.arriving.rows = 0
        staging = self._staged_rows()
        self._make_table(found)
        with self.session.transaction():
            claimed = self.records.claim(seen)
            inserted = self._insert_staged(staging, self.columns, self._values("insert"))
            self.records.change(claimed, self._state(self.arriving.rows))
        self.session.drop_table(staging)
        return Brought("full", reason, held, inserted)

    def _values(self, kind: str) -> dict[str, Any]:
        return {CHANGE_TYPE: kind, VALID_FROM: self.when, SNAPSHOT_ID: self.source.snapshot_id}


def _own(dialect: Dialect, types: Mapping[str, IcebergType]) -> tuple[ReplicaColumn, ...]:
    return tuple(
        ReplicaColumn(
            NestedField(_FIRST_OWN_ID + number, name, iceberg, required=False),
            dialect.name(name),
            dialect.holding(iceberg, name, TypeOptions()),
        )
        for number, (name, iceberg) in enumerate(types.items())
    )
