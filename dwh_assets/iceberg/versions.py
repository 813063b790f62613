"""Which version of a table is which: the logical snapshot, and a branch's ancestors."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.snapshots import Operation, Snapshot

from dwh_assets.iceberg.ancestry import ancestors
from dwh_assets.iceberg.pending import branch_view

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LOGICAL_SNAPSHOT_KEY = "dwh.logical-snapshot-id"
RUN_ID = "dwh.run-id"


def moment(timestamp_ms: int) -> datetime:
    """Return milliseconds since 1970, as Iceberg keeps moments, as a datetime in UTC."""
    return EPOCH + timedelta(milliseconds=timestamp_ms)


def logical_snapshot_id(metadata: TableMetadata, snapshot: Snapshot) -> int:
    """Return the id of the newest snapshot, from `snapshot` backwards, that changed rows.

    Compaction makes replace snapshots, which leave every row as it was. Ours name the logical snapshot
    in their summary, so that it is known even after the parents have expired; another engine's are seen
    through by walking to the first parent that is not a replace, as far as parents are kept.
    """
    newest = snapshot
    for ancestor in ancestors(metadata, snapshot):
        newest = ancestor
        if ancestor.summary is None or ancestor.summary.operation != Operation.REPLACE:
            break
        recorded = ancestor.summary.additional_properties.get(LOGICAL_SNAPSHOT_KEY)
        if recorded is not None:
            return int(recorded)
    return newest.snapshot_id


def branch_history(metadata: TableMetadata, branch: str) -> Iterator[Snapshot]:
    """Return the branch's snapshots from its head backwards, as far as they are kept.

    A branch that does not exist yet begins as main is, and has its history.
    """
    return ancestors(metadata, branch_start(metadata, branch))


def branch_start(metadata: TableMetadata, branch: str) -> Snapshot | None:
    """Return the snapshot that a write to the branch builds on: a branch that is not there begins at main."""
    return metadata.snapshot_by_name(branch) or metadata.current_snapshot()


def at_branch(table: Table, branch: str) -> Table:
    """Return the table as readers of a branch see it: the branch's head is its current snapshot.

    Its columns are those that the head was written with, see `pending.branch_view`. A branch that does not
    exist yet begins as main is, and reads so.
    """
    metadata = branch_view(table.metadata, branch)
    if metadata is table.metadata:
        return table
    return Table(table.name(), metadata, table.metadata_location, table.io, table.catalog, table.config)


def at_snapshot(table: Table, snapshot_id: int) -> Table:
    """Return the table as if a snapshot that it has were its current one."""
    metadata = table.metadata.model_copy(update={"current_snapshot_id": snapshot_id})
    return Table(table.name(), metadata, table.metadata_location, table.io, table.catalog, table.config)
