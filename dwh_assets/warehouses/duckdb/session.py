"""One connection to a DuckDB database, as `Session` asks for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from itertools import count
from typing import Any, Literal

import duckdb
import pyarrow as pa

from dwh_assets.errors import ConflictError
from dwh_assets.iceberg.matching.live_rows import local_file
from dwh_assets.iceberg.sql import quote_text
from dwh_assets.warehouses.arriving import Arriving
from dwh_assets.warehouses.base import Target
from dwh_assets.warehouses.dialect import ReplicaColumn
from dwh_assets.warehouses.duckdb.dialect import DuckDBDialect
from dwh_assets.warehouses.duckdb.extensions import load_extensions
from dwh_assets.warehouses.duckdb.faults import is_conflict
from dwh_assets.warehouses.duckdb.load import can_read_files, load_files, rows_in_any_order
from dwh_assets.warehouses.evolution import ColumnStep
from dwh_assets.warehouses.session import UNARRANGED, Layout, Session, encoded
from dwh_assets.warehouses.source import Source

_BATCH_ROWS = 122_880  # a row group
_COLUMNS = """
    SELECT column_name FROM information_schema.columns
    WHERE table_catalog = coalesce(?, current_database())
        AND lower(table_schema) = lower(?) AND lower(table_name) = lower(?)
    ORDER BY ordinal_position
"""
_STATE_TABLES = """
    SELECT table_schema, table_name FROM information_schema.tables
    WHERE table_catalog = current_database() AND table_schema = 'main' AND table_name = '_dwh_replicas'
