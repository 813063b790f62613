"""`dwh rollback`: bring a table back, and with it what was computed from it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dwh_assets.cli.failures import FAILED
from dwh_assets.cli.output import Column, Line, Part, Table, moment
from dwh_assets.cli.parameters import PointArgument, TableArgument
from dwh_assets.cli.session import Session

if TYPE_CHECKING:
    from dwh_assets.versioning.graph import GraphRollback, ReplicaItem
    from dwh_assets.versioning.graph_apply import GraphResult
    from dwh_assets.versioning.rollback import TableRollback

_COMMITS = (
    Column("main"),
    Column("snapshot"),
    Column("committed (UTC)"),
    Column("operation"),
    Column("run", short=8),
)
_DRY = "Nothing has been changed; --yes does it."
_NOT_TOLD = "Dagster was not told, and may compute the table anew. Its job `rollback` tells it, too."
_REPLICA = {
    "there": "holds it already",
    "ahead": "is ahead, at {held}, and is loaded again",
    "behind": "is behind, at {held}, and is loaded again",
    "aside": "holds {held}, and is loaded again",
    "empty": "holds nothing, and is left so",
    "unknown": "does not answer ({problem}), and is tried again",
}


def rollback(
    session: Session,
    table: TableArgument,
    point: PointArgument = None,
    yes: Annotated[
        bool, typer.Option("--yes/--dry-run", help="Do it, or only show what it would do.")
    ] = False,
    graph: Annotated[
        bool, typer.Option("--graph", help="Also every table computed from it, and the replicas of them all.")
    ] = False,
    allow_lost: Annotated[
        bool,
        typer.Option(
            "--allow-lost", help="Even if main has gone another way since; a tag keeps its commits."
        ),
    ] = False,
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
    elif graph or undo:
        _graph(session, table, point, undo, yes, allow_lost)
    else:
        _table(session, table, point, yes, allow_lost)


def _table(session: Session, table: str, point: str | None, yes: bool, allow_lost: bool) -> None:
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
        dry_run=not yes,
    )
    told = {**plan.to_dict(), "resolved": found.described, "applied": yes}
    session.output.show(told, *_of_table(plan), *_ending(plan, yes))


def _graph(
    session: Session, table: str, point: str | None, undo: str | None, yes: bool, allow_lost: bool
) -> None:
    from dwh_assets.versioning.graph import plan_rollback, plan_undo, require_nothing_lost
    from dwh_assets.versioning.graph_apply import apply_rollback

    if undo:
        described, plan = f"before {undo}", plan_undo(session.catalog, session.ledger, undo, session.replicas)
    else:
        found = session.store.resolve(table, point)
        described, plan = (
            found.described,
            plan_rollback(session.catalog, table, found.snapshot_id, session.replicas),
        )
    require_nothing_lost(plan, allow_lost)
    if not yes:
        told = {**_told(plan), "resolved": described, "applied": False}
        session.output.show(told, *_of_graph(plan), Line(_DRY))
        return
    result = apply_rollback(session.catalog, plan, session.ledger, session.replicas, allow_lost=allow_lost)
    _show_result(session, table, result, described)


def _resume(session: Session, table: str, operation: str) -> None:
    from dwh_assets.versioning.graph_apply import resume_rollback

    result = resume_rollback(session.catalog, session.ledger, operation, session.replicas)
    _show_result(session, table, result, f"as {operation} had planned")


def _show_result(session: Session, table: str, result: GraphResult, described: str) -> None:
    told = {
        **_told(result.plan),
        "resolved": described,
        "applied": True,
        "operation": result.operation.id,
        "not_brought_back": result.not_brought_back,
    }
    session.output.show(told, *_of_graph(result.plan), *_outcome(table, result))
    if result.not_brought_back:
        raise typer.Exit(FAILED)


def _outcome(table: str, result: GraphResult) -> Iterator[Part]:
    for name, why in result.not_brought_back.items():
        yield Line(f"Not brought back: {name}: {why}")
    if result.operation.open_items:
        yield Line(f"Go on once that is mended: dwh rollback {table} --resume {result.operation.id}")
    done = "" if result.not_brought_back else "Done. "
    yield Line(f"{done}The undo: dwh rollback {table} --undo {result.operation.id} --yes")
    yield Line(_NOT_TOLD)


def _told(plan: GraphRollback) -> dict[str, Any]:
    return {
        "tables": [
            {
                "table": item.table,
                "problem": item.problem or None,
                "rollback": item.rollback.to_dict() if item.rollback else None,
            }
            for item in plan.tables
        ],
        "replicas": [
            {
                "replica": item.replica,
                "table": item.table,
                "position": item.position,
                "held_snapshot_id": None if item.held is None else str(item.held),
                "to_snapshot_id": str(item.to),
                "problem": item.problem or None,
            }
            for item in plan.replicas
        ],
        "problems": plan.problems,
    }


def _of_graph(plan: GraphRollback) -> Iterator[Part]:
    for item in plan.tables:
        if item.rollback:
            yield from _of_table(item.rollback)
    yield from (Line(f"{one.replica} of {one.table}, to {one.to}: {_said(one)}.") for one in plan.replicas)
    for name, why in plan.problems.items():
        yield Line(f"{name} cannot be brought back: {why}")


def _said(item: ReplicaItem) -> str:
    return _REPLICA[item.position].format(held=item.held, problem=item.problem)


def _of_table(plan: TableRollback) -> Iterator[Part]:
    if plan.move is None:
        yield Line(f"{plan.table} is at snapshot {plan.to_snapshot_id} already.")
        return
    yield Line(f"{plan.table}: main from {plan.from_snapshot_id} to {plan.to_snapshot_id}", style="bold")
    commits = [
        *(("no longer shows", commit) for commit in plan.dropped),
        *(("shows again", commit) for commit in plan.restored),
    ]
    yield Table(
        _COMMITS,
        [
            (what, str(one.snapshot_id), moment(one.committed_at), one.operation, one.run_id or "")
            for what, one in commits
        ],
    )
    yield from (Line(note) for note in plan.notes)


def _ending(plan: TableRollback, yes: bool) -> Iterator[Part]:
    if not yes:
        yield Line(_DRY)
    elif plan.tag:
        yield Line(f"Done. The undo: dwh rollback {plan.table} {plan.tag} --yes")
        yield Line(_NOT_TOLD)
