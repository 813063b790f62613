"""What two versions of a table differ in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import pyarrow as pa
from pyiceberg.io.pyarrow import schema_to_pyarrow
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.snapshots import Snapshot

from dwh_assets.errors import UnsupportedError
from dwh_assets.iceberg.arrow.types import align, arrow_schema
from dwh_assets.iceberg.diff.changed_rows import ChangedRows
from dwh_assets.iceberg.diff.columns import internal_columns
from dwh_assets.iceberg.diff.cost import bytes_to_read, files_to_read
from dwh_assets.iceberg.diff.file_changes import file_changes
from dwh_assets.iceberg.diff.netting import CHANGE
from dwh_assets.iceberg.diff.render import as_dict, as_markdown
from dwh_assets.iceberg.diff.route import Route
from dwh_assets.iceberg.diff.statistics import ColumnDiff, column_diffs
from dwh_assets.iceberg.diff.table_changes import (
    TableChange,
    metadata_at,
    partition_spec_changes,
    property_changes,
    schema_changes,
    sort_order_changes,
)
from dwh_assets.iceberg.diff.weights import WeightedFile, net, one_sided, rows_to_read
from dwh_assets.iceberg.scan import schema_at
from dwh_assets.iceberg.versions import RUN_ID, moment

_BATCH_ROWS = 122_880
_UNKNOWN = (
    "Metadata files of the time of one of the versions are no longer kept: whether partitioning, order and "
    "properties changed is not known."
)
# What `changes` adds to the table's columns
CHANGE_COLUMNS = pa.schema(
    [
        ("_change_type", pa.string()),
        ("_snapshot_id", pa.int64()),
        ("_committed_at", pa.timestamp("us", "UTC")),
        ("_run_id", pa.string()),
    ]
)


@dataclass
class VersionDiff:
    """Two versions of a table, compared exactly; None is the empty table.

    Rows are read when something is first asked that needs them, and may be kept in a temporary folder until
    `close`, or the end of a `with` block, or of the object.
    """

    source: Table
    from_snapshot_id: int | None
    to_snapshot_id: int
    route: Route
    compared: Schema
    files: Sequence[WeightedFile]
    keys: tuple[str, ...] = ()
    reading_notes: tuple[str, ...] = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove what is kept on disk."""
        self._rows.close()

    @property
    def table(self) -> str:
        """The table's name."""
        return ".".join(self.source.name())

    @property
    def rows_added(self) -> int:
        """Rows that only the later version has."""
        return self._rows.counts.added

    @property
    def rows_removed(self) -> int:
        """Rows that only the earlier version has."""
        return self._rows.counts.removed

    @property
    def rows_modified(self) -> int:
        """Rows of which both versions have the key, with other values; none without keys."""
        return self._rows.counts.modified

    @cached_property
    def _rows(self) -> ChangedRows:
        return self._changed(self.files)

    @cached_property
    def columns(self) -> tuple[ColumnDiff, ...]:
        """What the changed rows hold, by column; they are gone through again for it."""
        return column_diffs(self._rows, self.compared)

    @cached_property
    def files_read(self) -> int:
        """How many data files and delete files are read, manifests left aside."""
        return files_to_read(self.files)

    @property
    def rows_read(self) -> int:
        """At most how many rows are read to count those that changed; none where all came, or all went."""
        return 0 if one_sided(self.files) else rows_to_read(self.files)

    @cached_property
    def bytes_read(self) -> int:
        """How many bytes of these are read; worked out from the files' footers when first asked for."""
        return bytes_to_read(self.source, self.files)

    @cached_property
    def schema_changes(self) -> tuple[TableChange, ...]:
        """What became of the columns, by field id; nothing where the earlier version is the empty table."""
        after = schema_at(self.source, self.to_snapshot_id)
        before = after
        if self.from_snapshot_id is not None:
            before = schema_at(self.source, self.from_snapshot_id)
        return schema_changes(before, after)

    @property
    def partition_spec_changes(self) -> tuple[TableChange, ...]:
        """Partition fields that came and went between the commits of both versions, as far as known."""
        return partition_spec_changes(*self._metadata) if self._metadata else ()

    @property
    def sort_order_changes(self) -> tuple[TableChange, ...]:
        """The change of the order in which rows are written, between both commits, as far as known."""
        return sort_order_changes(*self._metadata) if self._metadata else ()

    @property
    def property_changes(self) -> tuple[TableChange, ...]:
        """Properties that differ between the commits of both versions, as far as known."""
        return property_changes(*self._metadata) if self._metadata else ()

    @property
    def notes(self) -> tuple[str, ...]:
        """How the versions were compared where that is not as usual, and what cannot be known."""
        unknown = self.from_snapshot_id is not None and self._metadata is None
        return (*self.route.notes, *self.reading_notes, *((_UNKNOWN,) if unknown else ()))

    @cached_property
    def _metadata(self) -> tuple[TableMetadata, TableMetadata] | None:
        """The table's metadata as both versions' commits left them."""
        if self.from_snapshot_id is None:
            return None
        before = metadata_at(self.source, self.from_snapshot_id)
        after = metadata_at(self.source, self.to_snapshot_id)
        return None if before is None or after is None else (before, after)

    def to_markdown(self) -> str:
        """Render the comparison for people."""
        return as_markdown(self)

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the rows as JSON knows it; snapshot ids are text."""
        return as_dict(self)

    def _changed(self, files: Sequence[WeightedFile]) -> ChangedRows:
        columns = internal_columns(self.compared)
        named = dict(zip(self.compared.column_names, columns.column_names, strict=True))
        return ChangedRows(self.source, files, columns, [named[key] for key in self.keys])

    def changes(self, *, per_snapshot: bool = False) -> pa.RecordBatchReader:
        """Stream the rows that changed, in the later version's columns and four more.

        `_change_type` is insert, delete, update_before or update_after; an update_before is directly
        followed by its update_after. `_snapshot_id`, `_committed_at` and `_run_id` (None where no Dagster run
        made it) are those of the later version; with `per_snapshot`, of the snapshot that made the change:
        each snapshot's own changes then come in the order of their commits, and the ones that have to be
        taken back, where the versions are on different branches, come before, the newest first. Where
        snapshots in between are expired, which `notes` tells, there is but the net difference.

        Raises `UnsupportedError` when the table itself has a column of one of these names.
        """
        taken = set(CHANGE_COLUMNS.names) & {field.name for field in self.compared.fields}
        if taken:
            raise UnsupportedError(
                f"{self.table} has a column {sorted(taken)[0]!r} itself, and changes would have two.",
                remedy="Rename the column.",
            )
        shown = schema_to_pyarrow(self.compared, include_field_ids=False)
        for field in CHANGE_COLUMNS:
            shown = shown.append(field)
        batches = self._each_snapshot(shown) if per_snapshot else self._net(shown)
        return pa.RecordBatchReader.from_batches(shown, batches)

    def came(self, columns: Sequence[str] | None = None, *, exactly: bool = True) -> pa.RecordBatchReader:
        """Stream the rows that only the later version has, updated ones among them, in all or some columns.

        Without `exactly`, rows that were written again may be among them, which both versions have; that
        reads but these columns, and of the later version alone.
        """
        fields = [f for f in self.compared.fields if columns is None or f.name in columns]
        wanted = Schema(*fields)
        target = arrow_schema(internal_columns(wanted))
        shown = schema_to_pyarrow(wanted, include_field_ids=False)
        batches = (
            pa.RecordBatch.from_arrays(align(batch, target, self.table).columns, schema=shown)
            for batch in self._rows.came(internal_columns(wanted), exactly=exactly)
        )
        return pa.RecordBatchReader.from_batches(shown, batches)

    def _net(self, shown: pa.Schema) -> Iterator[pa.RecordBatch]:
        return self._batches(self._rows, self.source.snapshot_by_id(self.to_snapshot_id), shown)

    def _each_snapshot(self, shown: pa.Schema) -> Iterator[pa.RecordBatch]:
        if self.route.steps is None:
            yield from self._net(shown)
            return
        for step in self.route.steps:
            rows = self._changed(net(file_changes(self.source, *step.stretch)))
            try:
                yield from self._batches(rows, step.snapshot, shown)
            finally:
                rows.close()

    def _batches(
        self, rows: ChangedRows, snapshot: Snapshot | None, shown: pa.Schema
    ) -> Iterator[pa.RecordBatch]:
        target = arrow_schema(rows.columns)
        of_snapshot = _described(snapshot)
        for table in rows.tables():
            for batch in table.to_batches(_BATCH_ROWS):
                aligned = align(batch, target, self.table)
                constant = [
                    pa.repeat(pa.scalar(value, field.type), batch.num_rows)
                    for value, field in zip(of_snapshot, list(CHANGE_COLUMNS)[1:], strict=True)
                ]
                columns = [*aligned.columns, batch.column(CHANGE).cast(pa.string()), *constant]
                yield pa.RecordBatch.from_arrays(columns, schema=shown)


def _described(snapshot: Snapshot | None) -> tuple[Any, ...]:
    """Return a snapshot's id, time and Dagster run."""
    if snapshot is None:
        return None, None, None
    summary = snapshot.summary.additional_properties if snapshot.summary else {}
    return snapshot.snapshot_id, moment(snapshot.timestamp_ms), summary.get(RUN_ID)
