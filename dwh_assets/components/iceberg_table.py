"""The component that turns one YAML document into an Iceberg table, its replicas, checks and job."""

from collections.abc import Iterator
from functools import partial
from typing import Annotated, Any, Literal, Self

import dagster as dg
from pydantic import ConfigDict, Field, ValidationInfo, field_validator, model_validator

from dwh_assets.components.attributes import (
    Column,
    Freshness,
    Input,
    PartitionDimension,
    Policy,
    Replica,
    partition_expr,
    partitions_definition,
)
from dwh_assets.components.compute import OFFSET, PARTITION, PREVIOUS, Computation, load_computation
from dwh_assets.components.declared import DeclaredComponent, declared_at
from dwh_assets.components.replicas import CopiedTable, replica_definitions, require_apart
from dwh_assets.config import Stream, TableLayout
from dwh_assets.errors import ConfigurationError
from dwh_assets.iceberg.stream import rows_after
from dwh_assets.iceberg.write import IcebergWriter
from dwh_assets.orchestration.auditing import audit_specs
from dwh_assets.orchestration.checks import doctor_check, key_check
from dwh_assets.orchestration.declarations import (
    AUDITS,
    PUBLISH,
    STREAM,
    publish_mistake,
    table_key,
    writer_config,
)
from dwh_assets.orchestration.iceberg_io import failures
from dwh_assets.orchestration.partitions import PartitionSlice, partition_slice
from dwh_assets.orchestration.step import check_outputs
from dwh_assets.orchestration.time_travel import table_before
from dwh_assets.versioning.audits.declarations import Audit, require_distinct_names


