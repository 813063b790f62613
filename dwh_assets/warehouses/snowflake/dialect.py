"""Snowflake's SQL: names in capitals unless quoted, and DDL that ends every transaction."""

from __future__ import annotations

import re

from pyiceberg.types import IcebergType

from dwh_assets.errors import ConfigurationError
from dwh_assets.warehouses.base import Target
from dwh_assets.warehouses.dialect import Capabilities, Dialect, Holding, TypeOptions, split_name
from dwh_assets.warehouses.snowflake.canonical import digest_limbs_sql, value_text_sql
from dwh_assets.warehouses.snowflake.types import holding_of

_WORKS_WITHOUT_QUOTES = re.compile(r"[A-Za-z_][A-Za-z0-9_$]*")
_STATE_TABLE = "_dwh_replicas"


class SnowflakeDialect(Dialect):
    """Snowflake's SQL."""

    capabilities = Capabilities(
        warehouse="snowflake",
        sqlglot_dialect="snowflake",
        placeholder="?",
        casing="upper",
        case_sensitive=True,
        case_sensitive_tables=True,
        max_identifier_length=255,
        # None is documented. Beyond some thousand, the text of a statement (1 MB) ends it.
        max_columns=5_000,
        max_decimal_digits=38,
        timestamp_digits=9,
        transactional_ddl=False,
        merge_in_transaction=True,
        bulk_formats=("parquet",),
        file_bytes=16 << 20,
        parallel_files=8,
    )

    def holding(self, iceberg: IcebergType, where: str, options: TypeOptions) -> Holding:
        """Return how values of a type are held."""
        return holding_of(iceberg, where, options)

    def canonical_sql(self, iceberg: IcebergType, holding: Holding, value_sql: str) -> str | None:
        """Return SQL for the canonical text of a value; None where that is lost or in a VARIANT."""
        return None if holding.lost else value_text_sql(iceberg, value_sql)

    def limbs_sql(self, text_sql: str) -> tuple[str, str, str, str]:
        """Return SQL for the MD5 of a text as four integers of 32 bits."""
        return digest_limbs_sql(text_sql)

    def name(self, lake_name: str) -> str:
        """Return a name in capitals if it then can be used without quotes, any other as it is."""
        return lake_name.upper() if _WORKS_WITHOUT_QUOTES.fullmatch(lake_name) else lake_name

    def target(self, into: str) -> Target:
        """Return where `into` is: schema.table, or database.schema.table; quoted parts keep their case."""
        parts = split_name(into, self.name)
        if len(parts) not in (2, 3):
            raise ConfigurationError(
                f"`into` is {into!r}, which does not say where in Snowflake.",
                remedy="Write schema.table, or database.schema.table.",
            )
        for part in parts:
            self._require_short(part, into)
        *database, schema, name = parts
        return Target("".join(database), schema, name)

    def state_table(self, target: Target) -> Target:
        """Return where the record of the replica is kept: in its own schema, so that its grants suffice."""
        return target.beside(self.name(_STATE_TABLE))

    def _require_short(self, part: str, into: str) -> None:
        if len(part) > self.capabilities.max_identifier_length:
            raise ConfigurationError(
                f"`into` is {into!r}, of which a part has {len(part)} characters; Snowflake takes "
                f"{self.capabilities.max_identifier_length}.",
                remedy="Choose a shorter name.",
            )
