"""Map Dagster partitions onto rows: the filter that a set of partitions stands for.

A time window becomes a half-open interval on the mapped column, a static or dynamic key an equality,
a multi-dimensional key both at once. A filter that cannot be built is an error, never "no filter".
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import dagster as dg
from pyiceberg.expressions import And, BooleanExpression, GreaterThanOrEqual, In, LessThan, Or, Reference
from pyiceberg.expressions.literals import literal
from pyiceberg.schema import Schema
from pyiceberg.types import (
    BooleanType,
    DateType,
    IcebergType,
    IntegerType,
    LongType,
    StringType,
    TimestampType,
    TimestamptzType,
)

from dwh_assets.errors import ConfigurationError
from dwh_assets.iceberg.filters import filter_expression

_LONGEST_NAME = 400

PartitionExpr = str | Mapping[str, str]


@dataclass(frozen=True)
class Window:
    """A half-open time window [start, end), in the partition definition's time zone."""

    start: datetime
    end: datetime


@dataclass(frozen=True)
class PartitionSlice:
    """The Dagster partitions that one run computes.

    `keys` are their names in order; `windows` the time windows they stand for, neighbours joined, and
    empty when no dimension is time.
    """

    keys: tuple[str, ...]
    windows: tuple[Window, ...] = ()

    @property
    def window(self) -> Window:
        """The one time window of this slice.

        Raises `ConfigurationError` when there is none or there are gaps.
        """
        if len(self.windows) != 1:
            raise ConfigurationError(
                f"Partitions {shown(self.keys)} are {len(self.windows)} time windows, not one.",
                remedy="Iterate over `windows`.",
            )
        return self.windows[0]


def partition_slice(definition: dg.PartitionsDefinition, keys: Sequence[str]) -> PartitionSlice:
    """Return the slice that these keys of `definition` stand for."""
    if isinstance(definition, dg.MultiPartitionsDefinition):
        time_windows: list[Window] = []
        for dimension in definition.partitions_defs:
            if isinstance(dimension.partitions_def, dg.TimeWindowPartitionsDefinition):
                chosen = {dimensions(definition, key)[dimension.name] for key in keys}
                time_windows = _windows(dimension.partitions_def, chosen)
        return PartitionSlice(tuple(keys), tuple(time_windows))
    if isinstance(definition, dg.TimeWindowPartitionsDefinition):
        return PartitionSlice(tuple(keys), tuple(_windows(definition, keys)))
    return PartitionSlice(tuple(keys))


def partition_filter(
    definition: dg.PartitionsDefinition,
    keys: Sequence[str],
    partition_expr: PartitionExpr | None,
    schema: Schema,
    table: str,
) -> BooleanExpression:
    """Return the Iceberg filter for the rows of these partitions.

    `partition_expr` names the column, or for a multi-dimensional definition the column of each dimension.
    Raises `ConfigurationError` when the mapping is missing, names no column, or a key does not fit the type.
    """
    if not keys:
        raise ConfigurationError(f"{table}: no partition is selected, so there is nothing to read or write.")
    if isinstance(definition, dg.MultiPartitionsDefinition):
        found = _multi_filter(definition, keys, partition_expr, schema, table)
    else:
        found = _dimension_filter(definition, keys, single_column(partition_expr, table), schema, table)
    return filter_expression(schema, found, table)


def _multi_filter(
    definition: dg.MultiPartitionsDefinition,
    keys: Sequence[str],
    partition_expr: PartitionExpr | None,
    schema: Schema,
    table: str,
) -> BooleanExpression:
    """Return the filter for exactly these cells, as few rectangles where they are rectangles."""
    columns = columns_by_dimension(definition, partition_expr, table)
    definitions = {d.name: d.partitions_def for d in definition.partitions_defs}
    first, *others = sorted(columns, key=lambda name: (not _is_time(definitions[name]), name))
    firsts: dict[tuple[str, ...], set[str]] = {}
    for key in keys:
        cell = dimensions(definition, key)
        firsts.setdefault(tuple(cell[name] for name in others), set()).add(cell[first])
    rectangles: dict[frozenset[str], list[tuple[str, ...]]] = {}
    for rest, first_keys in firsts.items():
        rectangles.setdefault(frozenset(first_keys), []).append(rest)

    def one(name: str, dimension_keys: Iterable[str]) -> BooleanExpression:
        return _dimension_filter(definitions[name], sorted(dimension_keys), columns[name], schema, table)

    def rest_filter(rests: list[tuple[str, ...]]) -> BooleanExpression:
        if len(others) == 1:
            return one(others[0], [key for (key,) in rests])
        return _any(_all(one(name, [key]) for name, key in zip(others, rest, strict=True)) for rest in rests)

    return _any(
        _all([one(first, first_keys), rest_filter(rests)]) for first_keys, rests in rectangles.items()
    )


def _is_time(definition: dg.PartitionsDefinition) -> bool:
    return isinstance(definition, dg.TimeWindowPartitionsDefinition)


def dimensions(definition: dg.MultiPartitionsDefinition, key: str) -> Mapping[str, str]:
    """Return the key of each dimension that a key of several dimensions is made of."""
    return definition.get_partition_key_from_str(key).keys_by_dimension


def single_column(partition_expr: PartitionExpr | None, table: str) -> str:
    """Return the column of partitions in one dimension; raise `ConfigurationError` unless there is one."""
    if isinstance(partition_expr, str):
        return partition_expr
    raise ConfigurationError(
        f"{table} has partitions, but it is not said which column they are.",
        remedy="Set partition_expr to the column's name.",
    )