class IcebergTable(DeclaredComponent, TableLayout):
    """An Iceberg table as a Dagster asset, with its replicas, checks and a job, declared in YAML."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=False,
        json_schema_extra={"x-capabilities": IcebergWriter.capabilities.as_dict()},
    )

    table: str = Field(description="namespace.table; the asset's key is [iceberg, namespace, table].")
    compute: str = Field(
        description="package.module.function that returns rows: Arrow, pandas, polars or a DuckDB relation. "
        "Parameters: `partition`, `previous`, `offset` of a stream, and one for each input table."
    )
    columns: dict[str, Column] = Field(  # type: ignore[assignment]  # only stricter
        default_factory=dict, description=TableLayout.model_fields["columns"].description
    )
    description: str | None = Field(default=None, description="What a row of the table is.")
    inputs: dict[str, Input] = Field(
        default_factory=dict,
        description="Tables read, by parameter name; needed only where the name does not say it.",
    )
    partitions: list[PartitionDimension] = Field(
        default_factory=list, max_length=2, description="Dagster partitions: none, one dimension, or two."
    )
    partitions_per_run: Annotated[int, Field(ge=1)] | Literal["all"] = Field(
        default=1,
        description="How many partitions one run of a backfill computes, as one commit: a number, or all.",
    )
    stream: Stream | None = Field(
        default=None,
        description="Feed the table from a stream: the function yields Arrow batches, from the row that its "
        "parameter `offset` says, or all of them where it has none.",
    )
    audits: list[Audit] = Field(
        default_factory=list,
        description="What has to be true of the rows that a write brings, each a check of the asset.",
    )
    publish: Literal["after_audit"] | None = Field(
        default=None,
        description="after_audit: a write goes to a branch of its own, which main takes over when its audits "
        "pass. Unset: audits come after the write, and tell.",
    )
    replicas: list[Replica] = Field(default_factory=list, description="Copies in warehouses.")
    policy: Policy = Field(default_factory=Policy, description="How much history to keep.")
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

    @field_validator("partitions")
    @classmethod
    def _two_dimensions(cls, value: list[PartitionDimension]) -> list[PartitionDimension]:
        if len(value) == 2:
            names = {dimension.name for dimension in value}
            if None in names or len(names) == 1:
                raise ValueError("two partition dimensions need a name each")
            if all(dimension.is_time for dimension in value):
                raise ValueError("only one of two partition dimensions can be time windows")
        return value

    @field_validator("audits")
    @classmethod
    def _audits_have_names(cls, value: list[Audit]) -> list[Audit]:
        return require_distinct_names(value)

    @field_validator("replicas")
    @classmethod
    def _replicas_are_apart(cls, value: list[Replica]) -> list[Replica]:
        return require_apart(value)

    @field_validator("owners")
    @classmethod
    def _are_owners(cls, value: list[str], info: ValidationInfo) -> list[str]:
        _ask_dagster(info, owners=value)
        return value

    @field_validator("tags")
    @classmethod
    def _are_tags(cls, value: dict[str, str], info: ValidationInfo) -> dict[str, str]:
        _ask_dagster(info, tags=value)
        return value

    @model_validator(mode="after")
    def _can_be_written(self) -> Self:
        """Refuse here what the writer would refuse when the table is written."""
        try:
            writer_config(self.table, self._layout())
        except ConfigurationError as error:
            raise ValueError(error.message) from None
        return self

    @model_validator(mode="after")
    def _stream_fits(self) -> Self:
        """A stream goes on where it was, whatever partition a run is for, and remembers that by itself."""
        if self.stream is None:
            return self
        if self.write_mode == "overwrite":
            raise ValueError("stream needs write_mode append, upsert or merge, not overwrite")
        for name in ("partitions", "idempotency_key"):
            if getattr(self, name):
                raise ValueError(f"stream goes without {name}")
        return self

    @model_validator(mode="after")
    def _can_be_published(self) -> Self:
        mistake = publish_mistake({name: getattr(self, name) for name in (AUDITS, STREAM, "branch")})
        if self.publish is not None and mistake:
            raise ValueError(mistake)
        taken = {"doctor", "key_is_unique"} & {audit.label for audit in self.audits}
        if taken:
            raise ValueError(f"audits: {min(taken)} is a check of its own; give that audit another name")
        return self

    @classmethod
    def get_spec(cls) -> dg.ComponentTypeSpec:
        """Describe the component with the capabilities of the writer behind it."""
        capabilities = IcebergWriter.capabilities
        return dg.ComponentTypeSpec(
            tags=[*capabilities.modes, *capabilities.features],
            metadata=capabilities.as_dict(),
            produces=["asset", "asset_check", "job"],
        )

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
        with declared_at(context, self.table, "compute"):
            computation = load_computation(self.compute, self.table, self.inputs)
            if computation.takes_partition and not self.partitions:
                raise ConfigurationError(
                    f"{self.table}: {self.compute} takes `partition`, but the table declares no partitions.",
                    remedy="Declare partitions, or drop the parameter.",
                )
            if computation.takes_offset and self.stream is None:
                raise ConfigurationError(
                    f"{self.table}: {self.compute} takes `offset`, but the table declares no stream.",
                    remedy="Declare stream, or drop the parameter.",
                )
        with declared_at(context, self.table, "inputs"):
            self._require_known_inputs(computation)
        with declared_at(context, self.table):
            return self._definitions(computation)

    def _require_known_inputs(self, computation: Computation) -> None:
        unknown = set(self.inputs) - set(computation.inputs)
        if unknown:
            raise ConfigurationError(
                f"{self.table}: inputs names {', '.join(sorted(unknown))}, but {self.compute} takes "
                f"{', '.join(computation.inputs) or 'no input'}."
            )

    def _definitions(self, computation: Computation) -> dg.Definitions:
        table = self._table_asset(computation)
        doctor = doctor_check(self.key, self.table, self._metadata())
        checks = [doctor]
        if self.key_columns:
            checks.append(key_check(self.key, self.table, self.key_columns, self.branch))
        copied = CopiedTable(self.table, self.branch, _group(self.namespace), self.owners, self.tags)
        replicas = replica_definitions(copied, self.replicas)
        job = dg.define_asset_job(
            self.table.replace(".", "_"),
            # Each check is a process of its own, and a run that writes the table proves most of this one.
            selection=dg.AssetSelection.assets(table, *_assets(replicas)) - dg.AssetSelection.checks(doctor),
            description=f"Materialize {self.table} and its replicas.",
        )
        return dg.Definitions.merge(dg.Definitions(assets=[table], asset_checks=checks, jobs=[job]), replicas)

    def _table_asset(self, computation: Computation) -> dg.AssetsDefinition:
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
            backfill_policy=self._backfill_policy(),
            freshness_policy=self.freshness.policy() if self.freshness else None,
            io_manager_key="iceberg_io_manager",
            required_resource_keys={"iceberg"},
            pool=f"iceberg/{self.table}",
            check_specs=audit_specs(self.key, self.audits),
        )
        def compute_table(context: dg.AssetExecutionContext, **inputs: Any) -> Iterator[dg.Output[Any]]:
            with failures(context):
                if computation.takes_partition:
                    inputs[PARTITION] = _slice(context, self.table)
                if computation.takes_previous:
                    catalog, tags = context.resources.iceberg.catalog, context.run.tags
                    inputs[PREVIOUS] = table_before(catalog, self.table, self.branch, tags)
                rows = (
                    computation.function(**inputs)
                    if self.stream is None
                    else partial(_stream_from, computation, inputs)
                )
            yield rows if isinstance(rows, dg.Output) else dg.Output(rows)
            yield from check_outputs(context)

        return compute_table

    def _backfill_policy(self) -> dg.BackfillPolicy | None:
        if not self.partitions:
            return None
        if self.partitions_per_run == "all":
            return dg.BackfillPolicy.single_run()
        return dg.BackfillPolicy.multi_run(self.partitions_per_run)

    def _asset_in(self, name: str, annotation: Any) -> dg.AssetIn:
        declared = self.inputs.get(name, Input())
        return dg.AssetIn(
            key=table_key(declared.table or f"{self.namespace}.{name}"),
            metadata=declared.model_dump(exclude={"table"}, exclude_none=True),
            dagster_type=annotation or dg.Any,
            input_manager_key="iceberg_io_manager",  # so that run config can say which version to read
        )

    def _metadata(self) -> dict[str, Any]:
        """Return the declaration as the asset's metadata, which is where the IO manager reads it."""
        plain = TableLayout.model_validate(self._layout()).model_dump(mode="json", exclude_unset=True)
        properties = {**self.policy.properties(), **self.table_properties}
        return {
            **plain,
            **({"table_properties": properties} if properties else {}),
            **({STREAM: self.stream.model_dump(exclude_unset=True)} if self.stream else {}),
            **self._publishing(),
            **({"partition_expr": partition_expr(self.partitions)} if self.partitions else {}),
            "table": self.table,
            "dagster/table_name": self.table,
            "dwh/max_writers": self.max_writers,
        }

    def _publishing(self) -> dict[str, Any]:
        audits = [audit.model_dump(mode="json", exclude_none=True) for audit in self.audits]
        return {**({AUDITS: audits} if audits else {}), **({PUBLISH: self.publish} if self.publish else {})}

    def _layout(self) -> dict[str, Any]:
        """Return what was given of the attributes that notebooks and YAML share."""
        return {
            name: getattr(self, name) for name in TableLayout.model_fields if name in self.model_fields_set
        }


