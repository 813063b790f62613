"""What an IO manager needs to know and say about the step it serves.

The only module that reaches into a step's context (`step_context` is half public) and reports an event that
Dagster has no public name for; tests pin what is used of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import dagster as dg
from dagster._core.events import AssetMaterializationPlannedData

from dwh_assets.errors import ConfigurationError

RETRY_TAG = "dagster/retry_number"
PARENT_RUN_TAG = "dagster/parent_run_id"
# What Dagster calls the output of an asset
_RESULT = "result"
# What Dagster names the step of an upstream asset that the run does not materialize.
_NO_STEP = "none"
CODE_REFERENCES = "dagster/code_references"


def set_data_version(context: dg.OutputContext, version: str) -> None:
    """Make `version` the data version of the materialization that the IO manager is performing."""
    context.step_context.set_data_version(context.asset_key, dg.DataVersion(version))


def report_check(context: dg.OutputContext, evaluation: dg.AssetCheckEvaluation) -> None:
    """Put the result of an asset check into the event log, at once: the step may be about to fail."""
    dg.DagsterEvent.asset_check_evaluation(context.step_context, evaluation)


def check_outputs(context: dg.AssetExecutionContext) -> Iterator[dg.Output[None]]:
    """Yield the outputs of the checks that an asset's own step has reported, for the step to be complete."""
    for name in sorted(context.op_execution_context.selected_output_names - {_RESULT}):
        yield dg.Output(None, output_name=name)


def add_partition_metadata(
    context: dg.OutputContext, partition_key: str, metadata: Mapping[str, Any]
) -> None:
    """Attach metadata to one partition of a run that materializes several."""
    context.step_context.add_asset_metadata(
        metadata, asset_key=context.asset_key, partition_key=partition_key
    )


def plan_materialization(
    context: dg.OpExecutionContext, asset: dg.AssetKey, partition: str | None = None
) -> None:
    """Tell Dagster that this run is going to materialize an asset, which an op may do but not declare.

    Until it has, or the run ends, the asset is in progress, and automation leaves it alone.
    """
    planned = AssetMaterializationPlannedData(asset, partition=partition)
    event = dg.DagsterEvent(
        event_type_value=dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED.value,
        job_name=context.job_name,
        step_key=str(context.op_handle),
        event_specific_data=planned,
    )
    context.instance.report_dagster_event(event, run_id=context.run_id)


def output_partition_keys(context: dg.OutputContext) -> Sequence[str] | None:
    """Return the partitions that this step writes; None for an asset without partitions.

    Raises `ConfigurationError` when the asset has partitions and the run names none of them: Dagster
    starts such a run, and taken for "no partitions" it would replace the whole table.
    """
    keys = context.asset_partition_keys if context.has_asset_partitions else ()
    if keys:
        return keys
    if context.step_context.entity_partitions_def is None:
        return None
    raise ConfigurationError(
        f"{context.asset_key.to_user_string()} has partitions, but the run selects none of them.",
        remedy="Start it for a partition, or for a range that holds at least one.",
    )


def input_partition_keys(context: dg.InputContext) -> Sequence[str] | None:
    """Return the upstream partitions that this step reads; None for an asset without partitions.

    Empty means that the mapping gives this run no partition to read, and so no rows.
    """
    return context.asset_partition_keys if context.has_asset_partitions else None


def writes_partitions(context: dg.InputContext) -> bool:
    """Tell whether the asset that reads this input has partitions itself."""
    return context.step_context.entity_partitions_def is not None


def materializes(context: dg.AssetCheckExecutionContext) -> bool:
    """Tell whether the run of this check materializes assets, or was started for checks alone."""
    return bool(context.op_execution_context.job_def.asset_layer.selected_asset_keys)


def declared_at(context: dg.OutputContext | dg.InputContext | dg.AssetExecutionContext) -> str | None:
    """Return `file:line` of the YAML that declares the asset of this step, when it was declared there."""
    step = context if isinstance(context, dg.AssetExecutionContext) else context.step_context
    assets: dg.AssetsDefinition | None = step.assets_def
    found = (
        next((entries.get(CODE_REFERENCES) for entries in assets.metadata_by_key.values()), None)
        if assets
        else None
    )
    for reference in found.code_references if isinstance(found, dg.CodeReferencesMetadataValue) else ():
        if isinstance(reference, dg.LocalFileCodeReference) and reference.file_path.endswith(".yaml"):
            return f"{reference.file_path}:{reference.line_number}"
    return None


def run_id(context: dg.OutputContext | dg.InputContext) -> str:
    """Return the id of the run."""
    return str(context.step_context.run_id)


def run_tags(context: dg.OutputContext | dg.InputContext) -> Mapping[str, str]:
    """Return the tags of the run."""
    tags: Mapping[str, str] = context.step_context.run_tags
    return tags


def made_by_this_run(context: dg.InputContext) -> bool:
    """Tell whether the input is what a step of this very run has written, and not what was there before."""
    upstream = context.upstream_output
    return upstream is not None and upstream.step_key != _NO_STEP


def step_id(context: dg.OutputContext | dg.InputContext) -> tuple[str, str]:
    """Identify the step among all runs, alike for its inputs and its outputs."""
    return run_id(context), context.step_context.step.key


def idempotency_key(context: dg.OutputContext, partitions: str) -> str:
    """Name this write so that a retry of it is recognised, and a new materialization is not.

    An automatic retry is a run of its own; what counts is the run that it stands for. A re-execution by
    hand means to write again, and counts as itself.
    """
    return f"{context.asset_key.to_user_string()}|{partitions}|{_first_attempt(context)}"


def _first_attempt(context: dg.OutputContext) -> str:
    """Follow automatic retries back; the root run will not do, it may lie before a re-execution by hand."""
    run = context.step_context.dagster_run
    while RETRY_TAG in run.tags and PARENT_RUN_TAG in run.tags:
        parent = context.step_context.instance.get_run_by_id(run.tags[PARENT_RUN_TAG])
        if parent is None:
            return run.tags[PARENT_RUN_TAG]
        run = parent
    return run.run_id
