"""Bring a replica from the snapshot that it holds to another: by what changed, or by all rows, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property

from dwh_assets.errors import ConfigurationError, ConflictError, NotFoundError
from dwh_assets.warehouses.apply import Drifted, StagedChanges, can_compare, copy_rows
from dwh_assets.warehouses.arriving import Arriving
from dwh_assets.warehouses.base import HISTORY_MODES, Method, Mode, ReplicaState, Target
from dwh_assets.warehouses.changes import Changes, changes_between
from dwh_assets.warehouses.columns import folded, replica_columns
from dwh_assets.warehouses.dialect import ReplicaColumn
from dwh_assets.warehouses.evolution import CannotFollow, ColumnStep, column_steps, held_columns
from dwh_assets.warehouses.options import ReplicaOptions
from dwh_assets.warehouses.repair import Repair
from dwh_assets.warehouses.session import Layout, Session, encoded
from dwh_assets.warehouses.source import Source
from dwh_assets.warehouses.state import Records

# For so long nobody touches what another sync has said it is about to change outside a transaction.
LEASE = timedelta(seconds=60)


class ReloadNeeded(Exception):
    """All rows have to be loaded; the message says why."""


@dataclass(frozen=True)
class Brought:
    """How a replica came to the source's snapshot."""

    method: Method
    reason: str
    before: ReplicaState | None
    rows_inserted: int = 0
    rows_updated: int = 0
    rows_deleted: int = 0


