"""Which data files a read concerns, each with its position deletes."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import Any, cast

from pyiceberg.io import FileIO
from pyiceberg.manifest import DataFile, DataFileContent, ManifestEntry, ManifestFile
from pyiceberg.table import DataScan, FileScanTask, ManifestGroupPlanner
from pyiceberg.table.delete_file_index import DeleteFileIndex

from dwh_assets.errors import UnsupportedError
from dwh_assets.iceberg.remembered import Remembered

# Data files that are described by the manifests which are remembered; each description takes some kilobytes.
_REMEMBERED_FILES = 5_000
_listed: Remembered[list[ManifestEntry]] = Remembered(_REMEMBERED_FILES, len)


def planned_files(planned: DataScan) -> list[FileScanTask]:
    """Return the data files that the read concerns, each with its position deletes.

    Where the catalog's server can plan, it does. Raises `UnsupportedError` for a table with equality deletes.
    """
    snapshot = planned.snapshot()
    if snapshot is None:
        return []
    if planned.catalog is not None and planned.catalog.supports_server_side_planning():
        return _planned_by_server(planned)
    planner = ManifestGroupPlanner(
        planned.table_metadata, planned.io, planned.row_filter, planned.case_sensitive, planned.options
    )
    manifests = [cast("ManifestFile", _Manifest(manifest)) for manifest in snapshot.manifests(planned.io)]
    return _tasks(chain.from_iterable(planner.plan_manifest_entries(manifests)))


class _Manifest:
    """A manifest that is read once."""

    def __init__(self, manifest: ManifestFile) -> None:
        self._manifest = manifest

    def __getattr__(self, name: str) -> Any:
        return getattr(self._manifest, name)

    def fetch_manifest_entry(self, io: FileIO, discard_deleted: bool = True) -> list[ManifestEntry]:
        def read() -> list[ManifestEntry]:
            return self._manifest.fetch_manifest_entry(io, discard_deleted)

        return _listed.get(self._manifest.manifest_path, read) if discard_deleted else read()


def _tasks(entries: Iterable[ManifestEntry]) -> list[FileScanTask]:
    data: list[ManifestEntry] = []
    deletes = DeleteFileIndex()
    for entry in entries:
        if entry.data_file.content == DataFileContent.DATA:
            data.append(entry)
        elif entry.data_file.content == DataFileContent.POSITION_DELETES:
            deletes.add_delete_file(entry, partition_key=entry.data_file.partition)
        else:
            raise _equality_deletes()
    return [FileScanTask(entry.data_file, delete_files=_deletes_of(entry, deletes)) for entry in data]


def _deletes_of(entry: ManifestEntry, deletes: DeleteFileIndex) -> set[DataFile]:
    file = entry.data_file
    return deletes.for_data_file(entry.sequence_number or 0, file, partition_key=file.partition)


def _planned_by_server(planned: DataScan) -> list[FileScanTask]:
    try:
        return list(planned.plan_files())
    except (ValueError, NotImplementedError) as error:
        if "equality deletes" not in str(error):
            raise
        raise _equality_deletes() from None


def _equality_deletes() -> UnsupportedError:
    return UnsupportedError(
        "The table has equality deletes, which cannot be read here.",
        remedy="Rewrite it with the engine that wrote them, for example Spark's rewrite_data_files.",
    )
