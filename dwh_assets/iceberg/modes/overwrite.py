"""Which files an overwrite takes away: whole ones by metadata alone, others written again without rows."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
from pyiceberg.expressions import AlwaysTrue, BooleanExpression
from pyiceberg.manifest import DataFile
from pyiceberg.table import FileScanTask, Table
from pyiceberg.table.metadata import TableMetadata

from dwh_assets.iceberg.arrow.types import align
from dwh_assets.iceberg.files.data_files import FileTarget
from dwh_assets.iceberg.files.layout import TableFilesWriter
from dwh_assets.iceberg.files.partition_set import PartitionSet
from dwh_assets.iceberg.files.position_deletes import Positions, deletes_of, write_position_deletes
from dwh_assets.iceberg.files.reading import deleted_positions, live_batches, live_count
from dwh_assets.iceberg.filters import matches
from dwh_assets.iceberg.modes.plan import Planned, delete_unused
from dwh_assets.iceberg.planning import planned_files
from dwh_assets.iceberg.versions import branch_start


@dataclass
class _Rewrite:
    """One data file without the rows that match; no files when no row matched."""

    kept_files: list[DataFile]
    rows_deleted: int


@dataclass
class Overwrite:
    """Replaces all rows that match `where`, and lie in `partitions` if given, by the rows of `files`.

    A file whose partition lies wholly inside of that goes without being read. One that may hold
    other rows is read and its other rows are written again; the work is remembered, so that a retry
    of the commit repeats only what other writers changed. Rows decide, not files: a file of an older
    partition spec gives up just those of its rows that lie in one of the partitions.
    """

    target: FileTarget
    files: list[DataFile]
    where: BooleanExpression
    partitions: PartitionSet | None = None
    _rewrites: dict[tuple[str, frozenset[str]], _Rewrite] = field(default_factory=dict)
    _deletes: list[DataFile] = field(default_factory=list)

    def plan(self, table: Table, branch: str) -> Planned:
        """Take away what matches on the branch, as it now is, and add the files."""
        delete_unused(self.target, self._deletes, ())
        self._deletes = []
        added = list(self.files)
        rows = 0
        gone: list[FileScanTask] = []
        for task in self._concerned(table, branch):
            if self._goes_whole(task):
                gone.append(task)
                rows += live_count(table.metadata, table.io, task)
                continue
            rewrite = self._rewrite(table, task)
            if rewrite.rows_deleted:
                gone.append(task)
                added += rewrite.kept_files
                rows += rewrite.rows_deleted
        removed_deletes = self._release_deletes(table, branch, gone)
        return Planned(
            added=tuple(added),
            removed=(*(task.file for task in gone), *removed_deletes),
            added_deletes=tuple(self._deletes),
            rows_inserted=sum(file.record_count for file in self.files),
            rows_deleted=rows,
            net_rows=sum(file.record_count for file in self.files) - rows,
        )

    def discard(self, used: Sequence[DataFile]) -> None:
        """Delete what was written and is not used."""
        rewritten = [file for rewrite in self._rewrites.values() for file in rewrite.kept_files]
        delete_unused(self.target, [*self.files, *rewritten, *self._deletes], used)

    def _concerned(self, table: Table, branch: str) -> list[FileScanTask]:
        """Return the files that may hold a row to replace."""
        if self.partitions is None:
            return self._tasks(table, branch, self.where)
        if not self.partitions:
            return []
        tasks = self._tasks(table, branch, self.where)
        return [task for task in tasks if self.partitions.may_hold(task.file)]

    def _goes_whole(self, task: FileScanTask) -> bool:
        inside = self.partitions is None or self.partitions.holds_whole(task.file)
        return inside and task.residual == AlwaysTrue()

    def _tasks(self, table: Table, branch: str, where: BooleanExpression) -> list[FileScanTask]:
        head = branch_start(table.metadata, branch)
        if head is None:
            return []
        planned = table.scan(row_filter=where, snapshot_id=head.snapshot_id)
        return planned_files(planned.update(table_metadata=self._with_new_columns(table.metadata)))

    def _with_new_columns(self, metadata: TableMetadata) -> TableMetadata:
        """Let the filter speak of columns that this write adds: they are null in every row so far."""
        new_id = max(schema.schema_id for schema in metadata.schemas) + 1
        schema = self.target.schema.model_copy(update={"schema_id": new_id})
        return metadata.model_copy(
            update={"schemas": [*metadata.schemas, schema], "current_schema_id": new_id}
        )

    def _release_deletes(self, table: Table, branch: str, gone: list[FileScanTask]) -> list[DataFile]:
        """Return the delete files that go with their data files.

        One that concerns files which stay, too, is written again for these alone, or it would count
        deletions of rows that are no longer there.
        """
        released = {file.file_path: file for task in gone for file in task.delete_files}
        own = {file.file_path for task in gone for file in deletes_of(task)}
        if released.keys() > own:
            paths = {task.file.file_path for task in gone}
            staying = [t for t in self._tasks(table, branch, AlwaysTrue()) if t.file.file_path not in paths]
            self._deletes = write_position_deletes(table, _still_deleted(table, staying, released))
        return list(released.values())

    def _rewrite(self, table: Table, task: FileScanTask) -> _Rewrite:
        key = (task.file.file_path, frozenset(delete.file_path for delete in task.delete_files))
        if key not in self._rewrites:
            self._rewrites[key] = self._write_kept(table, task)
        return self._rewrites[key]

    def _write_kept(self, table: Table, task: FileScanTask) -> _Rewrite:
        writer = TableFilesWriter(self.target)
        kept = total = 0
        try:
            for batch in live_batches(table.metadata, table.io, task, self.target.schema):
                rows = pa.Table.from_batches([batch])
                stays = self._staying(rows)
                total += rows.num_rows
                kept += stays.num_rows
                for part in stays.to_batches():
                    writer.write(align(part, self.target.arrow_schema, ".".join(table.name())))
        except BaseException:
            writer.abort()
            raise
        if kept == total:
            writer.abort()
            return _Rewrite([], 0)
        return _Rewrite(writer.close(), total - kept)

    def _staying(self, rows: pa.Table) -> pa.Table:
        replaced = matches(self.target.schema, self.where)
        stays = rows.filter(~replaced)
        if self.partitions is None:
            return stays
        return pa.concat_tables([stays, self.partitions.outside(rows.filter(replaced))])


def _still_deleted(
    table: Table, tasks: list[FileScanTask], released: Container[str]
) -> Iterator[tuple[DataFile, Positions]]:
    """Yield the positions that the released delete files name in data files which stay."""
    for task in tasks:
        shared = {file for file in task.delete_files if file.file_path in released}
        positions = deleted_positions(table.io, FileScanTask(task.file, shared))
        if len(positions):
            yield task.file, positions
