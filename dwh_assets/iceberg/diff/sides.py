"""The rows that went and those that came, apart: for whoever applies a change by key and needs no old values.

Old values lie scattered over large files, where every page that holds one has to be unpacked; of a key that
is a few columns instead of all. What is lost is that a row which was written again as it was is not seen
as unchanged, so this is only for rows that went one by one, not with their files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
from pyiceberg.schema import Schema
from pyiceberg.types import NestedField

from dwh_assets.iceberg.diff.changed_rows import ChangedRows
from dwh_assets.iceberg.diff.columns import internal_columns
from dwh_assets.iceberg.diff.version_diff import VersionDiff
from dwh_assets.iceberg.diff.weights import WeightedFile


@dataclass(frozen=True)
class Side:
    """Rows that all went, or all came, in some columns of the table as they are compared."""

    rows: ChangedRows
    columns: Schema

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Stream the rows under the columns' names."""
        for table in self.rows.tables():
            found = table.select([field.name for field in self.rows.columns.fields])
            yield from found.rename_columns([field.name for field in self.columns.fields]).to_batches()

    def close(self) -> None:
        """Remove what is kept on disk."""
        self.rows.close()


@dataclass(frozen=True)
class Sides:
    """The keys that went, and the rows that came; a row that was updated is on both sides."""

    went: Side
    came: Side

    @property
    def rows_went(self) -> int:
        """How many rows went; only delete files are read to tell."""
        return self.went.rows.counts.removed

    @property
    def rows_came(self) -> int:
        """How many rows came."""
        return self.came.rows.counts.added

    def close(self) -> None:
        """Remove what is kept on disk."""
        self.went.close()
        self.came.close()


def sides(diff: VersionDiff) -> Sides | None:
    """Part a comparison by key; None where rows went with their files, or there is no key."""
    went = [file for file in diff.files if file.extremes[1] <= 0]
    came = [file for file in diff.files if file.extremes[0] >= 0]
    if not diff.keys or len(went) + len(came) != len(diff.files) or any(file.whole for file in went):
        return None
    keys = [diff.compared.find_field(key) for key in diff.keys]
    return Sides(_side(diff, went, keys), _side(diff, came, diff.compared.fields))


def _side(diff: VersionDiff, files: Sequence[WeightedFile], fields: Sequence[NestedField]) -> Side:
    columns = Schema(*fields)
    return Side(ChangedRows(diff.source, files, internal_columns(columns), ()), columns)
