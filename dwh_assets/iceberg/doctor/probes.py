"""Prove by doing: an object that is written and deleted, a table that is made, committed to and dropped.

Whatever is made here has a name of its own that nobody else can have, is marked as a probe, and is
removed again, also after a failure.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from urllib.parse import urlsplit

from pyarrow.fs import FileSelector, FileSystem, FileType, LocalFileSystem
from pyiceberg.catalog import Catalog, delete_files
from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.io import FileIO
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Operation
from pyiceberg.table.update import AssertTableUUID
from pyiceberg.types import LongType, NestedField

from dwh_assets.errors import DwhError, TerminalError
from dwh_assets.iceberg.catalogs.load import ensure_namespace
from dwh_assets.iceberg.commit import commit
from dwh_assets.iceberg.doctor.check import described
from dwh_assets.iceberg.doctor.clock import skew
from dwh_assets.iceberg.matching.live_rows import local_file
from dwh_assets.iceberg.snapshot import Change

PREFIX = "dwh_doctor_"
_TAG = "dwh_doctor"
_COLUMNS = Schema(NestedField(1, "probe", LongType(), required=False))
_PROPERTIES = {"comment": "A probe of the doctor of dwh_assets; it may be dropped."}
_COMMIT_SECONDS = 30.0


# --- Objects ---


def probe_object(io: FileIO, folder: str) -> float | None:
    """Write, read back and delete an object in a folder; return its clock's skew, if it tells."""
    location = f"{folder.rstrip('/')}/.{PREFIX}{uuid.uuid4().hex}"
    try:
        found = _write_and_read(io, location)
    except BaseException:
        with suppress(Exception):
            io.delete(location)
        raise
    io.delete(location)
    if io.new_input(location).exists():
        raise TerminalError(f"{location} was deleted and is still there.", remedy="Delete it by hand.")
    return found


def _write_and_read(io: FileIO, location: str) -> float | None:
    content, began = location.encode(), time.time()
    with io.new_output(location).create() as output:
        output.write(content)
    ended = time.time()
    with io.new_input(location).open() as given:
        if given.read() != content:
            raise TerminalError(
                f"{location} is read otherwise than it was written.", remedy="Look for a cache in between."
            )
    written = None
    with suppress(Exception):  # a store that does not tell the time is as good a store
        written = _modified(io, location)
    return None if written is None else skew(began, written, ended)


def _modified(io: FileIO, location: str) -> float | None:
    """Return when the store says that an object was written."""
    files, path = _file_system(io, location)
    if files is not None:
        nanoseconds = files.get_file_info(path).mtime_ns
        return None if nanoseconds is None else float(nanoseconds) / 1e9
    get_fs = getattr(io, "get_fs", None)  # fsspec's way, whose module needs packages that may be missing
    if get_fs is None:
        return None
    uri = urlsplit(location)
    moment: datetime = get_fs(uri.scheme, uri.hostname).modified(location)
    return moment.timestamp() if moment.tzinfo else None


# --- Tables ---


@contextmanager
def probe_table(catalog: Catalog, namespace: tuple[str, ...] | None) -> Iterator[Table]:
    """Make an empty table in a namespace, or in one of its own, for as long as the block lasts.

    Raises what the catalog raises, and `TerminalError` that names the table when it cannot be dropped.
    """
    probe = _Probe(catalog, namespace)
    try:
        yield probe.make()
    except BaseException as error:
        probe.remove_after(error)
        raise
    probe.remove()


