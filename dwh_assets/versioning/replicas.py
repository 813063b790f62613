"""What versioning asks of a replica, wherever it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from pyiceberg.catalog import Catalog
from pyiceberg.table import Table

from dwh_assets.errors import DwhError
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
        self, catalog_or_table: Catalog | Table, snapshot_id: int | None = None, *, run_id: str | None = None
    ) -> SyncResult:
        """Bring it to a snapshot of its table."""
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