@dataclass(frozen=True)
class Sync:
    """One attempt to bring one replica to one snapshot, over one session."""

    session: Session
    target: Target
    source: Source
    mode: Mode
    options: ReplicaOptions
    arriving: Arriving
    run_id: str | None

    @cached_property
    def columns(self) -> tuple[ReplicaColumn, ...]:
        """The columns that the replica is to have."""
        return replica_columns(self.source.schema, self.session.dialect, self.options.types, self.source.name)

    @property
    def records(self) -> Records:
        """What is recorded about the replica."""
        return Records(self.session, self.target)

    @property
    def _transactional(self) -> bool:
        return self.session.dialect.capabilities.transactional_ddl

    def reload(self, reason: str) -> Brought:
        """Load all rows, whatever is held. Raises `ConflictError` when another sync came between."""
        seen, found = self.records.read(), self.session.describe(self.target)
        self._require_ours(seen, found)
        if seen is None or not seen.synced_at:
            return self.bring()
        self._wait_for_other(seen)
        return self._reload(seen, seen, found, reason)

    def mend(self, repair: Repair, reason: str) -> Brought:
        """Replace the rows of the parts that differ. Raises `ConflictError` when the replica moved on."""
        seen = self.records.read()
        if seen is None or seen.pending or seen.snapshot_id != self.source.snapshot_id:
            raise ConflictError(f"{self.target} was synced meanwhile.", remedy="Verify it again.")
        staging = self.session.staging(self.target, "rows")
        self.session.create_table(staging, self.columns, Layout(), existing="replace")
        rows = self.arriving.counted(encoded(repair.rows(), self.columns))
        with self.arriving.failures():
            self.session.insert(staging, self.columns, rows)
        condition_sql, values = repair.condition(self.session, self.target)
        with self.session.transaction():
            claimed = self.records.claim(seen)
            deleted = self.session.execute(
                f"DELETE FROM {self.session.dialect.qualify(self.target)} WHERE {condition_sql}", *values
            )
            inserted = copy_rows(self.session, staging, self.target, self.columns)
            self.records.change(claimed, self._state(seen.rows))
        self.session.drop_table(staging)
        return Brought("incremental", reason, seen, inserted, 0, deleted)

    def bring(self) -> Brought:
        """Do what is needed. Raises `ConflictError` when another sync came between."""
        seen, found = self._prepared()
        held = seen if seen.synced_at else None
        try:
            return self._follow(seen, held, found)
        except ReloadNeeded as reason:
            return self._reload(seen, held, found, str(reason))

    def _prepared(self) -> tuple[ReplicaState, Sequence[str] | None]:
        """Return the record, and the names of the target's columns where it is there."""
        _ = self.columns  # what cannot be held is refused before anything is made
        found, recorded = self.session.describe(self.target), self.records.read()
        self._require_ours(recorded, found)
        if found is None:
            self._require_making()
            self.session.ensure_schema(self.target)
        seen = recorded or self.records.prepare(self.source.name)
        self._wait_for_other(seen)
        return seen, found

    # --- Deciding ---

    def _require_ours(self, held: ReplicaState | None, found: Sequence[str] | None) -> None:
        known = held is not None and (held.synced_at is not None or held.pending != "")
        if known and held is not None and held.table != self.source.name:
            raise ConfigurationError(
                f"{self.target} is a replica of {held.table}, not of {self.source.name}.",
                remedy="Choose another `into`, or drop that replica first.",
            )
        if held is not None and held.synced_at:
            require_same_history(self.target, held.mode, self.mode)
        if found and not known and self.options.create_table:
            raise ConfigurationError(
                f"{self.target} is not a replica, and there is a table or view of that name.",
                remedy="Choose another `into`, drop it first, or set create_table: false to have it filled.",
            )

    def _require_making(self) -> None:
        if not self.options.create_table:
            raise NotFoundError(
                f"There is no table {self.target}, and create_table is false.",
                remedy="Make it with the columns of the lake's table, or let the sync make it.",
            )

    def _wait_for_other(self, seen: ReplicaState) -> None:
        """Raise `ConflictError` while another sync may be in the midst of what is no transaction."""
        if not seen.pending:
            return
        since, _, doing = seen.pending.partition(" ")
        if datetime.now(UTC) < datetime.fromisoformat(since) + LEASE:
            raise ConflictError(
                f"{self.target}: since {since} another sync is {doing}.", remedy="Repeat the sync later."
            )

    def _follow(self, seen: ReplicaState, held: ReplicaState | None, found: Sequence[str] | None) -> Brought:
        """Apply what changed, if there is a way. Raises `ReloadNeeded`."""
        if held is None:
            raise ReloadNeeded("it is the first load")
        if seen.pending:
            raise ReloadNeeded(f"an earlier sync was interrupted while {seen.pending.partition(' ')[2]}")
        if found is None:
            raise ReloadNeeded("the replica's table was dropped")
        if held.table_uuid != self.source.table_uuid:
            raise ReloadNeeded(f"{self.source.name} was dropped and created again")
        if held.mode != self.mode:
            raise ReloadNeeded(f"its mode was {held.mode}, and is {self.mode} now")
        steps = self._steps(held)
        if steps and not self.options.create_table:
            raise ReloadNeeded("its columns changed, and create_table is false")
        if self.options.layout.indexes and self._transactional and any(step.kind != "add" for step in steps):
            raise ReloadNeeded("its columns changed, and indexes hold on to the old ones")
        self._require_empty([step.name for step in steps if step.kind == "add"], held, found)
        if held.logical_snapshot_id == self.source.logical_snapshot_id:
            return self._keep_rows(seen, steps)
        return self._apply(seen, steps)

    def _steps(self, held: ReplicaState) -> list[ColumnStep]:
        types = [(field.field_id, field.field_type) for field in held.schema.fields]
        try:
            return column_steps(
                held.columns, types, self.columns, keep_dropped=self._keeps_dropped, fold=self._folded
            )
        except CannotFollow as reason:
            raise ReloadNeeded(str(reason)) from None

    def _folded(self, name: str) -> str:
        return folded(name, self.session.dialect.capabilities)

    def _require_empty(self, added: Sequence[str], held: ReplicaState, found: Sequence[str]) -> None:
        """Reload where a column that is to be added has values in rows that did not change."""
        own = {self._folded(column.name) for column in held.columns}
        others = {self._folded(name) for name in found} - own
        ids = self.source.field_ids_until(held.snapshot_id)
        for column in self.columns:
            if column.name in added and self._folded(column.name) in others:
                raise ReloadNeeded(f"it has a column {column.name} already, which is another one")
            if column.name in added and column.field.field_id in ids:
                raise ReloadNeeded(f"the column {column.field.name} is back, with its values")

    @property
    def _keeps_dropped(self) -> bool:
        return self.options.dropped_columns == "keep"

    # --- The rows stay ---

    def _keep_rows(self, seen: ReplicaState, steps: Sequence[ColumnStep]) -> Brought:
        reason = (
            "the table has no snapshot yet"
            if self.source.snapshot is None
            else f"its rows are those of snapshot {self.source.logical_snapshot_id}"
        )
        state = self._state(seen.rows)
        if not steps:
            if seen.snapshot_id != state.snapshot_id or seen.schema_id != state.schema_id:
                # The rows are those of the newer snapshot too, and the older one may soon expire.
                with self.session.transaction():
                    self.records.change(seen, state)
            return Brought("none", reason, seen)
        seen_now = self._alter_first(seen, steps)
        with self.session.transaction():
            claimed = self.records.claim(seen_now)
            self._alter_within(steps)
            self.records.change(claimed, state)
        return Brought("incremental", f"{reason}, its columns changed", seen)

    # --- Only what changed ---

    def _apply(self, seen: ReplicaState, steps: Sequence[ColumnStep]) -> Brought:
        with self._changes(seen) as changes:
            self._require_less_than_all(changes, seen)
            if not changes.keys and changes.rows_deleted and not can_compare(self.columns):
                raise ReloadNeeded("rows went, and there is no key to tell which")
            state = self._state(seen.rows + changes.rows_inserted - changes.rows_deleted)
            staged = StagedChanges.stage(self.session, self.target, self.columns, changes, self.arriving)
            try:
                updated = staged.rows_updated()
                self._apply_staged(seen, steps, staged, state)
            except Drifted as drifted:
                raise ReloadNeeded(
                    f"its rows are not those of snapshot {seen.snapshot_id}: {drifted}"
                ) from None
            finally:
                staged.drop()
            inserted, deleted = changes.rows_inserted - updated, changes.rows_deleted - updated
            reason = f"{inserted + updated + deleted:,} rows changed since snapshot {seen.snapshot_id}"
            return Brought("incremental", reason, seen, inserted, updated, deleted)

    def _apply_staged(
        self, seen: ReplicaState, steps: Sequence[ColumnStep], staged: StagedChanges, state: ReplicaState
    ) -> None:
        seen_now = self._alter_first(seen, steps)
        with self.session.transaction():
            claimed = self.records.claim(seen_now)
            self._alter_within(steps)
            self._apply_rows(staged)
            self.records.change(claimed, state)

    def _apply_rows(self, staged: StagedChanges) -> None:
        staged.apply()

    def _changes(self, held: ReplicaState) -> Changes:
        before = held.snapshot_id
        if before is None or self.source.snapshot_id is None:
            raise ReloadNeeded("one of the versions has no rows")
        if self.source.table.snapshot_by_id(before) is None:
            raise ReloadNeeded(f"the snapshot {before} that it holds was expired")
        return changes_between(self.source, before, self.columns)

    def _require_less_than_all(self, changes: Changes, held: ReplicaState) -> None:
        """Reload where that is less work; what is only added is never more."""
        most = max(held.rows, 1)
        if changes.diff.rows_read > 2 * most or (changes.rows_deleted and changes.rows > most):
            raise ReloadNeeded("more rows changed than the table has")

    def _alter_first(self, seen: ReplicaState, steps: Sequence[ColumnStep]) -> ReplicaState:
        """Change columns before the transaction, where it cannot hold that; rows stay what they were."""
        if not steps or self._transactional:
            return seen
        intent = self.records.change(seen, replace(seen, pending=pending("changing columns")))
        self._alter(steps)
        return intent

    def _alter_within(self, steps: Sequence[ColumnStep]) -> None:
        if self._transactional:
            self._alter(steps)

    def _alter(self, steps: Sequence[ColumnStep]) -> None:
        for step in steps:
            self.session.alter_table(self.target, step)

    # --- All rows ---

    def _reload(
        self, seen: ReplicaState, held: ReplicaState | None, found: Sequence[str] | None, reason: str
    ) -> Brought:
        self.arriving.rows = 0  # whatever was staged before
        self._require_columns(found)
        if self._transactional:
            self._reload_in_transaction(seen)
        elif self._keeps_columns(held, found) or not self.options.create_table:
            self._reload_by_rows(seen)
        else:
            self._reload_by_table(seen)
        return Brought("full", reason, held, self.arriving.rows, 0, held.rows if held else 0)

    def _require_columns(self, found: Sequence[str] | None) -> None:
        known = {self._folded(name) for name in found or ()}
        missing = [column.name for column in self.columns if self._folded(column.name) not in known]
        if found is not None and not self.options.create_table and missing:
            raise ConfigurationError(
                f"{self.target} has no column {missing[0]}, and create_table is false.",
                remedy="Add the column, or let the sync make the table.",
            )

    def _reload_in_transaction(self, seen: ReplicaState) -> None:
        with self.session.transaction():
            claimed = self.records.claim(seen)
            if self.options.create_table:
                # Replaced, not emptied and filled: readers of before never wait, and the file does not keep
                # the deleted rows beside the new ones.
                self.session.create_table(self.target, self.columns, self.options.layout, existing="replace")
            else:
                self._empty()
            self.session.load(self.target, self.columns, self.source, self.arriving, self.options.layout)
            self.records.change(claimed, self._state(self.arriving.rows))

    def _reload_by_rows(self, seen: ReplicaState) -> None:
        staging = self._staged_rows()
        with self.session.transaction():
            claimed = self.records.claim(seen)
            self._empty()
            copy_rows(self.session, staging, self.target, self.columns)
            self.records.change(claimed, self._state(self.arriving.rows))
        self.session.drop_table(staging)

    def _reload_by_table(self, seen: ReplicaState) -> None:
        staging = self._staged_rows()
        intent = self.records.change(seen, replace(seen, pending=pending("replacing all rows")))
        self.session.supplant(self.target, staging)
        self.records.change(intent, self._state(self.arriving.rows))
        self.session.drop_table(staging)

    def _staged_rows(self) -> Target:
        staging = self.session.staging(self.target, "rows")
        self.session.create_table(staging, self.columns, self.options.layout, existing="replace")
        self.session.load(staging, self.columns, self.source, self.arriving, self.options.layout)
        return staging

    def _empty(self) -> None:
        self.session.execute(f"DELETE FROM {self.session.dialect.qualify(self.target)} WHERE TRUE")

    def _keeps_columns(self, held: ReplicaState | None, found: Sequence[str] | None) -> bool:
        wanted = held_columns(self.columns)
        return (
            held is not None
            and not held.pending
            and held.columns == wanted
            and list(found or ()) == [column.name for column in wanted]
        )

    def _state(self, rows: int) -> ReplicaState:
        return ReplicaState(
            table=self.source.name,
            table_uuid=self.source.table_uuid,
            mode=self.mode,
            snapshot_id=self.source.snapshot_id,
            logical_snapshot_id=self.source.logical_snapshot_id,
            schema=self.source.schema,
            columns=held_columns(self.columns),
            types=self.options.types,
            rows=rows,
            synced_at=datetime.now(UTC),
            run_id=self.run_id,
        )


def require_same_history(target: Target, held: Mode, asked: Mode) -> None:
    """Raise `ConfigurationError` where a replica keeps history and is not to, or the other way round."""
    if held != asked and {held, asked} & {*HISTORY_MODES}:
        raise ConfigurationError(
            f"{target} is a replica with mode {held}, and {asked} was asked for; one of them keeps history.",
            remedy=f"Set mode: {held}, choose another `into`, or drop the replica first.",
        )


def pending(doing: str) -> str:
    """Return what is recorded while something is done that is no transaction: since when, and what."""
    return f"{datetime.now(UTC).isoformat(timespec='seconds')} {doing}"
