"""Which columns a replica has: the table's, as one warehouse names and holds them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa
from pyiceberg.schema import Schema

from dwh_assets.errors import SchemaError, UnsupportedError
from dwh_assets.iceberg.arrow.types import align, arrow_schema
from dwh_assets.warehouses.dialect import Capabilities, Dialect, ReplicaColumn, TypeOptions

# What a sync adds to a table or to its staging tables begins so.
OWN_PREFIX = "_dwh_"


def replica_columns(
    schema: Schema, dialect: Dialect, options: TypeOptions, table: str
) -> tuple[ReplicaColumn, ...]:
    """Return a table's columns as the warehouse holds them.

    Raises `SchemaError` for names that the warehouse does not take or cannot tell apart, `UnsupportedError`
    for types that it cannot hold and for more columns than it has; each names table and column.
    """
    limits = dialect.capabilities
    if len(schema.fields) > limits.max_columns:
        raise UnsupportedError(
            f"{table} has {len(schema.fields):,} columns; {limits.warehouse} takes {limits.max_columns:,}.",
            remedy="Copy a table with fewer columns.",
        )
    columns = tuple(
        ReplicaColumn(
            field,
            dialect.name(field.name),
            dialect.holding(field.field_type, f"{table}: column {field.name}", options),
        )
        for field in schema.fields
    )
    _require_names(columns, limits, table)
    return columns


def _require_names(columns: Sequence[ReplicaColumn], limits: Capabilities, table: str) -> None:
    seen: dict[str, str] = {}
    for column in columns:
        where = f"{table}: column {column.field.name!r}"
        if column.name.lower().startswith(OWN_PREFIX):
            raise SchemaError(f"{where} has a name that replicas keep for themselves.", remedy="Rename it.")
        if len(column.name) > limits.max_identifier_length:
            raise SchemaError(
                f"{where} has {len(column.name)} characters in its name; {limits.warehouse} takes "
                f"{limits.max_identifier_length}.",
                remedy="Rename it in the table.",
            )
        first = seen.setdefault(folded(column.name, limits), column.field.name)
        if first != column.field.name:
            raise SchemaError(
                f"{table}: columns {first!r} and {column.field.name!r} differ in case alone, and "
                f"{limits.warehouse} takes them for one.",
                remedy="Rename one of them in the table.",
            )


def folded(name: str, limits: Capabilities) -> str:
    """Return what the warehouse compares; none of them folds more than the letters A to Z alike."""
    return name if limits.case_sensitive else name.encode().lower().decode()


def fetched_sql(dialect: Dialect, column: ReplicaColumn) -> str:
    """Return the SQL of a column in a query whose rows `decoded` gets."""
    name_sql = dialect.quote(column.name)
    return column.holding.fetched_sql(name_sql) if column.holding.fetched_sql else name_sql


def decoded(rows: pa.RecordBatchReader, columns: Sequence[ReplicaColumn], table: str) -> pa.RecordBatchReader:
    """Return what a query for `columns` brought back, under the lake's names and in its types."""
    target = arrow_schema(Schema(*(column.field for column in columns)))

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in rows:
            arrays = [
                column.holding.decode(array) if column.holding.decode else array
                for array, column in zip(batch.columns, columns, strict=True)
            ]
            found = pa.RecordBatch.from_arrays(arrays, names=[column.field.name for column in columns])
            yield align(found, target, table)

    return pa.RecordBatchReader.from_batches(target, batches())
