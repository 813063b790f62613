"""Rows into data files: one for each partition, of the target size, in bounded memory.

A chunk of rows is sorted once by its partition values (and the table's sort order) and cut at the
boundaries, so the cost does not grow with the number of partitions. Where one chunk is all there is, each
slice is written at once. Otherwise the slices wait in memory by partition. When they are too many, the
partitions that hold most are written, as row groups of files that stay open; where there are more
partitions than files may stay open, or rows have to be sorted, all that waits goes to a temporary file
instead, and each partition is written once at the end.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from threading import Lock

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.manifest import DataFile
from pyiceberg.typedef import Record

from dwh_assets.iceberg.files.coding import start_coding, with_coded
from dwh_assets.iceberg.files.data_files import FileTarget, OpenDataFile
from dwh_assets.iceberg.files.gather import Gather, pieces
from dwh_assets.iceberg.files.partitioning import partition_order, sort_columns, split_by_partition
from dwh_assets.iceberg.files.spill import Spill

# Rows that are sorted are copied twice on the way, those that go into files as they come are not.
CHUNK_BYTES = 32 << 20
PLAIN_CHUNK_BYTES = 96 << 20
# Rows that memory holds anyway are sorted as one chunk, as long as no text column outgrows its offsets.
HELD_BYTES = 3 << 29
BUFFER_BYTES = 192 << 20
PIECE_BYTES = 32 << 20
MAX_OPEN_FILES = 200
PARALLEL_BYTES = 16 << 20
_THREADS = min(4, os.cpu_count() or 1)
# Share of the target size from which on a file is not worth opening again.
_NEARLY_FULL = 0.95


@dataclass
class _Partition:
    """One partition's rows that wait, and its files that are open but idle."""

    waiting: list[pa.Table] = field(default_factory=list)
    waiting_bytes: int = 0
    idle: list[OpenDataFile] = field(default_factory=list)

    def add(self, rows: pa.Table, size: int) -> None:
        self.waiting.append(rows)
        self.waiting_bytes += size

    def drain(self) -> list[pa.Table]:
        rows, self.waiting, self.waiting_bytes = self.waiting, [], 0
        return rows