# `dg` documents a component with its docstring and its schema; the writer itself is the source of both.
IcebergTable.__doc__ = f"{IcebergTable.__doc__}\n\nThe writer: {IcebergWriter.capabilities}"


def _group(namespace: str) -> str:
    return namespace.replace(".", "_")


def _assets(definitions: dg.Definitions) -> list[dg.AssetsDefinition]:
    return [one for one in definitions.assets or [] if isinstance(one, dg.AssetsDefinition)]


def _slice(context: dg.AssetExecutionContext, table: str) -> PartitionSlice:
    if not context.has_partition_key and not context.has_partition_key_range:
        raise ConfigurationError(
            f"{table} has partitions, but the run selects none of them.",
            remedy="Start it for a partition, or for a range that holds at least one.",
        )
    definition = context.assets_def.partitions_def
    assert definition is not None  # noqa: S101 - a run with a partition key has a definition
    return partition_slice(definition, context.partition_keys)


def _stream_from(computation: Computation, inputs: dict[str, Any], offset: int) -> Any:
    """Return the stream from a row on; called when it is written, so that the offset is that of the table."""
    if computation.takes_offset:
        return computation.function(**inputs, **{OFFSET: offset})
    return rows_after(computation.function(**inputs), offset)


def _ask_dagster(declared: ValidationInfo, **attributes: Any) -> None:
    """Let Dagster judge attributes of an asset; raise `ValueError` when it refuses."""
    try:
        dg.AssetSpec(table_key(declared.data.get("table", "")), **attributes)
    except dg.DagsterError as error:
        raise ValueError(str(error)) from None
