"""`dwh publish`: let main take over a branch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from dwh_assets.cli.output import Line, Part
from dwh_assets.cli.parameters import TableArgument
from dwh_assets.cli.session import Session

if TYPE_CHECKING:
    from dwh_assets.versioning.branches import Published


def publish(
    session: Session,
    table: TableArgument,
    branch: Annotated[str, typer.Argument(metavar="BRANCH", help="The branch that main takes over.")],
    drop: Annotated[bool, typer.Option("--drop", help="Forget the branch in the same commit.")] = False,
    cherry_pick: Annotated[
        bool,
        typer.Option(
            "--cherry-pick", help="Where main has gone another way: commit anew what the branch appends."
        ),
    ] = False,
    allow_rolled_back: Annotated[
        bool,
        typer.Option(
            "--allow-rolled-back", help="Even if that brings back commits that main has rolled back."
        ),
    ] = False,
) -> None:
    """Let main take over a branch, audits or not.

    In one commit, with the columns and properties that the branch wants. A branch that does not go on from
    where main is is refused, with what main has and the branch lacks; so is one that was begun on commits
    which main has rolled back since. Look at it first: dwh diff TABLE main BRANCH.
    """
    from dwh_assets.versioning import cherry_pick as picking
    from dwh_assets.versioning.branches import fast_forward

    if drop and cherry_pick:
        raise typer.BadParameter("--drop goes without --cherry-pick: dwh branch drops it afterwards.")
    if allow_rolled_back and cherry_pick:
        raise typer.BadParameter("--allow-rolled-back goes without --cherry-pick, which leaves these out.")
    loaded = session.store.load_table(table)
    done = (
        picking.cherry_pick(loaded, branch)
        if cherry_pick
        else fast_forward(loaded, branch, drop=drop, allow_rolled_back=allow_rolled_back)
    )
    told = {
        "table": table,
        "branch": branch,
        "before_snapshot_id": None if done.before is None else str(done.before),
        "snapshot_id": str(done.snapshot_id),
        "snapshots": [str(snapshot_id) for snapshot_id in done.snapshots],
        "dropped": drop,
    }
    session.output.show(told, *_parts(table, branch, done))


def _parts(table: str, branch: str, done: Published) -> Iterator[Part]:
    if not done.snapshots:
        yield Line(f"{table}: main had all of {branch} already; it is at snapshot {done.snapshot_id}.")
        return
    yield Line(f"{table}: main went from snapshot {done.before} to {done.snapshot_id}.")
    yield Line(f"Taken over from {branch}: {', '.join(map(str, done.snapshots))}.")
