"""What changed between two snapshots, as a replica takes it: rows that go and rows that come."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property, partial

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.schema import Schema
from pyiceberg.types import DoubleType, FloatType, IcebergType

from dwh_assets.iceberg.arrow.types import align, arrow_schema
from dwh_assets.iceberg.diff.compare import compare
from dwh_assets.iceberg.diff.netting import DELETE, INSERT, UPDATE_AFTER, UPDATE_BEFORE
from dwh_assets.iceberg.diff.sides import Sides, sides
from dwh_assets.iceberg.diff.version_diff import VersionDiff
from dwh_assets.iceberg.keys import known_keys
from dwh_assets.iceberg.scan import schema_at
from dwh_assets.warehouses.dialect import ReplicaColumn
from dwh_assets.warehouses.source import Source

_CHANGE_TYPE = "_change_type"


@dataclass(frozen=True)
class Changes(AbstractContextManager["Changes"]):
    """Rows that changed, an update being a row that goes and one that comes. Use as a context manager.

    `keys` are the columns that tell rows apart; none means that rows are told apart by all of their values.
    Rows are read when something is first asked that needs them, and kept on disk where they are many.
    """

    source: Source
    diff: VersionDiff
    columns: tuple[ReplicaColumn, ...]
    keys: tuple[ReplicaColumn, ...]

    def __exit__(self, *_: object) -> None:
        self.diff.close()

    @cached_property
    def _sides(self) -> Sides | None:
        return sides(self.diff) if self.keys else None

    @property
    def rows(self) -> int:
        """How many rows go and come."""
        return self.rows_deleted + self.rows_inserted

    @property
    def rows_deleted(self) -> int:
        """How many rows go, updates included."""
        return self._sides.rows_went if self._sides else self.diff.rows_removed + self.diff.rows_modified

    @property
    def rows_inserted(self) -> int:
        """How many rows come, updates included."""
        return self._sides.rows_came if self._sides else self.diff.rows_added + self.diff.rows_modified

    @property
    def told_by(self) -> tuple[ReplicaColumn, ...]:
        """The columns of `deletes`: the key, or all."""
        return self.keys or self.columns

    def deletes(self) -> pa.RecordBatchReader:
        """Stream what tells the rows apart that go, in the lake's types."""
        went = self._sides.keys_that_went if self._sides else partial(self._net, (DELETE, UPDATE_BEFORE))
        return self._in_lake_types(self.told_by, went)

    def inserts(self) -> pa.RecordBatchReader:
        """Stream the rows that come, in the lake's types."""
        came = self._sides.rows_that_came if self._sides else partial(self._net, (INSERT, UPDATE_AFTER))
        return self._in_lake_types(self.columns, came)

    def _net(self, kinds: Sequence[str]) -> Iterator[pa.RecordBatch]:
        for batch in self.diff.changes():
            yield batch.filter(pc.is_in(batch.column(_CHANGE_TYPE), pa.array(kinds)))

    def _in_lake_types(
        self, columns: Sequence[ReplicaColumn], batches: Callable[[], Iterable[pa.RecordBatch]]
    ) -> pa.RecordBatchReader:
        target = arrow_schema(Schema(*(column.field for column in columns)))
        then = {field.field_id: field.name for field in self.diff.compared.fields}

        def named() -> Iterator[pa.RecordBatch]:
            for batch in batches():
                arrays = [batch.column(then[column.field.field_id]) for column in columns]
                renamed = pa.RecordBatch.from_arrays(arrays, names=target.names)
                yield align(renamed, target, self.diff.table)

        return pa.RecordBatchReader.from_batches(target, self.source.faithfully(named()))


def changes_between(source: Source, before: int | None, columns: tuple[ReplicaColumn, ...]) -> Changes:
    """Compare the snapshot `before` (None: the empty table) with that of the source, which has one.

    Raises what `iceberg.diff.compare` raises.
    """
    after = source.snapshot_id
    assert after is not None  # noqa: S101 - see above
    # Where the table went back to an older snapshot, its columns stayed: these have other values there.
    schemas = [schema_at(source.table, known) for known in (after, before) if known is not None]
    names = known_keys(source.table.metadata, source.schema, *schemas)
    diff = compare(source.table, before, after, keys=names, schema=source.schema)
    ids = {column.field.field_id: column for column in columns}
    keys = [ids.get(diff.compared.find_field(name).field_id) for name in names]
    if not all(key is not None and _can_be_told_apart(key.field.field_type) for key in keys):
        whole = compare(source.table, before, after, schema=source.schema)
        return Changes(source, whole, columns, ())
    return Changes(source, diff, columns, tuple(key for key in keys if key))


def _can_be_told_apart(iceberg: IcebergType) -> bool:
    """NaN is not equal to itself in every warehouse, and what is nested cannot be compared in every one."""
    return iceberg.is_primitive and not isinstance(iceberg, FloatType | DoubleType)
