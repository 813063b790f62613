"""Small things that tests of replicas share, with a process of their own as well."""

from pathlib import Path
from typing import Any

import duckdb
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadataV2
from pyiceberg.table.refs import MAIN_BRANCH, SnapshotRefType
from pyiceberg.table.snapshots import Operation, Snapshot, Summary
from pyiceberg.table.update import AddSnapshotUpdate, AssertTableUUID, SetSnapshotRefUpdate


def open_catalog(lake: Path) -> SqlCatalog:
    return SqlCatalog("lake", uri=f"sqlite:///{lake}/catalog.db", warehouse=f"file://{lake}")


def query(database: Path, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
    """Look at the database with nothing but DuckDB."""
    with duckdb.connect(database, read_only=True) as connection:
        return connection.execute(sql, parameters).fetchall()


def commit_replace(table: Table, **summary: str) -> Table:
    """Commit what a compaction leaves: a new snapshot of the same rows, here even of the same files."""
    parent = table.current_snapshot()
    assert parent is not None
    metadata = table.metadata
    assert isinstance(metadata, TableMetadataV2)
    snapshot = Snapshot(
        snapshot_id=parent.snapshot_id + 1,
        parent_snapshot_id=parent.snapshot_id,
        sequence_number=metadata.last_sequence_number + 1,
        timestamp_ms=parent.timestamp_ms + 1,
        manifest_list=parent.manifest_list,
        summary=Summary(Operation.REPLACE, **summary),
        schema_id=parent.schema_id,
    )
    reference = SetSnapshotRefUpdate(
        ref_name=MAIN_BRANCH,
        type=SnapshotRefType.BRANCH,
        snapshot_id=snapshot.snapshot_id,
        max_ref_age_ms=None,
        max_snapshot_age_ms=None,
        min_snapshots_to_keep=None,
    )
    table.catalog.commit_table(
        table,
        (AssertTableUUID(uuid=table.metadata.table_uuid),),
        (AddSnapshotUpdate(snapshot=snapshot), reference),
    )
    return table.refresh()


def snapshot_of(table: Table) -> int:
    snapshot = table.current_snapshot()
    assert snapshot is not None
    return snapshot.snapshot_id
