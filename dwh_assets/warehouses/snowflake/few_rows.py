"""INSERT of a few rows: their values bound as one text of JSON, which the server takes apart.

One parameter a statement, however many rows: a list of ten thousand placeholders takes the server longer to
read than to execute. Every value is text in it, so that no number passes through a double.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from dwh_assets.warehouses.base import Target
from dwh_assets.warehouses.dialect import Dialect, ReplicaColumn

_STATEMENT_BYTES = 1 << 20
_NO_CAST = ("VARCHAR", "VARCHAR(36)")


def insert_rows(
    execute: Callable[..., int],
    dialect: Dialect,
    target: Target,
    columns: Sequence[ReplicaColumn],
    batches: Iterable[pa.RecordBatch],
) -> None:
    """Add rows to a table, in statements of about a megabyte."""
    sql = insert_sql(dialect, target, columns)
    for document in _documents(row for batch in batches for row in _rows(batch)):
        execute(sql, document)


def insert_sql(dialect: Dialect, target: Target, columns: Sequence[ReplicaColumn]) -> str:
    """Return the statement; its parameter is an array of rows, each an array of texts and nulls."""
    names_sql = ", ".join(dialect.quote(column.name) for column in columns)
    values_sql = ", ".join(
        _stored_sql(column, f"CAST(r.value[{number}] AS VARCHAR)") for number, column in enumerate(columns)
    )
    return (
        f"INSERT INTO {dialect.qualify(target)} ({names_sql})"
        f" SELECT {values_sql} FROM TABLE(FLATTEN(INPUT => PARSE_JSON(?))) AS r"
    )


def _stored_sql(column: ReplicaColumn, text_sql: str) -> str:
    holding = column.holding
    if holding.staged_sql:
        return holding.staged_sql(text_sql)
    if holding.sql_type == "BINARY":
        return f"TO_BINARY({text_sql}, 'HEX')"
    if holding.sql_type in _NO_CAST:
        return text_sql
    return f"CAST({text_sql} AS {holding.sql_type})"


def _documents(rows: Iterable[str]) -> Iterator[str]:
    document: list[str] = []
    size = 0
    for row in rows:
        if document and size + len(row) > _STATEMENT_BYTES:
            yield f"[{','.join(document)}]"
            document, size = [], 0
        document.append(row)
        size += len(row)
    if document:
        yield f"[{','.join(document)}]"


def _rows(batch: pa.RecordBatch) -> Iterator[str]:
    columns = [_texts(column) for column in batch.columns]
    return (json.dumps(row, ensure_ascii=False) for row in zip(*columns, strict=True))


def _texts(values: pa.Array) -> list[Any]:
    """Return values in texts that the server's casts understand, each exactly."""
    if pa.types.is_large_binary(values.type):
        return [None if value is None else value.hex() for value in values.to_pylist()]
    texts: list[Any] = values.cast(pa.large_string()).to_pylist()
    if pa.types.is_timestamp(values.type) and values.type.tz:
        return [None if text is None else text.removesuffix("Z") + "+00:00" for text in texts]
    return texts
