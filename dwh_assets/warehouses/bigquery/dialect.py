"""BigQuery's SQL: its limits, its types and how names are quoted."""

from __future__ import annotations

from pyiceberg.types import IcebergType, NestedField

from dwh_assets.errors import ConfigurationError
from dwh_assets.warehouses.base import Target
from dwh_assets.warehouses.bigquery import canonical, holdings
from dwh_assets.warehouses.bigquery.names import MAX_COLUMN_NAME, column_name, quote, require_table
from dwh_assets.warehouses.dialect import Capabilities, Dialect, Holding, TypeOptions, split_name


class BigQueryDialect(Dialect):
    """GoogleSQL, as BigQuery has it."""

    capabilities = Capabilities(
        warehouse="bigquery",
        sqlglot_dialect="bigquery",
        placeholder="?",
        casing="preserve",
        case_sensitive=False,
        case_sensitive_tables=True,
        max_identifier_length=MAX_COLUMN_NAME,
        max_columns=10_000,
        max_decimal_digits=76,
        timestamp_digits=6,
        transactional_ddl=False,
        # The service has it; the emulators, on which all of this is proved, do not.
        merge_in_transaction=False,
        bulk_formats=("parquet",),
        # Few large files: each is a load job, which costs seconds and counts against the day's.
        file_bytes=256 << 20,
        parallel_files=4,
        daily_loads_per_table=1_500,
    )
    quotation_mark = "`"

    def holding(self, iceberg: IcebergType, where: str, options: TypeOptions) -> Holding:
        """Return how values of a type are held.

        Raises `UnsupportedError` that names `where` (table and column) when they cannot be.
        """
        return holdings.holding(iceberg, where, options)

    def canonical_sql(self, iceberg: IcebergType, holding: Holding, value_sql: str) -> str | None:
        """Return SQL for the canonical text of a value; None for what is nested or held with a loss."""
        return None if holding.lost else canonical.canonical_sql(iceberg, value_sql)

    def sum_sql(self, iceberg: IcebergType, value_sql: str) -> str | None:
        """Return SQL for the exact sum of integers or decimals, as BIGNUMERIC, which holds any of them."""
        if super().sum_sql(iceberg, value_sql) is None:
            return None
        return f"SUM(CAST({value_sql} AS BIGNUMERIC))"

    def limbs_sql(self, text_sql: str) -> tuple[str, str, str, str]:
        """Return SQL for the MD5 of a text as four integers of 32 bits."""
        return canonical.limbs_sql(text_sql)

    def name(self, lake_name: str) -> str:
        """Return the name that a lake's column has: its own.

        Raises `ConfigurationError` for one that BigQuery does not take.
        """
        return column_name(lake_name)

    def quote(self, name: str) -> str:
        """Return a name between backticks. Raises `ConfigurationError` for one that BigQuery never has."""
        return quote(name)

    def target(self, into: str) -> Target:
        """Return where `into` is: dataset.table, or project.dataset.table.

        Raises `ConfigurationError`.
        """
        parts = split_name(into)
        if len(parts) not in (2, 3):
            raise ConfigurationError(
                f"`into` is {into!r}, and a table in BigQuery has two parts or three.",
                remedy="Write dataset.table, or project.dataset.table.",
            )
        target = Target(*parts) if len(parts) == 3 else Target("", *parts)
        require_table(*target)
        return target

    def state_table(self, target: Target) -> Target:
        """Return `_dwh_replicas` in the target's own dataset."""
        return target.beside("_dwh_replicas")

    def same_sql(self, left_sql: str, right_sql: str, field: NestedField) -> str:
        """Return a condition that two values are the same; null is the same as null.

        It is one equality of both sides whatever the type: BigQuery joins by hash only then, and refuses to
        compare JSON, structs and arrays with `=`.
        """
        if field.required and field.field_type.is_primitive:
            return f"{left_sql} = {right_sql}"
        return f"TO_JSON_STRING({left_sql}) = TO_JSON_STRING({right_sql})"
