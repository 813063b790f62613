"""A compaction in this process: data files are written anew as one snapshot that changes no row."""

from __future__ import annotations

from collections.abc import Callable

from pyiceberg.catalog import Catalog
from pyiceberg.manifest import DataFile
from pyiceberg.table import FileScanTask
from pyiceberg.table.snapshots import Operation

from dwh_assets.iceberg.arrow.types import align, arrow_schema
from dwh_assets.iceberg.commit import commit
from dwh_assets.iceberg.files.data_files import FileTarget
from dwh_assets.iceberg.files.layout import write_batches
from dwh_assets.iceberg.files.position_deletes import deletes_of
from dwh_assets.iceberg.files.reading import live_batches
from dwh_assets.iceberg.row_counts import TOTAL_ROWS
from dwh_assets.iceberg.snapshot import Change


def compact(catalog: Catalog, name: str, chosen: Callable[[DataFile], bool] = lambda file: True) -> int:
    """Write the chosen data files of the table anew, without their deletes; return the snapshot's id."""
    table = catalog.load_table(name)
    tasks = [task for task in table.scan().plan_files() if chosen(task.file)]
    schema = table.schema()
    target = FileTarget(
        io=table.io,
        locations=table.location_provider(),
        schema=schema,
        watched={},
        spec=table.spec(),
        sort_order=table.sort_order(),
        properties=dict(table.properties),
        file_size=1 << 30,
    )
    rows = (
        align(batch, arrow_schema(schema), name)
        for task in tasks
        for batch in live_batches(table.metadata, table.io, task, schema)
    )
    added = tuple(write_batches(target, rows))
    summary = table.current_snapshot().summary.additional_properties  # type: ignore[union-attr]
    change = Change(
        Operation.REPLACE,
        added=added,
        removed=tuple(file for task in tasks for file in _gone(task)),
        summary={TOTAL_ROWS: summary[TOTAL_ROWS]} if TOTAL_ROWS in summary else {},
    )
    committed = commit(catalog, table, lambda _: change)
    assert committed is not None
    return committed.snapshot.snapshot_id


def _gone(task: FileScanTask) -> list[DataFile]:
    return [task.file, *deletes_of(task)]
