"""How often does each row of a data file count: above zero it came, below zero it went.

What a snapshot holds of a file is the whole file less the positions that deletes name. So a change is a
sum of such terms, and changes of many snapshots are summed before any row is read: a row that one of them
inserted and a later one deleted has vanished by then.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from pyiceberg.io import FileIO
from pyiceberg.manifest import DataFile
from pyiceberg.table import FileScanTask

from dwh_assets.iceberg.diff.file_changes import Deletes, FileChange
from dwh_assets.iceberg.files.position_deletes import Positions
from dwh_assets.iceberg.files.reading import deleted_positions

Weights = npt.NDArray[np.int64]


@dataclass
class WeightedFile:
    """A data file: the weight of all its rows, and by how much that of deleted positions differs."""

    file: DataFile
    whole: int = 0
    deleted: Counter[frozenset[DataFile]] = field(default_factory=Counter)

    def add(self, change: FileChange) -> None:
        """Count one more change."""
        self._count(change.after, 1)
        self._count(change.before, -1)

    def _count(self, deletes: Deletes, weight: int) -> None:
        if deletes is None:
            return
        self.whole += weight
        if deletes:
            self.deleted[deletes] -= weight

    @property
    def delete_files(self) -> frozenset[DataFile]:
        """The delete files that have to be read."""
        return frozenset(file for files, weight in self.deleted.items() if weight for file in files)

    @property
    def exceptions(self) -> int:
        """At most how many rows have another weight than the file as a whole."""
        return sum(int(file.record_count) for file in self.delete_files)

    @property
    def extremes(self) -> tuple[int, int]:
        """Between which weights those of all rows lie."""
        weights = list(self.deleted.values())
        return (
            self.whole + sum(weight for weight in weights if weight < 0),
            self.whole + sum(weight for weight in weights if weight > 0),
        )

    def total(self, io: FileIO) -> int:
        """Sum up the weights of all rows; only delete files are read for it."""
        _, weights = self.positions(io)
        return self.whole * int(self.file.record_count) + int((weights - self.whole).sum())

    def positions(self, io: FileIO) -> tuple[Positions, Weights]:
        """Read which rows have another weight than the file as a whole, and which; zero is one too."""
        named = [
            (deleted_positions(io, FileScanTask(self.file, set(files))), weight)
            for files, weight in self.deleted.items()
            if weight
        ]
        every = np.concatenate([np.empty(0, np.int64), *(positions for positions, _ in named)])
        positions, places = np.unique(every, return_inverse=True)
        weights = np.zeros(len(positions), np.int64)
        each = [np.full(len(found), weight) for found, weight in named]
        np.add.at(weights, places, np.concatenate([np.empty(0, np.int64), *each]))
        return positions[weights != 0], weights[weights != 0] + self.whole


def net(changes: Iterable[FileChange]) -> list[WeightedFile]:
    """Sum up changes by file; a file that in the end neither came nor went is left out."""
    files: dict[str, WeightedFile] = {}
    for change in changes:
        files.setdefault(change.file.file_path, WeightedFile(change.file)).add(change)
    return [file for file in files.values() if file.whole or file.delete_files]


def one_sided(files: Sequence[WeightedFile]) -> bool:
    """Tell whether rows only came, or only went: then no two can cancel each other out."""
    return all(file.extremes[0] >= 0 for file in files) or not with_arrivals(files)


def with_arrivals(files: Iterable[WeightedFile]) -> list[WeightedFile]:
    """Return the files of which rows may have come."""
    return [file for file in files if file.extremes[1] > 0]


def rows_to_read(files: Iterable[WeightedFile]) -> int:
    """Estimate how many rows are read for these files: where only positions count, just these."""
    return sum(int(one.file.record_count) if one.whole else one.exceptions for one in files)


def groups(files: Iterable[WeightedFile], most_exceptions: int) -> Iterator[list[WeightedFile]]:
    """Part files into groups whose exceptions fit into memory."""
    group: list[WeightedFile] = []
    held = 0
    for file in files:
        if group and held + file.exceptions > most_exceptions:
            yield group
            group, held = [], 0
        group.append(file)
        held += file.exceptions
    if group:
        yield group
