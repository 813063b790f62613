"""The IO managers that bring replicas to a known snapshot of their table, one for each warehouse.

Those of Snowflake and BigQuery are in modules of their own: their clients take seconds to import.
"""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import dagster as dg
from dagster_duckdb import DuckDBResource
from pydantic import Field
from pyiceberg.table import DataScan, Table
from pyiceberg.table.refs import MAIN_BRANCH

from dwh_assets.errors import ConfigurationError
from dwh_assets.iceberg.versions import logical_snapshot_id
from dwh_assets.ledger import Ledger
from dwh_assets.orchestration import step
from dwh_assets.orchestration.iceberg_io import failures
from dwh_assets.orchestration.input_versions import refuse_pin
from dwh_assets.orchestration.metadata import replica_metadata
from dwh_assets.orchestration.replica_declarations import ReplicaDeclaration, replica_declaration
from dwh_assets.orchestration.replica_inputs import reader_for
from dwh_assets.orchestration.resources import IcebergCatalogResource, LedgerResource
from dwh_assets.orchestration.time_travel import run_as_of
from dwh_assets.versioning.releases import named_version
from dwh_assets.versioning.replicas import lag
from dwh_assets.warehouses.base import ReplicaState, SyncResult
from dwh_assets.warehouses.duckdb.warehouse import DuckDBWarehouse
from dwh_assets.warehouses.environment import Warehouse
from dwh_assets.warehouses.motherduck import MotherDuckWarehouse
from dwh_assets.warehouses.replica import Replica


class ReplicaIOManager(dg.ConfigurableIOManager):
    """Brings a table's replica to a snapshot, in one transaction with the record of which snapshot it is.

    The asset returns the PyIceberg scan that it was given: it says which snapshot to bring the replica to,
    unless the replica stays `at` a tag or release. Metadata `table` names the Iceberg table, `into` the
    schema and table in the warehouse; further entries are the attributes of `ReplicaDeclaration`.
    """

    iceberg: dg.ResourceDependency[IcebergCatalogResource]
    ledger: dg.ResourceDependency[LedgerResource]

    @abstractmethod
    def warehouse(self) -> Warehouse:
        """Return the warehouse, over the connections of Dagster's resource; nothing is connected to yet."""

    def handle_output(self, context: dg.OutputContext, obj: DataScan) -> None:
        """Bring the replica to its snapshot, unless it holds that logical snapshot already."""
        metadata = context.definition_metadata
        with failures(context):
            declared = replica_declaration(context.asset_key.to_user_string(), metadata)
            table = self.iceberg.load_table(metadata["table"])
            ledger = self._ledger(context)
            replica = self.replica(metadata)
            result = replica.sync(
                table,
                _wanted(context, declared, table, obj, ledger),
                on_progress=context.log.info,
                run_id=step.run_id(context),
                ledger=ledger,
            )
            state = replica.state()
        if state is not None:
            self._report(context, result, state, table)

    def load_input(self, context: dg.InputContext) -> Any:
        """Read the replica for an asset that is computed from it, as its annotation says.

        Input metadata may name `columns`, and `where`, the values that columns are to have.
        """
        upstream = context.upstream_output
        metadata = upstream.definition_metadata if upstream else {}
        with failures(context):
            refuse_pin(context, context.asset_key.to_user_string())
            convert = reader_for(context.dagster_type.typing_type)
            asked = context.definition_metadata
            return convert(
                self.replica(metadata).read(columns=asked.get("columns"), where=_equalities(context))
            )

    def replica(self, metadata: Mapping[str, Any]) -> Replica:
        """Return the replica that an asset's metadata declare.

        Raises `ConfigurationError` for metadata that are wrong.
        """
        declared = replica_declaration(f"the replica of {metadata['table']}", metadata)
        return self.warehouse().replica(
            metadata["table"], metadata["into"], declared.mode, declared.options()
        )

    def _ledger(self, context: dg.OutputContext) -> Ledger | None:
        """Return the ledger, if there is one: without, the next sync may have to load every row again."""
        ledger = self.ledger.kept()
        if ledger is None:
            context.log.warning(
                "No DWH_LEDGER_URL names a ledger: nothing keeps what this replica holds from expiry."
            )
        return ledger

    def _report(
        self, context: dg.OutputContext, result: SyncResult, state: ReplicaState, table: Table
    ) -> None:
        snapshot = table.snapshot_by_id(result.to_snapshot) if result.to_snapshot else None
        held = logical_snapshot_id(table.metadata, snapshot) if snapshot else None
        if held is not None:
            step.set_data_version(context, str(held))
        declared = context.definition_metadata
        behind = lag(table.refresh().metadata, held, declared.get("branch", MAIN_BRANCH))
        metadata = replica_metadata(result, declared["into"], state, behind)
        context.add_output_metadata(metadata)
        context.log.info(metadata["dwh/summary"].value)


class DuckDBReplicaIOManager(ReplicaIOManager):
    """Replicas in a DuckDB file, of which one process at a time is the writer."""

    duckdb: dg.ResourceDependency[DuckDBResource]
    wait_seconds: float = Field(
        default=60.0, description="How long a file that another process holds is waited for."
    )

    def warehouse(self) -> DuckDBWarehouse:
        """Return the file, with the settings of Dagster's resource: connections of a process must agree."""
        config = {"custom_user_agent": "dagster", **self.duckdb.connection_config}
        return DuckDBWarehouse(self.duckdb.database, config=config, wait_seconds=self.wait_seconds)


class MotherDuckReplicaIOManager(ReplicaIOManager):
    """Replicas in a database of MotherDuck, whose token is in the environment."""

    motherduck: dg.ResourceDependency[DuckDBResource]

    def warehouse(self) -> MotherDuckWarehouse:
        """Return the database of Dagster's resource, `md:` and its name."""
        return MotherDuckWarehouse(self.motherduck.database)


def _wanted(
    context: dg.OutputContext,
    declared: ReplicaDeclaration,
    table: Table,
    planned: DataScan,
    ledger: Ledger | None,
) -> int | None:
    """Return the snapshot that the replica is to hold.

    Raises `ConfigurationError` for a run of the past: a replica that follows its table is a copy of what is
    there now.
    """
    if declared.at is not None:
        return named_version(table, declared.at, ledger).snapshot_id
    as_of, head = run_as_of(context), table.current_snapshot()
    if as_of is not None and (head is None or planned.snapshot_id != head.snapshot_id):
        raise ConfigurationError(
            f"{context.asset_key.to_user_string()} would go back to snapshot {planned.snapshot_id}: the run "
            f"reads {as_of!r}.",
            remedy="Leave replicas out of a run that reads the past.",
        )
    return planned.snapshot_id


def _equalities(context: dg.InputContext) -> Mapping[str, Any] | None:
    where = context.definition_metadata.get("where")
    if where is None or isinstance(where, Mapping):
        return where
    raise ConfigurationError(
        f"{context.asset_key.to_user_string()} is a replica, and cannot be read where {where!r}.",
        remedy="Give where as values of columns, such as {carrier: AA}, or read the Iceberg table.",
    )
