"""Read a table at a version: planned by PyIceberg, read here as a stream of Arrow batches.

PyIceberg's own reader turns null lists and maps of structs into empty ones and holds every file that it
has read ahead; this one keeps every value and a few files. Columns are found by field id, and position
deletes are applied.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import IO, Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from pyiceberg.expressions import (
    AlwaysTrue,
    And,
    BooleanExpression,
    NotEqualTo,
    NotIn,
    NotNaN,
    NotNull,
    NotStartsWith,
    Or,
)
from pyiceberg.expressions.parser import parse
from pyiceberg.expressions.visitors import bind, extract_field_ids, rewrite_not, translate_column_names
from pyiceberg.io import FileIO
from pyiceberg.io.pyarrow import ArrowScan, expression_to_pyarrow, pyarrow_to_schema, schema_to_pyarrow
from pyiceberg.manifest import DataFile, FileFormat
from pyiceberg.schema import Schema, prune_columns
from pyiceberg.table import DataScan, FileScanTask, Table
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.transforms import IdentityTransform
from pyiceberg.types import UUIDType
from pyparsing import ParseException

from dwh_assets.errors import ConfigurationError, NotFoundError, UnsupportedError
from dwh_assets.iceberg.arrow_types import FIELD_ID, align, align_by_id, arrow_schema

# Small files are read ahead by as many threads, so that a store's latency is not paid file by file.
_AHEAD = 8
_SMALL_FILE_BYTES = 8 << 20
_BATCH_ROWS = 122_880
ALWAYS_TRUE = AlwaysTrue()


def scan(
    table: Table,
    *,
    columns: list[str] | None = None,
    where: str | BooleanExpression | None = None,
    snapshot_id: int | None = None,
) -> DataScan:
    """Plan a read of the table, at its current version unless `snapshot_id` names another.

    Names in `columns` and `where` are those that the table had at that version. `where` is an Iceberg
    filter such as `"carrier = 'AA' and dep_delay > 10"`. Raises `NotFoundError` for an unknown column or
    snapshot, `ConfigurationError` for a filter that cannot be understood.
    """
    name = ".".join(table.name())
    metadata = _metadata_at(table, snapshot_id)
    schema = metadata.schema()
    for column in columns or []:
        _require_column(schema, column, name)
    planned = table.scan(
        row_filter=filter_expression(schema, where, name),
        selected_fields=tuple(columns) if columns else ("*",),
        snapshot_id=snapshot_id,
    )
    return planned.update(table_metadata=metadata)


def _metadata_at(table: Table, snapshot_id: int | None) -> TableMetadata:
    """Return the table's metadata with the schema that it had at the snapshot."""
    if snapshot_id is None:
        return table.metadata
    snapshot = table.snapshot_by_id(snapshot_id)
    if snapshot is None:
        raise NotFoundError(
            f"{'.'.join(table.name())} has no snapshot {snapshot_id}.",
            remedy="It may have expired; see the table's history.",
        )
    known = {schema.schema_id for schema in table.metadata.schemas}
    if snapshot.schema_id not in known:
        return table.metadata
    return table.metadata.model_copy(update={"current_schema_id": snapshot.schema_id})


def filter_expression(schema: Schema, where: str | BooleanExpression | None, table: str) -> BooleanExpression:
    """Understand and check a filter against the table's columns. None means every row.

    As in SQL, a comparison with a null is never true, whether the filter says `=` or `!=`.
    Raises `ConfigurationError`: a filter that cannot be built is never taken for "no filter".
    """
    if where is None:
        return AlwaysTrue()
    try:
        expression = _without_nulls(rewrite_not(parse(where) if isinstance(where, str) else where))
        arrow_schema(schema).empty_table().filter(matches(schema, expression))
    except (ValueError, TypeError, ParseException, pa.ArrowNotImplementedError) as error:
        raise ConfigurationError(
            f"{table}: the filter {str(where)!r} cannot be understood: {error}.",
            remedy=f"Use the columns {', '.join(schema.column_names)} and literals of their types.",
        ) from None
    return expression


def _without_nulls(expression: BooleanExpression) -> BooleanExpression:
    """Say of negated comparisons that the value is there: partitions and rows would differ about nulls."""
    if isinstance(expression, And | Or):
        left, right = _without_nulls(expression.left), _without_nulls(expression.right)
        return And(left, right) if isinstance(expression, And) else Or(left, right)
    if isinstance(expression, NotEqualTo | NotIn | NotStartsWith | NotNaN):
        return And(expression, NotNull(term=expression.term))
    return expression


def matches(schema: Schema, expression: BooleanExpression) -> pc.Expression:
    """Return an Arrow expression that is true for rows that match and false, never null, for the others."""
    return _as_arrow(schema, bind(schema, expression, case_sensitive=True))


def _as_arrow(schema: Schema, bound: BooleanExpression) -> pc.Expression:
    """Translate a filter; with a schema to look at, PyIceberg takes every dot in a name for a struct's."""
    nested = extract_field_ids(bound) - {field.field_id for field in schema.fields}
    return pc.coalesce(expression_to_pyarrow(bound, schema if nested else None), pa.scalar(False))


