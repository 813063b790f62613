"""Figures by which the rows of two sides are compared where they are: only the figures travel.

`rows_hashes` is one pass with one MD5 a row, of all columns together: equal hashes say that the rows are
equal, whatever their order. `column_figures` and hashes by group cost more, and tell where rows differ.
All of them are exact in every warehouse; what one of them would only estimate is not asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from pyiceberg.types import (
    BinaryType,
    BooleanType,
    DoubleType,
    FixedType,
    FloatType,
    UUIDType,
)

from dwh_assets.warehouses.canonical import LIMBS
from dwh_assets.warehouses.sides import ComparedColumn, Side

# Columns that one query gives all figures of: a statement has only so many results.
_COLUMNS_AT_ONCE = 50
# Compared by their text: not every warehouse finds the least of them, or the same one.
_BY_TEXT = (BooleanType, UUIDType, FixedType, BinaryType)
# A literal with a backslash is written differently everywhere.
_NULL_SQL = "CONCAT(CHR(92), 'N')"

Group = tuple[str | int | None, ...]
Limbs = tuple[int, ...]


@dataclass(frozen=True)
class RowsHash:
    """The hash of many rows in any order: how many, and the sums of the four parts of their MD5."""

    count: int
    limbs: Limbs = (0,) * LIMBS

    @property
    def hex(self) -> str:
        """The sums as text."""
        return "-".join(f"{limb:x}" for limb in self.limbs)

    def __add__(self, other: RowsHash) -> RowsHash:
        """Return the hash of both together."""
        return RowsHash(
            self.count + other.count, tuple(a + b for a, b in zip(self.limbs, other.limbs, strict=True))
        )


@dataclass(frozen=True)
class RowsFigures:
    """Of some rows: their hash over all columns that have a canonical text, and each column's non-nulls."""

    rows: RowsHash
    present: tuple[int, ...]

    def __add__(self, other: RowsFigures) -> RowsFigures:
        """Return the figures of both together."""
        present = tuple(a + b for a, b in zip(self.present, other.present, strict=True))
        return RowsFigures(self.rows + other.rows, present)


@dataclass(frozen=True)
class ColumnFigures:
    """Of one column: how many values, nulls and distinct values there are, and what they are all together.

    `minimum` and `maximum` are canonical text, NaN left out; `total` is the exact sum; `hash` that of the
    values in any order. None where the type has no such figure that all warehouses agree on.
    """

    count: int
    nulls: int
    distinct: int | None = None
    minimum: str | None = None
    maximum: str | None = None
    total: Decimal | None = None
    hash: RowsHash | None = None


@dataclass(frozen=True)
class Fingerprint:
    """The figures of one side: of all rows, and of each column by its name in the table."""

    rows: RowsHash
    columns: dict[str, ColumnFigures]


def fingerprint(side: Side, columns: Sequence[ComparedColumn]) -> Fingerprint:
    """Return all figures of one side."""
    return Fingerprint(rows_figures(side, columns).rows, column_figures(side, columns))


def hashed_columns(
    columns: Sequence[ComparedColumn], sides: Sequence[Side]
) -> tuple[list[ComparedColumn], list[ComparedColumn]]:
    """Part columns into those that have a canonical text on every side, and the others."""
    hashed = [column for column in columns if all(side.text_sql(column) for side in sides)]
    return hashed, [column for column in columns if column not in hashed]


def rows_figures(
    side: Side, columns: Sequence[ComparedColumn], counted: Sequence[ComparedColumn] = ()
) -> RowsFigures:
    """Return the figures of all rows in one pass; `columns` are hashed, `counted` only counted."""
    return grouped_figures(side, columns, counted, ())[()]


def native_rows_figures(side: Side, columns: Sequence[ComparedColumn]) -> RowsFigures:
    """Return the figures of all rows, hashed by DuckDB's own function: a tenth of the work of a text's MD5.

    Only for two sides that this very DuckDB computes, see `sides.alike`: its hash is not that of other
    versions.
    """
    # Who made the table may have given it wider types, and a number's hash is that of its type.
    casts_sql = [f"CAST({side.value_sql(c)} AS {c.held.holding.sql_type})" for c in columns]
    values_sql = [f"{cast_sql} AS value_{n}" for n, cast_sql in enumerate(casts_sql)]
    names_sql = [f"value_{n}" for n in range(len(columns))]
    hash_sql = f"hash({', '.join(names_sql)})"
    counts_sql = [f"COUNT({name_sql})" for name_sql in names_sql]
    ((count, total, *present),) = side.fetch(
        columns, ", ".join(values_sql), ", ".join(["COUNT(*)", f"SUM({hash_sql})", *counts_sql])
    )
    return RowsFigures(RowsHash(int(count), (int(total or 0),)), tuple(map(int, present)))


