"""The lake of a test, and what a branch of its table is, read without the code under test."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from dwh_tests.iceberg.conftest import Lake, Row, duckdb_rows, lake

__all__ = ["Row", "lake"]


def on(lake: Lake, branch: str) -> list[Row]:
    """The rows of a branch as DuckDB reads them at its head, ordered by `id`."""
    head = lake.metadata["refs"][branch]["snapshot-id"]
    rows: list[Row] = duckdb_rows(lake.table.metadata_location, head).to_pylist()
    return sorted(rows, key=lambda row: (row["id"], str(row)))


def now(lake: Lake) -> list[Row]:
    """What a reader who names no version sees, ordered by `id`."""
    return sorted(lake.rows(), key=lambda row: (row["id"], str(row)))


def shape(lake: Lake) -> dict[str, Any]:
    """What main makes current: head, columns, partitioning, order and properties, from the table's JSON."""
    metadata = lake.metadata
    of = {"schemas": "schema-id", "partition-specs": "spec-id", "sort-orders": "order-id"}
    current = {
        "schemas": metadata["current-schema-id"],
        "partition-specs": metadata["default-spec-id"],
        "sort-orders": metadata["default-sort-order-id"],
    }
    chosen = {
        kind: next(one for one in metadata[kind] if one[key] == current[kind]) for kind, key in of.items()
    }
    return {
        "head": metadata.get("current-snapshot-id"),
        "columns": [(f["id"], f["name"], f["type"], f["required"]) for f in chosen["schemas"]["fields"]],
        "partitions": [(f["name"], f["transform"]) for f in chosen["partition-specs"]["fields"]],
        "order": [f["source-id"] for f in chosen["sort-orders"]["fields"]],
        "properties": metadata.get("properties", {}),
    }


def orders(*ids: int, **columns: Any) -> pa.Table:
    """Orders with these ids, in region eu, and further columns."""
    values = {"id": list(ids), "region": ["eu"] * len(ids), **columns}
    return pa.table(
        {name: value if isinstance(value, pa.Array) else pa.array(value) for name, value in values.items()}
    )


@pytest.fixture
def filled(lake: Lake) -> Lake:
    """A lake whose table holds the orders 1 and 2."""
    lake.write(orders(1, 2))
    return lake
