"""SQL that a person declares: parsed, limited to columns and plain functions, its names resolved.

Nothing of the text itself reaches DuckDB. sqlglot parses it, every node of the tree has to be of a kind
that is known to be harmless (so no subquery, no table function, nothing that opens a file or loads an
extension), every column has to be one of `source` or `target`, and the SQL is made anew from that tree.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import sqlglot
from pyiceberg.types import IcebergType, StructType
from sqlglot import exp
from sqlglot.errors import SqlglotError

from dwh_assets.errors import ConfigurationError
from dwh_assets.iceberg.faults import first_line

_LONGEST = 10_000
SOURCE, TARGET = "source", "target"


@dataclass(frozen=True)
class Column:
    """A column that may be named: in SQL, and its Iceberg type, None for one that is not of the table."""

    sql: str
    type: IcebergType | None


@dataclass(frozen=True)
class Scope:
    """The columns that may be named in one place, by relation (`source`, `target`) and name."""

    where: str
    relations: Mapping[str, Mapping[str, Column]]

    def error(self, problem: str, remedy: str) -> ConfigurationError:
        """Return the error that says where the problem is."""
        return ConfigurationError(f"{self.where}: {problem}.", remedy=remedy)


@dataclass(frozen=True)
class Expression:
    """A checked expression as DuckDB's SQL, and the columns that it reads by relation."""

    sql: str
    reads: Mapping[str, frozenset[str]]
    # Pairs (source column, target column) that are equal wherever the expression is true.
    equalities: tuple[tuple[str, str], ...] = ()


def compile_expression(text: str, scope: Scope) -> Expression:
    """Check an expression and return it as SQL.

    Raises `ConfigurationError` for what cannot be parsed, is not allowed, or names no column of the scope.
    """
    tree = _parse(text, scope)
    for node in tree.walk():
        _require_allowed(node, text, scope)
    reads: dict[str, set[str]] = {SOURCE: set(), TARGET: set()}
    resolved = tree.transform(lambda node: _resolved(node, scope, reads))
    return Expression(
        resolved.sql(dialect="duckdb", comments=False),
        {relation: frozenset(columns) for relation, columns in reads.items()},
        tuple(_equalities(tree, scope)),
    )


def _parse(text: str, scope: Scope) -> exp.Expr:
    try:
        if len(text) > _LONGEST:
            raise ValueError(f"it is longer than {_LONGEST} characters")
        trees = [tree for tree in sqlglot.parse(text, read="duckdb") if tree is not None]
        if len(trees) != 1:
            raise ValueError("it is not one expression")
    except (SqlglotError, ValueError, RecursionError) as error:
        reason = first_line(error)
        raise scope.error(
            f"{text[:200]!r} cannot be understood: {reason}",
            "Write one SQL expression over columns of source and target.",
        ) from None
    return trees[0]


def _require_allowed(node: exp.Expr, text: str, scope: Scope) -> None:
    remedy = "Use columns, literals, operators and plain functions of values; nothing that reads elsewhere."
    if isinstance(node, exp.Anonymous):
        if str(node.this).lower() not in _FUNCTIONS:
            raise scope.error(f"{text!r} uses {node.this}, which is not allowed", remedy)
    elif type(node) not in _ALLOWED:
        raise scope.error(f"{text!r} uses {_named(node)}, which is not allowed", remedy)
    if isinstance(node, exp.DataType) and (node.this not in _TYPES or node.args.get("nested")):
        raise scope.error(f"{text!r} casts to {node.sql('duckdb')}, which is not allowed", remedy)
    if isinstance(node, exp.In) and set(_given(node)) - {"this", "expressions"}:
        raise scope.error(f"{text!r} uses IN with something else than a list", remedy)


def _given(node: exp.Expr) -> Iterator[str]:
    return (name for name, value in node.args.items() if value)


def _named(node: exp.Expr) -> str:
    return node.sql_name() if isinstance(node, exp.Func) else type(node).__name__.upper()


def _resolved(node: exp.Expr, scope: Scope, reads: Mapping[str, set[str]]) -> exp.Expr:
    if isinstance(node, exp.Dot):
        raise scope.error(f"{node.sql('duckdb')!r} goes too deep", "Name at most three levels of a column.")
    if not isinstance(node, exp.Column):
        return node
    relation, name, path = _column(node, scope)
    reads[relation].add(name)
    column = scope.relations[relation][name]
    sql: exp.Expr = sqlglot.parse_one(column.sql, read="duckdb")
    for field in _fields(column.type, path, f"{relation}.{name}", scope):
        sql = exp.Dot(this=sql, expression=exp.to_identifier(field, quoted=True))
    return sql


def _column(node: exp.Column, scope: Scope) -> tuple[str, str, list[exp.Identifier]]:
    """Return the relation and the column that are meant, and the fields of structs that follow."""
    parts = [part for part in node.parts if isinstance(part, exp.Identifier)]
    if len(parts) != len(node.parts):
        raise scope.error(f"{node.sql('duckdb')!r} is not a column", "Name one column.")
    first, *rest = parts
    relation = first.name.lower()
    if rest and relation in (SOURCE, TARGET):
        if relation not in scope.relations:
            raise scope.error(
                f"there is no row of {relation} here, so {node.sql('duckdb')} has no value",
                f"Use columns of {' and '.join(scope.relations)}.",
            )
        return relation, _found(rest[0], scope, [relation])[1], rest[1:]
    return *_found(first, scope, list(scope.relations)), rest


