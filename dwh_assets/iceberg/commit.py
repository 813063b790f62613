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
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, cast

from pyiceberg.avro.codecs import AvroCompressionCodec
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import CommitFailedException, CommitStateUnknownException, NoSuchTableError
from pyiceberg.io import FileIO
from pyiceberg.manifest import (
    DEFAULT_READ_VERSION,
    DataFile,
    ManifestContent,
    ManifestEntry,
    ManifestEntryStatus,
    ManifestFile,
    ManifestWriter,
    ManifestWriterV2,
    write_manifest,
    write_manifest_list,
)
from pyiceberg.partitioning import PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import Table, TableProperties
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.refs import MAIN_BRANCH, SnapshotRefType
from pyiceberg.table.snapshots import (
    Operation,
    Snapshot,
    SnapshotSummaryCollector,
    Summary,
    UpdateMetrics,
    update_snapshot_summaries,
)
from pyiceberg.table.sorting import SortOrder
from pyiceberg.table.update import (
    AddPartitionSpecUpdate,
    AddSchemaUpdate,
    AddSnapshotUpdate,
    AddSortOrderUpdate,
    AssertCurrentSchemaId,
    AssertDefaultSortOrderId,
    AssertDefaultSpecId,
    AssertLastAssignedFieldId,
    AssertLastAssignedPartitionId,
    AssertRefSnapshotId,
    AssertTableUUID,
    SetCurrentSchemaUpdate,
    SetDefaultSortOrderUpdate,
    SetDefaultSpecUpdate,
    SetPropertiesUpdate,
    SetSnapshotRefUpdate,
    TableRequirement,
    TableUpdate,
)
from requests.exceptions import ConnectionError as HttpConnectionError
from requests.exceptions import Timeout as HttpTimeout
from sqlalchemy.exc import OperationalError

from dwh_assets.errors import CommitUnknownError, ConfigurationError, ConflictError
from dwh_assets.iceberg.faults import is_denied, is_full, lost_connection
from dwh_assets.iceberg.files.avro_blocks import ManifestBlocks
from dwh_assets.iceberg.versions import branch_start

RETRY_SECONDS = 300.0
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
class Change:
    """What one snapshot does to a table, decided against one version of it."""

    operation: Operation
    added: tuple[DataFile, ...] = ()
    removed: tuple[DataFile, ...] = ()
    added_deletes: tuple[DataFile, ...] = ()
    schema: Schema | None = None
    spec: PartitionSpec | None = None
    sort_order: SortOrder | None = None
    properties: dict[str, str] = field(default_factory=dict)
    summary: dict[str, str] = field(default_factory=dict)


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
    in_doubt: list[_Snapshot] = []
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
    in_doubt: list[_Snapshot],
) -> Committed | None:
    """Plan, build and send until a snapshot lands; `in_doubt` holds those of which nobody knows yet."""
    attempt = 0
    while True:
        attempt += 1
        change = plan(table)
        if change is None:
            return None
        producer, base = _Snapshot(table, change, branch), table.metadata
        try:
            landed = _send(catalog, table, producer)
        except (_Unanswered, CommitFailedException) as error:
            if isinstance(error, _Unanswered):
                in_doubt.append(producer)
            _pause(attempt, deadline, table, error)
        else:
            _discard(in_doubt)  # they stood on a head that is no longer the branch's
            _drop_old_metadata(landed, base)
            return Committed(landed, producer.snapshot, change, attempt)
        table = _refreshed(table)
        for earlier in in_doubt:
            if table.snapshot_by_id(earlier.snapshot.snapshot_id) is not None:
                _discard(other for other in in_doubt if other is not earlier)
                return Committed(table, earlier.snapshot, earlier.change, attempt)


def _drop_old_metadata(table: Table, base: TableMetadata) -> None:
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


def _discard(producers: Iterable[_Snapshot]) -> None:
    for producer in producers:
        producer.discard()


def _refreshed(table: Table) -> Table:
    """Reload the table; none, or another one under its name, is a conflict."""
    try:
        return table.refresh()
    except (NoSuchTableError, ValueError) as error:  # ValueError is what PyIceberg says of another UUID
        raise ConflictError(
            f"{'.'.join(table.name())} was dropped, or made anew, by somebody else during this write.",
            remedy="Run the write again.",
        ) from error


