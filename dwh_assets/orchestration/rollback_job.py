"""The Dagster job `rollback`: a table, all that was computed from it, and every replica, to one version."""

from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg
from pydantic import Field
from pyiceberg.catalog import Catalog
from pyiceberg.table import Table

from dwh_assets.errors import ConfigurationError, DwhError
from dwh_assets.iceberg.declaration import find_table
from dwh_assets.iceberg.row_counts import total_rows
from dwh_assets.iceberg.versions import logical_snapshot_id
from dwh_assets.ledger import Ledger
from dwh_assets.orchestration.declared_lake import DeclaredLake
from dwh_assets.orchestration.iceberg_io import as_failure
from dwh_assets.orchestration.metadata import table_metadata, version_metadata
from dwh_assets.orchestration.step import plan_materialization
from dwh_assets.versioning.catalog_tables import CatalogTables
from dwh_assets.versioning.graph import GraphRollback, TableItem, plan_rollback, plan_undo
from dwh_assets.versioning.graph_apply import GraphResult, apply_rollback, resume_rollback
from dwh_assets.versioning.points import resolve
from dwh_assets.versioning.replicas import Replica

_DATA_VERSION = "dagster/data_version"


class RollbackConfig(dg.Config):
    """What to roll back; a run without `dry_run: false` only says what it would do."""

    table: str = Field(default="", description="namespace.table to bring back.")
    to: str = Field(
        default="", description="Snapshot id, tag, date or ISO time, or 'N versions ago'; see the history."
    )
    dry_run: bool = Field(default=True, description="Only show what would be done.")
    allow_lost: bool = Field(
        default=False, description="Go to a version beside which newer commits were made; tags keep these."
    )
    allow_unpublished: bool = Field(
        default=False,
        description="Go to a version that main is not known to have shown; it may have failed its audits.",
    )
    resume: str = Field(default="", description="Instead: the id of a rollback to go on with.")
    undo: str = Field(default="", description="Instead: the id of a rollback to take back.")


def rollback_job(lake: DeclaredLake) -> dg.JobDefinition:
    """Return the job `rollback` for these tables and replicas."""
    managers = {replica.io_manager for replica in lake.following}

    @dg.op(required_resource_keys={"iceberg", "ledger", *managers})
    def roll_back(context: dg.OpExecutionContext, config: RollbackConfig) -> None:
        """Plan the rollback and show it; unless it is a dry run, do it and report the assets' versions."""
        try:
            _Run(context, lake).of(config)
        except DwhError as error:
            raise as_failure(error) from error

    @dg.job(
        name="rollback",
        description="Bring a table, all that was computed from it and every replica to one version. A run "
        "shows what it would do, unless dry_run is false.",
    )
    def rollback() -> None:
        roll_back()

    return rollback


