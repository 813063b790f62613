"""The Arrow types of Iceberg's, without the extension types that PyArrow cannot build arrays of."""

from __future__ import annotations

import pyarrow as pa
from pyiceberg.schema import Schema
from pyiceberg.types import (
    IcebergType,
    ListType,
    MapType,
    NestedField,
    StructType,
    UUIDType,
)

from dwh_assets.iceberg.arrow.types import arrow_schema


def arrow_type(iceberg: IcebergType) -> pa.DataType:
    """Return the Arrow type in which the lake shows values of a type."""
    return arrow_schema(Schema(NestedField(1, "value", iceberg, required=False))).field(0).type


def plain_arrow_type(iceberg: IcebergType) -> pa.DataType:
    """Return the same with UUIDs as text, wherever they are inside."""
    if isinstance(iceberg, StructType):
        return pa.struct([(field.name, plain_arrow_type(field.field_type)) for field in iceberg.fields])
    if isinstance(iceberg, ListType):
        return pa.large_list(plain_arrow_type(iceberg.element_type))
    if isinstance(iceberg, MapType):
        return pa.map_(plain_arrow_type(iceberg.key_type), plain_arrow_type(iceberg.value_type))
    return pa.large_string() if isinstance(iceberg, UUIDType) else arrow_type(iceberg)
