"""`dwh rollback`: bring a table back, and with it what was computed from it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from dwh_assets.cli.graph import DRY_RUN, NOT_TOLD, parts_of, show_or_apply, show_result
from dwh_assets.cli.output import Line, Part
from dwh_assets.cli.parameters import (
    AllowLostOption,
    AllowUnpublishedOption,
    PointArgument,
    TableArgument,
    YesOption,
)
from dwh_assets.cli.session import Session

if TYPE_CHECKING:
    from dwh_assets.versioning.rollback import TableRollback


def rollback(
    session: Session,
    table: TableArgument,
    point: PointArgument = None,
    yes: YesOption = False,
    graph: Annotated[
        bool, typer.Option("--graph", help="Also every table computed from it, and the replicas of them all.")
    ] = False,
    allow_lost: AllowLostOption = False,
    allow_unpublished: AllowUnpublishedOption = False,
    resume: Annotated[
        str | None, typer.Option(metavar="ID", help="Go on with a rollback of a graph that was interrupted.")
    ] = None,
    undo: Annotated[str | None, typer.Option(metavar="ID", help="Take a rollback of a graph back.")] = None,
) -> None:
    """Bring a table back to a version.

    Shows what that would do; --yes does it. The head that is left is tagged, and going back to that tag is
    the undo.
    """
    if sum(given is not None for given in (point, resume, undo)) != 1:
        raise typer.BadParameter("Give one of these: the POINT to go to, --resume, --undo.")
    if resume:
        _resume(session, table, resume)
    elif undo:
        _undo(session, table, undo, yes, allow_lost)
    elif graph:
        _graph(session, table, point, yes, allow_lost, allow_unpublished)
    else:
        _table(session, table, point, yes, allow_lost, allow_unpublished)


def _table(
    session: Session, table: str, point: str | None, yes: bool, allow_lost: bool, allow_unpublished: bool
) -> None:
    from dwh_assets.versioning import rollback as back
    from dwh_assets.versioning.points import resolve

    loaded = session.store.load_table(table)
    found = resolve(loaded, point, session.store.ledger)
    plan = back.rollback(
        session.catalog,
        table,
        found.snapshot_id,
        expected_head=loaded.metadata.current_snapshot_id,
        allow_lost=allow_lost,
        allow_unpublished=allow_unpublished,
        dry_run=not yes,
    )
    told = {**plan.to_dict(), "resolved": found.described, "applied": yes}
    session.output.show(told, *parts_of(plan), *_ending(plan, yes))


def _graph(
    session: Session, table: str, point: str | None, yes: bool, allow_lost: bool, allow_unpublished: bool
) -> None:
    from dwh_assets.versioning.graph import plan_rollback

    found = session.store.resolve(table, point)
    plan = plan_rollback(
        session.catalog, table, found.snapshot_id, session.replicas, allow_unpublished=allow_unpublished
    )
    show_or_apply(session, table, plan, found.described, yes=yes, allow_lost=allow_lost)


def _undo(session: Session, table: str, undo: str, yes: bool, allow_lost: bool) -> None:
    from dwh_assets.versioning.graph import plan_undo

    plan = plan_undo(session.catalog, session.ledger, undo, session.replicas)
    show_or_apply(session, table, plan, f"before {undo}", yes=yes, allow_lost=allow_lost)


def _resume(session: Session, table: str, operation: str) -> None:
    from dwh_assets.versioning.graph_apply import resume_rollback

    result = resume_rollback(session.catalog, session.ledger, operation, session.replicas)
    show_result(session, table, result, f"as {operation} had planned")


def _ending(plan: TableRollback, yes: bool) -> Iterator[Part]:
    if not yes:
        yield Line(DRY_RUN)
    elif plan.tag:
        yield Line(f"Done. The undo: dwh rollback {plan.table} {plan.tag} --yes")
        yield Line(NOT_TOLD)
