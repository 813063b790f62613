"""The IO manager that brings a DuckDB replica to a known snapshot of its table."""

from collections.abc import Callable
from typing import Any

import dagster as dg
import duckdb
import pyarrow as pa
from dagster_duckdb import DuckDBResource
from pydantic import Field
from pyiceberg.table import DataScan, Table

from dwh_assets.errors import ConfigurationError
from dwh_assets.iceberg.versions import logical_snapshot_id
from dwh_assets.orchestration import step
from dwh_assets.orchestration.iceberg_io import failures
from dwh_assets.orchestration.input_versions import refuse_pin
from dwh_assets.orchestration.metadata import replica_metadata
from dwh_assets.orchestration.resources import IcebergCatalogResource
from dwh_assets.orchestration.time_travel import run_as_of
from dwh_assets.warehouses.base import SyncResult
from dwh_assets.warehouses.duckdb.warehouse import DuckDBWarehouse
from dwh_assets.warehouses.replica import Replica


class DuckDBReplicaIOManager(dg.ConfigurableIOManager):
    """Loads a table's snapshot into DuckDB, in one transaction with the record of which snapshot it is.

    The asset returns the PyIceberg scan that it was given: it says which snapshot to bring the replica to.
    Metadata `table` names the Iceberg table, `into` the schema and table in DuckDB.
    """

    iceberg: dg.ResourceDependency[IcebergCatalogResource]
    duckdb: dg.ResourceDependency[DuckDBResource]
    wait_seconds: float = Field(
        default=60.0, description="How long a file that another process holds is waited for."
    )

    def handle_output(self, context: dg.OutputContext, obj: DataScan) -> None:
        """Bring the replica to the scan's snapshot, unless it holds that logical snapshot already."""
        metadata = context.definition_metadata
        with failures(context):
            table = self.iceberg.load_table(metadata["table"])
            _require_present(context, table, obj)
            replica = self.replica(metadata["table"], metadata["into"])
            result = replica.sync(
                table, obj.snapshot_id, on_progress=context.log.info, run_id=step.run_id(context)
            )
        self._report(context, replica, result, table)

    def load_input(self, context: dg.InputContext) -> Any:
        """Read the replica for an asset that is computed from it, as its annotation says."""
        upstream = context.upstream_output
        metadata = upstream.definition_metadata if upstream else {}
        with failures(context):
            refuse_pin(context, context.asset_key.to_user_string())
            convert = _reader_for(context.dagster_type.typing_type)
            columns = context.definition_metadata.get("columns")
            return convert(self.replica(metadata["table"], metadata["into"]).read(columns=columns))

    def replica(self, table: str, into: str) -> Replica:
        """Return the replica of `table` at schema.table `into`."""
        return self._warehouse().replica(table, into=into)

    def count(self, table: str, into: str) -> tuple[int | None, int]:
        """Return the snapshot that a replica holds and how many rows it has, counted."""
        replica = self.replica(table, into)
        return replica.snapshot_id, replica.count()

    def _report(self, context: dg.OutputContext, replica: Replica, result: SyncResult, table: Table) -> None:
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
        return DuckDBWarehouse(self.duckdb.database, config=config, wait_seconds=self.wait_seconds)


def _require_present(context: dg.OutputContext, table: Table, planned: DataScan) -> None:
    """Refuse to bring a replica to what a run of the past reads: it is a copy of what is there now."""
    as_of, head = run_as_of(context), table.current_snapshot()
    if as_of is not None and (head is None or planned.snapshot_id != head.snapshot_id):
        raise ConfigurationError(
            f"{context.asset_key.to_user_string()} would go back to snapshot {planned.snapshot_id}: the run "
            f"reads {as_of!r}.",
            remedy="Leave replicas out of a run that reads the past.",
        )


def _reader_for(annotation: Any) -> Callable[[pa.RecordBatchReader], Any]:
    """Return what turns rows into the type of an input; without an annotation that is a `pyarrow.Table`."""
    name = getattr(annotation, "__name__", "Table")
    library = getattr(annotation, "__module__", "pyarrow").split(".")[0].lstrip("_")
    known = "pyarrow.Table" if annotation in (None, Any, type(None)) else f"{library}.{name}"
    if known not in _READERS:
        raise ConfigurationError(
            f"A replica cannot be read as {known}.",
            remedy=f"Annotate the input with one of {', '.join(_READERS)}.",
        )
    return _READERS[known]


def _to_polars(rows: pa.RecordBatchReader) -> Any:
    import polars

    return polars.from_arrow(rows.read_all())


def _to_duckdb(rows: pa.RecordBatchReader) -> Any:
    return duckdb.connect().from_arrow(rows.read_all())


_READERS: dict[str, Callable[[pa.RecordBatchReader], Any]] = {
    "pyarrow.Table": lambda rows: rows.read_all(),
    "pyarrow.RecordBatchReader": lambda rows: rows,
    "pandas.DataFrame": lambda rows: rows.read_all().to_pandas(date_as_object=False),
    "polars.DataFrame": _to_polars,
    "polars.LazyFrame": lambda rows: _to_polars(rows).lazy(),
    "duckdb.DuckDBPyRelation": _to_duckdb,
}