class _Run:
    """One run of the job."""

    def __init__(self, context: dg.OpExecutionContext, lake: DeclaredLake) -> None:
        self._context = context
        self._lake = lake
        self._catalog: Catalog = context.resources.iceberg.catalog
        self._ledger: Ledger = context.resources.ledger.ledger
        self._keys = {one.key.to_user_string(): one.key for one in lake.following}
        self._replicas: dict[str, Replica] = {
            one.key.to_user_string(): one.reached_over(context.resources) for one in lake.following
        }

    def of(self, config: RollbackConfig) -> None:
        plan = self._plan(config)
        told: dict[str, Any] = {"dry_run": config.dry_run, "plan": dg.MetadataValue.md(plan.to_markdown())}
        self._context.log.info(plan.to_markdown())
        if config.dry_run:
            self._context.add_output_metadata(told)
            return
        self._hold(plan)
        result = self._apply(plan, config)
        self._report(result)
        self._context.log.info(result.to_markdown())
        told = {**told, "operation": result.operation.id, "result": dg.MetadataValue.md(result.to_markdown())}
        if result.not_brought_back:
            raise dg.Failure(result.to_markdown(), metadata=told, allow_retries=False)
        self._context.add_output_metadata(told)

    def _plan(self, config: RollbackConfig) -> GraphRollback:
        if config.resume:
            return GraphRollback.from_dict(self._ledger.operation(config.resume).plan)
        if config.undo:
            return plan_undo(self._catalog, self._ledger, config.undo, self._replicas)
        if not (config.table and config.to):
            raise ConfigurationError(
                "Neither a table with a version to go to was given, nor a rollback to resume or undo.",
                remedy="Give table and to, or resume, or undo.",
            )
        table = CatalogTables(self._catalog).require(config.table).table
        point = resolve(table, config.to, self._ledger)
        self._context.log.info("%s: %r is %s", config.table, config.to, point.described)
        return plan_rollback(
            self._catalog,
            config.table,
            point.snapshot_id,
            self._replicas,
            allow_unpublished=config.allow_unpublished,
        )

    def _apply(self, plan: GraphRollback, config: RollbackConfig) -> GraphResult:
        run_id, log = self._context.run_id, self._context.log.info
        if config.resume:
            return resume_rollback(
                self._catalog, self._ledger, config.resume, self._replicas, run_id=run_id, on_step=log
            )
        return apply_rollback(
            self._catalog,
            plan,
            self._ledger,
            self._replicas,
            allow_lost=config.allow_lost,
            run_id=run_id,
            on_step=log,
        )

    def _hold(self, plan: GraphRollback) -> None:
        """Let the assets be in progress until they are reported: automation leaves them alone so long."""
        for item in plan.tables:
            for key, partition in self._events_of(item):
                plan_materialization(self._context, key, partition)
        for replica in plan.replicas:
            if replica.position != "empty" and replica.replica in self._keys:
                plan_materialization(self._context, self._keys[replica.replica])

    def _report(self, result: GraphResult) -> None:
        """Report each asset at its version, inputs first: none looks older than what it was made from."""
        for item in result.plan.tables:
            if item.table not in result.not_brought_back:
                for key, partition in self._events_of(item):
                    self._materialized(key, item.table, partition)
        for replica in result.plan.replicas:
            known = replica.replica in self._keys and replica.position != "empty"
            if known and replica.replica not in result.not_brought_back:
                self._materialized(self._keys[replica.replica], replica.table, None)

    def _events_of(self, item: TableItem) -> Iterator[tuple[dg.AssetKey, str | None]]:
        """Yield the asset, or its partitions, whose version changes or is confirmed.

        One that stays as it is and lags behind its inputs is left to automation.
        """
        key = self._lake.tables.get(item.table)
        if key is None or item.rollback is None or not (item.rollback.move or item.fresh):
            return
        if item.table not in self._lake.partitioned:
            yield key, None
        elif item.rollback.move:
            commits = (*item.rollback.dropped, *item.rollback.restored)
            for partition in self._partitions(key, [commit.partition for commit in commits]):
                yield key, partition

    def _partitions(self, key: dg.AssetKey, named: Sequence[str | None]) -> Iterator[str]:
        """Yield the partitions that commits name; where one does not name them all, every one there is."""
        known = sorted(self._context.instance.get_materialized_partitions(key))
        if any(name is None or name.endswith(")") for name in named):
            yield from known
            return
        touched = {partition for name in named if name for partition in name.split(",")}
        yield from (partition for partition in known if partition in touched)

    def _materialized(self, key: dg.AssetKey, name: str, partition: str | None) -> None:
        table = find_table(self._catalog, name)
        if table is None:
            return
        version, metadata = _described(table)
        self._context.log_event(
            dg.AssetMaterialization(
                key,
                partition=partition,
                metadata=metadata,
                tags={_DATA_VERSION: version} if version else None,
            )
        )


def _described(table: Table) -> tuple[str | None, dict[str, Any]]:
    """Return the data version of what `main` shows, and what the UI is told of it."""
    snapshot = table.current_snapshot()
    logical = logical_snapshot_id(table.metadata, snapshot) if snapshot else None
    rows = total_rows(table, snapshot)
    return (str(logical) if logical is not None else None), {
        **version_metadata(
            snapshot.snapshot_id if snapshot else None, snapshot.parent_snapshot_id if snapshot else None
        ),
        "dwh/logical_snapshot_id": str(logical),
        "dwh/operation": "rollback",
        **({"dagster/row_count": rows} if rows is not None else {}),
        **table_metadata(table),
    }