def _unknown(table: Table, producer: _Snapshot) -> CommitUnknownError:
    return CommitUnknownError(
        f"{'.'.join(table.name())}: the catalog did not answer, so it is unknown whether snapshot "
        f"{producer.snapshot.snapshot_id} landed.",
        remedy="Once the catalog answers, look for that snapshot; repeat the write if it is missing.",
    )


class _Unanswered(Exception):
    """The answer was lost and the snapshot is not there, yet: its files are kept in case it still lands."""


def _send(catalog: Catalog, table: Table, producer: _Snapshot) -> Table:
    """Ask the catalog; return the table with the snapshot in it."""
    try:
        requirements, updates = producer.build()
    except BaseException:
        producer.discard()
        raise
    try:
        with noted_metadata(catalog, producer.metadata_files):
            answer = catalog.commit_table(table, requirements, updates)
    except Exception as error:
        return _settle(table, producer, error)
    return Table(table.name(), answer.metadata, answer.metadata_location, table.io, catalog, table.config)


def _settle(table: Table, producer: _Snapshot, error: Exception) -> Table:
    """Find out what became of a commit that was answered with an error, or not at all.

    Even a refusal may concern our own first try, when something in between repeated the request.
    """
    try:
        fresh = _refreshed(table)
    except ConflictError:
        producer.discard()
        raise
    except Exception as unreadable:
        raise _unknown(table, producer) from unreadable
    if fresh.snapshot_by_id(producer.snapshot.snapshot_id) is not None:
        return fresh
    if _is_lost(error):
        raise _Unanswered(f"{'.'.join(table.name())}: {type(error).__name__}") from error
    producer.discard()
    raise error


def _is_lost(error: Exception) -> bool:
    """Tell whether an error leaves open what happened; a database that is full or read-only took nothing."""
    open_end = isinstance(error, _LOST_ANSWERS) or lost_connection(error)
    return open_end and not is_full(error) and not is_denied(error)


def _pause(attempt: int, deadline: float, table: Table, error: Exception) -> None:
    """Wait a random while that grows with the attempts, or give up at the deadline."""
    pause = random.uniform(0.5, 1.5) * min(_FIRST_PAUSE_SECONDS * 1.6**attempt, _LONGEST_PAUSE_SECONDS)
    if time.monotonic() + pause > deadline:
        raise ConflictError(
            f"{'.'.join(table.name())}: {attempt} attempts to commit were overtaken by other commits "
            f"(last: {error}).",
            remedy="Run it again when fewer writers are at work, or let them share a pool.",
        ) from error
    time.sleep(pause)


MetadataFiles = list[tuple[FileIO, str]]
_noting: ContextVar[MetadataFiles | None] = ContextVar("_noting", default=None)


@contextlib.contextmanager
def noted_metadata(catalog: Catalog, noted: MetadataFiles) -> Iterator[None]:
    """Note the metadata files that the catalog writes in the block: those of a refused commit stay behind.

    Catalogs that are servers write theirs themselves, and nothing is noted.
    """
    write = getattr(catalog, "_write_metadata", None)
    if write is not None and not isinstance(write, _NotedWrite):
        catalog._write_metadata = _NotedWrite(write)  # type: ignore[attr-defined]
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


def discard_metadata(noted: MetadataFiles, *, keep: str | None = None) -> None:
    """Delete metadata files of what was refused; `keep` is the one that the table stands on."""
    for io, path in noted:
        if path != keep:
            with contextlib.suppress(OSError):
                io.delete(path)


