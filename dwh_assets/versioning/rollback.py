"""Bring `main` of one table back to a version that it has shown, and lose nothing by it.

A rollback sets `main` to the older snapshot, as Iceberg's own does, and in the same commit

- tags the head that it leaves (`before-rollback-…`), so that it can be undone after any expiry: rolling
  back to that tag is the undo;
- makes the columns of the snapshot the table's again where they differ, so that the table reads back
  exactly what the version said. Iceberg's own rollback leaves the newer columns, as nulls. Partitioning,
  sort order and properties stay; where the first two need a column that would go, the columns stay as well.

What is planned can be looked at first: a plan is data, and is applied only to the table that it was made for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pyiceberg.catalog import Catalog
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.snapshots import Snapshot

from dwh_assets.errors import ConfigurationError, ConflictError, NotFoundError
from dwh_assets.iceberg.move import TAG_PREFIX, Move, move_main
from dwh_assets.iceberg.pending import BRANCH_KEY
from dwh_assets.iceberg.versions import RUN_ID, moment
from dwh_assets.versioning.catalog_tables import CatalogTables
from dwh_assets.versioning.provenance import PARTITION_KEY, History, entries


@dataclass(frozen=True)
class Commit:
    """One commit that `main` no longer shows after a rollback, or shows again."""

    snapshot_id: int
    committed_at: datetime
    operation: str
    run_id: str | None
    partition: str | None


@dataclass(frozen=True)
class TableRollback:
    """What a rollback of one table does, or has done.

    `dropped` are the commits that `main` will no longer show, newest first; `lost` are those of them that do
    not come after the target but beside it. `restored` are commits that it shows again. `notes` say what
    becomes of the columns. Where `main` stands there already, `move` is None.
    """

    table: str
    from_snapshot_id: int
    to_snapshot_id: int
    from_logical_id: int
    to_logical_id: int
    dropped: tuple[Commit, ...]
    lost: tuple[Commit, ...]
    restored: tuple[Commit, ...]
    notes: tuple[str, ...]
    move: Move | None

    @property
    def tag(self) -> str | None:
        """The tag on the head that is left; rolling back to it is the undo."""
        return self.move.tag if self.move else None

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON; ids are text, as numbers they lose digits in browsers."""
        return {
            "table": self.table,
            "from_snapshot_id": str(self.from_snapshot_id),
            "to_snapshot_id": str(self.to_snapshot_id),
            "to_logical_snapshot_id": str(self.to_logical_id),
            "tag": self.tag,
            "dropped": _listed(self.dropped),
            "lost": _listed(self.lost),
            "restored": _listed(self.restored),
            "notes": list(self.notes),
        }

    def to_markdown(self) -> str:
        """Say in a few lines what it does."""
        if self.move is None:
            return f"**{self.table}** is at snapshot `{self.to_snapshot_id}` already."
        way = f"main goes from snapshot `{self.from_snapshot_id}` to `{self.to_snapshot_id}`"
        lines = [f"**{self.table}**: {way}; what it leaves is kept as the tag `{self.tag}`."]
        for commits, what in ((self.dropped, "no longer shown"), (self.restored, "shown again")):
            lines += [
                f"- {what}: `{c.snapshot_id}`, {c.operation} of {c.committed_at:%Y-%m-%d %H:%M:%S}"
                + (f", run {c.run_id[:8]}" if c.run_id else "")
                for c in commits
            ]
        return "\n".join([*lines, *(f"- {note}" for note in self.notes)])


def _listed(commits: Iterable[Commit]) -> list[dict[str, Any]]:
    return [
        {
            "snapshot_id": str(commit.snapshot_id),
            "committed_at": commit.committed_at.isoformat(),
            "operation": commit.operation,
            "run_id": commit.run_id,
            "partition": commit.partition,
        }
        for commit in commits
    ]


def rollback(
    catalog: Catalog,
    table: str,
    to: int,
    *,
    expected_head: int | None = None,
    allow_lost: bool = False,
    allow_unpublished: bool = False,
    dry_run: bool = False,
) -> TableRollback:
    """Set `main` of a table back to snapshot `to`, and return what that did; a dry run only plans.

    `expected_head` is the snapshot that the caller saw on `main`: where another is there by now, commits have
    arrived that nobody looked at, and nothing is done. A target beside which `main` has gone another way
    (after a rollback and a new write, the head from before) is refused, because the commits of that way would
    be lost; `allow_lost` allows it. Either way the tag keeps them. A target that `main` is not known to have
    shown may have failed its audits, and is refused unless `allow_unpublished`.

    Raises `NotFoundError` when table or target are not there, `ConfigurationError` for a target that `main`
    never showed or with commits beside it, `ConflictError` when other commits arrived,
    `CommitUnknownError` when the catalog's answer was lost.
    """
    history = CatalogTables(catalog).require(table)
    plan = plan_table_rollback(history.table, to, allow_unpublished=allow_unpublished)
    if expected_head is not None and expected_head != plan.from_snapshot_id:
        raise ConflictError(
            f"{table}: main was expected at snapshot {expected_head}, but shows {plan.from_snapshot_id}.",
            remedy="Look at the commits that arrived, then roll back with the new head.",
        )
    if plan.lost and not allow_lost:
        newest = plan.lost[0]
        raise ConfigurationError(
            f"{table}: {len(plan.lost)} commits of main do not come after snapshot {to} but beside it, and "
            f"would be lost; the newest is {newest.snapshot_id} of {newest.committed_at:%Y-%m-%d %H:%M:%S}.",
            remedy="Roll back to an earlier snapshot of main, or allow it with allow_lost: a tag keeps them.",
        )
    if not dry_run:
        apply_table_rollback(catalog, plan)
    return plan


