"""What changed between two snapshots, as a replica takes it: rows that go and rows that come."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.schema import Schema
from pyiceberg.types import DoubleType, FloatType, IcebergType

from dwh_assets.iceberg.arrow.types import align, arrow_schema
from dwh_assets.iceberg.diff.compare import compare
from dwh_assets.iceberg.diff.netting import DELETE, INSERT, UPDATE_AFTER, UPDATE_BEFORE
from dwh_assets.iceberg.diff.version_diff import VersionDiff
from dwh_assets.iceberg.keys import known_keys
from dwh_assets.iceberg.scan import schema_at
from dwh_assets.warehouses.dialect import ReplicaColumn
from dwh_assets.warehouses.source import Source

_CHANGE_TYPE = "_change_type"


@dataclass(frozen=True)
class Changes(AbstractContextManager["Changes"]):
    """The net changes of rows; read once, and kept on disk where they are many. Use as a context manager.

    `keys` are the columns that tell rows apart; none means that rows are told apart by all of their values.
    """

    source: Source
    diff: VersionDiff
    columns: tuple[ReplicaColumn, ...]
    keys: tuple[ReplicaColumn, ...]

    def __exit__(self, *_: object) -> None:
        self.diff.close()

    @property
    def rows(self) -> int:
        """How many rows are deleted and inserted, updates counted as both."""
        return self.rows_deleted + self.rows_inserted

    @property
    def rows_deleted(self) -> int:
        """How many rows go, updates included."""
        return self.diff.rows_removed + self.diff.rows_modified

    @property
    def rows_inserted(self) -> int:
        """How many rows come, updates included."""
        return self.diff.rows_added + self.diff.rows_modified

    @property
    def told_by(self) -> tuple[ReplicaColumn, ...]:
        """The columns of `deletes`: the key, or all."""
        return self.keys or self.columns

    def deletes(self) -> pa.RecordBatchReader:
        """Stream what tells the rows apart that go, in the lake's types."""
        return self._some(self.told_by, (DELETE, UPDATE_BEFORE))

    def inserts(self) -> pa.RecordBatchReader:
        """Stream the rows that come, in the lake's types."""
        return self._some(self.columns, (INSERT, UPDATE_AFTER))

    def _some(self, columns: Sequence[ReplicaColumn], kinds: Sequence[str]) -> pa.RecordBatchReader:
        target = arrow_schema(Schema(*(column.field for column in columns)))
        then = {field.field_id: field.name for field in self.diff.compared.fields}
        # A column that is newer than the snapshot is null in all of its rows.
        found = [column.field for column in columns if column.field.field_id in then]

        def batches() -> Iterator[pa.RecordBatch]:
            for batch in self.diff.changes():
                chosen = batch.filter(pc.is_in(batch.column(_CHANGE_TYPE), pa.array(kinds)))
                if chosen.num_rows:
                    arrays = [chosen.column(then[field.field_id]) for field in found]
                    named = pa.RecordBatch.from_arrays(arrays, names=[field.name for field in found])
                    yield align(named, target, self.diff.table)

        return pa.RecordBatchReader.from_batches(target, self.source.faithfully(batches()))


def changes_between(source: Source, before: int, columns: tuple[ReplicaColumn, ...]) -> Changes:
    """Compare the snapshot `before` with that of the source; rows are read when they are asked for.

    Raises what `iceberg.diff.compare` raises.
    """
    assert source.snapshot_id is not None  # noqa: S101 - what has a snapshot before has one after
    then, now = schema_at(source.table, before), schema_at(source.table, source.snapshot_id)
    ids = {column.field.field_id: column for column in columns}
    names = known_keys(source.table.metadata, now, then)
    keys = [ids.get(now.find_field(name).field_id) for name in names]
    usable = all(key is not None and _can_be_told_apart(key.field.field_type) for key in keys)
    diff = compare(source.table, before, source.snapshot_id, keys=names if usable else None)
    return Changes(source, diff, columns, tuple(key for key in keys if key) if usable else ())


def _can_be_told_apart(iceberg: IcebergType) -> bool:
    """NaN is not equal to itself in every warehouse, and what is nested cannot be compared in every one."""
    return iceberg.is_primitive and not isinstance(iceberg, FloatType | DoubleType)
