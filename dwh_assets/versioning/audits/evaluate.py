"""Evaluate audits on a version that is to be published: DuckDB over streams of Arrow, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import singledispatch

import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.schema import Schema

from dwh_assets.iceberg import compute
from dwh_assets.iceberg.row_counts import total_rows
from dwh_assets.iceberg.scan import scan
from dwh_assets.iceberg.sql import quote_identifier
from dwh_assets.versioning.audits import foreign_keys, free_sql
from dwh_assets.versioning.audits.candidate import (
    SAMPLE_ROWS,
    AuditResult,
    Candidate,
    in_column_type,
    require_columns,
)
from dwh_assets.versioning.audits.declarations import (
    AcceptedValues,
    Audit,
    ForeignKey,
    NotNull,
    Range,
    RowCountChange,
    Sql,
    Unique,
)

_NOTHING = pa.table({})


def evaluate(audits: Iterable[Audit], candidate: Candidate) -> tuple[AuditResult, ...]:
    """Return what each audit finds."""
    roughly = replace(candidate, roughly=True)
    return tuple(_judged(audit, candidate, roughly) for audit in audits)


def _judged(audit: Audit, candidate: Candidate, roughly: Candidate) -> AuditResult:
    """Find out which rows changed only where it matters: if more rows pass than these, these do."""
    if not isinstance(audit, Sql | RowCountChange):
        found = result_of(audit, roughly)
        if found.passed:
            return found
    return result_of(audit, candidate)


def require_sound(audits: Iterable[Audit], schema: Schema, catalog: Catalog, table: str) -> None:
    """Refuse audits that cannot be evaluated on a table with these columns.

    Raises `ConfigurationError` for an unknown column, a value of another type, or SQL that DuckDB does not
    understand; `NotFoundError` for an unknown table that is referred to.
    """
    for audit in audits:
        if isinstance(audit, NotNull | Unique | ForeignKey):
            require_columns(schema, audit.columns, table, audit.label)
        if isinstance(audit, AcceptedValues | Range):
            require_columns(schema, [audit.column], table, audit.label)
            in_column_type(_values(audit), schema, audit.column, table, audit.label)
        if isinstance(audit, ForeignKey):
            foreign_keys.require_sound(audit, schema, catalog, table)
        if isinstance(audit, Sql):
            free_sql.require_sound(audit, schema, table)


def _values(audit: AcceptedValues | Range) -> list[object]:
    if isinstance(audit, AcceptedValues):
        return list(audit.values)
    return [bound for bound in (audit.min, audit.max) if bound is not None]


@singledispatch
def result_of(audit: Audit, candidate: Candidate) -> AuditResult:
    """Return what one audit finds."""
    raise NotImplementedError(type(audit).__name__)


@result_of.register
def _(audit: NotNull, candidate: Candidate) -> AuditResult:
    failing_sql = " OR ".join(f"{quote_identifier(column)} IS NULL" for column in audit.columns)
    return _of_rows(audit, candidate, audit.columns, failing_sql)


@result_of.register
def _(audit: AcceptedValues, candidate: Candidate) -> AuditResult:
    accepted = in_column_type(audit.values, candidate.schema, audit.column, candidate.name, audit.label)
    column_sql = quote_identifier(audit.column)
    failing_sql = f"{column_sql} NOT IN (SELECT accepted FROM _declared)"
    return _of_rows(audit, candidate, [audit.column], failing_sql, {"accepted": accepted})


@result_of.register
def _(audit: Range, candidate: Candidate) -> AuditResult:
    bounds = {
        name: in_column_type([value], candidate.schema, audit.column, candidate.name, audit.label)
        for name, value in (("least", audit.min), ("greatest", audit.max))
        if value is not None
    }
    column_sql = quote_identifier(audit.column)
    outside_sql = [
        f"{column_sql} {comparison_sql} (SELECT {quote_identifier(name)} FROM _declared)"
        for name, comparison_sql in (("least", "<"), ("greatest", ">"))
        if name in bounds
    ]
    # DuckDB takes NaN for the greatest number, and it is none.
    outside_sql += [f"isnan({column_sql})"] if _is_float(candidate.schema, audit.column) else []
    return _of_rows(audit, candidate, [audit.column], " OR ".join(outside_sql), bounds)


def _is_float(schema: Schema, column: str) -> bool:
    return str(schema.find_type(column)) in ("float", "double")


def _of_rows(
    audit: Audit,
    candidate: Candidate,
    columns: Sequence[str],
    failing_sql: str,
    declared: Mapping[str, pa.Array] | None = None,
) -> AuditResult:
    """Judge each changed row by itself; only the columns that this needs are read, all for a sample."""
    count_sql = f"SELECT count(*) FROM _rows WHERE {failing_sql}"
    sample_sql = f"SELECT * FROM _rows WHERE {failing_sql} LIMIT ?"
    with compute.isolated() as connection:
        connection.register("_declared", pa.table(dict(declared or {"none": [None]})))
        connection.register("_rows", candidate.changed(columns))
        failing = (connection.execute(count_sql).fetchone() or (0,))[0]
        sample = _NOTHING
        if failing:
            connection.register("_rows", candidate.changed())
            sample = connection.execute(sample_sql, [SAMPLE_ROWS]).to_arrow_table()
    return AuditResult.of(audit.label, failing, sample, f"{audit.described} {failing:,} changed rows fail.")


@result_of.register
def _(audit: Unique, candidate: Candidate) -> AuditResult:
    names_sql = [quote_identifier(column) for column in audit.columns]
    keys_sql = ", ".join(names_sql)
    complete_sql = " AND ".join(f"{name_sql} IS NOT NULL" for name_sql in names_sql)
    with compute.isolated() as connection:
        connection.register("_rows", candidate.changed(audit.columns))
        connection.execute(
            f"CREATE TABLE _keys AS SELECT DISTINCT {keys_sql} FROM _rows WHERE {complete_sql}"
        )
        connection.register("_rows", candidate.new(audit.columns))
        connection.execute(
            f"CREATE TABLE _repeated AS SELECT {keys_sql}, count(*) AS _times"
            f" FROM _rows SEMI JOIN _keys USING ({keys_sql}) GROUP BY ALL HAVING count(*) > 1"
        )
        counted = connection.execute("SELECT count(*), coalesce(sum(_times), 0)::BIGINT FROM _repeated")
        keys, failing = counted.fetchone() or (0, 0)
        sample = connection.execute(
            f"SELECT * FROM _repeated ORDER BY _times DESC, {keys_sql} LIMIT ?", [SAMPLE_ROWS]
        ).to_arrow_table()
    detail = f"{audit.described} {failing:,} rows share {keys:,} keys."
    return AuditResult.of(audit.label, failing, sample if failing else _NOTHING, detail)


@result_of.register
def _(audit: RowCountChange, candidate: Candidate) -> AuditResult:
    before, after = _rows_at(candidate, candidate.before), _rows_at(candidate, candidate.after)
    counted = f"{before:,} rows before, {after:,} now"
    if before == 0:
        return AuditResult.of(
            audit.label, 0, _NOTHING, f"{audit.described} {counted}: there is no percentage."
        )
    percent = (after - before) / before * 100
    low = audit.min_percent is not None and percent < audit.min_percent
    high = audit.max_percent is not None and percent > audit.max_percent
    failing = abs(after - before) if low or high else 0
    return AuditResult(
        audit.label, not (low or high), failing, _NOTHING, f"{audit.described} {counted}: {percent:+.2f}%."
    )


def _rows_at(candidate: Candidate, snapshot_id: int | None) -> int:
    if snapshot_id is None:
        return 0
    known = total_rows(candidate.table, candidate.table.snapshot_by_id(snapshot_id))
    return known if known is not None else scan(candidate.table, snapshot_id=snapshot_id).count()


@result_of.register
def _(audit: ForeignKey, candidate: Candidate) -> AuditResult:
    return foreign_keys.result_of(audit, candidate)


@result_of.register
def _(audit: Sql, candidate: Candidate) -> AuditResult:
    return free_sql.result_of(audit, candidate)