"""
_TEMPORARY = "temp"
_numbers = count()


class DuckDBSession(Session):
    """A connection to DuckDB: all that a sync does fits into one transaction, tables and columns included."""

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, dialect: type[DuckDBDialect] = DuckDBDialect
    ) -> None:
        self.connection = connection
        self.dialect = dialect(str(self.fetch("SELECT current_database()")[0][0]))

    def execute(self, sql: str, *parameters: Any) -> int:
        """Run one statement with bound parameters; return how many rows it changed, else 0."""
        row = self._run(sql, *parameters).fetchone()
        return int(row[0]) if row and isinstance(row[0], int) else 0

    def fetch(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Run a query that returns few rows."""
        return self._run(sql, *parameters).fetchall()

    def stream(self, sql: str, *parameters: Any) -> pa.RecordBatchReader:
        """Run a query and stream its rows in Arrow form, in batches of a row group."""
        # An instant has no zone of its own: without this, Arrow would show the zone of the machine.
        self._run("SET SESSION TimeZone = 'UTC'")
        return self._run(sql, *parameters).to_arrow_reader(_BATCH_ROWS)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit what the block did, or undo it when the block raises."""
        self.connection.begin()
        try:
            yield
            self.connection.commit()
        except BaseException as error:
            # What went wrong first is what matters; a connection beyond rollback has lost its changes.
            with suppress(duckdb.Error):
                self.connection.rollback()
            if is_conflict(error):
                raise _conflict() from error
            raise

    def describe(self, target: Target) -> list[str] | None:
        """Return the names of the columns of a table or view, in order; None when there is none."""
        # DuckDB's own views of the catalog take many times as long, but know views that cannot be read here.
        with suppress(duckdb.Error):
            found = self._run(f"SELECT * FROM {self.dialect.qualify(target)} LIMIT 0").description
            return [column[0] for column in found]
        names = self.fetch(_COLUMNS, target.database or None, target.schema, target.name)
        return [name for (name,) in names] or None

    def ensure_schema(self, target: Target) -> None:
        """Make the schema that the target is in, unless it is there."""
        schema = target._replace(name="")
        self._run(f"CREATE SCHEMA IF NOT EXISTS {self.dialect.qualify(schema)}")

    def create_table(
        self,
        target: Target,
        columns: Sequence[ReplicaColumn],
        layout: Layout,
        *,
        existing: Literal["refuse", "replace", "keep"] = "refuse",
    ) -> None:
        """Make an empty table, with descriptions of its columns and its indexes."""
        if existing == "keep" and self.describe(target) is not None:
            return
        table_sql = self.dialect.qualify(target)
        if existing == "replace":
            self.drop_table(target)
        declared_sql = ", ".join(
            f"{self.dialect.quote(column.name)} {column.holding.sql_type}"
            + (" NOT NULL" if column.field.required else "")
            for column in columns
        )
        kind_sql = "TEMP TABLE" if target.database == _TEMPORARY else "TABLE"
        # Another sync may have made it since.
        unless_sql = "IF NOT EXISTS " if existing == "keep" else ""
        self._run(f"CREATE {kind_sql} {unless_sql}{table_sql} ({declared_sql})")
        for column in columns:
            if column.field.doc:
                self._comment(table_sql, column.name, column.field.doc)
        for number, index in enumerate(layout.indexes):
            self._index(target, f"{target.name}_{number}", index)

    def alter_table(self, target: Target, step: ColumnStep) -> None:
        """Change one column."""
        name_sql = self.dialect.quote(step.name)
        change_sql = {
            "drop": f"DROP COLUMN IF EXISTS {name_sql}",
            "relax": f"ALTER COLUMN {name_sql} DROP NOT NULL",
        }.get(step.kind)
        if change_sql is None:
            assert step.column is not None  # noqa: S101 - all but these two have one
            type_sql = step.column.holding.sql_type
            change_sql = {
                "add": f"ADD COLUMN IF NOT EXISTS {name_sql} {type_sql}",
                "rename": f"RENAME COLUMN {name_sql} TO {self.dialect.quote(step.column.name)}",
                "widen": f"ALTER COLUMN {name_sql} SET DATA TYPE {type_sql}",
            }[step.kind]
        self._run(f"ALTER TABLE {self.dialect.qualify(target)} {change_sql}")

    def insert(self, target: Target, columns: Sequence[ReplicaColumn], rows: pa.RecordBatchReader) -> None:
        """Add rows, by name."""
        self._insert_stream(target, columns, rows, "")

    def load(
        self,
        target: Target,
        columns: Sequence[ReplicaColumn],
        source: Source,
        arriving: Arriving,
        layout: Layout = UNARRANGED,
    ) -> None:
        """Add all rows of a table at a snapshot, read by DuckDB itself where it can open the files.

        With `cluster_by` the rows of each gigabyte of files, or of each stream, are sorted by these columns,
        so that DuckDB skips row groups that a filter leaves out.
        """
        by_sql = ", ".join(self.dialect.quote(self.dialect.name(name)) for name in layout.cluster_by)
        order_sql = f" ORDER BY {by_sql}" if by_sql else ""
        with nullcontext() if by_sql else rows_in_any_order(self.connection):
            if can_read_files(self.connection, columns):
                insert = partial(self._insert_query, target, columns, order_sql)
                load_files(self.connection, source, insert, arriving)
                return
            for reader in source.streams():
                rows = arriving.counted(encoded(reader, columns))
                with arriving.failures():
                    self._insert_stream(target, columns, rows, order_sql)

    def _insert_stream(
        self, target: Target, columns: Sequence[ReplicaColumn], rows: pa.RecordBatchReader, order_sql: str
    ) -> None:
        view = f"_dwh_arriving_{next(_numbers)}"
        names_sql = ", ".join(self.dialect.quote(column.name) for column in columns)
        self.connection.register(view, rows)
        try:
            self._run(
                f"INSERT INTO {self.dialect.qualify(target)} ({names_sql}) SELECT {names_sql}"
                f" FROM {self.dialect.qualify(Target(_TEMPORARY, 'main', view))}{order_sql}"
            )
        finally:
            self.connection.unregister(view)

    def _insert_query(
        self,
        target: Target,
        columns: Sequence[ReplicaColumn],
        order_sql: str,
        query_sql: str,
        parameters: tuple[Any, ...],
    ) -> int:
        names_sql = ", ".join(self.dialect.quote(column.name) for column in columns)
        found_sql = ", ".join(self.dialect.quote(column.field.name) for column in columns)
        return self.execute(
            f"INSERT INTO {self.dialect.qualify(target)} ({names_sql}) SELECT {found_sql}"
            f" FROM ({query_sql}) AS live{order_sql}",
            *parameters,
        )

    def state_tables(self) -> list[Target]:
        """Return the table of records, if there is one."""
        return [Target("", schema, name) for schema, name in self.fetch(_STATE_TABLES)]

    def staging(self, target: Target, label: str) -> Target:
        """Return a temporary table, which is this connection's own."""
        return Target(_TEMPORARY, "main", f"_dwh_staging_{label}")

    def supplant(self, target: Target, staging: Target) -> None:
        """Never needed: a transaction holds all of a reload."""
        raise NotImplementedError

    def require_files(self) -> None:
        """Load DuckDB's extension for Iceberg."""
        load_extensions(self.connection, "avro", "iceberg")

    def show_files(self, target: Target, metadata_location: str, snapshot_id: int | None) -> None:
        """Make a view over the files; it is read with the extension iceberg loaded."""
        file_sql = quote_text(local_file(metadata_location) or metadata_location)
        snapshot_sql = "" if snapshot_id is None else f", snapshot_from_id = {snapshot_id:d}"
        if self.describe(target) is not None:
            self.drop_table(target)
        self._run(
            f"CREATE VIEW {self.dialect.qualify(target)} AS"
            f" SELECT * FROM iceberg_scan({file_sql}{snapshot_sql})"
        )

    def drop_table(self, target: Target) -> None:
        """Drop a table or view, unless there is none."""
        try:
            self._run(f"DROP TABLE IF EXISTS {self.dialect.qualify(target)}")
        except duckdb.CatalogException:
            self._run(f"DROP VIEW IF EXISTS {self.dialect.qualify(target)}")

    def _index(self, target: Target, name: str, columns: Sequence[str]) -> None:
        columns_sql = ", ".join(self.dialect.quote(self.dialect.name(column)) for column in columns)
        self._run(
            f"CREATE INDEX {self.dialect.quote(name)} ON {self.dialect.qualify(target)} ({columns_sql})"
        )

    def _comment(self, table_sql: str, column: str, text: str) -> None:
        self._run(f"COMMENT ON COLUMN {table_sql}.{self.dialect.quote(column)} IS {quote_text(text)}")

    def _run(self, sql: str, *parameters: Any) -> duckdb.DuckDBPyConnection:
        self.statements += 1
        try:
            return self.connection.execute(sql, parameters)
        except duckdb.TransactionException as error:
            if is_conflict(error):
                raise _conflict() from error
            raise


def _conflict() -> ConflictError:
    return ConflictError("Another sync in this process changed the same tables.", remedy="Repeat the sync.")
