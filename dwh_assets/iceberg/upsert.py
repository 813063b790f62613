"""Upsert by key: rows that match and differ are replaced, the others are inserted, equal rows stay.

The rows to replace are found by matching (positions in files) and go by position deletes, so that no
data file is written again for one changed row; a file that would lose most of its rows, or every file
where copy-on-write is asked for, is written again without them instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pyarrow as pa
from pyiceberg.manifest import DataFile
from pyiceberg.table import FileScanTask, Table

from dwh_assets.config import TableLayout
from dwh_assets.iceberg.arrow_types import align
from dwh_assets.iceberg.data_files import FileTarget
from dwh_assets.iceberg.layout import write_batches
from dwh_assets.iceberg.live_rows import FILE, POSITION, live_rows
from dwh_assets.iceberg.matching import Matches, candidate_tasks, match
from dwh_assets.iceberg.modes import Planned, delete_unused
from dwh_assets.iceberg.overwrite import deletes_of
from dwh_assets.iceberg.position_deletes import Positions, write_position_deletes
from dwh_assets.iceberg.source_rows import SourceRows
from dwh_assets.iceberg.sql import quote_identifier

# A file that would lose more than this share of its rows is written again without them.
REWRITE_SHARE = 0.5


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
    _for_this_plan: list[DataFile] = field(default_factory=list)

    def plan(self, table: Table, branch: str) -> Planned:
        """Match the source against the branch of `table` as it now is, and write what that needs."""
        delete_unused(self.target, self._for_this_plan, ())
        self._for_this_plan = []
        tasks = self._tasks(table, branch)
        matches = match(self.source, table, tasks, self.layout.key_columns, compare=self._compared())
        added = self._write_source(matches.unchanged)
        removed, rewritten, deletes = self._remove(table, tasks, matches)
        return Planned(
            added=(*added, *rewritten),
            removed=tuple(removed),
            added_deletes=tuple(deletes),
            rows_inserted=self.source.count - matches.matched,
            rows_updated=matches.matched - len(matches.unchanged),
            rows_unchanged=len(matches.unchanged),
        )

    def discard(self, used: Sequence[DataFile]) -> None:
        """Delete what was written and is not used."""
        delete_unused(self.target, [*self._for_this_plan, *(self._files or [])], used)

    def _tasks(self, table: Table, branch: str) -> list[FileScanTask]:
        head = table.metadata.snapshot_by_name(branch) or table.current_snapshot()
        return candidate_tasks(self.source, table, self.layout.key_columns, head.snapshot_id) if head else []

    def _compared(self) -> list[str] | None:
        if not self.layout.detect_unchanged:
            return None
        return [
            field.name for field in self.target.schema.fields if field.name not in self.layout.key_columns
        ]

    def _write_source(self, unchanged: pa.Array) -> list[DataFile]:
        """Write the rows that are new or differ, unless that was done for the same set of rows already."""
        unchanged = unchanged.sort()
        if self._files is None or not unchanged.equals(self._without):
            delete_unused(self.target, self._files or [], ())
            self._files = write_batches(self.target, self.source.batches(without=unchanged))
            self._without = unchanged
        return self._files

    def _remove(
        self, table: Table, tasks: Sequence[FileScanTask], matches: Matches
    ) -> tuple[list[DataFile], list[DataFile], list[DataFile]]:
        """Take the rows that are hit out of their files; return removed, rewritten and delete files."""
        by_path = {task.file.file_path: task for task in tasks}
        removed: list[DataFile] = []
        rewritten: list[DataFile] = []
        marked: list[tuple[DataFile, Positions]] = []
        for file, positions in matches.hits:
            if not self._rewrites(file, positions):
                marked.append((file, positions))
                continue
            task = by_path[file.file_path]
            removed += [file, *deletes_of(task)]
            kept = self._rewrite(table, task, positions)
            rewritten += kept
            self._for_this_plan += kept
        deletes = write_position_deletes(table, marked)
        self._for_this_plan += deletes
        return removed, rewritten, deletes

    def _rewrites(self, file: DataFile, positions: Positions) -> bool:
        asked = self.layout.row_changes == "copy-on-write"
        return asked or len(positions) > REWRITE_SHARE * file.record_count

    def _rewrite(self, table: Table, task: FileScanTask, positions: Positions) -> list[DataFile]:
        """Write the live rows of one data file again, without those at `positions`."""
        connection = self.source.connection
        connection.register("taken", pa.table({POSITION: positions}))
        rows = live_rows(connection, table, [task], table.schema())
        position_sql, file_sql = quote_identifier(POSITION), quote_identifier(FILE)
        kept_sql = (
            f"SELECT * EXCLUDE ({position_sql}, {file_sql}) FROM ({rows.sql}) AS live"
            f" ANTI JOIN taken USING ({position_sql}) ORDER BY live.{position_sql}"
        )
        kept = connection.execute(kept_sql, rows.parameters).to_arrow_reader()
        name = ".".join(table.name())
        return write_batches(self.target, (align(batch, self.target.arrow_schema, name) for batch in kept))
