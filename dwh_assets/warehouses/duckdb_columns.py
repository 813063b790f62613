"""The columns of an Iceberg table as DuckDB declares them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pyiceberg.schema import Schema
from pyiceberg.types import (
    IcebergType,
    ListType,
    MapType,
    NestedField,
    StructType,
)

from dwh_assets.errors import SchemaError
from dwh_assets.iceberg.sql import duckdb_type, quote_identifier


def columns_sql(schema: Schema, table: str) -> str:
    """Return the column list of `CREATE TABLE`: names as they are, types, and `NOT NULL` where required.

    Raises `SchemaError` for names that DuckDB cannot tell apart and `UnsupportedError` for a type it does
    not have; both name table and column.
    """
    _refuse_equal_names(schema.fields, table, "")
    for struct, prefix in _structs(schema.as_struct(), ""):
        _refuse_equal_names(struct.fields, table, prefix)
    return ", ".join(
        f"{quote_identifier(field.name)} {duckdb_type(field.field_type, f'{table}: column {field.name}')}"
        + (" NOT NULL" if field.required else "")
        for field in schema.fields
    )


def comments(schema: Schema) -> Iterator[tuple[str, str]]:
    """Yield name and description of each column that has one."""
    return ((field.name, field.doc) for field in schema.fields if field.doc)


def _structs(nested: IcebergType, path: str) -> Iterator[tuple[StructType, str]]:
    """Yield every struct inside a type, with the path that leads to its fields."""
    if isinstance(nested, StructType):
        if path:
            yield nested, path
        for field in nested.fields:
            yield from _structs(field.field_type, f"{path}{field.name}.")
    elif isinstance(nested, ListType):
        yield from _structs(nested.element_type, f"{path}element.")
    elif isinstance(nested, MapType):
        yield from _structs(nested.key_type, f"{path}key.")
        yield from _structs(nested.value_type, f"{path}value.")


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
