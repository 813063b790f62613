"""The canonical text of values in BigQuery's SQL, and the MD5 of a text as four integers."""

from __future__ import annotations

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
    TimestampType,
    TimestamptzType,
    TimeType,
    UUIDType,
)

# Doubles outside of 1e±250 are scaled by this power of two first, so that no step over- or underflows.
_SCALE = 300
_SCALE_SQL = repr(2.0**_SCALE)
_MANTISSA_SQL = f"{2.0**52:.1f}"


def canonical_sql(iceberg: IcebergType, value_sql: str) -> str | None:
    """Return SQL for a value's canonical text; None for nested values, which are held as JSON."""
    if isinstance(iceberg, DecimalType):
        return _decimal_sql(value_sql)
    if isinstance(iceberg, FloatType | DoubleType):
        return _float_sql(value_sql)
    template = _PRIMITIVES.get(type(iceberg))
    return template.format(value_sql) if template else None


def limbs_sql(text_sql: str) -> tuple[str, str, str, str]:
    """Return SQL for the MD5 of a text, eight hexadecimal digits at a time."""
    hex_sql = f"TO_HEX(MD5({text_sql}))"
    first_sql, second_sql, third_sql, fourth_sql = (
        f"CAST(CONCAT('0x', SUBSTR({hex_sql}, {start}, 8)) AS INT64)" for start in (1, 9, 17, 25)
    )
    return first_sql, second_sql, third_sql, fourth_sql


def _decimal_sql(value_sql: str) -> str:
    """Strip zeros behind the point; the service writes none, but a copy of it may."""
    text_sql = f"CAST({value_sql} AS STRING)"
    return (
        f"CASE WHEN STRPOS({text_sql}, '.') > 0 THEN RTRIM(RTRIM({text_sql}, '0'), '.') ELSE {text_sql} END"
    )


def _float_sql(value_sql: str) -> str:
    """Return the sign, 53 bits of mantissa as an integer, and the exponent: the exact value.

    The exponent is the logarithm's floor, which may be off by one near a power of two and is corrected.
    """
    size_sql = f"ABS({value_sql})"
    small_sql, large_sql = f"{size_sql} < 1e-250", f"{size_sql} > 1e250"
    scaled_sql = (
        f"(CASE WHEN {small_sql} THEN {size_sql} * {_SCALE_SQL}"
        f" WHEN {large_sql} THEN {size_sql} / {_SCALE_SQL} ELSE {size_sql} END)"
    )
    offset_sql = f"(CASE WHEN {small_sql} THEN -{_SCALE} WHEN {large_sql} THEN {_SCALE} ELSE 0 END)"
    guess_sql = f"CAST(FLOOR(LOG({scaled_sql}, 2)) AS INT64)"
    ratio_sql = f"({scaled_sql} / POWER(2.0, {guess_sql}))"
    factor_sql = f"(CASE WHEN {ratio_sql} >= 2 THEN 0.5 WHEN {ratio_sql} < 1 THEN 2.0 ELSE 1.0 END)"
    correction_sql = f"(CASE WHEN {ratio_sql} >= 2 THEN 1 WHEN {ratio_sql} < 1 THEN -1 ELSE 0 END)"
    mantissa_sql = f"CAST({ratio_sql} * {factor_sql} * {_MANTISSA_SQL} AS INT64)"
    return (
        f"CASE WHEN {value_sql} IS NULL THEN NULL WHEN IS_NAN({value_sql}) THEN 'NaN'"
        f" WHEN {value_sql} = 0 THEN '0' WHEN IS_INF({value_sql}) AND {value_sql} > 0 THEN 'Inf'"
        f" WHEN IS_INF({value_sql}) THEN '-Inf'"
        f" ELSE CONCAT(CASE WHEN {value_sql} < 0 THEN '-' ELSE '' END, CAST({mantissa_sql} AS STRING),"
        f" 'p', CAST({guess_sql} + {correction_sql} + {offset_sql} AS STRING)) END"
    )


_ESCAPED_SQL = r"REPLACE(REPLACE({0}, '\\', '\\\\'), '|', '\\|')"
_PRIMITIVES: dict[type[IcebergType], str] = {
    BooleanType: "CASE WHEN {0} THEN 't' WHEN NOT {0} THEN 'f' END",
    IntegerType: "CAST({0} AS STRING)",
    LongType: "CAST({0} AS STRING)",
    DateType: "CAST(UNIX_DATE({0}) AS STRING)",
    TimeType: "CAST(TIME_DIFF({0}, TIME '00:00:00', MICROSECOND) AS STRING)",
    TimestampType: "CAST(UNIX_MICROS(TIMESTAMP({0})) AS STRING)",
    TimestamptzType: "CAST(UNIX_MICROS({0}) AS STRING)",
    StringType: _ESCAPED_SQL,
    UUIDType: "{0}",
    FixedType: "TO_HEX({0})",
    BinaryType: "TO_HEX({0})",
}
