"""The clauses of a merge, checked against the columns of table and data before anything is changed."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import duckdb
import pyarrow as pa
from pyiceberg.schema import Schema

from dwh_assets.config import Merge as MergeDeclared
from dwh_assets.config import MergeClause, TableLayout
from dwh_assets.errors import ConfigurationError
from dwh_assets.iceberg.arrow.types import arrow_schema, writable_type
from dwh_assets.iceberg.faults import first_line
from dwh_assets.iceberg.matching.match import column_sql, differ_sql
from dwh_assets.iceberg.matching.source_rows import internal_name, internal_names
from dwh_assets.iceberg.modes.merge_conditions import (
    Column,
    Expression,
    Scope,
    assignable,
    compile_expression,
)
from dwh_assets.iceberg.sql import qualified


@dataclass(frozen=True)
class Clause:
    """One clause as SQL; `values_sql` says what each column of the table becomes."""

    number: int
    when: str
    then: str
    condition_sql: str = "true"
    values_sql: Mapping[str, str] = field(default_factory=dict)
    differs_sql: str = "true"
    # Columns of the table that have to be read to decide, and whether others keep their value.
    reads: frozenset[str] = frozenset()
    keeps_values: bool = False

    @property
    def number_sql(self) -> str:
        """The clause's number."""
        return str(self.number)

    def columns_sql(self, columns: Sequence[str]) -> str:
        """Return what to select for some columns."""
        return ", ".join(self.values_sql[column] for column in columns)


@dataclass(frozen=True)
class Clauses:
    """A merge whose every name and type was checked."""

    clauses: tuple[Clause, ...]
    on: Expression | None

    def of(self, when: str) -> list[Clause]:
        """Return the clauses for one kind of rows, in order."""
        return [clause for clause in self.clauses if clause.when == when]

    def choice_sql(self, when: str) -> str:
        """Return the number of the first clause that applies, or -1."""
        cases_sql = "".join(
            f" WHEN {clause.condition_sql} THEN {clause.number_sql}" for clause in self.of(when)
        )
        return f"CASE{cases_sql} ELSE -1 END" if cases_sql else "-1"

    def differs_sql(self, when: str) -> str:
        """Return whether the clause that applies changes the row."""
        cases_sql = "".join(
            f" WHEN {clause.condition_sql} THEN ({clause.differs_sql})" for clause in self.of(when)
        )
        return f"CASE{cases_sql} ELSE false END" if cases_sql else "false"


def without_condition_columns(arrow: pa.Schema, layout: TableLayout, table: str) -> pa.Schema:
    """Return the data's columns that are written to the table.

    Raises `ConfigurationError` when one that is not to be written is missing in the data.
    """
    unwritten = layout.merge.not_written if layout.merge else []
    for name in unwritten:
        if name not in arrow.names:
            raise ConfigurationError(
                f"{table}: merge needs column {name!r} (not_written), which is not in the data.",
                remedy=f"Correct it; the data have {', '.join(arrow.names)}.",
            )
    return pa.schema([column for column in arrow if column.name not in unwritten])


def with_condition_columns(schema: pa.Schema, arrow: pa.Schema, layout: TableLayout) -> pa.Schema:
    """Return the table's columns and, after them, those of the data that only conditions use."""
    unwritten = layout.merge.not_written if layout.merge else []
    extra = [arrow.field(name) for name in unwritten]
    return pa.schema([*schema, *(pa.field(f.name, writable_type(f.type, f.name)) for f in extra)])


def compile_clauses(layout: TableLayout, schema: Schema, arrow: pa.Schema, table: str) -> Clauses:
    """Check a declared merge against the table's columns after the write, and the data's.

    Raises `ConfigurationError` that names table, clause and column, before anything is changed.
    """
    if layout.merge is None:
        return Clauses((), None)
    return _Compiler(layout, layout.merge, schema, arrow, table).run()


