"""How a table itself changed between two versions: columns, partitioning, order and properties.

Columns are kept for every snapshot. Partitioning, order and properties belong to the table, so they are
those with which the snapshot was committed, from the metadata file of that commit, as long as it is kept.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any, Literal

from pyiceberg.schema import Schema, index_by_id, index_name_by_id
from pyiceberg.serializers import FromInputFile
from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.types import IcebergType, ListType, MapType, NestedField, StructType

Kind = Literal[
    "added", "dropped", "renamed", "promoted", "nullability", "doc", "moved", "identifier", "changed"
]


@dataclass(frozen=True)
class TableChange:
    """One change: what kind of it to which column, partition field, order or property, from what to what.

    `name` is the present one, or that of something that is gone; the names of nested fields are dotted.
    `field_id` is a column's.
    """

    kind: Kind
    name: str
    before: str | None = None
    after: str | None = None
    field_id: int | None = None

    def __str__(self) -> str:
        if self.kind in ("added", "dropped", "moved"):
            shown = self.after or self.before
            return f"{self.kind} {self.name} ({shown})" if shown else f"{self.kind} {self.name}"
        return f"{self.kind} {self.name}: {self.before} -> {self.after}"


def schema_changes(before: Schema, after: Schema) -> tuple[TableChange, ...]:
    """Return what became of the columns, by field id."""
    return tuple(_Columns(before, after).changes())


class _Columns:
    def __init__(self, before: Schema, after: Schema) -> None:
        self._schemas = before, after
        self._old, self._new = index_by_id(before), index_by_id(after)
        self._old_names, self._new_names = index_name_by_id(before), index_name_by_id(after)
        self._old_parents, self._new_parents = (
            dict(_parents(schema.as_struct())) for schema in self._schemas
        )

    def changes(self) -> Iterator[TableChange]:
        """Yield columns that came, went, and became different."""
        for id_ in _topmost(self._new, self._old, self._new_parents):
            shown = str(self._new[id_].field_type)
            yield TableChange("added", self._new_names[id_], after=shown, field_id=id_)
        for id_ in _topmost(self._old, self._new, self._old_parents):
            shown = str(self._old[id_].field_type)
            yield TableChange("dropped", self._old_names[id_], before=shown, field_id=id_)
        for id_ in self._new:
            if id_ in self._old:
                yield from self._differences(id_)
        for id_ in sorted(self._moved()):
            yield TableChange("moved", self._new_names[id_], field_id=id_)

    def _differences(self, id_: int) -> Iterator[TableChange]:
        old, new = self._old[id_], self._new[id_]
        described: list[tuple[Kind, str | None, str | None]] = [
            ("renamed", old.name, new.name),
            ("promoted", _primitive(old), _primitive(new)),
            ("nullability", _nullability(old), _nullability(new)),
            ("doc", old.doc, new.doc),
            ("identifier", _role(self._schemas[0], id_), _role(self._schemas[1], id_)),
        ]
        for kind, before, after in described:
            if before != after:
                yield TableChange(kind, self._new_names[id_], before, after, id_)

    def _moved(self) -> set[int]:
        """Return the columns that stand elsewhere among those beside them that both versions have."""
        moved: set[int] = set()
        for parent in {None, *self._new_parents.values()}:
            old, new = (
                [id_ for id_ in fields if parents.get(id_) == parent and id_ in others]
                for fields, parents, others in (
                    (self._old, self._old_parents, self._new),
                    (self._new, self._new_parents, self._old),
                )
            )
            blocks = SequenceMatcher(None, old, new, autojunk=False).get_matching_blocks()
            moved |= set(new) - {id_ for block in blocks for id_ in new[block.b : block.b + block.size]}
        return moved


def _parents(within: IcebergType, parent: int | None = None) -> Iterator[tuple[int, int | None]]:
    """Yield every field's id with that of the field that it is part of."""
    match within:
        case StructType():
            fields = within.fields
        case ListType():
            fields = (within.element_field,)
        case MapType():
            fields = (within.key_field, within.value_field)
        case _:
            return
    for field in fields:
        yield field.field_id, parent
        yield from _parents(field.field_type, field.field_id)


