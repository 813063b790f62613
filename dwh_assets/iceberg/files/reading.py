"""Read a data file's rows: columns are found by field id, and position deletes are applied.

PyIceberg's own reader turns null lists and maps of structs into empty ones; this one keeps every value.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Any, Self, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from pyiceberg.expressions import AlwaysTrue, BooleanExpression
from pyiceberg.expressions.visitors import bind, extract_field_ids, translate_column_names
from pyiceberg.io import FileIO
from pyiceberg.io.pyarrow import ArrowScan, pyarrow_to_schema
from pyiceberg.manifest import DataFile, FileFormat
from pyiceberg.schema import Schema
from pyiceberg.table import FileScanTask
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.transforms import IdentityTransform
from pyiceberg.types import UUIDType

from dwh_assets.iceberg.arrow.types import FIELD_ID, align, align_by_id, arrow_schema
from dwh_assets.iceberg.files.position_deletes import Positions
from dwh_assets.iceberg.filters import as_arrow
from dwh_assets.iceberg.remembered import Remembered

_BATCH_ROWS = 122_880
# Position deletes that are remembered, of small files
_deletes: Remembered[pa.Table] = Remembered(1 << 20, lambda rows: int(rows.num_rows))
ALWAYS_TRUE = AlwaysTrue()


def live_batches(
    metadata: TableMetadata,
    io: FileIO,
    task: FileScanTask,
    columns: Schema,
    *,
    where: BooleanExpression = ALWAYS_TRUE,
) -> Iterator[pa.RecordBatch]:
    """Stream one data file's rows that are not deleted, in `columns`, a projection of the table's schema.

    A file of which `where`, bound to the table's schema, leaves out whole row groups may yield less.
    """
    formats = {file.file_format for file in (task.file, *task.delete_files)}
    if formats != {FileFormat.PARQUET}:
        yield from ArrowScan(metadata, io, columns, AlwaysTrue()).to_record_batches([task])
        return
    deleted = deleted_positions(io, task)
    position = 0
    for batch in file_batches(
        metadata, io, task.file, columns, where=where if not len(deleted) else ALWAYS_TRUE
    ):
        end = position + batch.num_rows
        yield _without_positions(batch, deleted[(deleted >= position) & (deleted < end)] - position)
        position = end


def deleted_positions(io: FileIO, task: FileScanTask) -> Positions:
    """Return in order the positions in the data file that its delete files name."""
    found = [np.empty(0, np.int64)]
    for delete_file in task.delete_files:
        rows = deletes_in(io, delete_file.file_path)
        found.append(rows.filter(pc.equal(rows["file_path"], task.file.file_path))["pos"].to_numpy())
    return np.unique(np.concatenate(found))


def deletes_in(io: FileIO, location: str) -> pa.Table:
    """Read a file of position deletes: `file_path`, as one dictionary, and `pos`."""

    def read() -> pa.Table:
        with io.new_input(location).open() as stream:
            rows = pq.read_table(cast("IO[bytes]", stream), columns=["file_path", "pos"])
        return rows.set_column(0, "file_path", rows["file_path"].combine_chunks().dictionary_encode())

    return _deletes.get(location, read)


def live_count(metadata: TableMetadata, io: FileIO, task: FileScanTask) -> int:
    """Return the number of a data file's rows that are not deleted; only delete files are read for it."""
    if {delete_file.file_format for delete_file in task.delete_files} - {FileFormat.PARQUET}:
        columns = metadata.schema().select(metadata.schema().fields[0].name)
        scanned = ArrowScan(metadata, io, columns, AlwaysTrue()).to_record_batches([task])
        return sum(batch.num_rows for batch in scanned)
    return task.file.record_count - len(deleted_positions(io, task))


def _without_positions(batch: pa.RecordBatch, positions: Positions) -> pa.RecordBatch:
    if not len(positions):
        return batch
    kept = np.ones(batch.num_rows, bool)
    kept[positions] = False
    return batch.filter(pa.array(kept))


def file_batches(
    metadata: TableMetadata,
    io: FileIO,
    file: DataFile,
    columns: Schema,
    *,
    where: BooleanExpression = ALWAYS_TRUE,
) -> Iterator[pa.RecordBatch]:
    """Stream a Parquet data file's rows in `columns`, deleted ones too; without `where`, in their order."""
    with _OpenFile(metadata, io, file, columns) as opened:
        for batch in opened.scan(opened.fragment, where):
            yield opened.aligned(batch)


def rows_at(
    metadata: TableMetadata, io: FileIO, file: DataFile, columns: Schema, positions: Positions
) -> Iterator[tuple[pa.RecordBatch, Positions]]:
    """Stream the rows of a Parquet data file at sorted positions, each batch with its positions.

    Only row groups that hold one of the positions are read.
    """
    with _OpenFile(metadata, io, file, columns) as opened:
        groups = opened.fragment.row_groups
        ends = np.cumsum([group.num_rows for group in groups])
        for number in np.unique(np.searchsorted(ends, positions, "right")):
            start = ends[number] - groups[number].num_rows
            for batch in opened.scan(opened.fragment.subset(row_group_ids=[int(number)])):
                first, last = np.searchsorted(positions, [start, start + batch.num_rows])
                if first < last:
                    wanted = positions[first:last]
                    yield opened.aligned(batch.take(pa.array(wanted - start))), wanted
                start += batch.num_rows


