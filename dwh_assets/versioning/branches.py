"""Branches by hand: let main take one over, or just the rows that it appends, or drop it.

A branch is made by writing to it (`IcebergWriterConfig(branch=…)`). What its writes want of the table's
schema, spec, sort order and properties becomes current in the commit with which main takes it over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from pyiceberg.partitioning import PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.refs import MAIN_BRANCH, SnapshotRef, SnapshotRefType
from pyiceberg.table.snapshots import Snapshot
from pyiceberg.table.sorting import SortOrder
from pyiceberg.table.update import (
    AddSchemaUpdate,
    AssertCurrentSchemaId,
    AssertDefaultSortOrderId,
    AssertDefaultSpecId,
    AssertLastAssignedFieldId,
    AssertRefSnapshotId,
    RemoveSnapshotRefUpdate,
    SetSnapshotRefUpdate,
    TableRequirement,
    TableUpdate,
)

from dwh_assets.errors import ConfigurationError, ConflictError, DivergedError, NotFoundError
from dwh_assets.iceberg.ancestry import ancestors, is_on_main
from dwh_assets.iceberg.modes.plan import ROWS_DELETED, ROWS_INSERTED, ROWS_UPDATED
from dwh_assets.iceberg.names import name_of
from dwh_assets.iceberg.pending import Move, Pending, own_snapshots, pending_changes
from dwh_assets.iceberg.ref_commits import RefChange, commit_refs
from dwh_assets.iceberg.refs import drop_branch
from dwh_assets.iceberg.schema_merge import merged_schema
from dwh_assets.iceberg.snapshot import current_updates
from dwh_assets.iceberg.versions import RUN_ID
from dwh_assets.versioning.provenance import History

_SHOWN = 5


@dataclass(frozen=True)
class Published:
    """What main has taken over: its head before and now, and the snapshots in between, oldest first.

    `table` is the table with it; no snapshots means that main had all of the branch already.
    """

    table: Table
    branch: str
    before: int | None
    snapshot_id: int
    snapshots: tuple[int, ...]


def fast_forward(
    table: Table,
    branch: str,
    *,
    head: int | None = None,
    base: int | None = None,
    drop: bool = False,
    allow_rolled_back: bool = False,
) -> Published:
    """Let main take over a branch that goes on from where main is, in one commit, with or without the branch.

    `head` and `base` are the snapshots of the branch and of main that were looked at (audited): if one of
    them is no longer there, nothing is published. A branch that was begun on commits which main has rolled
    back since would bring these back; that has to be allowed. Raises `DivergedError` that tells what main has
    and the branch has not, or what would come back; `ConflictError` where the branch has moved,
    `NotFoundError` for an unknown branch.
    """
    found = branch_ref(table, branch)
    before, wanted = table.metadata.current_snapshot_id, head or found.snapshot_id
    if is_on_main(table.metadata, wanted):
        left = drop_branch(table.catalog, table, branch, head=wanted) if drop else table
        return Published(left, branch, before, wanted, ())

    def decide(table: Table) -> RefChange:
        _require_head(table, branch, wanted)
        require_ahead(table, branch, base, allow_rolled_back=allow_rolled_back)
        return _take_over(table, branch, wanted, drop=drop)

    snapshots = [s.snapshot_id for s in own_snapshots(table.metadata, table.snapshot_by_id(wanted))]
    moved = commit_refs(table.catalog, table, decide)
    return Published(moved, branch, before, wanted, tuple(reversed(snapshots)))


def branch_ref(table: Table, branch: str) -> SnapshotRef:
    """Return the branch; raises `NotFoundError` where there is none, `ConfigurationError` for a tag."""
    ref = table.metadata.refs.get(branch)
    if ref is None:
        raise NotFoundError(
            f"{name_of(table)} has no branch {branch!r}.",
            remedy=f"It has {', '.join(sorted(table.metadata.refs)) or 'none'}.",
        )
    if ref.snapshot_ref_type != SnapshotRefType.BRANCH:
        raise ConfigurationError(
            f"{name_of(table)}: {branch!r} is a tag, not a branch.", remedy="Name a branch."
        )
    return ref


def require_ahead(
    table: Table, branch: str, base: int | None = None, *, allow_rolled_back: bool = False
) -> None:
    """Raise `DivergedError` unless the branch goes on from main, which still stands at `base` if given.

    Nor may main have shown anything of it before a rollback, unless that is allowed.
    """
    main = table.metadata.current_snapshot_id
    if main is not None and main not in _line(table, branch):
        raise DivergedError(_divergence(table, branch), remedy=_REMEDY)
    if base is not None and main != base:
        raise DivergedError(
            f"{name_of(table)}: main has moved from snapshot {base} to {main} since branch {branch!r} was "
            "audited.",
            remedy=_REMEDY,
        )
    rolled_back = [] if allow_rolled_back else rolled_back_on(table, branch)
    if rolled_back:
        raise DivergedError(
            f"{name_of(table)}: branch {branch!r} was begun on snapshots that main has rolled back since, "
            f"and would bring {len(rolled_back)} of them back: {_listed(rolled_back)}.",
            remedy="Write again on a new branch, or cherry-pick the appends of this one; or allow that they "
            "come back: allow_rolled_back, or dwh publish --allow-rolled-back.",
        )


def rolled_back_on(table: Table, branch: str) -> list[Snapshot]:
    """Return what a branch has that main has shown before a rollback, newest first."""
    history = History(table)
    own = own_snapshots(table.metadata, table.snapshot_by_name(branch))
    return [snapshot for snapshot in own if history.was_shown(snapshot.snapshot_id)]


_REMEDY = "Write again on a new branch, or cherry-pick the appends of this one."


def _divergence(table: Table, branch: str) -> str:
    """Tell which commits main has that the branch lacks."""
    theirs, ours = _line(table, branch), ancestors(table.metadata, table.metadata.current_snapshot_id)
    commits = list(takewhile(lambda snapshot: snapshot.snapshot_id not in theirs, ours))
    counted = f"main has {len(commits)} snapshots that branch {branch!r} lacks"
    return f"{name_of(table)}: {counted}: {_listed(commits)}."


def _listed(snapshots: Sequence[Snapshot]) -> str:
    more = f"; and {len(snapshots) - _SHOWN} more" if len(snapshots) > _SHOWN else ""
    return "; ".join(map(_told, snapshots[:_SHOWN])) + more


def _told(snapshot: Snapshot) -> str:
    if snapshot.summary is None:
        return str(snapshot.snapshot_id)
    entries = snapshot.summary.additional_properties
    counted = {"inserted": ROWS_INSERTED, "updated": ROWS_UPDATED, "deleted": ROWS_DELETED}
    rows = [f"{entries[key]} rows {what}" for what, key in counted.items() if key in entries]
    if not rows and "added-records" in entries:
        rows = [f"{entries['added-records']} rows added"]
    run = [f"run {entries[RUN_ID]}"] if RUN_ID in entries else []
    return f"{snapshot.snapshot_id} ({', '.join([snapshot.summary.operation.value, *run, *rows])})"


def _line(table: Table, branch: str) -> set[int]:
    return {one.snapshot_id for one in ancestors(table.metadata, table.snapshot_by_name(branch))}


def _require_head(table: Table, branch: str, head: int) -> None:
    found = branch_ref(table, branch).snapshot_id
    if found != head:
        raise ConflictError(
            f"{name_of(table)}: branch {branch!r} has moved from snapshot {head} to {found} meanwhile.",
            remedy="Look at what is on it now, and try again.",
        )


def _unmoved(refs: dict[str, int]) -> list[TableRequirement]:
    return [AssertRefSnapshotId(ref=name, snapshot_id=at) for name, at in refs.items()]


def _take_over(table: Table, branch: str, head: int, *, drop: bool) -> RefChange:
    """Ask for main to stand at the branch's head, and for all that is pending on it."""
    metadata = table.metadata
    main = metadata.current_snapshot_id
    schema, wanted = _wanted(table, branch)
    requirements: list[TableRequirement] = [
        *_unmoved({branch: head, **({MAIN_BRANCH: main} if main is not None else {})}),
        AssertCurrentSchemaId(current_schema_id=metadata.current_schema_id),
        AssertDefaultSpecId(default_spec_id=metadata.default_spec_id),
        AssertDefaultSortOrderId(default_sort_order_id=metadata.default_sort_order_id),
    ]
    updates: list[TableUpdate] = []
    if schema is not None:
        requirements.append(AssertLastAssignedFieldId(last_assigned_field_id=metadata.last_column_id))
        updates.append(AddSchemaUpdate(schema_=schema))
    kept = metadata.refs.get(MAIN_BRANCH)
    updates += [
        *current_updates(wanted),
        SetSnapshotRefUpdate(
            ref_name=MAIN_BRANCH,
            type=SnapshotRefType.BRANCH,
            snapshot_id=head,
            max_ref_age_ms=kept.max_ref_age_ms if kept else None,
            max_snapshot_age_ms=kept.max_snapshot_age_ms if kept else None,
            min_snapshots_to_keep=kept.min_snapshots_to_keep if kept else None,
        ),
    ]
    if drop:
        updates.append(RemoveSnapshotRefUpdate(ref_name=branch))
    return RefChange(
        requirements,
        updates,
        lambda metadata: is_on_main(metadata, head) and not (drop and branch in metadata.refs),
    )


