"""The IO manager that materializes Iceberg tables and reads them at a known version."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import dagster as dg
from pydantic import PrivateAttr
from pyiceberg.expressions import AlwaysFalse, And, BooleanExpression
from pyiceberg.schema import Schema
from pyiceberg.table import DataScan, Table
from pyiceberg.table.refs import MAIN_BRANCH

from dwh_assets.config import IcebergWriterConfig, Stream
from dwh_assets.errors import (
    AuditFailedError,
    ConfigurationError,
    DataError,
    DwhError,
    NotFoundError,
    TransientError,
)
from dwh_assets.iceberg.arrow.frames import read_as
from dwh_assets.iceberg.arrow.sources import as_reader
from dwh_assets.iceberg.declaration import find_table, schema_after_write
from dwh_assets.iceberg.filters import filter_expression
from dwh_assets.iceberg.results import WriteResult
from dwh_assets.iceberg.scan import scan, schema_at
from dwh_assets.iceberg.versions import RUN_ID, at_branch, branch_start, logical_snapshot_id
from dwh_assets.iceberg.write import IcebergWriter
from dwh_assets.orchestration import step
from dwh_assets.orchestration.auditing import audit_failure, audits_summary, report_audits
from dwh_assets.orchestration.changes import changes_metadata
from dwh_assets.orchestration.declarations import (
    as_run_decided,
    audit_declarations,
    publishes_after_audit,
    stream_declaration,
    table_name,
    writer_config,
)
from dwh_assets.orchestration.input_versions import (
    INPUT_CONFIG,
    InputVersion,
    input_version,
    inputs_summary,
)
from dwh_assets.orchestration.metadata import (
    aside_metadata,
    past_metadata,
    stream_metadata,
    version_metadata,
    write_metadata,
)
from dwh_assets.orchestration.partition_counts import partition_counts
from dwh_assets.orchestration.partitions import named, partition_filter, shown
from dwh_assets.orchestration.resources import IcebergCatalogResource
from dwh_assets.orchestration.time_travel import (
    begin_branch,
    branch_of_run,
    lifetime_of,
    run_as_of,
    written_aside,
)
from dwh_assets.versioning.audits.candidate import AuditResult
from dwh_assets.versioning.audits.declarations import Audit
from dwh_assets.versioning.audits.evaluate import require_sound
from dwh_assets.versioning.provenance import (
    PARTITION_KEY,
    REPLACES,
    REPLACES_PARTITIONS,
)
from dwh_assets.versioning.publishing import audit, write_audited


class IcebergIOManager(dg.ConfigurableIOManager):
    """Writes what an asset returns to its Iceberg table, and loads inputs from theirs.

    An output may be an Arrow table or reader, a pandas or polars frame, a DuckDB relation or a PyIceberg
    scan; an input arrives as its annotation says (see `iceberg.arrow.frames`). The asset's metadata
    hold the attributes of `TableLayout`, `partition_expr`, the column that its partitions are, and
    `stream`, the attributes of `Stream`: the output then is the whole stream, or a function of the row to
    begin at. `audits` are evaluated on what was written, with `publish: after_audit` on a branch of its own,
    before main has it. The metadata that a run gives its output may decide what `declarations.AT_RUN_TIME`
    names. An input is read at the branch that its asset declares, or at the version that `input_versions`
    finds to be asked for. Input metadata may name `columns`, and `where`, a row filter.
    """

    iceberg: dg.ResourceDependency[IcebergCatalogResource]

    _read: dict[tuple[str, str], dict[str, InputVersion]] = PrivateAttr(default_factory=dict)

    @classmethod
    def input_config_schema(cls) -> dict[str, dg.Field]:
        """Return what run config may say of an input that names this IO manager as its input manager."""
        return INPUT_CONFIG

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        """Write the table, and make its snapshot the version and the metadata of the materialization."""
        with failures(context):
            self._write(context, obj)

    def load_input(self, context: dg.InputContext) -> Any:
        """Read the upstream table at one snapshot, which becomes part of the output's lineage."""
        with failures(context):
            return read_as(self._scan(context), context.dagster_type.typing_type)

    def _write(self, context: dg.OutputContext, obj: Any) -> None:
        name = table_name(context.asset_key, context.definition_metadata)
        metadata = as_run_decided(name, context.definition_metadata, context.output_metadata)
        declared = writer_config(name, metadata)
        tags = step.run_tags(context)
        config = written_aside(declared, branch_of_run(tags, declared.branch))
        writer = IcebergWriter(config, catalog=self.iceberg.catalog, branch_lifetime=lifetime_of(tags))
        stream = stream_declaration(name, metadata)
        keys = step.output_partition_keys(context)
        if stream is not None:
            self._feed(context, writer, stream, obj, metadata, declared.branch)
            return
        reader = as_reader(obj)
        where = None
        if keys is not None:
            where = _partition_filter(
                context, keys, schema_after_write(writer.catalog, writer.config, reader.schema), name
            )
        if config.branch != declared.branch:
            begin_branch(writer, run_as_of(context), partial=where is not None)
        result = self._audited(
            context,
            writer,
            reader,
            metadata,
            where=where if writer.config.write_mode == "overwrite" else None,
            summary={**self._lineage(context, keys), **_replaced(writer.config, keys)},
            idempotency_key=_idempotency_key(context, writer.config, keys),
        )
        self._report(context, writer, result, keys, declared.branch)

    def _audited(
        self,
        context: dg.OutputContext,
        writer: IcebergWriter,
        rows: Any,
        metadata: Mapping[str, Any],
        **how: Any,
    ) -> WriteResult:
        """Write, and audit: before main has it where the asset says so, else afterwards."""
        name = writer.config.table
        audits = audit_declarations(name, metadata)
        if not publishes_after_audit(name, metadata) or writer.config.branch != MAIN_BRANCH:
            if audits:
                schema = schema_after_write(writer.catalog, writer.config, rows.schema)
                require_sound(audits, schema, writer.catalog, name)
            result = writer.write(rows, **how)
            self._audit(context, audits, result)
            return result
        try:
            done = write_audited(writer, rows, audits, name=step.run_id(context)[:8], **how)
        except AuditFailedError as error:
            report_audits(context, audits, error.results, None)
            raise audit_failure(error, name, step.declared_at(context)) from error
        if done.written.repeated:
            self._audit(context, audits, done.written)
            return done.written
        report_audits(context, audits, done.audits, done.written.snapshot_id)
        context.add_output_metadata({"dwh/audits": audits_summary(done.audits, published=True)})
        return done.written

    def _audit(self, context: dg.OutputContext, audits: Sequence[Audit], result: WriteResult) -> None:
        """Audit what was written, now or by an earlier attempt that may have died before."""
        if not audits:
            return
        results: Sequence[AuditResult] = ()
        if result.snapshot_id is not None and (result.changed or result.repeated):
            table = self.iceberg.catalog.load_table(result.table)
            results = audit(table, result.parent_snapshot_id, result.snapshot_id, audits)
        report_audits(context, audits, results, result.snapshot_id)
        context.add_output_metadata({"dwh/audits": audits_summary(results, published=False)})

    def _feed(
        self,
        context: dg.OutputContext,
        writer: IcebergWriter,
        stream: Stream,
        obj: Any,
        metadata: Mapping[str, Any],
        declared_branch: str,
    ) -> None:
        """Feed the table from a stream; what an earlier attempt has committed is not written again."""
        name = writer.config.table
        publishes_after_audit(name, metadata)
        if step.output_partition_keys(context) is not None:
            raise ConfigurationError(
                f"{name} has partitions and a stream, which goes on where it was whatever the partition.",
                remedy="Drop the partitions or the stream.",
            )
        if writer.config.branch != declared_branch:
            begin_branch(writer, run_as_of(context))
        fed = writer.write_stream(
            obj,
            stream.name,
            commit_rows=stream.commit_rows,
            commit_seconds=stream.commit_seconds,
            summary=self._lineage(context, None),
        )
        if fed.written is None:
            raise DataError(
                f"{name}: the stream {stream.name!r} has no rows yet, so nobody knows the table's columns.",
                remedy="Run it again when the stream has rows.",
            )
        context.add_output_metadata(stream_metadata(fed))
        self._audit(context, audit_declarations(name, metadata), fed.written)
        self._report(context, writer, fed.written, None, declared_branch)

    def _reads(self, context: dg.OutputContext) -> list[InputVersion]:
        return list(self._read.get(step.step_id(context), {}).values())

    def _lineage(self, context: dg.OutputContext, keys: Sequence[str] | None) -> dict[str, str]:
        """Return what the snapshot itself remembers: the run, its partitions, the versions it has read."""
        as_of = run_as_of(context)
        return {
            RUN_ID: step.run_id(context),
            "dwh.asset-key": context.asset_key.to_user_string(),
            **({PARTITION_KEY: named(keys)} if keys else {}),
            **({"dwh.as-of": as_of} if as_of is not None else {}),
            **inputs_summary(self._reads(context)),
        }

    def _report(
        self,
        context: dg.OutputContext,
        writer: IcebergWriter,
        result: WriteResult,
        keys: Sequence[str] | None,
        declared_branch: str,
    ) -> None:
        table = at_branch(self.iceberg.catalog.load_table(result.table), writer.config.branch)
        aside = writer.config.branch != declared_branch
        version = _shown_version(table, declared_branch) if aside else result.logical_snapshot_id
        if version is not None:
            step.set_data_version(context, str(version))
        metadata = {
            **write_metadata(result, table, writer.config.write_mode, shown(keys) if keys else None),
            **past_metadata(run_as_of(context), [str(read) for read in self._reads(context) if read.pinned]),
        }
        if aside:
            metadata = aside_metadata(metadata, writer.config.branch, declared_branch)
        context.add_output_metadata({**metadata, **changes_metadata(table, result)})
        if keys and not aside:
            self._count_partitions(context, table, result, keys)
        context.log.info(metadata["dwh/summary"].value)

    def _count_partitions(
        self, context: dg.OutputContext, table: Table, result: WriteResult, keys: Sequence[str]
    ) -> None:
        expr = context.definition_metadata.get("partition_expr")
        counts = partition_counts(table, result.snapshot_id, context.asset_partitions_def, keys, expr)
        for key, rows in counts.items():
            step.add_partition_metadata(context, key, {"dagster/partition_row_count": rows})

    def _scan(self, context: dg.InputContext) -> DataScan:
        upstream = context.upstream_output
        definition_metadata = upstream.definition_metadata if upstream else {}
        name = table_name(context.asset_key, definition_metadata)
        branch = definition_metadata.get("branch", MAIN_BRANCH)
        table = find_table(self.iceberg.catalog, name)
        found = input_version(context, table, branch) if table else None
        if table is None or found is None:
            raise NotFoundError(
                f"{name} has no data yet.", remedy=f"Materialize {context.asset_key.to_user_string()} first."
            )
        planned = scan(
            table,
            columns=context.definition_metadata.get("columns"),
            where=self._input_filter(context, table, found, definition_metadata.get("partition_expr")),
            snapshot_id=found.snapshot.snapshot_id,
        )
        self._read.setdefault(step.step_id(context), {})[context.name] = found
        snapshot = found.snapshot
        keys = step.input_partition_keys(context)
        if keys is None or len(keys) == 1:  # Dagster observes one partition, or an asset without any
            context.add_input_metadata(version_metadata(snapshot.snapshot_id, snapshot.parent_snapshot_id))
        return planned

    def _input_filter(
        self, context: dg.InputContext, table: Table, read: InputVersion, partition_expr: Any
    ) -> BooleanExpression:
        schema = schema_at(table, read.snapshot.snapshot_id)
        expression = filter_expression(schema, context.definition_metadata.get("where"), read.table)
        keys = step.input_partition_keys(context)
        if keys is None or _is_whole_table(context, keys):
            return expression
        if not keys:
            return AlwaysFalse()
        partitions = partition_filter(context.asset_partitions_def, keys, partition_expr, schema, read.table)
        return And(expression, partitions)


