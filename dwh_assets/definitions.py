"""What Dagster loads: every `defs.yaml` under `defs/`, and the resources they use."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import dagster as dg
from dagster_duckdb import DuckDBResource

from dwh_assets.config import duckdb_path, load_dotenv
from dwh_assets.orchestration.declared_lake import declared_lake
from dwh_assets.orchestration.doctor_job import declared_tables, doctor_job
from dwh_assets.orchestration.iceberg_io import IcebergIOManager
from dwh_assets.orchestration.repair_job import repair_job
from dwh_assets.orchestration.replica_io import DuckDBReplicaIOManager, MotherDuckReplicaIOManager
from dwh_assets.orchestration.resources import IcebergCatalogResource, LedgerResource
from dwh_assets.orchestration.rollback_job import rollback_job
from dwh_assets.warehouses.environment import (
    BIGQUERY_PROJECT,
    MOTHERDUCK_DATABASE,
    SNOWFLAKE_DATABASE,
    SNOWFLAKE_FILES,
    given,
)

# Dagster warns of its own use of a beta parameter whenever an asset check needs a resource.
warnings.filterwarnings("ignore", message="Parameter `execution_type`", category=dg.BetaWarning)


@dg.definitions
def defs() -> dg.Definitions:
    """Return the shipped lakehouse on the catalog and in the warehouses that the environment names."""
    load_dotenv()
    declared = _declared()
    lake = declared_lake(declared)
    iceberg, ledger = IcebergCatalogResource(), LedgerResource()
    return dg.Definitions.merge(
        declared,
        dg.Definitions(
            jobs=[
                doctor_job(declared_tables(declared)),
                rollback_job(lake),
                repair_job(lake),
            ],
            resources={
                "iceberg": iceberg,
                "ledger": ledger,
                "iceberg_io_manager": IcebergIOManager(iceberg=iceberg),
                **_warehouses(iceberg=iceberg, ledger=ledger),
            },
        ),
    )


def _declared() -> dg.Definitions:
    """Load what `defs/` declares, in every process of every run.

    `dg.load_from_defs_folder` would do the same, and then catalogue the components of all installed packages:
    several seconds of importing Snowflake's and Google's clients.
    """
    tree = dg.ComponentTree.for_project(Path(__file__).parent)
    with warnings.catch_warnings():
        for category in (dg.BetaWarning, dg.PreviewWarning):
            warnings.simplefilter("ignore", category)
        declared = tree.build_defs(tree.defs_module_path)
    return dg.Definitions.merge(declared, dg.Definitions(component_tree=tree))


def _warehouses(**lake: Any) -> dict[str, Any]:
    """Return the connection and the IO manager of each warehouse; the clients of others are not imported."""
    duckdb = DuckDBResource(database=duckdb_path())
    found: dict[str, Any] = {
        "duckdb": duckdb,
        "duckdb_replica_io_manager": DuckDBReplicaIOManager(duckdb=duckdb, **lake),
    }
    if os.environ.get(MOTHERDUCK_DATABASE):
        motherduck = DuckDBResource(database=f"md:{os.environ[MOTHERDUCK_DATABASE].removeprefix('md:')}")
        found["motherduck"] = motherduck
        found["motherduck_replica_io_manager"] = MotherDuckReplicaIOManager(motherduck=motherduck, **lake)
    if os.environ.get(SNOWFLAKE_DATABASE):
        from dwh_assets.orchestration.snowflake_io import SnowflakeReplicaIOManager, snowflake_resource

        found["snowflake"] = snowflake_resource()
        files: dict[str, Any] = {
            name: os.environ[variable] for name, variable in given(SNOWFLAKE_FILES).items()
        }
        found["snowflake_replica_io_manager"] = SnowflakeReplicaIOManager(
            snowflake=found["snowflake"], **files, **lake
        )
    if os.environ.get(BIGQUERY_PROJECT):
        from dwh_assets.orchestration.bigquery_io import BigQueryReplicaIOManager, bigquery_resource

        found["bigquery"] = bigquery_resource()
        found["bigquery_replica_io_manager"] = BigQueryReplicaIOManager(bigquery=found["bigquery"], **lake)
    return found
