"""Nested values as JSON text that loses nothing, for warehouses that keep such columns as JSON or VARIANT.

JSON has one kind of number, which readers take for a decimal or a double as they please, and neither times
nor bytes. So a value goes as a number only where its plain decimal digits are all of it:

| Iceberg | JSON |
|---|---|
| boolean, int, long, decimal, string | itself |
| float, double | a number where its shortest form has no exponent, else text: `"1e+300"`, `"nan"`, `"-0.0"` |
| date, time, timestamps, uuid | text: ISO 8601, `Z` where there is a time zone |
| fixed, binary | text: lower-case hex |
| struct | object of all fields |
| list | array |
| map | array of `{"key": …, "value": …}`: keys need not be text, and their order stays |

With `maps_as_objects`, maps whose keys are text become objects: handier to query, without an order. With
`decimals_as_text`, decimals are text: for warehouses that take a JSON number for a double.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from datetime import time
from decimal import Decimal
from functools import partial
from typing import Any

import pyarrow as pa
from pyiceberg.schema import Schema
from pyiceberg.types import IcebergType, NestedField

from dwh_assets.iceberg.arrow.types import align, arrow_schema

_Write = Callable[[Any], str]
_Read = Callable[[Any], Any]
_text = partial(json.dumps, ensure_ascii=False)


def to_json(values: pa.Array, *, maps_as_objects: bool = False, decimals_as_text: bool = False) -> pa.Array:
    """Return nested values as texts of JSON; null stays null."""
    write = _writer(values.type, maps_as_objects, _decimal_as_text if decimals_as_text else _leaf)
    shown = values.cast(_shown(values.type)).to_pylist()
    return pa.array([None if value is None else write(value) for value in shown], pa.large_string())


def from_json(texts: pa.Array, iceberg: IcebergType) -> pa.Array:
    """Return the values that `to_json` made texts of, in the lake's type; null stays null."""
    target = arrow_schema(Schema(NestedField(1, "value", iceberg, required=False)))
    # UUIDs are read from text.
    shown = _shown(target.field(0).type, uuid=pa.large_string())
    read = _reader(shown)
    values = [None if text is None else read(json.loads(text, parse_float=str)) for text in texts.to_pylist()]
    batch = pa.record_batch([pa.array(values, shown)], names=["value"])
    return align(batch, target, "value").column(0)


def _shown(arrow: pa.DataType, uuid: pa.DataType | None = None) -> pa.DataType:
    """Return the type in which Python objects hold all of the value: moments beyond its years are text."""
    if isinstance(arrow, pa.BaseExtensionType):
        return uuid or arrow
    if pa.types.is_struct(arrow):
        return pa.struct([field.with_type(_shown(field.type, uuid)) for field in arrow])
    if pa.types.is_map(arrow):
        item = arrow.item_field.with_type(_shown(arrow.item_type, uuid))
        return pa.map_(_shown(arrow.key_type, uuid), item)
    if hasattr(arrow, "value_field"):
        return pa.large_list(arrow.value_field.with_type(_shown(arrow.value_type, uuid)))
    return pa.large_string() if pa.types.is_timestamp(arrow) or pa.types.is_date(arrow) else arrow


# --- Writing ---


def _writer(arrow: pa.DataType, maps_as_objects: bool, leaf: _Write) -> _Write:
    def optional(inner: pa.DataType) -> _Write:
        write = _writer(inner, maps_as_objects, leaf)
        return lambda value: "null" if value is None else write(value)

    if pa.types.is_struct(arrow):
        fields = [(field.name, _text(field.name), optional(field.type)) for field in arrow]
        return lambda value: (
            "{" + ",".join(f"{key}:{write(value[name])}" for name, key, write in fields) + "}"
        )
    if pa.types.is_map(arrow):
        is_object = maps_as_objects and _is_text(arrow.key_type)
        return _map_writer(optional(arrow.key_type), optional(arrow.item_type), is_object)
    if hasattr(arrow, "value_field"):
        element = optional(arrow.value_type)
        return lambda value: "[" + ",".join(map(element, value)) + "]"
    return leaf


def _is_text(arrow: pa.DataType) -> bool:
    return bool(pa.types.is_string(arrow) or pa.types.is_large_string(arrow))


def _map_writer(key: _Write, item: _Write, is_object: bool) -> _Write:
    if is_object:
        return lambda value: "{" + ",".join(f"{key(k)}:{item(v)}" for k, v in value) + "}"
    return lambda value: "[" + ",".join(f'{{"key":{key(k)},"value":{item(v)}}}' for k, v in value) + "]"


def _leaf(value: Any) -> str:
    if isinstance(value, float):
        text = repr(value)
        plain = math.isfinite(value) and "e" not in text and text != "-0.0"
        return text if plain else _text(text)
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, bytes):
        return _text(value.hex())
    if isinstance(value, time):
        return _text(value.isoformat("microseconds"))
    return _text(value if isinstance(value, bool | int) else str(value))


def _decimal_as_text(value: Any) -> str:
    return _text(f"{value:f}") if isinstance(value, Decimal) else _leaf(value)


# --- Reading ---


def _reader(arrow: pa.DataType) -> _Read:
    def optional(inner: pa.DataType) -> _Read:
        read = _reader(inner)
        return lambda value: None if value is None else read(value)

    if pa.types.is_struct(arrow):
        fields = [(field.name, optional(field.type)) for field in arrow]
        return lambda value: {name: read(value.get(name)) for name, read in fields}
    if pa.types.is_map(arrow):
        return _map_reader(optional(arrow.key_type), optional(arrow.item_type))
    if hasattr(arrow, "value_field"):
        element = optional(arrow.value_type)
        return lambda value: [element(inner) for inner in value]
    return _leaf_reader(arrow)


def _map_reader(key: _Read, item: _Read) -> _Read:
    def entries(value: Any) -> Iterator[tuple[Any, Any]]:
        if isinstance(value, dict):
            yield from value.items()
        else:
            yield from ((entry["key"], entry["value"]) for entry in value)

    return lambda value: [(key(k), item(v)) for k, v in entries(value)]


def _leaf_reader(arrow: pa.DataType) -> _Read:
    is_a = pa.types
    if is_a.is_floating(arrow):
        return float
    if is_a.is_decimal(arrow):
        return Decimal
    if is_a.is_integer(arrow):
        return int
    if is_a.is_binary(arrow) or is_a.is_large_binary(arrow) or is_a.is_fixed_size_binary(arrow):
        return bytes.fromhex
    return time.fromisoformat if is_a.is_time(arrow) else lambda value: value
