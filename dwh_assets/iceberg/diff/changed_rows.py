"""The rows in which two versions differ: read once, when first asked for, and netted chunk by chunk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.schema import Schema
from pyiceberg.table import Table

from dwh_assets.iceberg import compute
from dwh_assets.iceberg.diff.netting import CHANGE, DELETE, INSERT, NettingSql
from dwh_assets.iceberg.diff.rows import weighted_rows
from dwh_assets.iceberg.diff.slots import SlottedRows
from dwh_assets.iceberg.diff.weights import WeightedFile, rows_to_read


@dataclass
class ChangedRows:
    """What remains of some weighted files. `columns` and `keys` are named as inside DuckDB."""

    table: Table
    files: Sequence[WeightedFile]
    columns: Schema
    keys: Sequence[str]
    _resources: ExitStack = field(default_factory=ExitStack)

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
    def counts(self) -> Counter[str]:
        """How many rows changed, by type of change; where all came, or all went, no row is read for it."""
        if only := self._only_one_way():
            return only
        counted: Counter[str] = Counter()
        for changed in self.tables():
            for found in pc.value_counts(changed[CHANGE]).to_pylist():
                counted[found["values"]] += found["counts"]
        return counted

    def _only_one_way(self) -> Counter[str] | None:
        """Count rows by their files, where no row can be the other side of another one."""
        if any(file.delete_files for file in self.files) or len({file.whole > 0 for file in self.files}) > 1:
            return None
        rows = sum(file.whole * int(file.file.record_count) for file in self.files)
        return Counter({INSERT if rows > 0 else DELETE: abs(rows)})

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

    def _net(self, chunk: pa.Table) -> pa.Table:
        cursor = self.connection.cursor()
        cursor.register("chunk", chunk)
        return cursor.execute(NettingSql.of(self.columns, self.keys).changes_sql).to_arrow_table()
