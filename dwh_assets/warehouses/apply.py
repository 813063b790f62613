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
            staged._fill(staged._deletes, staged._told_by, changes.deletes(), arriving)
            if not changes.keys:
                session.create_table(staged._spared, columns, Layout(), existing="replace")
        if changes.rows_inserted:
            staged._fill(staged._inserts, columns, changes.inserts(), arriving)
        return staged

    def apply(self) -> None:
        """Delete and insert, inside a transaction. Raises `Drifted` when not the expected rows are met."""
        if self.changes.rows_deleted:
            deleted = self._delete() if self.changes.keys else self._delete_copies()
            if deleted != self.changes.rows_deleted:
                raise Drifted(f"{self.changes.rows_deleted:,} rows were to be deleted, and {deleted:,} were")
        if self.changes.rows_inserted:
            inserted = copy_rows(self.session, self._inserts, self.target, self.columns)
            if inserted != self.changes.rows_inserted:
                raise Drifted(
                    f"{self.changes.rows_inserted:,} rows were to be inserted, and {inserted:,} were"
                )

    def rows_updated(self) -> int:
        """Count the rows that go and come again with the same key."""
        if not (self.changes.keys and self.changes.rows_deleted and self.changes.rows_inserted):
            return 0
        dialect = self.session.dialect
        deletes_sql, inserts_sql = dialect.qualify(self._deletes), dialect.qualify(self._inserts)
        found = self.session.fetch(
            f"SELECT count(*) FROM {deletes_sql} WHERE EXISTS"
            f" (SELECT 1 FROM {inserts_sql} WHERE {self._same_sql})"
        )
        return int(found[0][0])

    def drop(self) -> None:
        """Remove the staging tables."""
        for staging in (self._deletes, self._inserts, self._spared):
            self.session.drop_table(staging)

    @cached_property
    def _deletes(self) -> Target:
        return self.session.staging(self.target, "deletes")

    @cached_property
    def _inserts(self) -> Target:
        return self.session.staging(self.target, "inserts")

    @cached_property
    def _spared(self) -> Target:
        return self.session.staging(self.target, "spared")

    @cached_property
    def _told_by(self) -> list[ReplicaColumn]:
        """The columns that tell rows apart, under names that the replica's own columns never have."""
        prefix = self.session.dialect.name(OWN_PREFIX)
        return [
            replace(column, name=f"{prefix}{number}") for number, column in enumerate(self.changes.told_by)
        ]

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
            f" (SELECT 1 FROM {dialect.qualify(self._deletes)} WHERE {self._same_sql})"
        )

    @property
    def _same_sql(self) -> str:
        """A condition that a row of the replica, or of `inserts`, is told by a row of `deletes`."""
        dialect = self.session.dialect
        return " AND ".join(
            same_sql(dialect, dialect.quote(staged.name), dialect.quote(own.name), own)
            for staged, own in zip(self._told_by, self.changes.told_by, strict=True)
        )

    def _delete_copies(self) -> int:
        """Delete as many copies of each row as are staged: all of them, and put back those that stay."""
        self._spare()
        deleted = self._delete()
        return deleted - copy_rows(self.session, self._spared, self.target, self.columns)

    def _spare(self) -> None:
        """Set aside the copies beyond the staged number of each row."""
        dialect = self.session.dialect
        own = [comparable_sql(dialect, f"kept.{dialect.quote(c.name)}", c) for c in self.changes.told_by]
        gone = [comparable_sql(dialect, dialect.quote(c.name), c) for c in self._told_by]
        names = [dialect.quote(column.name) for column in self._told_by]
        gone_sql = ", ".join(
            f"{value_sql} AS {name_sql}" for value_sql, name_sql in zip(gone, names, strict=True)
        )
        groups_sql = ", ".join(gone)
        condition_sql = " AND ".join(
            _equal_sql(dialect, f"gone.{name_sql}", value_sql, column)
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
            f" (SELECT {gone_sql}, count(*) AS {times_sql} FROM {dialect.qualify(self._deletes)}"
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


def same_sql(dialect: Dialect, left_sql: str, right_sql: str, column: ReplicaColumn) -> str:
    """Return a condition that two values of a column are the same, null and NaN included."""
    left_sql, right_sql = (comparable_sql(dialect, sql, column) for sql in (left_sql, right_sql))
    return _equal_sql(dialect, left_sql, right_sql, column)


def _equal_sql(dialect: Dialect, left_sql: str, right_sql: str, column: ReplicaColumn) -> str:
    return dialect.same_sql(left_sql, right_sql, column.field)
