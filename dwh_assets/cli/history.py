"""`dwh history`: what happened to a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from dwh_assets.cli.output import Column, Line, Part, Table, moment, number
from dwh_assets.cli.parameters import TableArgument
from dwh_assets.cli.session import Session

if TYPE_CHECKING:
    from dwh_assets.versioning.history import Version

_COLUMNS = (
    Column("snapshot"),
    Column("committed (UTC)"),
    Column("operation"),
    Column("rows", right=True),
    Column("changed"),
    Column("names"),
    Column("partition"),
    Column("run", short=8),
)


def history(
    session: Session,
    table: TableArgument,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=0, help="How many versions, the newest; 0 is all.")
    ] = 20,
) -> None:
    """List a table's versions, the newest first.

    Each with what it changed, its names, its partition and the run that made it.
    """
    versions = session.store.history(table)[::-1]
    shown = versions[: limit or None]
    older = len(versions) - len(shown)
    told = {"table": table, "versions": [version.to_dict() for version in shown], "older": older}
    session.output.show(told, *_parts(table, shown, older))


def _parts(table: str, shown: Sequence[Version], older: int) -> list[Part]:
    if not shown:
        return [Line(f"{table} has no version yet.")]
    parts: list[Part] = [Table(_COLUMNS, map(_row, shown))]
    gone = sum(version.gone_before for version in shown)
    if gone:
        parts.append(Line(f"Snapshots that expired before or between these: {gone:,}."))
    if older:
        parts.append(Line(f"{older:,} older; --limit 0 shows all."))
    return parts


def _row(version: Version) -> tuple[str, ...]:
    names = ", ".join(version.refs)
    return (
        str(version.snapshot_id),
        moment(version.committed_at or next(iter(version.shown_from), None)),
        version.operation or "" if version.kept else _expired(version),
        number(version.total_rows),
        changed_rows(version),
        names if version.on_main or not version.kept else f"{names} (not on main)".strip(),
        version.partition_key or "",
        version.run_id or "",
    )


def _expired(version: Version) -> str:
    return f"expired by {version.expired_by}" if version.expired_by else "expired"


def changed_rows(version: Version) -> str:
    """Write what a version changed: rows inserted, updated and deleted, as far as any were."""
    counts = {"+": version.rows_inserted, "~": version.rows_updated, "-": version.rows_deleted}
    return " ".join(f"{sign}{count:,}" for sign, count in counts.items() if count)
