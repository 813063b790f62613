"""`dwh release`: one name over many tables, for versions that were made from each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dwh_assets.cli.graph import show_or_apply
from dwh_assets.cli.output import Column, Line, Part, Table, moment
from dwh_assets.cli.parameters import AllowLostOption, YesOption
from dwh_assets.cli.session import Session, command
from dwh_assets.errors import NotFoundError

if TYPE_CHECKING:
    from dwh_assets.ledger import Ledger
    from dwh_assets.versioning.releases import Release

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The release.")]

_RELEASES = (Column("release"), Column("created (UTC)"), Column("tables", right=True))
_VERSIONS = (Column("table"), Column("snapshot"))
_COMPARED = (Column("table"), Column("before"), Column("after"), Column("rows"))

app = typer.Typer(
    help="Name versions of many tables at once, compare them, go back to them.", rich_markup_mode=None
)


@command(app)
def create(
    session: Session,
    name: NameArgument,
    tables: Annotated[
        list[str] | None, typer.Argument(help="The tables; left out, all of the catalog that have data.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Finish one that was interrupted.")] = False,
) -> None:
    """Fix a name over what main of tables shows.

    Refused, with the stale tables, where one was not made from what the others show.
    """
    from dwh_assets.versioning.releases import create_release, resume_release

    if resume:
        made = resume_release(session.catalog, _ledger(session, name), name)
    else:
        made = create_release(
            session.catalog, session.ledger, name, tables or None, replicas=session.replicas
        )
    _show(session, made)


@command(app, "list")
def list_releases(session: Session) -> None:
    """List the finished releases, oldest first."""
    from dwh_assets.versioning import releases

    ledger = session.kept_ledger()
    found = releases.list_releases(ledger) if ledger else []
    rows = [(one.name, moment(one.created_at), str(len(one.versions))) for one in found]
    listed = Table(_RELEASES, rows) if rows else Line("There is no release.")
    session.output.show({"releases": [one.to_dict() for one in found]}, listed)


@command(app)
def show(session: Session, name: NameArgument) -> None:
    """Show a release's versions and what the replicas held."""
    from dwh_assets.versioning.releases import get_release

    _show(session, get_release(_ledger(session, name), name))


@command(app)
def compare(
    session: Session,
    before: Annotated[str, typer.Argument(metavar="BEFORE", help="The earlier release.")],
    after: Annotated[str, typer.Argument(metavar="AFTER", help="The later release.")],
) -> None:
    """Say which tables came, went and changed.

    What changed in one of them: dwh diff TABLE BEFORE AFTER, for a release is a tag of its name.
    """
    from dwh_assets.versioning.releases import compare_releases

    found = compare_releases(_ledger(session, before), before, after)
    told = [
        {
            "table": one.table,
            "before_snapshot_id": None if one.before is None else str(one.before),
            "after_snapshot_id": None if one.after is None else str(one.after),
            "same_rows": one.same_rows,
        }
        for one in found.tables
    ]
    rows = [
        (one.table, str(one.before or ""), str(one.after or ""), "the same" if one.same_rows else "differ")
        for one in found.tables
    ]
    session.output.show({"before": before, "after": after, "tables": told}, Table(_COMPARED, rows))


@command(app)
def rollback(
    session: Session,
    name: NameArgument,
    yes: YesOption = False,
    allow_lost: AllowLostOption = False,
) -> None:
    """Bring all tables of a release back to it.

    And every table computed from them, and the replicas. Shows what that would do; --yes does it.
    """
    from dwh_assets.versioning.releases import plan_release_rollback

    plan = plan_release_rollback(session.catalog, _ledger(session, name), name, session.replicas)
    table = next(item.table for item in plan.tables if item.is_root)
    show_or_apply(session, table, plan, f"release {name}", yes=yes, allow_lost=allow_lost)


@command(app)
def drop(session: Session, name: NameArgument) -> None:
    """Forget a release, its tags too; snapshots stay."""
    from dwh_assets.versioning.releases import drop_release

    drop_release(session.catalog, _ledger(session, name), name)
    session.output.show({"name": name, "dropped": True}, Line(f"release {name} is dropped."))


def _ledger(session: Session, name: str) -> Ledger:
    """Return the ledger; where nobody has made one, no release is recorded."""
    ledger = session.kept_ledger()
    if ledger is None:
        raise NotFoundError(
            f"There is no release {name!r}: nothing is recorded in a ledger yet.",
            remedy="Make one with dwh release create, or name the ledger with DWH_LEDGER_URL.",
        )
    return ledger


def _show(session: Session, found: Release) -> None:
    parts: list[Part] = [
        Line(f"release {found.name} of {moment(found.created_at)} UTC", style="bold"),
        Table(_VERSIONS, [(one.table, str(one.snapshot_id)) for one in found.versions]),
    ]
    parts += [
        Line(f"replica {one.replica}: {one.problem or f'held {one.table} at {one.snapshot_id}'}")
        for one in found.replicas
    ]
    session.output.show(found.to_dict(), *parts)
