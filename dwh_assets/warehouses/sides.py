"""The two sides of a comparison, a table's live rows and their replica, asked by the same kind of query."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
from pyiceberg.schema import Schema
from pyiceberg.types import NestedField

from dwh_assets.errors import UnsupportedError
from dwh_assets.iceberg.arrow.types import arrow_schema
from dwh_assets.iceberg.compute import connect
from dwh_assets.iceberg.diff.columns import internal_columns
from dwh_assets.iceberg.matching.live_rows import LiveRows, live_rows
from dwh_assets.iceberg.matching.source_rows import internal_name
from dwh_assets.iceberg.planning import planned_files
from dwh_assets.iceberg.sql import quote_identifier
from dwh_assets.warehouses.base import Target
from dwh_assets.warehouses.dialect import Dialect, Holding, ReplicaColumn, TypeOptions
from dwh_assets.warehouses.duckdb.dialect import DuckDBDialect
from dwh_assets.warehouses.session import Session
from dwh_assets.warehouses.source import Source

_DUCKDB = DuckDBDialect()


@dataclass(frozen=True)
class ComparedColumn:
    """A column that both sides have: the table's field, and how the replica holds it."""

    field: NestedField
    held: ReplicaColumn

    @property
    def name(self) -> str:
        """Its name in the table."""
        return self.field.name


class Side(ABC):
    """One side, with its SQL."""

    @property
    @abstractmethod
    def dialect(self) -> Dialect:
        """Whose SQL this side speaks."""

    @abstractmethod
    def value_sql(self, column: ComparedColumn) -> str:
        """Return SQL for a column's value."""

    @abstractmethod
    def text_sql(self, column: ComparedColumn, value_sql: str | None = None) -> str | None:
        """Return SQL for the canonical text of a column's value, or of another value of its type."""

    @abstractmethod
    def fetch(
        self, columns: Sequence[ComparedColumn], inner_sql: str, outer_sql: str, tail_sql: str = ""
    ) -> list[tuple[Any, ...]]:
        """Select `inner_sql`, which names these columns alone, from the rows, and `outer_sql` from that."""


@dataclass(frozen=True)
class ReplicaSide(Side):
    """The rows of a replica, where they are; `current_sql` is true of those that the table has now."""

    session: Session
    target: Target
    current_sql: str = "TRUE"

    @property
    def dialect(self) -> Dialect:
        """Whose SQL this side speaks."""
        return self.session.dialect

    def value_sql(self, column: ComparedColumn) -> str:
        """Return SQL for a column's value."""
        return self.dialect.quote(column.held.name)

    def text_sql(self, column: ComparedColumn, value_sql: str | None = None) -> str | None:
        """Return SQL for the canonical text of a column's value, or of another value of its type."""
        held = column.held
        return self.dialect.canonical_sql(
            held.field.field_type, held.holding, value_sql or self.value_sql(column)
        )

    def rows(self) -> int:
        """Return how many rows it has, counted."""
        return int(self.session.fetch(f"SELECT COUNT(*) FROM {self.rows_sql}")[0][0])

    @property
    def rows_sql(self) -> str:
        """What follows upon `FROM`."""
        return f"{self.dialect.qualify(self.target)} WHERE {self.current_sql}"

    def fetch(
        self, columns: Sequence[ComparedColumn], inner_sql: str, outer_sql: str, tail_sql: str = ""
    ) -> list[tuple[Any, ...]]:
        """Select from the replica."""
        return self.session.fetch(
            f"SELECT {outer_sql} FROM (SELECT {inner_sql} FROM {self.rows_sql}) AS compared {tail_sql}"
        )


@dataclass(frozen=True)
class LakeSide(Side):
    """The live rows of a table at a snapshot: DuckDB reads some columns of its files, in bounded memory."""

    source: Source

    @property
    def dialect(self) -> Dialect:
        """Whose SQL this side speaks."""
        return _DUCKDB

    def value_sql(self, column: ComparedColumn) -> str:
        """Return SQL for a column's value."""
        return quote_identifier(internal_name(column.field.field_id))

    def text_sql(self, column: ComparedColumn, value_sql: str | None = None) -> str | None:
        """Return SQL for the canonical text of a column's value, or of another value of its type."""
        iceberg = column.field.field_type
        return self.dialect.canonical_sql(iceberg, _native(column), value_sql or self.value_sql(column))

    def fetch(
        self, columns: Sequence[ComparedColumn], inner_sql: str, outer_sql: str, tail_sql: str = ""
    ) -> list[tuple[Any, ...]]:
        """Select from the files."""
        with connect() as connection:
            live = self.rows(connection, columns)
            rows_sql = f"SELECT {inner_sql} FROM ({live.sql}) AS live"
            return connection.execute(
                f"SELECT {outer_sql} FROM ({rows_sql}) AS compared {tail_sql}", live.parameters
            ).fetchall()

    def rows(self, connection: duckdb.DuckDBPyConnection, columns: Sequence[ComparedColumn]) -> LiveRows:
        """Return a query over the live rows; it reads these columns, or one where none is asked for."""
        chosen = [column.field for column in columns] or list(self.source.schema.fields[:1])
        schema = internal_columns(Schema(*chosen))
        tasks = planned_files(self.source.scan)
        if tasks:
            return live_rows(connection, self.source.table, tasks, schema)
        name = "no_rows"
        connection.register(name, arrow_schema(schema).empty_table())
        return LiveRows(f"SELECT * FROM {quote_identifier(name)}", ())


def alike(replica: ReplicaSide, columns: Sequence[ComparedColumn]) -> bool:
    """Tell whether this process's DuckDB computes both sides, and has the same types on both."""
    return replica.dialect.capabilities.warehouse == "duckdb" and all(
        column.field.field_type.is_primitive
        and column.held.holding.encode is None
        and column.held.holding.sql_type == _native(column).sql_type
        for column in columns
    )


def _native(column: ComparedColumn) -> Holding:
    return _DUCKDB.holding(column.field.field_type, column.name, TypeOptions())


def compared_columns(
    columns: Sequence[ReplicaColumn], schema: Schema
) -> tuple[list[ComparedColumn], dict[str, str]]:
    """Pair a replica's columns with the table's by field id; and say of the others why they are left out."""
    held = {column.field.field_id: column for column in columns}
    known = {field.field_id for field in schema.fields}
    pairs = [ComparedColumn(field, held[field.field_id]) for field in schema.fields if field.field_id in held]
    left_out = {
        **{
            field.name: "the replica has no such column"
            for field in schema.fields
            if field.field_id not in held
        },
        **{one.field.name: "the table has no such column" for key, one in held.items() if key not in known},
    }
    readable = []
    for pair in pairs:
        try:
            _native(pair)
            readable.append(pair)
        except UnsupportedError as error:
            left_out[pair.name] = error.message
    return readable, left_out
