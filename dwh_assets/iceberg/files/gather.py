"""Take rows by number out of many batches, without joining the batches to one table first; join small tables.

A joined copy would double the memory, and touching that much new memory takes as long as the sort. Here a
piece is copied twice instead, once out of each batch in the order of its rows and once into the wanted
order, in memory that serves one piece after the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa


class Gather:
    """Rows numbered through a sequence of batches. Safe to share between threads."""

    def __init__(self, batches: Sequence[pa.RecordBatch]) -> None:
        self._batches = batches
        self._starts = np.cumsum([0, *(batch.num_rows for batch in batches)])

    def take(self, numbers: pa.Array) -> pa.Table:
        """Return the rows with these numbers, in that order, as one chunk."""
        if len(self._batches) == 1:
            return pa.Table.from_batches([self._batches[0].take(numbers)])
        wanted = numbers.to_numpy().astype(np.int64, copy=False)
        by_number = np.argsort(wanted, kind="stable")
        ascending = wanted[by_number]
        cuts = np.searchsorted(ascending, self._starts)
        found = [
            batch.take(pa.array(ascending[first:last] - start))
            for batch, start, first, last in zip(
                self._batches, self._starts[:-1], cuts[:-1], cuts[1:], strict=True
            )
            if first < last
        ]
        places = np.empty(len(wanted), np.int64)
        places[by_number] = np.arange(len(wanted))
        return pa.Table.from_batches(found).combine_chunks().take(pa.array(places))


def pieces(tables: Iterable[pa.Table], piece_bytes: int) -> Iterator[pa.Table]:
    """Join small tables into pieces of at least so many bytes, without holding much more than one."""
    piece: list[pa.Table] = []
    size = 0
    for rows in tables:
        piece.append(rows)
        size += rows.nbytes
        if size >= piece_bytes:
            yield pa.concat_tables(piece)
            piece, size = [], 0
    if piece:
        yield pa.concat_tables(piece)
