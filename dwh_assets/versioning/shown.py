"""What the main branch of a table showed at a moment: proved, or not told.

The snapshot log says when main moved to which snapshot, but not after expiry: PyIceberg takes the entries of
an expired snapshot out of the middle, so that its predecessor seems to have been shown longer than it was
(Iceberg's own library cuts the log at the gap instead). An entry is therefore believed only where nothing can
be missing after it; elsewhere the metadata file of that moment is asked, as long as it is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from pyiceberg.serializers import FromInputFile
from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata, TableMetadataV1
from pyiceberg.table.snapshots import SnapshotLogEntry

from dwh_assets.iceberg.versions import EPOCH


class ExpiredInterval(Protocol):
    """A time [shown_from, shown_to) in which main showed a snapshot that is expired now.

    Both are None for a snapshot that main never showed. `reason` names the policy or person that expired it.
    """

    @property
    def snapshot_id(self) -> int:
        """The snapshot that is gone."""
        ...

    @property
    def shown_from(self) -> datetime | None:
        """When main moved to it."""
        ...

    @property
    def shown_to(self) -> datetime | None:
        """When main moved on."""
        ...

    @property
    def reason(self) -> str:
        """By whom or by what it was expired."""
        ...


class ExpiredIntervals(Protocol):
    """What remembers the snapshots of tables that were expired; the ledger does."""

    def expired_intervals(self, table: str) -> Sequence[ExpiredInterval]:
        """Return what is recorded of the snapshots of `namespace.table` that are gone."""
        ...


@dataclass(frozen=True)
class Shown:
    """What main showed; None: nothing yet. Unless `known`, it may have been one that is gone instead.

    `reason` says by what a snapshot that is gone was expired, where that is recorded.
    """

    snapshot_id: int | None
    known: bool = True
    reason: str = ""


def shown_at(table: Table, at: datetime, ledger: ExpiredIntervals | None) -> Shown:
    """Return what main of the table showed at a moment, which must not lie in the future.

    Costs nothing that grows with the history, unless the snapshot log cannot be believed at this moment: then
    one older metadata file is read.
    """
    metadata, at_ms = table.metadata, (at - EPOCH) // timedelta(milliseconds=1)
    position = _position(metadata.snapshot_log, at_ms)
    shown = _at_position(metadata, position)
    if _stayed_until_next(metadata, position):
        return shown
    if metadata.last_updated_ms <= at_ms:
        return Shown(metadata.current_snapshot_id)
    recorded = ledger.expired_intervals(".".join(table.name())) if ledger else ()
    for interval in recorded:
        if interval.shown_from and interval.shown_to and interval.shown_from <= at < interval.shown_to:
            return Shown(interval.snapshot_id, reason=interval.reason)
    if position >= 0 and _knows_all(metadata, {interval.snapshot_id for interval in recorded}):
        return shown
    return _remembered(table, at_ms) or Shown(shown.snapshot_id, known=False)


def _remembered(table: Table, at_ms: int) -> Shown | None:
    """Return what the metadata file of the moment knows, or the oldest that is kept; None if that is nothing.

    It was written before whatever has been expired since.
    """
    files = table.metadata.metadata_log
    then = next((file for file in reversed(files) if file.timestamp_ms <= at_ms), files[0] if files else None)
    if then is None:
        return None
    try:
        metadata = FromInputFile.table_metadata(table.io.new_input(then.metadata_file))
    except Exception:  # old metadata files are deleted, by any tool, whenever somebody asks for that
        return None
    if then.timestamp_ms <= at_ms:
        return Shown(metadata.current_snapshot_id)
    position = _position(metadata.snapshot_log, at_ms)
    if _stayed_until_next(metadata, position) or (position >= 0 and _knows_all(metadata, set())):
        return _at_position(metadata, position)
    return None


def _position(log: Sequence[SnapshotLogEntry], at_ms: int) -> int:
    """Return the last entry that is not later; -1 before the first. The order of entries is what happened."""
    return next((i for i in range(len(log) - 1, -1, -1) if log[i].timestamp_ms <= at_ms), -1)


def _at_position(metadata: TableMetadata, position: int) -> Shown:
    return Shown(metadata.snapshot_log[position].snapshot_id if position >= 0 else None)


def _stayed_until_next(metadata: TableMetadata, position: int) -> bool:
    """Tell whether main surely stayed where the log's entry says, until the entry after it.

    A commit is accepted only while main stands on its parent. Had main been elsewhere in between, it would
    have come back, with an entry of its own that is kept as long as its snapshot.
    """
    log = metadata.snapshot_log
    if position == len(log) - 1:
        shown = log[position].snapshot_id if log else None
        return shown == metadata.current_snapshot_id
    following = log[position + 1]
    snapshot = metadata.snapshot_by_id(following.snapshot_id)
    if snapshot is None or snapshot.timestamp_ms != following.timestamp_ms:
        return False
    if position < 0:
        return snapshot.sequence_number == 1
    return snapshot.parent_snapshot_id == log[position].snapshot_id


def _knows_all(metadata: TableMetadata, recorded: set[int]) -> bool:
    """Tell whether every snapshot that ever was is kept or recorded: they are numbered one by one."""
    if isinstance(metadata, TableMetadataV1) or not all(s.sequence_number for s in metadata.snapshots):
        return False
    kept = {snapshot.snapshot_id for snapshot in metadata.snapshots}
    return len(kept | recorded) == metadata.last_sequence_number
