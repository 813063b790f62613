"""SQL text for DuckDB and the warehouses: names go in quoted, through these functions and no others."""

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
    ListType,
    LongType,
    MapType,
    StringType,
    StructType,
    TimestampNanoType,
    TimestampType,
    TimestamptzType,
    TimeType,
    UUIDType,
)

from dwh_assets.errors import ConfigurationError, UnsupportedError


def quote_identifier(name: str, quote: str = '"') -> str:
    """Return a name as a quoted SQL identifier; `quote` is the dialect's quotation mark.

    Raises `ConfigurationError` for an empty name or one with a NUL character.
    """
    if not name or "\0" in name:
        raise ConfigurationError(
            f"{name!r} cannot be a name in SQL.", remedy="Give it a name of at least one printable character."
        )
    return quote + name.replace(quote, quote * 2) + quote


def qualified(*parts: str) -> str:
    """Return a dotted name, each part quoted."""
    return ".".join(quote_identifier(part) for part in parts)


def quote_text(value: str) -> str:
    """Return a string literal, for the few statements (`COMMENT`) that take no bound parameters.

    A NUL character, which would end the statement, is left out.
    """
    return "'" + value.replace("\0", "").replace("'", "''") + "'"


def duckdb_type(iceberg: IcebergType, where: str) -> str:
    """Return the DuckDB type that holds every value of an Iceberg type.

    Raises `UnsupportedError` that names `where`, the table and column, for a type that DuckDB has not.
    """
    if isinstance(iceberg, DecimalType):
        return f"DECIMAL({iceberg.precision}, {iceberg.scale})"
    if isinstance(iceberg, StructType):
        fields = [
            f"{quote_identifier(f.name)} {duckdb_type(f.field_type, f'{where}.{f.name}')}"
            for f in iceberg.fields
        ]
        return f"STRUCT({', '.join(fields)})"
    if isinstance(iceberg, ListType):
        return duckdb_type(iceberg.element_type, f"{where}.element") + "[]"
    if isinstance(iceberg, MapType):
        key = duckdb_type(iceberg.key_type, f"{where}.key")
        return f"MAP({key}, {duckdb_type(iceberg.value_type, f'{where}.value')})"
    if type(iceberg) not in _DUCKDB_TYPES:
        raise UnsupportedError(
            f"{where} is {iceberg}, which DuckDB cannot hold.", remedy="Leave it out, or change its type."
        )
    return _DUCKDB_TYPES[type(iceberg)]


_DUCKDB_TYPES: dict[type[IcebergType], str] = {
    BooleanType: "BOOLEAN",
    IntegerType: "INTEGER",
    LongType: "BIGINT",
    FloatType: "FLOAT",
    DoubleType: "DOUBLE",
    DateType: "DATE",
    TimeType: "TIME",
    TimestampType: "TIMESTAMP",
    TimestampNanoType: "TIMESTAMP_NS",
    TimestamptzType: "TIMESTAMP WITH TIME ZONE",
    StringType: "VARCHAR",
    UUIDType: "UUID",
    FixedType: "BLOB",
    BinaryType: "BLOB",
}
