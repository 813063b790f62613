"""Columns of replicas, made by hand."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from pyiceberg.schema import Schema
from pyiceberg.types import IcebergType, LongType, NestedField, StringType

from dwh_assets.iceberg.arrow.types import arrow_schema
from dwh_assets.warehouses.bigquery.dialect import BigQueryDialect
from dwh_assets.warehouses.columns import replica_columns
from dwh_assets.warehouses.dialect import ReplicaColumn, TypeOptions

DIALECT = BigQueryDialect()
ID = NestedField(1, "id", LongType(), required=True)
ITEM = NestedField(2, "item", StringType(), required=False)


def columns_of(*fields: NestedField, options: TypeOptions | None = None) -> tuple[ReplicaColumn, ...]:
    return replica_columns(Schema(*fields), DIALECT, options or TypeOptions(), "sales.orders")


def column_of(iceberg: IcebergType, options: TypeOptions | None = None) -> ReplicaColumn:
    return columns_of(NestedField(1, "value", iceberg, required=False), options=options)[0]


ORDERS = columns_of(ID, ITEM)


def reader(columns: Sequence[ReplicaColumn], rows: Sequence[dict[str, Any]]) -> pa.RecordBatchReader:
    """Rows of the lake, each in a batch of its own."""
    schema = arrow_schema(Schema(*(column.field for column in columns)))
    batches = [pa.RecordBatch.from_pylist([row], schema=schema) for row in rows]
    return pa.RecordBatchReader.from_batches(schema, batches)
