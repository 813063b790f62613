"""The check that a replica says what its table says, and how a difference is shown."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from dwh_assets.errors import DwhError
from dwh_assets.orchestration.iceberg_io import as_failure
from dwh_assets.orchestration.metadata import version_text
from dwh_assets.orchestration.replica_declarations import replica_declaration
from dwh_assets.warehouses.parity_report import Level, ParityReport

PARITY = "parity"
_COMPARED: dict[Level, str] = {
    "count": "As many rows",
    "fingerprint": "As many rows, and every column the same by its fingerprint,",
    "full": "The same rows, value by value,",
}
_MOST_SHOWN = 100


def parity_check(
    asset: dg.AssetKey, metadata: Mapping[str, Any], *, io_manager: str, pool: str
) -> dg.AssetChecksDefinition:
    """Return the blocking check of a replica against its table at the snapshot that it holds.

    `metadata` are those of the replica's asset: they say which replica, and how closely it is looked at.
    """
    level = replica_declaration(asset.to_user_string(), metadata).parity
    table = metadata["table"]

    @dg.asset_check(
        asset=asset,
        name=PARITY,
        description=f"{_COMPARED[level]} as in {table} at the snapshot that the replica holds.",
        blocking=True,
        required_resource_keys={"iceberg", io_manager},
        pool=pool,
    )
    def parity(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        replica = getattr(context.resources, io_manager).replica(metadata)
        try:
            report = replica.verify(context.resources.iceberg.load_table(table), level)
        except DwhError as error:
            raise as_failure(error) from error
        return dg.AssetCheckResult(passed=report.equal, metadata=parity_metadata(report))

    return parity


def parity_evaluation(asset: dg.AssetKey, report: ParityReport) -> dg.AssetCheckEvaluation:
    """Return the result of the same check, made by another step than its own."""
    return dg.AssetCheckEvaluation(
        asset_key=asset,
        check_name=PARITY,
        passed=report.equal,
        metadata=parity_metadata(report),
        blocking=True,
    )


def parity_metadata(report: ParityReport) -> dict[str, Any]:
    """Describe a comparison: how it was made, and which columns, partitions and rows differ."""
    told = report.to_dict()
    tables = {f"differing {part}": _table(told[part]) for part in ("columns", "partitions") if told[part]}
    return {
        "dwh/snapshot_id": version_text(report.snapshot_id),
        "level": report.level,
        "rows": report.rows_in_replica,
        "expected": report.rows_in_table,
        "report": dg.MetadataValue.md(report.to_markdown()),
        **tables,
        "dwh/bytes_read": report.bytes,
        "dwh/seconds": round(report.seconds, 3),
    }


def _table(differences: list[dict[str, Any]]) -> dg.TableMetadataValue:
    return dg.MetadataValue.table([dg.TableRecord(one) for one in differences[:_MOST_SHOWN]])