def _found(identifier: exp.Identifier, scope: Scope, relations: list[str]) -> tuple[str, str]:
    """Find a column by its name, in any letter case unless the name is quoted or several would match."""
    wanted = identifier.name
    for same in (str, str.lower):
        found = [(r, name) for r in relations for name in scope.relations[r] if same(name) == same(wanted)]
        if len(found) == 1:
            return found[0]
        if found:
            meant = " or ".join(f"{relation}.{name}" for relation, name in found)
            raise scope.error(f"column {wanted!r} is ambiguous: {meant}", "Write which of them is meant.")
        if identifier.quoted:
            break
    shown = "; ".join(f"{r} has {', '.join(scope.relations[r])}" for r in relations)
    raise scope.error(f"there is no column {wanted!r} in {' or '.join(relations)}", f"Correct it: {shown}.")


def _fields(column: IcebergType | None, path: list[exp.Identifier], name: str, scope: Scope) -> Iterator[str]:
    for identifier in path:
        fields = {f.name: f.field_type for f in column.fields} if isinstance(column, StructType) else {}
        if identifier.name not in fields:
            has = f"It has {', '.join(fields)}." if fields else "It is not a struct."
            raise scope.error(f"{name} has no field {identifier.name!r}", has)
        column = fields[identifier.name]
        yield identifier.name


def _equalities(tree: exp.Expr, scope: Scope) -> Iterator[tuple[str, str]]:
    """Yield the columns that AND-ed equalities compare."""
    while isinstance(tree, exp.Paren):
        tree = tree.this
    if isinstance(tree, exp.And):
        yield from _equalities(tree.left, scope)
        yield from _equalities(tree.right, scope)
    if isinstance(tree, exp.EQ) and isinstance(tree.left, exp.Column) and isinstance(tree.right, exp.Column):
        sides = {
            relation: name
            for relation, name, path in (_column(tree.left, scope), _column(tree.right, scope))
            if not path
        }
        if sides.keys() == {SOURCE, TARGET}:
            yield sides[SOURCE], sides[TARGET]


def assignable(found: str, wanted: str) -> bool:
    """Tell whether a value of one DuckDB type becomes the other's without being rounded, cut or reread.

    Too large a value still fails, when it is met.
    """
    if found == wanted or found == "NULL":
        return True
    if found in _INTEGERS:
        return wanted in _INTEGERS or wanted in _FLOATS or wanted.startswith("DECIMAL")
    if found.startswith("DECIMAL"):
        return wanted in _FLOATS or (wanted.startswith("DECIMAL") and _scale(found) <= _scale(wanted))
    return (found in _FLOATS and wanted in _FLOATS) or (found == "DATE" and wanted == "TIMESTAMP")


def _scale(decimal: str) -> int:
    return int(decimal.rstrip(")").rpartition(",")[2])


_INTEGERS = {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT"}
_FLOATS = {"FLOAT", "DOUBLE"}

# What an expression may be made of: nothing here sees more than the values that it is given.
_ALLOWED: frozenset[type[exp.Expr]] = frozenset(
    {
        *(exp.Column, exp.Identifier, exp.Dot, exp.Literal, exp.Null, exp.Boolean, exp.Paren, exp.Var),
        *(exp.And, exp.Or, exp.Not, exp.Is, exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE),
        *(exp.NullSafeEQ, exp.NullSafeNEQ, exp.Between, exp.In, exp.Like, exp.ILike, exp.Escape),
        *(exp.Add, exp.Sub, exp.Mul, exp.Div, exp.IntDiv, exp.Mod, exp.Neg, exp.DPipe, exp.Interval),
        *(exp.Case, exp.If, exp.Coalesce, exp.Nullif, exp.Cast, exp.TryCast, exp.DataType),
        *(exp.DataTypeParam, exp.Abs, exp.Sign, exp.Round, exp.Ceil, exp.Floor, exp.Trunc, exp.Sqrt),
        *(exp.Pow, exp.Exp, exp.Ln, exp.IsNan, exp.IsInf, exp.Greatest, exp.Least, exp.Lower, exp.Upper),
        *(exp.Trim, exp.Length, exp.Substring, exp.Left, exp.Right, exp.Concat, exp.ConcatWs),
        *(exp.Replace, exp.Reverse, exp.StartsWith, exp.EndsWith, exp.Contains, exp.StrPosition),
        *(exp.RegexpLike, exp.RegexpReplace, exp.MD5, exp.SHA2, exp.Hex, exp.Year, exp.Month, exp.Day),
        *(exp.Extract, exp.TimestampTrunc, exp.DateTrunc, exp.DateDiff, exp.LastDay, exp.TimeToStr),
        *(exp.CurrentTimestamp, exp.CurrentDate),
    }
)
_FUNCTIONS = frozenset({"now", "isfinite", "epoch_us", "epoch_ms", "sha256", "strip_accents"})
_TYPES = frozenset(
    getattr(exp.DataType.Type, name)
    for name in (
        *("BOOLEAN", "TINYINT", "SMALLINT", "INT", "BIGINT", "FLOAT", "DOUBLE", "DECIMAL", "TEXT", "DATE"),
        *("TIME", "TIMESTAMP", "TIMESTAMPNTZ", "TIMESTAMPTZ", "UUID", "VARBINARY"),
    )
)
