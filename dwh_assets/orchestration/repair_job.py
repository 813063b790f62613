"""The Dagster job `repair_replica`: compare a replica with its table, and mend just what differs."""

from __future__ import annotations

from typing import Any

import dagster as dg
from pydantic import Field

from dwh_assets.errors import DwhError, NotFoundError
from dwh_assets.orchestration.declared_lake import DeclaredLake, DeclaredReplica
from dwh_assets.orchestration.iceberg_io import as_failure
from dwh_assets.orchestration.parity import PARITY, parity_metadata
from dwh_assets.orchestration.replica_declarations import ParityLevel, replica_declaration
from dwh_assets.warehouses.base import SyncResult
from dwh_assets.warehouses.parity import ParityReport


class RepairConfig(dg.Config):
    """Which replica to repair."""

    replica: str = Field(description="The key of its asset, for example duckdb/nyc/flights.")
    level: str = Field(
        default="", description="How closely to look: count, fingerprint or full; as declared if left out."
    )


def repair_job(lake: DeclaredLake) -> dg.JobDefinition:
    """Return the job `repair_replica` for these replicas."""
    replicas = {replica.key.to_user_string(): replica for replica in lake.replicas}

    @dg.op(required_resource_keys={"iceberg", *(replica.io_manager for replica in lake.replicas)})
    def repair(context: dg.OpExecutionContext, config: RepairConfig) -> None:
        """Compare, load again what differs, compare once more, and report that as the replica's check."""
        try:
            _repair(context, _declared(replicas, config.replica), config.level)
        except DwhError as error:
            raise as_failure(error) from error

    @dg.job(
        name="repair_replica",
        description="Compare a replica with its table, and load again just the partitions that differ.",
    )
    def repair_replica() -> None:
        repair()

    return repair_replica
