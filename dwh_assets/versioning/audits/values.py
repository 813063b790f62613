"""Values that an audit declares, in YAML, JSON or Python, as those of a column."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import time
from typing import Any
from uuid import UUID

import pyarrow as pa
from pyiceberg.io.pyarrow import schema_to_pyarrow
from pyiceberg.schema import Schema
from pyiceberg.types import IcebergType, TimeType, UUIDType

from dwh_assets.errors import ConfigurationError

_HINTS: dict[type[IcebergType], str] = {
    TimeType: "Write times as '08:30' or '08:30:15.250', in quotes: YAML takes 12:30:00 for a number.",
    UUIDType: "Write UUIDs as text: '00112233-4455-6677-8899-aabbccddeeff'.",
}
_HINT = "Write values of the column's type; a timestamptz with its offset from UTC."


def in_column_type(values: Sequence[Any], schema: Schema, column: str, table: str, audit: str) -> pa.Array:
    """Return declared values in a column's type; raises `ConfigurationError` where they are of another."""
    kind = schema.find_type(column)
    wanted = schema_to_pyarrow(schema, include_field_ids=False).field(column).type
    for given in values:
        try:
            _converted([given], kind, wanted)
        except (ValueError, TypeError, pa.ArrowNotImplementedError, OverflowError):
            raise ConfigurationError(
                f"{table}: audit {audit} compares column {column!r} ({kind}) with {given!r}.",
                remedy=_HINTS.get(type(kind), _HINT),
            ) from None
    return _converted(values, kind, wanted)


def _converted(values: Sequence[Any], kind: IcebergType, wanted: pa.DataType) -> pa.Array:
    """A value that came through JSON is a text by now."""
    if isinstance(kind, UUIDType):
        return pa.array([UUID(str(value)).bytes for value in values], wanted)
    if isinstance(kind, TimeType):
        return pa.array([_time(value) for value in values], wanted)
    try:
        return pa.array(values, wanted)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, ValueError):
        return pa.array([str(value) for value in values]).cast(wanted)


def _time(value: Any) -> time:
    """A number may stand for seconds or for microseconds, and a zone is nothing that the column has."""
    found = value if isinstance(value, time) else time.fromisoformat(value)
    if found.tzinfo is not None:
        raise ValueError(value)
    return found
