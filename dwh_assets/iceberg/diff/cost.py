"""How much of a table is read to compare two versions: data files and delete files, without manifests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import IO, cast

import numpy as np
import pyarrow.parquet as pq
from pyiceberg.table import Table

from dwh_assets.iceberg.diff.weights import WeightedFile


def files_to_read(files: Sequence[WeightedFile]) -> int:
    """Count the data files, and the delete files, that are opened."""
    return len(files) + len({delete for file in files for delete in file.delete_files})


def bytes_to_read(table: Table, files: Sequence[WeightedFile]) -> int:
    """Return how many bytes of them are read: of files where single rows count, their row groups.

    The footers of such files are read for it.
    """
    deletes = {delete for file in files for delete in file.delete_files}
    return sum(int(one.file_size_in_bytes) for one in deletes) + sum(
        int(one.file.file_size_in_bytes) if one.whole else _row_group_bytes(table, one) for one in files
    )


def _row_group_bytes(table: Table, file: WeightedFile) -> int:
    positions, _ = file.positions(table.io)
    with table.io.new_input(file.file.file_path).open() as stream:
        footer = pq.read_metadata(cast("IO[bytes]", stream))
    groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
    ends = np.cumsum([group.num_rows for group in groups])
    hit = (groups[number] for number in np.unique(np.searchsorted(ends, positions, "right")))
    chunks = (group.column(place) for group in hit for place in range(group.num_columns))
    return int(footer.serialized_size) + sum(int(chunk.total_compressed_size) for chunk in chunks)
