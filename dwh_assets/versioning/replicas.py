"""What versioning asks of a replica, wherever it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from pyiceberg.catalog import Catalog
from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.refs import MAIN_BRANCH
from pyiceberg.table.snapshots import Snapshot

from dwh_assets.errors import DwhError
from dwh_assets.iceberg.versions import logical_snapshot_id, moment
from dwh_assets.ledger import Ledger
from dwh_assets.versioning.points import versions_of
from dwh_assets.warehouses.base import ReplicaState, SyncResult


class Replica(Protocol):
    """A copy of one table that knows which snapshot it holds, and can be brought to another."""

    @property
    def table(self) -> str:
        """The table's name in the lake."""
        ...

    def state(self) -> ReplicaState | None:
        """Return what it holds; None when it was never loaded. Raises `DwhError` when nobody can tell."""
        ...

    def sync(
        self,
        catalog_or_table: Catalog | Table,
        snapshot_id: int | None = None,
        *,
        run_id: str | None = None,
        ledger: Ledger | None = None,
    ) -> SyncResult:
        """Bring it to a snapshot of its table, which is pinned in the ledger, if there is one."""
        ...


@dataclass(frozen=True)
class Seen:
    """What a replica said of itself: its state (None: it holds nothing), or the `problem` of asking it."""

    name: str
    table: str
    state: ReplicaState | None
    problem: DwhError | None = None


def look_at(replicas: Mapping[str, Replica]) -> list[Seen]:
    """Ask each replica, by name, what it holds; one that is down does not keep the others from telling."""
    return [_seen(name, replicas[name]) for name in sorted(replicas)]


def _seen(name: str, replica: Replica) -> Seen:
    try:
        return Seen(name, replica.table, replica.state())
    except DwhError as error:
        return Seen(name, replica.table, None, error)


@dataclass(frozen=True)
class Lag:
    """How far a branch is ahead of what a replica holds: in versions, and in the time between the commits.

    Compactions do not count. Both are None where the branch does not go through what is held, as far as its
    history is kept; `time` also where nothing is held.
    """

    versions: int | None
    time: timedelta | None


def lag(metadata: TableMetadata, logical_id: int | None, branch: str = MAIN_BRANCH) -> Lag:
    """Return how far a branch is ahead of a replica that holds the rows of a logical snapshot, or of none."""
    lacking: list[Snapshot] = []
    for version in versions_of(metadata, branch):
        if logical_snapshot_id(metadata, version) == logical_id:
            newest = lacking[0] if lacking else version
            return Lag(len(lacking), moment(newest.timestamp_ms) - moment(version.timestamp_ms))
        lacking.append(version)
    if logical_id is None:
        return Lag(len(lacking), None if lacking else timedelta())
    return Lag(None, None)
