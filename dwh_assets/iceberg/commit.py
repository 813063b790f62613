"""Commit one snapshot: data files in and out, schema, spec, properties and summary, all or nothing.

PyIceberg's own snapshot producers each do a part of this, and their retries validate nothing. Here a
commit is a function of the table as it is: `plan(table)` says which files come and go against exactly
that version; the snapshot is built on it and the catalog is asked to accept it only if the branch
still stands there. When somebody else was faster, the plan is made again on what they left, so a
retry never applies a stale decision. A lost answer is told apart from a refusal by looking for the
snapshot afterwards.

The only module of the project that touches PyIceberg's private names.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from pyiceberg.avro.codecs import AvroCompressionCodec
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import (
    BadRequestError,
    CommitFailedException,
    CommitStateUnknownException,
    NoSuchTableError,
)
from pyiceberg.io import FileIO, OutputFile
from pyiceberg.manifest import (
    DEFAULT_READ_VERSION,
    ManifestContent,
    ManifestWriter,
    ManifestWriterV2,
    write_manifest,
)
from pyiceberg.partitioning import PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import StagedTable, Table
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.refs import MAIN_BRANCH, SnapshotRefType
from pyiceberg.table.snapshots import Operation, Snapshot
from pyiceberg.typedef import TableVersion
from requests.exceptions import ConnectionError as HttpConnectionError
from requests.exceptions import Timeout as HttpTimeout
from sqlalchemy.exc import OperationalError

from dwh_assets.errors import CommitUnknownError, ConfigurationError, ConflictError
from dwh_assets.iceberg.faults import is_denied, is_full, lost_connection
from dwh_assets.iceberg.files.avro_blocks import ManifestBlocks
from dwh_assets.iceberg.metadata_files import metadata_location
from dwh_assets.iceberg.snapshot import Change, MetadataFiles, SnapshotBuilder

RETRY_SECONDS = 300.0
# What catalogs say of a snapshot whose number another branch's has taken: requirements name branches, numbers
# are the table's.
_MISFITS = (ValueError, BadRequestError)
# Says of a snapshot without rows that it was made for a branch to begin at.
_BEGINNING = "dwh.beginning"
_NO_ROWS = {"dwh.total-rows": "0", _BEGINNING: "true"}
_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 3.0
# After these nobody knows yet. A busy SQLite file belongs here: at COMMIT it may or may not have landed.
_LOST_ANSWERS = (
    CommitStateUnknownException,
    OperationalError,
    HttpTimeout,
    HttpConnectionError,
    ConnectionError,
)


@dataclass(frozen=True)
class Committed:
    """A snapshot that landed: the table with it, and what it did."""

    table: Table
    snapshot: Snapshot
    change: Change
    attempts: int


def commit(
    catalog: Catalog,
    table: Table,
    plan: Callable[[Table], Change | None],
    *,
    branch: str = MAIN_BRANCH,
    retry_seconds: float = RETRY_SECONDS,
) -> Committed | None:
    """Commit what `plan` decides, on the newest version of the table, as one snapshot.

    `plan` is called again, on the refreshed table, each time somebody else was faster; it returns
    None when nothing is left to do. Raises `ConflictError` when `retry_seconds` were not enough,
    `CommitUnknownError` when the catalog's answer was lost and the table cannot be read afterwards.
    """
    _require_branch(table, branch)
    in_doubt: list[SnapshotBuilder] = []
    try:
        return _until_landed(catalog, table, plan, branch, time.monotonic() + retry_seconds, in_doubt)
    except CommitUnknownError:
        raise
    except Exception as error:
        if in_doubt:
            raise _unknown(table, in_doubt[-1]) from error
        raise


def _until_landed(
    catalog: Catalog,
    table: Table,
    plan: Callable[[Table], Change | None],
    branch: str,
    deadline: float,
    in_doubt: list[SnapshotBuilder],
) -> Committed | None:
    """Plan, build and send until a snapshot lands; `in_doubt` holds those of which nobody knows yet.

    As long as one of these may still land, because the branch stands where it stood, it is sent again and
    nothing else: a new plan deletes the files of the one before. Once the branch has moved, the catalog
    refuses it whenever it arrives.
    """
    attempt = 0
    while True:
        attempt += 1
        builder = next((earlier for earlier in in_doubt if earlier.stands_on_head_of(table)), None)
        if builder is None:
            change = plan(table)
            if change is None:
                return None
            builder = SnapshotBuilder(table, change, branch, _new_manifest, tidies=attempt == 1)
        base = table.metadata
        try:
            landed = _send(catalog, table, builder)
        except (_Unanswered, CommitFailedException) as error:
            in_doubt[:] = [earlier for earlier in in_doubt if earlier is not builder]
            if isinstance(error, _Unanswered):
                in_doubt.append(builder)
            pause(attempt, deadline, table, error)
        else:
            _discard(earlier for earlier in in_doubt if earlier is not builder)
            drop_old_metadata(landed, base)
            return Committed(landed, builder.snapshot, builder.change, attempt)
        table = refreshed(table)
        for earlier in in_doubt:
            if table.snapshot_by_id(earlier.snapshot.snapshot_id) is not None:
                _discard(other for other in in_doubt if other is not earlier)
                return Committed(table, earlier.snapshot, earlier.change, attempt)


def with_first_snapshot(catalog: Catalog, table: Table) -> Table:
    """Return the table with a snapshot without rows on main, unless it has one: a branch begins at one."""
    made = commit(
        catalog,
        table,
        lambda found: None if found.metadata.snapshots else Change(Operation.APPEND, summary=_NO_ROWS),
    )
    return made.table if made else table


def is_beginning(snapshot: Snapshot) -> bool:
    """Tell whether a snapshot holds nothing, and was only made by `with_first_snapshot`."""
    return bool(snapshot.summary and _BEGINNING in snapshot.summary.additional_properties)


def drop_old_metadata(table: Table, base: TableMetadata) -> None:
    """Delete metadata files that fell out of the log, where the table's properties ask for that."""
    with contextlib.suppress(Exception):  # the commit has landed; a file that stays is no reason to fail it
        Catalog._delete_old_metadata(table.io, base, table.metadata)


