"""Where each row goes: partitions by one sort and slices, files of the target size, bounded memory.

A chunk of rows is sorted once by its partition values (and the table's sort order) and cut at the
boundaries, so the cost does not grow with the number of partitions. Slices wait in memory by
partition; when they are too many, the largest are written first, as row groups of files that stay
open. Without a sort order a file is filled to the target size; with one, each file holds one sorted
run, so that the order holds in every file.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Lock

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.manifest import DataFile
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table.sorting import NullOrder, SortDirection, SortOrder
from pyiceberg.transforms import TruncateTransform, VoidTransform
from pyiceberg.typedef import Record
from pyiceberg.types import BinaryType

from dwh_assets.iceberg.data_files import FileTarget, OpenDataFile

CHUNK_BYTES = 96 << 20
BUFFER_BYTES = 256 << 20
MAX_OPEN_FILES = 200
PARALLEL_BYTES = 24 << 20
_THREADS = min(4, os.cpu_count() or 1)
# Share of the target size from which on a file is not worth opening again.
_NEARLY_FULL = 0.95
# Column, direction and where nulls go, as pyarrow.compute.sort_indices takes them.
SortKey = tuple[str, str, str]


def partition_columns(spec: PartitionSpec, schema: Schema, rows: pa.Table) -> dict[str, pa.Array]:
    """Return one array of partition values per spec field, in Iceberg's internal representation."""
    return {
        f"partition_{position}": _internal(_transformed(partition_field, schema, rows))
        for position, partition_field in enumerate(spec.fields)
    }


def _transformed(partition_field: PartitionField, schema: Schema, rows: pa.Table) -> pa.Array:
    transform = partition_field.transform
    source = schema.find_field(partition_field.source_id)
    if isinstance(transform, VoidTransform):
        return pa.nulls(rows.num_rows, pa.int32())
    column = _column(rows, schema.find_column_name(source.field_id) or source.name)
    if isinstance(transform, TruncateTransform) and isinstance(source.field_type, BinaryType):
        return pc.binary_slice(column, 0, transform.width)  # PyIceberg's has no kernel for it
    return transform.pyarrow_transform(source.field_type)(column)


def _column(rows: pa.Table, path: str) -> pa.Array:
    if path in rows.column_names:
        return rows.column(path).combine_chunks()
    first, *rest = path.split(".")
    return pc.struct_field(rows.column(first).combine_chunks(), rest)


def _internal(values: pa.Array) -> pa.Array:
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if isinstance(values, pa.ExtensionArray):
        return values.storage
    if pa.types.is_date32(values.type):
        return values.cast(pa.int32())
    if pa.types.is_timestamp(values.type) or pa.types.is_time64(values.type):
        return values.cast(pa.int64())
    return values


def split_by_partition(
    spec: PartitionSpec, schema: Schema, order: SortOrder, rows: pa.Table
) -> Iterator[tuple[Record, pa.Table]]:
    """Yield each partition's rows once, sorted by `order`; the slices share the sorted chunk's memory."""
    keys = partition_columns(spec, schema, rows)
    columns = {name: array for name, array in keys.items() if not pa.types.is_null(array.type)}
    sort_keys: list[SortKey] = [(name, "ascending", "at_start") for name in columns]
    for key, array in _sort_columns(order, schema, rows):
        columns[key[0]] = array
        sort_keys.append(key)
    if not sort_keys:
        yield Record(), rows
        return
    indices = pc.sort_indices(pa.table(columns), sort_keys=sort_keys)
    ordered = rows.combine_chunks().take(indices)
    sorted_keys = [array.take(indices) for array in keys.values()]
    starts = _boundaries(sorted_keys, rows.num_rows)
    for start, end in zip(starts, [*starts[1:], rows.num_rows], strict=True):
        yield Record(*(key[start].as_py() for key in sorted_keys)), ordered.slice(start, end - start)


