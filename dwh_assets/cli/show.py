"""`dwh show`: one version of a table, and its first rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dwh_assets.cli.history import changed_rows
from dwh_assets.cli.output import Column, Facts, Line, Part, Table, moment, number
from dwh_assets.cli.parameters import PointArgument, TableArgument, names_of
from dwh_assets.cli.rows import json_rows, rows_table
from dwh_assets.cli.session import Session

if TYPE_CHECKING:
    import pyarrow as pa
    from pyiceberg.schema import Schema

    from dwh_assets.versioning.history import Version

_SCHEMA = (
    Column("id", right=True),
    Column("column"),
    Column("type"),
    Column("required"),
    Column("description"),
)
_FIRST_ROWS = 10


def show(
    session: Session,
    table: TableArgument,
    point: PointArgument = None,
    rows: Annotated[
        int | None, typer.Option("--rows", "--limit", "-n", min=1, help="Show the first so many rows, too.")
    ] = None,
    columns: Annotated[str | None, typer.Option(help="Of the rows show only these columns: a,b,c.")] = None,
    where: Annotated[
        str | None, typer.Option(help="Show only rows that match, such as \"carrier = 'AA' and delay > 10\".")
    ] = None,
) -> None:
    """Describe one version, and show rows of it.

    What names it, who made it and from what, how many rows and which columns it has.
    """
    from dwh_assets.iceberg.faults import readable
    from dwh_assets.iceberg.row_counts import total_rows
    from dwh_assets.iceberg.scan import read, scan
    from dwh_assets.versioning.history import history
    from dwh_assets.versioning.points import resolve

    loaded = session.store.load_table(table)
    found = resolve(loaded, point, session.store.ledger)
    version = next(v for v in history(loaded, session.store.ledger) if v.snapshot_id == found.snapshot_id)
    first: pa.Table | None = None
    with readable(table):
        version = replace(version, total_rows=total_rows(loaded, loaded.snapshot_by_id(found.snapshot_id)))
        if rows or columns or where:
            planned = scan(
                loaded, columns=names_of(columns) or None, where=where, snapshot_id=found.snapshot_id
            )
            first = read(planned.update(limit=rows or _FIRST_ROWS)).read_all()
    schema = scan(loaded, snapshot_id=found.snapshot_id).projection()
    told = {
        "table": table,
        "resolved": found.described,
        "version": version.to_dict(),
        "columns": _columns(schema),
        "rows": None if first is None else json_rows(first),
    }
    session.output.show(told, *_parts(f"{table} at {found.described}", version, schema, first))


def _columns(schema: Schema) -> list[dict[str, Any]]:
    return [
        {
            "id": field.field_id,
            "name": field.name,
            "type": str(field.field_type),
            "required": field.required,
            "description": field.doc,
        }
        for field in schema.fields
    ]


def _parts(title: str, version: Version, schema: Schema, first: pa.Table | None) -> Iterator[Part]:
    yield Line(title, style="bold")
    yield Facts(_facts(version))
    yield Line("")
    yield Table(
        _SCHEMA,
        [
            (str(f.field_id), f.name, str(f.field_type), "required" if f.required else "", f.doc or "")
            for f in schema.fields
        ],
    )
    if first is not None:
        yield Line("")
        yield rows_table(first) if first.num_rows else Line("No such rows.")


def _facts(version: Version) -> list[tuple[str, str]]:
    inputs = (version.inputs or {}).items()
    files = {"+": version.files_added, "-": version.files_removed}
    parent, logical = version.parent_snapshot_id, version.logical_snapshot_id
    return [
        ("snapshot", str(version.snapshot_id)),
        ("logical snapshot", str(logical) if logical != version.snapshot_id else ""),
        ("parent", str(parent or "")),
        ("committed (UTC)", moment(version.committed_at)),
        ("shown by main from", ", ".join(map(moment, version.shown_from)) or "never, as far as is kept"),
        ("names", ", ".join(version.refs)),
        ("main", "goes on from here" if version.on_main else "does not go on from here"),
        ("operation", version.operation or ""),
        ("rows", number(version.total_rows)),
        ("rows changed", changed_rows(version)),
        ("files", " ".join(f"{sign}{count:,}" for sign, count in files.items() if count)),
        ("run", version.run_id or ""),
        ("asset", version.asset_key or ""),
        ("partition", version.partition_key or ""),
        *(("input", f"{name} at {', '.join(map(str, ids))}") for name, ids in inputs),
    ]
