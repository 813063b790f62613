"""The live rows of data files as DuckDB sees them: columns by field id, deletes applied, positions known.

DuckDB reads local Parquet files itself, so that its joins can skip row groups and columns; on other
stores, or where fields inside structs were renamed, the files come through the table's FileIO as a stream
of Arrow batches. Either way a row is told by its file and its position in that file, which is what
position deletes are made of.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import IO, Any, cast

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyiceberg.io import FileIO
from pyiceberg.manifest import DataFile, FileFormat
from pyiceberg.schema import Schema, index_name_by_id
from pyiceberg.table import FileScanTask, Table

from dwh_assets.errors import UnsupportedError
from dwh_assets.iceberg.arrow.types import arrow_schema
from dwh_assets.iceberg.files.reading import file_batches
from dwh_assets.iceberg.sql import duckdb_type, quote_identifier

FILE = "_file"
POSITION = "_position"
_SCHEMA_TYPE = 'MAP(INTEGER, STRUCT("name" VARCHAR, "type" VARCHAR, default_value VARCHAR))'
_numbers = count()


@dataclass(frozen=True)
class LiveRows:
    """A query over the live rows of data files, and its parameters.

    It yields the asked columns, `_file` (a key of `files`) and `_position`. Where the files are not read by
    DuckDB itself, it can be run once only.
    """

    sql: str
    parameters: tuple[Any, ...]
    files: dict[str, DataFile]


def live_rows(
    connection: duckdb.DuckDBPyConnection, table: Table, tasks: Sequence[FileScanTask], schema: Schema
) -> LiveRows:
    """Return a query over the live rows of `tasks`, with the columns of `schema`, a projection of the table.

    Raises `UnsupportedError` for data files that are not Parquet.
    """
    for task in tasks:
        if task.file.file_format != FileFormat.PARQUET:
            raise UnsupportedError(
                f"{'.'.join(table.name())}: {task.file.file_path} is {task.file.file_format.value}; "
                "only Parquet is read.",
                remedy="Rewrite the table's files as Parquet with another engine.",
            )
    files = {_key(task.file.file_path): task.file for task in tasks}
    if all(local_file(path) for path in files) and _finds_columns(table) and _keeps_names(table, schema):
        query = _local_query(files, schema)
    else:
        query = _streamed_query(connection, table, files, schema)
    if not any(task.delete_files for task in tasks):
        return query
    deletes_sql = quote_identifier(_register_deletes(connection, table.io, tasks))
    without_deleted_sql = (
        f"SELECT * FROM ({query.sql}) AS present ANTI JOIN {deletes_sql} AS gone"
        f" ON present.{_FILE_SQL} = gone.{_FILE_SQL} AND present.{_POSITION_SQL} = gone.{_POSITION_SQL}"
    )
    return LiveRows(without_deleted_sql, query.parameters, files)


def local_file(location: str) -> str | None:
    """Return the path of a file on this machine, or None for any other location."""
    if location.startswith("/"):
        return location
    return location[5:].replace("//", "", 1) if location.startswith("file:") else None


def _key(location: str) -> str:
    """Name a file as DuckDB reports it; one that it cannot open itself keeps its location."""
    return local_file(location) or location


_FILE_SQL, _POSITION_SQL = quote_identifier(FILE), quote_identifier(POSITION)


def _finds_columns(table: Table) -> bool:
    """Tell whether DuckDB finds the columns of every file.

    Files without field ids are read by the table's name mapping, and DuckDB numbers no rows of a file that
    has a column of the name under which it would.
    """
    names = {column.name.lower() for known in table.metadata.schemas for column in known.fields}
    return table.metadata.name_mapping() is None and "file_row_number" not in names


def _keeps_names(table: Table, schema: Schema) -> bool:
    """Tell whether all fields inside columns always had their names: DuckDB finds only columns by id."""
    asked = {column.field_id for column in schema.fields if not column.field_type.is_primitive}
    paths: dict[int, str] = {}
    ids: dict[str, int] = {}
    for column in (column for known in (*table.metadata.schemas, schema) for column in known.fields):
        if column.field_id not in asked:
            continue
        for field_id, name in index_name_by_id(Schema(column)).items():
            path = f"{column.field_id}{name[len(column.name) :]}"
            if paths.setdefault(field_id, path) != path or ids.setdefault(path, field_id) != field_id:
                return False
    return True


def _local_query(files: dict[str, DataFile], schema: Schema) -> LiveRows:
    columns_sql = "".join(f"{quote_identifier(field.name)}, " for field in schema.fields)
    rows_sql = (
        f"SELECT {columns_sql}filename AS {_FILE_SQL}, file_row_number AS {_POSITION_SQL}"
        " FROM read_parquet(?, schema=?, filename=true, file_row_number=true)"
    )
    by_id = {
        field.field_id: {
            "name": field.name,
            "type": duckdb_type(field.field_type, field.name),
            "default_value": None,
        }
        for field in schema.fields
    }
    return LiveRows(rows_sql, (list(files), duckdb.Value(by_id, duckdb.sqltype(_SCHEMA_TYPE))), files)


def _streamed_query(
    connection: duckdb.DuckDBPyConnection, table: Table, files: dict[str, DataFile], schema: Schema
) -> LiveRows:
    target = arrow_schema(schema).append(pa.field(FILE, pa.string())).append(pa.field(POSITION, pa.int64()))
    batches = (batch for key, file in files.items() for batch in _numbered(table, file, key, schema, target))
    name = f"stream_{next(_numbers)}"
    connection.register(name, pa.RecordBatchReader.from_batches(target, batches))
    return LiveRows(f"SELECT * FROM {quote_identifier(name)}", (), files)


def _numbered(
    table: Table, file: DataFile, key: str, schema: Schema, target: pa.Schema
) -> Iterator[pa.RecordBatch]:
    """Read a file's rows, deleted ones too, in order: the n-th row is position n."""
    position = 0
    for batch in file_batches(table.metadata, table.io, file, schema):
        end = position + batch.num_rows
        where = [pa.repeat(pa.scalar(key, pa.string()), batch.num_rows), pa.array(np.arange(position, end))]
        yield pa.RecordBatch.from_arrays([*batch.columns, *where], schema=target)
        position = end


def _register_deletes(
    connection: duckdb.DuckDBPyConnection, io: FileIO, tasks: Sequence[FileScanTask]
) -> str:
    """Load the position deletes of these files into a table; return its name."""
    name = f"deletes_{next(_numbers)}"
    name_sql = quote_identifier(name)
    connection.execute(f"CREATE TEMP TABLE {name_sql} ({_FILE_SQL} VARCHAR, {_POSITION_SQL} BIGINT)")
    for delete_file in {delete for task in tasks for delete in task.delete_files}:
        with io.new_input(delete_file.file_path).open() as stream:
            deletes = pq.read_table(cast("IO[bytes]", stream), columns=["file_path", "pos"])
        keys = pc.dictionary_encode(deletes["file_path"].combine_chunks())
        renamed = pa.DictionaryArray.from_arrays(
            keys.indices, [_key(path.as_py()) for path in keys.dictionary]
        )
        connection.register("arriving", pa.table({FILE: renamed, POSITION: deletes["pos"]}))
        connection.execute(f"INSERT INTO {name_sql} SELECT * FROM arriving")
        connection.unregister("arriving")
    return name
