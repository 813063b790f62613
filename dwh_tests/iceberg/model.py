"""What an Iceberg table should hold, in plain Python: rows are dictionaries, a snapshot is a list of them.

Columns have an identity of their own, so that a value stays with its column under any name; a row holds
values by identity. No line here is shared with the code under test.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

# The values of one row by column identity
Values = dict[int, Any]
Predicate = Callable[[Mapping[str, Any]], bool]


@dataclass(frozen=True)
class Column:
    """A column under its present name and type."""

    identity: int
    name: str
    type: str


@dataclass(frozen=True)
class Counts:
    """What a write did to rows."""

    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    unchanged: int = 0


@dataclass(frozen=True)
class Moment:
    """A snapshot: its rows, and the columns that they had then."""

    columns: tuple[Column, ...]
    rows: tuple[Values, ...]

    def named(self) -> list[dict[str, Any]]:
        """The rows by the names of the columns; a value that a row has not got is null."""
        return [{c.name: row.get(c.identity) for c in self.columns} for row in self.rows]


@dataclass
class TableModel:
    """The present rows and columns, and every snapshot by its id."""

    columns: list[Column]
    rows: list[Values] = field(default_factory=list)
    snapshots: dict[int, Moment] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._identities = count(max(column.identity for column in self.columns) + 1)

    # --- Columns ---

    def column(self, name: str) -> Column:
        return next(column for column in self.columns if column.name == name)

    def add_column(self, name: str, type_: str) -> None:
        self.columns.append(Column(next(self._identities), name, type_))

    def rename_column(self, name: str, new_name: str) -> None:
        self._put(replace(self.column(name), name=new_name))

    def widen_column(self, name: str, type_: str) -> None:
        self._put(replace(self.column(name), type=type_))

    def drop_column(self, name: str) -> None:
        self.columns.remove(self.column(name))

    def _put(self, changed: Column) -> None:
        self.columns = [changed if c.identity == changed.identity else c for c in self.columns]

    # --- Rows ---

    def now(self) -> Moment:
        """What a reader of the newest version sees."""
        return Moment(tuple(self.columns), tuple(self.rows))

    def append(self, rows: Iterable[Mapping[str, Any]]) -> Counts:
        arriving = self._values(rows)
        self.rows = [*self.rows, *arriving]
        return Counts(inserted=len(arriving))

    def overwrite(self, rows: Iterable[Mapping[str, Any]], where: Predicate) -> Counts:
        before = len(self.rows)
        self.delete(where)
        deleted = before - len(self.rows)
        return replace(self.append(rows), deleted=deleted)

    def delete(self, where: Predicate) -> None:
        named = self.now().named()
        self.rows = [row for row, seen in zip(self.rows, named, strict=True) if not where(seen)]

    def upsert(
        self, rows: Iterable[Mapping[str, Any]], keys: Sequence[str], *, detect_unchanged: bool = True
    ) -> Counts:
        """Each row takes the place of all rows with its key, unless the only such row equals it."""
        inserted = updated = unchanged = 0
        identities = [self.column(key).identity for key in keys]
        for arriving in self._values(rows):
            hit = [row for row in self.rows if all(same(row.get(i), arriving.get(i)) for i in identities)]
            if detect_unchanged and len(hit) == 1 and self._equal(hit[0], arriving):
                unchanged += 1
                continue
            inserted, updated = inserted + (not hit), updated + bool(hit)
            gone = {id(row) for row in hit}
            self.rows = [*(row for row in self.rows if id(row) not in gone), arriving]
        return Counts(inserted=inserted, updated=updated, unchanged=unchanged)

    def _equal(self, one: Values, other: Values) -> bool:
        return all(same(one.get(c.identity), other.get(c.identity)) for c in self.columns)

    def _values(self, rows: Iterable[Mapping[str, Any]]) -> list[Values]:
        return [{self.column(name).identity: value for name, value in row.items()} for row in rows]

    # --- History ---

    def commit(self, snapshot_id: int) -> None:
        """Remember the present as a snapshot."""
        self.snapshots[snapshot_id] = self.now()

    def roll_back(self, snapshot_id: int) -> None:
        """Take the rows of a snapshot back; columns stay as they are."""
        self.rows = list(self.snapshots[snapshot_id].rows)


def same(one: Any, other: Any) -> bool:
    """Equality as an upsert knows it: null is null, NaN is NaN, and zero has no sign."""
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one) and math.isnan(other):
        return True
    return bool(one == other)


def multiset(rows: Iterable[Mapping[str, Any]]) -> Counter[str]:
    """Rows without an order, told apart exactly: by the sign of a zero, by the type of a number."""
    return Counter(repr(sorted(row.items())) for row in rows)