def columns_by_dimension(
    definition: dg.MultiPartitionsDefinition, partition_expr: PartitionExpr | None, table: str
) -> dict[str, str]:
    """Return the column of each dimension; raise `ConfigurationError` unless each has one."""
    names = {dimension.name for dimension in definition.partitions_defs}
    if not isinstance(partition_expr, Mapping) or set(partition_expr) != names:
        raise ConfigurationError(
            f"{table} has the partition dimensions {', '.join(sorted(names))}; "
            f"partition_expr is {partition_expr!r}.",
            remedy="Set partition_expr to a mapping from each dimension to a column.",
        )
    return dict(partition_expr)


def _dimension_filter(
    definition: dg.PartitionsDefinition, keys: Sequence[str], column: str, schema: Schema, table: str
) -> BooleanExpression:
    try:
        column_type = schema.find_field(column).field_type
    except ValueError:
        raise ConfigurationError(
            f"{table}: partition_expr names the column {column!r}, which is not there.",
            remedy=f"The columns are {', '.join(schema.column_names)}.",
        ) from None
    if isinstance(definition, dg.TimeWindowPartitionsDefinition) and not isinstance(column_type, StringType):
        windows = _windows(definition, keys)
        return _any(_window_filter(window, column, column_type, table) for window in windows)
    return In(term=Reference(column), literals={typed(key, column_type, column, table) for key in keys})


def _windows(definition: dg.TimeWindowPartitionsDefinition, keys: Iterable[str]) -> list[Window]:
    """Return the windows of the keys in time order, neighbours joined into one.

    They are ordered and compared as instants: of two moments in the same zone Python compares the clock
    time, and the hour before the end of summer time would be a neighbour of the hour after it.
    """
    joined: list[Window] = []
    windows = (definition.time_window_for_partition_key(key) for key in set(keys))
    for found in sorted(windows, key=lambda window: window.start.astimezone(UTC)):
        if joined and joined[-1].end.astimezone(UTC) == found.start.astimezone(UTC):
            joined[-1] = Window(joined[-1].start, found.end)
        else:
            joined.append(Window(found.start, found.end))
    return joined


def _window_filter(window: Window, column: str, column_type: IcebergType, table: str) -> BooleanExpression:
    start, end = (bound(moment, column, column_type, table) for moment in (window.start, window.end))
    return And(
        GreaterThanOrEqual(term=Reference(column), value=literal(start.isoformat())),
        LessThan(term=Reference(column), value=literal(end.isoformat())),
    )


def bound(moment: datetime, column: str, column_type: IcebergType, table: str) -> date:
    """Return a window's bound as the column understands it: an instant, a local clock time or a day.

    Raises `ConfigurationError` for a column that cannot tell the moment.
    """
    if isinstance(column_type, TimestamptzType):
        return moment.astimezone(UTC)
    if isinstance(column_type, TimestampType):
        if moment.fold:
            raise ConfigurationError(
                f"{table}: a time window ends or begins at {moment.isoformat()}, when the clocks were turned "
                f"back; column {column!r} of type {column_type} does not tell that from the hour before.",
                remedy="Map it to a timestamptz column, or use windows of a day or longer.",
            )
        return moment.replace(tzinfo=None)
    if isinstance(column_type, DateType) and moment.time() == datetime.min.time():
        return moment.date()
    raise ConfigurationError(
        f"{table}: a time window that begins at {moment.isoformat()} cannot be told by column {column!r} "
        f"of type {column_type}.",
        remedy="Map it to a timestamp column, or to a date column if windows begin at midnight.",
    )


def typed(key: str, column_type: IcebergType, column: str, table: str) -> Any:
    """Return the key as a value of the column; raise `ConfigurationError` where it is none."""
    if isinstance(column_type, BooleanType) and key.lower() in ("true", "false"):
        return key.lower() == "true"
    if isinstance(column_type, IntegerType | LongType):
        if re.fullmatch(r"-?[0-9]+", key) and _fits(int(key), column_type):
            return int(key)
    elif not isinstance(column_type, BooleanType) and _can_be(key, column_type):
        return key
    raise ConfigurationError(
        f"{table}: the partition key {key!r} is not a value of column {column!r} ({column_type}).",
        remedy="Map the partitions to a column that holds their keys.",
    )


def _fits(number: int, column_type: IntegerType | LongType) -> bool:
    bits = 31 if isinstance(column_type, IntegerType) else 63
    return -(1 << bits) <= number < 1 << bits


def _can_be(key: str, column_type: IcebergType) -> bool:
    """Tell whether the filter's own conversion, which takes text for any other type, knows this one."""
    try:
        literal(key).to(column_type)
    except (TypeError, ValueError, ArithmeticError):
        return False
    return True


def _any(expressions: Iterable[BooleanExpression]) -> BooleanExpression:
    first, *rest = expressions
    return Or(first, *rest) if rest else first


def _all(expressions: Iterable[BooleanExpression]) -> BooleanExpression:
    first, *rest = expressions
    return And(first, *rest) if rest else first


def shown(keys: Sequence[str]) -> str:
    """Name partitions in a few words."""
    return ", ".join(keys) if len(keys) <= 3 else f"{keys[0]} … {keys[-1]} ({len(keys)})"


def named(keys: Sequence[str]) -> str:
    """Name partitions exactly, and in a bounded number of characters: snapshots keep it for ever."""
    whole = ",".join(keys)
    if len(whole) <= _LONGEST_NAME:
        return whole
    digest = hashlib.sha256(whole.encode()).hexdigest()[:16]
    return f"{keys[0]}...{keys[-1]} ({len(keys)} partitions, {digest})"
