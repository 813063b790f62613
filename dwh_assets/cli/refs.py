"""`dwh tag` and `dwh branch`: names of versions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dwh_assets.cli.output import Column, Line, Table, iso, moment
from dwh_assets.cli.parameters import AtOption, LifetimeOption, TableArgument
from dwh_assets.cli.session import Session

if TYPE_CHECKING:
    from datetime import timedelta

    from dwh_assets.iceberg.refs import Ref, RefKind

_COLUMNS = (
    Column("name"),
    Column("snapshot"),
    Column("committed (UTC)"),
    Column("kept until (UTC)"),
)


def tag(
    session: Session,
    table: TableArgument,
    name: Annotated[
        str | None, typer.Argument(help="The tag; left out, the table's tags are listed.")
    ] = None,
    at: AtOption = None,
    lifetime: LifetimeOption = None,
    drop: Annotated[bool, typer.Option("--drop", help="Forget the tag; its snapshot stays.")] = False,
) -> None:
    """List a table's tags, make or drop one.

    A tag names a version and keeps it from expiry.
    """
    _list_or_change(session, "tag", table, name, at, lifetime, drop)


def branch(
    session: Session,
    table: TableArgument,
    name: Annotated[
        str | None, typer.Argument(help="The branch; left out, the table's branches are listed.")
    ] = None,
    at: AtOption = None,
    lifetime: LifetimeOption = None,
    drop: Annotated[bool, typer.Option("--drop", help="Forget the branch; its snapshots stay.")] = False,
    prune: Annotated[
        bool, typer.Option("--prune", help="Forget every branch of the table whose time is over.")
    ] = False,
) -> None:
    """List a table's branches, begin or drop one, or drop those whose time is over."""
    if prune:
        if name is not None or at is not None or lifetime is not None or drop:
            raise typer.BadParameter("--prune goes alone.")
        _prune(session, table)
        return
    _list_or_change(session, "branch", table, name, at, lifetime, drop)


def _list_or_change(
    session: Session,
    kind: RefKind,
    table: str,
    name: str | None,
    at: str | None,
    lifetime: timedelta | None,
    drop: bool,
) -> None:
    given = [flag for flag, value in {"--at": at, "--lifetime": lifetime}.items() if value is not None]
    if name is None and (given or drop):
        raise typer.BadParameter(f"{(given or ['--drop'])[0]} needs the name of a {kind}.")
    if drop and given:
        raise typer.BadParameter(f"--drop goes without {given[0]}.")
    if name is None:
        _list(session, kind, table)
    elif drop:
        _drop(session, kind, table, name)
    else:
        _create(session, kind, table, name, at, lifetime)


def _list(session: Session, kind: RefKind, table: str) -> None:
    refs = [ref for ref in session.store.list_versions(table) if ref.kind == kind]
    listed = _table(refs) if refs else Line(f"{table} has no {kind}.")
    session.output.show({"table": table, "refs": [_told(ref) for ref in refs]}, listed)


def _create(
    session: Session, kind: RefKind, table: str, name: str, at: str | None, lifetime: timedelta | None
) -> None:
    store = session.store
    found = store.resolve(table, at)
    create = store.create_version if kind == "tag" else store.create_branch
    create(table, name, at=found.snapshot_id, lifetime=lifetime)
    made = next(ref for ref in store.list_versions(table) if ref.name == name)
    until = f", kept until {moment(made.expires_at)} UTC" if made.expires_at else ""
    said = f"{kind} {name} of {table} is at snapshot {made.snapshot_id} ({found.described}){until}."
    session.output.show({"table": table, "resolved": found.described, **_told(made)}, Line(said))


def _drop(session: Session, kind: RefKind, table: str, name: str) -> None:
    store = session.store
    dropped = next((ref for ref in store.list_versions(table) if ref.name == name), None)
    drop = store.delete_version if kind == "tag" else store.drop_branch
    drop(table, name)
    at = dropped.snapshot_id if dropped else None
    said = f"{kind} {name} of {table} is dropped; it was at snapshot {at}."
    told = {"table": table, "name": name, "kind": kind, "snapshot_id": str(at), "dropped": True}
    session.output.show(told, Line(said))


def _prune(session: Session, table: str) -> None:
    gone = session.store.prune_branches(table)
    told = {"table": table, "pruned": [_told(ref) for ref in gone]}
    if gone:
        said = Line(f"{len(gone)} branches are dropped; their snapshots stay until expiry.")
        session.output.show(told, _table(gone), said)
    else:
        session.output.show(told, Line(f"{table} has no branch whose time is over."))


def _table(refs: Sequence[Ref]) -> Table:
    rows = [
        (ref.name, str(ref.snapshot_id), moment(ref.committed_at), moment(ref.expires_at)) for ref in refs
    ]
    return Table(_COLUMNS, rows)


def _told(ref: Ref) -> dict[str, Any]:
    return {
        "name": ref.name,
        "kind": ref.kind,
        "snapshot_id": str(ref.snapshot_id),
        "committed_at": iso(ref.committed_at),
        "expires_at": iso(ref.expires_at),
    }