class _Compiler:
    """Resolves the names of one merge and lets DuckDB bind its types on empty relations."""

    def __init__(
        self, layout: TableLayout, merge: MergeDeclared, schema: Schema, arrow: pa.Schema, table: str
    ) -> None:
        self._layout = layout
        self._merge = merge
        self._schema = schema
        self._table = table
        target = arrow_schema(schema)
        source = with_condition_columns(target, arrow, layout)
        columns = {field.name: field for field in schema.fields}
        self._target = {name: Column(column_sql(f, "target"), f.field_type) for name, f in columns.items()}
        self._source = {
            name: Column(column_sql(columns[name], "source"), columns[name].field_type)
            if name in columns
            else Column(qualified("source", internal), None)
            for name, internal in internal_names(source).items()
            if name in arrow.names
        }
        self._binder = duckdb.connect(config={"enable_external_access": "false"})
        for name, relation in (("source", source), ("target", target)):
            empty = relation.empty_table().rename_columns(list(internal_names(relation).values()))
            self._binder.register(name, empty)

    def run(self) -> Clauses:
        with self._binder:
            declared = self._merge
            on = self._condition(declared.on, self._scope("on", "matched")) if declared.on else None
            clauses = [self._clause(number, clause) for number, clause in enumerate(declared.clauses)]
            return Clauses(tuple(clauses), on)

    def _scope(self, where: str, when: str) -> Scope:
        relations = {
            "matched": {"source": self._source, "target": self._target},
            "not_matched": {"source": self._source},
            "not_matched_by_source": {"target": self._target},
        }
        return Scope(f"{self._table}: merge {where}", relations[when])

    def _clause(self, number: int, declared: MergeClause) -> Clause:
        name = f"clause {number + 1} ({declared.when}, {declared.then})"
        clause = Clause(number, declared.when, declared.then)
        if declared.only_if is not None:
            condition = self._condition(declared.only_if, self._scope(f"{name}, if", declared.when))
            clause = replace(clause, condition_sql=f"({condition.sql})", reads=condition.reads["target"])
        if declared.then == "delete":
            return clause
        if declared.values is None:
            return self._all_columns(clause)
        return self._set_columns(clause, declared.values, name)

    def _all_columns(self, clause: Clause) -> Clause:
        names = [field.name for field in self._schema.fields]
        values_sql = {f.name: qualified("source", internal_name(f.field_id)) for f in self._schema.fields}
        if clause.then == "insert" or not self._layout.detect_unchanged:
            return replace(clause, values_sql=values_sql)
        differs_sql = differ_sql(self._schema, names)
        return replace(
            clause, values_sql=values_sql, differs_sql=differs_sql, reads=clause.reads | frozenset(names)
        )

    def _set_columns(self, clause: Clause, values: Mapping[str, str], name: str) -> Clause:
        given: dict[str, Expression] = {}
        for column, text in values.items():
            scope = self._scope(f"{name}, set {column!r}", clause.when)
            if column not in self._target:
                raise scope.error(f"the table has no column {column!r}", f"It has {', '.join(self._target)}.")
            given[column] = self._value(text, scope, column)
        inserts = clause.then == "insert"
        if inserts:
            self._require_all_required(values, self._scope(name, clause.when))
        values_sql = {
            f.name: given[f.name].sql
            if f.name in given
            else "NULL"
            if inserts
            else qualified("target", internal_name(f.field_id))
            for f in self._schema.fields
        }
        if inserts or not self._layout.detect_unchanged:
            return replace(clause, values_sql=values_sql, keeps_values=not inserts)
        differs_sql = " OR ".join(
            f"{self._target[column].sql} IS DISTINCT FROM {value.sql}" for column, value in given.items()
        )
        reads = clause.reads.union(given, *(value.reads["target"] for value in given.values()))
        return replace(clause, values_sql=values_sql, differs_sql=differs_sql, reads=reads, keeps_values=True)

    def _require_all_required(self, values: Collection[str], scope: Scope) -> None:
        missing = [f.name for f in self._schema.fields if f.required and f.name not in values]
        if missing:
            raise scope.error(
                f"column {missing[0]!r} is required, but set does not name it", "Set every required column."
            )

    def _condition(self, text: str, scope: Scope) -> Expression:
        expression = compile_expression(text, scope)
        found = self._type(expression.sql, text, scope)
        if found != "BOOLEAN":
            raise scope.error(f"{text!r} is {found}, not a condition", "Compare it with something.")
        return expression

    def _value(self, text: str, scope: Scope, column: str) -> Expression:
        """Return the value in the column's type; the cast fails where it would not fit."""
        expression = compile_expression(text, scope)
        wanted_sql = self._type(self._target[column].sql, column, scope)
        # DuckDB calls the type of a bare NULL INTEGER.
        found = "NULL" if expression.sql == "NULL" else self._type(expression.sql, text, scope)
        if not assignable(found, wanted_sql):
            raise scope.error(
                f"{text!r} is {found}, but column {column!r} is {wanted_sql}",
                f"Convert it, for example with CAST(... AS {wanted_sql}).",
            )
        cast_sql = f"CAST({expression.sql} AS {wanted_sql})" if found != wanted_sql else expression.sql
        return replace(expression, sql=cast_sql)

    def _type(self, expression_sql: str, text: str, scope: Scope) -> str:
        try:
            types_sql = f"DESCRIBE SELECT {expression_sql} FROM source, target"
            return str((self._binder.execute(types_sql).fetchone() or ("", ""))[1])
        except duckdb.Error as error:
            raise scope.error(
                f"{text!r} cannot be evaluated: {first_line(error)}", "Correct the expression."
            ) from None
