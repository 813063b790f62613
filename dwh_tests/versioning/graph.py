"""A lake whose tables are computed from each other, written as runs write them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.table import Table

from dwh_assets.config import IcebergWriterConfig
from dwh_assets.iceberg.catalogs.load import load_catalog
from dwh_assets.iceberg.write import IcebergWriter
from dwh_assets.warehouses.duckdb.warehouse import DuckDBWarehouse
from dwh_assets.warehouses.replica import Replica
from dwh_tests.independent import iceberg_rows
from dwh_tests.warehouses.lake import commit_replace, query


@dataclass
class GraphLake:
    """A SQLite catalog and local files in a folder, and a DuckDB file for each replica."""

    folder: Path
    _runs: int = 0
    replicas: dict[str, Replica] = field(default_factory=dict)

    @property
    def properties(self) -> dict[str, str]:
        return {"uri": f"sqlite:///{self.folder}/catalog.db", "warehouse": f"file://{self.folder}/lake"}

    @cached_property
    def catalog(self) -> Catalog:
        return load_catalog({"kind": "sql", **self.properties})

    def table(self, name: str) -> Table:
        """The table as another program finds it now."""
        return SqlCatalog("dwh", **self.properties).load_table(name)

    def head(self, name: str) -> int:
        found = self.table(name).metadata.current_snapshot_id
        assert found is not None
        return found

    def write(
        self,
        name: str,
        ids: list[int] | pa.Table,
        *,
        reads: Mapping[str, int] | None = None,
        where: str | None = None,
        summary: Mapping[str, str] | None = None,
        **declared: Any,
    ) -> int:
        """Write as a run does that has read these versions; return the snapshot."""
        self._runs += 1
        rows = ids if isinstance(ids, pa.Table) else pa.table({"id": pa.array(ids, pa.int64())})
        config = IcebergWriterConfig(table=name, **{"write_mode": "overwrite", **declared})
        result = IcebergWriter(config, catalog=self.catalog).write(
            rows,
            where=where,
            summary={
                "dwh.run-id": f"run-{self._runs}",
                **{f"dwh.input.{table}": str(snapshot) for table, snapshot in (reads or {}).items()},
                **(summary or {}),
            },
        )
        assert result.snapshot_id is not None
        return result.snapshot_id

    def compact(self, name: str) -> int:
        """Leave what a compaction by another engine leaves."""
        return self.moved(commit_replace(self.table(name)))

    def moved(self, table: Table) -> int:
        found = table.metadata.current_snapshot_id
        assert found is not None
        return found

    def expire(self, name: str, *snapshot_ids: int) -> None:
        self.table(name).maintenance.expire_snapshots().by_ids(list(snapshot_ids)).commit()

    def rows(self, name: str, snapshot_id: int | None = None) -> list[dict[str, Any]]:
        """The rows as DuckDB reads them."""
        found: list[dict[str, Any]] = iceberg_rows(
            self.table(name).metadata_location, snapshot_id
        ).to_pylist()
        return found

    def ids(self, name: str, snapshot_id: int | None = None) -> list[int]:
        return sorted(row["id"] for row in self.rows(name, snapshot_id))

    def tags(self, name: str) -> dict[str, int]:
        refs = self.table(name).metadata.refs
        return {tag: ref.snapshot_id for tag, ref in refs.items() if ref.snapshot_ref_type == "tag"}

    def database(self, replica: str) -> Path:
        return self.folder / f"{replica}.duckdb"

    def replica(self, replica: str, table: str) -> Replica:
        """Declare a replica of a table in a file of its own."""
        warehouse = DuckDBWarehouse(self.database(replica), wait_seconds=0.2)
        self.replicas[replica] = warehouse.replica(table)
        return self.replicas[replica]

    def replica_ids(self, replica: str) -> list[int]:
        """What the replica holds, as DuckDB alone reads it."""
        name = self.replicas[replica].table
        return [row[0] for row in query(self.database(replica), f"SELECT id FROM {name} ORDER BY id")]


def next_millisecond() -> None:
    """Snapshots are ordered by time, in milliseconds; those of different tables may share one."""
    time.sleep(0.002)


def multiset(rows: list[dict[str, Any]]) -> Counter[str]:
    return Counter(repr(sorted(row.items())) for row in rows)
