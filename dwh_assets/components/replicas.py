"""The assets, checks and schedules of a table's replicas."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg
from pyiceberg.table import DataScan
from pyiceberg.table.refs import MAIN_BRANCH

from dwh_assets.components.attributes import Replica
from dwh_assets.orchestration.declarations import table_key
from dwh_assets.orchestration.parity import parity_check
from dwh_assets.warehouses.dialect import in_lake


@dataclass(frozen=True)
class CopiedTable:
    """The table that replicas copy, as far as their assets take after its own."""

    name: str
    branch: str
    group: str
    owners: Sequence[str]
    tags: Mapping[str, str]


def replica_definitions(table: CopiedTable, replicas: Iterable[Replica]) -> dg.Definitions:
    """Return the asset of each replica that is to be there, its parity check, and the check's schedule."""
    there = [replica for replica in replicas if replica.is_there]
    compared = [replica for replica in there if replica.mode != "append_only"]
    checks = [_check(replica, table) for replica in compared]
    return dg.Definitions(
        assets=[_asset(replica, table) for replica in there],
        asset_checks=checks,
        schedules=[
            _schedule(replica, table, check, replica.verify_schedule)
            for replica, check in zip(compared, checks, strict=True)
            if replica.verify_schedule
        ],
    )


def replica_key(replica: Replica, table: str) -> dg.AssetKey:
    """Return the asset key of a table's replica."""
    *namespace, name = table.split(".")
    return dg.AssetKey([replica.warehouse, *namespace, replica.name or name])


def require_apart(replicas: list[Replica]) -> list[Replica]:
    """Return the replicas of a table; raises `ValueError` where two have one key, or go to one place."""
    for (warehouse, name), times in Counter((r.warehouse, r.name or "table") for r in replicas).items():
        if times > 1:
            raise ValueError(f"{times} replicas have the key [{warehouse}, namespace, {name}]; name them")
    for (resource, _), times in Counter((r.connection, r.into) for r in replicas).items():
        if times > 1:
            raise ValueError(f"{times} replicas are in one place of {resource}; give each another into")
    return replicas


def _asset(replica: Replica, table: CopiedTable) -> dg.AssetsDefinition:
    follows = dg.AutomationCondition.on_missing() if replica.at else dg.AutomationCondition.eager()

    @dg.asset(
        key=replica_key(replica, table.name),
        ins={
            "table": dg.AssetIn(
                key=table_key(table.name),
                dagster_type=DataScan,
                metadata={"tag": replica.at} if replica.at else {},
            )
        },
        description=_description(replica, table),
        metadata=_metadata(replica, table),
        kinds={replica.warehouse},
        group_name=table.group,
        owners=table.owners,
        tags=table.tags,
        io_manager_key=_io_manager(replica),
        pool=_pool(replica, table),
        automation_condition=follows & dg.AutomationCondition.all_deps_blocking_checks_passed(),
    )
    def sync_replica(table: DataScan) -> DataScan:
        return table

    return sync_replica


def _metadata(replica: Replica, table: CopiedTable) -> dict[str, Any]:
    aside = {} if table.branch == MAIN_BRANCH else {"branch": table.branch}
    return {"table": table.name, "into": replica.into or in_lake(table.name), **aside, **replica.entries()}


def _description(replica: Replica, table: CopiedTable) -> str:
    kept = f"kept at {replica.at}" if replica.at else "always at a known snapshot"
    what = {
        "copy": f"Copy of {table.name}",
        "external": f"{table.name}, read from its own files",
        "merge_into": f"History of the rows of {table.name}",
        "append_only": f"Changes of {table.name}",
    }
    return f"{what[replica.mode]} in {replica.warehouse}, {kept}."


def _check(replica: Replica, table: CopiedTable) -> dg.AssetChecksDefinition:
    return parity_check(
        replica_key(replica, table.name),
        _metadata(replica, table),
        io_manager=_io_manager(replica),
        pool=_pool(replica, table),
    )


def _schedule(
    replica: Replica, table: CopiedTable, check: dg.AssetChecksDefinition, cron: str
) -> dg.ScheduleDefinition:
    name = "verify_" + "_".join(replica_key(replica, table.name).path)
    return dg.ScheduleDefinition(
        name=name,
        cron_schedule=cron,
        job=dg.define_asset_job(name, selection=dg.AssetSelection.checks(check)),
        description=f"Compare {table.name} with its copy in {replica.warehouse}.",
    )


def _io_manager(replica: Replica) -> str:
    return f"{replica.connection}_replica_io_manager"


def _pool(replica: Replica, table: CopiedTable) -> str:
    """Return what limits how many syncs run at once: a DuckDB file has one writer, elsewhere a replica."""
    whole = f"{replica.warehouse}/{replica.connection}"
    return whole if replica.warehouse == "duckdb" else f"{whole}/{replica.into or table.name}"
