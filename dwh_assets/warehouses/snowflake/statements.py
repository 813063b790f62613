"""Statements over one connection: bound parameters, a tag that says what they are for, and clear failures."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import pyarrow as pa
from snowflake.connector import SnowflakeConnection
from snowflake.connector.constants import FIELD_ID_TO_NAME
from snowflake.connector.cursor import ResultMetadata, SnowflakeCursor

from dwh_assets.warehouses.session import Purpose
from dwh_assets.warehouses.snowflake.failures import explained

_LONGEST_TAG = 2000
_CHANGES_ROWS = re.compile(r"\s*(INSERT|UPDATE|DELETE|MERGE)\b", re.IGNORECASE)
# What an account, a user or a session may have set otherwise, and this library's texts are not written for.
_SETTINGS = {
    "TIMEZONE": "UTC",
    "DATE_INPUT_FORMAT": "AUTO",
    "TIME_INPUT_FORMAT": "AUTO",
    "TIMESTAMP_INPUT_FORMAT": "AUTO",
    "PYTHON_CONNECTOR_QUERY_RESULT_FORMAT": "ARROW",
}
_MICROSECOND_DIGITS = 6
_INT64_DIGITS = 18


class Statements:
    """Runs statements and counts them. Not safe for threads, except as the connection is."""

    def __init__(self, connection: SnowflakeConnection, purpose: Purpose) -> None:
        self.sent = 0
        self._connection = connection
        self._table = purpose.table
        self._options: dict[str, Any] = {
            "_statement_params": {**_SETTINGS, "QUERY_TAG": query_tag(purpose)},
            # The connection's own style of parameters may be that which puts values into the text.
            "_force_qmark_paramstyle": True,
        }
        # Otherwise decimals come as doubles.
        connection.arrow_number_to_decimal_setter = True

    def run(self, sql: str, *parameters: Any) -> SnowflakeCursor:
        """Run one statement with bound parameters. Raises a `DwhError`."""
        self.sent += 1
        cursor = self._connection.cursor()
        with explained(self._table or "Snowflake"):
            cursor.execute(sql, parameters or None, **self._options)
        return cursor

    def change(self, sql: str, *parameters: Any) -> int:
        """Run one statement; return how many rows it changed, 0 for one that changes none."""
        with self.run(sql, *parameters) as cursor:
            return (cursor.rowcount or 0) if _CHANGES_ROWS.match(sql) else 0

    def fetch(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Run a query that returns few rows."""
        with self.run(sql, *parameters) as cursor, explained(self._table):
            return [tuple(row) for row in cursor.fetchall()]

    def stream(self, sql: str, *parameters: Any) -> pa.RecordBatchReader:
        """Run a query and stream its rows; the connector fetches a few chunks ahead, no more."""
        cursor = self.run(sql, *parameters)
        described = cursor.description
        tables = self._tables(cursor)
        first = next(tables, None)
        found = first.schema.types if first is not None else [None] * len(described)
        # The types of chunks differ, by which numbers are in them.
        schema = pa.schema(
            [
                pa.field(column.name, _arrow_type(column, arrow))
                for column, arrow in zip(described, found, strict=True)
            ]
        )
        rows = chain([] if first is None else [first], tables)
        return pa.RecordBatchReader.from_batches(schema, _batches(rows, schema))

    def _tables(self, cursor: SnowflakeCursor) -> Iterator[pa.Table]:
        with cursor, explained(self._table):
            yield from cursor.fetch_arrow_batches()


def query_tag(purpose: Purpose) -> str:
    """Return what stands beside each statement in Snowflake's query history: table and run, as JSON."""
    said = {"application": "dwh_assets", "table": purpose.table, "run": purpose.run_id}
    return json.dumps({key: value for key, value in said.items() if value})[:_LONGEST_TAG]


def _batches(tables: Iterable[pa.Table], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    for table in tables:
        columns = [column.cast(field.type) for column, field in zip(table.columns, schema, strict=True)]
        yield from pa.Table.from_arrays(columns, schema=schema).to_batches()


def _arrow_type(column: ResultMetadata, found: pa.DataType | None) -> pa.DataType:
    """Return the Arrow type in which a column's values come, whatever the chunk."""
    name, scale = FIELD_ID_TO_NAME[column.type_code], column.scale or 0
    if name == "FIXED":
        is_small = scale == 0 and (column.precision or _INT64_DIGITS + 1) <= _INT64_DIGITS
        return pa.int64() if is_small else pa.decimal128(38, scale)
    if name.startswith("TIMESTAMP"):
        zone = None if name == "TIMESTAMP_NTZ" else "UTC"
        return pa.timestamp("us" if scale <= _MICROSECOND_DIGITS else getattr(found, "unit", "ns"), zone)
    return _ARROW_TYPES.get(name, found or pa.large_string())


_ARROW_TYPES = {
    "REAL": pa.float64(),
    "TEXT": pa.large_string(),
    "VARIANT": pa.large_string(),
    "OBJECT": pa.large_string(),
    "ARRAY": pa.large_string(),
    "BINARY": pa.large_binary(),
    "BOOLEAN": pa.bool_(),
    "DATE": pa.date32(),
    "TIME": pa.time64("ns"),
}
