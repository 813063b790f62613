"""Statements that define tables: columns, partitioning, clustering, and tables over Iceberg's own files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from dwh_assets.errors import ConfigurationError
from dwh_assets.warehouses.base import Target
from dwh_assets.warehouses.bigquery.names import column_name, quote
from dwh_assets.warehouses.dialect import ReplicaColumn
from dwh_assets.warehouses.evolution import ColumnStep
from dwh_assets.warehouses.session import Layout

MAX_CLUSTER_COLUMNS = 4
_CLUSTERABLE = {"BIGNUMERIC", "BOOL", "DATE", "DATETIME", "INT64", "NUMERIC", "STRING", "TIMESTAMP"}
_GRAINS = {
    "DATE": ("day", "month", "year"),
    "DATETIME": ("hour", "day", "month", "year"),
    "TIMESTAMP": ("hour", "day", "month", "year"),
}
_GRAIN_SQL = {grain: grain.upper() for grain in ("hour", "day", "month", "year")}
_EXPIRES_SQL = "OPTIONS (expiration_timestamp = TIMESTAMP_ADD(CURRENT_TIMESTAMP(), INTERVAL 24 HOUR))"
_CREATE_SQL = {
    "refuse": "CREATE TABLE",
    "replace": "CREATE OR REPLACE TABLE",
    "keep": "CREATE TABLE IF NOT EXISTS",
}


def qualify(target: Target) -> str:
    """Return a table's name, each part quoted."""
    return ".".join(map(quote, target.parts))


def create_table_sql(
    target: Target,
    columns: Sequence[ReplicaColumn],
    layout: Layout,
    *,
    existing: Literal["refuse", "replace", "keep"],
    expires: bool,
) -> str:
    """Return the statement that makes an empty table; with `expires`, it vanishes after a day.

    Raises `ConfigurationError` for a layout that BigQuery does not have.
    """
    clauses_sql = [
        f"{_CREATE_SQL[existing]} {qualify(target)} ({', '.join(map(_column_sql, columns))})",
        _partition_sql(columns, layout),
        _cluster_sql(columns, layout),
        _EXPIRES_SQL if expires else "",
    ]
    return " ".join(filter(None, clauses_sql))


def alter_table_sql(target: Target, step: ColumnStep) -> str:
    """Return the statement that changes one column."""
    name_sql = quote(step.name)
    if step.kind == "drop":
        change_sql = f"DROP COLUMN IF EXISTS {name_sql}"
    elif step.kind == "relax":
        change_sql = f"ALTER COLUMN {name_sql} DROP NOT NULL"
    else:
        assert step.column is not None  # noqa: S101 - all but these two have one
        new_sql, type_sql = quote(step.column.name), step.column.holding.sql_type
        change_sql = {
            "add": f"ADD COLUMN IF NOT EXISTS {new_sql} {type_sql}",
            "rename": f"RENAME COLUMN {name_sql} TO {new_sql}",
            "widen": f"ALTER COLUMN {name_sql} SET DATA TYPE {type_sql}",
        }[step.kind]
    return f"ALTER TABLE {qualify(target)} {change_sql}"


def external_table_sql(target: Target, metadata_location: str, connection: str | None = None) -> str:
    """Return the statement that makes, or repoints, a table over an Iceberg table's own files.

    `metadata_location` is that of the table's metadata file at the wanted snapshot; `connection` the
    BigLake connection that reads it (`project.region.name`), None for the caller's own rights.
    Raises `ConfigurationError` for files that are not on Google Cloud Storage.
    """
    if not metadata_location.startswith("gs://"):
        raise ConfigurationError(
            f"{target} cannot read {metadata_location}: BigQuery opens Iceberg tables on gs:// only.",
            remedy="Use mode: copy, or keep the table on Google Cloud Storage.",
        )
    connection_sql = f" WITH CONNECTION {quote(connection)}" if connection else ""
    return (
        f"CREATE OR REPLACE EXTERNAL TABLE {qualify(target)}{connection_sql}"
        f" OPTIONS (format = 'ICEBERG', uris = [{quote_text(metadata_location)}])"
    )


def quote_text(value: str) -> str:
    """Return a string literal, for options, which take no bound parameters."""
    escapes = {"\\": "\\\\", "'": "\\'", "\n": "\\n", "\r": "\\r"}
    return "'" + "".join(escapes.get(character, character) for character in value.replace("\0", "")) + "'"


def _column_sql(column: ReplicaColumn) -> str:
    required_sql = " NOT NULL" if column.field.required else ""
    described_sql = f" OPTIONS (description = {quote_text(column.field.doc)})" if column.field.doc else ""
    return f"{quote(column.name)} {column.holding.sql_type}{required_sql}{described_sql}"


def _partition_sql(columns: Sequence[ReplicaColumn], layout: Layout) -> str:
    if layout.partition_by is None:
        return ""
    column = _named(columns, layout.partition_by)
    sql_type, grain = column.holding.sql_type, layout.partition_grain or "day"
    if grain not in _GRAINS.get(sql_type, ()):
        raise ConfigurationError(
            f"A {grain} of {column.field.name}, which is {sql_type}, cannot be a partition in BigQuery.",
            remedy="Partition by day, month or year of a date or timestamp, or by hour of the latter.",
        )
    if sql_type == "DATE" and grain == "day":
        return f"PARTITION BY {quote(column.name)}"
    truncated_sql = f"{sql_type}_TRUNC({quote(column.name)}, {_GRAIN_SQL[grain]})"
    return f"PARTITION BY {truncated_sql}"


def _cluster_sql(columns: Sequence[ReplicaColumn], layout: Layout) -> str:
    if not layout.cluster_by:
        return ""
    chosen = [_named(columns, name) for name in layout.cluster_by]
    if len(chosen) > MAX_CLUSTER_COLUMNS:
        raise ConfigurationError(
            f"cluster_by has {len(chosen)} columns, and BigQuery takes {MAX_CLUSTER_COLUMNS}.",
            remedy="Name the most selective ones.",
        )
    odd = [column for column in chosen if column.holding.sql_type not in _CLUSTERABLE]
    if odd:
        raise ConfigurationError(
            f"cluster_by has {odd[0].field.name}, which is {odd[0].holding.sql_type} in BigQuery.",
            remedy=f"Cluster by columns of {', '.join(sorted(_CLUSTERABLE))}.",
        )
    return f"CLUSTER BY {', '.join(quote(column.name) for column in chosen)}"


def _named(columns: Sequence[ReplicaColumn], name: str) -> ReplicaColumn:
    wanted = column_name(name).lower()
    for column in columns:
        if column.field.name.lower() == wanted:
            return column
    raise ConfigurationError(
        f"The layout names a column {name!r} that the table does not have.",
        remedy=f"It has {', '.join(column.field.name for column in columns)}.",
    )
