"""Read a data file's rows: columns are found by field id, and position deletes are applied.

PyIceberg's own reader turns null lists and maps of structs into empty ones; this one keeps every value.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Any, cast

import numpy as np
import numpy.typing as npt
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


def deleted_positions(io: FileIO, task: FileScanTask) -> npt.NDArray[np.int64]:
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


def _without_positions(batch: pa.RecordBatch, positions: npt.NDArray[np.int64]) -> pa.RecordBatch:
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
    target = arrow_schema(columns)
    with io.new_input(file.file_path).open() as stream:
        fragment = ds.ParquetFileFormat(pre_buffer=True).make_fragment(cast("IO[bytes]", stream))
        try:
            physical = fragment.physical_schema
        except pa.ArrowInvalid as error:  # which knows no name of the file
            raise pa.ArrowInvalid(f"{file.file_path}: {error}") from error
        known = pyarrow_to_schema(physical, metadata.name_mapping(), downcast_ns_timestamp_to_us=True)
        absent = _values_of_partition(metadata, file, columns, known)
        asked = set(_top_level(columns))
        # Without any column, a batch would not even know its number of rows.
        present = [f.name for f in known.fields if f.field_id in asked] or [known.fields[0].name]
        condition = None
        if where != ALWAYS_TRUE and not _asks_for_uuids(where, columns):
            renamed = translate_column_names(where, known, projected_field_values=absent)
            condition = as_arrow(known, bind(known, renamed, case_sensitive=True))
        scanner = ds.Scanner.from_fragment(
            fragment, schema=physical, columns=present, filter=condition, batch_size=_BATCH_ROWS
        )
        with_ids = pa.schema([field for field in arrow_schema(known) if field.name in present])
        for batch in scanner.to_batches():
            aligned = align_by_id(align(batch, with_ids, file.file_path), target, file.file_path)
            yield _with_values(aligned, absent)


def _asks_for_uuids(where: BooleanExpression, columns: Schema) -> bool:
    """PyArrow cannot compare a filter on UUIDs with the bounds of a row group."""
    types = (columns.find_field(field_id).field_type for field_id in extract_field_ids(where))
    return any(isinstance(one, UUIDType) for one in types)


def _top_level(schema: Schema) -> list[int]:
    return [field.field_id for field in schema.fields]


def _values_of_partition(
    metadata: TableMetadata, file: DataFile, columns: Schema, known: Schema
) -> dict[int, Any]:
    """Return by field id what only the partition says: files that came from Hive lack such columns."""
    spec = metadata.specs()[file.spec_id]
    return {
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
    """Turn a partition value, moments as counts of days or microseconds, into a value of the column."""
    if pa.types.is_date(arrow):
        return pa.scalar(value, pa.int32()).cast(arrow)
    if pa.types.is_timestamp(arrow) or pa.types.is_time(arrow):
        return pa.scalar(value, pa.int64()).cast(arrow)
    return pa.scalar(value, arrow)
