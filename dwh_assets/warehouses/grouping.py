"""Parts of a table by which its rows and those of a replica are compared, and loaded again where they differ.

A part is told by arithmetic on canonical text, which every warehouse does alike: the days of a time, a
range of numbers, the first characters of a text, or, for a table that is not partitioned so, one of some
buckets of its key. Months and years are the days of theirs.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pyiceberg.transforms import (
    DayTransform,
    HourTransform,
    IdentityTransform,
    MonthTransform,
    Transform,
    TruncateTransform,
    YearTransform,
)
from pyiceberg.types import (
    DateType,
    IntegerType,
    LongType,
    StringType,
    TimestampType,
    TimestamptzType,
)

from dwh_assets.warehouses.fingerprint import Group, row_text_sql
from dwh_assets.warehouses.sides import ComparedColumn, Side
from dwh_assets.warehouses.source import Source

BUCKETS = 256
_ESCAPED = re.compile(r"\\(.)")
_MICROSECONDS = {"hour": 3_600_000_000, "day": 86_400_000_000}


class Part(ABC):
    """One thing by which rows are grouped."""

    @abstractmethod
    def sql(self, side: Side) -> str:
        """Return SQL for the group of a row: text or an integer."""

    @abstractmethod
    def label(self, group: str | int | None) -> str:
        """Return how a group is called."""

    @property
    @abstractmethod
    def columns(self) -> tuple[ComparedColumn, ...]:
        """The columns that decide it."""


@dataclass(frozen=True)
class TextPart(Part):
    """Rows with the same text in a column, or with the same first characters of it."""

    name: str
    column: ComparedColumn
    width: int | None = None

    @property
    def columns(self) -> tuple[ComparedColumn, ...]:
        """The columns that decide it."""
        return (self.column,)

    def sql(self, side: Side) -> str:
        """Return SQL for the group of a row."""
        if self.width is None:
            return f"{side.text_sql(self.column)}"
        return f"{side.text_sql(self.column, f'SUBSTR({side.value_sql(self.column)}, 1, {self.width:d})')}"

    def label(self, group: str | int | None) -> str:
        """Return how a group is called."""
        shown = "null" if group is None else _ESCAPED.sub(r"\1", str(group))
        return f"{self.name}={shown}"


@dataclass(frozen=True)
class RangePart(Part):
    """Rows whose column, as a number, is in the same range of a width: told by the first number of it."""

    name: str
    column: ComparedColumn
    width: int
    transform: Transform[Any, Any]

    @property
    def columns(self) -> tuple[ComparedColumn, ...]:
        """The columns that decide it."""
        return (self.column,)

    def sql(self, side: Side) -> str:
        """Return SQL for the group of a row."""
        number_sql = f"CAST({side.text_sql(self.column)} AS BIGINT)"
        if self.width == 1:
            return number_sql
        # What is left of a negative number by MOD is negative.
        return f"{number_sql} - MOD(MOD({number_sql}, {self.width:d}) + {self.width:d}, {self.width:d})"

    def label(self, group: str | int | None) -> str:
        """Return how Iceberg calls the partition that the group is in."""
        iceberg = self.column.field.field_type
        shown = self.transform.to_human_string(iceberg, self.transform.transform(iceberg)(group))
        return f"{self.name}={shown}"


@dataclass(frozen=True)
class BucketPart(Part):
    """Rows whose key has the same remainder of its hash."""

    keys: tuple[ComparedColumn, ...]

    @property
    def columns(self) -> tuple[ComparedColumn, ...]:
        """The columns that decide it."""
        return self.keys

    def sql(self, side: Side) -> str:
        """Return SQL for the group of a row."""
        first_sql, *_ = side.dialect.limbs_sql(row_text_sql(side, self.keys))
        return f"CAST(MOD({first_sql}, {BUCKETS:d}) AS BIGINT)"

    def label(self, group: str | int | None) -> str:
        """Return how a group is called."""
        return f"bucket {group} of {BUCKETS} by {', '.join(key.name for key in self.keys)}"


@dataclass(frozen=True)
class Grouping:
    """How the rows of a table are parted, the same on both sides."""

    parts: tuple[Part, ...]

    @classmethod
    def of(cls, source: Source, columns: Sequence[ComparedColumn], keys: Sequence[str]) -> Grouping:
        """Part a table as it is partitioned, as far as SQL can tell; otherwise by its key, if it has one.

        `columns` are those that have a canonical text on both sides.
        """
        by_id = {column.field.field_id: column for column in columns}
        found = [
            _part(field.name, by_id[field.source_id], field.transform)
            for field in source.table.spec().fields
            if field.source_id in by_id
        ]
        parts = tuple(part for part in found if part)
        by_name = {column.name: column for column in columns}
        if not parts and keys and all(key in by_name for key in keys):
            parts = (BucketPart(tuple(by_name[key] for key in keys)),)
        return cls(parts)

    @property
    def columns(self) -> tuple[ComparedColumn, ...]:
        """The columns that decide the group."""
        return tuple(column for part in self.parts for column in part.columns)

    def sql(self, side: Side) -> list[str]:
        """Return SQL for the group of a row."""
        return [part.sql(side) for part in self.parts]

    def label(self, group: Group) -> str:
        """Return how a group is called."""
        return "/".join(part.label(value) for part, value in zip(self.parts, group, strict=True))

    def condition(self, side: Side, groups: Iterable[Group]) -> tuple[str, tuple[Any, ...]]:
        """Return the condition that a row is in one of some groups, and its parameters."""
        found = [self._is_group(side, group) for group in groups]
        condition_sql = " OR ".join(f"({one_sql})" for one_sql, _ in found) or "FALSE"
        return condition_sql, tuple(value for _, values in found for value in values)

    def _is_group(self, side: Side, group: Group) -> tuple[str, tuple[Any, ...]]:
        marker_sql = side.dialect.capabilities.placeholder
        conditions_sql = " AND ".join(
            f"{part.sql(side)} " + ("IS NULL" if value is None else f"= {marker_sql}")
            for part, value in zip(self.parts, group, strict=True)
        )
        return conditions_sql, tuple(value for value in group if value is not None)


def _part(name: str, column: ComparedColumn, transform: Transform[Any, Any]) -> Part | None:
    iceberg = column.field.field_type
    match transform:
        case IdentityTransform() if isinstance(iceberg, DateType | TimestampType | TimestamptzType):
            return RangePart(name, column, 1, transform)
        case IdentityTransform():
            return TextPart(name, column)
        case TruncateTransform() if isinstance(iceberg, StringType):
            return TextPart(name, column, transform.width)
        case TruncateTransform() if isinstance(iceberg, IntegerType | LongType):
            return RangePart(name, column, transform.width, transform)
        case DayTransform() | MonthTransform() | YearTransform() if isinstance(iceberg, DateType):
            return RangePart(name, column, 1, transform)
        case HourTransform() if isinstance(iceberg, TimestampType | TimestamptzType):
            return RangePart(name, column, _MICROSECONDS["hour"], transform)
        case DayTransform() | MonthTransform() | YearTransform() if isinstance(
            iceberg, TimestampType | TimestamptzType
        ):
            return RangePart(name, column, _MICROSECONDS["day"], transform)
    return None
