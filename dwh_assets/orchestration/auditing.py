"""Audits of a table in Dagster: declared as checks of its asset, reported by the step that writes it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import dagster as dg
import pyarrow as pa

from dwh_assets.errors import AuditFailedError
from dwh_assets.orchestration import step
from dwh_assets.versioning.audits.candidate import AuditResult
from dwh_assets.versioning.audits.declarations import Audit

_LONGEST_VALUE = 80


def audit_specs(asset: dg.AssetKey, audits: Iterable[Audit]) -> list[dg.AssetCheckSpec]:
    """Return the checks that the asset has because of its audits."""
    return [dg.AssetCheckSpec(audit.label, asset=asset, description=audit.described) for audit in audits]


def report_audits(
    context: dg.OutputContext,
    audits: Iterable[Audit],
    results: Sequence[AuditResult],
    snapshot_id: int | None,
) -> None:
    """Emit the result of each audit; without one there was nothing to audit, and it passes.

    The check is never blocking: what must not be seen has not been published, and the step fails by itself.
    """
    by_name = {result.name: result for result in results}
    for audit in audits:
        step.report_check(
            context, _evaluation(context.asset_key, audit, by_name.get(audit.label), snapshot_id)
        )


def _evaluation(
    asset: dg.AssetKey, audit: Audit, result: AuditResult | None, snapshot_id: int | None
) -> dg.AssetCheckEvaluation:
    found = result or AuditResult(audit.label, True, 0, pa.table({}), "Nothing was written, nothing audited.")
    metadata: dict[str, dg.MetadataValue] = {
        "rows_failing": dg.MetadataValue.int(found.rows_failing),
        "dwh/snapshot_id": dg.MetadataValue.text(str(snapshot_id)),
    }
    if found.sample.num_rows:
        metadata["sample"] = dg.MetadataValue.md(markdown_table(found.sample))
    return dg.AssetCheckEvaluation(
        asset_key=asset,
        check_name=audit.label,
        passed=found.passed,
        metadata=metadata,
        severity=dg.AssetCheckSeverity.ERROR,
        description=found.detail,
        blocking=False,
    )


def audit_failure(error: AuditFailedError, table: str, declared_at: str | None) -> dg.Failure:
    """Tell Dagster which rows are in the way, where they are, and how to publish them all the same."""
    where = f" Declared at {declared_at}." if declared_at else ""
    failed: list[AuditResult] = [result for result in error.results if not result.passed]
    return dg.Failure(
        description=f"{error}{where}",
        allow_retries=False,
        metadata={
            "error": type(error).__name__,
            "remedy": error.remedy,
            **(_ways_to(table, error.branch) if error.branch else {}),
            **{
                f"sample of {result.name}": dg.MetadataValue.md(markdown_table(result.sample))
                for result in failed
                if result.sample.num_rows
            },
        },
    )


def _ways_to(table: str, branch: str) -> dict[str, str | dg.MetadataValue]:
    """Say where the rows are, and how to read and to publish them."""
    look = f'dwh_assets.iceberg.versions.at_branch(catalog.load_table("{table}"), "{branch}")'
    publish = f'dwh_assets.versioning.branches.fast_forward(catalog.load_table("{table}"), "{branch}")'
    return {
        "dwh/branch": branch,
        "look at it": dg.MetadataValue.md(f"`{look}`"),
        "publish it by hand": dg.MetadataValue.md(f"`{publish}`"),
    }


def audits_summary(results: Sequence[AuditResult], *, published: bool) -> dg.MetadataValue:
    """Say what was audited, for the materialization."""
    when = "Audited before main took it over" if published else "Audited after it was written"
    if not results:
        return dg.MetadataValue.md("Nothing was written, nothing audited.")
    lines = [f"- {'✓' if r.passed else '✗'} **{r.name}** {_escaped(r.detail)}" for r in results]
    return dg.MetadataValue.md("\n".join([f"{when}:", "", *lines]))


def markdown_table(rows: pa.Table) -> str:
    """Return rows as a table in markdown; long values are cut."""
    names = [_cell(name) for name in rows.column_names]
    lines = [[_cell(value) for value in row.values()] for row in rows.to_pylist()]
    return "\n".join(f"| {' | '.join(line)} |" for line in [names, ["---"] * len(names), *lines])


def _cell(value: object) -> str:
    text = "null" if value is None else str(value)
    return _escaped(text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}…")


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
