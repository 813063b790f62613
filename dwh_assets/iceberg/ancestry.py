"""Snapshots and those that they were built on."""

from __future__ import annotations

from collections.abc import Iterator

from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.snapshots import Snapshot


def ancestors(metadata: TableMetadata, head: Snapshot | int | None) -> Iterator[Snapshot]:
    """Yield a snapshot and those before it, newest first, as far as they are kept.

    They are looked up by id: PyIceberg's own walk takes time that grows with the square of the history.
    """
    kept = {snapshot.snapshot_id: snapshot for snapshot in metadata.snapshots}
    current = kept.get(head) if isinstance(head, int) else head
    while current is not None:
        yield current
        parent = current.parent_snapshot_id
        current = None if parent is None else kept.get(parent)


def is_on_main(metadata: TableMetadata, snapshot_id: int) -> bool:
    """Tell whether what main shows is a snapshot, or was built on it."""
    line = ancestors(metadata, metadata.current_snapshot_id)
    return any(snapshot.snapshot_id == snapshot_id for snapshot in line)
