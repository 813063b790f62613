"""Which data files, and which of their position deletes, do two snapshots not share?

Manifests that both list are left out unread. Of these only two kinds are opened after all: those of data
files, where a new delete names a file that no other manifest lists; and those of deletes, where they may
concern a data file that came, went or lost rows.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import IO, cast

import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyiceberg.io import FileIO
from pyiceberg.manifest import (
    DataFile,
    DataFileContent,
    FileFormat,
    ManifestContent,
    ManifestEntry,
    ManifestFile,
)
from pyiceberg.table import Table
from pyiceberg.table.delete_file_index import DeleteFileIndex

from dwh_assets.errors import UnsupportedError
from dwh_assets.iceberg.files.position_deletes import PATH_ID
from dwh_assets.iceberg.row_counts import TOTAL_ROWS

# Manifest entries by the path of the file
Entries = dict[str, ManifestEntry]


# The position deletes that concern a data file; None where a snapshot does not have the file.
Deletes = frozenset[DataFile] | None


@dataclass(frozen=True)
class FileChange:
    """One data file before and after. Deletes that both sides have may be left out on both."""

    file: DataFile
    before: Deletes
    after: Deletes


def file_changes(table: Table, before: int | None, after: int | None) -> list[FileChange]:
    """Return the data files in which two snapshots differ; None is the empty table.

    Raises `UnsupportedError` for equality deletes, and for files that are not Parquet.
    """
    manifests = [_manifests(table, snapshot_id) for snapshot_id in (before, after)]
    shared = [manifest for path, manifest in manifests[0].items() if path in manifests[1]]
    own = [
        [manifest for path, manifest in one.items() if path not in other]
        for one, other in (manifests, manifests[::-1])
    ]
    return _Comparison(table, shared, _Side.read(table, own[0]), _Side.read(table, own[1])).changes()


def _manifests(table: Table, snapshot_id: int | None) -> dict[str, ManifestFile]:
    """Return a snapshot's manifests by path."""
    snapshot = None if snapshot_id is None else table.snapshot_by_id(snapshot_id)
    if snapshot is None:
        return {}
    summary = snapshot.summary.additional_properties if snapshot.summary else {}
    if int(summary.get("total-equality-deletes", "0")):
        raise _equality_deletes(table)
    return {manifest.manifest_path: manifest for manifest in snapshot.manifests(table.io)}


def _equality_deletes(table: Table) -> UnsupportedError:
    return UnsupportedError(
        f"{'.'.join(table.name())} has equality deletes, so its versions cannot be compared.",
        remedy="Rewrite it with the engine that wrote them, for example Spark's rewrite_data_files.",
    )


def _entries(table: Table, manifest: ManifestFile) -> list[ManifestEntry]:
    """Read the files that a manifest lists as live."""
    found = manifest.fetch_manifest_entry(table.io, discard_deleted=True)
    for entry in found:
        if entry.data_file.content == DataFileContent.EQUALITY_DELETES:
            raise _equality_deletes(table)
        if entry.data_file.file_format != FileFormat.PARQUET:
            raise UnsupportedError(
                f"{'.'.join(table.name())}: {entry.data_file.file_path} is "
                f"{entry.data_file.file_format.value}; only Parquet is compared.",
                remedy="Rewrite the table's files as Parquet with another engine.",
            )
    return found


@dataclass
class _Side:
    """What one snapshot lists in manifests that the other has not."""

    data: Entries = field(default_factory=dict)
    deletes: Entries = field(default_factory=dict)

    @classmethod
    def read(cls, table: Table, manifests: Iterable[ManifestFile]) -> _Side:
        side = cls()
        for manifest in manifests:
            listed = side.deletes if manifest.content == ManifestContent.DELETES else side.data
            listed.update((entry.data_file.file_path, entry) for entry in _entries(table, manifest))
        return side

    def index(self, shared: Iterable[ManifestEntry]) -> DeleteFileIndex:
        """Index all deletes of the snapshot as readers do."""
        index = DeleteFileIndex()
        for entry in (*self.deletes.values(), *shared):
            index.add_delete_file(entry, partition_key=entry.data_file.partition)
        return index


