"""The statements that make, change and replace tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from dwh_assets.warehouses.base import Target
from dwh_assets.warehouses.dialect import Dialect, ReplicaColumn
from dwh_assets.warehouses.evolution import ColumnStep
from dwh_assets.warehouses.session import Layout
from dwh_assets.warehouses.snowflake.literals import quote_literal

Existing = Literal["refuse", "replace", "keep"]
_VERBS: dict[Existing, str] = {
    "refuse": "CREATE TABLE",
    "replace": "CREATE OR REPLACE TABLE",
    "keep": "CREATE TABLE IF NOT EXISTS",
}


def create_sql(
    dialect: Dialect, target: Target, columns: Sequence[ReplicaColumn], layout: Layout, existing: Existing
) -> str:
    """Return the statement that makes an empty table."""
    verb_sql = _VERBS[existing]
    columns_sql = ", ".join(_column_sql(dialect, column) for column in columns)
    keys_sql = ", ".join(map(dialect.quote, clustering_keys(dialect, layout)))
    cluster_sql = f" CLUSTER BY ({keys_sql})" if keys_sql else ""
    return f"{verb_sql} {dialect.qualify(target)} ({columns_sql}){cluster_sql}"


def clustering_keys(dialect: Dialect, layout: Layout) -> Sequence[str]:
    """Return the columns to cluster by, that of the partitions first: Snowflake has no others."""
    declared = (layout.partition_by, *layout.cluster_by)
    return list(dict.fromkeys(dialect.name(name) for name in declared if name))


def _column_sql(dialect: Dialect, column: ReplicaColumn) -> str:
    required_sql = " NOT NULL" if column.field.required else ""
    comment_sql = f" COMMENT {quote_literal(column.field.doc)}" if column.field.doc else ""
    return f"{dialect.quote(column.name)} {column.holding.sql_type}{required_sql}{comment_sql}"


def alter_sql(dialect: Dialect, target: Target, step: ColumnStep) -> str:
    """Return the statement that changes one column; all but `rename` may be repeated."""
    return f"ALTER TABLE {dialect.qualify(target)} " + "".join(_changes_sql(dialect, step))


def _changes_sql(dialect: Dialect, step: ColumnStep) -> Iterator[str]:
    name_sql, column = dialect.quote(step.name), step.column
    match step.kind:
        case "drop":
            yield f"DROP COLUMN IF EXISTS {name_sql}"
        case "relax":
            yield f"ALTER COLUMN {name_sql} DROP NOT NULL"
        case "add" if column:
            yield f"ADD COLUMN IF NOT EXISTS {name_sql} {column.holding.sql_type}"
        case "rename" if column:
            yield f"RENAME COLUMN {name_sql} TO {dialect.quote(column.name)}"
        case "widen" if column:
            yield f"ALTER COLUMN {name_sql} SET DATA TYPE {column.holding.sql_type}"


def supplant_sql(dialect: Dialect, target: Target, staging: Target) -> str:
    """Return the statement that makes a table what another one is, without copying its rows.

    Readers see the one or the other. Constraints, clustering and comments come with it; who may read the
    target stays as it was.
    """
    return f"CREATE OR REPLACE TABLE {dialect.qualify(target)} CLONE {dialect.qualify(staging)} COPY GRANTS"


def copy_table_sql(dialect: Dialect, target: Target, staging: Target) -> str:
    """Return what does the same for emulators, which cannot replace by a clone: the rows are copied."""
    return (
        f"CREATE OR REPLACE TABLE {dialect.qualify(target)} COPY GRANTS"
        f" AS SELECT * FROM {dialect.qualify(staging)}"
    )