def max_value(table: Table, column: str) -> Any:
    """Return the greatest value of a top-level column, the only one that is read; None for an empty table."""
    best: Any = None
    for batch in read(scan(table, columns=[column])):
        found = pc.max(batch.column(0)).as_py()
        if found is not None and (best is None or found > best):
            best = found
    return best


def _require_column(schema: Schema, column: str, table: str) -> None:
    try:
        schema.find_field(column)
    except ValueError:
        raise NotFoundError(
            f"{table} has no column {column!r}.", remedy=f"It has {', '.join(schema.column_names)}."
        ) from None


def planned_files(planned: DataScan) -> list[FileScanTask]:
    """Return the data files that the read concerns, each with its position deletes.

    Raises `UnsupportedError` for a table with equality deletes.
    """
    try:
        return list(planned.plan_files())
    except (ValueError, NotImplementedError) as error:
        if "equality deletes" not in str(error):
            raise
        raise UnsupportedError(
            "The table has equality deletes, which cannot be read here.",
            remedy="Rewrite it with the engine that wrote them, for example Spark's rewrite_data_files.",
        ) from None


def read(planned: DataScan) -> pa.RecordBatchReader:
    """Stream the rows of a planned read, in the columns that it selects."""
    metadata, projection = planned.table_metadata, planned.projection()
    everything = planned.update(selected_fields=("*",)).projection()
    bound = bind(everything, planned.row_filter, case_sensitive=planned.case_sensitive)
    columns = prune_columns(everything, projection.field_ids | extract_field_ids(bound))
    batches = _read_ahead(
        planned_files(planned), lambda task: live_batches(metadata, planned.io, task, columns, where=bound)
    )
    if bound != AlwaysTrue():
        condition = _as_arrow(columns, bound)
        batches = (part for batch in batches for part in _rows_where(batch, condition))
    target, shown = arrow_schema(projection), schema_to_pyarrow(projection, include_field_ids=False)
    selected = (align_by_id(batch, target, "read") for batch in batches)
    plain = (pa.RecordBatch.from_arrays(batch.columns, schema=shown) for batch in selected)
    return pa.RecordBatchReader.from_batches(shown, _first_rows(plain, planned.limit))


def _rows_where(batch: pa.RecordBatch, condition: pc.Expression) -> list[pa.RecordBatch]:
    found: list[pa.RecordBatch] = pa.Table.from_batches([batch]).filter(condition).to_batches()
    return found


def _first_rows(batches: Iterable[pa.RecordBatch], limit: int | None) -> Iterator[pa.RecordBatch]:
    left = limit
    for batch in batches:
        if left is not None and batch.num_rows >= left:
            yield batch.slice(0, left)
            return
        left = None if left is None else left - batch.num_rows
        yield batch


def _read_ahead(
    tasks: Sequence[FileScanTask], open_file: Callable[[FileScanTask], Iterator[pa.RecordBatch]]
) -> Iterator[pa.RecordBatch]:
    """Yield the batches of file after file; small files are read before their turn, large ones streamed."""
    with ThreadPoolExecutor(_AHEAD, thread_name_prefix="read") as pool:
        coming: deque[Future[list[pa.RecordBatch]] | Iterator[pa.RecordBatch]] = deque()
        try:
            for task in tasks:
                small = task.file.file_size_in_bytes <= _SMALL_FILE_BYTES
                rows = open_file(task)
                coming.append(pool.submit(list, rows) if small else rows)
                if len(coming) > _AHEAD:
                    yield from _batches_of(coming.popleft())
            while coming:
                yield from _batches_of(coming.popleft())
        finally:
            pool.shutdown(cancel_futures=True)


def _batches_of(
    coming: Future[list[pa.RecordBatch]] | Iterator[pa.RecordBatch],
) -> Iterable[pa.RecordBatch]:
    return coming.result() if isinstance(coming, Future) else coming


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
        with io.new_input(delete_file.file_path).open() as stream:
            rows = pq.read_table(cast("IO[bytes]", stream), columns=["file_path", "pos"])
        found.append(rows.filter(pc.field("file_path") == task.file.file_path)["pos"].to_numpy())
    return np.unique(np.concatenate(found))


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
        physical = fragment.physical_schema
        known = pyarrow_to_schema(physical, metadata.name_mapping(), downcast_ns_timestamp_to_us=True)
        absent = _values_of_partition(metadata, file, columns, known)
        asked = set(_top_level(columns))
        # Without any column, a batch would not even know its number of rows.
        present = [f.name for f in known.fields if f.field_id in asked] or [known.fields[0].name]
        condition = None
        if where != ALWAYS_TRUE and not _asks_for_uuids(where, columns):
            renamed = translate_column_names(where, known, projected_field_values=absent)
            condition = _as_arrow(known, bind(known, renamed, case_sensitive=True))
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
