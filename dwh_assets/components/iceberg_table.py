"""The component that turns one YAML document into an Iceberg table, its replicas, checks and job."""

from collections.abc import Iterator
from typing import Any, Self

import dagster as dg
from pydantic import ConfigDict, Field, field_validator, model_validator
from pyiceberg.table import DataScan

from dwh_assets.components.attributes import (
    Freshness,
    Input,
    PartitionDimension,
    Replica,
    Retention,
    partition_expr,
    partitions_definition,
)
from dwh_assets.components.compute import PARTITION, PREVIOUS, Computation, load_computation
from dwh_assets.config import TableLayout
from dwh_assets.errors import ConfigurationError
from dwh_assets.iceberg.declaration import find_table
from dwh_assets.orchestration.checks import key_check, replica_check
from dwh_assets.orchestration.partitions import partition_slice


class IcebergTable(dg.Component, TableLayout, dg.Resolvable):
    """An Iceberg table as a Dagster asset, with its replicas, checks and a job, declared in YAML."""

    model_config = ConfigDict(extra="forbid", frozen=False)

    table: str = Field(description="namespace.table; the asset's key is [iceberg, namespace, table].")
    compute: str = Field(
        description="package.module.function that returns rows: Arrow, pandas, polars or a DuckDB relation. "
        "Parameters: `partition`, `previous`, and one for each input table."
    )
    description: str | None = Field(default=None, description="What a row of the table is.")
    inputs: dict[str, Input] = Field(
        default_factory=dict,
        description="Tables read, by parameter name; needed only where the name does not say it.",
    )
    partitions: list[PartitionDimension] = Field(
        default_factory=list, max_length=2, description="Dagster partitions: none, one dimension, or two."
    )
    replicas: list[Replica] = Field(default_factory=list, description="Copies in warehouses.")
    retention: Retention = Field(default_factory=Retention, description="How much history to keep.")
    max_writers: int = Field(default=1, ge=1, description="How many runs may write the table at once.")
    owners: list[str] = Field(default_factory=list, description="E-mail addresses, or team:name.")
    tags: dict[str, str] = Field(default_factory=dict, description="Dagster tags.")
    freshness: Freshness | None = Field(default=None, description="How old the table may become.")

    @field_validator("table")
    @classmethod
    def _qualified(cls, value: str) -> str:
        parts = value.split(".")
        if len(parts) < 2 or not all(part.isidentifier() for part in parts):
            raise ValueError(f"{value!r} must be namespace.table, each part a plain name")
        return value

    @model_validator(mode="after")
    def _dimensions_are_named(self) -> Self:
        if len(self.partitions) == 2 and not all(dimension.name for dimension in self.partitions):
            raise ValueError("two partition dimensions need a name each")
        return self

    @property
    def key(self) -> dg.AssetKey:
        """The asset key of the Iceberg table."""
        return table_key(self.table)

    @property
    def namespace(self) -> str:
        """The table's namespace, which is also its group in the UI."""
        return self.table.rpartition(".")[0]

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Make the table's asset, its replicas' assets, their checks, and one job over all of them."""
        computation = load_computation(self.compute, self.table)
        table = self._table_asset(computation)
        replicas = [self._replica_asset(replica) for replica in self.replicas]
        job = dg.define_asset_job(
            self.table.replace(".", "_"),
            selection=dg.AssetSelection.assets(table, *replicas),
            description=f"Materialize {self.table} and its replicas.",
        )
        return dg.Definitions(assets=[table, *replicas], asset_checks=list(self._checks()), jobs=[job])

    def _table_asset(self, computation: Computation) -> dg.AssetsDefinition:
        unknown = set(self.inputs) - set(computation.inputs)
        if unknown:
            raise ConfigurationError(
                f"{self.table}: inputs names {', '.join(sorted(unknown))}, but {self.compute} takes "
                f"{', '.join(computation.inputs) or 'no input'}."
            )

        @dg.asset(
            key=self.key,
            ins={name: self._asset_in(name, annotation) for name, annotation in computation.inputs.items()},
            description=self.description,
            metadata=self._metadata(),
            kinds={"iceberg"},
            group_name=_group(self.namespace),
            owners=self.owners,
            tags=self.tags,
            partitions_def=partitions_definition(self.partitions),
            freshness_policy=self.freshness.policy() if self.freshness else None,
            io_manager_key="iceberg_io_manager",
            required_resource_keys={"iceberg"},
            pool=f"iceberg/{self.table}",
        )
        def compute_table(context: dg.AssetExecutionContext, **inputs: Any) -> Any:
            if computation.takes_partition:
                inputs[PARTITION] = _slice(context)
            if computation.takes_previous:
                inputs[PREVIOUS] = find_table(context.resources.iceberg.catalog, self.table)
            return computation.function(**inputs)

        return compute_table

    def _asset_in(self, name: str, annotation: Any) -> dg.AssetIn:
        declared = self.inputs.get(name, Input())
        metadata = {"columns": declared.columns, "where": declared.where}
        return dg.AssetIn(
            key=table_key(declared.table or f"{self.namespace}.{name}"),
            metadata={key: value for key, value in metadata.items() if value is not None},
            dagster_type=annotation or dg.Any,
        )

    def _metadata(self) -> dict[str, Any]:
        """Return the declaration as the asset's metadata, which is where the IO manager reads it."""
        layout = {
            name: getattr(self, name) for name in TableLayout.model_fields if name in self.model_fields_set
        }
        plain = TableLayout.model_validate(layout).model_dump(mode="json", exclude_unset=True)
        properties = {**self.retention.properties(), **self.table_properties}
        return {
            **plain,
            **({"table_properties": properties} if properties else {}),
            **({"partition_expr": partition_expr(self.partitions)} if self.partitions else {}),
            "table": self.table,
            "dagster/table_name": self.table,
            "dwh/max_writers": self.max_writers,
        }

    def _replica_asset(self, replica: Replica) -> dg.AssetsDefinition:
        @dg.asset(
            key=replica_key(replica, self.table),
            ins={"table": dg.AssetIn(key=self.key, dagster_type=DataScan)},
            description=f"Copy of {self.table} in {replica.warehouse}, always at a known snapshot.",
            metadata={"table": self.table, "into": replica.into or self.table},
            kinds={replica.warehouse},
            group_name=_group(self.namespace),
            owners=self.owners,
            tags=self.tags,
            io_manager_key=f"{replica.resource}_replica_io_manager",
            pool=f"{replica.warehouse}/{replica.resource}",
            automation_condition=dg.AutomationCondition.eager()
            & dg.AutomationCondition.all_deps_blocking_checks_passed(),
        )
        def sync_replica(table: DataScan) -> DataScan:
            return table

        return sync_replica

    def _checks(self) -> Iterator[dg.AssetChecksDefinition]:
        if self.key_columns:
            yield key_check(self.key, self.table, self.key_columns)
        for replica in self.replicas:
            yield replica_check(
                replica_key(replica, self.table),
                self.key,
                self.table,
                replica.into or self.table,
                replica.resource,
            )


def table_key(table: str) -> dg.AssetKey:
    """Return the asset key of an Iceberg table."""
    return dg.AssetKey(["iceberg", *table.split(".")])


def replica_key(replica: Replica, table: str) -> dg.AssetKey:
    """Return the asset key of a table's replica."""
    return dg.AssetKey([replica.warehouse, *table.split(".")])


def _group(namespace: str) -> str:
    return namespace.replace(".", "_")


def _slice(context: dg.AssetExecutionContext) -> Any:
    if not context.has_partition_key and not context.has_partition_key_range:
        raise ConfigurationError(
            "The function takes `partition`, but the table declares no partitions.",
            remedy="Declare partitions, or drop the parameter.",
        )
    definition = context.assets_def.partitions_def
    assert definition is not None  # noqa: S101 - a run with a partition key has a definition
    return partition_slice(definition, context.partition_keys)