def _shown_version(table: Table, branch: str) -> int | None:
    """Return the logical snapshot that readers of the branch see."""
    head = branch_start(table.metadata, branch)
    return logical_snapshot_id(table.metadata, head) if head else None


@contextmanager
def failures(
    context: dg.OutputContext | dg.InputContext | dg.AssetExecutionContext,
) -> Iterator[None]:
    """Turn the library's errors into Dagster's, and say where the asset is declared."""
    try:
        yield
    except DwhError as error:
        raise as_failure(error, step.declared_at(context)) from error


def as_failure(error: DwhError, declared_at: str | None = None) -> dg.Failure:
    """Tell Dagster what happened, and whether a retry can help."""
    where = f" Declared at {declared_at}." if declared_at else ""
    return dg.Failure(
        description=f"{error}{where}",
        allow_retries=isinstance(error, TransientError),
        metadata={"error": type(error).__name__, "remedy": error.remedy or "none"},
    )


def _idempotency_key(
    context: dg.OutputContext, config: IcebergWriterConfig, keys: Sequence[str] | None
) -> str:
    """Name this write: by the key that is declared, once for each partition, else by the run."""
    partitions = named(keys or ())
    if config.idempotency_key is None:
        return step.idempotency_key(context, partitions)
    return f"{config.idempotency_key}|{partitions}" if keys else config.idempotency_key


def _replaced(config: IcebergWriterConfig, keys: Sequence[str] | None) -> dict[str, str]:
    """Note in the summary that the write leaves no earlier row of its partitions: lineage goes by that."""
    whole = config.write_mode == "overwrite" and config.overwrite == "table" and not config.overwrite_where
    return {REPLACES: REPLACES_PARTITIONS} if keys and whole else {}


def _partition_filter(
    context: dg.OutputContext, keys: Sequence[str], schema: Schema, table: str
) -> BooleanExpression:
    expr = context.definition_metadata.get("partition_expr")
    return partition_filter(context.asset_partitions_def, keys, expr, schema, table)


def _is_whole_table(context: dg.InputContext, keys: Sequence[str]) -> bool:
    """An asset without partitions that reads all partitions reads the table, also rows of no partition."""
    if step.writes_partitions(context):
        return False
    definition = context.asset_partitions_def
    return set(keys) >= set(definition.get_partition_keys(dynamic_partitions_store=context.instance))
