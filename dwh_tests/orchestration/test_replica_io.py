"""A replica through Dagster: synced to a snapshot, described, and read as an input."""

from collections.abc import Callable
from typing import Any

import dagster as dg
import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from pyiceberg.table import DataScan

from dwh_tests.orchestration.lake import Lake, failure_text, written_by

ROWS = pa.table({"id": [1, 2, 3], "place": ["eu", None, "us"]})
REPLICA = dg.AssetKey(["duckdb", "shop", "orders"])


@dg.asset(
    key=REPLICA,
    ins={"table": dg.AssetIn(key=["iceberg", "shop", "orders"], dagster_type=DataScan)},
    metadata={"table": "shop.orders", "into": "mart.orders"},
    io_manager_key="duckdb_replica_io_manager",
)
def replica(table: DataScan) -> DataScan:
    return table


@pytest.fixture
def shop(lake: Lake) -> Lake:
    """A lake with a DuckDB file for its replicas."""
    lake.replicate()
    return lake


def _held(lake: Lake) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(lake.database), read_only=True) as connection:
        return connection.execute("SELECT id, place FROM mart.orders ORDER BY id").fetchall()


def _event(result: dg.ExecuteInProcessResult) -> dg.AssetMaterialization:
    (event,) = [e for e in result.get_asset_materialization_events() if e.asset_key == REPLICA]
    return event.step_materialization_data.materialization


def test_a_replica_says_which_snapshot_it_holds_and_where_its_columns_come_from(shop: Lake) -> None:
    event = _event(shop.run(written_by(lambda _: ROWS), replica))
    (snapshot,) = shop.snapshots("shop.orders")
    found: dict[str, Any] = {name: value.value for name, value in event.metadata.items()}
    assert found["dwh/snapshot_id"] == str(snapshot["snapshot-id"])
    assert found["dwh/parent_snapshot_id"] == "none"
    assert found["dwh/operation"] == "full"
    assert found["dagster/row_count"] == 3
    assert found["dagster/table_name"] == "mart.orders"
    assert [column.name for column in found["dagster/column_schema"].columns] == ["id", "place"]
    source = dg.AssetKey(["iceberg", "shop", "orders"])
    assert found["dagster/column_lineage"].deps_by_column == {
        name: [dg.TableColumnDep(asset_key=source, column_name=name)] for name in ("id", "place")
    }
    assert (event.tags or {})["dagster/data_version"] == str(snapshot["snapshot-id"])
    assert _held(shop) == [(1, "eu"), (2, None), (3, "us")]


def test_a_replica_that_holds_the_rows_already_does_nothing_and_says_so(shop: Lake) -> None:
    orders = written_by(lambda _: ROWS, write_mode="overwrite")
    first = _event(shop.run(orders, replica))
    again = _event(shop.run(orders, replica, select=[replica]))
    assert again.metadata["dwh/operation"].value == "none"
    assert "Already at snapshot" in str(again.metadata["dwh/summary"].value)
    assert again.metadata["dagster/row_count"].value == 3
    assert again.tags == first.tags | {"dagster/code_version": again.tags["dagster/code_version"]}  # type: ignore[operator, index]

    shop.run(written_by(lambda _: ROWS.slice(0, 1), write_mode="overwrite"))
    newer = _event(shop.run(orders, replica, select=[replica]))
    assert newer.metadata["dwh/operation"].value == "incremental"
    assert newer.metadata["dwh/parent_snapshot_id"].value == first.metadata["dwh/snapshot_id"].value
    assert _held(shop) == [(1, "eu")]


AS: dict[Any, Callable[[Any], list[int]]] = {
    pa.Table: lambda rows: rows["id"].to_pylist(),
    pa.RecordBatchReader: lambda rows: rows.read_all()["id"].to_pylist(),
    pd.DataFrame: lambda rows: rows["id"].tolist(),
    pl.DataFrame: lambda rows: rows["id"].to_list(),
    pl.LazyFrame: lambda rows: rows.collect()["id"].to_list(),
    duckdb.DuckDBPyRelation: lambda rows: [row[0] for row in rows.fetchall()],
}


def test_a_replica_is_read_as_each_input_is_annotated(shop: Lake) -> None:
    arrived: dict[Any, list[int]] = {}

    def reader(annotation: Any, number: int) -> dg.AssetsDefinition:
        arriving = dg.AssetIn(key=REPLICA, metadata={"columns": ["id"]}, dagster_type=annotation)

        @dg.asset(name=f"reader_{number}", ins={"rows": arriving})
        def read(rows) -> None:
            assert isinstance(rows, annotation)
            arrived[annotation] = sorted(AS[annotation](rows))

        made: dg.AssetsDefinition = read
        return made

    readers = [reader(annotation, number) for number, annotation in enumerate(AS)]
    shop.run(written_by(lambda _: ROWS), replica, *readers)
    assert arrived == {annotation: [1, 2, 3] for annotation in AS}


def test_a_replica_is_not_read_as_a_list(shop: Lake) -> None:
    @dg.asset(ins={"replica": dg.AssetIn(key=REPLICA, dagster_type=list)})
    def reader(replica) -> None: ...

    result = shop.run(written_by(lambda _: ROWS), replica, reader, expect_success=False)
    assert "pyarrow.RecordBatchReader" in failure_text(result)


def test_a_table_of_somebody_else_is_left_alone_and_named(shop: Lake) -> None:
    with duckdb.connect(str(shop.database)) as connection:
        connection.execute("CREATE SCHEMA mart; CREATE TABLE mart.orders AS SELECT 42 AS answer")
    result = shop.run(written_by(lambda _: ROWS), replica, expect_success=False)
    assert "mart.orders" in failure_text(result)
    with duckdb.connect(str(shop.database), read_only=True) as connection:
        assert connection.execute("SELECT answer FROM mart.orders").fetchall() == [(42,)]
