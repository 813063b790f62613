"""Rows by partition that memory does not hold, in a temporary file until their partition is written."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from threading import Lock

import pyarrow as pa
from pyiceberg.typedef import Record


class Spill:
    """Arrow files of record batches, and where in them each partition's batches are. Safe between threads.

    The folder is made with the first rows and removed by `close`.
    """

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._resources = ExitStack()
        self._folder: Path | None = None
        self._lock = Lock()
        self._files: list[pa.RecordBatchFileReader] = []
        self._batches: defaultdict[Record, list[tuple[int, int]]] = defaultdict(list)

    def write(self, slices: Iterable[tuple[Record, list[pa.Table]]]) -> None:
        """Put the slices of several partitions away, as one file."""
        with self._lock:
            path = self._new_file()
            placed: list[Record] = []
            with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, self._schema) as writer:
                for key, tables in slices:
                    for batch in pa.concat_tables(tables).combine_chunks().to_batches():
                        writer.write_batch(batch)
                        placed.append(key)
            opened = pa.ipc.open_file(self._resources.enter_context(pa.OSFile(str(path), "rb")))
            for number, key in enumerate(placed):
                self._batches[key].append((len(self._files), number))
            self._files.append(opened)

    def read(self, key: Record) -> Iterator[pa.Table]:
        """Yield what was put away of a partition, piece by piece, in the order it came."""
        for file, number in self._batches.get(key, ()):
            with self._lock:
                batch = self._files[file].get_batch(number)
            yield pa.Table.from_batches([batch])

    def close(self) -> None:
        """Remove the files."""
        self._files.clear()
        self._resources.close()

    def _new_file(self) -> Path:
        if self._folder is None:
            folder = tempfile.TemporaryDirectory(prefix="dwh-spill-")
            self._folder = Path(self._resources.enter_context(folder))
        return self._folder / f"{len(self._files)}.arrow"
