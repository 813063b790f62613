"""One new snapshot: its manifests and manifest list, and what to ask of the catalog for it."""

from __future__ import annotations

import time
import uuid
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from typing import Protocol, cast

from pyiceberg.avro.codecs import AvroCompressionCodec
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.io import FileIO, OutputFile
from pyiceberg.manifest import (
    DataFile,
    ManifestContent,
    ManifestEntry,
    ManifestEntryStatus,
    ManifestFile,
    ManifestWriter,
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
from pyiceberg.typedef import TableVersion

from dwh_assets.iceberg.manifest_merging import to_join
from dwh_assets.iceberg.pending import BRANCH_KEY, Move, Pending, branch_view, pending_changes
from dwh_assets.iceberg.versions import branch_start

# What a catalog is asked for: what has to be so, and what to change.
Request = tuple[tuple[TableRequirement, ...], tuple[TableUpdate, ...]]
# Metadata files that were written, each with what can delete it.
MetadataFiles = list[tuple[FileIO, str]]


class NewManifest(Protocol):
    """Opens a manifest of data files or of delete files."""

    def __call__(
        self,
        version: TableVersion,
        content: ManifestContent,
        spec: PartitionSpec,
        schema: Schema,
        output: OutputFile,
        snapshot_id: int,
        compression: AvroCompressionCodec,
    ) -> ManifestWriter:
        """Return a writer for the manifest."""
        ...


@dataclass(frozen=True)
class Change:
    """What one snapshot does to a table, decided against one version of it.

    A branch that it makes is kept for `branch_lifetime` from its newest commit on; None is for ever.
    """

    operation: Operation
    added: tuple[DataFile, ...] = ()
    removed: tuple[DataFile, ...] = ()
    added_deletes: tuple[DataFile, ...] = ()
    schema: Schema | None = None
    spec: PartitionSpec | None = None
    sort_order: SortOrder | None = None
    properties: dict[str, str] = field(default_factory=dict)
    summary: dict[str, str] = field(default_factory=dict)
    branch_lifetime: timedelta | None = None


class SnapshotBuilder:
    """One attempt: the manifests, the manifest list and the metadata updates of one new snapshot."""

    def __init__(
        self, table: Table, change: Change, branch: str, new_manifest: NewManifest, *, tidies: bool
    ) -> None:
        self._tidies = tidies
        self._metadata: TableMetadata = table.metadata
        self._seen = branch_view(table.metadata, branch)
        self._io: FileIO = table.io
        self._locations = table.location_provider()
        self.change = self._change = change
        self._branch = branch
        self._branch_head = table.metadata.snapshot_by_name(branch)
        self._parent = branch_start(table.metadata, branch)
        self._id = table.metadata.new_snapshot_id()
        self._uuid = uuid.uuid4()
        self._written: list[str] = []
        self._new_manifest = new_manifest
        self.metadata_files: MetadataFiles = []
        self.snapshot: Snapshot

    def stands_on_head_of(self, table: Table) -> bool:
        """Tell whether the branch still is where this snapshot was built on."""
        return table.metadata.snapshot_by_name(self._branch) == self._branch_head

    @cached_property
    def request(self) -> Request:
        """What to ask of the catalog; the manifests and the manifest list are written for it."""
        manifests = self._joined(self._kept_manifests()) + self._added_manifests()
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
            AddSnapshotUpdate(snapshot=self.snapshot),
            self._move_branch(),
        )

    def _move_branch(self) -> SetSnapshotRefUpdate:
        """Point the branch at the new snapshot; what is said of its retention stays said.

        A lifetime counts from the newest snapshot. A branch that is kept for ever stays so.
        """
        ref = self._metadata.refs.get(self._branch)
        age, lifetime = ref.max_ref_age_ms if ref else None, self._change.branch_lifetime
        if lifetime is not None and (ref is None or age is not None):
            age = lifetime // timedelta(milliseconds=1)
        return SetSnapshotRefUpdate(
            ref_name=self._branch,
            type=SnapshotRefType.BRANCH,
            snapshot_id=self._id,
            max_ref_age_ms=age,
            max_snapshot_age_ms=ref.max_snapshot_age_ms if ref else None,
            min_snapshots_to_keep=ref.min_snapshots_to_keep if ref else None,
        )

    def discard(self) -> None:
        """Delete the files of an attempt that did not land."""
        discard_metadata([*self.metadata_files, *((self._io, path) for path in self._written)])

    @property
    def _schema(self) -> Schema:
        """The schema of the snapshot, under the id that it has or is going to have."""
        new = self._change.schema
        if new is None:
            return self._seen.schema()
        for known in self._metadata.schemas:
            if known == new:  # a catalog that is a server gives it no second id
                return known
        return new.model_copy(update={"schema_id": max(s.schema_id for s in self._metadata.schemas) + 1})

    @property
    def _specs(self) -> dict[int, PartitionSpec]:
        new = self._change.spec
        return {**self._metadata.specs(), **({new.spec_id: new} if new else {})}

    def _timestamp_ms(self) -> int:
        """Return now, or just after the newest snapshot: a clock that lags must not turn history round."""
        return max(int(time.time() * 1000), self._metadata.last_updated_ms + 1)

    def _shape_changes(self) -> tuple[list[TableRequirement], list[TableUpdate]]:
        """Require the shape that the plan saw, and change what the plan wants changed.

        On main it becomes current at once; on another branch it is only added, and noted as pending.
        """
        metadata, wanted = self._metadata, self._wanted
        requirements: list[TableRequirement] = [
            AssertCurrentSchemaId(current_schema_id=metadata.current_schema_id),
            AssertDefaultSpecId(default_spec_id=metadata.default_spec_id),
            AssertDefaultSortOrderId(default_sort_order_id=metadata.default_sort_order_id),
        ]
        updates: list[TableUpdate] = []
        if self._schema.schema_id not in {schema.schema_id for schema in metadata.schemas}:
            requirements.append(AssertLastAssignedFieldId(last_assigned_field_id=metadata.last_column_id))
            updates.append(AddSchemaUpdate(schema_=self._schema))
        spec, order = self._change.spec, self._change.sort_order
        if spec is not None and spec.spec_id not in metadata.specs():
            requirements.append(
                AssertLastAssignedPartitionId(last_assigned_partition_id=metadata.last_partition_id)
            )
            updates.append(AddPartitionSpecUpdate(spec=spec))
        if order is not None and metadata.sort_order_by_id(order.order_id) is None:
            updates.append(AddSortOrderUpdate(sort_order=order))
        return requirements, [*updates, *(current_updates(wanted) if self._branch == MAIN_BRANCH else ())]

    @property
    def _wanted(self) -> Pending:
        """What of the table is to be otherwise than the branch has it."""
        seen, spec, order = self._seen, self._change.spec, self._change.sort_order
        return Pending(
            schema=_move(seen.current_schema_id, self._schema.schema_id),
            spec=_move(seen.default_spec_id, spec.spec_id) if spec else None,
            sort_order=_move(seen.default_sort_order_id, order.order_id) if order else None,
            properties={
                key: value
                for key, value in self._change.properties.items()
                if seen.properties.get(key) != value
            },
        )

    def _of_branch(self) -> dict[str, str]:
        """Return the summary's notes of the branch, and of what becomes current only with it."""
        if self._branch == MAIN_BRANCH:
            return {}
        pending = pending_changes(self._metadata, self._branch_head).then(self._wanted)
        return {BRANCH_KEY: self._branch, **pending.summary()}

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

    def _joined(self, manifests: list[ManifestFile]) -> list[ManifestFile]:
        """Join small manifests where there are many; a commit that was overtaken has no time for that.

        Those that this commit has written anew stay apart: they tell what it removes.
        """
        older = [manifest for manifest in manifests if manifest.added_snapshot_id != self._id]
        groups = to_join(older, self._metadata.properties) if self._tidies else []
        joined = {manifest.manifest_path for group in groups for manifest in group}
        others = [manifest for manifest in manifests if manifest.manifest_path not in joined]
        return [self._write_joined(group) for group in groups] + others

    def _write_joined(self, manifests: list[ManifestFile]) -> ManifestFile:
        spec = self._specs[manifests[0].partition_spec_id]
        with self._manifest_writer(spec, manifests[0].content) as writer:
            for manifest in manifests:
                for entry in manifest.fetch_manifest_entry(self._io, discard_deleted=True):
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
        version, schema = self._metadata.format_version, self._schema_of(spec)
        return self._new_manifest(version, content, spec, schema, output, self._id, self._compression)

    def _schema_of(self, spec: PartitionSpec) -> Schema:
        """Return the newest columns that a spec can be written with: old files outlast a dropped column."""
        needed = {field.source_id for field in spec.fields}
        known = (self._schema, *reversed(self._metadata.schemas))
        return next((schema for schema in known if needed <= set(schema.field_ids)), self._schema)

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
        counted = Summary(
            operation=Operation.OVERWRITE, **self._counted(), **self._change.summary, **self._of_branch()
        )
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


def current_updates(wanted: Pending) -> list[TableUpdate]:
    """Return the updates that make current what the table has already been given."""
    updates: list[TableUpdate] = []
    if wanted.schema:
        updates.append(SetCurrentSchemaUpdate(schema_id=wanted.schema.after))
    if wanted.spec:
        updates.append(SetDefaultSpecUpdate(spec_id=wanted.spec.after))
    if wanted.sort_order:
        updates.append(SetDefaultSortOrderUpdate(sort_order_id=wanted.sort_order.after))
    if wanted.properties:
        updates.append(SetPropertiesUpdate(updates=dict(wanted.properties)))
    return updates


def _move(before: int, after: int) -> Move | None:
    return None if before == after else Move(before, after)


def _by_spec(files: Iterable[DataFile]) -> dict[int, list[DataFile]]:
    grouped: defaultdict[int, list[DataFile]] = defaultdict(list)
    for file in files:
        grouped[file.spec_id].append(file)
    return grouped


def discard_metadata(noted: MetadataFiles, *, keep: str | None = None) -> None:
    """Delete metadata files of what was refused; `keep` is the one that the table stands on."""
    for io, path in noted:
        if path != keep:
            with suppress(OSError):
                io.delete(path)