def _wanted(table: Table, branch: str) -> tuple[Schema | None, Pending]:
    """Return the schema to add, if there is none like it yet, and what has to become current."""
    metadata = table.metadata
    pending = pending_changes(metadata, metadata.snapshot_by_name(branch))
    name = name_of(table)
    spec = _moved("partitioning", pending.spec, metadata.default_spec_id, metadata.specs(), name)
    orders = {order.order_id: order for order in metadata.sort_orders}
    order = _moved("sort order", pending.sort_order, metadata.default_sort_order_id, orders, name)
    merged = schema_for_main(metadata, schema_move(metadata, metadata.snapshot_by_name(branch)), name)
    known = {schema.schema_id for schema in metadata.schemas}
    wanted = Pending(
        schema=None
        if merged.schema_id == metadata.current_schema_id
        else Move(metadata.current_schema_id, merged.schema_id),
        spec=spec,
        sort_order=order,
        properties={k: v for k, v in pending.properties.items() if metadata.properties.get(k) != v},
    )
    return None if merged.schema_id in known else merged, wanted


def schema_move(metadata: TableMetadata, head: Snapshot | None) -> Move | None:
    """Return from which schema to which the rows up to a head were brought since they parted from main.

    What its writes have noted is not all of it where main was rolled back since, beyond their beginning.
    """
    noted, own = pending_changes(metadata, head).schema, list(own_snapshots(metadata, head))
    parent_id = own[-1].parent_snapshot_id if own else None
    fork = None if parent_id is None else metadata.snapshot_by_id(parent_id)
    after = noted.after if noted else own[0].schema_id if own else None
    if fork is None or fork.schema_id is None or after is None:
        return noted
    return Move(fork.schema_id, after)