@dataclass
class _Comparison:
    """Two snapshots: the manifests that they share, and what the others list."""

    table: Table
    shared: list[ManifestFile]
    before: _Side
    after: _Side

    def changes(self) -> list[FileChange]:
        """Return every data file that came, went, or has other deletes."""
        moved = self.before.data.keys() ^ self.after.data.keys()
        kept = self._find(self._marked() - moved)
        befores = {**_chosen(self.before.data, moved), **kept}
        afters = {**_chosen(self.after.data, moved), **kept}
        shared = self._shared_deletes(moved, kept)
        old, new = self.before.index(shared), self.after.index(shared)
        pairs = [
            FileChange(entry.data_file, _deletes(befores.get(path), old), _deletes(afters.get(path), new))
            for path, entry in sorted({**befores, **afters}.items())
        ]
        return [pair for pair in pairs if pair.before != pair.after]

    @property
    def _one_sided_deletes(self) -> list[ManifestEntry]:
        either = {**self.before.deletes, **self.after.deletes}
        return [either[path] for path in self.before.deletes.keys() ^ self.after.deletes.keys()]

    def _marked(self) -> set[str]:
        """Return the paths of the data files of which one snapshot has deletes that the other has not."""
        paths: set[str] = set()
        for entry in self._one_sided_deletes:
            path = _only_target(entry.data_file)
            paths |= _targets(self.table.io, entry.data_file) if path is None else {path}
        return paths

    def _find(self, paths: set[str]) -> Entries:
        """Find data files that both snapshots have; one that is in neither has nothing left to delete."""
        found = _chosen(self.before.data, paths)
        for manifest in self.shared:
            if len(found) == len(paths):
                break
            if manifest.content == ManifestContent.DATA:
                listed = {entry.data_file.file_path: entry for entry in _entries(self.table, manifest)}
                found |= _chosen(listed, paths)
        return found

    def _shared_deletes(self, moved: Collection[str], kept: Entries) -> list[ManifestEntry]:
        """Read the deletes that both snapshots have and that may concern these data files.

        Of files that both have, they matter only if new deletes may name rows that are gone already. Ours
        never do: a row that a write of ours deletes was live.
        """
        either = {**self.before.data, **self.after.data}
        concerned = [either[path] for path in moved]
        if not self._delete_live_rows_only():
            concerned += kept.values()
        oldest = min((entry.sequence_number or 0 for entry in concerned), default=None)
        if oldest is None:
            return []
        return [
            entry
            for manifest in self.shared
            if manifest.content == ManifestContent.DELETES and (manifest.sequence_number or 0) >= oldest
            for entry in _entries(self.table, manifest)
        ]

    def _delete_live_rows_only(self) -> bool:
        makers = {entry.snapshot_id for entry in self._one_sided_deletes}
        ours = {
            snapshot.snapshot_id
            for snapshot in self.table.metadata.snapshots
            if snapshot.summary and TOTAL_ROWS in snapshot.summary.additional_properties
        }
        return makers <= ours


def _chosen(entries: Mapping[str, ManifestEntry], paths: Collection[str]) -> Entries:
    return {path: entry for path, entry in entries.items() if path in paths}


def _deletes(entry: ManifestEntry | None, index: DeleteFileIndex) -> Deletes:
    if entry is None:
        return None
    file = entry.data_file
    found = index.for_data_file(entry.sequence_number or 0, file, partition_key=file.partition)
    return frozenset(found)


def _only_target(delete: DataFile) -> str | None:
    """Return the one data file that a delete file concerns, where it says so itself."""
    low, high = ((bounds or {}).get(PATH_ID) for bounds in (delete.lower_bounds, delete.upper_bounds))
    return low.decode() if low is not None and low == high else None


def _targets(io: FileIO, delete: DataFile) -> set[str]:
    """Read which data files a delete file concerns."""
    with io.new_input(delete.file_path).open() as stream:
        paths = pq.read_table(cast("IO[bytes]", stream), columns=["file_path"])["file_path"]
    return set(pc.unique(paths).to_pylist())
