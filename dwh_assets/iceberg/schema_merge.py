"""Bring the columns of a branch together with those that main has got meanwhile, by field id.

A three-way merge: what only one side has changed since they parted is taken from that side.
"""

from __future__ import annotations

from collections.abc import Iterable

from pyiceberg.schema import Schema
from pyiceberg.types import NestedField

from dwh_assets.errors import DivergedError


def merged_schema(main: Schema, branch: Schema, base: Schema | None, table: str) -> Schema:
    """Return main's columns with what the branch has changed of them since `base`, where they parted.

    The same as `main`, but for its id, where the branch has changed nothing. Columns keep main's order, the
    branch's own follow. Raises `DivergedError` where both have changed one column, or have given one name to
    two columns.
    """
    before = {field.field_id: field for field in base.fields} if base else {}
    theirs = {field.field_id: field for field in branch.fields}
    kept = [
        _merged_field(field, theirs.get(field.field_id), before.get(field.field_id), table)
        for field in main.fields
    ]
    known = {field.field_id for field in main.fields} | before.keys()
    added = [field for field in branch.fields if field.field_id not in known]
    _require_free_names(kept, added, table)
    return Schema(*kept, *added, identifier_field_ids=main.identifier_field_ids)


def _merged_field(
    main: NestedField, branch: NestedField | None, base: NestedField | None, table: str
) -> NestedField:
    if branch is None or branch in (main, base):
        return main
    if main == base:
        return branch
    raise DivergedError(
        f"{table}: column {main.name!r} is {_told(main)} on main and {_told(branch)} on the branch; both "
        "have changed since they parted.",
        remedy="Write the branch again, on main as it now is.",
    )


def _told(field: NestedField) -> str:
    return f"{field.name} {field.field_type}, {'required' if field.required else 'optional'}"


def _require_free_names(kept: Iterable[NestedField], added: Iterable[NestedField], table: str) -> None:
    taken = {field.name.casefold(): field for field in kept}
    for field in added:
        other = taken.get(field.name.casefold())
        if other is not None:
            raise DivergedError(
                f"{table}: main and the branch each have a column of their own called {field.name!r} (field "
                f"ids {other.field_id} and {field.field_id}).",
                remedy="Write the branch again, on main as it now is: it takes main's column then.",
            )
