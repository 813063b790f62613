r"""The canonical text and the hash of `warehouses/canonical.py`, in Snowflake's SQL.

Written in the functions that emulators know as well: hex digits are looked up in a text, since of
`TO_NUMBER(…, 'XXXXXXXX')` and `MD5_NUMBER_LOWER64` they know neither.
"""

from __future__ import annotations

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
    LongType,
    StringType,
    TimestampNanoType,
    TimestampType,
    TimestamptzNanoType,
    TimestamptzType,
    TimeType,
    UUIDType,
)

# From text: a literal might become a fixed-point number.
_SMALL_SQL, _LARGE_SQL, _SCALE_SQL = "'1e-250'::FLOAT", "'1e250'::FLOAT", "POWER(2, 300)"
_EPOCH = "CAST('1970-01-01 00:00:00' AS TIMESTAMP_NTZ)"


def value_text_sql(iceberg: IcebergType, value_sql: str) -> str | None:
    """Return SQL for the canonical text of a value; None for what is kept in a VARIANT."""
    if isinstance(iceberg, DecimalType):
        return _decimal_sql(iceberg, value_sql)
    if isinstance(iceberg, FloatType | DoubleType):
        return _float_sql(value_sql)
    template_sql = _PRIMITIVES.get(type(iceberg))
    return template_sql.replace("{0}", value_sql) if template_sql else None


def digest_limbs_sql(text_sql: str) -> tuple[str, str, str, str]:
    """Return SQL for the MD5 of a text as four integers of 32 bits.

    Each is a cast on its outside: emulators take the sum of anything else for a double.
    """
    first_sql, second_sql, third_sql, fourth_sql = (_limb_sql(f"MD5({text_sql})", n) for n in range(4))
    return first_sql, second_sql, third_sql, fourth_sql


def since_epoch_sql(arrow: pa.TimestampType, value_sql: str) -> str:
    """Return SQL for the units of a moment's Arrow type (us, ns) since 1970, in UTC where it has a zone."""
    unit_sql = {"us": "'microsecond'", "ns": "'nanosecond'"}[arrow.unit]
    in_utc_sql = f"CAST(CONVERT_TIMEZONE('UTC', {value_sql}) AS TIMESTAMP_NTZ)" if arrow.tz else value_sql
    return f"DATEDIFF({unit_sql}, {_EPOCH}, {in_utc_sql})"


def _limb_sql(digest_sql: str, number: int) -> str:
    digits_sql = " + ".join(
        f"(POSITION(SUBSTR({digest_sql}, {8 * number + place + 1}, 1), '0123456789abcdef') - 1)"
        f" * {16 ** (7 - place)}"
        for place in range(8)
    )
    return f"CAST({digits_sql} AS NUMBER(38, 0))"


def _decimal_sql(iceberg: DecimalType, value_sql: str) -> str:
    text_sql = f"TO_VARCHAR({value_sql})"
    if iceberg.precision == iceberg.scale:
        # Emulators leave out the zero before the point when the type has no digit there.
        text_sql = rf"REGEXP_REPLACE(REGEXP_REPLACE({text_sql}, '^-\\.', '-0.'), '^\\.', '0.')"
    return rf"REGEXP_REPLACE({text_sql}, '\\.?0+$', '')" if iceberg.scale else text_sql


def _float_sql(value_sql: str) -> str:
    """Scale into the middle range, take the exponent, mend it where the logarithm was off by one.

    Kept short: a statement may have a megabyte, and a table a thousand such columns.
    """
    size_sql = f"ABS({value_sql})"
    small_sql, large_sql = f"{size_sql} < {_SMALL_SQL}", f"{size_sql} > {_LARGE_SQL}"
    scaled_sql = (
        f"CASE WHEN {small_sql} THEN {size_sql} * {_SCALE_SQL}"
        f" WHEN {large_sql} THEN {size_sql} / {_SCALE_SQL} ELSE {size_sql} END"
    )
    guess_sql = f"FLOOR(LOG(2, {scaled_sql}))"
    rest_sql = f"({scaled_sql}) / POWER(2, {guess_sql})"
    step_sql = f"CASE WHEN {rest_sql} >= 2 THEN 1 WHEN {rest_sql} < 1 THEN -1 ELSE 0 END"
    shift_sql = f"CASE WHEN {small_sql} THEN -300 WHEN {large_sql} THEN 300 ELSE 0 END"
    factor_sql = f"CASE WHEN {rest_sql} >= 2 THEN 0.5 WHEN {rest_sql} < 1 THEN 2 ELSE 1 END"
    mantissa_sql = f"{rest_sql} * ({factor_sql}) * 4503599627370496"  # 2 ** 52
    exponent_sql = f"{guess_sql} + ({step_sql}) + ({shift_sql})"
    return (
        f"CASE WHEN {value_sql} = 'NaN'::FLOAT THEN 'NaN' WHEN {value_sql} = 0 THEN '0'"
        f" WHEN {value_sql} = 'inf'::FLOAT THEN 'Inf' WHEN {value_sql} = '-inf'::FLOAT THEN '-Inf'"
        f" WHEN {value_sql} IS NOT NULL THEN CONCAT(IFF({value_sql} < 0, '-', ''),"
        f" TO_VARCHAR(({mantissa_sql})::NUMBER(38, 0)), 'p', TO_VARCHAR(({exponent_sql})::NUMBER(38, 0))) END"
    )


def _moment_sql(arrow: pa.TimestampType) -> str:
    return f"TO_VARCHAR({since_epoch_sql(arrow, '{0}')})"


_PRIMITIVES: dict[type[IcebergType], str] = {
    BooleanType: "CASE WHEN {0} THEN 't' WHEN NOT {0} THEN 'f' END",
    IntegerType: "TO_VARCHAR({0})",
    LongType: "TO_VARCHAR({0})",
    DateType: "TO_VARCHAR(DATEDIFF('day', CAST('1970-01-01' AS DATE), {0}))",
    TimeType: "TO_VARCHAR(DATEDIFF('microsecond', CAST('00:00:00' AS TIME), {0}))",
    TimestampType: _moment_sql(pa.timestamp("us")),
    TimestamptzType: _moment_sql(pa.timestamp("us", "UTC")),
    TimestampNanoType: _moment_sql(pa.timestamp("ns")),
    TimestamptzNanoType: _moment_sql(pa.timestamp("ns", "UTC")),
    StringType: r"REPLACE(REPLACE({0}, '\\', '\\\\'), '|', '\\|')",
    UUIDType: "{0}",
    FixedType: "LOWER(HEX_ENCODE({0}))",
    BinaryType: "LOWER(HEX_ENCODE({0}))",
}
