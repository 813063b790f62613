"""The checks of the component fail when they should, and say what they saw."""

from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pyarrow as pa
import pytest
from dagster_duckdb import DuckDBResource
from pyiceberg.table import DataScan

from dwh_assets.orchestration.checks import key_check, replica_check
from dwh_assets.orchestration.replica_io import DuckDBReplicaIOManager
from dwh_tests.orchestration.lake import Lake, written_by

TABLE, REPLICA = dg.AssetKey(["iceberg", "shop", "orders"]), dg.AssetKey(["duckdb", "shop", "orders"])
ROWS = pa.table({"id": [1, 2, 3], "place": ["eu", "eu", "us"]})


def _checked(result: dg.ExecuteInProcessResult) -> tuple[bool, dict[str, Any]]:
    (evaluation,) = result.get_asset_check_evaluations()
    return evaluation.passed, {name: value.value for name, value in evaluation.metadata.items()}


def test_keys_that_repeat_are_counted_and_shown(lake: Lake) -> None:
    orders, check = written_by(lambda _: ROWS), key_check(TABLE, "shop.orders", ["id", "place"])
    passed, found = _checked(lake.run(orders, check))
    assert (passed, found["rows"], found["repeated_keys"]) == (True, 3, 0)
    assert found["dwh/snapshot_id"] == str(lake.snapshots("shop.orders")[-1]["snapshot-id"])

    lake.run(written_by(lambda _: ROWS.slice(0, 1)))
    passed, found = _checked(lake.run(written_by(lambda _: ROWS.slice(2, 1)), check))
    assert (passed, found["rows"], found["repeated_keys"]) == (False, 5, 2)
    assert "'eu'" in found["sample"]
    assert "'us'" in found["sample"]


@pytest.mark.parametrize(
    "harm", ["DELETE FROM shop.orders WHERE id = 1", "INSERT INTO shop.orders FROM shop.orders"]
)
def test_a_replica_that_lost_or_doubled_rows_blocks_what_reads_it(lake: Lake, harm: str) -> None:
    file = lake.folder / "replicas.duckdb"
    resource = DuckDBResource(database=str(file))
    lake.resources["duckdb_replica_io_manager"] = DuckDBReplicaIOManager(
        iceberg=lake.iceberg, duckdb=resource
    )
    read: list[int] = []

    @dg.asset(
        key=REPLICA,
        ins={"table": dg.AssetIn(key=TABLE, dagster_type=DataScan)},
        metadata={"table": "shop.orders", "into": "shop.orders"},
        io_manager_key="duckdb_replica_io_manager",
    )
    def replica(table: DataScan) -> DataScan:
        return table

    @dg.asset(ins={"replica": dg.AssetIn(key=REPLICA)})
    def report(replica) -> None:
        read.append(replica.num_rows)

    check = replica_check(REPLICA, TABLE, "shop.orders", "shop.orders", "duckdb")
    orders = written_by(lambda _: ROWS)
    passed, _ = _checked(lake.run(orders, replica, check, report))
    assert (passed, read) == (True, [3])

    _harm(file, harm)
    result = lake.run(orders, replica, check, report, select=[replica, report], expect_success=False)
    passed, found = _checked(result)
    assert not passed
    assert (found["expected"], read) == ("3", [3])


def _harm(file: Path, statement: str) -> None:
    with duckdb.connect(str(file)) as connection:
        connection.execute(statement)
