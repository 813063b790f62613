"""What a replica has to hold: the rows of the lake as another reader finds them."""

from __future__ import annotations

from collections import Counter
from typing import Any

from pyiceberg.table import Table

from dwh_assets.warehouses.replica import Replica
from dwh_tests.iceberg.conftest import Lake
from dwh_tests.iceberg.model import multiset
from dwh_tests.independent import iceberg_rows


def lake_rows(table: Table, snapshot_id: int | None = None) -> list[dict[str, Any]]:
    """All rows, by DuckDB; it leaves out columns that are newer than the snapshot, which are null."""
    names = table.schema().column_names
    found = iceberg_rows(table.metadata_location, snapshot_id).to_pylist()
    return [{name: row.get(name) for name in names} for row in found]


def replica_rows(replica: Replica) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = replica.read().read_all().to_pylist()
    return found


def unsigned(rows: list[dict[str, Any]]) -> Counter[str]:
    """A multiset of rows in which -0.0 is 0.0: to a comparison of versions, that is no change."""
    return multiset(
        {name: abs(value) if value == 0 else value for name, value in row.items()} for row in rows
    )


def require_same(replica: Replica, lake: Lake, step: str = "") -> None:
    """The replica says that it holds the newest snapshot, and holds it, by its own proof as well."""
    table = lake.table
    head = table.current_snapshot()
    assert replica.snapshot_id == (head.snapshot_id if head else None), step
    assert unsigned(replica_rows(replica)) == unsigned(lake_rows(table)), step
    report = replica.verify(table)
    assert report.equal, (step, report.to_markdown())
