"""Apply changes to a replica: deletes and inserts, counted, inside the transaction of its record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import pyarrow as pa
from pyiceberg.types import DoubleType, FloatType

from dwh_assets.warehouses.arriving import Arriving
from dwh_assets.warehouses.base import Target
from dwh_assets.warehouses.changes import Changes
from dwh_assets.warehouses.columns import OWN_PREFIX
from dwh_assets.warehouses.dialect import Dialect, ReplicaColumn
from dwh_assets.warehouses.session import Layout, Session, encoded


class Drifted(Exception):
    """The replica does not hold the rows that its record claims, so changes do not lead to the right ones."""


@dataclass(frozen=True)
class StagedChanges:
    """Changes that are in the warehouse already, beside the replica and out of sight.

    Tables are made before the transaction begins: in most warehouses that would end it.
    """

    session: Session
    target: Target
    columns: Sequence[ReplicaColumn]
    changes: Changes

    @classmethod
    def stage(
        cls,
        session: Session,
        target: Target,
        columns: Sequence[ReplicaColumn],
        changes: Changes,
        arriving: Arriving,
    ) -> StagedChanges:
        """Put the changed rows into staging tables, which `drop` removes."""
        staged = cls(session, target, columns, changes)
        if changes.rows_deleted:
            staged._fill(staged.deletes, staged.told_by, changes.deletes(), arriving)
            if not changes.keys:
                session.create_table(staged._spared, columns, Layout(), existing="replace")
        if changes.rows_inserted:
            staged._fill(staged.inserts, columns, changes.inserts(), arriving)
        return staged

    def apply(self) -> None:
        """Delete and insert, inside a transaction. Raises `Drifted` when not the expected rows are met."""
        if self.changes.rows_deleted:
            deleted = self._delete() if self.changes.keys else self._delete_copies()
            require_as_many("deleted", self.changes.rows_deleted, deleted)
        if self.changes.rows_inserted:
            inserted = copy_rows(self.session, self.inserts, self.target, self.columns)
            require_as_many("inserted", self.changes.rows_inserted, inserted)

    def rows_updated(self) -> int:
        """Count the rows that go and come again with the same key."""
        if not (self.changes.keys and self.changes.rows_deleted and self.changes.rows_inserted):
            return 0
        dialect = self.session.dialect
        deletes_sql, inserts_sql = dialect.qualify(self.deletes), dialect.qualify(self.inserts)
        found = self.session.fetch(
            f"SELECT count(*) FROM {deletes_sql} WHERE EXISTS"
            f" (SELECT 1 FROM {inserts_sql} WHERE {self.same_sql})"
        )
        return int(found[0][0])

    def drop(self) -> None:
        """Remove the staging tables."""
        for staging in (self.deletes, self.inserts, self._spared):
            self.session.drop_table(staging)

    @cached_property
    def deletes(self) -> Target:
        """The table of keys, or of whole rows, that go."""
        return self.session.staging(self.target, "deletes")

    @cached_property
    def inserts(self) -> Target:
        """The table of rows that come."""
        return self.session.staging(self.target, "inserts")

    @cached_property
    def _spared(self) -> Target:
        return self.session.staging(self.target, "spared")

    @cached_property
    def told_by(self) -> list[ReplicaColumn]:
        """The columns of `deletes`."""
        return apart(self.session.dialect, self.changes.told_by)

    def _fill(
        self,
        staging: Target,
        columns: Sequence[ReplicaColumn],
        rows: pa.RecordBatchReader,
        arriving: Arriving,
    ) -> None:
        self.session.create_table(staging, columns, Layout(), existing="replace")
        with arriving.failures():
            self.session.insert(staging, columns, arriving.counted(encoded(rows, columns)))

    def _delete(self) -> int:
        """Delete the rows that are told by the staged values, all copies of them."""
        dialect = self.session.dialect
        return self.session.execute(
            f"DELETE FROM {dialect.qualify(self.target)} WHERE EXISTS"
            f" (SELECT 1 FROM {dialect.qualify(self.deletes)} WHERE {self.same_sql})"
        )

    @property
    def same_sql(self) -> str:
        """A condition that a row of the replica, or of `inserts`, is told by a row of `deletes`."""
        return same_rows_sql(self.session.dialect, self.told_by, self.changes.told_by)

    def _delete_copies(self) -> int:
        """Delete as many copies of each row as are staged: all of them, and put back those that stay."""
        self._spare()
        deleted = self._delete()
        return deleted - copy_rows(self.session, self._spared, self.target, self.columns)

    def _spare(self) -> None:
        """Set aside the copies beyond the staged number of each row."""
        dialect = self.session.dialect
        own = [comparable_sql(dialect, f"kept.{dialect.quote(c.name)}", c) for c in self.changes.told_by]
        gone = [comparable_sql(dialect, dialect.quote(c.name), c) for c in self.told_by]
        names = [dialect.quote(column.name) for column in self.told_by]
        gone_sql = ", ".join(
            f"{value_sql} AS {name_sql}" for value_sql, name_sql in zip(gone, names, strict=True)
        )
        groups_sql = ", ".join(gone)
        condition_sql = " AND ".join(
            dialect.same_sql(f"gone.{name_sql}", value_sql, column.field)
            for name_sql, value_sql, column in zip(names, own, self.changes.told_by, strict=True)
        )
        partition_sql = ", ".join(f"gone.{name_sql}" for name_sql in names)
        columns_sql = names_sql(dialect, self.columns)
        kept_sql = ", ".join(f"kept.{dialect.quote(column.name)}" for column in self.columns)
        times_sql, copy_sql = (dialect.quote(dialect.name(f"{OWN_PREFIX}{n}")) for n in ("times", "copy"))
        self.session.execute(
            f"INSERT INTO {dialect.qualify(self._spared)} ({columns_sql}) SELECT {columns_sql} FROM"
            f" (SELECT {kept_sql}, gone.{times_sql}, row_number() OVER (PARTITION BY {partition_sql}"
            f" ORDER BY gone.{times_sql}) AS {copy_sql} FROM {dialect.qualify(self.target)} AS kept JOIN"
            f" (SELECT {gone_sql}, count(*) AS {times_sql} FROM {dialect.qualify(self.deletes)}"
            f" GROUP BY {groups_sql}) AS gone ON {condition_sql}) AS copies WHERE {copy_sql} > {times_sql}"
        )


def copy_rows(session: Session, source: Target, into: Target, columns: Sequence[ReplicaColumn]) -> int:
    """Insert all rows of one table into another, by name; return how many there were."""
    columns_sql = names_sql(session.dialect, columns)
    return session.execute(
        f"INSERT INTO {session.dialect.qualify(into)} ({columns_sql})"
        f" SELECT {columns_sql} FROM {session.dialect.qualify(source)}"
    )


def names_sql(dialect: Dialect, columns: Sequence[ReplicaColumn]) -> str:
    """Return the names of columns, parted by commas."""
    return ", ".join(dialect.quote(column.name) for column in columns)


def can_compare(columns: Sequence[ReplicaColumn]) -> bool:
    """Tell whether rows with these columns can be told apart by their values in every warehouse's SQL."""
    return all(column.field.field_type.is_primitive for column in columns)


