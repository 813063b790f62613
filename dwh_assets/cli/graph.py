"""A rollback of a graph, shown as planned and as done, for `dwh rollback` and `dwh release rollback`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import typer

from dwh_assets.cli.failures import FAILED
from dwh_assets.cli.output import Column, Line, Part, Table, moment
from dwh_assets.cli.session import Session

if TYPE_CHECKING:
    from dwh_assets.versioning.graph import GraphRollback, ReplicaItem
    from dwh_assets.versioning.graph_apply import GraphResult
    from dwh_assets.versioning.rollback import TableRollback

DRY_RUN = "Nothing has been changed; --yes does it."
NOT_TOLD = "Dagster was not told, and may compute the table anew. Its job `rollback` tells it, too."
_COMMITS = (
    Column("main"),
    Column("snapshot"),
    Column("committed (UTC)"),
    Column("operation"),
    Column("run", short=8),
)
_REPLICA = {
    "there": "holds it already",
    "ahead": "is ahead, at {held}, and is loaded again",
    "behind": "is behind, at {held}, and is loaded again",
    "aside": "holds {held}, and is loaded again",
    "unfinished": "was left in the midst of a sync, and is loaded again",
    "empty": "holds nothing, and is left so",
    "unknown": "does not answer ({problem}), and is tried again",
}


def show_or_apply(
    session: Session, table: str, plan: GraphRollback, described: str, *, yes: bool, allow_lost: bool
) -> None:
    """Show what a plan does; with `yes` do it, and exit with 1 where something could not be brought back."""
    from dwh_assets.versioning.graph import require_nothing_lost
    from dwh_assets.versioning.graph_apply import apply_rollback

    require_nothing_lost(plan, allow_lost)
    if yes:
        done = apply_rollback(session.catalog, plan, session.ledger, session.replicas, allow_lost=allow_lost)
        show_result(session, table, done, described)
    else:
        told = {**_told(plan), "resolved": described, "applied": False}
        session.output.show(told, *_of_graph(plan), Line(DRY_RUN))


def show_result(session: Session, table: str, result: GraphResult, described: str) -> None:
    """Show how far a rollback has come; exit with 1 where something could not be brought back."""
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
    yield Line(NOT_TOLD)


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
            yield from parts_of(item.rollback)
    yield from (Line(f"{one.replica} of {one.table}, to {one.to}: {_said(one)}.") for one in plan.replicas)
    for name, why in plan.problems.items():
        yield Line(f"{name} cannot be brought back: {why}")


def _said(item: ReplicaItem) -> str:
    return _REPLICA[item.position].format(held=item.held, problem=item.problem)


def parts_of(plan: TableRollback) -> Iterator[Part]:
    """Yield what happens to one table: commits that main no longer shows, or shows again."""
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
