"""A table knows by which columns its rows are told apart, whatever becomes of their names."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from pyiceberg.schema import Schema
from pyiceberg.types import LongType, NestedField

from dwh_assets import VersionedDataStore
from dwh_assets.iceberg.keys import known_keys
from dwh_tests.iceberg.conftest import TABLE, Lake

UPSERT: dict[str, Any] = {"write_mode": "upsert", "key_columns": ["id"]}


def rows(*pairs: tuple[int, str], key: str = "id") -> pa.Table:
    return pa.table({key: [one for one, _ in pairs], "text": [text for _, text in pairs]})


def keys_of(lake: Lake) -> list[str]:
    return known_keys(lake.table.metadata, lake.table.schema())


def test_the_declared_key_stays_with_the_table(lake: Lake) -> None:
    lake.write(rows((1, "a")), **UPSERT)
    assert keys_of(lake) == ["id"]
    lake.table.update_schema().rename_column("id", "number").commit()
    assert keys_of(lake) == ["number"]
    lake.write(rows((2, "b"), key="number"))
    assert keys_of(lake) == ["number"]


def test_a_table_without_a_key_has_none(lake: Lake) -> None:
    lake.write(rows((1, "a")))
    assert keys_of(lake) == []


def test_to_remember_the_key_is_no_reason_for_a_snapshot(lake: Lake) -> None:
    first = lake.write(rows((1, "a")))
    assert lake.write(rows((1, "a")), **UPSERT).snapshot_id == first.snapshot_id
    assert keys_of(lake) == []
    lake.write(rows((1, "b")), **UPSERT)
    assert keys_of(lake) == ["id"]


def test_identifier_fields_come_first(lake: Lake) -> None:
    lake.write(rows((1, "a")), **UPSERT)
    fields = [NestedField(1, "id", LongType()), NestedField(7, "sku", LongType(), required=True)]
    assert known_keys(lake.table.metadata, Schema(*fields, identifier_field_ids=[7])) == ["sku"]
    assert known_keys(lake.table.metadata, Schema(*fields)) == ["id"]


def test_a_key_that_one_version_lacks_is_none(lake: Lake) -> None:
    lake.write(rows((1, "a")))
    lake.write(
        pa.table({"id": [2], "text": ["b"], "sku": [7]}),
        write_mode="upsert",
        key_columns=["sku"],
        null_keys="match",
    )
    schemas = {schema.schema_id: schema for schema in lake.table.metadata.schemas}
    assert known_keys(lake.table.metadata, schemas[1]) == ["sku"]
    assert known_keys(lake.table.metadata, schemas[1], schemas[0]) == []


def test_the_store_compares_by_the_tables_own_key_unless_told(lake: Lake) -> None:
    lake.write(rows((1, "a"), (2, "b")), **UPSERT)
    lake.write(rows((2, "c"), (3, "d")), **UPSERT)
    store = VersionedDataStore(lake.catalog)
    by_key = store.compare_versions(TABLE, "1 versions ago")
    assert (by_key.rows_added, by_key.rows_removed, by_key.rows_modified) == (1, 0, 1)
    multiset = store.compare_versions(TABLE, "1 versions ago", keys=[])
    assert (multiset.rows_added, multiset.rows_removed, multiset.rows_modified) == (2, 1, 0)
    back = store.compare_versions(TABLE, None, "1 versions ago")
    assert (back.rows_added, back.rows_removed, back.rows_modified) == (0, 1, 1)
