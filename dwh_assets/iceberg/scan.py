"""Read a table at a version, as a stream of Arrow batches.

PyIceberg's own reader holds every file that it has read ahead; this one holds a few.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.expressions import AlwaysTrue, BooleanExpression
from pyiceberg.expressions.visitors import bind, extract_field_ids
from pyiceberg.io.pyarrow import schema_to_pyarrow
from pyiceberg.schema import Schema, prune_columns
from pyiceberg.table import DataScan, FileScanTask, Table
from pyiceberg.table.metadata import TableMetadata

from dwh_assets.errors import NotFoundError
from dwh_assets.iceberg.arrow.types import align_by_id, arrow_schema
from dwh_assets.iceberg.files.reading import live_batches
from dwh_assets.iceberg.filters import as_arrow, filter_expression
from dwh_assets.iceberg.planning import planned_files

# Small files are read ahead by as many threads, so that a store's latency is not paid file by file.
_AHEAD = 8
_SMALL_FILE_BYTES = 8 << 20


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


def schema_at(table: Table, snapshot_id: int) -> Schema:
    """Return the columns that the table had at a snapshot; raise `NotFoundError` where there is none."""
    return _metadata_at(table, snapshot_id).schema()


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


def read(planned: DataScan, tasks: Sequence[FileScanTask] | None = None) -> pa.RecordBatchReader:
    """Stream the rows of a planned read, in the columns that it selects; of all its files, or of `tasks`."""
    metadata, projection = planned.table_metadata, planned.projection()
    everything = planned.update(selected_fields=("*",)).projection()
    bound = bind(everything, planned.row_filter, case_sensitive=planned.case_sensitive)
    columns = prune_columns(everything, projection.field_ids | extract_field_ids(bound))
    batches = _read_ahead(
        planned_files(planned) if tasks is None else tasks,
        lambda task: live_batches(metadata, planned.io, task, columns, where=bound),
    )
    if bound != AlwaysTrue():
        condition = as_arrow(columns, bound)
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
