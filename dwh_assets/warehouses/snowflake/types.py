"""How Snowflake holds Iceberg's types, and in which form their values travel there.

| Iceberg | Snowflake | travels as |
|---|---|---|
| boolean | BOOLEAN | boolean |
| int, long | NUMBER(10, 0), NUMBER(19, 0) | itself |
| float, double | FLOAT (64 bits) | double |
| decimal(p, s) | NUMBER(p, s) | itself |
| date | DATE | itself |
| time | TIME(6) | text |
| timestamp, timestamp_ns | TIMESTAMP_NTZ(6), (9) | itself |
| timestamptz, timestamptz_ns | TIMESTAMP_LTZ(6), (9) | itself |
| string, uuid | VARCHAR | text |
| fixed, binary | BINARY | itself |
| struct, list, map | VARIANT; by `nested: native` OBJECT, ARRAY, OBJECT | JSON text |

Moments are fetched as integers: the connector decides on their precision chunk by chunk, and emulators lose
their nulls. An instant is held without a time zone of its own, as in Iceberg: it is shown in the zone of
whoever looks.
"""

from __future__ import annotations

from functools import partial

import pyarrow as pa
from pyiceberg.types import (
    BinaryType,
    BooleanType,
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
    StringType,
    StructType,
    TimestampNanoType,
    TimestampType,
    TimestamptzNanoType,
    TimestamptzType,
    TimeType,
    UUIDType,
)

from dwh_assets.errors import UnsupportedError
from dwh_assets.warehouses.dialect import Holding, TypeOptions
from dwh_assets.warehouses.nested_json import from_json, to_json
from dwh_assets.warehouses.snowflake.canonical import since_epoch_sql


def holding_of(iceberg: IcebergType, where: str, options: TypeOptions) -> Holding:
    """Return how values of a type are held; raises `UnsupportedError` that names `where`."""
    if isinstance(iceberg, DecimalType):
        arrow = pa.decimal128(iceberg.precision, iceberg.scale)
        # Whole numbers come back as integers.
        widest = pa.decimal128(38, iceberg.scale)
        return Holding(
            f"NUMBER({iceberg.precision}, {iceberg.scale})",
            arrow,
            decode=lambda numbers: numbers.cast(widest).cast(arrow),
        )
    if not iceberg.is_primitive:
        return _nested(iceberg, options)
    if type(iceberg) not in _PRIMITIVES:
        raise UnsupportedError(
            f"{where} is {iceberg}, which replicas in Snowflake cannot hold.",
            remedy="Leave it out, or change its type.",
        )
    return _PRIMITIVES[type(iceberg)]


def _nested(iceberg: IcebergType, options: TypeOptions) -> Holding:
    native = options.nested == "native"
    declared_sql = _native_type(iceberg) if native else "VARIANT"
    return Holding(
        declared_sql,
        pa.large_string(),
        encode=partial(to_json, maps_as_objects=native),
        decode=partial(from_json, iceberg=iceberg),
        staged_sql=(lambda text_sql: f"CAST(PARSE_JSON({text_sql}) AS {declared_sql})")
        if native
        else (lambda text_sql: f"PARSE_JSON({text_sql})"),
        lost="the order of a map's keys" if native and _loses_order(iceberg) else "",
    )


def _native_type(iceberg: IcebergType) -> str:
    is_object = isinstance(iceberg, StructType) or _has_text_keys(iceberg)
    return "OBJECT" if is_object else "ARRAY"


def _has_text_keys(iceberg: IcebergType) -> bool:
    return isinstance(iceberg, MapType) and isinstance(iceberg.key_type, StringType)


def _loses_order(iceberg: IcebergType) -> bool:
    """Tell whether a map somewhere inside becomes an object."""
    match iceberg:
        case MapType():
            return _has_text_keys(iceberg) or _loses_order(iceberg.value_type)
        case ListType():
            return _loses_order(iceberg.element_type)
        case StructType():
            return any(_loses_order(field.field_type) for field in iceberg.fields)
        case _:
            return False


def _as_text(values: pa.Array) -> pa.Array:
    return values.cast(pa.string())


def _uuid_text(values: pa.Array) -> pa.Array:
    return pa.array([None if value is None else str(value) for value in values.to_pylist()], pa.string())


def _moment(declared: str, arrow: pa.TimestampType) -> Holding:
    return Holding(
        declared,
        arrow,
        decode=lambda numbers: numbers.cast(pa.int64()).cast(arrow),
        fetched_sql=partial(since_epoch_sql, arrow),
    )


_PRIMITIVES: dict[type[IcebergType], Holding] = {
    BooleanType: Holding("BOOLEAN", pa.bool_()),
    IntegerType: Holding("NUMBER(10, 0)", pa.int32()),
    LongType: Holding("NUMBER(19, 0)", pa.int64()),
    FloatType: Holding("FLOAT", pa.float64()),
    DoubleType: Holding("FLOAT", pa.float64()),
    DateType: Holding("DATE", pa.date32()),
    # Parquet's times are read as numbers where a file format says nothing else.
    TimeType: Holding("TIME(6)", pa.string(), encode=_as_text),
    TimestampType: _moment("TIMESTAMP_NTZ(6)", pa.timestamp("us")),
    TimestamptzType: _moment("TIMESTAMP_LTZ(6)", pa.timestamp("us", "UTC")),
    TimestampNanoType: _moment("TIMESTAMP_NTZ(9)", pa.timestamp("ns")),
    TimestamptzNanoType: _moment("TIMESTAMP_LTZ(9)", pa.timestamp("ns", "UTC")),
    StringType: Holding("VARCHAR", pa.large_string()),
    UUIDType: Holding("VARCHAR(36)", pa.string(), encode=_uuid_text),
    FixedType: Holding("BINARY", pa.large_binary()),
    BinaryType: Holding("BINARY", pa.large_binary()),
}