def _sort_columns(order: SortOrder, schema: Schema, rows: pa.Table) -> Iterator[tuple[SortKey, pa.Array]]:
    """Yield what to sort by. To Iceberg NaN is the greatest number; PyArrow puts it beside the nulls."""
    for position, sort_field in enumerate(order.fields):
        source = schema.find_field(sort_field.source_id)
        column = _column(rows, schema.find_column_name(source.field_id) or source.name)
        values = _internal(sort_field.transform.pyarrow_transform(source.field_type)(column))
        direction = "descending" if sort_field.direction == SortDirection.DESC else "ascending"
        placement = "at_end" if sort_field.null_order == NullOrder.NULLS_LAST else "at_start"
        if pa.types.is_floating(values.type):
            yield (f"sort_{position}_nan", direction, placement), pc.is_nan(values).cast(pa.int8())
        yield (f"sort_{position}", direction, placement), values


def _boundaries(sorted_keys: list[pa.Array], rows: int) -> list[int]:
    starts = {0} if rows else set()
    for key in sorted_keys:
        if pa.types.is_null(key.type):
            continue
        run_ends = pc.run_end_encode(key, run_end_type=pa.int64()).run_ends
        starts.update(run_ends.to_pylist()[:-1])
    return sorted(starts)


@dataclass
class _Partition:
    """One partition's rows that wait, and its files that are open but idle."""

    waiting: list[pa.Table] = field(default_factory=list)
    waiting_bytes: int = 0
    idle: list[OpenDataFile] = field(default_factory=list)

    def drain(self) -> list[pa.Table]:
        rows, self.waiting, self.waiting_bytes = self.waiting, [], 0
        return rows


