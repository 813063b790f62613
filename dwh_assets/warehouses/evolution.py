"""How a replica's columns follow those of its table: which steps lead from what is held to what is wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pyiceberg.types import (
    DecimalType,
    DoubleType,
    FloatType,
    IcebergType,
    IntegerType,
    ListType,
    LongType,
    MapType,
    StructType,
)

from dwh_assets.warehouses.base import HeldColumn
from dwh_assets.warehouses.dialect import ReplicaColumn


@dataclass(frozen=True)
class ColumnStep:
    """One change of one column.

    `add` and `widen` concern `column` as it is to be; `rename`, `drop` and `relax` (which lets it hold nulls)
    the column that is called `name` now; `rename` makes it `column.name`.
    """

    kind: Literal["add", "rename", "widen", "relax", "drop"]
    name: str
    column: ReplicaColumn | None = None


class CannotFollow(Exception):
    """No steps lead there, so all rows have to be loaded again; the message says why."""


def held_columns(columns: Sequence[ReplicaColumn]) -> tuple[HeldColumn, ...]:
    """Return what is to be remembered of columns."""
    return tuple(
        HeldColumn(column.field.field_id, column.name, column.holding.sql_type, column.field.required)
        for column in columns
    )


def column_steps(
    held: Sequence[HeldColumn],
    before: Sequence[tuple[int, IcebergType]],
    wanted: Sequence[ReplicaColumn],
    *,
    keep_dropped: bool,
    fold: Callable[[str], str] = str,
) -> list[ColumnStep]:
    """Return the steps from the columns that are held to the wanted ones; none where they are the same.

    `before` are the lake's types of the held columns by field id. Columns that the table dropped go first,
    so that their names are free, unless `keep_dropped`. Names that `fold` makes equal are the same to the
    warehouse. Raises `CannotFollow`.
    """
    types = dict(before)
    ids = {column.field.field_id for column in wanted}
    known = {column.field_id: column for column in held}
    gone = [column for column in held if column.field_id not in ids]
    if keep_dropped:
        _require_free({fold(column.name) for column in gone}, [fold(column.name) for column in wanted])
        steps = [ColumnStep("relax", column.name) for column in gone if column.required]
    else:
        steps = [ColumnStep("drop", column.name) for column in gone]
    steps += _renames([known[i] for i in ids & known.keys()], wanted, fold)
    for column in wanted:
        found = known.get(column.field.field_id)
        if found is None:
            steps.append(_added(column))
        else:
            steps += _changed(found, types[found.field_id], column)
    return steps


def _require_free(kept: set[str], wanted: Sequence[str]) -> None:
    taken = kept & set(wanted)
    if taken:
        raise CannotFollow(f"a new column has the name of the dropped column {min(taken)}, which is kept")


def _renames(
    held: Sequence[HeldColumn], wanted: Sequence[ReplicaColumn], fold: Callable[[str], str]
) -> list[ColumnStep]:
    """Order renames such that each new name is free by then: a -> b, after b -> c."""
    names = {column.field.field_id: column for column in wanted}
    waiting = {column.name: names[column.field_id] for column in held}
    waiting = {old: column for old, column in waiting.items() if old != column.name}
    ordered: list[ColumnStep] = []
    while waiting:
        taken = {fold(old): old for old in waiting}
        free = [old for old, column in waiting.items() if taken.get(fold(column.name), old) == old]
        if not free:
            raise CannotFollow(f"the columns {', '.join(sorted(waiting))} exchanged their names")
        ordered += [ColumnStep("rename", old, waiting.pop(old)) for old in free]
    return ordered


def _added(column: ReplicaColumn) -> ColumnStep:
    if column.field.required or column.field.initial_default is not None:
        raise CannotFollow(f"the new column {column.field.name} has values in rows that did not change")
    return ColumnStep("add", column.name, column)


def _changed(held: HeldColumn, before: IcebergType, column: ReplicaColumn) -> Iterator[ColumnStep]:
    if _nested(before) != _nested(column.field.field_type):
        raise CannotFollow(f"what is inside of the column {column.field.name} changed")
    if held.sql_type != column.holding.sql_type:
        if not _is_widening(before, column.field.field_type):
            raise CannotFollow(
                f"the column {column.field.name} is {column.holding.sql_type} now, no longer {held.sql_type}"
            )
        yield ColumnStep("widen", column.name, column)
    if held.required and not column.field.required:
        yield ColumnStep("relax", column.name, column)


def _nested(iceberg: IcebergType) -> Any:
    """Return what is inside of a nested type: held as JSON, values are found by the names that they had."""
    match iceberg:
        case StructType():
            return [(field.field_id, field.name, _leaf(field.field_type)) for field in iceberg.fields]
        case ListType():
            return [_leaf(iceberg.element_type)]
        case MapType():
            return [_leaf(iceberg.key_type), _leaf(iceberg.value_type)]
    return None


def _leaf(iceberg: IcebergType) -> Any:
    return iceberg if iceberg.is_primitive else _nested(iceberg)


def _is_widening(before: IcebergType, after: IcebergType) -> bool:
    if isinstance(before, DecimalType) and isinstance(after, DecimalType):
        return before.scale == after.scale and before.precision <= after.precision
    widenings = {(IntegerType, LongType), (FloatType, DoubleType)}
    return (type(before), type(after)) in widenings
