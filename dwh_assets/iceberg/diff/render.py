"""A comparison as text for people (markdown) and for programs (JSON)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from dwh_assets.iceberg.diff.statistics import ColumnDiff, ColumnValues
from dwh_assets.iceberg.diff.table_changes import TableChange

if TYPE_CHECKING:
    from dwh_assets.iceberg.diff.version_diff import VersionDiff


def as_markdown(diff: VersionDiff) -> str:
    """Render counts, changes of the table itself, changed columns and notes; empty parts are left out."""
    start = "the empty table" if diff.from_snapshot_id is None else str(diff.from_snapshot_id)
    parts = [
        f"**{_escaped(diff.table)}**: {start} → {diff.to_snapshot_id}",
        _counts(diff),
        _columns(diff.columns) if diff.rows_modified else "",
        *(_listed(title, changes) for title, changes in _table_changes(diff).items()),
        "\n".join(f"> {_escaped(note)}" for note in diff.notes),
    ]
    return "\n\n".join(part for part in parts if part)


def as_dict(diff: VersionDiff) -> dict[str, Any]:
    """Return everything but the rows; snapshot ids are text, since JSON's readers round large numbers."""
    return {
        "table": diff.table,
        "from_snapshot_id": None if diff.from_snapshot_id is None else str(diff.from_snapshot_id),
        "to_snapshot_id": str(diff.to_snapshot_id),
        "rows_added": diff.rows_added,
        "rows_removed": diff.rows_removed,
        "rows_modified": diff.rows_modified,
        "columns": [_column(column) for column in diff.columns],
        **{
            f"{title}_changes".replace(" ", "_"): [asdict(change) for change in changes]
            for title, changes in _table_changes(diff).items()
        },
        "files_read": diff.files_read,
        "bytes_read": diff.bytes_read,
        "notes": list(diff.notes),
    }


def _table_changes(diff: VersionDiff) -> dict[str, tuple[TableChange, ...]]:
    return {
        "schema": diff.schema_changes,
        "partition spec": diff.partition_spec_changes,
        "sort order": diff.sort_order_changes,
        "property": diff.property_changes,
    }


def _counts(diff: VersionDiff) -> str:
    return (
        "| rows added | rows removed | rows modified |\n|---:|---:|---:|\n"
        f"| {diff.rows_added:,} | {diff.rows_removed:,} | {diff.rows_modified:,} |"
    )


def _listed(title: str, changes: Sequence[TableChange]) -> str:
    if not changes:
        return ""
    return f"{title.capitalize()} changes:\n\n" + "\n".join(f"- {_escaped(str(one))}" for one in changes)


def _columns(columns: Sequence[ColumnDiff]) -> str:
    changed = [column for column in columns if column.rows_changed]
    if not changed:
        return ""
    lines = [
        f"| {_escaped(column.name)} | {column.rows_changed:,} | {_shown(column.before.null_rate)}"
        f" → {_shown(column.after.null_rate)} | {_range(column.before)} → {_range(column.after)}"
        f" | {_shown(column.mean_drift)} |"
        for column in changed
    ]
    head = "| column | rows changed | nulls | range | mean drift |\n|---|---:|---|---|---:|\n"
    return head + "\n".join(lines)


def _range(values: ColumnValues) -> str:
    if values.least is None:
        return "-"
    return _escaped(f"{_short(values.least)} … {_short(values.greatest)}")


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 24 else text[:23] + "…"


def _shown(number: float | None) -> str:
    return "-" if number is None else f"{number:.4g}"


def _escaped(text: str) -> str:
    """Keep a name or value from ending a cell, or being taken for markup."""
    for mark in "\\|`*_<>[]":
        text = text.replace(mark, "\\" + mark)
    return text.replace("\n", " ")


def _column(column: ColumnDiff) -> dict[str, Any]:
    return {
        "name": column.name,
        "field_id": column.field_id,
        "rows_changed": column.rows_changed,
        "before": _values(column.before),
        "after": _values(column.after),
        "mean_drift": _plain(column.mean_drift),
    }


def _values(values: ColumnValues) -> dict[str, Any]:
    return {**{name: _plain(value) for name, value in asdict(values).items()}, "null_rate": values.null_rate}


def _plain(value: Any) -> Any:
    """Return a value that JSON knows: NaN and infinities, decimals, moments and bytes as text."""
    finite = isinstance(value, float) and math.isfinite(value)
    return value if value is None or finite or isinstance(value, bool | int | str) else str(value)
