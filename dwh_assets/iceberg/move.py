"""Point `main` at another snapshot of its table, in one commit with the tag on what it leaves.

No data is touched. The columns, partitioning and order of the table are not a snapshot's own, so the commit
says which of those that the table knows become current.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from uuid import UUID

from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table import Table
from pyiceberg.table.refs import MAIN_BRANCH, SnapshotRefType
from pyiceberg.table.update import (
    AssertCurrentSchemaId,
    AssertDefaultSortOrderId,
    AssertDefaultSpecId,
    AssertRefSnapshotId,
    AssertTableUUID,
    SetCurrentSchemaUpdate,
    SetDefaultSortOrderUpdate,
    SetDefaultSpecUpdate,
    SetSnapshotRefUpdate,
    TableRequirement,
    TableUpdate,
)

from dwh_assets.errors import CommitUnknownError, ConflictError
from dwh_assets.iceberg.commit import noted_metadata
from dwh_assets.iceberg.snapshot import MetadataFiles, discard_metadata

_ATTEMPTS = 20


@dataclass(frozen=True)
class Move:
    """Where `main` goes from and to, the tag for what it leaves, and what else becomes current with it.

    Ids that are None stay as the table has them.
    """

    table_uuid: UUID
    from_snapshot_id: int
    to_snapshot_id: int
    tag: str
    schema_id: int | None = None
    spec_id: int | None = None
    sort_order_id: int | None = None

    def request(self, table: Table) -> tuple[tuple[TableRequirement, ...], tuple[TableUpdate, ...]]:
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
        if self.spec_id is not None:
            requirements.append(AssertDefaultSpecId(default_spec_id=metadata.default_spec_id))
            updates.append(SetDefaultSpecUpdate(spec_id=self.spec_id))
        if self.sort_order_id is not None:
            requirements.append(
                AssertDefaultSortOrderId(default_sort_order_id=metadata.default_sort_order_id)
            )
            updates.append(SetDefaultSortOrderUpdate(sort_order_id=self.sort_order_id))
        main = metadata.refs[MAIN_BRANCH]
        moved = _ref(MAIN_BRANCH, SnapshotRefType.BRANCH, self.to_snapshot_id).model_copy(
            update={
                "max_ref_age_ms": main.max_ref_age_ms,
                "max_snapshot_age_ms": main.max_snapshot_age_ms,
                "min_snapshots_to_keep": main.min_snapshots_to_keep,
            }
        )
        return tuple(requirements), (*updates, moved)


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
    `main` moved, `CommitUnknownError` when the catalog's answer was lost and the table cannot tell.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        found = _try(catalog, table, move)
        if isinstance(found, Table):
            return found
        table = table.refresh()
        if table.metadata.current_snapshot_id != move.from_snapshot_id:
            break
        time.sleep(random.uniform(0, 0.02 * attempt))
    raise ConflictError(
        f"{'.'.join(table.name())}: other commits arrived, main shows snapshot "
        f"{table.metadata.current_snapshot_id} and no longer {move.from_snapshot_id}; nothing was changed.",
        remedy="Look at what arrived, then plan it again.",
    )


def _try(catalog: Catalog, table: Table, move: Move) -> Table | CommitFailedException:
    """Ask once; whatever the answer, the table tells whether it landed."""
    written: MetadataFiles = []
    try:
        with noted_metadata(catalog, written):
            catalog.commit_table(table, *move.request(table))
    except Exception as error:
        fresh = _reread(table, error)
        if _landed(fresh, move):
            return fresh
        if not isinstance(error, CommitFailedException):
            raise
        discard_metadata(written, keep=fresh.metadata_location)
        return error
    return table.refresh()


def _reread(table: Table, error: Exception) -> Table:
    try:
        return table.refresh()
    except Exception as unreadable:
        raise CommitUnknownError(
            f"{'.'.join(table.name())}: the catalog did not answer ({type(error).__name__}), so it is "
            "unknown whether main was moved.",
            remedy="Once the catalog answers, repeat it: what is done already is recognised.",
        ) from unreadable


def _landed(table: Table, move: Move) -> bool:
    """Tell whether the tag is there and `main` has gone the way of this move; it may have gone on since."""
    ref = table.metadata.refs.get(move.tag)
    shown = [entry.snapshot_id for entry in table.metadata.snapshot_log]
    left_at = len(shown) - shown[::-1].index(move.from_snapshot_id) if move.from_snapshot_id in shown else 0
    return (
        ref is not None
        and ref.snapshot_id == move.from_snapshot_id
        and move.to_snapshot_id in shown[left_at:]
    )
