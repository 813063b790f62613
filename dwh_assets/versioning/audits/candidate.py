"""The version that is audited, and what of it has changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa
from pyiceberg.io.pyarrow import schema_to_pyarrow
from pyiceberg.schema import Schema
from pyiceberg.table import Table

from dwh_assets.errors import ConfigurationError
from dwh_assets.iceberg.diff.compare import compare
from dwh_assets.iceberg.diff.version_diff import VersionDiff
from dwh_assets.iceberg.scan import read, scan
from dwh_assets.iceberg.versions import at_snapshot

# Rows of each failed audit that are shown to a person
SAMPLE_ROWS = 10


@dataclass(frozen=True)
class Candidate:
    """A snapshot that is to be published after another one; `before` is None where there was nothing.

    Seen `roughly`, rows that were only written again, beside those that changed, count as changed, too: that
    costs less to read, and a row that passes by itself passes either way.
    """

    table: Table
    before: int | None
    after: int
    roughly: bool = False

    @property
    def name(self) -> str:
        """The table's name."""
        return ".".join(self.table.name())

    @property
    def schema(self) -> Schema:
        """The columns of the new version."""
        return scan(self.table, snapshot_id=self.after).projection()

    def changed(self, columns: Sequence[str] | None = None) -> pa.RecordBatchReader:
        """Stream the rows that the new version has and the one before has not: inserted or updated ones.

        Of rows that are there more often than before, so many are among them as came.
        """
        return self._difference.came(columns, exactly=not self.roughly)

    def new(self, columns: Sequence[str] | None = None) -> pa.RecordBatchReader:
        """Stream all rows of the new version."""
        return read(scan(self.table, columns=_listed(columns), snapshot_id=self.after))

    def old(self) -> pa.RecordBatchReader:
        """Stream all rows of the version before, in the columns of the new one; none where nothing was.

        A query that compares both could otherwise never be asked of the write that brings a column.
        """
        if self.before is None:
            return schema_to_pyarrow(self.schema, include_field_ids=False).empty_table().to_reader()
        planned = scan(at_snapshot(self.table, self.before))
        columns = {"current_schema_id": self.schema.schema_id}
        return read(planned.update(table_metadata=planned.table_metadata.model_copy(update=columns)))

    @cached_property
    def _difference(self) -> VersionDiff:
        return compare(self.table, self.before, self.after)


def _listed(columns: Sequence[str] | None) -> list[str] | None:
    return None if columns is None else list(columns)


@dataclass(frozen=True)
class AuditResult:
    """What one audit found: how many rows fail, some of them, and a sentence about it."""

    name: str
    passed: bool
    rows_failing: int
    sample: pa.Table
    detail: str

    @classmethod
    def of(cls, name: str, failing: int, sample: pa.Table, detail: str) -> AuditResult:
        """Return the result of an audit that no row may fail."""
        return cls(name, failing == 0, failing, sample, detail)


def require_columns(schema: Schema, columns: Sequence[str], table: str, audit: str) -> None:
    """Raise `ConfigurationError` for a column that the table has not."""
    known = [field.name for field in schema.fields]
    for column in columns:
        if column not in known:
            raise ConfigurationError(
                f"{table}: audit {audit} names column {column!r}, which is not there.",
                remedy=f"The columns are {', '.join(known)}.",
            )


def in_column_type(values: Sequence[Any], schema: Schema, column: str, table: str, audit: str) -> pa.Array:
    """Return declared values in a column's type; raises `ConfigurationError` where they are of another."""
    wanted = schema_to_pyarrow(schema, include_field_ids=False).field(column).type
    for given in values:
        try:
            _converted([given], wanted)
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError):
            raise ConfigurationError(
                f"{table}: audit {audit} compares column {column!r} ({schema.find_type(column)}) with "
                f"{given!r}.",
                remedy="Write values of the column's type; a timestamptz with its offset from UTC.",
            ) from None
    return _converted(values, wanted)


def _converted(values: Sequence[Any], wanted: pa.DataType) -> pa.Array:
    """A value that came through JSON is a text by now."""
    try:
        return pa.array(values, wanted)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, ValueError):
        return pa.array([str(value) for value in values]).cast(wanted)