class TableFilesWriter:
    """Lays rows out into data files. Feed it batches, then `close` it; on failure, `abort` it.

    The work is done by a few threads; `write` waits when they fall behind. `held` says that the batches
    are slices of rows which stay in memory until the end.
    """

    def __init__(self, target: FileTarget, *, buffer_bytes: int = BUFFER_BYTES, held: bool = False) -> None:
        self._target = target
        self._buffer_bytes = buffer_bytes
        self._chunk: list[pa.RecordBatch] = []
        self._chunk_bytes = 0
        self._partitions: defaultdict[Record, _Partition] = defaultdict(_Partition)
        self._buffered = 0
        self._spill = Spill(target.arrow_schema)
        self._finished: list[DataFile] = []
        self._open: set[OpenDataFile] = set()
        self._lock = Lock()
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="parquet")
        self._running: set[Future[None]] = set()
        self._sorts = not target.sort_order.is_unsorted
        self._streams = target.spec.is_unpartitioned() and not self._sorts
        self._chunk_limit = self._limit(held)
        self._is_first = True

    def write(self, batch: pa.RecordBatch) -> None:
        """Add rows, already in the table's columns (`FileTarget.arrow_schema`)."""
        if batch.num_rows == 0:
            return
        self._target.note_nulls(batch)
        self._chunk.append(batch)
        self._chunk_bytes += batch.nbytes
        if self._chunk_bytes >= self._chunk_limit:
            self._submit_chunk()

    def _limit(self, held: bool) -> int:
        if self._streams:
            return PLAIN_CHUNK_BYTES
        return HELD_BYTES if held else CHUNK_BYTES

    def close(self) -> list[DataFile]:
        """Write what waits and return every data file of this write."""
        self._submit_chunk(is_last=True)
        self._await(0)
        for key in self._partitions:
            self._submit(self._write_last, key)
        self._await(0)
        self._pool.shutdown()
        self._spill.close()
        return sorted(self._finished, key=lambda file: file.file_path)

    def abort(self) -> None:
        """Stop, and delete every file that this write made."""
        self._pool.shutdown(cancel_futures=True)
        self._spill.close()
        for open_file in self._open:
            with suppress(OSError):
                open_file.abort()
        for finished in self._finished:
            with suppress(OSError):
                self._target.io.delete(finished.file_path)

    def _submit_chunk(self, *, is_last: bool = False) -> None:
        if not self._chunk:
            return
        rows = pa.Table.from_batches(self._chunk)
        self._chunk, self._chunk_bytes = [], 0
        if self._streams:
            if self._is_first:
                self._target.choose_dictionaries(rows, rows.num_rows)
            for part in _for_each_thread(rows):
                self._submit(self._write_rows, Record(), part)
        elif self._is_first and is_last:
            self._submit_whole(rows)
        else:
            self._submit(self._place, rows)
        self._is_first = False

    def _submit_whole(self, rows: pa.Table) -> None:
        """Write all rows that there are: a few partitions at a time are taken out and become files."""
        coding = start_coding(rows, self._pool)
        found = partition_order(self._target.spec, self._target.schema, self._target.sort_order, rows)
        self._target.choose_dictionaries(rows, rows.num_rows // len(found.starts))
        piece_rows = max(1, PIECE_BYTES * rows.num_rows // max(rows.nbytes, 1))
        gather = Gather(with_coded(rows, coding).to_batches())
        for spans in _grouped(found.spans(), piece_rows):
            self._submit(self._write_partitions, gather, found.indices, spans)

    def _write_partitions(
        self, gather: Gather, indices: pa.Array, spans: list[tuple[Record, int, int]]
    ) -> None:
        first, last = spans[0][1], spans[-1][2]
        ordered = gather.take(indices.slice(first, last - first))
        row_bytes = ordered.nbytes / ordered.num_rows
        for partition, start, end in spans:
            idle: list[OpenDataFile] = []
            self._fill_files(partition, idle, ordered.slice(start - first, end - start), row_bytes)
            self._finish(idle)

    def _submit(self, work: Callable[..., None], *arguments: object) -> None:
        self._await(_THREADS)
        self._running.add(self._pool.submit(work, *arguments))

    def _await(self, at_most: int) -> None:
        while len(self._running) > at_most:
            done, self._running = wait(self._running, return_when=FIRST_COMPLETED)
            for future in done:
                future.result()

    def _place(self, rows: pa.Table) -> None:
        """Sort a chunk into partitions, and make room when too much waits."""
        target = self._target
        parts = [
            (key, part, part.nbytes)
            for key, part in split_by_partition(target.spec, target.schema, target.sort_order, rows)
        ]
        with self._lock:
            if not self._partitions:
                target.choose_dictionaries(rows, rows.num_rows // len(parts))
            for key, part, size in parts:
                self._partitions[key].add(part, size)
                self._buffered += size
            drained = self._make_room()
        if self._sorts or len(self._partitions) > MAX_OPEN_FILES:
            if drained:
                self._spill.write(drained)
            return
        for key, tables in drained:
            self._write_rows(key, pa.concat_tables(tables))

    def _make_room(self) -> list[tuple[Record, list[pa.Table]]]:
        """Take out what has to leave memory: all for the temporary file, otherwise the largest half."""
        if self._buffered <= self._buffer_bytes:
            return []
        all_leave = self._sorts or len(self._partitions) > MAX_OPEN_FILES
        left = 0 if all_leave else self._buffer_bytes // 2
        drained = []
        by_size = sorted(self._partitions.items(), key=lambda item: item[1].waiting_bytes, reverse=True)
        for key, partition in by_size:
            if self._buffered <= left or not partition.waiting:
                break
            self._buffered -= partition.waiting_bytes
            drained.append((key, partition.drain()))
        for partition in self._partitions.values():
            # A slice would keep its whole sorted chunk in memory.
            partition.waiting = [rows.take(np.arange(rows.num_rows)) for rows in partition.waiting]
        return drained

    def _write_last(self, key: Record) -> None:
        """Write all that is left of a partition, and finish its files."""
        partition = self._partitions[key]
        for rows in pieces(chain(self._spill.read(key), partition.drain()), PIECE_BYTES):
            self._write_rows(key, rows)
        self._finish(partition.idle)

    def _write_rows(self, key: Record, rows: pa.Table) -> None:
        if rows.num_rows:
            merged = self._merged(rows) if self._sorts and _parts(rows) > 1 else rows
            with self._lock:
                idle = self._partitions[key].idle
            self._fill_files(key, idle, merged, rows.nbytes / rows.num_rows)

    def _fill_files(self, key: Record, idle: list[OpenDataFile], rows: pa.Table, row_bytes: float) -> None:
        """Write rows in parts of what is still missing to a full file, so that each has its target size.

        `idle` are the partition's open files that nobody writes to.
        """
        open_file: OpenDataFile | None = None
        start = 0
        while start < rows.num_rows:
            open_file = open_file or self._take_file(key, idle, rows.schema)
            before = open_file.size
            part = rows.slice(start, max(1, int((self._target.file_size - before) / max(row_bytes, 1e-3))))
            open_file.write(part)
            start += part.num_rows
            row_bytes = (open_file.size - before) / part.num_rows
            if open_file.size >= _NEARLY_FULL * self._target.file_size:
                self._finish([open_file])
                open_file = None
        if open_file:
            self._put_back(idle, open_file)

    def _merged(self, rows: pa.Table) -> pa.Table:
        """Sort slices that are sorted each for itself into one run; each run becomes a file."""
        keys = list(sort_columns(self._target.sort_order, self._target.schema, rows))
        columns = pa.table({key[0]: array for key, array in keys})
        return rows.take(pc.sort_indices(columns, sort_keys=[key for key, _ in keys]))

    def _take_file(self, key: Record, idle: list[OpenDataFile], schema: pa.Schema) -> OpenDataFile:
        with self._lock:
            if idle:
                return idle.pop()
        open_file = OpenDataFile(self._target, key, schema)
        with self._lock:
            self._open.add(open_file)
        return open_file

    def _put_back(self, idle: list[OpenDataFile], open_file: OpenDataFile) -> None:
        with self._lock:
            crowded = len(self._open) > MAX_OPEN_FILES
        if crowded or self._sorts:
            self._finish([open_file])
            return
        with self._lock:
            idle.append(open_file)

    def _finish(self, files: list[OpenDataFile]) -> None:
        for open_file in files:
            finished = open_file.close()
            with self._lock:
                self._open.discard(open_file)
                self._finished.append(finished)


def _grouped(spans: Iterable[tuple[Record, int, int]], rows: int) -> Iterator[list[tuple[Record, int, int]]]:
    """Join neighbouring partitions until they have so many rows together."""
    group: list[tuple[Record, int, int]] = []
    for span in spans:
        group.append(span)
        if span[2] - group[0][1] >= rows:
            yield group
            group = []
    if group:
        yield group


def _parts(rows: pa.Table) -> int:
    return max((column.num_chunks for column in rows.columns), default=0)


def _for_each_thread(rows: pa.Table) -> list[pa.Table]:
    """Cut a chunk that is worth it into parts that are written at the same time, each to its own file."""
    parts = min(_THREADS, max(1, rows.nbytes // PARALLEL_BYTES))
    size = -(-rows.num_rows // parts)
    return [rows.slice(start, size) for start in range(0, rows.num_rows, size)]


def write_batches(
    target: FileTarget, batches: Iterable[pa.RecordBatch], *, held: bool = False
) -> list[DataFile]:
    """Write aligned batches as data files; on failure none of them is left behind.

    `held` says that the batches are slices of rows which stay in memory until the end.
    """
    writer = TableFilesWriter(target, held=held)
    try:
        for batch in batches:
            writer.write(batch)
        return writer.close()
    except BaseException:
        writer.abort()
        raise
