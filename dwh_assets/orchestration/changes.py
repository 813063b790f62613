"""What exactly a run changed in a table, as the Dagster UI shows it."""

from __future__ import annotations

from typing import Any

import dagster as dg
from pyiceberg.table import Table

from dwh_assets.errors import UnsupportedError
from dwh_assets.iceberg.diff.compare import compare, own_keys
from dwh_assets.iceberg.diff.version_diff import VersionDiff
from dwh_assets.iceberg.results import WriteResult

# A summary is not worth reading so many rows again.
_MOST_ROWS = 2_000_000


def changes_metadata(table: Table, result: WriteResult) -> dict[str, Any]:
    """Compare the version that a run made with the one before; nothing where it made none.

    Rows are told apart by the table's key. What the changed rows hold is told where reading them is cheap.
    """
    if result.snapshot_id is None or not result.changed or result.repeated:
        return {}
    before, after = result.parent_snapshot_id, result.snapshot_id
    try:
        with compare(table, before, after, keys=own_keys(table, before, after)) as diff:
            return {"dwh/changes": dg.MetadataValue.md(_told(diff))}
    except UnsupportedError as error:
        return {"dwh/changes": f"Not compared: {error.message}"}


def _told(diff: VersionDiff) -> str:
    if diff.rows_read <= _MOST_ROWS:
        return diff.to_markdown()
    return f"{diff.rows_read:,} rows would have to be read to tell what changed; `dwh diff` does so."
