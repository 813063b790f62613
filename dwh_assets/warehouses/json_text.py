"""Nested values as JSON text and back, losing nothing: for warehouses whose own nested types lose something.

A struct is an object, a list an array, a map an array of objects with `key` and `value`, in its order and
with keys of any type. What JSON has no form for is text: decimals digit by digit, moments as ISO 8601 says
them, UUIDs, bytes in base64, and of floating-point numbers NaN, the infinities and -0.0. The Iceberg type
tells what a text means when it is read.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

import pyarrow as pa
from pyiceberg.types import (
    BinaryType,
    DateType,
    DecimalType,
    DoubleType,
    FixedType,
    FloatType,
    IcebergType,
    IntegerType,
    ListType,
    LongType,
    MapType,
    StructType,
    TimestampType,
    TimestamptzType,
    TimeType,
    UUIDType,
)

from dwh_assets.iceberg.arrow.types import shown_values
from dwh_assets.warehouses.plain_arrow import plain_arrow_type

_Convert = Callable[[Any], Any]


def to_json_text(array: pa.Array, iceberg: IcebergType) -> pa.Array:
    """Return each value of a nested column as JSON text; null stays null."""
    write = _writer(iceberg)
    return pa.array(
        [
            None if value is None else json.dumps(write(value), ensure_ascii=False, separators=(",", ":"))
            for value in shown_values(array)
        ],
        pa.large_string(),
    )


def from_json_text(array: pa.Array, iceberg: IcebergType) -> pa.Array:
    """Return the values that `to_json_text` made text of, UUIDs as text: a cast makes them what they were."""
    read = _reader(iceberg)
    values = [None if text is None else read(json.loads(text)) for text in array.to_pylist()]
    return pa.array(values, plain_arrow_type(iceberg))


def _writer(iceberg: IcebergType) -> _Convert:
    if isinstance(iceberg, StructType):
        fields = {field.name: _or_null(_writer(field.field_type)) for field in iceberg.fields}
        return lambda value: {name: write(value[name]) for name, write in fields.items()}
    if isinstance(iceberg, ListType):
        element = _or_null(_writer(iceberg.element_type))
        return lambda value: [element(item) for item in value]
    if isinstance(iceberg, MapType):
        key, item = _or_null(_writer(iceberg.key_type)), _or_null(_writer(iceberg.value_type))
        return lambda value: [{"key": key(k), "value": item(v)} for k, v in value]
    return _WRITERS.get(type(iceberg), _as_it_is)


def _reader(iceberg: IcebergType) -> _Convert:
    if isinstance(iceberg, StructType):
        fields = {field.name: _or_null(_reader(field.field_type)) for field in iceberg.fields}
        return lambda value: {name: read(value.get(name)) for name, read in fields.items()}
    if isinstance(iceberg, ListType):
        element = _or_null(_reader(iceberg.element_type))
        return lambda value: [element(item) for item in value]
    if isinstance(iceberg, MapType):
        key, item = _or_null(_reader(iceberg.key_type)), _or_null(_reader(iceberg.value_type))
        return lambda value: [(key(entry["key"]), item(entry["value"])) for entry in value]
    return _READERS.get(type(iceberg), _as_it_is)


def _or_null(convert: _Convert) -> _Convert:
    return lambda value: None if value is None else convert(value)


def _as_it_is(value: Any) -> Any:
    return value


def _write_float(value: float) -> float | str:
    if math.isfinite(value) and (value or math.copysign(1.0, value) > 0):
        return value
    return repr(value)


def _write_bytes(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _iso(value: Any) -> str:
    return str(value.isoformat())


_WRITERS: dict[type[IcebergType], _Convert] = {
    FloatType: _write_float,
    DoubleType: _write_float,
    DecimalType: str,
    DateType: _iso,
    TimeType: _iso,
    TimestampType: _iso,
    TimestamptzType: _iso,
    UUIDType: str,
    FixedType: _write_bytes,
    BinaryType: _write_bytes,
}
_READERS: dict[type[IcebergType], _Convert] = {
    # A warehouse may write a whole number with a fraction, or without.
    IntegerType: int,
    LongType: int,
    FloatType: float,
    DoubleType: float,
    DecimalType: Decimal,
    DateType: date.fromisoformat,
    TimeType: time.fromisoformat,
    TimestampType: datetime.fromisoformat,
    TimestamptzType: datetime.fromisoformat,
    FixedType: base64.b64decode,
    BinaryType: base64.b64decode,
}
