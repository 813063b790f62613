"""What Dagster loads: every `defs.yaml` under `defs/`, and the resources they use."""

from __future__ import annotations

import warnings
from pathlib import Path

import dagster as dg
from dagster_duckdb import DuckDBResource

from dwh_assets.config import duckdb_path
from dwh_assets.orchestration.doctor_job import declared_tables, doctor_job
from dwh_assets.orchestration.iceberg_io import IcebergIOManager
from dwh_assets.orchestration.replica_io import DuckDBReplicaIOManager
from dwh_assets.orchestration.resources import IcebergCatalogResource, LedgerResource
from dwh_assets.orchestration.rollback_job import declared_lake, rollback_job

# Dagster warns of its own use of a beta parameter whenever an asset check needs a resource.
warnings.filterwarnings("ignore", message="Parameter `execution_type`", category=dg.BetaWarning)


@dg.definitions
def defs() -> dg.Definitions:
    """Return the shipped lakehouse on the catalog and the DuckDB file that the environment names."""
    declared = _declared()
    iceberg = IcebergCatalogResource()
    duckdb = DuckDBResource(database=duckdb_path())
    return dg.Definitions.merge(
        declared,
        dg.Definitions(
            jobs=[doctor_job(declared_tables(declared)), rollback_job(declared_lake(declared))],
            resources={
                "iceberg": iceberg,
                "ledger": LedgerResource(),
                "iceberg_io_manager": IcebergIOManager(iceberg=iceberg),
                "duckdb": duckdb,
                "duckdb_replica_io_manager": DuckDBReplicaIOManager(iceberg=iceberg, duckdb=duckdb),
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
