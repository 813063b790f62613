"""Filters: understand them against a table's columns, and evaluate them on rows as SQL does."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.expressions import (
    AlwaysTrue,
    And,
    BooleanExpression,
    NotEqualTo,
    NotIn,
    NotNaN,
    NotNull,
    NotStartsWith,
    Or,
)
from pyiceberg.expressions.parser import parse
from pyiceberg.expressions.visitors import bind, extract_field_ids, rewrite_not
from pyiceberg.io.pyarrow import expression_to_pyarrow
from pyiceberg.schema import Schema
from pyparsing import ParseException

from dwh_assets.errors import ConfigurationError
from dwh_assets.iceberg.arrow.types import arrow_schema


def filter_expression(schema: Schema, where: str | BooleanExpression | None, table: str) -> BooleanExpression:
    """Understand and check a filter against the table's columns. None means every row.

    As in SQL, a comparison with a null is never true, whether the filter says `=` or `!=`.
    Raises `ConfigurationError`: a filter that cannot be built is never taken for "no filter".
    """
    if where is None:
        return AlwaysTrue()
    try:
        expression = _without_nulls(rewrite_not(parse(where) if isinstance(where, str) else where))
        arrow_schema(schema).empty_table().filter(matches(schema, expression))
    except (ValueError, TypeError, ParseException, pa.ArrowNotImplementedError) as error:
        raise ConfigurationError(
            f"{table}: the filter {str(where)!r} cannot be understood: {error}.",
            remedy=f"Use the columns {', '.join(schema.column_names)} and literals of their types.",
        ) from None
    return expression


def _without_nulls(expression: BooleanExpression) -> BooleanExpression:
    """Say of negated comparisons that the value is there: partitions and rows would differ about nulls."""
    if isinstance(expression, And | Or):
        left, right = _without_nulls(expression.left), _without_nulls(expression.right)
        return And(left, right) if isinstance(expression, And) else Or(left, right)
    if isinstance(expression, NotEqualTo | NotIn | NotStartsWith | NotNaN):
        return And(expression, NotNull(term=expression.term))
    return expression


def matches(schema: Schema, expression: BooleanExpression) -> pc.Expression:
    """Return an Arrow expression that is true for rows that match and false, never null, for the others."""
    return as_arrow(schema, bind(schema, expression, case_sensitive=True))


def as_arrow(schema: Schema, bound: BooleanExpression) -> pc.Expression:
    """Translate a filter; with a schema to look at, PyIceberg takes every dot in a name for a struct's."""
    nested = extract_field_ids(bound) - {field.field_id for field in schema.fields}
    return pc.coalesce(expression_to_pyarrow(bound, schema if nested else None), pa.scalar(False))