class _OpenFile:
    """A Parquet data file to be read in some columns of the table. Use as a context manager."""

    def __init__(self, metadata: TableMetadata, io: FileIO, file: DataFile, columns: Schema) -> None:
        self._metadata, self._file, self._columns = metadata, file, columns
        self._target = arrow_schema(columns)
        self._stream = io.new_input(file.file_path).open()
        self.fragment = ds.ParquetFileFormat(pre_buffer=True).make_fragment(cast("IO[bytes]", self._stream))

    def __enter__(self) -> Self:
        try:
            self._find_columns()
        except BaseException:
            self._stream.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def _find_columns(self) -> None:
        try:
            self._physical = self.fragment.physical_schema
        except pa.ArrowInvalid as error:  # which knows no name of the file
            raise pa.ArrowInvalid(f"{self._file.file_path}: {error}") from error
        mapping = self._metadata.name_mapping()
        self._known = pyarrow_to_schema(self._physical, mapping, downcast_ns_timestamp_to_us=True)
        self._absent = _values_of_absent(self._metadata, self._file, self._columns, self._known)
        self._fillable = pa.schema(
            field.with_nullable(field.nullable or column.field_id in self._absent)
            for field, column in zip(self._target, self._columns.fields, strict=True)
        )
        asked = set(_top_level(self._columns))
        # Without any column, a batch would not even know its number of rows.
        self._present = [f.name for f in self._known.fields if f.field_id in asked]
        self._present = self._present or [self._known.fields[0].name]
        self._with_ids = pa.schema([f for f in arrow_schema(self._known) if f.name in self._present])

    def scan(self, fragment: Any, where: BooleanExpression = ALWAYS_TRUE) -> Iterator[pa.RecordBatch]:
        """Stream rows of a part of the file as the file has them."""
        condition = None
        if where != ALWAYS_TRUE and not _asks_for_uuids(where, self._columns):
            renamed = translate_column_names(where, self._known, projected_field_values=self._absent)
            condition = as_arrow(self._known, bind(self._known, renamed, case_sensitive=True))
        scanner = ds.Scanner.from_fragment(
            fragment, schema=self._physical, columns=self._present, filter=condition, batch_size=_BATCH_ROWS
        )
        yield from scanner.to_batches()

    def aligned(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Bring rows of the file into the asked columns."""
        path = self._file.file_path
        found = align_by_id(align(batch, self._with_ids, path), self._fillable, path)
        return _with_values(found, self._absent).cast(self._target)


def _asks_for_uuids(where: BooleanExpression, columns: Schema) -> bool:
    """PyArrow cannot compare a filter on UUIDs with the bounds of a row group."""
    types = (columns.find_field(field_id).field_type for field_id in extract_field_ids(where))
    return any(isinstance(one, UUIDType) for one in types)


def _top_level(schema: Schema) -> list[int]:
    return [field.field_id for field in schema.fields]


def _values_of_absent(
    metadata: TableMetadata, file: DataFile, columns: Schema, known: Schema
) -> dict[int, Any]:
    """Return by field id what a file need not say: its partition, if it came from Hive, and defaults."""
    spec = metadata.specs()[file.spec_id]
    defaults = {
        field.field_id: field.initial_default
        for field in columns.fields
        if field.initial_default is not None and field.field_id not in known.field_ids
    }
    return defaults | {
        field.source_id: file.partition[position]
        for position, field in enumerate(spec.fields)
        if isinstance(field.transform, IdentityTransform)
        and field.source_id in _top_level(columns)
        and field.source_id not in known.field_ids
        and file.partition[position] is not None
    }


def _with_values(batch: pa.RecordBatch, values: dict[int, Any]) -> pa.RecordBatch:
    """Fill columns that the file lacks."""
    for position, field in enumerate(batch.schema):
        value = values.get(int((field.metadata or {}).get(FIELD_ID, -1)))
        if value is not None:
            same = pa.repeat(_scalar(value, field.type), batch.num_rows)
            batch = batch.set_column(position, field, same)
    return batch


def _scalar(value: Any, arrow: pa.DataType) -> pa.Scalar:
    """Turn a value into one of the column; partitions tell moments as counts of days or microseconds."""
    if isinstance(value, int) and pa.types.is_date(arrow):
        return pa.scalar(value, pa.int32()).cast(arrow)
    if isinstance(value, int) and pa.types.is_temporal(arrow):
        return pa.scalar(value, pa.int64()).cast(arrow)
    return pa.scalar(value, arrow)
