"""What was made from a version of a table, in the whole catalog and in the warehouses.

The counterpart of `versioning.lineage`; what counts as part of a version is told in `versioning.provenance`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pyiceberg.catalog import Catalog
from pyiceberg.table.snapshots import Snapshot

from dwh_assets.iceberg.versions import RUN_ID, moment
from dwh_assets.versioning.catalog_tables import CatalogTables
from dwh_assets.versioning.provenance import (
    PARTITION_KEY,
    History,
    Read,
    entries,
    reads_of,
)
from dwh_assets.versioning.replicas import Replica, look_at


@dataclass(frozen=True)
class Made:
    """A write that read the version asked for, or something that was made from it.

    `current` says whether `main` may still show rows of it. `certain` is false where it read a version that
    has expired, of a table in which other versions are concerned.
    """

    table: str
    snapshot_id: int
    committed_at: datetime
    run_id: str | None
    partition: str | None
    reads: tuple[Read, ...]
    current: bool
    certain: bool

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return {
            "table": self.table,
            "snapshot_id": str(self.snapshot_id),
            "committed_at": self.committed_at.isoformat(),
            "run_id": self.run_id,
            "partition": self.partition,
            "read": [{"table": one.table, "snapshot_id": str(one.snapshot_id)} for one in self.reads],
            "current": self.current,
            "certain": self.certain,
        }


@dataclass(frozen=True)
class HeldCopy:
    """A replica that holds the version asked for, or one that was made from it; else why nobody knows."""

    replica: str
    table: str
    snapshot_id: int | None
    problem: str = ""


@dataclass(frozen=True)
class Impact:
    """What was made from a version: writes in order of time, and replicas."""

    table: str
    snapshot_id: int
    writes: tuple[Made, ...]
    replicas: tuple[HeldCopy, ...]
    unreadable: tuple[str, ...] = ()

    @property
    def tables(self) -> tuple[str, ...]:
        """The tables that were made from it."""
        return tuple(sorted({write.table for write in self.writes}))

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return {
            "table": self.table,
            "snapshot_id": str(self.snapshot_id),
            "writes": [write.to_dict() for write in self.writes],
            "replicas": [
                {
                    "replica": held.replica,
                    "table": held.table,
                    "snapshot_id": None if held.snapshot_id is None else str(held.snapshot_id),
                    "problem": held.problem,
                }
                for held in self.replicas
            ],
            "unreadable": list(self.unreadable),
        }


def impact(
    catalog: Catalog,
    table: str,
    snapshot_id: int | None = None,
    *,
    replicas: Mapping[str, Replica] | None = None,
) -> Impact:
    """Return what was made from a version of the table: every write of the catalog that read it, recursively.

    A compaction is the version that it compacted. A later version of the same table is another version, even
    if it still holds the rows: ask for that one, too. `replicas` by name are asked what they hold; one that
    does not answer is told with its `problem`. Raises `NotFoundError` for an unknown table or snapshot.
    """
    tables = CatalogTables(catalog)
    history, wanted = tables.require_version(table, snapshot_id)
    spread = _Spread(tables, history, wanted)
    writes = sorted(spread.writes(), key=lambda made: made.committed_at)
    return Impact(
        table, wanted, tuple(writes), tuple(_copies(spread, replicas or {})), tuple(tables.unreadable)
    )


class _Spread:
    """The versions that were made from one: by table those that read it, then what these spread to."""

    def __init__(self, tables: CatalogTables, history: History, snapshot_id: int) -> None:
        self._histories = {found.name: found for found in tables.all()}
        logical = history.logical(snapshot_id)
        same = {kept for kept in history.kept if history.logical(kept) == logical}
        self.versions: dict[str, set[int]] = {history.name: {logical, *same}}
        self._found: dict[tuple[str, int], Snapshot] = {}
        while self._step():
            pass

    def _step(self) -> bool:
        """Add the writes that read what is known so far, and the versions which these are part of."""
        new = [
            (history, write)
            for history in self._histories.values()
            for write in history.kept.values()
            if (history.name, write.snapshot_id) not in self._found and self._reads(write)
        ]
        self._found.update(((history.name, write.snapshot_id), write) for history, write in new)
        for history in {history.name: history for history, _ in new}.values():
            self.versions.setdefault(history.name, set()).update(self._made_of(history))
        return bool(new)

    def _made_of(self, history: History) -> Iterator[int]:
        for kept in history.kept:
            writes = history.provenance(kept).writes
            if any((history.name, write.snapshot_id) in self._found for write in writes):
                yield kept

    def _reads(self, write: Snapshot) -> tuple[Read, ...]:
        """Return what the write read of the versions concerned, or of versions that may have been."""
        return tuple(
            read
            for read in reads_of(write)
            if read.snapshot_id in self.versions.get(read.table, ()) or self._may_concern(read)
        )

    def _may_concern(self, read: Read) -> bool:
        """An expired version of a table of which others are concerned; not of the one asked for."""
        history = self._histories.get(read.table)
        first, *_ = self.versions
        if history is None or read.table not in self.versions or read.table == first:
            return False
        since = min(self._found[key].timestamp_ms for key in self._found if key[0] == read.table)
        return read.snapshot_id not in history.kept and read.at.timestamp() * 1000 > since

    def writes(self) -> Iterator[Made]:
        """Yield every write found, with what it read of the versions concerned."""
        for (table, snapshot_id), write in self._found.items():
            history = self._histories[table]
            reads = self._reads(write)
            shown = history.provenance(history.head).writes if history.head in history.kept else ()
            yield Made(
                table,
                snapshot_id,
                moment(write.timestamp_ms),
                entries(write).get(RUN_ID),
                entries(write).get(PARTITION_KEY),
                reads,
                current=write in shown,
                certain=any(read.snapshot_id in self.versions[read.table] for read in reads),
            )


def _copies(spread: _Spread, replicas: Mapping[str, Replica]) -> Iterator[HeldCopy]:
    concerned = {name: replica for name, replica in replicas.items() if replica.table in spread.versions}
    for seen in look_at(concerned):
        if seen.problem:
            yield HeldCopy(seen.name, seen.table, None, str(seen.problem))
        elif (
            seen.state
            and {seen.state.snapshot_id, seen.state.logical_snapshot_id} & spread.versions[seen.table]
        ):
            yield HeldCopy(seen.name, seen.table, seen.state.snapshot_id)
