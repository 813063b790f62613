"""The rows in which two versions differ: read once, when first asked for, and netted chunk by chunk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple
from weakref import finalize

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.schema import Schema
from pyiceberg.table import Table

from dwh_assets.iceberg import compute
from dwh_assets.iceberg.diff.netting import CHANGE, DELETE, INSERT, UPDATE_AFTER, NettingSql
from dwh_assets.iceberg.diff.rows import WEIGHT, weighted_rows
from dwh_assets.iceberg.diff.slots import SlottedRows
from dwh_assets.iceberg.diff.weights import WeightedFile, one_sided, rows_to_read, with_arrivals

_COUNTED = (INSERT, DELETE, UPDATE_AFTER)
_CAME = pa.array([INSERT, UPDATE_AFTER])


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

    def came(self, columns: Schema, *, exactly: bool = True) -> Iterator[pa.RecordBatch]:
        """Yield the rows that came, updated ones as they are now, in some of the columns.

        Where other rows went, equal ones may be among both: to leave these out, all columns of both are read.
        Without `exactly` they stay, and less is read.
        """
        names = [column.name for column in columns.fields]
        if not exactly or one_sided(self.files):
            yield from self._arrivals(columns, names)
            return
        for table in self.tables():
            yield from table.filter(pc.is_in(table[CHANGE], _CAME)).select(names).to_batches()

    def _arrivals(self, columns: Schema, names: list[str]) -> Iterator[pa.RecordBatch]:
        with compute.connect() as connection:
            files = with_arrivals(self.files)
            for batch in weighted_rows(connection, self.table, files, columns, names):
                copies = np.maximum(batch.column(WEIGHT).to_numpy(), 0)
                rows = batch.select(names)
                yield rows if (copies == 1).all() else rows.take(np.repeat(np.arange(len(copies)), copies))

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
