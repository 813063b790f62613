"""A table on a store that DuckDB does not read itself: single rows come out of their row groups."""

from __future__ import annotations

import uuid
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.catalog import load_catalog

from dwh_assets import IcebergWriter, IcebergWriterConfig
from dwh_assets.iceberg.diff.compare import compare
from dwh_tests.iceberg.diff.expected import expected_difference
from dwh_tests.iceberg.diff.test_histories import assert_changes
from dwh_tests.servers.object_store import ObjectStore

pytestmark = pytest.mark.server


def test_versions_on_an_object_store_are_compared(each_store: ObjectStore) -> None:
    catalog = load_catalog("test", **each_store.catalog_properties)
    name = f"diff_{uuid.uuid4().hex[:8]}.orders"

    def write(rows: pa.Table, **declared: Any) -> int:
        config = IcebergWriterConfig(table=name, **declared)
        snapshot_id = IcebergWriter(config, catalog=catalog).write(rows).snapshot_id
        assert snapshot_id is not None
        return snapshot_id

    def rows(ids: list[int], amount: float) -> pa.Table:
        return pa.table({"id": ids, "amount": [amount] * len(ids), "note": [f"order {i}" for i in ids]})

    first = write(rows(list(range(5000)), 1.0), table_properties={"write.parquet.row-group-limit": "1000"})
    second = write(rows([10, 4500, 9000], 2.0), write_mode="upsert", key_columns=["id"])
    table = catalog.load_table(name)
    old, new = (table.scan(snapshot_id=snapshot_id).to_arrow() for snapshot_id in (first, second))
    expected = expected_difference(old, new, ["id"])
    with compare(table, first, second, keys=["id"]) as diff:
        assert (diff.rows_added, diff.rows_removed, diff.rows_modified) == (1, 0, 2)
        assert_changes(diff.changes().read_all().to_pylist(), expected, ["id"])
