"""How many rows a version of a table holds: files tell it only where no deletes are left over."""

from __future__ import annotations

from collections.abc import Mapping

from pyiceberg.table import FileScanTask, Table
from pyiceberg.table.snapshots import Snapshot

from dwh_assets.iceberg.files.position_deletes import deletes_of
from dwh_assets.iceberg.files.reading import live_count
from dwh_assets.iceberg.scan import planned_files

# Every write of ours keeps the number in its summary, so that the next one need not count.
TOTAL_ROWS = "dwh.total-rows"


def total_rows(table: Table, snapshot: Snapshot | None) -> int | None:
    """Return the number of live rows; None where equality deletes hide it.

    The snapshot's summary knows it, if we made it or if there are no deletes. Otherwise delete files are
    looked at: other engines leave some behind that mark nothing any more.
    """
    if snapshot is None:
        return 0
    summary = snapshot.summary.additional_properties if snapshot.summary else {}
    recorded = recorded_rows(summary)
    if recorded is not None or int(summary.get("total-equality-deletes", "0")):
        return recorded
    return sum(_live(table, task) for task in planned_files(table.scan(snapshot_id=snapshot.snapshot_id)))


def recorded_rows(summary: Mapping[str, str]) -> int | None:
    """Return the number of live rows that a snapshot's summary knows; None where only files tell it."""
    if TOTAL_ROWS in summary:
        return int(summary[TOTAL_ROWS])
    if int(summary.get("total-equality-deletes", "0")):
        return None
    if summary.get("total-position-deletes") == "0" and "total-records" in summary:
        return int(summary["total-records"])
    return None


def _live(table: Table, task: FileScanTask) -> int:
    """A single delete file of this data file alone is taken at its word; others are read, and may overlap."""
    if not task.delete_files:
        return int(task.file.record_count)
    own = deletes_of(task)
    if len(task.delete_files) != 1 or not own:
        return live_count(table.metadata, table.io, task)
    return int(task.file.record_count) - int(own[0].record_count)