class _Probe:
    """A table that is made once and surely removed; a namespace too, where none is given."""

    def __init__(self, catalog: Catalog, namespace: tuple[str, ...] | None) -> None:
        name = f"{PREFIX}{uuid.uuid4().hex}"
        self._catalog = catalog
        self._namespace = namespace or (name,)
        self._identifier = (*self._namespace, name)
        self._own_namespace = namespace is None
        self._begun = False

    def make(self) -> Table:
        if self._own_namespace:
            ensure_namespace(self._catalog, self._namespace)
            self._begun = True
        table = self._catalog.create_table(self._identifier, _COLUMNS, properties=_PROPERTIES)
        self._begun = True
        return table

    def remove(self) -> None:
        try:
            table = self._load()
            if table is not None:
                _drop(self._catalog, table)
            if self._own_namespace and self._catalog.namespace_exists(self._namespace):
                self._catalog.drop_namespace(self._namespace)
        except Exception as error:
            raise TerminalError(
                f"The probe table {'.'.join(self._identifier)} cannot be dropped: {described(error)}.",
                remedy="Drop it by hand, and allow this user to drop tables.",
            ) from error
        if table is not None:
            _remove_empty_folders(table, own_namespace=self._own_namespace)

    def remove_after(self, error: BaseException) -> None:
        """Remove it after an error; that one counts, unless something is left behind besides."""
        try:
            self.remove()
        except TerminalError as left:
            if self._begun:
                said = error.message if isinstance(error, DwhError) else described(error)
                raise TerminalError(f"{said} {left.message}", remedy=left.remedy) from error

    def _load(self) -> Table | None:
        try:
            return self._catalog.load_table(self._identifier)
        except NoSuchTableError:
            return None


def _drop(catalog: Catalog, table: Table) -> None:
    """Drop the table and its files; a catalog that purges nothing leaves them to us."""
    try:
        catalog.purge_table(table.name())
    except Exception:
        catalog.drop_table(table.name())
        files = {table.metadata_location, *(entry.metadata_file for entry in table.metadata.metadata_log)}
        delete_files(table.io, files | {s.manifest_list for s in table.metadata.snapshots}, "probe")
    if catalog.table_exists(table.name()):
        raise TerminalError("It is there after it was dropped.")


def _remove_empty_folders(table: Table, *, own_namespace: bool) -> None:
    """Remove the folders that deleting files leaves, on disk and as PyArrow marks them on object stores."""
    files, path = _file_system(table.io, table.location())
    for folder in [path, path.rpartition("/")[0]] if own_namespace else [path]:
        if files is not None and PREFIX in folder.rpartition("/")[2]:
            with suppress(OSError):
                _remove_if_empty(files, folder)


def _file_system(io: FileIO, location: str) -> tuple[FileSystem | None, str]:
    if isinstance(io, PyArrowFileIO):
        scheme, netloc, path = io.parse_location(location, io.properties)
        return io.fs_by_scheme(scheme, netloc), path
    path = local_file(location) or ""
    return LocalFileSystem() if path else None, path


def _remove_if_empty(files: FileSystem, folder: str) -> None:
    inside = files.get_file_info(FileSelector(folder, recursive=True))
    if all(info.type == FileType.Directory for info in inside):
        files.delete_dir(folder)


def commit_snapshot(catalog: Catalog, table: Table) -> Table:
    """Commit a snapshot without rows to a probe table, as a write does; return the table with it."""
    committed = commit(catalog, table, lambda _: Change(Operation.APPEND), retry_seconds=_COMMIT_SECONDS)
    fresh = catalog.load_table(table.name())
    if committed is None or fresh.snapshot_by_id(committed.snapshot.snapshot_id) is None:
        raise TerminalError(
            f"{'.'.join(table.name())}: the catalog took a commit, and does not show it.",
            remedy="Look for a cache in between, or use another catalog.",
        )
    return fresh


def commit_nothing(catalog: Catalog, table: Table) -> None:
    """Send a commit that requires the table to be what it is, and changes nothing.

    Catalogs that PyIceberg commits to by itself, and Iceberg's REST server, see that there is nothing to
    do and write no metadata; a REST server has asked by then whether this user may change the table.
    """
    catalog.commit_table(table, (AssertTableUUID(uuid=table.metadata.table_uuid),), ())


def keeps_tag(catalog: Catalog, table: Table) -> bool:
    """Put a tag on a probe table's snapshot; tell whether it is there when the table is loaded anew."""
    snapshot = table.current_snapshot()
    if snapshot is None:
        raise TerminalError("The probe table has no snapshot to tag.")
    table.manage_snapshots().create_tag(snapshot.snapshot_id, _TAG).commit()
    ref = catalog.load_table(table.name()).metadata.refs.get(_TAG)
    return ref is not None and ref.snapshot_id == snapshot.snapshot_id
