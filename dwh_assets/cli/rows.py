"""Rows of data as JSON and as a table on a terminal."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from datetime import UTC, date, datetime, time
from typing import TYPE_CHECKING, Any

from dwh_assets.cli.output import Column, Table

if TYPE_CHECKING:
    import pyarrow as pa


def json_rows(rows: pa.Table) -> list[dict[str, Any]]:
    """Return rows as JSON can hold them: moments in ISO form, decimals as text, bytes in hexadecimal."""
    return [{name: _json_value(value) for name, value in row.items()} for row in rows.to_pylist()]


def rows_table(rows: pa.Table) -> Table:
    """Return rows as a table, a column for each of theirs."""
    columns = [Column(name) for name in rows.column_names]
    return Table(columns, list(_texts(rows)), keep_empty=True)


def _texts(rows: pa.Table) -> Iterator[list[str]]:
    for row in json_rows(rows):
        yield [
            value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            for value in row.values()
        ]


def _json_value(value: Any) -> Any:
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else str(value)
        case datetime():
            return (value.astimezone(UTC) if value.tzinfo else value).isoformat()
        case date() | time():
            return value.isoformat()
        case bytes():
            return value.hex()
        case dict():
            return {key: _json_value(one) for key, one in value.items()}
        case list() | tuple():
            return [_json_value(one) for one in value]
        case _:
            return str(value)