def schema_for_main(metadata: TableMetadata, move: Move | None, table: str) -> Schema:
    """Return main's columns with those of a branch that has moved from one schema to another.

    With the id that it has, or the next one. Raises `DivergedError` where they cannot be brought together.
    """
    if move is None:
        return metadata.schema()
    schemas = {schema.schema_id: schema for schema in metadata.schemas}
    if move.after not in schemas:
        raise _lost("schema", move.after, table)
    merged = merged_schema(metadata.schema(), schemas[move.after], schemas.get(move.before), table)
    for known in (metadata.schema(), *schemas.values()):
        if known == merged:
            return known
    return merged.model_copy(update={"schema_id": max(schemas) + 1})


def _moved(
    what: str,
    move: Move | None,
    current: int,
    known: dict[int, PartitionSpec] | dict[int, SortOrder],
    table: str,
) -> Move | None:
    """Return the branch's move to a spec or order of its own, unless main is there; refuse two moves."""
    if move is None or move.after == current:
        return None
    if move.before != current:
        raise DivergedError(
            f"{table}: the {what} was changed on main ({known.get(current)}) and on the branch "
            f"({known.get(move.after)}) since they parted.",
            remedy="Write the branch again, on main as it now is.",
        )
    if move.after not in known:
        raise _lost(what, move.after, table)
    return move


def _lost(what: str, number: int, table: str) -> NotFoundError:
    return NotFoundError(
        f"{table}: the {what} {number} that the branch was written with is no longer in its metadata.",
        remedy="Write the branch again.",
    )
