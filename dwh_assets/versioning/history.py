"""What happened to a table: its snapshots with their names, the runs that made them and what those had read.

Told from the table's metadata alone, and from the ledger of what metadata cannot know any more.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pyarrow as pa
from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.refs import MAIN_BRANCH
from pyiceberg.table.snapshots import Snapshot

from dwh_assets.iceberg.modes.plan import ROWS_DELETED, ROWS_INSERTED, ROWS_UPDATED
from dwh_assets.iceberg.row_counts import TOTAL_ROWS, recorded_rows
from dwh_assets.iceberg.versions import RUN_ID, branch_history, logical_snapshot_id, moment
from dwh_assets.versioning.shown import ExpiredInterval, ExpiredIntervals

INPUT_PREFIX = "dwh.input."
_MOMENT = pa.timestamp("ms", "UTC")


@dataclass(frozen=True)
class Version:
    """One snapshot: where it stands, what it changed, who made it and from what.

    `on_main` tells whether main's head descends from it. `shown_from` are the moments when main moved to it,
    as far as the log is kept. `inputs` are the snapshots of other tables that were read for it, by table.
    Row counts are None where nobody recorded them. Of a version that is not `kept` only its id is known, by
    what it was expired (`expired_by`), and when main showed it, if that was recorded. `gone_before` counts
    the snapshots between the one before this and this one that were expired.
    """

    snapshot_id: int
    parent_snapshot_id: int | None = None
    logical_snapshot_id: int | None = None
    sequence_number: int | None = None
    committed_at: datetime | None = None
    operation: str | None = None
    refs: tuple[str, ...] = ()
    on_main: bool = False
    shown_from: tuple[datetime, ...] = ()
    run_id: str | None = None
    asset_key: str | None = None
    partition_key: str | None = None
    inputs: Mapping[str, tuple[int, ...]] | None = None
    rows_inserted: int | None = None
    rows_updated: int | None = None
    rows_deleted: int | None = None
    total_rows: int | None = None
    files_added: int | None = None
    files_removed: int | None = None
    kept: bool = True
    expired_by: str | None = None
    gone_before: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold: ids and moments are text, since many readers round large numbers."""
        return {
            **asdict(self),
            **{name: _text(getattr(self, name)) for name in _IDS},
            "committed_at": self.committed_at.isoformat() if self.committed_at else None,
            "refs": list(self.refs),
            "shown_from": [at.isoformat() for at in self.shown_from],
            "inputs": {name: [str(id_) for id_ in ids] for name, ids in (self.inputs or {}).items()},
        }


_IDS = ("snapshot_id", "parent_snapshot_id", "logical_snapshot_id")
_SCHEMA = pa.schema(
    [
        *((name, pa.int64()) for name in (*_IDS, "sequence_number")),
        ("committed_at", _MOMENT),
        ("operation", pa.string()),
        ("refs", pa.list_(pa.string())),
        ("on_main", pa.bool_()),
        ("shown_from", pa.list_(_MOMENT)),
        *((name, pa.string()) for name in ("run_id", "asset_key", "partition_key")),
        ("inputs", pa.map_(pa.string(), pa.list_(pa.int64()))),
        *((name, pa.int64()) for name in ("rows_inserted", "rows_updated", "rows_deleted", "total_rows")),
        *((name, pa.int64()) for name in ("files_added", "files_removed")),
        ("kept", pa.bool_()),
        ("expired_by", pa.string()),
        ("gone_before", pa.int64()),
    ]
)


def history(table: Table, ledger: ExpiredIntervals | None = None) -> list[Version]:
    """Return the versions of a table, oldest first, and those that are known to be gone.

    Reads nothing but the table's metadata; versions of all branches are among them.
    """
    metadata = table.metadata
    kept = sorted(metadata.snapshots, key=lambda snapshot: (snapshot.timestamp_ms, snapshot.snapshot_id))
    told = _Told(metadata)
    versions = [told.version(snapshot) for snapshot in kept]
    recorded = ledger.expired_intervals(".".join(table.name())) if ledger else ()
    gone = [version for version in _gone(metadata, recorded) if version.snapshot_id not in told.kept]
    return sorted([*gone, *versions], key=lambda version: (_when(version, metadata), version.kept))


def history_table(versions: Sequence[Version]) -> pa.Table:
    """Return versions as an Arrow table, a column for each attribute."""
    rows = [{**vars(version), "inputs": list((version.inputs or {}).items())} for version in versions]
    return pa.Table.from_pylist(rows, schema=_SCHEMA)


def recorded_inputs(summary: Mapping[str, str]) -> dict[str, tuple[int, ...]]:
    """Return the snapshots that were read for a snapshot, by table, from its summary.

    There are several of one table where a run has read it at several points in time.
    """
    return {
        key.removeprefix(INPUT_PREFIX): tuple(int(snapshot_id) for snapshot_id in ids.split(","))
        for key, ids in summary.items()
        if key.startswith(INPUT_PREFIX)
    }


