"""The rows in which two versions differ: read once, when first asked for, and netted chunk by chunk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple
from weakref import finalize

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.schema import Schema
from pyiceberg.table import Table

from dwh_assets.iceberg import compute
from dwh_assets.iceberg.diff.netting import CHANGE, DELETE, INSERT, UPDATE_AFTER, NettingSql
from dwh_assets.iceberg.diff.rows import weighted_rows
from dwh_assets.iceberg.diff.slots import SlottedRows
from dwh_assets.iceberg.diff.weights import WeightedFile, one_sided, rows_to_read

_COUNTED = (INSERT, DELETE, UPDATE_AFTER)


class Counts(NamedTuple):
    """How many rows came, went, and were updated."""

    added: int = 0
    removed: int = 0
    modified: int = 0


@dataclass
class ChangedRows:
    """What remains of some weighted files. `columns` and `keys` are named as inside DuckDB."""

    table: Table
    files: Sequence[WeightedFile]
    columns: Schema
    keys: Sequence[str]
    _resources: ExitStack = field(default_factory=ExitStack)

    def __post_init__(self) -> None:
        finalize(self, self._resources.close)

    def close(self) -> None:
        """Remove what is on disk."""
        self._resources.close()

    @cached_property
    def connection(self) -> duckdb.DuckDBPyConnection:
        """The DuckDB that computes with these rows."""
        return self._resources.enter_context(compute.connect())

    @cached_property
    def _rows(self) -> SlottedRows:
        names = [column.name for column in self.columns.fields]
        batches = weighted_rows(self.connection, self.table, self.files, self.columns, self.keys or names)
        return SlottedRows(batches, rows_to_read(self.files), self._resources)

    @cached_property
    def counts(self) -> Counts:
        """How many rows changed; where they only came, or only went, none is read to tell."""
        if one_sided(self.files):
            total = sum(file.total(self.table.io) for file in self.files)
            return Counts(added=max(total, 0), removed=max(-total, 0))
        if self._rows.in_memory:  # where the rows themselves are at hand
            return Counts(*(sum(_count(table, kind) for table in self._few) for kind in _COUNTED))
        each = [self._run(self._sql.counts_sql, chunk).fetchone() or () for chunk in self._rows.chunks()]
        return Counts(*map(sum, zip(*each, strict=True)))

    def tables(self) -> Iterator[pa.Table]:
        """Yield the changed rows, with `_change` and `_pair`; rows of one key are in one table."""
        if self._rows.in_memory:
            yield from self._few
        else:
            yield from map(self._net, self._rows.chunks())

    @cached_property
    def _few(self) -> list[pa.Table]:
        """What was netted of rows that are all in memory."""
        return [self._net(chunk) for chunk in self._rows.chunks()]

    @property
    def _sql(self) -> NettingSql:
        return NettingSql.of(self.columns, self.keys)

    def _net(self, chunk: pa.Table) -> pa.Table:
        return self._run(self._sql.changes_sql, chunk).to_arrow_table()

    def _run(self, query_sql: str, chunk: pa.Table) -> duckdb.DuckDBPyConnection:
        cursor = self.connection.cursor()
        cursor.register("chunk", chunk)
        return cursor.execute(query_sql)


def _count(changed: pa.Table, kind: str) -> int:
    return int(pc.sum(pc.equal(changed[CHANGE], kind)).as_py() or 0)