def comparable_sql(dialect: Dialect, value_sql: str, column: ReplicaColumn) -> str:
    """Return a value in a form of which `=` tells whether two are the same; NaN is not equal to itself."""
    if isinstance(column.field.field_type, FloatType | DoubleType):
        canonical_sql = dialect.canonical_sql(column.field.field_type, column.holding, value_sql)
        return canonical_sql or value_sql
    return value_sql


def require_as_many(done: str, expected: int, found: int) -> None:
    """Raise `Drifted` when a statement did not meet the rows that the change says."""
    if found != expected:
        raise Drifted(f"{expected:,} rows were to be {done}, and {found:,} were")


def apart(dialect: Dialect, columns: Sequence[ReplicaColumn]) -> list[ReplicaColumn]:
    """Return columns under names that a replica's own columns never have, so that none needs a prefix."""
    prefix = dialect.name(OWN_PREFIX)
    return [replace(column, name=f"{prefix}{number}") for number, column in enumerate(columns)]


def same_rows_sql(dialect: Dialect, staged: Sequence[ReplicaColumn], own: Sequence[ReplicaColumn]) -> str:
    """Return a condition that two rows are the same in these columns, null and NaN included."""
    conditions_sql = []
    for left, right in zip(staged, own, strict=True):
        values_sql = [comparable_sql(dialect, dialect.quote(one.name), right) for one in (left, right)]
        conditions_sql.append(dialect.same_sql(values_sql[0], values_sql[1], right.field))
    return " AND ".join(conditions_sql)
