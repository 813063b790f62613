"""The Dagster job `repair_replica`: compare a replica with its table, and mend just what differs."""

from collections.abc import Mapping
from typing import Any, Literal

import dagster as dg
from pydantic import Field

from dwh_assets.errors import DwhError, NotFoundError
from dwh_assets.orchestration.declared_lake import DeclaredLake, DeclaredReplica
from dwh_assets.orchestration.iceberg_io import as_failure
from dwh_assets.orchestration.parity import parity_evaluation
from dwh_assets.warehouses.base import SyncResult
from dwh_assets.warehouses.parity_report import Level


class RepairConfig(dg.Config):
    """Which replica to repair."""

    replica: str = Field(description="The key of its asset, for example duckdb/nyc/flights.")
    level: Literal["fingerprint", "full"] = Field(
        default="fingerprint", description="How closely to look: by fingerprint, or full, value by value."
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


def _declared(replicas: Mapping[str, DeclaredReplica], key: str) -> DeclaredReplica:
    if key not in replicas:
        known = ", ".join(sorted(replicas)) or "none"
        raise NotFoundError(f"There is no replica {key!r}.", remedy=f"There is {known}.")
    return replicas[key]


def _repair(context: dg.OpExecutionContext, declared: DeclaredReplica, level: Level) -> None:
    table = context.resources.iceberg.load_table(declared.table)
    replica = declared.reached_over(context.resources)
    before = replica.verify(table, level)
    told: dict[str, Any] = {"before": dg.MetadataValue.md(before.to_markdown())}
    if before.equal:
        context.add_output_metadata(told)
        context.log.info("%s is as its table; nothing was done.", declared.key.to_user_string())
        return
    result = replica.repair(table, before)
    after = replica.verify(table, level)
    context.log_event(parity_evaluation(declared.key, after))  # type: ignore[arg-type]  # takes checks, too
    context.add_output_metadata({**told, **_done(result), "after": dg.MetadataValue.md(after.to_markdown())})
    if not after.equal:
        raise dg.Failure(after.to_markdown(), allow_retries=False)


def _done(result: SyncResult) -> dict[str, Any]:
    return {
        "dwh/reason": result.reason,
        "dwh/rows_added": result.rows_inserted,
        "dwh/rows_removed": result.rows_deleted,
        "dwh/bytes_added": result.bytes,
        "dwh/seconds": round(result.seconds, 3),
    }
