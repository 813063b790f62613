"""What a write did, told from the snapshot that it made."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pyiceberg.table import Table
from pyiceberg.table.snapshots import Operation, Snapshot

from dwh_assets.iceberg.modes.plan import ROWS_DELETED, ROWS_INSERTED, ROWS_UNCHANGED, ROWS_UPDATED
from dwh_assets.iceberg.row_counts import total_rows
from dwh_assets.iceberg.versions import branch_history, logical_snapshot_id

IDEMPOTENCY_KEY = "dwh.idempotency-key"


@dataclass(frozen=True)
class WriteResult:
    """What a write did. Ids are None only for a table that has no snapshot on the branch."""

    table: str
    operation: str
    snapshot_id: int | None
    parent_snapshot_id: int | None
    logical_snapshot_id: int | None
    rows_written: int
    rows_inserted: int
    rows_updated: int
    rows_deleted: int
    rows_unchanged: int
    files_added: int
    files_removed: int
    delete_files_added: int
    bytes_added: int
    bytes_removed: int
    total_rows: int
    total_files: int
    total_bytes: int
    manifest_list: str | None
    table_location: str
    schema_changes: tuple[str, ...] = ()
    attempts: int = 0
    repeated: bool = False
    seconds: float = 0.0

    @property
    def files_written(self) -> int:
        """Data files that this write added; another name for `files_added`."""
        return self.files_added

    @property
    def changed(self) -> bool:
        """Whether this write made a snapshot."""
        return self.attempts > 0

    def then(self, later: WriteResult) -> WriteResult:
        """Return what this write and a later one of the same table did together."""
        summed = {name: getattr(self, name) + getattr(later, name) for name in _SUMMED}
        both = self.operation if self.operation == later.operation else Operation.OVERWRITE.value
        return replace(later, operation=both, parent_snapshot_id=self.parent_snapshot_id, **summed)


# What counts up over several writes; everything else is as the last one left it.
_SUMMED = (
    "rows_written", "rows_inserted", "rows_updated", "rows_deleted", "rows_unchanged", "files_added",
    "files_removed", "delete_files_added", "bytes_added", "bytes_removed", "schema_changes", "attempts",
    "seconds",
)  # fmt: skip


def written_before(table: Table, branch: str, key: str) -> WriteResult | None:
    """Return what the write with this idempotency key did, if the branch has it.

    Looked for among the branch's own ancestors: a write that was rolled back is not done.
    """
    for snapshot in branch_history(table.metadata, branch):
        if snapshot.summary and snapshot.summary.additional_properties.get(IDEMPOTENCY_KEY) == key:
            return replace(result_of(table, snapshot, made=True), repeated=True)
    return None


def result_of(table: Table, snapshot: Snapshot | None, *, made: bool = False) -> WriteResult:
    """Describe a snapshot as the result of the write that made it, from its summary.

    Unless `made`, only what the table holds at the snapshot is told, not what the snapshot changed.
    """
    summary = snapshot.summary.additional_properties if snapshot and snapshot.summary else {}
    rows = total_rows(table, snapshot)

    def total(key: str) -> int:
        return int(summary.get(key, "0"))

    def change(key: str) -> int:
        return total(key) if made else 0

    return WriteResult(
        table=".".join(table.name()),
        operation=snapshot.summary.operation.value if made and snapshot and snapshot.summary else "none",
        snapshot_id=snapshot.snapshot_id if snapshot else None,
        parent_snapshot_id=snapshot.parent_snapshot_id if snapshot else None,
        logical_snapshot_id=logical_snapshot_id(table.metadata, snapshot) if snapshot else None,
        rows_written=change(ROWS_INSERTED) + change(ROWS_UPDATED),
        rows_inserted=change(ROWS_INSERTED),
        rows_updated=change(ROWS_UPDATED),
        rows_deleted=change(ROWS_DELETED),
        rows_unchanged=change(ROWS_UNCHANGED),
        files_added=change("added-data-files"),
        files_removed=change("deleted-data-files"),
        delete_files_added=change("added-delete-files"),
        bytes_added=change("added-files-size"),
        bytes_removed=change("removed-files-size"),
        total_rows=total("total-records") if rows is None else rows,
        total_files=total("total-data-files"),
        total_bytes=total("total-files-size"),
        manifest_list=snapshot.manifest_list if snapshot else None,
        table_location=table.location(),
    )
