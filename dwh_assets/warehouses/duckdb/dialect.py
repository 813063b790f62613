"""DuckDB's SQL: every Iceberg type has one of its own, and names keep their case but are found without it."""

from __future__ import annotations

from pyiceberg.schema import Schema
from pyiceberg.types import IcebergType, NestedField

from dwh_assets.iceberg.arrow.types import arrow_schema
from dwh_assets.iceberg.sql import duckdb_type
from dwh_assets.warehouses.base import Target
from dwh_assets.warehouses.dialect import Capabilities, Dialect, Holding, TypeOptions, split_name


class DuckDBDialect(Dialect):
    """DuckDB's SQL."""

    capabilities = Capabilities(
        warehouse="duckdb",
        sqlglot_dialect="duckdb",
        placeholder="?",
        casing="preserve",
        case_sensitive=False,
        case_sensitive_tables=False,
        max_identifier_length=10_000,
        max_columns=100_000,
        max_decimal_digits=38,
        timestamp_digits=9,
        transactional_ddl=True,
        merge_in_transaction=True,
        bulk_formats=("arrow", "parquet"),
        file_bytes=128 << 20,
        parallel_files=8,
    )

    def holding(self, iceberg: IcebergType, where: str, options: TypeOptions) -> Holding:
        """Return how values of a type are held."""
        declared = duckdb_type(iceberg, where)
        arrow = arrow_schema(Schema(NestedField(1, "value", iceberg, required=False))).field(0).type
        return Holding(declared, arrow)

    def canonical_sql(self, iceberg: IcebergType, holding: Holding, value_sql: str) -> str | None:
        """Return SQL for the canonical text of a value."""
        return value_sql

    def limbs_sql(self, text_sql: str) -> tuple[str, str, str, str]:
        """Return SQL for the MD5 of a text as four integers of 32 bits."""
        raise NotImplementedError

    def target(self, into: str) -> Target:
        """Return where `into` is: schema.table, or a table in `main`."""
        *schema, name = split_name(into)
        return Target("", ".".join(schema) or "main", name)

    def state_table(self, target: Target) -> Target:
        """Return where the record of the replica is kept."""
        return Target("", "main", "_dwh_replicas")
