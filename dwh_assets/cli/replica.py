"""`dwh replica`: the copies of tables in warehouses, which version each holds, and whether it is the same."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from dwh_assets.cli.failures import FAILED
from dwh_assets.cli.output import Column, Facts, Line, Part, Table, iso, moment, number
from dwh_assets.cli.parameters import AtOption
from dwh_assets.cli.session import Session, command
from dwh_assets.errors import NotFoundError

if TYPE_CHECKING:
    from dwh_assets.warehouses.base import SyncResult
    from dwh_assets.warehouses.parity_report import ParityReport
    from dwh_assets.warehouses.replica import Replica

NameArgument = Annotated[
    str, typer.Argument(metavar="REPLICA", help="As `dwh replica list` names it.", show_default=False)
]

_REPLICAS = (
    Column("replica"),
    Column("table"),
    Column("into"),
    Column("mode"),
    Column("snapshot"),
    Column("versions behind", right=True),
    Column("rows", right=True),
    Column("synced (UTC)"),
    Column("unfinished"),
)
_COLUMNS = (Column("column"), Column("figure"), Column("table"), Column("replica"))
_PARTITIONS = (
    Column("partition"),
    Column("rows in table", right=True),
    Column("rows in replica", right=True),
)

app = typer.Typer(help="Copies of tables in warehouses: list, sync, verify.", rich_markup_mode=None)


@command(app, "list")
def list_replicas(session: Session) -> None:
    """List the replicas of this catalog's tables.

    In the DuckDB file, and in the warehouses that the environment names.
    """
    replicas, problems = session.look_for_replicas()
    told = [_told(session, name, replica) for name, replica in sorted(replicas.items())]
    down = [{"warehouse": kind, "problem": str(problem)} for kind, problem in sorted(problems.items())]
    session.output.show({"replicas": told, "unavailable": down}, *_listed(told, down))
    if down:
        raise typer.Exit(FAILED)


@command(app)
def sync(session: Session, name: NameArgument, at: AtOption = None) -> None:
    """Bring a replica to a version of its table.

    Applies what changed since the version that it holds; says why where it loads all rows.
    """
    replica = _named(session, name)
    point = session.store.resolve(replica.table, at)
    result = replica.sync(session.catalog, point.snapshot_id, ledger=session.ledger)
    told = {
        "replica": name,
        "table": replica.table,
        "into": replica.into,
        "resolved": point.described,
        **_of_result(result),
    }
    session.output.show(told, _facts(name, result))


@command(app)
def verify(
    session: Session,
    name: NameArgument,
    level: Annotated[
        Literal["count", "fingerprint", "full"],
        typer.Option(help="count of rows, fingerprint of every column, or full: value by value."),
    ] = "fingerprint",
    repair: Annotated[
        bool, typer.Option("--repair", help="Load what differs again, then compare once more.")
    ] = False,
) -> None:
    """Compare a replica with its table at the version that it holds.

    Exits with 1 where they differ.
    """
    if repair and level == "count":
        raise typer.BadParameter("--repair has to know which parts differ: --level fingerprint, or full.")
    replica = _named(session, name)
    report = replica.verify(session.catalog, level)
    repaired = None
    if repair and not report.equal:
        repaired = replica.repair(session.catalog, report)
        report = replica.verify(session.catalog, level)
    told = {"replica": name, **report.to_dict(), "repaired": repaired and _of_result(repaired)}
    mended = [_facts(name, repaired)] if repaired else []
    session.output.show(told, *mended, *_compared(name, report))
    if not report.equal:
        raise typer.Exit(FAILED)


def _named(session: Session, name: str) -> Replica:
    replicas, problems = session.look_for_replicas()
    if name in replicas:
        return replicas[name]
    if name.partition("/")[0] in problems:
        raise problems[name.partition("/")[0]]
    known = ", ".join(sorted(replicas)) or "none"
    raise NotFoundError(f"There is no replica {name!r}.", remedy=f"There is {known}.")


def _told(session: Session, name: str, replica: Replica) -> dict[str, Any]:
    from dwh_assets.versioning.replicas import Lag, lag

    state, behind = replica.state(), Lag(None, None)
    if state is not None and not state.pending:
        behind = lag(session.store.load_table(replica.table).metadata, state.logical_snapshot_id)
    return {
        "replica": name,
        "table": replica.table,
        "warehouse": replica.warehouse,
        "into": replica.into,
        "mode": replica.mode,
        "snapshot_id": _text(state.snapshot_id) if state else None,
        "logical_snapshot_id": _text(state.logical_snapshot_id) if state else None,
        "lag_versions": behind.versions,
        "lag_seconds": None if behind.time is None else behind.time.total_seconds(),
        "rows": state.rows if state else None,
        "synced_at": iso(state.synced_at) if state else None,
        "run_id": state.run_id if state else None,
        "pending": state.pending if state else "",
    }


def _listed(told: list[dict[str, Any]], down: list[dict[str, str]]) -> Iterator[Part]:
    yield Table(_REPLICAS, [_line(one) for one in told]) if told else Line("There is no replica.")
    for one in down:
        yield Line(f"{one['warehouse']}: {one['problem']}")


def _line(one: dict[str, Any]) -> tuple[str, ...]:
    synced_at = one["synced_at"] and datetime.fromisoformat(one["synced_at"])
    return (
        one["replica"],
        one["table"],
        one["into"],
        one["mode"],
        one["snapshot_id"] or "",
        number(one["lag_versions"]),
        number(one["rows"]),
        moment(synced_at),
        one["pending"],
    )


def _of_result(result: SyncResult) -> dict[str, Any]:
    return {
        "mode": result.mode,
        "method": result.method,
        "reason": result.reason,
        "from_snapshot_id": _text(result.from_snapshot),
        "to_snapshot_id": _text(result.to_snapshot),
        "rows_inserted": result.rows_inserted,
        "rows_updated": result.rows_updated,
        "rows_deleted": result.rows_deleted,
        "bytes": result.bytes,
        "statements": result.statements,
        "seconds": result.seconds,
    }


def _facts(name: str, result: SyncResult) -> Facts:
    return Facts(
        [
            ("replica", name),
            ("snapshot", _text(result.to_snapshot) or "none"),
            ("method", f"{result.method}: {result.reason}"),
            ("rows inserted", number(result.rows_inserted)),
            ("rows updated", number(result.rows_updated)),
            ("rows deleted", number(result.rows_deleted)),
        ]
    )


def _compared(name: str, report: ParityReport) -> Iterator[Part]:
    verdict = "is as its table" if report.equal else "differs from its table"
    yield Line(f"{name} {verdict} at snapshot {report.snapshot_id} ({report.level}).")
    yield Facts(
        [
            ("rows in table", number(report.rows_in_table)),
            ("rows in replica", number(report.rows_in_replica)),
            *((f"not compared: {column}", why) for column, why in report.not_compared.items()),
        ]
    )
    if report.columns:
        yield Table(_COLUMNS, [(c.column, c.figure, c.in_table, c.in_replica) for c in report.columns])
    if report.partitions:
        counts = [(p.name, number(p.rows_in_table), number(p.rows_in_replica)) for p in report.partitions]
        yield Table(_PARTITIONS, counts)


def _text(snapshot_id: int | None) -> str | None:
    return None if snapshot_id is None else str(snapshot_id)