class TableFilesWriter:
    """Lays rows out into data files. Feed it batches, then `close` it; on failure, `abort` it."""

    def __init__(self, target: FileTarget, *, buffer_bytes: int = BUFFER_BYTES) -> None:
        self._target = target
        self._buffer_bytes = buffer_bytes
        self._chunk: list[pa.RecordBatch] = []
        self._chunk_bytes = 0
        self._partitions: defaultdict[Record, _Partition] = defaultdict(_Partition)
        self._buffered = 0
        self._finished: list[DataFile] = []
        self._open: set[OpenDataFile] = set()
        self._lock = Lock()
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="parquet")
        self._running: set[Future[None]] = set()
        self._sorts = not target.sort_order.is_unsorted
        self._streams = target.spec.is_unpartitioned() and not self._sorts

    def write(self, batch: pa.RecordBatch) -> None:
        """Add rows, already in the table's columns (`FileTarget.arrow_schema`)."""
        if batch.num_rows == 0:
            return
        self._chunk.append(batch)
        self._chunk_bytes += batch.nbytes
        if self._chunk_bytes >= CHUNK_BYTES:
            self._split_chunk()

    def close(self) -> list[DataFile]:
        """Write what waits and return every data file of this write."""
        self._split_chunk()
        self._await(0)
        for key, partition in self._partitions.items():
            self._submit(key, partition.drain(), last=True)
        self._await(0)
        self._pool.shutdown()
        return sorted(self._finished, key=lambda file: file.file_path)

    def abort(self) -> None:
        """Stop, and delete every file that this write made."""
        self._pool.shutdown(cancel_futures=True)
        for open_file in self._open:
            with suppress(OSError):
                open_file.abort()
        for finished in self._finished:
            with suppress(OSError):
                self._target.io.delete(finished.file_path)

    def _split_chunk(self) -> None:
        if not self._chunk:
            return
        rows = pa.Table.from_batches(self._chunk)
        self._chunk, self._chunk_bytes = [], 0
        if self._streams:
            for part in _for_each_thread(rows):
                self._submit(Record(), [part])
            return
        for key, part in split_by_partition(
            self._target.spec, self._target.schema, self._target.sort_order, rows
        ):
            self._wait_in(key, part)
        if self._buffered > self._buffer_bytes:
            self._flush(down_to=self._buffer_bytes // 2)
            self._release_chunks()

    def _wait_in(self, key: Record, rows: pa.Table) -> None:
        partition = self._partitions[key]
        size = rows.nbytes
        partition.waiting.append(rows)
        partition.waiting_bytes += size
        self._buffered += size

    def _flush(self, down_to: int) -> None:
        """Write the partitions that hold most, until no more than `down_to` bytes wait."""
        by_size = sorted(self._partitions.items(), key=lambda item: item[1].waiting_bytes, reverse=True)
        for key, partition in by_size:
            if self._buffered <= down_to or not partition.waiting:
                return
            self._buffered -= partition.waiting_bytes
            self._submit(key, partition.drain())

    def _release_chunks(self) -> None:
        """Copy what still waits: a slice would keep its whole sorted chunk in memory."""
        for partition in self._partitions.values():
            partition.waiting = [rows.take(np.arange(rows.num_rows)) for rows in partition.waiting]

    def _submit(self, key: Record, rows: list[pa.Table], *, last: bool = False) -> None:
        self._await(2 * _THREADS - 1)
        self._running.add(self._pool.submit(self._write_rows, key, rows, last))

    def _await(self, at_most: int) -> None:
        while len(self._running) > at_most:
            done, self._running = wait(self._running, return_when=FIRST_COMPLETED)
            for future in done:
                future.result()

    def _write_rows(self, key: Record, slices: list[pa.Table], last: bool) -> None:
        if slices:
            rows = pa.concat_tables(slices)
            self._fill_files(key, self._merged(rows) if self._sorts and len(slices) > 1 else rows)
        if last:
            self._finish(self._partitions[key].idle)

    def _fill_files(self, key: Record, rows: pa.Table) -> None:
        """Write rows in parts of what is still missing to a full file, so that each has its target size."""
        row_bytes = rows.nbytes / rows.num_rows
        open_file: OpenDataFile | None = None
        start = 0
        while start < rows.num_rows:
            open_file = open_file or self._take_file(key)
            before = open_file.size
            part = rows.slice(start, max(1, int((self._target.file_size - before) / max(row_bytes, 1e-3))))
            open_file.write(part)
            start += part.num_rows
            row_bytes = (open_file.size - before) / part.num_rows
            if open_file.size >= _NEARLY_FULL * self._target.file_size:
                self._finish([open_file])
                open_file = None
        if open_file:
            self._put_back(key, open_file)

    def _merged(self, rows: pa.Table) -> pa.Table:
        """Sort slices that are sorted each for itself into one run; each run becomes a file."""
        keys = list(_sort_columns(self._target.sort_order, self._target.schema, rows))
        columns = pa.table({key[0]: array for key, array in keys})
        return rows.take(pc.sort_indices(columns, sort_keys=[key for key, _ in keys]))

    def _take_file(self, key: Record) -> OpenDataFile:
        with self._lock:
            idle = self._partitions[key].idle
            if idle:
                return idle.pop()
        open_file = OpenDataFile(self._target, key)
        with self._lock:
            self._open.add(open_file)
        return open_file

    def _put_back(self, key: Record, open_file: OpenDataFile) -> None:
        with self._lock:
            crowded = len(self._open) > MAX_OPEN_FILES
        if crowded or self._sorts:
            self._finish([open_file])
            return
        with self._lock:
            self._partitions[key].idle.append(open_file)

    def _finish(self, files: list[OpenDataFile]) -> None:
        for open_file in files:
            finished = open_file.close()
            with self._lock:
                self._open.discard(open_file)
                self._finished.append(finished)


def _for_each_thread(rows: pa.Table) -> list[pa.Table]:
    """Cut a chunk that is worth it into parts that are written at the same time, each to its own file."""
    parts = min(_THREADS, max(1, rows.nbytes // PARALLEL_BYTES))
    size = -(-rows.num_rows // parts)
    return [rows.slice(start, size) for start in range(0, rows.num_rows, size)]


def write_batches(target: FileTarget, batches: Iterable[pa.RecordBatch]) -> list[DataFile]:
    """Write aligned batches as data files; on failure none of them is left behind."""
    writer = TableFilesWriter(target)
    try:
        for batch in batches:
            writer.write(batch)
        return writer.close()
    except BaseException:
        writer.abort()
        raise
