"""Merge: rows of the data and of the table are paired by a condition, then clauses decide, the first wins.

As in SQL's MERGE. One pass reads the columns that the conditions need and notes for each pair, and each row
without a partner, which clause applies (the DuckDB table `decided`). Only then are whole rows read, from the
files in which an update sets some columns and keeps the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import duckdb
import pyarrow as pa
from pyiceberg.manifest import DataFile
from pyiceberg.schema import Schema
from pyiceberg.table import FileScanTask, Table

from dwh_assets.config import TableLayout
from dwh_assets.errors import DataError
from dwh_assets.iceberg.arrow.types import align, arrow_schema
from dwh_assets.iceberg.faults import first_line
from dwh_assets.iceberg.files.data_files import FileTarget
from dwh_assets.iceberg.files.layout import write_batches
from dwh_assets.iceberg.files.position_deletes import Positions
from dwh_assets.iceberg.files.reading import rows_at
from dwh_assets.iceberg.matching.live_rows import (
    FILE,
    POSITION,
    LiveRows,
    batch_with_place,
    live_rows,
    local_file,
    with_place,
)
from dwh_assets.iceberg.matching.match import (
    by_file,
    equal_keys_sql,
    internal_schema,
)
from dwh_assets.iceberg.matching.pruning import candidate_tasks
from dwh_assets.iceberg.matching.source_rows import ROW, SourceRows, repeated
from dwh_assets.iceberg.modes.merge_clauses import Clause, Clauses
from dwh_assets.iceberg.modes.plan import Planned, delete_unused
from dwh_assets.iceberg.modes.upsert import RowRemoval
from dwh_assets.iceberg.planning import planned_files
from dwh_assets.iceberg.sql import quote_identifier
from dwh_assets.iceberg.versions import branch_start

_FILE_SQL, _POSITION_SQL, _ROW_SQL = (quote_identifier(name) for name in (FILE, POSITION, ROW))
_PLACE_SQL = f"{_FILE_SQL}, {_POSITION_SQL}"
# For joins of target with decided: the same row of the same file.
_SAME_PLACE_SQL = " AND ".join(f"target.{name} = decided.{name}" for name in (_FILE_SQL, _POSITION_SQL))
_SAMPLE = 5
_WRONG_VALUES = (duckdb.ConversionException, duckdb.OutOfRangeException, duckdb.InvalidInputException)


@dataclass
class Merge:
    """Plans one merge; on a newer table it decides again. What the last plan wrote is deleted."""

    source: SourceRows
    target: FileTarget
    layout: TableLayout
    clauses: Clauses
    table: str
    _files: list[DataFile] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._removal = RowRemoval(self.source, self.target, self.layout)
        self._connection = self.source.connection
        self._live_files: tuple[DataFile, ...] = ()

    def plan(self, table: Table, branch: str) -> Planned:
        """Decide on every row against the branch of `table` as it now is, and write what that needs."""
        self._removal.clear()
        self.discard(())
        self._files = []
        tasks = self._tasks(table, branch)
        try:
            self._decide(table, tasks)
            self._require_one_change_a_row()
            self._require_new_keys_once()
            self._files = write_batches(self.target, self._rows(table))
        except _WRONG_VALUES as error:
            if any((local_file(file.file_path) or file.file_path) in str(error) for file in self._live_files):
                raise  # a file cannot be read, whatever the expressions say
            raise DataError(
                f"{self.table}: an expression of the merge fails on some row: {first_line(error)}",
                remedy="Mend the value, or catch it in the expression, for example with TRY_CAST or CASE.",
            ) from error
        hits = self._hits()
        self._removal.take_out(table, tasks, hits)
        return self._planned(sum(len(positions) for _, positions in hits))

    def discard(self, used: Sequence[DataFile]) -> None:
        """Delete what was written and is not used."""
        self._removal.discard(used)
        delete_unused(self.target, self._files, used)

    def _tasks(self, table: Table, branch: str) -> list[FileScanTask]:
        head = branch_start(table.metadata, branch)
        if head is None:
            return []
        if self.clauses.of("not_matched_by_source"):
            return planned_files(table.scan(snapshot_id=head.snapshot_id))
        return candidate_tasks(self.source, table, self._equal_columns(), head.snapshot_id)

    def _equal_columns(self) -> dict[str, str]:
        """Return which column of the data equals which one of the table in every pair, by bounds to prune."""
        if self.clauses.on is None:
            return {key: key for key in self.layout.key_columns}
        types = {field.name: field.field_type for field in self.target.schema.fields}
        return {
            theirs: ours for theirs, ours in self.clauses.on.equalities if types.get(theirs) == types[ours]
        }

    def _decide(self, table: Table, tasks: Sequence[FileScanTask]) -> None:
        """Fill `decided`: what pairs, and the number of the clause that applies, -1 for none."""
        live = self._live(table, tasks) if tasks else LiveRows("", ())
        self._live_files = live.files
        self._create_decided()
        if tasks:
            self._decide_matched(live)
            if self.clauses.of("not_matched_by_source"):
                self._decide_not_matched_by_source(self._live(table, tasks))
        choice_sql = self.clauses.choice_sql("not_matched")
        self._connection.execute(
            f"INSERT INTO decided SELECT NULL, NULL, source.{_ROW_SQL}, {choice_sql} AS choice, true"
            f" FROM source ANTI JOIN decided ON source.{_ROW_SQL} = decided.{_ROW_SQL} WHERE choice >= 0"
        )

    def _create_decided(self) -> None:
        self._connection.execute("DROP TABLE IF EXISTS decided")
        self._connection.execute(
            f"CREATE TEMP TABLE decided ({_FILE_SQL} BIGINT, {_POSITION_SQL} BIGINT, {_ROW_SQL} BIGINT,"
            " clause INTEGER, differs BOOLEAN)"
        )

    def _live(self, table: Table, tasks: Sequence[FileScanTask]) -> LiveRows:
        on = self.clauses.on.reads["target"] if self.clauses.on else self.layout.key_columns
        columns = frozenset(on).union(*(clause.reads for clause in self.clauses.clauses))
        return live_rows(self._connection, table, tasks, internal_schema(self.target.schema, columns))

    def _decide_matched(self, live: LiveRows) -> None:
        choice_sql, differs_sql = self.clauses.choice_sql("matched"), self.clauses.differs_sql("matched")
        if self.clauses.on is None:
            on_sql = equal_keys_sql(self.source, self.target.schema, self.layout.key_columns)
        else:
            on_sql = self.clauses.on.sql
        self._connection.execute(
            f"INSERT INTO decided SELECT target.{_FILE_SQL}, target.{_POSITION_SQL}, source.{_ROW_SQL},"
            f" {choice_sql}, {differs_sql} FROM ({live.sql}) AS target JOIN source ON {on_sql}",
            live.parameters,
        )

    def _decide_not_matched_by_source(self, live: LiveRows) -> None:
        when = "not_matched_by_source"
        choice_sql, differs_sql = self.clauses.choice_sql(when), self.clauses.differs_sql(when)
        self._connection.execute(
            f"INSERT INTO decided SELECT target.{_FILE_SQL}, target.{_POSITION_SQL}, NULL,"
            f" {choice_sql} AS choice, {differs_sql} FROM ({live.sql}) AS target"
            f" ANTI JOIN decided ON {_SAME_PLACE_SQL} WHERE choice >= 0",
            live.parameters,
        )

    def _require_one_change_a_row(self) -> None:
        """Raise `DataError` that shows some of what several rows of the data want done to one row."""
        several_sql = (
            f"SELECT {_PLACE_SQL}, min({_ROW_SQL}) AS {_ROW_SQL}, count(*) AS times FROM decided"
            f" WHERE clause >= 0 AND {_FILE_SQL} IS NOT NULL GROUP BY {_PLACE_SQL} HAVING times > 1"
        )
        shown = self._told_apart_by()
        columns_sql = "".join(f"source.{quote_identifier(self.source.names[name])}, " for name in shown)
        sample = self._connection.execute(
            f"SELECT DISTINCT {columns_sql} several.times FROM ({several_sql}) AS several"
            f" JOIN source ON source.{_ROW_SQL} = several.{_ROW_SQL} LIMIT ?",
            [_SAMPLE],
        ).to_arrow_table()
        if sample.num_rows:
            raise DataError(
                f"{self.table}: several rows of the data change one row of the table: "
                f"{repeated(shown, sample)}.",
                remedy="Give each row once, set on_duplicate to first or last, or narrow on and if.",
            )

    def _told_apart_by(self) -> list[str]:
        """Return the columns that show which rows of the data are meant."""
        read = self.clauses.on.reads["source"] if self.clauses.on else ()
        return self.layout.key_columns or sorted(read) or list(self.source.names)

    def _require_new_keys_once(self) -> None:
        """Raise `DataError` when rows to insert repeat a key, which is to identify a row."""
        keys = self.layout.key_columns
        inserts = self.clauses.of("not_matched")
        if not keys or not inserts:
            return
        keys_sql = " UNION ALL ".join(
            f"SELECT {clause.columns_sql(keys)} FROM {self._taken_sql(clause)}" for clause in inserts
        )
        sample = self._connection.execute(
            f"SELECT *, count(*) AS times FROM ({keys_sql}) GROUP BY ALL HAVING times > 1 LIMIT ?", [_SAMPLE]
        ).to_arrow_table()
        if sample.num_rows:
            raise DataError(
                f"{self.table}: rows to insert repeat a key: {repeated(keys, sample)}.",
                remedy="Give each key once, or set on_duplicate to first or last.",
            )

    def _taken_sql(self, clause: Clause) -> str:
        return (
            f"(SELECT {_ROW_SQL} FROM decided WHERE clause = {clause.number_sql} AND differs) AS chosen"
            f" JOIN source ON source.{_ROW_SQL} = chosen.{_ROW_SQL}"
        )

    def _rows(self, table: Table) -> Iterator[pa.RecordBatch]:
        """Stream the rows to add: updated ones as they become, and new ones."""
        columns = list(self.target.arrow_schema.names)
        for clause in self.clauses.clauses:
            if clause.then == "delete":
                continue
            from_sql = self._updated_sql(table, clause) if clause.keeps_values else self._taken_sql(clause)
            rows_sql = f"SELECT {clause.columns_sql(columns)} FROM {from_sql}"
            for batch in self._connection.execute(rows_sql).to_arrow_reader():
                yield align(batch.rename_columns(columns), self.target.arrow_schema, self.table)

    def _updated_sql(self, table: Table, clause: Clause) -> str:
        """Return what the rows that a clause updates are made from; only their files are read."""
        schema = internal_schema(self.target.schema, self.target.arrow_schema.names)
        arrow = with_place(arrow_schema(schema))
        batches = self._rows_before(table, schema, arrow, self._hits(clause))
        self._connection.register("before", pa.RecordBatchReader.from_batches(arrow, batches))
        return (
            f"before AS target JOIN decided"
            f" ON {_SAME_PLACE_SQL} AND decided.clause = {clause.number_sql}"
            f" LEFT JOIN source ON source.{_ROW_SQL} = decided.{_ROW_SQL}"
        )

    def _rows_before(
        self, table: Table, schema: Schema, arrow: pa.Schema, hits: Sequence[tuple[DataFile, Positions]]
    ) -> Iterator[pa.RecordBatch]:
        numbers = {file.file_path: number for number, file in enumerate(self._live_files)}
        for file, positions in hits:
            for rows, places in rows_at(table.metadata, table.io, file, schema, positions):
                yield batch_with_place(rows, numbers[file.file_path], places, arrow)

    def _hits(self, clause: Clause | None = None) -> list[tuple[DataFile, Positions]]:
        """Return the rows of the table that go or become others, by one clause where it is given."""
        chosen_sql = f"clause = {clause.number_sql}" if clause else "clause >= 0"
        hits_sql = (
            f"SELECT {_PLACE_SQL} FROM decided WHERE {chosen_sql} AND differs AND {_FILE_SQL} IS NOT NULL"
        )
        return by_file(self._connection.execute(hits_sql).to_arrow_table(), self._live_files)

    def _planned(self, rows_taken: int) -> Planned:
        counts_sql = "SELECT clause, differs, count(*) FROM decided WHERE clause >= 0 GROUP BY ALL"
        rows = dict.fromkeys(("insert", "update", "delete", "unchanged"), 0)
        for number, differs, times in self._connection.execute(counts_sql).fetchall():
            rows[self.clauses.clauses[number].then if differs else "unchanged"] += times
        return Planned(
            added=(*self._files, *self._removal.rewritten),
            removed=tuple(self._removal.removed),
            added_deletes=tuple(self._removal.deletes),
            rows_inserted=rows["insert"],
            rows_updated=rows["update"],
            rows_deleted=rows["delete"],
            rows_unchanged=rows["unchanged"],
            net_rows=sum(file.record_count for file in self._files) - rows_taken,
        )