def _require_branch(table: Table, branch: str) -> None:
    """Refuse to write to a tag: it would become a branch, and no longer name what it was put on.

    And refuse to begin a table's history on another branch than main.
    """
    ref = table.metadata.refs.get(branch)
    if ref is not None and ref.snapshot_ref_type != SnapshotRefType.BRANCH:
        raise ConfigurationError(
            f"{'.'.join(table.name())}: {branch!r} is a tag, and a tag is never written to.",
            remedy="Choose another name for the branch.",
        )
    if branch != MAIN_BRANCH and not table.metadata.snapshots:  # PyIceberg's catalogs insist on it
        raise ConfigurationError(
            f"{'.'.join(table.name())} has no snapshot yet, so the branch {branch!r} cannot begin anywhere.",
            remedy=f"Write to {MAIN_BRANCH} first; data without rows will do.",
        )


def _discard(builders: Iterable[SnapshotBuilder]) -> None:
    for builder in builders:
        builder.discard()


def refreshed(table: Table) -> Table:
    """Reload the table; none, or another one under its name, is a conflict."""
    try:
        return table.refresh()
    except (NoSuchTableError, ValueError) as error:  # ValueError is what PyIceberg says of another UUID
        raise ConflictError(
            f"{'.'.join(table.name())} was dropped, or made anew, by somebody else during this write.",
            remedy="Run the write again.",
        ) from error


def _unknown(table: Table, builder: SnapshotBuilder) -> CommitUnknownError:
    return CommitUnknownError(
        f"{'.'.join(table.name())}: the catalog did not answer, so it is unknown whether snapshot "
        f"{builder.snapshot.snapshot_id} landed.",
        remedy="Once the catalog answers, look for that snapshot; repeat the write if it is missing.",
    )


class _Unanswered(Exception):
    """The answer was lost and the snapshot is not there, yet: its files are kept in case it still lands."""


def _send(catalog: Catalog, table: Table, builder: SnapshotBuilder) -> Table:
    """Ask the catalog; return the table with the snapshot in it."""
    try:
        requirements, updates = builder.request
    except BaseException:
        builder.discard()
        raise
    try:
        with noted_metadata(catalog, builder.metadata_files):
            answer = catalog.commit_table(table, requirements, updates)
    except Exception as error:
        return _settle(table, builder, error)
    return Table(table.name(), answer.metadata, answer.metadata_location, table.io, catalog, table.config)


