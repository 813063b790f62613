"""The check that a replica says what its table says, and how a difference is shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg

from dwh_assets.errors import DwhError
from dwh_assets.orchestration.iceberg_io import as_failure
from dwh_assets.orchestration.replica_declarations import replica_declaration
from dwh_assets.warehouses.parity import ParityReport

PARITY = "parity"


def parity_check(
    asset: dg.AssetKey, metadata: Mapping[str, Any], *, io_manager: str, pool: str
) -> dg.AssetChecksDefinition:
    """Return the blocking check of a replica against its table at the snapshot that it holds.

    `metadata` are those of the replica's asset; they say how closely is looked.
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
        return dg.AssetCheckResult(passed=report.passed, metadata=parity_metadata(report))

    return parity


_COMPARED = {
    "count": "As many rows",
    "fingerprint": "As many rows, and each column the same by fingerprint,",
    "full": "Every row and value the same",
}


def parity_metadata(report: ParityReport) -> dict[str, Any]:
    """Describe a comparison: how it was made, and the columns and partitions that differ."""
    return {}