def _topmost(
    one: Mapping[int, NestedField], other: Mapping[int, NestedField], parents: Mapping[int, int | None]
) -> Iterator[int]:
    """Yield the fields that only one side has, without those inside of another such."""
    for id_ in one:
        if id_ not in other and (parents[id_] is None or parents[id_] in other):
            yield id_


def _primitive(field: NestedField) -> str:
    return str(field.field_type) if field.field_type.is_primitive else type(field.field_type).__name__


def _nullability(field: NestedField) -> str:
    return "required" if field.required else "optional"


def _role(schema: Schema, field_id: int) -> str:
    return "identifies rows" if field_id in schema.identifier_field_ids else "does not"


def metadata_at(table: Table, snapshot_id: int) -> TableMetadata | None:
    """Return the table's metadata as the commit of a snapshot left them; None where they are not kept."""
    snapshot = table.metadata.snapshot_by_id(snapshot_id)
    if snapshot is None:
        return None
    log = table.metadata.metadata_log
    first = bisect_left([entry.timestamp_ms for entry in log], snapshot.timestamp_ms)
    for place in range(first, len(log) + 1):
        found = table.metadata if place == len(log) else _read(table, log[place].metadata_file)
        if found is None:
            return None
        if found.snapshot_by_id(snapshot_id) is not None:
            # Before the first one that is kept there may have been others with the snapshot.
            sure = place > 0 or found.last_updated_ms == snapshot.timestamp_ms
            return found if sure else None
    return None


def _read(table: Table, location: str) -> TableMetadata | None:
    try:
        return FromInputFile.table_metadata(table.io.new_input(location))
    except OSError:
        return None


def partition_spec_changes(before: TableMetadata, after: TableMetadata) -> tuple[TableChange, ...]:
    """Return the partition fields that came and went."""
    old, new = _partition_fields(before), _partition_fields(after)
    return (
        *(TableChange("added", new[key]) for key in new if key not in old),
        *(TableChange("dropped", old[key]) for key in old if key not in new),
    )


def _partition_fields(metadata: TableMetadata) -> dict[tuple[int, str], str]:
    """Return partition fields, shown, by source column and transform."""
    names = _column_names(metadata)
    return {
        (field.source_id, str(field.transform)): _shown(field.transform, names.get(field.source_id))
        for field in metadata.spec().fields
    }


def sort_order_changes(before: TableMetadata, after: TableMetadata) -> tuple[TableChange, ...]:
    """Return the change of the order in which rows are written, if it changed."""
    same = before.sort_order().fields == after.sort_order().fields
    return () if same else (TableChange("changed", "order", _order(before), _order(after)),)


def _order(metadata: TableMetadata) -> str:
    names = _column_names(metadata)
    shown = [
        f"{_shown(field.transform, names.get(field.source_id))} {field.direction.name.lower()}"
        f" {field.null_order.value}"
        for field in metadata.sort_order().fields
    ]
    return ", ".join(shown) or "none"


def _shown(transform: Any, name: str | None) -> str:
    text = str(transform)
    if text == "identity":
        return name or "?"
    function, bracket, argument = text.partition("[")
    return f"{function}({argument.rstrip(']') + ', ' if bracket else ''}{name or '?'})"


def _column_names(metadata: TableMetadata) -> dict[int, str]:
    return {
        field_id: name
        for schema in (*metadata.schemas, metadata.schema())
        for field_id, name in index_name_by_id(schema).items()
    }


def property_changes(before: TableMetadata, after: TableMetadata) -> tuple[TableChange, ...]:
    """Return the properties that were set, changed and removed."""
    return tuple(_property_changes(before.properties, after.properties))


def _property_changes(old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[TableChange]:
    for name in sorted({*old, *new}):
        if name not in old:
            yield TableChange("added", name, after=new[name])
        elif name not in new:
            yield TableChange("dropped", name, before=old[name])
        elif old[name] != new[name]:
            yield TableChange("changed", name, old[name], new[name])
