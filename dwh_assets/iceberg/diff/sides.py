"""The rows that went and those that came, apart: for whoever applies a change by key and needs no old values.

Old values lie scattered over large files, where every page that holds one has to be unpacked; of a key that
is a few columns instead of all. What is lost is that a row which was written again as it was is not seen
as unchanged, so this is only for rows that went one by one, not with their files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa
from pyiceberg.manifest import DataFile
from pyiceberg.schema import Schema
from pyiceberg.table import FileScanTask, Table

from dwh_assets.iceberg.diff.version_diff import VersionDiff
from dwh_assets.iceberg.diff.weights import WeightedFile
from dwh_assets.iceberg.files.position_deletes import Positions
from dwh_assets.iceberg.files.reading import live_batches, rows_at


@dataclass(frozen=True)
class Sides:
    """The keys that went, and the rows that came; a row that was updated is on both sides."""

    table: Table
    keys: Schema
    compared: Schema
    went: Sequence[WeightedFile]
    came: Sequence[WeightedFile]

    @cached_property
    def _positions(self) -> list[tuple[DataFile, Positions]]:
        """Where in their files the rows are that went."""
        return [(file.file, file.positions(self.table.io)[0]) for file in self.went]

    @property
    def rows_went(self) -> int:
        """How many rows went; only delete files are read to tell."""
        return sum(len(positions) for _, positions in self._positions)

    @cached_property
    def rows_came(self) -> int:
        """How many rows came; only delete files are read to tell."""
        return sum(file.total(self.table.io) for file in self.came)

    def keys_that_went(self) -> Iterator[pa.RecordBatch]:
        """Stream the key columns of the rows that went, as the later version calls them."""
        for file, positions in self._positions:
            for batch, _ in rows_at(self.table.metadata, self.table.io, file, self.keys, positions):
                yield batch

    def rows_that_came(self) -> Iterator[pa.RecordBatch]:
        """Stream the rows that came, in the columns of the comparison."""
        metadata, io = self.table.metadata, self.table.io
        for one in self.came:
            if one.whole:
                task = FileScanTask(one.file, set(one.delete_files))
                yield from live_batches(metadata, io, task, self.compared)
            else:
                positions, _ = one.positions(io)
                for batch, _ in rows_at(metadata, io, one.file, self.compared, positions):
                    yield batch


def sides(diff: VersionDiff) -> Sides | None:
    """Part a comparison by key; None where rows went with their files, or there is no key."""
    went = [file for file in diff.files if not file.whole and file.extremes[1] <= 0]
    came = [file for file in diff.files if file.extremes[0] >= 0 and _is_simple(file)]
    if not diff.keys or len(went) + len(came) != len(diff.files):
        return None
    keys = Schema(*(diff.compared.find_field(key) for key in diff.keys))
    return Sides(diff.source, keys, diff.compared, went, came)


def _is_simple(file: WeightedFile) -> bool:
    """Tell whether rows came as the file's live ones, or one by one as deletes of them were taken back."""
    weights = {weight for weight in file.deleted.values() if weight}
    if file.whole:
        return file.whole == 1 and weights <= {-1} and len(file.deleted) < 2
    return weights == {1}
