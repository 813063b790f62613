"""The full comparison: all values of both sides, netted against each other, spilled where they are many."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.schema import Schema

from dwh_assets.iceberg.arrow.types import align, arrow_schema, shown_values
from dwh_assets.iceberg.compute import connect
from dwh_assets.iceberg.diff.columns import internal_columns
from dwh_assets.iceberg.diff.netting import CHANGE, DELETE, INSERT, UPDATE_AFTER, UPDATE_BEFORE, NettingSql
from dwh_assets.iceberg.diff.rows import SLOT, SLOTS, WEIGHT
from dwh_assets.iceberg.diff.slots import SlottedRows
from dwh_assets.iceberg.matching.source_rows import internal_name
from dwh_assets.iceberg.sql import quote_identifier
from dwh_assets.warehouses.arriving import Arriving
from dwh_assets.warehouses.columns import decoded, fetched_sql
from dwh_assets.warehouses.parity_report import RowDifference
from dwh_assets.warehouses.sides import ComparedColumn, LakeSide, ReplicaSide

_BATCH_ROWS = 122_880
_SAMPLE = 20
_SLOTS_SQL = str(SLOTS)
_NUMBER = "_number"


@dataclass
class FullComparison:
    """What a full comparison found: how many rows each side has, and those that differ.

    `differing` counts, by column, the rows with the same key and another value there.
    """

    rows_in_table: int = 0
    rows_in_replica: int = 0
    bytes: int = 0
    missing: int = 0
    extra: int = 0
    different: int = 0
    differing: dict[str, int] = field(default_factory=dict)
    sample: list[RowDifference] = field(default_factory=list)


def compare_rows(
    lake: LakeSide, replica: ReplicaSide, columns: Sequence[ComparedColumn], keys: Sequence[str]
) -> FullComparison:
    """Compare all values of `columns`; `keys` pair rows that differ, without any they are a multiset."""
    with ExitStack() as resources:
        connection = resources.enter_context(connect())
        return _Comparison(connection, resources, columns, keys).run(lake, replica)


class _Comparison:
    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        resources: ExitStack,
        columns: Sequence[ComparedColumn],
        keys: Sequence[str],
    ) -> None:
        self._connection, self._resources, self._columns = connection, resources, columns
        fields = [column.field.model_copy(update={"required": False}) for column in columns]
        self._schema = internal_columns(Schema(*fields))
        by_name = {column.name: internal_name(column.field.field_id) for column in columns}
        self._keys = [by_name[key] for key in keys] if all(key in by_name for key in keys) else []
        self._names = {internal: name for name, internal in by_name.items()}
        self._found = FullComparison()

    def run(self, lake: LakeSide, replica: ReplicaSide) -> FullComparison:
        """Read both sides and net them."""
        found = self._found
        batches = chain(self._of_table(lake), self._of_replica(replica))
        for chunk in SlottedRows(batches, 2 * replica.rows(), self._resources).chunks():
            self._note(self._net(chunk))
        return found

    def _of_table(self, lake: LakeSide) -> Iterator[pa.RecordBatch]:
        live = lake.rows(self._connection, self._columns)
        for batch in self._slotted(self._connection, live.sql, live.parameters, "1"):
            self._found.rows_in_table += batch.num_rows
            yield batch

    def _of_replica(self, replica: ReplicaSide) -> Iterator[pa.RecordBatch]:
        values_sql = ", ".join(fetched_sql(replica.dialect, column.held) for column in self._columns)
        query_sql = f"SELECT {values_sql} FROM {replica.rows_sql}"
        arriving = Arriving(str(replica.target), None)
        held = [column.held for column in self._columns]
        rows = arriving.counted(decoded(replica.session.stream(query_sql), held, str(replica.target)))
        cursor = self._resources.enter_context(connect())
        cursor.register("arriving", self._renamed(rows, str(replica.target)))
        yield from self._slotted(cursor, f"SELECT * FROM {quote_identifier('arriving')}", (), "-1")
        self._found.rows_in_replica, self._found.bytes = arriving.rows, arriving.bytes

    def _renamed(self, rows: pa.RecordBatchReader, where: str) -> pa.RecordBatchReader:
        target = arrow_schema(self._schema)
        names = target.names
        batches = (align(batch.rename_columns(names), target, where) for batch in rows)
        return pa.RecordBatchReader.from_batches(target, batches)

    def _slotted(
        self,
        connection: duckdb.DuckDBPyConnection,
        rows_sql: str,
        parameters: Sequence[object],
        weight_sql: str,
    ) -> Iterator[pa.RecordBatch]:
        names_sql = ", ".join(quote_identifier(one.name) for one in self._schema.fields)
        told_by_sql = ", ".join(map(quote_identifier, self._keys)) or names_sql
        yield from connection.execute(
            f"SELECT {names_sql}, {weight_sql}::BIGINT AS {quote_identifier(WEIGHT)},"
            f" (hash({told_by_sql}) % {_SLOTS_SQL})::SMALLINT AS {quote_identifier(SLOT)}"
            f" FROM ({rows_sql}) AS live",
            parameters,
        ).to_arrow_reader(_BATCH_ROWS)

    def _net(self, chunk: pa.Table) -> pa.Table:
        cursor = self._connection.cursor()
        cursor.register("chunk", chunk)
        return cursor.execute(NettingSql.of(self._schema, self._keys).changes_sql).to_arrow_table()

    def _note(self, changed: pa.Table) -> None:
        """Count rows that differ, and keep some. The table's rows came, those of the replica went."""
        of_kind = {
            kind: changed.filter(pc.equal(changed[CHANGE], kind)).select(list(self._names))
            for kind in (INSERT, DELETE, UPDATE_AFTER, UPDATE_BEFORE)
        }
        found = self._found
        found.missing += of_kind[INSERT].num_rows
        found.extra += of_kind[DELETE].num_rows
        found.different += of_kind[UPDATE_AFTER].num_rows
        self._count_columns(of_kind[UPDATE_AFTER], of_kind[UPDATE_BEFORE])
        pairs = zip(self._shown(of_kind[UPDATE_AFTER]), self._shown(of_kind[UPDATE_BEFORE]), strict=True)
        found.sample.extend(RowDifference(*pair) for pair in pairs)
        found.sample.extend(RowDifference(row, None) for row in self._shown(of_kind[INSERT]))
        found.sample.extend(RowDifference(None, row) for row in self._shown(of_kind[DELETE]))

    def _shown(self, rows: pa.Table) -> list[dict[str, Any]]:
        """Return as many rows as the sample has room for, under the table's names."""
        some = rows.slice(0, max(_SAMPLE - len(self._found.sample), 0))
        values = [shown_values(column) for column in some.columns]
        return [dict(zip(self._names.values(), row, strict=True)) for row in zip(*values, strict=True)]

    def _count_columns(self, in_table: pa.Table, in_replica: pa.Table) -> None:
        if not in_table.num_rows:
            return
        cursor = self._connection.cursor()
        numbers = pa.array(range(in_table.num_rows))
        for name, side in (("in_table", in_table), ("in_replica", in_replica)):
            cursor.register(name, side.append_column(_NUMBER, numbers))
        number_sql = quote_identifier(_NUMBER)
        counts_sql = ", ".join(
            f"count(*) FILTER (WHERE a.{name_sql} IS DISTINCT FROM b.{name_sql})"
            for name_sql in map(quote_identifier, self._names)
        )
        counts = cursor.execute(
            f"SELECT {counts_sql} FROM in_table AS a JOIN in_replica AS b USING ({number_sql})"
        ).fetchone()
        for name, count in zip(self._names.values(), counts or (), strict=True):
            if count:
                self._found.differing[name] = self._found.differing.get(name, 0) + count