class _Snapshot:
    """One attempt: the manifests, the manifest list and the metadata updates of one new snapshot."""

    def __init__(self, table: Table, change: Change, branch: str) -> None:
        self._metadata: TableMetadata = table.metadata
        self._io: FileIO = table.io
        self._locations = table.location_provider()
        self.change = self._change = change
        self._branch = branch
        self._branch_head = table.metadata.snapshot_by_name(branch)
        self._parent = branch_start(table.metadata, branch)
        self._id = table.metadata.new_snapshot_id()
        self._uuid = uuid.uuid4()
        self._written: list[str] = []
        self.metadata_files: MetadataFiles = []
        self.snapshot: Snapshot

    def build(self) -> tuple[tuple[TableRequirement, ...], tuple[TableUpdate, ...]]:
        """Write manifests and manifest list; return what to ask of the catalog."""
        manifests = self._kept_manifests() + self._added_manifests()
        self.snapshot = Snapshot(
            snapshot_id=self._id,
            parent_snapshot_id=self._parent.snapshot_id if self._parent else None,
            manifest_list=self._write_manifest_list(manifests),
            sequence_number=self._metadata.next_sequence_number(),
            timestamp_ms=self._timestamp_ms(),
            summary=self._summary(),
            schema_id=self._schema.schema_id,
        )
        shape_requirements, shape_updates = self._shape_changes()
        return (
            AssertTableUUID(uuid=self._metadata.table_uuid),
            AssertRefSnapshotId(
                ref=self._branch, snapshot_id=self._branch_head.snapshot_id if self._branch_head else None
            ),
            *shape_requirements,
        ), (
            *shape_updates,
            *self._property_updates(),
            AddSnapshotUpdate(snapshot=self.snapshot),
            self._move_branch(),
        )

    def _move_branch(self) -> SetSnapshotRefUpdate:
        """Point the branch at the new snapshot; what is said of its retention stays said."""
        ref = self._metadata.refs.get(self._branch)
        return SetSnapshotRefUpdate(
            ref_name=self._branch,
            type=SnapshotRefType.BRANCH,
            snapshot_id=self._id,
            max_ref_age_ms=ref.max_ref_age_ms if ref else None,
            max_snapshot_age_ms=ref.max_snapshot_age_ms if ref else None,
            min_snapshots_to_keep=ref.min_snapshots_to_keep if ref else None,
        )

    def discard(self) -> None:
        """Delete the files of an attempt that did not land."""
        discard_metadata([*self.metadata_files, *((self._io, path) for path in self._written)])

    @property
    def _schema(self) -> Schema:
        new = self._change.schema
        if new is None:
            return self._metadata.schema()
        return new.model_copy(update={"schema_id": max(s.schema_id for s in self._metadata.schemas) + 1})

    @property
    def _specs(self) -> dict[int, PartitionSpec]:
        new = self._change.spec
        return {**self._metadata.specs(), **({new.spec_id: new} if new else {})}

    def _timestamp_ms(self) -> int:
        """Return now, or just after the newest snapshot: a clock that lags must not turn history round."""
        return max(int(time.time() * 1000), self._metadata.last_updated_ms + 1)

    def _shape_changes(self) -> tuple[list[TableRequirement], list[TableUpdate]]:
        """Require the shape that the plan saw, and change what the plan wants changed."""
        metadata, spec, order = self._metadata, self._change.spec, self._change.sort_order
        requirements: list[TableRequirement] = [
            AssertCurrentSchemaId(current_schema_id=metadata.current_schema_id),
            AssertDefaultSpecId(default_spec_id=metadata.default_spec_id),
            AssertDefaultSortOrderId(default_sort_order_id=metadata.default_sort_order_id),
        ]
        updates: list[TableUpdate] = []
        if self._change.schema is not None:
            requirements.append(AssertLastAssignedFieldId(last_assigned_field_id=metadata.last_column_id))
            updates += [AddSchemaUpdate(schema_=self._schema), SetCurrentSchemaUpdate(schema_id=-1)]
        if spec is not None and spec.spec_id != metadata.default_spec_id:
            if spec.spec_id not in metadata.specs():
                requirements.append(
                    AssertLastAssignedPartitionId(last_assigned_partition_id=metadata.last_partition_id)
                )
                updates.append(AddPartitionSpecUpdate(spec=spec))
            updates.append(SetDefaultSpecUpdate(spec_id=spec.spec_id))
        if order is not None and order.order_id != metadata.default_sort_order_id:
            if metadata.sort_order_by_id(order.order_id) is None:
                updates.append(AddSortOrderUpdate(sort_order=order))
            updates.append(SetDefaultSortOrderUpdate(sort_order_id=order.order_id))
        return requirements, updates

    def _property_updates(self) -> list[TableUpdate]:
        new = {
            key: value
            for key, value in self._change.properties.items()
            if self._metadata.properties.get(key) != value
        }
        return [SetPropertiesUpdate(updates=new)] if new else []

    def _kept_manifests(self) -> list[ManifestFile]:
        """Carry the parent's manifests over; those that list a removed file are written anew."""
        if self._parent is None:
            return []
        missing = {file.file_path for file in self._change.removed}
        kept = [
            self._without_removed(manifest, missing) if missing else manifest
            for manifest in self._parent.manifests(self._io)
            if manifest.has_added_files() or manifest.has_existing_files()
        ]
        if missing:
            raise CommitFailedException(f"{len(missing)} files to remove are no longer in the table")
        return kept

    def _without_removed(self, manifest: ManifestFile, missing: set[str]) -> ManifestFile:
        entries = manifest.fetch_manifest_entry(self._io, discard_deleted=True)
        hit = {entry.data_file.file_path for entry in entries} & missing
        if not hit:
            return manifest
        missing -= hit
        with self._manifest_writer(self._specs[manifest.partition_spec_id], manifest.content) as writer:
            for entry in entries:
                if entry.data_file.file_path in hit:
                    writer.delete(entry)
                else:
                    writer.existing(entry)
        return writer.to_manifest_file()

    def _added_manifests(self) -> list[ManifestFile]:
        return [
            self._write_added(spec_id, content, files)
            for content, all_files in (
                (ManifestContent.DATA, self._change.added),
                (ManifestContent.DELETES, self._change.added_deletes),
            )
            for spec_id, files in _by_spec(all_files).items()
        ]

    def _write_added(self, spec_id: int, content: ManifestContent, files: list[DataFile]) -> ManifestFile:
        with self._manifest_writer(self._specs[spec_id], content) as writer:
            for file in files:
                writer.add(
                    ManifestEntry.from_args(
                        status=ManifestEntryStatus.ADDED, snapshot_id=self._id, data_file=file
                    )
                )
        return writer.to_manifest_file()

    def _manifest_writer(self, spec: PartitionSpec, content: ManifestContent) -> ManifestWriter:
        output = self._io.new_output(self._new_path(f"{self._uuid}-m{len(self._written)}.avro"))
        version = self._metadata.format_version
        if version == 1:
            return write_manifest(version, spec, self._schema, output, self._id, self._compression)
        return _ManifestWriter(content, spec, self._schema, output, self._id, self._compression)

    def _write_manifest_list(self, manifests: list[ManifestFile]) -> str:
        path = self._new_path(f"snap-{self._id}-0-{self._uuid}.avro")
        with write_manifest_list(
            format_version=self._metadata.format_version,
            output_file=self._io.new_output(path),
            snapshot_id=self._id,
            parent_snapshot_id=self._parent.snapshot_id if self._parent else None,
            sequence_number=self._metadata.next_sequence_number(),
            avro_compression=self._compression,
        ) as writer:
            writer.add_manifests(manifests)
        return path

    def _new_path(self, name: str) -> str:
        path = self._locations.new_metadata_location(name)
        self._written.append(path)
        return path

    @property
    def _compression(self) -> AvroCompressionCodec:
        named = self._metadata.properties.get(
            TableProperties.WRITE_AVRO_COMPRESSION, TableProperties.WRITE_AVRO_COMPRESSION_DEFAULT
        )
        return cast("AvroCompressionCodec", named)

    def _summary(self) -> Summary:
        counted = Summary(operation=Operation.OVERWRITE, **self._counted(), **self._change.summary)
        previous = self._parent.summary if self._parent else None
        with_totals = update_snapshot_summaries(counted, previous.additional_properties if previous else None)
        return Summary(operation=self._change.operation, **with_totals.additional_properties)

    def _counted(self) -> dict[str, str]:
        """Count files, rows and bytes, in all and of each changed partition where the table asks for that."""
        limit = int(self._metadata.properties.get(TableProperties.WRITE_PARTITION_SUMMARY_LIMIT, "0"))
        if limit == 0:
            return self._counted_in_all()
        collector = SnapshotSummaryCollector(limit)
        specs, schema = self._specs, self._schema
        for file in (*self._change.added, *self._change.added_deletes):
            collector.add_file(file, schema, specs[file.spec_id])
        for file in self._change.removed:
            collector.remove_file(file, schema, specs[file.spec_id])
        return collector.build()

    def _counted_in_all(self) -> dict[str, str]:
        metrics = UpdateMetrics()
        added, removed = (*self._change.added, *self._change.added_deletes), self._change.removed
        for file in added:
            metrics.add_file(file)
        for file in removed:
            metrics.remove_file(file)
        partitions = {(file.spec_id, file.partition) for file in (*added, *removed) if len(file.partition)}
        return {
            **metrics.to_dict(),
            **({"changed-partition-count": str(len(partitions))} if partitions else {}),
        }


def _by_spec(files: Iterable[DataFile]) -> dict[int, list[DataFile]]:
    grouped: defaultdict[int, list[DataFile]] = defaultdict(list)
    for file in files:
        grouped[file.spec_id].append(file)
    return grouped


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
