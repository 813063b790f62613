"""Upsert by key: rows that match and differ are replaced, the others are inserted, equal rows stay.

The rows to replace are found by matching (positions in files) and go by position deletes, so that no
data file is written again for one changed row; a file that would lose most of its rows, or every file
where copy-on-write is asked for, is written again without them instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from pyiceberg.manifest import DataFile
from pyiceberg.table import FileScanTask, Table

from dwh_assets.config import TableLayout
from dwh_assets.iceberg.files.data_files import FileTarget
from dwh_assets.iceberg.files.layout import write_batches
from dwh_assets.iceberg.files.position_deletes import Positions, deletes_of, write_position_deletes
from dwh_assets.iceberg.files.reading import rows_at
from dwh_assets.iceberg.matching.live_rows import POSITION, live_rows
from dwh_assets.iceberg.matching.match import internal_schema, match
from dwh_assets.iceberg.matching.pruning import candidate_tasks
from dwh_assets.iceberg.matching.source_rows import SourceRows
from dwh_assets.iceberg.modes.plan import Planned, delete_unused
from dwh_assets.iceberg.sql import quote_identifier
from dwh_assets.iceberg.versions import branch_start

# A file that would lose more than this share of its rows is written again without them.
REWRITE_SHARE = 0.5


@dataclass
class RowRemoval:
    """Takes rows out of data files. What it writes belongs to one plan; the next plan calls `clear`."""

    source: SourceRows
    target: FileTarget
    layout: TableLayout
    removed: list[DataFile] = field(default_factory=list)
    rewritten: list[DataFile] = field(default_factory=list)
    deletes: list[DataFile] = field(default_factory=list)

    def clear(self) -> None:
        """Forget what the last plan did, and delete what it wrote."""
        self.discard(())
        self.removed, self.rewritten, self.deletes = [], [], []

    def discard(self, used: Sequence[DataFile]) -> None:
        """Delete what was written and is not used."""
        delete_unused(self.target, [*self.rewritten, *self.deletes], used)

    def take_out(
        self, table: Table, tasks: Sequence[FileScanTask], hits: Sequence[tuple[DataFile, Positions]]
    ) -> None:
        """Take the rows that are hit out of their files."""
        by_path = {task.file.file_path: task for task in tasks}
        marked: list[tuple[DataFile, Positions]] = []
        for file, positions in hits:
            if not self._rewrites(file, positions):
                marked.append((file, positions))
                continue
            task = by_path[file.file_path]
            self.removed += [file, *deletes_of(task)]
            self.rewritten += write_batches(self.target, self._kept(table, task, positions))
        self.deletes += write_position_deletes(table, marked)

    def _rewrites(self, file: DataFile, positions: Positions) -> bool:
        asked = self.layout.row_changes == "copy-on-write"
        return asked or len(positions) > REWRITE_SHARE * file.record_count

    def _kept(self, table: Table, task: FileScanTask, taken: Positions) -> Iterator[pa.RecordBatch]:
        """Stream the live rows of one data file, without those at the positions that are taken."""
        kept = self._kept_positions(table, task, taken)
        return (rows for rows, _ in rows_at(table.metadata, table.io, task.file, self.target.schema, kept))

    def _kept_positions(self, table: Table, task: FileScanTask, taken: Positions) -> Positions:
        """Return the positions of the live rows in order, without those that are taken."""
        live = live_rows(self.source.connection, table, [task], internal_schema(table.schema(), ()))
        position_sql = quote_identifier(POSITION)
        live_sql = f"SELECT {position_sql} FROM ({live.sql}) AS live"
        found = self.source.connection.execute(live_sql, live.parameters).to_arrow_table()
        return np.setdiff1d(found[POSITION].to_numpy(), taken)


@dataclass
class Upsert:
    """Plans one upsert; on a newer table it matches again.

    What a plan wrote and the next one does not need is deleted.
    """

    source: SourceRows
    target: FileTarget
    layout: TableLayout
    _files: list[DataFile] | None = None
    _without: pa.Array = field(default_factory=lambda: pa.array([], pa.int64()))

    def __post_init__(self) -> None:
        self._removal = RowRemoval(self.source, self.target, self.layout)

    def plan(self, table: Table, branch: str) -> Planned:
        """Match the source against the branch of `table` as it now is, and write what that needs."""
        self._removal.clear()
        tasks = self._tasks(table, branch)
        looks = self.layout.detect_unchanged
        with nullcontext() if looks else self._while_writing(self._without):
            matches = match(
                self.source,
                table,
                tasks,
                self.target.schema,
                self.layout.key_columns,
                compare=self._compared(),
            )
        with self._while_writing(matches.unchanged):
            self._removal.take_out(table, tasks, matches.hits)
        return Planned(
            added=(*(self._files or []), *self._removal.rewritten),
            removed=tuple(self._removal.removed),
            added_deletes=tuple(self._removal.deletes),
            rows_inserted=self.source.count - matches.matched,
            rows_updated=matches.matched - len(matches.unchanged),
            rows_unchanged=len(matches.unchanged),
            net_rows=self.source.count - len(matches.unchanged) - matches.rows_hit,
        )

    def discard(self, used: Sequence[DataFile]) -> None:
        """Delete what was written and is not used."""
        self._removal.discard(used)
        delete_unused(self.target, self._files or [], used)

    def _tasks(self, table: Table, branch: str) -> list[FileScanTask]:
        head = branch_start(table.metadata, branch)
        keys = {key: key for key in self.layout.key_columns}
        return candidate_tasks(self.source, table, keys, head.snapshot_id) if head else []

    def _compared(self) -> list[str] | None:
        if not self.layout.detect_unchanged:
            return None
        return [
            field.name for field in self.target.schema.fields if field.name not in self.layout.key_columns
        ]

    @contextmanager
    def _while_writing(self, unchanged: pa.Array) -> Iterator[None]:
        """Write the source beside what the block does; after it where both would ask the same connection."""
        if not self.source.in_memory:
            yield
            self._write_source(unchanged)
            return
        with ThreadPoolExecutor(1, thread_name_prefix="source") as thread:
            written = thread.submit(self._write_source, unchanged)
            yield
        written.result()

    def _write_source(self, unchanged: pa.Array) -> None:
        """Write the rows that are new or differ, unless that was done for the same set of rows already."""
        unchanged = unchanged.sort()
        if self._files is not None and unchanged.equals(self._without):
            return
        delete_unused(self.target, self._files or [], ())
        self._files = None
        self._files = write_batches(
            self.target, self.source.batches(without=unchanged), held=self.source.in_memory
        )
        self._without = unchanged
