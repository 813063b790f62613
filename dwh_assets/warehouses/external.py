"""`external`: no rows are copied; the warehouse reads the table's files, and a sync shows it other ones."""

from __future__ import annotations

from dataclasses import dataclass, replace

from dwh_assets.errors import UnsupportedError
from dwh_assets.iceberg.row_counts import total_rows
from dwh_assets.warehouses.base import ReplicaState
from dwh_assets.warehouses.sync import Brought, Sync, pending


@dataclass(frozen=True)
class ShowFiles(Sync):
    """A sync that points a view, or an external table, at a snapshot of the table."""

    def bring(self) -> Brought:
        """Point it there, unless it is. Raises `UnsupportedError` for a table that has no snapshot yet."""
        seen, found = self._prepared()
        held = seen if seen.synced_at else None
        snapshot = self.source.snapshot
        if snapshot is None:
            raise UnsupportedError(
                f"{self.source.name} has no snapshot yet, so there are no files to show.",
                remedy="Write to it first.",
            )
        if found and held and not held.pending and self._shows(held):
            return Brought("none", f"it shows snapshot {held.snapshot_id}", held)
        self._point(seen)
        reason = f"it showed snapshot {held.snapshot_id}" if held else "it is the first sync"
        return Brought("repointed", reason, held)

    def _shows(self, held: ReplicaState) -> bool:
        """Tell whether it shows this very snapshot: files of an older one, equal in rows, may be removed."""
        return (held.table_uuid, held.mode, held.snapshot_id, held.schema_id) == (
            self.source.table_uuid,
            self.mode,
            self.source.snapshot_id,
            self.source.schema.schema_id,
        )

    def _point(self, seen: ReplicaState) -> None:
        state = self._state(total_rows(self.source.table, self.source.snapshot) or 0)
        if self._transactional:
            with self.session.transaction():
                claimed = self.records.claim(seen)
                self._show()
                self.records.change(claimed, state)
        else:
            intent = self.records.change(seen, replace(seen, pending=pending("showing other files")))
            self._show()
            self.records.change(intent, state)

    def _show(self) -> None:
        current = self.source.table.current_snapshot()
        newest = current is not None and current.snapshot_id == self.source.snapshot_id
        location = self.source.table.metadata_location
        self.session.show_files(self.target, location, None if newest else self.source.snapshot_id)
