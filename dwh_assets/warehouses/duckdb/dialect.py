"""DuckDB's SQL: it holds every Iceberg type as one of its own, except instants in nanoseconds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.io.pyarrow import schema_to_pyarrow
from pyiceberg.types import (
    IcebergType,
    ListType,
    MapType,
    NestedField,
    StructType,
    TimestamptzNanoType,
)

from dwh_assets.errors import ConfigurationError, SchemaError, UnsupportedError
from dwh_assets.iceberg.sql import duckdb_type
from dwh_assets.warehouses.base import Target
from dwh_assets.warehouses.dialect import Capabilities, Dialect, Holding, TypeOptions, split_name
from dwh_assets.warehouses.duckdb.canonical import digest_limbs_sql, value_text_sql

# DuckDB documents no limit for names and columns.
_NO_LIMIT = 2**31 - 1
_CAPABILITIES = Capabilities(
    warehouse="duckdb",
    sqlglot_dialect="duckdb",
    placeholder="?",
    casing="preserve",
    case_sensitive=False,
    case_sensitive_tables=False,
    max_identifier_length=_NO_LIMIT,
    max_columns=_NO_LIMIT,
    max_decimal_digits=38,
    timestamp_digits=9,
    transactional_ddl=True,
    merge_in_transaction=True,
    bulk_formats=("arrow", "parquet"),
    file_bytes=128 << 20,
    parallel_files=1,
)


class DuckDBDialect(Dialect):
    """DuckDB's SQL. MotherDuck's is the same.

    `database` is the one that a connection is at: where a schema is called as the file is, names without the
    database are ambiguous.
    """

    capabilities = _CAPABILITIES

    def __init__(self, database: str = "") -> None:
        self._database = database

    def qualify(self, target: Target) -> str:
        """Return a table's name, each part quoted."""
        return super().qualify(target._replace(database=target.database or self._database))

    def holding(self, iceberg: IcebergType, where: str, options: TypeOptions) -> Holding:
        """Return how values of a type are held: as DuckDB's own, so that nothing is lost.

        Instants in nanoseconds have no type there: `options.nanoseconds` decides. Raises `UnsupportedError`
        for them, `SchemaError` for fields of a struct that differ in case alone; both name `where`.
        """
        _refuse_equal_names(iceberg, where)
        if isinstance(iceberg, TimestamptzNanoType):
            return _nanosecond_instants(where, options)
        return Holding(duckdb_type(iceberg, where), _arrow_type(iceberg))

    def canonical_sql(self, iceberg: IcebergType, holding: Holding, value_sql: str) -> str | None:
        """Return SQL for the canonical text (`canonical.py`); None for what is held with a loss."""
        if holding.lost or (isinstance(iceberg, TimestamptzNanoType) and holding.sql_type == "VARCHAR"):
            return None
        return value_text_sql(iceberg, value_sql)

    def limbs_sql(self, text_sql: str) -> tuple[str, str, str, str]:
        """Return SQL for the MD5 of a text as four integers of 32 bits."""
        return digest_limbs_sql(text_sql)

    def target(self, into: str) -> Target:
        """Return where `into` is: schema.table, in `main` where no schema is given.

        Raises `ConfigurationError`.
        """
        parts = split_name(into)
        if len(parts) > 2:
            raise ConfigurationError(
                f"`into` is {into!r}; a table in DuckDB is named schema.table.",
                remedy='Leave the database out; a part that holds a dot goes in double quotes: "a.b".table.',
            )
        return Target("", *(parts if len(parts) == 2 else ["main", *parts]))

    def state_table(self, target: Target) -> Target:
        """Return `main._dwh_replicas`: one for all schemas, which share a transaction."""
        return Target(target.database, "main", "_dwh_replicas")


def _arrow_type(iceberg: IcebergType) -> pa.DataType:
    field = NestedField(1, "value", iceberg, required=False)
    return schema_to_pyarrow(StructType(field), include_field_ids=False)[0].type


def _nanosecond_instants(where: str, options: TypeOptions) -> Holding:
    if options.nanoseconds == "truncate":
        arrow = pa.timestamp("us", "UTC")
        return Holding(
            "TIMESTAMP WITH TIME ZONE",
            arrow,
            encode=lambda array: pc.floor_temporal(array, unit="microsecond").cast(arrow),
            lost="digits below the microsecond",
        )
    if options.nanoseconds == "text":
        return Holding("VARCHAR", pa.large_string(), encode=lambda array: array.cast(pa.large_string()))
    raise UnsupportedError(
        f"{where} is timestamptz_ns, and DuckDB has no type for instants in nanoseconds.",
        remedy="Set nanoseconds to truncate (microseconds) or text.",
    )


def _refuse_equal_names(iceberg: IcebergType, where: str) -> None:
    """Refuse fields of one struct that differ in case alone: DuckDB folds the letters A to Z, no others."""
    for struct, path in _structs(iceberg, where):
        seen: dict[bytes, str] = {}
        for field in struct.fields:
            first = seen.setdefault(field.name.encode().lower(), field.name)
            if first != field.name:
                raise SchemaError(
                    f"{path}: fields {first!r} and {field.name!r} differ in case alone, "
                    "and DuckDB takes them for one.",
                    remedy="Rename one of them in the table.",
                )


def _structs(nested: IcebergType, path: str) -> Iterator[tuple[StructType, str]]:
    """Yield every struct in a type, with the path that leads there."""
    if isinstance(nested, StructType):
        yield nested, path
    for name, inner in _inner_types(nested):
        yield from _structs(inner, f"{path}.{name}")


def _inner_types(nested: IcebergType) -> Iterable[tuple[str, IcebergType]]:
    if isinstance(nested, StructType):
        return [(field.name, field.field_type) for field in nested.fields]
    if isinstance(nested, ListType):
        return [("element", nested.element_type)]
    if isinstance(nested, MapType):
        return [("key", nested.key_type), ("value", nested.value_type)]
    return []
