"""Every Iceberg type to a BigQuery type and back."""

from __future__ import annotations

from functools import partial

import pyarrow as pa
import pyarrow.compute as pc
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
    LongType,
    StringType,
    TimestampNanoType,
    TimestampType,
    TimestamptzNanoType,
    TimestamptzType,
    TimeType,
    UUIDType,
)

from dwh_assets.errors import UnsupportedError
from dwh_assets.warehouses.bigquery.native import native_holding
from dwh_assets.warehouses.dialect import Holding, TypeOptions
from dwh_assets.warehouses.nested_json import from_json, to_json

# NUMERIC has 29 digits before the point and 9 behind it; BIGNUMERIC has 38 and 38, so every decimal fits.
_NUMERIC_INTEGER_DIGITS = 29
_NUMERIC_SCALE = 9


def holding(iceberg: IcebergType, where: str, options: TypeOptions) -> Holding:
    """Return how values of a type are held.

    Raises `UnsupportedError` that names `where`, the table and column, when they cannot be.
    """
    if not iceberg.is_primitive:
        if options.nested == "native":
            return native_holding(iceberg, where, partial(_primitive, options=options))
        return _json(iceberg)
    return _primitive(iceberg, where, options)


def _primitive(iceberg: IcebergType, where: str, options: TypeOptions) -> Holding:
    if isinstance(iceberg, DecimalType):
        return Holding(_decimal_type(iceberg), pa.decimal128(iceberg.precision, iceberg.scale))
    if isinstance(iceberg, FixedType):
        fixed = pa.binary(len(iceberg))
        return Holding("BYTES", pa.large_binary(), decode=lambda array: array.cast(pa.binary()).cast(fixed))
    if isinstance(iceberg, TimestampNanoType | TimestamptzNanoType):
        return _nanoseconds(iceberg, where, options)
    found = _PRIMITIVES.get(type(iceberg))
    if found is None:
        raise UnsupportedError(
            f"{where} is {iceberg}, which BigQuery cannot hold.", remedy="Leave it out, or change its type."
        )
    return found


def _decimal_type(iceberg: DecimalType) -> str:
    fits = iceberg.scale <= _NUMERIC_SCALE and iceberg.precision - iceberg.scale <= _NUMERIC_INTEGER_DIGITS
    return "NUMERIC" if fits else "BIGNUMERIC"


def _json(iceberg: IcebergType) -> Holding:
    # A number is written as few digits as tell it from its neighbours, so that rounding changes nothing;
    # without `round`, one that BigQuery cannot repeat digit by digit would be refused.
    return Holding(
        "JSON",
        pa.large_string(),
        encode=partial(to_json, decimals_as_text=True),
        decode=partial(from_json, iceberg=iceberg),
        staged_sql=lambda value_sql: f"PARSE_JSON({value_sql}, wide_number_mode => 'round')",
    )


def _nanoseconds(
    iceberg: TimestampNanoType | TimestamptzNanoType, where: str, options: TypeOptions
) -> Holding:
    zone = "UTC" if isinstance(iceberg, TimestamptzNanoType) else None
    if options.nanoseconds == "text":
        return Holding(
            "STRING",
            pa.large_string(),
            encode=lambda array: array.cast(pa.large_string()),
            decode=lambda array: array.cast(pa.timestamp("ns", zone)),
        )
    if options.nanoseconds == "truncate":
        micros = pa.timestamp("us", zone)
        return Holding(
            "TIMESTAMP" if zone else "DATETIME",
            micros,
            encode=lambda array: pc.floor_temporal(array, unit="microsecond").cast(micros, safe=False),
            lost="the digits behind the microsecond",
        )
    raise UnsupportedError(
        f"{where} is {iceberg}, and BigQuery's moments have microseconds.",
        remedy="Choose what becomes of nanoseconds: truncate, or text.",
    )


def _uuid_text(array: pa.Array) -> pa.Array:
    values = [None if value is None else str(value) for value in array.to_pylist()]
    return pa.array(values, pa.large_string())


_PRIMITIVES: dict[type[IcebergType], Holding] = {
    BooleanType: Holding("BOOL", pa.bool_()),
    IntegerType: Holding("INT64", pa.int64()),
    LongType: Holding("INT64", pa.int64()),
    FloatType: Holding("FLOAT64", pa.float64()),
    DoubleType: Holding("FLOAT64", pa.float64()),
    DateType: Holding("DATE", pa.date32()),
    TimeType: Holding("TIME", pa.time64("us")),
    TimestampType: Holding("DATETIME", pa.timestamp("us")),
    TimestamptzType: Holding("TIMESTAMP", pa.timestamp("us", "UTC")),
    StringType: Holding("STRING", pa.large_string()),
    UUIDType: Holding("STRING", pa.large_string(), encode=_uuid_text),
    BinaryType: Holding("BYTES", pa.large_binary()),
}
