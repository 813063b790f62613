"""Take over what a diverged branch appends: its data files are committed once more, on main as it now is."""

from __future__ import annotations

from collections.abc import Sequence

from pyiceberg.manifest import DataFile, DataFileContent, ManifestContent, ManifestEntryStatus, ManifestFile
from pyiceberg.table import Table
from pyiceberg.table.refs import MAIN_BRANCH
from pyiceberg.table.snapshots import Operation, Snapshot

from dwh_assets.errors import NotFoundError, UnsupportedError
from dwh_assets.iceberg.ancestry import ancestors
from dwh_assets.iceberg.commit import commit
from dwh_assets.iceberg.modes.plan import ROWS_INSERTED
from dwh_assets.iceberg.names import name_of
from dwh_assets.iceberg.pending import own_snapshots
from dwh_assets.iceberg.results import IDEMPOTENCY_KEY
from dwh_assets.iceberg.row_counts import TOTAL_ROWS, total_rows
from dwh_assets.iceberg.snapshot import Change
from dwh_assets.iceberg.stream import STREAM_PREFIX, stream_offsets
from dwh_assets.iceberg.versions import RUN_ID
from dwh_assets.versioning.branches import (
    Published,
    branch_ref,
    rolled_back_on,
    schema_for_main,
    schema_move,
)
from dwh_assets.versioning.picked_keys import require_new_keys

# Which snapshots a commit of ours took over, so that none is taken twice.
PICKED = "dwh.picked-snapshot-ids"
# What a snapshot says of where its rows come from; main's says the same of the same rows.
_ORIGIN = (RUN_ID, "dwh.asset-key", "dwh.partition-key", "dwh.input.")


def cherry_pick(table: Table, source: str | int) -> Published:
    """Commit on main the rows that a snapshot, or each snapshot of a branch since it parted, has appended.

    All in one commit, with the data files as they are; columns that the branch has added come with them.
    What main has already is left out, and so is, of a branch, what main has rolled back. Raises
    `UnsupportedError` that names the snapshot and the operation for anything but appends, and for a stream's
    micro-batch; `DivergedError` where columns cannot be brought together, or main has got rows of the same
    keys meanwhile; `NotFoundError` for an unknown snapshot or branch.
    """
    before = table.metadata.current_snapshot_id
    chosen = _chosen(table, source)
    for snapshot in chosen:
        _require_append(table, snapshot)
    taken: list[int] = []

    def plan(table: Table) -> Change | None:
        missing = [snapshot for snapshot in chosen if not _has(table, snapshot)]
        taken[:] = [snapshot.snapshot_id for snapshot in missing]
        for snapshot in missing:
            require_new_keys(table, snapshot, _added(table, snapshot))
        return _change(table, missing) if missing else None

    committed = commit(table.catalog, table, plan)
    moved = committed.table if committed else table
    head = moved.metadata.current_snapshot_id
    assert head is not None  # noqa: S101 - a table with a branch has a main branch
    return Published(moved, str(source), before, head, tuple(taken))


def _chosen(table: Table, source: str | int) -> list[Snapshot]:
    """Return the snapshots that are meant, oldest first."""
    if isinstance(source, str):
        head = table.snapshot_by_id(branch_ref(table, source).snapshot_id)
        not_its_own = rolled_back_on(table, source)
        return [one for one in own_snapshots(table.metadata, head) if one not in not_its_own][::-1]
    snapshot = table.snapshot_by_id(source)
    if snapshot is None:
        raise NotFoundError(
            f"{name_of(table)} has no snapshot {source}.",
            remedy="It may have expired; see the table's history.",
        )
    return [snapshot]


def _require_append(table: Table, snapshot: Snapshot) -> None:
    operation = snapshot.summary.operation if snapshot.summary else None
    if operation != Operation.APPEND:
        raise UnsupportedError(
            f"{name_of(table)}: snapshot {snapshot.snapshot_id} is of the operation "
            f"{operation.value if operation else 'unknown'}; only appends can be taken over.",
            remedy="Write that change again on main: what it removes was decided on other rows.",
        )
    streams = _moved_streams(table, snapshot)
    if streams:
        raise UnsupportedError(
            f"{name_of(table)}: snapshot {snapshot.snapshot_id} is a micro-batch of stream {streams[0]!r}, "
            "which main's own writer will bring, too.",
            remedy="Feed the stream to main instead.",
        )
    if any(m.content == ManifestContent.DELETES for m in _own_manifests(table, snapshot)):
        raise UnsupportedError(
            f"{name_of(table)}: snapshot {snapshot.snapshot_id} says append, but adds delete files.",
            remedy="Write that change again on main.",
        )


def _moved_streams(table: Table, snapshot: Snapshot) -> list[str]:
    """Return the streams of which this snapshot holds rows."""
    before = {
        key: value
        for ancestor in reversed(list(ancestors(table.metadata, snapshot.parent_snapshot_id)))
        for key, value in _entries(ancestor).items()
    }
    return [
        key.removeprefix(STREAM_PREFIX)
        for key, value in _entries(snapshot).items()
        if key.startswith(STREAM_PREFIX) and before.get(key, "0") != value
    ]


def _has(table: Table, snapshot: Snapshot) -> bool:
    """Tell whether main has the snapshot itself, or has taken it over before."""
    wanted = str(snapshot.snapshot_id)
    return any(
        str(ancestor.snapshot_id) == wanted or wanted in _entries(ancestor).get(PICKED, "").split(",")
        for ancestor in ancestors(table.metadata, table.metadata.current_snapshot_id)
    )


def _change(table: Table, snapshots: Sequence[Snapshot]) -> Change:
    files = tuple(file for snapshot in snapshots for file in _added(table, snapshot))
    rows = sum(file.record_count for file in files)
    schema = schema_for_main(table.metadata, schema_move(table.metadata, snapshots[-1]), name_of(table))
    before = total_rows(table, table.current_snapshot())
    return Change(
        operation=Operation.APPEND,
        added=files,
        schema=schema if schema != table.schema() else None,
        summary={
            **stream_offsets(table, MAIN_BRANCH),
            **_origin(snapshots),
            PICKED: ",".join(str(snapshot.snapshot_id) for snapshot in snapshots),
            ROWS_INSERTED: str(rows),
            **({TOTAL_ROWS: str(before + rows)} if before is not None else {}),
        },
    )


def _origin(snapshots: Sequence[Snapshot]) -> dict[str, str]:
    """Return where the rows come from: of several snapshots what the newest says, but no idempotency key."""
    said = {key: value for snapshot in snapshots for key, value in _entries(snapshot).items()}
    keys = (*_ORIGIN, IDEMPOTENCY_KEY) if len(snapshots) == 1 else _ORIGIN
    return {key: value for key, value in said.items() if key.startswith(keys)}


def _added(table: Table, snapshot: Snapshot) -> list[DataFile]:
    return [
        entry.data_file
        for manifest in _own_manifests(table, snapshot)
        for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=True)
        if entry.status == ManifestEntryStatus.ADDED and entry.data_file.content == DataFileContent.DATA
    ]


def _own_manifests(table: Table, snapshot: Snapshot) -> list[ManifestFile]:
    return [
        manifest
        for manifest in snapshot.manifests(table.io)
        if manifest.added_snapshot_id == snapshot.snapshot_id and manifest.has_added_files()
    ]


def _entries(snapshot: Snapshot) -> dict[str, str]:
    return dict(snapshot.summary.additional_properties) if snapshot.summary else {}
