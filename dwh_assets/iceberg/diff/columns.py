"""The columns in which two versions are compared: those of the later one asked for, found by field id.

A column that was renamed is the same one; one that was added is null, or its default, in older rows; one
that was dropped is compared no more. Types only ever widen, so the wider of both versions' holds all values.
"""

from __future__ import annotations

from pyiceberg.schema import Schema
from pyiceberg.types import (
    DecimalType,
    DoubleType,
    IcebergType,
    ListType,
    LongType,
    MapType,
    NestedField,
    StructType,
)

from dwh_assets.iceberg.matching.source_rows import internal_name


def compared_columns(before: Schema, after: Schema) -> Schema:
    """Return the columns of `after`, wide enough for the values of both; any of them may be null."""
    old = {field.field_id: field for field in before.fields}
    return Schema(*(_wide(field, old.get(field.field_id)) for field in after.fields))


def internal_columns(schema: Schema) -> Schema:
    """Return the columns under their names inside DuckDB."""
    return Schema(
        *(field.model_copy(update={"name": internal_name(field.field_id)}) for field in schema.fields)
    )


def _wide(field: NestedField, other: NestedField | None) -> NestedField:
    wide = field.field_type if other is None else _wider(field.field_type, other.field_type)
    return field.model_copy(update={"field_type": wide, "required": False})


def _wider(one: IcebergType, other: IcebergType) -> IcebergType:
    """Return the wider of two types of the same column; nested fields are found by their ids."""
    match one, other:
        case StructType(), StructType():
            inner = {field.field_id: field for field in other.fields}
            return StructType(*(_wide(field, inner.get(field.field_id)) for field in one.fields))
        case ListType(), ListType():
            element = _wider(one.element_type, other.element_type)
            return one.model_copy(update={"element_type": element, "element_required": False})
        case MapType(), MapType():
            value = _wider(one.value_type, other.value_type)
            return one.model_copy(update={"value_type": value, "value_required": False})
        case DecimalType(), DecimalType():
            return one if one.precision >= other.precision else other
        case _:
            return other if isinstance(other, LongType | DoubleType) else one
