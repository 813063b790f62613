"""The rows that an upsert or merge brings: held where DuckDB can join them, in memory or spilled to disk.

Inside DuckDB a column is called by its field id, the same on both sides of a join. So no name of a table
can be taken for one of ours, for one of DuckDB's, or for another one in different letter case.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import chain
from typing import Any, Self

import numpy as np
import pyarrow as pa

from dwh_assets.config import TableLayout
from dwh_assets.errors import ConfigurationError, DataError
from dwh_assets.iceberg.arrow.types import FIELD_ID, align, shown_values
from dwh_assets.iceberg.bounded import bounded_duckdb
from dwh_assets.iceberg.files.position_deletes import Positions
from dwh_assets.iceberg.sql import quote_identifier

ROW = "_row"
_IN_MEMORY_BYTES = 256 << 20
_BATCH_ROWS = 122_880
_SAMPLE = 5


def internal_name(field_id: int) -> str:
    """Return what a column of the table is called inside DuckDB."""
    return f"column_{field_id}"


def internal_names(schema: pa.Schema) -> dict[str, str]:
    """Return what each column is called inside DuckDB; one that is not of the table has no field id."""
    return {
        field.name: internal_name(int(field.metadata[FIELD_ID]))
        if FIELD_ID in (field.metadata or {})
        else f"extra_{position}"
        for position, field in enumerate(schema)
    }


class SourceRows:
    """Rows by number (`_row`) in the DuckDB relation `source`. Use as a context manager.

    A small source stays an Arrow table; a larger one becomes a DuckDB table that spills to a temporary
    folder, so that memory stays bounded.
    """

    def __init__(self, reader: pa.RecordBatchReader, layout: TableLayout, table: str) -> None:
        self._resources = ExitStack()
        self._schema = reader.schema
        self._table = table
        self.names = internal_names(reader.schema)
        self._keys = layout.key_columns
        self._keys_sql = [quote_identifier(self._internal(key)) for key in layout.key_columns]
        order = layout.duplicate_order
        order_sql = None if order is None else quote_identifier(self._internal(order))
        self._nulls_match = layout.null_keys == "match"
        matched_by_key = layout.merge is None or layout.merge.on is None
        self._rows: pa.Table | None = None
        self._sorted: dict[str, Positions] = {}
        # DuckDB hands the keys of a join to Arrow as a filter, and cannot do so with UUIDs.
        has_uuids = any(isinstance(field.type, pa.UuidType) for field in reader.schema)
        self.connection = self._resources.enter_context(bounded_duckdb(joins_filter_arrow=not has_uuids))
        try:
            self._load(reader)
            if matched_by_key and not self._nulls_match:
                self._require_keys()
            if layout.on_duplicate != "error":
                self._keep_one(layout.on_duplicate, order_sql)
            elif layout.merge is None:
                self._require_unique_keys()
        except BaseException:
            self._resources.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()

    def _internal(self, column: str) -> str:
        """Return what a declared column is called inside DuckDB."""
        if column not in self.names:
            raise ConfigurationError(
                f"{self._table}: there is no column {column!r} to tell rows apart by.",
                remedy=f"Correct key_columns and duplicate_order; the columns are {', '.join(self.names)}.",
            )
        return self.names[column]

    def _load(self, reader: pa.RecordBatchReader) -> None:
        first: list[pa.RecordBatch] = []
        size = 0
        for batch in reader:
            first.append(batch)
            size += batch.nbytes
            if size > _IN_MEMORY_BYTES:
                self._spill(reader.schema, chain(first, reader))
                return
        self._hold(pa.Table.from_batches(first, reader.schema))

    def _hold(self, rows: pa.Table) -> None:
        self._rows = rows
        numbered = rows.rename_columns(list(self.names.values()))
        self.connection.register("source", numbered.append_column(ROW, pa.array(np.arange(rows.num_rows))))

    def _spill(self, schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> None:
        renamed = [field.with_name(name) for field, name in zip(schema, self.names.values(), strict=True)]
        numbered = pa.schema([*renamed, pa.field(ROW, pa.int64())])
        arriving = pa.RecordBatchReader.from_batches(numbered, _numbered(batches, numbered))
        self.connection.register("arriving", arriving)
        self.connection.execute("CREATE TABLE source AS SELECT * FROM arriving")
        self.connection.unregister("arriving")

    @property
    def count(self) -> int:
        """Number of rows."""
        if self._rows is not None:
            return int(self._rows.num_rows)
        return int((self.connection.execute("SELECT count(*) FROM source").fetchone() or (0,))[0])

    @property
    def in_memory(self) -> bool:
        """Whether the rows are held in memory, and not spilled to disk."""
        return self._rows is not None

    @property
    def equality_sql(self) -> str:
        """How keys are compared: nulls only where they may stand for a value."""
        return "IS NOT DISTINCT FROM" if self._nulls_match else "="

    def key_range(self, key: str) -> tuple[Any, Any] | None:
        """Return the least and the greatest value of a key column; None where a null may match."""
        key_sql = quote_identifier(self._internal(key))
        range_sql = (
            f"SELECT min({key_sql}) AS low, max({key_sql}) AS high, count(*) - count({key_sql}) AS nulls"
            " FROM source"
        )
        try:
            found = self.connection.execute(range_sql).to_arrow_table().to_pylist()[0]
        except (OverflowError, ValueError):
            return None  # a date beyond those that Python knows
        if found["low"] is None or (found["nulls"] and self._nulls_match):
            return None
        return found["low"], found["high"]

    def sorted_values(self, key: str) -> Positions:
        """Return the values of an integer key column in order, without nulls."""
        if key not in self._sorted:
            self._sorted[key] = np.sort(self._values(key))
        return self._sorted[key]

    def _values(self, key: str) -> Positions:
        if self._rows is not None:
            return np.asarray(self._rows[key].drop_null().cast(pa.int64()), np.int64)
        key_sql = quote_identifier(self._internal(key))
        values_sql = f"SELECT DISTINCT {key_sql}::BIGINT AS value FROM source WHERE {key_sql} IS NOT NULL"
        return np.asarray(self.connection.execute(values_sql).to_arrow_table()["value"], np.int64)

    def _are_unique(self) -> bool:
        """Tell by sorting, where there is one integer key, which is quicker than grouping; else be unsure."""
        if self._rows is None or len(self._keys) != 1:
            return False
        (key,) = self._keys
        if not pa.types.is_integer(self._schema.field(key).type):
            return False
        values = self.sorted_values(key)
        return len(values) == self.count and bool((np.diff(values) != 0).all())

    def _require_unique_keys(self) -> None:
        """Raise `DataError` that shows some of the keys which occur more than once."""
        if self._are_unique():
            return
        keys_sql = ", ".join(self._keys_sql)
        unique_sql = f"SELECT count(*) FROM (SELECT DISTINCT {keys_sql} FROM source)"
        total, unique = self.count, (self.connection.execute(unique_sql).fetchone() or (0,))[0]
        if total == unique:
            return
        sample_sql = f"SELECT {keys_sql}, count(*) AS times FROM source GROUP BY ALL HAVING times > 1 LIMIT ?"
        sample = self.connection.execute(sample_sql, [_SAMPLE]).to_arrow_table()
        shown = repeated(self._keys, sample)
        raise DataError(
            f"{self._table}: {total - unique} rows of the data repeat a key: {shown}.",
            remedy="Give each key once, or set on_duplicate to first or last.",
        )

    def _require_keys(self) -> None:
        """Raise `DataError` when a key column holds a null."""
        for key, key_sql in zip(self._keys, self._keys_sql, strict=True):
            null_sql = f"SELECT count(*) FROM source WHERE {key_sql} IS NULL"
            nulls = (self.connection.execute(null_sql).fetchone() or (0,))[0]
            if nulls:
                raise DataError(
                    f"{self._table}: key column {key!r} is null in {nulls} rows of the data.",
                    remedy="Fill the key, or set null_keys: match to treat nulls as equal.",
                )

    def _keep_one(self, which: str, column_sql: str | None) -> None:
        """Keep of each key the first or last row by the order column, or by arrival."""
        keys_sql = ", ".join(self._keys_sql)
        row_sql = quote_identifier(ROW)
        direction_sql = "DESC" if which == "last" else "ASC"
        order_sql = f"{column_sql} {direction_sql} NULLS LAST, " if column_sql else ""
        kept_sql = (
            f"SELECT * FROM source QUALIFY row_number() OVER"
            f" (PARTITION BY {keys_sql} ORDER BY {order_sql}{row_sql} {direction_sql}) = 1"
        )
        if self._rows is None:
            self.connection.execute(f"CREATE TABLE kept AS {kept_sql}")
            self.connection.execute("DROP TABLE source")
            self.connection.execute("ALTER TABLE kept RENAME TO source")
            return
        numbers = self.connection.execute(
            f"SELECT {row_sql} FROM ({kept_sql}) ORDER BY ALL"
        ).to_arrow_table()[ROW]
        self.connection.unregister("source")
        self._sorted.clear()
        self._hold(self._rows.take(numbers))

    def batches(self, without: pa.Array | None = None) -> Iterator[pa.RecordBatch]:
        """Stream the rows, without those whose numbers are in `without`."""
        if self._rows is not None:
            yield from _without(self._rows, without).to_batches(_BATCH_ROWS)
            return
        self.connection.register(
            "unwanted", pa.table({ROW: pa.array([], pa.int64()) if without is None else without})
        )
        row_sql = quote_identifier(ROW)
        kept_sql = f"SELECT * EXCLUDE ({row_sql}) FROM source ANTI JOIN unwanted USING ({row_sql})"
        for batch in self.connection.execute(kept_sql).to_arrow_reader(_BATCH_ROWS):
            yield align(batch.rename_columns(list(self.names)), self._schema, self._table)


def repeated(columns: Sequence[str], sample: pa.Table) -> str:
    """Say which values stand in each row of a sample, and, from its last column, how many times."""
    rows = zip(*(shown_values(column) for column in sample.columns), strict=True)
    shown = []
    for *values, times in rows:
        key = ", ".join(f"{name} = {value!r}" for name, value in zip(columns, values, strict=True))
        shown.append(f"{key} {times} times")
    return "; ".join(shown)


def _numbered(batches: Iterator[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Append the row number to each batch."""
    start = 0
    for batch in batches:
        numbers = pa.array(np.arange(start, start + batch.num_rows))
        yield pa.RecordBatch.from_arrays([*batch.columns, numbers], schema=schema)
        start += batch.num_rows


def _without(rows: pa.Table, numbers: pa.Array | None) -> pa.Table:
    if numbers is None or not len(numbers):
        return rows
    kept = np.ones(rows.num_rows, bool)
    kept[numbers.to_numpy()] = False
    return rows.filter(pa.array(kept))
