"""Weighted rows, in memory while they are few, else in a temporary file by slot.

Equal rows, or rows of equal keys, are in the same slot, so each chunk of slots can be worked on alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack

import numpy as np
import pyarrow as pa
from pyiceberg.typedef import Record

from dwh_assets.iceberg.diff.rows import SLOT, SLOTS
from dwh_assets.iceberg.files.spill import Spill

# What is held in memory, and about what a chunk holds
CHUNK_BYTES = 64 << 20


class SlottedRows:
    """Rows that have a column `_slot`; about `rows` of them are expected."""

    def __init__(self, batches: Iterable[pa.RecordBatch], rows: int, resources: ExitStack) -> None:
        self._spill: Spill | None = None
        self._rest: pa.Table | None = None
        self._resources = resources
        self._chunks = 1
        held: list[pa.RecordBatch] = []
        held_bytes = 0
        for batch in batches:
            held.append(batch)
            held_bytes += batch.nbytes
            if held_bytes >= CHUNK_BYTES:
                self._put_away(pa.Table.from_batches(held), rows)
                held, held_bytes = [], 0
        if held and self.in_memory:
            self._rest = pa.Table.from_batches(held)
        elif held:
            self._put_away(pa.Table.from_batches(held), rows)

    @property
    def in_memory(self) -> bool:
        """Whether nothing had to be spilled."""
        return self._spill is None

    def chunks(self) -> Iterator[pa.Table]:
        """Yield all rows, slots that belong together in one table."""
        if self._rest is not None:
            yield self._rest
        if self._spill is None:
            return
        for chunk in range(self._chunks):
            parts = list(self._spill.read(Record(chunk)))
            if parts:
                yield pa.concat_tables(parts)

    def _put_away(self, held: pa.Table, rows: int) -> None:
        if self._spill is None:
            self._spill = Spill(held.schema)
            self._resources.callback(self._spill.close)
            expected_bytes = held.nbytes / max(held.num_rows, 1) * rows
            self._chunks = int(min(max(np.ceil(2 * expected_bytes / CHUNK_BYTES), 2), SLOTS))
        self._spill.write(self._by_chunk(held))

    def _by_chunk(self, held: pa.Table) -> Iterator[tuple[Record, list[pa.Table]]]:
        chunks = held[SLOT].to_numpy() % self._chunks
        order = np.argsort(chunks, kind="stable")
        ordered = held.take(pa.array(order)).combine_chunks()
        ends = np.cumsum(np.bincount(chunks, minlength=self._chunks))
        for chunk, (start, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
            if start < end:
                yield Record(chunk), [ordered.slice(int(start), int(end - start))]
