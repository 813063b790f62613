"""`dwh diff`: what changed between two versions of a table."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dwh_assets.cli.output import Column, Facts, Line, Part, Table, number
from dwh_assets.cli.parameters import POINT, PointArgument, TableArgument, names_of
from dwh_assets.cli.rows import json_rows, rows_table
from dwh_assets.cli.session import Session

if TYPE_CHECKING:
    import pyarrow as pa

    from dwh_assets.iceberg.diff.statistics import ColumnDiff, ColumnValues
    from dwh_assets.iceberg.diff.version_diff import VersionDiff
    from dwh_assets.versioning.points import ResolvedPoint

_FIRST_ROWS = 10
_COLUMNS = (
    Column("column"),
    Column("rows changed", right=True),
    Column("nulls before", right=True),
    Column("after", right=True),
    Column("values before"),
    Column("after"),
    Column("mean drift", right=True),
)


def diff(
    session: Session,
    table: TableArgument,
    before: Annotated[str, typer.Argument(metavar="V1", help=f"The earlier version. {POINT}")],
    after: PointArgument = None,
    keys: Annotated[
        str | None,
        typer.Option(
            help="Columns that tell rows apart: a,b; by default the table's own key. With none, a changed "
            "row is one removed, one added."
        ),
    ] = None,
    rows: Annotated[
        int | None, typer.Option("--rows", "-n", min=1, help="Show the first so many changed rows, too.")
    ] = None,
    per_snapshot: Annotated[
        bool, typer.Option("--per-snapshot", help="Show the rows that each snapshot changed, not the net.")
    ] = False,
) -> None:
    """Say what changed from one version to another.

    Rows, columns, partitioning, order and properties; only files that the versions do not share are read.
    """
    from dwh_assets.iceberg.diff.compare import compare, own_keys
    from dwh_assets.iceberg.faults import readable
    from dwh_assets.versioning.points import resolve

    loaded = session.store.load_table(table)
    start, end = (resolve(loaded, point, session.store.ledger) for point in (before, after))
    ends = start.snapshot_id, end.snapshot_id
    chosen = own_keys(loaded, *ends) if keys is None else names_of(keys)
    with readable(table), compare(loaded, *ends, keys=chosen) as found:
        wanted = rows or (_FIRST_ROWS if per_snapshot else 0)
        changes = _first_changes(found, wanted, per_snapshot) if wanted else None
        told = {
            **found.to_dict(),
            "from_resolved": start.described,
            "to_resolved": end.described,
            "keys": list(found.keys),
            "changes": None if changes is None else _json_changes(changes),
        }
        session.output.show(told, *_parts(found, start, end, changes))


def _first_changes(found: VersionDiff, count: int, per_snapshot: bool) -> pa.Table:
    import pyarrow as pa

    reader = found.changes(per_snapshot=per_snapshot)
    slices = (batch.slice(at, 1) for batch in reader for at in range(batch.num_rows))
    return pa.Table.from_batches(islice(slices, count), reader.schema)


def _json_changes(changes: pa.Table) -> list[dict[str, Any]]:
    rows = json_rows(changes)
    return [{**row, "_snapshot_id": str(row["_snapshot_id"])} for row in rows]


def _parts(
    found: VersionDiff, start: ResolvedPoint, end: ResolvedPoint, changes: pa.Table | None
) -> Iterator[Part]:
    way = " to ".join(f"{point.snapshot_id} ({point.described})" for point in (start, end))
    yield Line(f"{found.table} from {way}", style="bold")
    yield Facts(
        [
            ("rows added", number(found.rows_added)),
            ("rows removed", number(found.rows_removed)),
            ("rows modified", number(found.rows_modified) if found.keys else ""),
            ("read", f"{found.files_read:,} files, {found.bytes_read:,} bytes"),
            *_changes_of_the_table(found),
            *(("note", note) for note in found.notes),
        ]
    )
    changed = [column for column in found.columns if column.rows_changed]
    if changed:
        yield Line("")
        yield Table(_COLUMNS, map(_row, changed))
    if changes is not None:
        yield Line("")
        yield rows_table(changes) if changes.num_rows else Line("No row changed.")


def _changes_of_the_table(found: VersionDiff) -> Iterator[tuple[str, str]]:
    named = {
        "column": found.schema_changes,
        "partitioning": found.partition_spec_changes,
        "sort order": found.sort_order_changes,
        "property": found.property_changes,
    }
    return chain.from_iterable(((name, str(one)) for one in changes) for name, changes in named.items())


def _row(column: ColumnDiff) -> tuple[str, ...]:
    drift = column.mean_drift
    return (
        column.name,
        number(column.rows_changed),
        number(column.before.nulls),
        number(column.after.nulls),
        _range(column.before),
        _range(column.after),
        "" if drift is None else f"{drift:+.4g}",
    )


def _range(values: ColumnValues) -> str:
    return "" if values.least is None else f"{values.least} … {values.greatest}"
