"""Asset checks of a table: keys identify rows, and catalog and store are as they have to be."""

from collections.abc import Mapping
from typing import Any

import dagster as dg
import duckdb
from pyiceberg.table.refs import MAIN_BRANCH

from dwh_assets.iceberg.doctor.check import Check, worst
from dwh_assets.iceberg.scan import read, scan
from dwh_assets.iceberg.sql import quote_identifier
from dwh_assets.iceberg.versions import at_branch
from dwh_assets.iceberg.write import IcebergWriter
from dwh_assets.orchestration.declarations import writer_config
from dwh_assets.orchestration.step import materializes


def key_check(
    asset: dg.AssetKey, table: str, key_columns: list[str], branch: str = MAIN_BRANCH
) -> dg.AssetChecksDefinition:
    """Return a check that the key columns identify each row of the table; only they are read."""

    @dg.asset_check(
        asset=asset,
        name="key_is_unique",
        description=f"{', '.join(key_columns)} identify each row.",
        required_resource_keys={"iceberg"},
    )
    def key_is_unique(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        loaded = at_branch(context.resources.iceberg.load_table(table), branch)
        rows = read(scan(loaded, columns=key_columns))
        total, repeated, sample = _repeated_keys(rows, key_columns)
        snapshot = loaded.current_snapshot()
        return dg.AssetCheckResult(
            passed=repeated == 0,
            metadata={
                "rows": total,
                "repeated_keys": repeated,
                "sample": str(sample),
                "dwh/snapshot_id": str(snapshot.snapshot_id if snapshot else None),
            },
        )

    return key_is_unique


def _repeated_keys(rows: Any, key_columns: list[str]) -> tuple[int, int, list[Any]]:
    """Count rows and repeated keys with DuckDB, which spills where they do not fit into memory."""
    columns_sql = ", ".join(quote_identifier(name) for name in key_columns)
    with duckdb.connect() as connection:
        connection.execute("SET enable_progress_bar = false")
        connection.register("arriving", rows)
        connection.execute(
            f"CREATE TABLE keys AS SELECT {columns_sql}, count(*) AS times FROM arriving GROUP BY ALL"
        )
        total, repeated = connection.execute(
            "SELECT coalesce(sum(times), 0)::BIGINT, count(*) FILTER (times > 1) FROM keys"
        ).fetchone() or (0, 0)
        sample = connection.execute("SELECT * FROM keys WHERE times > 1 LIMIT 5").fetchall()
    return total, repeated, sample


def doctor_check(asset: dg.AssetKey, table: str, metadata: Mapping[str, Any]) -> dg.AssetChecksDefinition:
    """Return a check that catalog, store and columns are as the table needs them that the metadata declare.

    After a materialization, which has proved the permissions, it only reads; run by itself it writes a probe.
    """

    @dg.asset_check(
        asset=asset,
        name="doctor",
        description="Catalog, store and columns are as the declaration needs them. Run alone, it also proves "
        "permissions and that tags are kept, with a probe table.",
        required_resource_keys={"iceberg"},
    )
    def doctor(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        catalog = context.resources.iceberg.config()
        writer = IcebergWriter(writer_config(table, metadata).model_copy(update={"catalog": catalog}))
        checks = writer.doctor(probe=not materializes(context))
        return dg.AssetCheckResult(
            passed=worst(checks) in ("ok", "skipped"),
            severity=dg.AssetCheckSeverity.ERROR if worst(checks) == "failed" else dg.AssetCheckSeverity.WARN,
            metadata={"checks": _as_table(checks)},
        )

    return doctor


def _as_table(checks: list[Check]) -> dg.TableMetadataValue:
    return dg.MetadataValue.table(
        [
            dg.TableRecord({"check": c.name, "status": c.status, "detail": c.detail, "what to do": c.remedy})
            for c in checks
        ]
    )
