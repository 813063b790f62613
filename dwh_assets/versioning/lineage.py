"""Which versions of which inputs made a version of a table: told from snapshot summaries alone.

What counts as part of a version is told in `versioning.provenance`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from pyiceberg.catalog import Catalog

from dwh_assets.iceberg.versions import RUN_ID, moment
from dwh_assets.versioning.catalog_tables import CatalogTables
from dwh_assets.versioning.provenance import Read, entries

Status = Literal["kept", "expired", "no table"]


@dataclass(frozen=True)
class Version:
    """One version of one table, and what its writes read.

    Of a version that has expired, or whose table is gone, only its id is known. A version is not `complete`
    where older writes, whose rows it may hold, have expired: what these read is not known any more.
    """

    table: str
    snapshot_id: int
    status: Status
    committed_at: datetime | None = None
    run_id: str | None = None
    reads: tuple[Read, ...] = ()
    complete: bool = True

    @property
    def inputs(self) -> dict[str, tuple[int, ...]]:
        """The versions read, by input table, the newest read first."""
        found: dict[str, dict[int, None]] = {}
        for read in self.reads:
            found.setdefault(read.table, {})[read.snapshot_id] = None
        return {table: tuple(found[table]) for table in sorted(found)}

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON; ids are text, as numbers they lose digits in browsers."""
        return {
            "table": self.table,
            "snapshot_id": str(self.snapshot_id),
            "status": self.status,
            "committed_at": self.committed_at.isoformat() if self.committed_at else None,
            "run_id": self.run_id,
            "inputs": {table: [str(one) for one in ids] for table, ids in self.inputs.items()},
            "complete": self.complete,
        }


@dataclass(frozen=True)
class Lineage:
    """A version with every version that it was made from: itself first, then step by step backwards."""

    versions: tuple[Version, ...]

    @property
    def root(self) -> Version:
        """The version that was asked for."""
        return self.versions[0]

    def of(self, table: str) -> tuple[Version, ...]:
        """Return the versions of one table."""
        return tuple(version for version in self.versions if version.table == table)

    @property
    def expired(self) -> tuple[Version, ...]:
        """Versions that were read and are not there any more."""
        return tuple(version for version in self.versions if version.status != "kept")

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return {"versions": [version.to_dict() for version in self.versions]}

    def to_markdown(self) -> str:
        """Return a table of the versions, and what is not known any more."""
        lines = [
            "| table | snapshot | committed | run | read |",
            "|---|---|---|---|---|",
            *map(_row, self.versions),
        ]
        cut = [f"`{v.table}` at `{v.snapshot_id}`" for v in self.versions if not v.complete]
        if cut:
            lines += ["", f"Older writes have expired, and with them what they read: {', '.join(cut)}."]
        return "\n".join(lines)


def _row(version: Version) -> str:
    when = f"{version.committed_at:%Y-%m-%d %H:%M:%S}" if version.committed_at else version.status
    read = ", ".join(f"{table} at `{ids[0]}`{_more(ids)}" for table, ids in version.inputs.items())
    run = (version.run_id or "")[:8]
    return f"| {version.table} | `{version.snapshot_id}` | {when} | {run} | {read} |"


def _more(ids: tuple[int, ...]) -> str:
    return f" and {len(ids) - 1} older" if len(ids) > 1 else ""


def lineage(catalog: Catalog, table: str, snapshot_id: int | None = None) -> Lineage:
    """Return which versions of which inputs made a version of the table, recursively.

    None means what `main` shows now. Each version is told once, however many ways lead to it. Inputs that
    have expired, or whose table is gone, are named as such. Raises `NotFoundError` for an unknown table or
    snapshot.
    """
    tables = CatalogTables(catalog)
    _, wanted = tables.require_version(table, snapshot_id)
    found: dict[tuple[str, int], Version] = {}
    coming = deque([(table, wanted)])
    while coming:
        at = coming.popleft()
        if at not in found:
            found[at] = _version(tables, *at)
            coming += ((read.table, read.snapshot_id) for read in found[at].reads)
    return Lineage(tuple(found.values()))


def _version(tables: CatalogTables, table: str, snapshot_id: int) -> Version:
    history = tables.find(table)
    if history is None:
        return Version(table, snapshot_id, "no table")
    if snapshot_id not in history.kept:
        return Version(table, snapshot_id, "expired")
    made = history.provenance(snapshot_id)
    snapshot = history.kept[snapshot_id]
    return Version(
        table,
        snapshot_id,
        "kept",
        moment(snapshot.timestamp_ms),
        entries(snapshot).get(RUN_ID),
        made.reads,
        made.complete,
    )
