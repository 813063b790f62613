"""Point `main` at another snapshot of its table, in one commit with the tag on what it leaves.

No data is touched. The columns are the table's and not a snapshot's own, so the commit says which of those
that the table knows become current.
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from pyiceberg.catalog import Catalog
from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.refs import MAIN_BRANCH, SnapshotRefType
from pyiceberg.table.update import (
    AssertCurrentSchemaId,
    AssertRefSnapshotId,
    AssertTableUUID,
    SetCurrentSchemaUpdate,
    SetSnapshotRefUpdate,
    TableRequirement,
    TableUpdate,
)

from dwh_assets.errors import ConflictError
from dwh_assets.iceberg.ref_commits import RefChange, commit_refs

# What the tag on a head that is left is called
TAG_PREFIX = "before-rollback-"


@dataclass(frozen=True)
class Move:
    """Where `main` goes from and to, the tag for what it leaves, and what else becomes current with it.

    A `schema_id` of None leaves the columns as they are.
    """

    table_uuid: UUID
    from_snapshot_id: int
    to_snapshot_id: int
    tag: str
    schema_id: int | None = None

    def change(self, table: Table) -> RefChange:
        """Return what to ask of the catalog: all of it, and only if the table stands where it was seen."""
        metadata = table.metadata
        requirements: list[TableRequirement] = [
            AssertTableUUID(uuid=self.table_uuid),
            AssertRefSnapshotId(ref=MAIN_BRANCH, snapshot_id=self.from_snapshot_id),
            AssertRefSnapshotId(ref=self.tag, snapshot_id=None),
        ]
        updates: list[TableUpdate] = [_ref(self.tag, SnapshotRefType.TAG, self.from_snapshot_id)]
        if self.schema_id is not None:
            requirements.append(AssertCurrentSchemaId(current_schema_id=metadata.current_schema_id))
            updates.append(SetCurrentSchemaUpdate(schema_id=self.schema_id))
        main = metadata.refs[MAIN_BRANCH]
        moved = _ref(MAIN_BRANCH, SnapshotRefType.BRANCH, self.to_snapshot_id).model_copy(
            update={
                "max_ref_age_ms": main.max_ref_age_ms,
                "max_snapshot_age_ms": main.max_snapshot_age_ms,
                "min_snapshots_to_keep": main.min_snapshots_to_keep,
            }
        )
        return RefChange(requirements, [*updates, moved], self.has_happened)

    def has_happened(self, metadata: TableMetadata) -> bool:
        """Tell whether the tag is there and `main` has gone the way of this move; it may have gone on."""
        ref = metadata.refs.get(self.tag)
        shown = [entry.snapshot_id for entry in metadata.snapshot_log]
        since = shown[::-1].index(self.from_snapshot_id) if self.from_snapshot_id in shown else len(shown)
        tagged = ref is not None and ref.snapshot_id == self.from_snapshot_id
        return tagged and self.to_snapshot_id in shown[len(shown) - since :]


def _ref(name: str, kind: SnapshotRefType, snapshot_id: int) -> SetSnapshotRefUpdate:
    return SetSnapshotRefUpdate(
        ref_name=name,
        type=kind,
        snapshot_id=snapshot_id,
        max_ref_age_ms=None,
        max_snapshot_age_ms=None,
        min_snapshots_to_keep=None,
    )


def move_main(catalog: Catalog, table: Table, move: Move) -> Table:
    """Make the move, or nothing; return the table after it.

    Commits that leave `main` where it was seen (to a branch, say) are waited out. Raises `ConflictError` when
    `main` moved, and what `ref_commits.commit_refs` raises.
    """

    def decide(current: Table) -> RefChange:
        if current.metadata.current_snapshot_id != move.from_snapshot_id:
            raise ConflictError(
                f"{'.'.join(table.name())}: other commits arrived, main shows snapshot "
                f"{current.metadata.current_snapshot_id} and no longer {move.from_snapshot_id}; nothing was "
                "changed.",
                remedy="Look at what arrived, then plan it again.",
            )
        return move.change(current)

    if move.has_happened(table.metadata):
        return table
    return commit_refs(catalog, table, decide)
