"""Feed a table from a stream: micro-batches, each committed exactly once, resumable after a crash.

The offset up to which a stream was written is the number of its rows. It stands in the summary of every
snapshot that this library makes of the table, the latest one carried forward, so that neither a crash nor
the expiry of snapshots forgets it; and it belongs to the branch, so that a rollback takes it back too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pyiceberg.table import Table

from dwh_assets.errors import ConflictError
from dwh_assets.iceberg.arrow.sources import as_batches
from dwh_assets.iceberg.results import WriteResult
from dwh_assets.iceberg.versions import branch_history

STREAM_PREFIX = "dwh.stream."

# Anything that holds rows (see `arrow.sources`), or a function from an offset to such.
Source = Any | Callable[[int], Any]


@dataclass(frozen=True)
class StreamPosition:
    """Where in a stream a micro-batch begins."""

    stream: str
    offset: int

    def require(self, table: Table, branch: str) -> None:
        """Raise `ConflictError` when the branch does not stand at this offset: another writer was there."""
        found = stream_offset(table, self.stream, branch)
        if found != self.offset:
            raise ConflictError(
                f"{'.'.join(table.name())}: stream {self.stream!r} stands at row {found}, not {self.offset}: "
                "another writer feeds it too.",
                remedy="Let one writer feed a stream; it resumes where the table stands.",
            )


@dataclass(frozen=True)
class StreamResult:
    """What feeding a stream did: rows and commits of this call, and the offset that the table now has.

    `written` tells of all its commits as of one write; None where there is no table yet, and no row came.
    """

    stream: str
    offset: int
    rows: int
    commits: int
    written: WriteResult | None = None

    @property
    def snapshot_id(self) -> int | None:
        """The snapshot that the branch now stands at."""
        return self.written.snapshot_id if self.written else None


def stream_offset(table: Table | None, stream: str, branch: str) -> int:
    """Return how many rows of the stream the branch holds; one that is not there yet begins as main is."""
    return int(stream_offsets(table, branch).get(STREAM_PREFIX + stream, 0)) if table is not None else 0


def stream_offsets(table: Table, branch: str) -> dict[str, str]:
    """Return the summary entries of all streams as the branch last had them, to be carried forward.

    Another engine's snapshot carries none, so the newest entry of each is looked for in the whole history.
    """
    newest: dict[str, str] = {}
    for snapshot in branch_history(table.metadata, branch):
        entries = snapshot.summary.additional_properties if snapshot.summary else {}
        for key in entries.keys() - newest.keys():
            if key.startswith(STREAM_PREFIX):
                newest[key] = entries[key]
    return newest


class MicroBatches:
    """Cuts a stream into readers, each of which ends after so many rows or seconds, or where columns change.

    Nothing is held back: a batch goes on as it comes, cut where a micro-batch ends.
    """

    def __init__(self, source: Source, offset: int, rows: int | None, seconds: float | None) -> None:
        self._batches = as_batches(source(offset)) if callable(source) else rows_after(source, offset)
        self._rows = rows
        self._seconds = seconds
        self._rest: pa.RecordBatch | None = None

    def __iter__(self) -> Iterator[pa.RecordBatchReader]:
        while (first := self._next()) is not None:
            yield pa.RecordBatchReader.from_batches(first.schema, self._micro_batch(first))

    def _next(self) -> pa.RecordBatch | None:
        waiting, self._rest = self._rest, None
        while waiting is None or waiting.num_rows == 0:
            waiting = next(self._batches, None)
            if waiting is None:
                return None
        return waiting

    def _micro_batch(self, first: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        ends = time.monotonic() + self._seconds if self._seconds is not None else None
        left = self._rows
        batch: pa.RecordBatch | None = first
        while batch is not None:
            if not batch.schema.equals(first.schema):
                self._rest = batch
                return
            if left is not None and batch.num_rows > left:
                self._rest = batch.slice(left)
                batch = batch.slice(0, left)
            yield batch
            left = None if left is None else left - batch.num_rows
            if left == 0 or (ends is not None and time.monotonic() >= ends):
                return
            batch = self._next()


def rows_after(source: Any, offset: int) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a stream that is given from its beginning, without the first `offset`."""
    for batch in as_batches(source):
        if offset >= batch.num_rows:
            offset -= batch.num_rows
            continue
        yield batch.slice(offset)
        offset = 0
