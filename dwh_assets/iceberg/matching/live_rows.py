"""The live rows of data files as DuckDB sees them: columns by field id, deletes applied, positions known.

DuckDB reads local Parquet files itself, so that its joins can skip row groups and columns; on other
stores, or where fields inside structs were renamed, the files come through the table's FileIO as a stream
of Arrow batches. Either way a row is told by its file and its position in that file, which is what
position deletes are made of.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from pyiceberg.io import FileIO
from pyiceberg.manifest import DataFile, FileFormat
from pyiceberg.schema import Schema, index_by_id, index_name_by_id, make_compatible_name
from pyiceberg.table import FileScanTask, Table

from dwh_assets.errors import UnsupportedError
from dwh_assets.iceberg.arrow.types import arrow_schema
from dwh_assets.iceberg.files.gather import pieces
from dwh_assets.iceberg.files.position_deletes import Positions
from dwh_assets.iceberg.files.reading import deletes_in, file_batches
from dwh_assets.iceberg.sql import duckdb_type, quote_identifier

FILE = "_file"
POSITION = "_position"
_SCHEMA_TYPE = 'MAP(INTEGER, STRUCT("name" VARCHAR, "type" VARCHAR, default_value VARCHAR))'
_BYTES_AT_ONCE = 16 << 20
_numbers = count()


@dataclass(frozen=True)
class LiveRows:
    """A query over the live rows of data files, and its parameters.

    It yields the asked columns, `_file` (the number of one of `files`) and `_position`. Where the files are
    not read by DuckDB itself, it can be run once only.
    """

    sql: str
    parameters: tuple[Any, ...]
    files: tuple[DataFile, ...] = ()


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
    files = tuple(task.file for task in tasks)
    paths = [local_file(file.file_path) for file in files]
    if all(paths) and _finds_columns(table) and _keeps_names(table, schema) and not _has_defaults(schema):
        query = _local_query(paths, files, schema)
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
    """Name a file alike however its location is written; one that is not local keeps it."""
    return local_file(location) or location


_FILE_SQL, _POSITION_SQL = quote_identifier(FILE), quote_identifier(POSITION)


def _finds_columns(table: Table) -> bool:
    """Tell whether DuckDB finds the columns of every file.

    Files without field ids are read by the table's name mapping, and DuckDB numbers neither files nor rows
    that have a column of the name under which it would.
    """
    names = {column.name.lower() for known in table.metadata.schemas for column in known.fields}
    return table.metadata.name_mapping() is None and names.isdisjoint({"file_row_number", "file_index"})


def _keeps_names(table: Table, schema: Schema) -> bool:
    """Tell whether all fields inside columns always had their names: DuckDB finds only columns by id.

    Names that Avro does not take are written otherwise (`by key` is `by_x20key`), as Iceberg's writers do.
    """
    asked = {column.field_id for column in schema.fields if not column.field_type.is_primitive}
    paths: dict[int, str] = {}
    ids: dict[str, int] = {}
    for column in (column for known in (*table.metadata.schemas, schema) for column in known.fields):
        if column.field_id not in asked:
            continue
        inside = index_by_id(Schema(column))
        if any(i != column.field_id and make_compatible_name(f.name) != f.name for i, f in inside.items()):
            return False
        for field_id, name in index_name_by_id(Schema(column)).items():
            path = f"{column.field_id}{name[len(column.name) :]}"
            if paths.setdefault(field_id, path) != path or ids.setdefault(path, field_id) != field_id:
                return False
    return True


def _has_defaults(schema: Schema) -> bool:
    """Tell whether a file may lack a column and still have values of it."""
    return any(column.initial_default is not None for column in schema.fields)


def _local_query(paths: list[str | None], files: tuple[DataFile, ...], schema: Schema) -> LiveRows:
    columns_sql = "".join(f"{quote_identifier(field.name)}, " for field in schema.fields)
    rows_sql = (
        f"SELECT {columns_sql}file_index::BIGINT AS {_FILE_SQL}, file_row_number AS {_POSITION_SQL}"
        " FROM read_parquet(?, schema=?, file_row_number=true)"
    )
    by_id = {
        field.field_id: {
            "name": field.name,
            "type": duckdb_type(field.field_type, field.name),
            "default_value": None,
        }
        for field in schema.fields
    }
    return LiveRows(rows_sql, (paths, duckdb.Value(by_id, duckdb.sqltype(_SCHEMA_TYPE))), files)


def _streamed_query(
    connection: duckdb.DuckDBPyConnection, table: Table, files: tuple[DataFile, ...], schema: Schema
) -> LiveRows:
    target = with_place(arrow_schema(schema))
    batches = (
        batch for number, file in enumerate(files) for batch in _numbered(table, file, number, schema, target)
    )
    name = f"stream_{next(_numbers)}"
    connection.register(name, pa.RecordBatchReader.from_batches(target, batches))
    return LiveRows(f"SELECT * FROM {quote_identifier(name)}", (), files)


def _numbered(
    table: Table, file: DataFile, number: int, schema: Schema, target: pa.Schema
) -> Iterator[pa.RecordBatch]:
    """Read a file's rows, deleted ones too, in order: the n-th row is position n."""
    position = 0
    for batch in file_batches(table.metadata, table.io, file, schema):
        end = position + batch.num_rows
        yield batch_with_place(batch, number, np.arange(position, end), target)
        position = end


def with_place(schema: pa.Schema) -> pa.Schema:
    """Add the columns that tell a row's file and its position there."""
    return schema.append(pa.field(FILE, pa.int64())).append(pa.field(POSITION, pa.int64()))


def batch_with_place(
    batch: pa.RecordBatch, file_number: int, positions: Positions, schema: pa.Schema
) -> pa.RecordBatch:
    """Add to rows of one file where they stand."""
    files = pa.repeat(pa.scalar(file_number, pa.int64()), batch.num_rows)
    return pa.RecordBatch.from_arrays([*batch.columns, files, pa.array(positions)], schema=schema)


def _register_deletes(
    connection: duckdb.DuckDBPyConnection, io: FileIO, tasks: Sequence[FileScanTask]
) -> str:
    """Load the position deletes of these files into a table; return its name."""
    name = f"deletes_{next(_numbers)}"
    name_sql = quote_identifier(name)
    numbers = {_key(task.file.file_path): number for number, task in enumerate(tasks)}
    connection.execute(f"CREATE TEMP TABLE {name_sql} ({_FILE_SQL} BIGINT, {_POSITION_SQL} BIGINT)")
    found = (
        _numbered_deletes(deletes_in(io, delete_file.file_path), numbers)
        for delete_file in {delete for task in tasks for delete in task.delete_files}
    )
    # Each table that DuckDB is given takes as long as thousands of rows.
    for places in pieces(found, _BYTES_AT_ONCE):
        connection.register("arriving", places)
        connection.execute(f"INSERT INTO {name_sql} SELECT * FROM arriving WHERE {_FILE_SQL} IS NOT NULL")
        connection.unregister("arriving")
    return name


def _numbered_deletes(deletes: pa.Table, numbers: Mapping[str, int]) -> pa.Table:
    """Tell data files by their numbers; null is any other file."""
    paths = deletes["file_path"].combine_chunks()
    known = pa.array([numbers.get(_key(path.as_py())) for path in paths.dictionary], pa.int64())
    return pa.table({FILE: known.take(paths.indices), POSITION: deletes["pos"]})
