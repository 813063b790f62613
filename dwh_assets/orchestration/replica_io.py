"""The IO manager that brings a DuckDB replica to a known snapshot of its table."""

from typing import Any

import dagster as dg
import pyarrow as pa
from dagster_duckdb import DuckDBResource
from pyiceberg.table import DataScan, Table

from dwh_assets.errors import DwhError
from dwh_assets.iceberg.versions import logical_snapshot_id
from dwh_assets.orchestration import step
from dwh_assets.orchestration.iceberg_io import as_failure
from dwh_assets.orchestration.metadata import replica_metadata
from dwh_assets.orchestration.resources import IcebergCatalogResource
from dwh_assets.warehouses.base import SyncResult
from dwh_assets.warehouses.duckdb import DuckDBReplica, DuckDBWarehouse


class DuckDBReplicaIOManager(dg.ConfigurableIOManager):
    """Loads a table's snapshot into DuckDB, in one transaction with the record of which snapshot it is.

    The asset returns the PyIceberg scan that it was given: it says which snapshot to bring the replica to.
    Metadata `table` names the Iceberg table, `into` the schema and table in DuckDB.
    """

    iceberg: dg.ResourceDependency[IcebergCatalogResource]
    duckdb: dg.ResourceDependency[DuckDBResource]

    def handle_output(self, context: dg.OutputContext, obj: DataScan) -> None:
        """Bring the replica to the scan's snapshot, unless it holds that logical snapshot already."""
        metadata = context.definition_metadata
        try:
            table = self.iceberg.load_table(metadata["table"])
            replica = self.replica(metadata["table"], metadata["into"])
            result = replica.sync(
                table, obj.snapshot_id, on_progress=context.log.info, run_id=step.run_id(context)
            )
        except DwhError as error:
            raise as_failure(error) from error
        self._report(context, replica, result, table)

    def load_input(self, context: dg.InputContext) -> Any:
        """Read the replica for an asset that is computed from it."""
        upstream = context.upstream_output
        metadata = upstream.definition_metadata if upstream else {}
        try:
            rows = self.replica(metadata["table"], metadata["into"]).read()
            return rows if context.dagster_type.typing_type is pa.RecordBatchReader else rows.read_all()
        except DwhError as error:
            raise as_failure(error) from error

    def replica(self, table: str, into: str) -> DuckDBReplica:
        """Return the replica of `table` at schema.table `into`."""
        return self._warehouse().replica(table, into=into)

    def count(self, table: str, into: str) -> tuple[int | None, int]:
        """Return the snapshot that a replica holds and how many rows it has, counted."""
        replica = self.replica(table, into)
        return replica.snapshot_id, replica.count()

    def _report(
        self, context: dg.OutputContext, replica: DuckDBReplica, result: SyncResult, table: Table
    ) -> None:
        snapshot = table.snapshot_by_id(result.to_snapshot) if result.to_snapshot else None
        if snapshot:
            step.set_data_version(context, str(logical_snapshot_id(table.metadata, snapshot)))
        state = replica.state()
        metadata = replica_metadata(
            result, context.definition_metadata["into"], state.rows if state else 0, table
        )
        context.add_output_metadata(metadata)
        context.log.info(metadata["dwh/summary"].value)

    def _warehouse(self) -> DuckDBWarehouse:
        """Open the file with the settings of Dagster's resource: connections of one process must agree."""
        config = {"custom_user_agent": "dagster", **self.duckdb.connection_config}
        return DuckDBWarehouse(self.duckdb.database, config=config)