class _Told:
    """What the metadata tell of each snapshot, gathered once for all of them."""

    def __init__(self, metadata: TableMetadata) -> None:
        self.kept = {snapshot.snapshot_id for snapshot in metadata.snapshots}
        self._metadata = metadata
        self._on_main = {snapshot.snapshot_id for snapshot in branch_history(metadata, MAIN_BRANCH)}
        self._gone_before = dict(_gaps(metadata.snapshots))
        self._refs = _grouped((ref.snapshot_id, name) for name, ref in sorted(metadata.refs.items()))
        log = metadata.snapshot_log
        self._shown = _grouped((entry.snapshot_id, moment(entry.timestamp_ms)) for entry in log)

    def version(self, snapshot: Snapshot) -> Version:
        """Return a snapshot that is kept, as a version."""
        summary = snapshot.summary.additional_properties if snapshot.summary else {}
        inserted, updated, deleted = _changed_rows(summary)
        return Version(
            snapshot_id=snapshot.snapshot_id,
            parent_snapshot_id=snapshot.parent_snapshot_id,
            logical_snapshot_id=logical_snapshot_id(self._metadata, snapshot),
            sequence_number=snapshot.sequence_number,
            committed_at=moment(snapshot.timestamp_ms),
            operation=snapshot.summary.operation.value if snapshot.summary else None,
            refs=tuple(self._refs[snapshot.snapshot_id]),
            on_main=snapshot.snapshot_id in self._on_main,
            shown_from=tuple(self._shown[snapshot.snapshot_id]),
            run_id=summary.get(RUN_ID),
            asset_key=summary.get("dwh.asset-key"),
            partition_key=summary.get("dwh.partition-key"),
            inputs=recorded_inputs(summary),
            rows_inserted=inserted,
            rows_updated=updated,
            rows_deleted=deleted,
            total_rows=recorded_rows(summary),
            files_added=int(summary.get("added-data-files", "0")),
            files_removed=int(summary.get("deleted-data-files", "0")),
            gone_before=self._gone_before.get(snapshot.snapshot_id, 0),
        )


def _changed_rows(summary: Mapping[str, str]) -> tuple[int | None, int | None, int | None]:
    """Return the rows that were inserted, updated, deleted; other engines tell those of files in and out."""
    own = (ROWS_INSERTED, ROWS_UPDATED, ROWS_DELETED)
    if TOTAL_ROWS in summary or not summary.keys().isdisjoint(own):
        inserted, updated, deleted = (int(summary.get(key, "0")) for key in own)
        return inserted, updated, deleted
    return int(summary.get("added-records", "0")), None, int(summary.get("deleted-records", "0"))


def _gaps(snapshots: Iterable[Snapshot]) -> Iterator[tuple[int, int]]:
    """Yield how many sequence numbers are missing before a snapshot, where there are any."""
    numbered = sorted((s.sequence_number, s.snapshot_id) for s in snapshots if s.sequence_number)
    for (before, _), (number, snapshot_id) in pairwise([(0, 0), *numbered]):
        if number - before > 1:
            yield snapshot_id, number - before - 1


def _gone(metadata: TableMetadata, recorded: Sequence[ExpiredInterval]) -> Iterator[Version]:
    """Yield the snapshots that are named somewhere: recorded, as somebody's parent, or in the log."""
    reasons = {interval.snapshot_id: interval.reason for interval in recorded}
    named = [
        *((interval.snapshot_id, interval.shown_from) for interval in recorded),
        *((entry.snapshot_id, moment(entry.timestamp_ms)) for entry in metadata.snapshot_log),
        *((snapshot.parent_snapshot_id, None) for snapshot in metadata.snapshots),
    ]
    shown = _grouped((id_, at) for id_, at in named if id_ is not None)
    for snapshot_id, moments in shown.items():
        known = tuple(sorted({at for at in moments if at is not None}))
        yield Version(snapshot_id, shown_from=known, kept=False, expired_by=reasons.get(snapshot_id))


def _when(version: Version, metadata: TableMetadata) -> datetime:
    """Return when a version came to be; one that is gone was there before its first child."""
    if version.committed_at is not None:
        return version.committed_at
    if version.shown_from:
        return version.shown_from[0]
    children = [s for s in metadata.snapshots if s.parent_snapshot_id == version.snapshot_id]
    return min((moment(child.timestamp_ms) for child in children), default=datetime.min.replace(tzinfo=UTC))


def _grouped(pairs: Iterable[tuple[int, Any]]) -> defaultdict[int, list[Any]]:
    grouped: defaultdict[int, list[Any]] = defaultdict(list)
    for key, value in pairs:
        grouped[key].append(value)
    return grouped


def _text(number: int | None) -> str | None:
    return None if number is None else str(number)
