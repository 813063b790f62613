"""What a sync says about itself, and what a warehouse remembers about a replica."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal


@dataclass(frozen=True)
class SyncResult:
    """What one sync did.

    `method` is `full` when all rows were loaded, `none` when none had to be; `reason` says why.
    `from_snapshot` and `to_snapshot` are what the replica held before and holds now; None is a table
    without any snapshot, or no replica. `rows_deleted` counts the replica's rows of before that a full
    load replaced. `bytes` is the size of the rows in Arrow form, `seconds` includes waiting for others.
    """

    mode: Literal["copy"]
    method: Literal["full", "none"]
    reason: str
    from_snapshot: int | None
    to_snapshot: int | None
    rows_inserted: int
    rows_updated: int
    rows_deleted: int
    bytes: int
    statements: int
    seconds: float


@dataclass(frozen=True)
class ReplicaState:
    """The version of a table that a replica holds, as recorded in the warehouse with the rows.

    `table` is the name in the lake and `table_uuid` tells it from a later table of that name.
    The snapshot ids are None for a table that had no snapshot yet.
    """

    table: str
    table_uuid: str
    snapshot_id: int | None
    logical_snapshot_id: int | None
    schema_id: int
    rows: int
    synced_at: datetime
    run_id: str | None
