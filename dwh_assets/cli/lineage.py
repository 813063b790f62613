"""`dwh lineage`: what a version was made from, and what was made from it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from dwh_assets.cli.output import Column, Line, Part, Table, moment
from dwh_assets.cli.parameters import PointArgument, TableArgument
from dwh_assets.cli.session import Session

if TYPE_CHECKING:
    from dwh_assets.versioning.impact import Impact, Made
    from dwh_assets.versioning.lineage import Lineage, Version

_VERSIONS = (
    Column("table"),
    Column("snapshot"),
    Column("committed (UTC)"),
    Column("read"),
    Column("run", short=8),
)
_WRITES = (
    Column("table"),
    Column("snapshot"),
    Column("committed (UTC)"),
    Column("partition"),
    Column("read"),
    Column("on main"),
    Column("run", short=8),
)


def lineage(
    session: Session,
    table: TableArgument,
    point: PointArgument = None,
    impact: Annotated[
        bool, typer.Option("--impact", help="The other way: what was made from the version, replicas too.")
    ] = False,
) -> None:
    """List the versions that a version was made from.

    Told from what each write recorded of its inputs, step by step backwards.
    """
    from dwh_assets.versioning import impact as forwards
    from dwh_assets.versioning import lineage as backwards

    found = session.store.resolve(table, point)
    title = Line(f"{table} at snapshot {found.snapshot_id} ({found.described})", style="bold")
    if impact:
        made = forwards.impact(session.catalog, table, found.snapshot_id, replicas=session.replicas)
        told, parts = made.to_dict(), _of_impact(made)
    else:
        from_ = backwards.lineage(session.catalog, table, found.snapshot_id)
        told, parts = {"table": table, "snapshot_id": str(found.snapshot_id), **from_.to_dict()}, _of(from_)
    session.output.show({**told, "resolved": found.described}, title, *parts)


def _of(found: Lineage) -> Iterator[Part]:
    yield Table(_VERSIONS, map(_version, found.versions))
    for version in found.versions:
        if not version.complete:
            yield Line(
                f"{version.table} at {version.snapshot_id}: older writes have expired, and with them "
                "what they read."
            )


def _version(version: Version) -> tuple[str, ...]:
    read = (f"{name} at {', '.join(map(str, ids))}" for name, ids in version.inputs.items())
    return (
        version.table,
        str(version.snapshot_id),
        moment(version.committed_at) or version.status,
        "; ".join(read),
        version.run_id or "",
    )


def _of_impact(found: Impact) -> Iterator[Part]:
    yield Table(_WRITES, map(_write, found.writes)) if found.writes else Line("No write has read it.")
    for held in found.replicas:
        what = f"holds {held.table} at {held.snapshot_id}" if not held.problem else held.problem
        yield Line(f"replica {held.replica}: {what}")
    for name in found.unreadable:
        yield Line(f"{name}: its metadata cannot be read, so nobody knows whether it was made from this.")


def _write(made: Made) -> tuple[str, ...]:
    read = "; ".join(f"{one.table} at {one.snapshot_id}" for one in made.reads)
    return (
        made.table,
        str(made.snapshot_id),
        moment(made.committed_at),
        made.partition or "",
        read if made.certain else f"{read} (perhaps)",
        "yes" if made.current else "no",
        made.run_id or "",
    )
