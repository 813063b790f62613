"""Audits in SQL: a SELECT whose rows are failures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import duckdb
import pyarrow as pa
import sqlglot
from pyiceberg.io.pyarrow import schema_to_pyarrow
from pyiceberg.schema import Schema
from sqlglot import exp

from dwh_assets.errors import ConfigurationError
from dwh_assets.iceberg import compute
from dwh_assets.iceberg.faults import first_line
from dwh_assets.iceberg.sql import quote_identifier
from dwh_assets.versioning.audits.candidate import SAMPLE_ROWS, AuditResult, Candidate
from dwh_assets.versioning.audits.declarations import Sql

_TABLES = ("branch", "main", "changed")


def require_sound(audit: Sql, schema: Schema, table: str) -> None:
    """Refuse SQL that DuckDB does not understand, over tables with these columns, or that is no SELECT.

    Raises `ConfigurationError` that says what DuckDB says.
    """
    empty = schema_to_pyarrow(schema, include_field_ids=False).empty_table()
    with compute.isolated(reads_files=False) as connection:
        for name in _TABLES:
            connection.register(name, empty)
        try:
            query_sql = _select(connection, audit, table)
            connection.execute(f"DESCRIBE {query_sql}")
        except duckdb.Error as error:
            raise _mistaken(audit, table, first_line(error)) from None


def _select(connection: duckdb.DuckDBPyConnection, audit: Sql, table: str) -> str:
    statements = connection.extract_statements(audit.query)
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise _mistaken(audit, table, "it has to be one SELECT")
    return statements[0].query.strip().rstrip(";")


def _mistaken(audit: Sql, table: str, what: str) -> ConfigurationError:
    return ConfigurationError(
        f"{table}: audit {audit.label}: {what}.",
        remedy="Correct its query; it reads the tables branch, main and changed, in DuckDB's SQL.",
    )


def result_of(audit: Sql, candidate: Candidate) -> AuditResult:
    """Return the rows that the query finds.

    What it reads is put into tables first, which spill to disk: a query may read them as often as it likes.
    """
    streams: Mapping[str, Callable[[], pa.RecordBatchReader]] = {
        "branch": candidate.new,
        "main": candidate.old,
        "changed": candidate.changed,
    }
    with compute.isolated(reads_files=False) as connection:
        query_sql = _select(connection, audit, candidate.name)
        for name in _read_by(query_sql):
            connection.register("_arriving", streams[name]())
            connection.execute(f"CREATE TABLE {quote_identifier(name)} AS SELECT * FROM _arriving")
        try:
            connection.execute(f"CREATE TABLE _failing AS {query_sql}")
        except duckdb.Error as error:
            raise _mistaken(audit, candidate.name, first_line(error)) from None
        failing = (connection.execute("SELECT count(*) FROM _failing").fetchone() or (0,))[0]
        sample = connection.execute("SELECT * FROM _failing LIMIT ?", [SAMPLE_ROWS]).to_arrow_table()
    detail = f"{audit.described} {failing:,} rows found."
    return AuditResult.of(audit.label, failing, sample if failing else pa.table({}), detail)


def _read_by(query: str) -> Iterable[str]:
    """Return which of the tables a query names; all of them where it cannot be told."""
    try:
        parsed = sqlglot.parse_one(query, dialect="duckdb")
    except sqlglot.errors.SqlglotError:
        return _TABLES
    named = {table.name.lower() for table in parsed.find_all(exp.Table)}
    return [name for name in _TABLES if name in named]
