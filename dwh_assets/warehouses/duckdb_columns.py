"""The columns of an Iceberg table as DuckDB declares them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pyiceberg.schema import Schema
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
    NestedField,
    StringType,
    StructType,
    TimestampType,
    TimestamptzType,
    TimeType,
    UUIDType,
)

from dwh_assets.errors import SchemaError, UnsupportedError
from dwh_assets.warehouses.quoting import quote_identifier

_PRIMITIVES: dict[type[IcebergType], str] = {
    BooleanType: "BOOLEAN",
    IntegerType: "INTEGER",
    LongType: "BIGINT",
    FloatType: "FLOAT",
    DoubleType: "DOUBLE",
    DateType: "DATE",
    TimeType: "TIME",
    TimestampType: "TIMESTAMP",
    TimestamptzType: "TIMESTAMP WITH TIME ZONE",
    StringType: "VARCHAR",
    UUIDType: "UUID",
    FixedType: "BLOB",
    BinaryType: "BLOB",
}


def columns_sql(schema: Schema, table: str) -> str:
    """Return the column list of `CREATE TABLE`: names as they are, types, and `NOT NULL` where required.

    Raises `SchemaError` for names that DuckDB cannot tell apart and `UnsupportedError` for a type it does
    not have; both name table and column.
    """
    _refuse_equal_names(schema.fields, table, "")
    return ", ".join(
        f"{quote_identifier(field.name)} {_type_sql(field.field_type, table, field.name)}"
        + (" NOT NULL" if field.required else "")
        for field in schema.fields
    )


def comments(schema: Schema) -> Iterator[tuple[str, str]]:
    """Yield name and description of each column that has one."""
    return ((field.name, field.doc) for field in schema.fields if field.doc)


def _type_sql(iceberg: IcebergType, table: str, column: str) -> str:
    if isinstance(iceberg, DecimalType):
        return f"DECIMAL({iceberg.precision}, {iceberg.scale})"
    if isinstance(iceberg, StructType):
        return _struct_sql(iceberg, table, column)
    if isinstance(iceberg, ListType):
        return _type_sql(iceberg.element_type, table, f"{column}.element") + "[]"
    if isinstance(iceberg, MapType):
        key_sql = _type_sql(iceberg.key_type, table, f"{column}.key")
        return f"MAP({key_sql}, {_type_sql(iceberg.value_type, table, f'{column}.value')})"
    if type(iceberg) not in _PRIMITIVES:
        raise UnsupportedError(
            f"{table}: column {column!r} is {iceberg}, which DuckDB cannot hold.",
            remedy="Leave the table without a DuckDB replica, or change the column's type.",
        )
    return _PRIMITIVES[type(iceberg)]


def _struct_sql(struct: StructType, table: str, column: str) -> str:
    _refuse_equal_names(struct.fields, table, f"{column}.")
    fields_sql = ", ".join(
        f"{quote_identifier(field.name)} {_type_sql(field.field_type, table, f'{column}.{field.name}')}"
        for field in struct.fields
    )
    return f"STRUCT({fields_sql})"


def _refuse_equal_names(fields: Iterable[NestedField], table: str, prefix: str) -> None:
    """Refuse names that differ in case alone. DuckDB folds the letters A to Z and no others."""
    seen: dict[bytes, str] = {}
    for field in fields:
        first = seen.setdefault(field.name.encode().lower(), field.name)
        if first != field.name:
            raise SchemaError(
                f"{table}: columns {prefix + first!r} and {prefix + field.name!r} differ in case alone, "
                "and DuckDB takes them for one.",
                remedy="Rename one of them in the table.",
            )
