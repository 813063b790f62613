"""By which columns a table's rows are told apart: kept with the table, so that comparisons know it."""

from __future__ import annotations

from collections.abc import Sequence

from pyiceberg.schema import Schema
from pyiceberg.table.metadata import TableMetadata

# Ids outlast names. Iceberg's own identifier fields may hold no nulls, while a declared key may.
KEY_FIELD_IDS = "dwh.key-field-ids"


def key_property(schema: Schema, key_columns: Sequence[str]) -> dict[str, str]:
    """Return the table property that remembers the declared key; none where none is declared."""
    ids = (str(schema.find_field(column).field_id) for column in key_columns)
    return {KEY_FIELD_IDS: ",".join(ids)} if key_columns else {}


def known_keys(metadata: TableMetadata, schema: Schema, *others: Schema) -> list[str]:
    """Return the names in `schema` of the table's key: its identifier fields, else the key that was declared.

    Nothing where it has none, or where a column of it is not in all of these schemas.
    """
    declared = metadata.properties.get(KEY_FIELD_IDS, "")
    ids = [*schema.identifier_field_ids] or [int(text) for text in declared.split(",") if text.isdigit()]
    present = [{field.field_id: field.name for field in one.fields} for one in (schema, *others)]
    return [present[0][i] for i in ids] if all(i in known for known in present for i in ids) else []
