"""A lake of its own for a test: catalog and files in a folder, runs in a real Dagster instance.

What a table holds is read without the code under test: the catalog's SQLite file with `sqlite3`, the table's
metadata as JSON, and the rows with DuckDB's Iceberg reader.
"""

import functools
import json
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pyarrow as pa
from dagster_duckdb import DuckDBResource
from pyiceberg.table import StaticTable

from dwh_assets.orchestration.iceberg_io import IcebergIOManager
from dwh_assets.orchestration.replica_io import DuckDBReplicaIOManager
from dwh_assets.orchestration.resources import IcebergCatalogResource, LedgerResource
from dwh_tests.independent import _extension

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
RANGE_START = "dagster/asset_partition_range_start"
RANGE_END = "dagster/asset_partition_range_end"

Row = dict[str, Any]


@dataclass
class Lake:
    """One catalog, and the Dagster instance that the runs go to."""

    folder: Path
    instance: dg.DagsterInstance
    resources: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        iceberg = IcebergCatalogResource(
            kind="sql",
            uri=f"sqlite:///{self.folder / 'catalog.db'}",
            warehouse=(self.folder / "warehouse").as_uri(),
        )
        self.iceberg = iceberg
        self.ledger = LedgerResource(url=f"sqlite:///{self.folder / 'ledger.db'}")
        self.resources = {
            "iceberg": iceberg,
            "ledger": self.ledger,
            "iceberg_io_manager": IcebergIOManager(iceberg=iceberg),
            **self.resources,
        }

    @property
    def database(self) -> Path:
        """The DuckDB file of the replicas, once there are some."""
        return self.folder / "replicas.duckdb"

    def replicate(self, **how: Any) -> DuckDBReplicaIOManager:
        """Let replicas go to a DuckDB file."""
        duckdb_resource = DuckDBResource(database=str(self.database))
        manager = DuckDBReplicaIOManager(
            iceberg=self.iceberg, ledger=self.ledger, duckdb=duckdb_resource, **how
        )
        self.resources |= {"duckdb": duckdb_resource, "duckdb_replica_io_manager": manager}
        return manager

    def run(
        self,
        *assets: Any,
        select: Sequence[dg.AssetsDefinition] | None = None,
        partition: str | None = None,
        between: tuple[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
        config: Mapping[str, Any] | None = None,
        expect_success: bool = True,
    ) -> dg.ExecuteInProcessResult:
        """Materialize, as one run: everything, or what is selected; one partition, or a range of them."""
        in_range = {RANGE_START: between[0], RANGE_END: between[1]} if between else {}
        result = dg.materialize(
            list(assets),
            instance=self.instance,
            resources=self.resources,
            selection=None if select is None else dg.AssetSelection.assets(*select),
            partition_key=partition,
            tags={**in_range, **(tags or {})},
            run_config={**QUIET, **(config or {})},
            raise_on_error=expect_success,
        )
        assert result.success is expect_success
        return result

    def fill(self, table: str, rows: pa.Table) -> None:
        """Append rows to a table as another program does, without any run."""
        catalog = self.iceberg.catalog
        catalog.create_namespace_if_not_exists(table.rpartition(".")[0])
        catalog.create_table_if_not_exists(table, rows.schema).append(rows)

    def metadata(self, table: str) -> dict[str, Any]:
        """Return the table's current metadata, straight from its JSON file."""
        return json.loads(Path(self.metadata_location(table)).read_text(encoding="utf-8"))  # type: ignore[no-any-return]

    def metadata_location(self, table: str) -> str:
        """Return the path of the table's current metadata file."""
        namespace, _, name = table.rpartition(".")
        with sqlite3.connect(self.folder / "catalog.db") as connection:
            found = connection.execute(
                "SELECT metadata_location FROM iceberg_tables WHERE table_namespace = ? AND table_name = ?",
                (namespace, name),
            ).fetchone()
        assert found, f"no table {table}"
        return str(found[0]).removeprefix("file://")

    def exists(self, table: str) -> bool:
        """Tell whether the catalog knows the table."""
        namespace, _, name = table.rpartition(".")
        with sqlite3.connect(self.folder / "catalog.db") as connection:
            known = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'iceberg_tables'").fetchone()
            query = "SELECT 1 FROM iceberg_tables WHERE table_namespace = ? AND table_name = ?"
            return bool(known and connection.execute(query, (namespace, name)).fetchone())

    def snapshots(self, table: str) -> list[dict[str, Any]]:
        """Return the snapshots of the main branch, oldest first."""
        metadata = self.metadata(table)
        by_id = {snapshot["snapshot-id"]: snapshot for snapshot in metadata["snapshots"]}
        line = []
        head = metadata.get("current-snapshot-id")
        while head in by_id:
            line.append(by_id[head])
            head = by_id[head].get("parent-snapshot-id")
        return line[::-1]

    def rows(self, table: str) -> list[Row]:
        """Return the table's rows in a fixed order, as another reader finds them."""
        with _reader().cursor() as reader:
            found = reader.sql("SELECT * FROM iceberg_scan(?)", params=[self.metadata_location(table)])
            return in_order(found.to_arrow_table().to_pylist())

    def files(self, table: str) -> dict[str, bytes]:
        """Return the live data files with their bytes."""
        found = StaticTable.from_metadata(self.metadata_location(table)).inspect.files()
        paths = [path.removeprefix("file://") for path in found["file_path"].to_pylist()]
        return {path: Path(path).read_bytes() for path in paths}


@functools.cache
def _reader() -> duckdb.DuckDBPyConnection:
    """The reader of `dwh_tests.independent`, opened once: loading its extensions takes longer than a test."""
    connection = duckdb.connect(config={"autoinstall_known_extensions": False})
    connection.execute("SET GLOBAL TimeZone = 'UTC'")
    for name in ("avro", "iceberg"):
        connection.execute(f"LOAD '{_extension(name)}'")
    return connection


def written_by(
    compute: Callable[[dg.AssetExecutionContext], Any],
    *,
    table: str = "shop.orders",
    partitions: dg.PartitionsDefinition[str] | None = None,
    retry_policy: dg.RetryPolicy | None = None,
    **metadata: Any,
) -> dg.AssetsDefinition:
    """Return an asset that writes what a function returns to a table."""

    @dg.asset(
        key=["iceberg", *table.split(".")],
        partitions_def=partitions,
        io_manager_key="iceberg_io_manager",
        retry_policy=retry_policy,
        metadata=metadata,
    )
    def compute_table(context: dg.AssetExecutionContext) -> Any:
        return compute(context)

    asset: dg.AssetsDefinition = compute_table
    return asset


def in_order(rows: Iterable[Row]) -> list[Row]:
    """Sort rows by their text, so that lists of them can be compared."""
    return sorted(rows, key=lambda row: str(sorted(row.items())))


def step_failure(result: dg.ExecuteInProcessResult) -> Any:
    """Return what the event log keeps of the step that failed."""
    (event,) = [event for event in result.all_events if event.is_step_failure]
    return event.step_failure_data


def failure_text(result: dg.ExecuteInProcessResult) -> str:
    """Return every message of the failure, from the outermost error to its root."""
    messages = []
    error = step_failure(result).error
    while error is not None:
        messages.append(error.message)
        error = error.cause
    return "\n".join(messages)


def materializations(result: dg.ExecuteInProcessResult, table: str) -> list[dg.AssetMaterialization]:
    """Return the materialization events of a table's asset, in order."""
    key = dg.AssetKey(["iceberg", *table.split(".")])
    events = result.get_asset_materialization_events()
    return [event.step_materialization_data.materialization for event in events if event.asset_key == key]
