"""Position-delete files: which rows of which data file are gone (format version 2).

Each delete file concerns one data file and says so by equal bounds on `file_path`, so that every engine
finds it by the data file's path. It carries the spec and the partition of its data file.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.io import FileIO
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.table import FileScanTask, Table

from dwh_assets.iceberg.files.data_files import compression

PATH_ID = 2147483546
POSITION_ID = 2147483545
_SCHEMA = pa.schema(
    [
        pa.field("file_path", pa.string(), nullable=False, metadata={"PARQUET:field_id": str(PATH_ID)}),
        pa.field("pos", pa.int64(), nullable=False, metadata={"PARQUET:field_id": str(POSITION_ID)}),
    ]
)
# Sorted positions are near each other; Arrow's own description of the columns would only take room.
_ENCODING: dict[str, Any] = {
    "use_dictionary": ["file_path"],
    "column_encoding": {"pos": "DELTA_BINARY_PACKED"},
    "store_schema": False,
}
_THREADS = 4

Positions = npt.NDArray[np.int64]


def write_position_deletes(table: Table, deletes: Iterable[tuple[DataFile, Positions]]) -> list[DataFile]:
    """Write one delete file for each data file and its sorted positions; delete them all again on failure."""
    write_id = uuid.uuid4()
    locations = table.location_provider()
    planned = [
        (data_file, positions, locations.new_data_location(f"{number:05d}-{write_id}-deletes.parquet"))
        for number, (data_file, positions) in enumerate(deletes)
    ]
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="deletes") as pool:
        codec = compression(_delete_properties(table.metadata.properties))
        futures = [pool.submit(_write, table.io, codec, *one) for one in planned]
    try:
        return [future.result() for future in futures]
    except BaseException:
        for _, _, path in planned:
            with suppress(OSError):  # half a file is there on a full disk, none where it could not be made
                table.io.delete(path)
        raise


def _delete_properties(properties: Mapping[str, str]) -> dict[str, str]:
    """Delete files are written as data files are, unless `write.delete.*` says otherwise."""
    prefix = "write.delete."
    own = {
        f"write.{key.removeprefix(prefix)}": properties[key] for key in properties if key.startswith(prefix)
    }
    return {**properties, **own}


def _write(
    io: FileIO, codec: Mapping[str, Any], data_file: DataFile, positions: Positions, path: str
) -> DataFile:
    repeated = pa.DictionaryArray.from_arrays(
        pa.array(np.zeros(len(positions), np.int32)), [data_file.file_path]
    )
    rows = pa.Table.from_arrays([repeated.cast(pa.string()), pa.array(positions)], schema=_SCHEMA)
    with io.new_output(path).create(overwrite=True) as stream:
        pq.write_table(rows, stream, **codec, **_ENCODING)
        size = stream.tell()
    bound = data_file.file_path.encode()
    delete_file = DataFile.from_args(
        content=DataFileContent.POSITION_DELETES,
        file_path=path,
        file_format=FileFormat.PARQUET,
        partition=data_file.partition,
        record_count=len(positions),
        file_size_in_bytes=size,
        lower_bounds={PATH_ID: bound},
        upper_bounds={PATH_ID: bound},
        sort_order_id=None,
        equality_ids=None,
        key_metadata=None,
    )
    delete_file.spec_id = data_file.spec_id
    return delete_file


def deletes_of(task: FileScanTask) -> list[DataFile]:
    """Return the delete files that concern this data file alone: without it they have no target."""
    bounds = ((file, file.lower_bounds or {}, file.upper_bounds or {}) for file in task.delete_files)
    own_path = task.file.file_path.encode()
    return [file for file, low, high in bounds if low.get(PATH_ID) == high.get(PATH_ID) == own_path]