def _settle(table: Table, builder: SnapshotBuilder, error: Exception) -> Table:
    """Find out what became of a commit that was answered with an error, or not at all.

    Even a refusal may concern our own first try, when something in between repeated the request.
    """
    try:
        fresh = refreshed(table)
    except ConflictError:
        builder.discard()
        raise
    except Exception as unreadable:
        raise _unknown(table, builder) from unreadable
    if fresh.snapshot_by_id(builder.snapshot.snapshot_id) is not None:
        return fresh
    if is_lost(error):
        raise _Unanswered(f"{'.'.join(table.name())}: {type(error).__name__}") from error
    builder.discard()
    taken = fresh.metadata.next_sequence_number() != builder.snapshot.sequence_number
    if isinstance(error, _MISFITS) and taken:
        raise CommitFailedException(f"a commit to another branch was faster: {error}") from error
    raise error


def is_lost(error: Exception) -> bool:
    """Tell whether an error leaves open what happened; a database that is full or read-only took nothing."""
    open_end = isinstance(error, _LOST_ANSWERS) or lost_connection(error)
    return open_end and not is_full(error) and not is_denied(error)


def pause(attempt: int, deadline: float, table: Table, error: Exception) -> None:
    """Wait a random while that grows with the attempts, or give up at the deadline."""
    pause = random.uniform(0.5, 1.5) * min(_FIRST_PAUSE_SECONDS * 1.6**attempt, _LONGEST_PAUSE_SECONDS)
    if time.monotonic() + pause > deadline:
        raise ConflictError(
            f"{'.'.join(table.name())}: {attempt} attempts to commit were overtaken by other commits "
            f"(last: {error}).",
            remedy="Run it again when fewer writers are at work, or let them share a pool.",
        ) from error
    time.sleep(pause)


_noting: ContextVar[MetadataFiles | None] = ContextVar("_noting", default=None)


@contextlib.contextmanager
def noted_metadata(catalog: Catalog, noted: MetadataFiles) -> Iterator[None]:
    """Note the metadata files that the catalog writes in the block: those of a refused commit stay behind.

    And let it compress those that are large. Catalogs that are servers write theirs themselves: nothing is
    noted, and nothing done about their size.
    """
    for name, ours in (("_write_metadata", _NotedWrite), ("_update_and_stage_table", _Staging)):
        theirs = getattr(catalog, name, None)
        if theirs is not None and not isinstance(theirs, ours):
            setattr(catalog, name, ours(theirs))
    token = _noting.set(noted)
    try:
        yield
    finally:
        _noting.reset(token)


class _NotedWrite:
    """PyIceberg's `_write_metadata`, which chooses names that nobody else is told."""

    def __init__(self, write: Callable[[TableMetadata, FileIO, str], None]) -> None:
        self._write = write

    def __call__(self, metadata: TableMetadata, io: FileIO, metadata_path: str) -> None:
        noted = _noting.get()
        if noted is not None:
            noted.append((io, metadata_path))
        self._write(metadata, io, metadata_path)


class _Staging:
    """PyIceberg's `_update_and_stage_table`, which says where the metadata of a commit are to be written."""

    def __init__(self, stage: Callable[..., StagedTable]) -> None:
        self._stage = stage

    def __call__(self, *arguments: Any, **named: Any) -> StagedTable:
        staged = self._stage(*arguments, **named)
        staged.metadata_location = metadata_location(staged.metadata, staged.metadata_location)
        return staged


def _new_manifest(
    version: TableVersion,
    content: ManifestContent,
    spec: PartitionSpec,
    schema: Schema,
    output: OutputFile,
    snapshot_id: int,
    compression: AvroCompressionCodec,
) -> ManifestWriter:
    if version == 1:
        return write_manifest(version, spec, schema, output, snapshot_id, compression)
    return _ManifestWriter(content, spec, schema, output, snapshot_id, compression)


class _ManifestWriter(ManifestWriterV2):
    """A manifest of data files or of delete files, of which PyIceberg writes none, in large blocks."""

    def __init__(self, content: ManifestContent, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._content = content

    def content(self) -> ManifestContent:
        return self._content

    def new_writer(self) -> ManifestBlocks:
        return ManifestBlocks(
            output_file=self._output_file,
            file_schema=self._with_partition(self.version),
            schema_name="manifest_entry",
            record_schema=self._with_partition(DEFAULT_READ_VERSION),
            metadata=self._meta,
        )

    @property
    def _meta(self) -> dict[str, str]:
        return {**super()._meta, "content": "deletes" if self._content == ManifestContent.DELETES else "data"}
