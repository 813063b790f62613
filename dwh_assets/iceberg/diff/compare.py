"""Compare two versions of a table: `compare(table, before, after, keys=["order_id"])`.

Manifests come first: only data files that the versions do not share are read, position deletes as the
rows that they delete, and compaction in between is seen through, wherever that reads less.
"""

from __future__ import annotations

from collections.abc import Sequence

from pyiceberg.schema import Schema
from pyiceberg.table import Table

from dwh_assets.errors import ConfigurationError
from dwh_assets.iceberg.diff.columns import compared_columns
from dwh_assets.iceberg.diff.file_changes import file_changes
from dwh_assets.iceberg.diff.route import Route, find_route
from dwh_assets.iceberg.diff.version_diff import VersionDiff
from dwh_assets.iceberg.diff.weights import WeightedFile, net, rows_to_read
from dwh_assets.iceberg.keys import known_keys
from dwh_assets.iceberg.scan import schema_at


def compare(
    table: Table,
    before: int | None,
    after: int,
    *,
    keys: Sequence[str] | None = None,
    schema: Schema | None = None,
) -> VersionDiff:
    """Compare the snapshot `before` (None: the empty table) with the snapshot `after`.

    Rows are told apart by `keys`, top-level columns of both versions under their names in `after`; without
    keys, as a multiset, in which a row that differs counts as one removed and one added. Values are compared
    in the columns of `after`, or in those of `schema`, which then is newer than both; see `columns`. How, see
    `netting`.

    Raises `NotFoundError` for a snapshot that is not there, `ConfigurationError` for a key that is not a
    column of both versions, `UnsupportedError` for equality deletes and for files that are not Parquet.
    """
    later = schema or schema_at(table, after)
    earlier = later if before is None else schema_at(table, before)
    _require_keys(table, keys or (), earlier, later)
    route = find_route(table, before, after)
    files, notes = _files_to_read(table, route)
    return VersionDiff(
        source=table,
        from_snapshot_id=before,
        to_snapshot_id=after,
        route=route,
        compared=compared_columns(earlier, later),
        files=files,
        keys=tuple(keys or ()),
        reading_notes=notes,
    )


def own_keys(table: Table, before: int | None, after: int) -> list[str]:
    """Return the columns by which the table's rows are told apart, if both versions have them."""
    schemas = (schema_at(table, known) for known in (after, before) if known is not None)
    return known_keys(table.metadata, *schemas)


def _require_keys(table: Table, keys: Sequence[str], earlier: Schema, later: Schema) -> None:
    ids = {field.field_id for field in earlier.fields}
    known = [field.name for field in later.fields if field.field_id in ids]
    for key in keys:
        if key not in known:
            raise ConfigurationError(
                f"{'.'.join(table.name())}: {key!r} is not a column of both versions, so it is no key.",
                remedy=f"Both have {', '.join(known)}.",
            )


def _files_to_read(table: Table, route: Route) -> tuple[list[WeightedFile], tuple[str, ...]]:
    """Compare the end points, or what lies between compactions, whichever reads less."""
    direct = net(file_changes(table, *route.ends))
    if route.steps is None or not route.seen_through:
        return direct, ()
    through = net(change for stretch in route.stretches() for change in file_changes(table, *stretch))
    if rows_to_read(direct) <= rows_to_read(through):
        return direct, ()
    return through, (f"{route.seen_through} replace snapshots in between were seen through.",)
