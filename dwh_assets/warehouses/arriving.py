"""What passes from a table into a warehouse, counted on its way."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import pyarrow as pa

_SECONDS_BETWEEN_MESSAGES = 5.0


class Arriving:
    """Counts the rows and bytes of one load, tells about them now and then, and keeps what went wrong.

    A warehouse's driver reports a failure in the stream that it reads as an error of its own; `failure` is
    the original.
    """

    def __init__(self, what: str, on_progress: Callable[[str], None] | None) -> None:
        self.rows = 0
        self.bytes = 0
        self.failure: BaseException | None = None
        self._what = what
        self._on_progress = on_progress
        self._next_message = 0.0

    def arrived(self, rows: int, size: int) -> None:
        """Count what went into the warehouse by another way."""
        self.rows += rows
        self.bytes += size
        self._tell()

    def counted(self, reader: pa.RecordBatchReader) -> pa.RecordBatchReader:
        """Return the same stream, counted as it is read."""
        return pa.RecordBatchReader.from_batches(reader.schema, self._pass(reader))

    @contextmanager
    def failures(self) -> Iterator[None]:
        """Raise what went wrong in the stream instead of what the warehouse's driver makes of it."""
        try:
            yield
        except Exception:
            if self.failure:
                raise self.failure from None
            raise

    def _pass(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        try:
            for batch in batches:
                self.arrived(batch.num_rows, batch.nbytes)
                yield batch
        except GeneratorExit:
            raise
        except BaseException as failure:
            self.failure = failure
            raise

    def _tell(self) -> None:
        if self._on_progress and time.monotonic() >= self._next_message:
            self._on_progress(f"{self._what}: {self.rows:,} rows so far")
            self._next_message = time.monotonic() + _SECONDS_BETWEEN_MESSAGES