def grouped_figures(
    side: Side,
    columns: Sequence[ComparedColumn],
    counted: Sequence[ComparedColumn],
    groups_sql: Sequence[str],
) -> dict[Group, RowsFigures]:
    """Return the figures of the rows of each group, told by the values of `groups_sql`."""
    every = [*columns, *counted]
    inner_sql = [
        f"{row_text_sql(side, columns)} AS row_text",
        *(f"{side.value_sql(column)} AS value_{n}" for n, column in enumerate(every)),
        *(f"{group_sql} AS group_{n}" for n, group_sql in enumerate(groups_sql)),
    ]
    names_sql = [f"group_{n}" for n in range(len(groups_sql))]
    outer_sql = [
        *names_sql,
        "COUNT(*)",
        *(f"SUM({limb_sql})" for limb_sql in side.dialect.limbs_sql("row_text")),
        *(f"COUNT(value_{n})" for n in range(len(every))),
    ]
    tail_sql = f"GROUP BY {', '.join(names_sql)}" if names_sql else ""
    found = side.fetch(every, ", ".join(inner_sql), ", ".join(outer_sql), tail_sql)
    return {_group(row[: len(names_sql)]): _rows_figures(row[len(names_sql) :]) for row in found}


def row_text_sql(side: Side, columns: Sequence[ComparedColumn]) -> str:
    """Return SQL for the canonical text of a row."""
    texts_sql = [f"COALESCE({side.text_sql(column)}, {_NULL_SQL})" for column in columns]
    if len(texts_sql) < 2:
        return texts_sql[0] if texts_sql else "''"
    joined_sql = ", '|', ".join(texts_sql)
    return f"CONCAT({joined_sql})"


def column_figures(side: Side, columns: Sequence[ComparedColumn]) -> dict[str, ColumnFigures]:
    """Return the figures of each column, in as many passes as there are fifties of them."""
    return {
        name: figures
        for start in range(0, len(columns), _COLUMNS_AT_ONCE)
        for name, figures in _column_figures(side, columns[start : start + _COLUMNS_AT_ONCE])
    }


def _column_figures(side: Side, columns: Sequence[ComparedColumn]) -> Iterator[tuple[str, ColumnFigures]]:
    inner_sql = [
        expression_sql
        for n, column in enumerate(columns)
        for expression_sql in (
            f"{side.value_sql(column)} AS value_{n}",
            f"{side.text_sql(column) or 'NULL'} AS text_{n}",
        )
    ]
    outer_sql = [
        expression_sql
        for n, column in enumerate(columns)
        for expression_sql in _figures_sql(side, column, f"value_{n}", f"text_{n}")
    ]
    (row,) = side.fetch(columns, ", ".join(inner_sql), ", ".join(["COUNT(*)", *outer_sql]))
    rows, values = int(row[0]), iter(row[1:])
    for column in columns:
        count, distinct, minimum, maximum, total, *limbs = [next(values) for _ in range(5 + LIMBS)]
        hashed = None if side.text_sql(column) is None else RowsHash(int(count), _limbs(limbs))
        yield (
            column.name,
            ColumnFigures(
                count=int(count),
                nulls=rows - int(count),
                distinct=None if hashed is None else int(distinct),
                minimum=minimum,
                maximum=maximum,
                total=None if total is None else Decimal(str(total)),
                hash=hashed,
            ),
        )


def _figures_sql(side: Side, column: ComparedColumn, value_sql: str, text_sql: str) -> Iterator[str]:
    yield f"COUNT({value_sql})"
    if side.text_sql(column) is None:
        yield from ["NULL"] * (4 + LIMBS)
        return
    yield f"COUNT(DISTINCT {text_sql})"
    yield from (_extreme_sql(side, column, which_sql, value_sql, text_sql) for which_sql in ("MIN", "MAX"))
    yield side.dialect.sum_sql(column.field.field_type, value_sql) or "NULL"
    yield from (f"SUM({limb_sql})" for limb_sql in side.dialect.limbs_sql(text_sql))


def _extreme_sql(side: Side, column: ComparedColumn, which_sql: str, value_sql: str, text_sql: str) -> str:
    iceberg = column.field.field_type
    if not iceberg.is_primitive:
        return "NULL"
    if isinstance(iceberg, _BY_TEXT):
        return f"{which_sql}({text_sql})"
    if isinstance(iceberg, FloatType | DoubleType):
        # NaN is the greatest of all in one warehouse and the least in another.
        value_sql = f"CASE WHEN {text_sql} <> 'NaN' THEN {value_sql} END"
    return side.text_sql(column, f"{which_sql}({value_sql})") or "NULL"


def _group(values: Sequence[Any]) -> Group:
    return tuple(value if value is None or isinstance(value, str) else int(value) for value in values)


def _rows_figures(row: Sequence[Any]) -> RowsFigures:
    count, limbs, present = int(row[0]), row[1 : 1 + LIMBS], row[1 + LIMBS :]
    return RowsFigures(RowsHash(count, _limbs(limbs)), tuple(map(int, present)))


def _limbs(sums: Sequence[Any]) -> Limbs:
    """A sum over no rows is null."""
    return tuple(int(one or 0) for one in sums)