def apply_table_rollback(catalog: Catalog, plan: TableRollback) -> Table:
    """Do what was planned, if `main` still stands where the plan saw it; else raise `ConflictError`."""
    table = CatalogTables(catalog).require(plan.table).table
    if plan.move is None:
        return table
    return move_main(catalog, table, plan.move)


def plan_table_rollback(table: Table, to: int, *, allow_unpublished: bool = False) -> TableRollback:
    """Return what setting `main` to snapshot `to` would do.

    Raises `NotFoundError` when the target is gone, and, unless that is allowed, `ConfigurationError` when
    `main` is not known to have shown it.
    """
    history = History(table)
    head, target = _head(history), history.kept.get(to)
    if target is None:
        raise NotFoundError(
            f"{history.name} has no snapshot {to} (any more), so it cannot be rolled back to it.",
            remedy="Choose one of the table's history; a tag would have kept it from expiry.",
        )
    if not allow_unpublished:
        _require_shown(history, to)
    before, after = _ids(history, head), _ids(history, to)
    dropped = [snapshot for snapshot in history.ancestors(head) if snapshot.snapshot_id not in after]
    beside = not (history.is_at_or_before(to, head) or history.is_at_or_before(head, to))
    schema_id, notes = _columns_of(table.metadata, target)
    move = Move(
        table_uuid=table.metadata.table_uuid,
        from_snapshot_id=head,
        to_snapshot_id=to,
        tag=_free_tag(table.metadata),
        schema_id=schema_id,
    )
    return TableRollback(
        table=history.name,
        from_snapshot_id=head,
        to_snapshot_id=to,
        from_logical_id=history.logical(head),
        to_logical_id=history.logical(to),
        dropped=tuple(map(_commit, dropped)),
        lost=tuple(map(_commit, dropped)) if beside else (),
        restored=tuple(_commit(s) for s in history.ancestors(to) if s.snapshot_id not in before),
        notes=tuple(notes) if to != head else (),
        move=move if to != head else None,
    )


def _head(history: History) -> int:
    if history.head is None:
        raise NotFoundError(f"{history.name} has no snapshot yet.", remedy="There is nothing to roll back.")
    return history.head


def _ids(history: History, snapshot_id: int) -> set[int]:
    return {snapshot.snapshot_id for snapshot in history.ancestors(snapshot_id)}


def _require_shown(history: History, to: int) -> None:
    """Refuse what was only ever on a branch: audits stand between that and `main`."""
    if not history.was_shown(to):
        raise ConfigurationError(
            f"{history.name}: main is not known to have shown snapshot {to}{_written_to(history, to)}: its "
            "rows may never have passed an audit.",
            remedy="Publish its branch, or allow it: allow_unpublished, or dwh rollback --allow-unpublished.",
        )


def _written_to(history: History, snapshot_id: int) -> str:
    branch = entries(history.kept[snapshot_id]).get(BRANCH_KEY)
    return f", which was written to branch {branch!r}" if branch else ""


def _commit(snapshot: Snapshot) -> Commit:
    told = entries(snapshot)
    operation = snapshot.summary.operation.value if snapshot.summary else "unknown"
    at = moment(snapshot.timestamp_ms)
    return Commit(snapshot.snapshot_id, at, operation, told.get(RUN_ID), told.get(PARTITION_KEY))


def _free_tag(metadata: TableMetadata) -> str:
    name = f"{TAG_PREFIX}{datetime.now(UTC):%Y%m%d-%H%M%S}"
    number = 1
    while (free := name if number == 1 else f"{name}-{number}") in metadata.refs:
        number += 1
    return free


def _columns_of(metadata: TableMetadata, target: Snapshot) -> tuple[int | None, list[str]]:
    """Return the schema that becomes current with a snapshot, None where it stays, and what that means.

    It stays where a partitioning that the table has known, or its sort order, is by a column that would go:
    the table could not be inspected any more.
    """
    wanted = next((schema for schema in metadata.schemas if schema.schema_id == target.schema_id), None)
    if wanted is None or wanted.schema_id == metadata.current_schema_id:
        return None, []
    needed = set(_sources(metadata)) - set(wanted.field_ids)
    if needed:
        names = ", ".join(sorted(metadata.schema().find_column_name(i) or str(i) for i in needed))
        return None, [f"the columns stay those of now: the table is partitioned or sorted by {names}"]
    return wanted.schema_id, _differences(metadata.schema(), wanted)


def _sources(metadata: TableMetadata) -> Iterator[int]:
    """Yield the ids of the columns that the table's partition specs, and its sort order, are made from."""
    order = metadata.sort_order_by_id(metadata.default_sort_order_id)
    for spec in metadata.partition_specs:
        yield from (field.source_id for field in spec.fields)
    yield from (field.source_id for field in (order.fields if order else ()))


def _differences(now: Schema, then: Schema) -> list[str]:
    """Say which columns come and go, and which change, by field id."""
    old = {field.field_id: field for field in now.fields}
    new = {field.field_id: field for field in then.fields}
    return [
        *(f"column {old[i].name} goes" for i in old.keys() - new.keys()),
        *(f"column {new[i].name} comes back" for i in new.keys() - old.keys()),
        *(f"column {old[i].name} becomes {new[i]}" for i in old.keys() & new.keys() if old[i] != new[i]),
    ] or ["the columns change in their order or keys"]
