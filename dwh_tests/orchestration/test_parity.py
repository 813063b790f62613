"""A replica is compared with its table after each sync; what differs is shown, blocks, and is repaired."""

from dataclasses import dataclass, field
from typing import Any

import dagster as dg
import duckdb
import pyarrow as pa
import pytest
from pyiceberg.table import DataScan

from dwh_assets.orchestration.declared_lake import DeclaredLake, DeclaredReplica
from dwh_assets.orchestration.parity import parity_check
from dwh_assets.orchestration.repair_job import repair_job
from dwh_tests.orchestration.lake import QUIET, Lake, failure_text, written_by

TABLE, REPLICA = dg.AssetKey(["iceberg", "shop", "orders"]), dg.AssetKey(["duckdb", "shop", "orders"])
ROWS = pa.table({"id": range(1, 41), "place": ["eu", "us"] * 20, "paid": [True] * 40})
METADATA = {"table": "shop.orders", "into": "shop.orders"}
PARTITIONS = [{"field": "place"}]


@dataclass
class Shop:
    """Orders in two partitions, their replica with its check, and a report that reads the replica."""

    lake: Lake
    level: str
    read: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.lake.replicate()
        self.orders = written_by(lambda _: ROWS, write_mode="overwrite", partition_spec=PARTITIONS)
        metadata = {**METADATA, "parity": self.level}

        @dg.asset(
            key=REPLICA,
            ins={"table": dg.AssetIn(key=TABLE, dagster_type=DataScan)},
            metadata=metadata,
            io_manager_key="duckdb_replica_io_manager",
        )
        def replica(table: DataScan) -> DataScan:
            return table

        @dg.asset(ins={"replica": dg.AssetIn(key=REPLICA)})
        def report(replica) -> None:
            self.read.append(replica.num_rows)

        self.replica, self.report = replica, report
        self.check = parity_check(REPLICA, metadata, io_manager="duckdb_replica_io_manager", pool="duckdb")
        self.declared = DeclaredLake(
            replicas=(DeclaredReplica(REPLICA, metadata, "duckdb_replica_io_manager"),)
        )

    def sync(self, *, expect_success: bool = True) -> tuple[bool, dict[str, Any]]:
        """Sync the replica, check it, and read it; return what the check said."""
        everything = (self.orders, self.replica, self.check, self.report)
        wanted = [self.replica, self.report]
        result = self.lake.run(*everything, select=wanted, expect_success=expect_success)
        (evaluation,) = result.get_asset_check_evaluations()
        return evaluation.passed, {name: value.value for name, value in evaluation.metadata.items()}

    def repair(self, *, expect_success: bool = True, **config: str) -> dg.ExecuteInProcessResult:
        result = repair_job(self.declared).execute_in_process(
            instance=self.lake.instance,
            resources=self.lake.resources,
            run_config={**QUIET, "ops": {"repair": {"config": config}}},
            raise_on_error=False,
        )
        assert result.success is expect_success, result
        return result

    def harm(self, statement: str) -> None:
        with duckdb.connect(str(self.lake.database)) as connection:
            connection.execute(statement)

    def held(self) -> list[tuple[Any, ...]]:
        with duckdb.connect(str(self.lake.database), read_only=True) as connection:
            return connection.execute("SELECT id, place, paid FROM shop.orders ORDER BY id").fetchall()


@pytest.fixture
def shop(lake: Lake, request: pytest.FixtureRequest) -> Shop:
    made = Shop(lake, getattr(request, "param", "fingerprint"))
    lake.run(made.orders)
    return made


def records(value: Any) -> list[dict[str, Any]]:
    return [dict(record.data) for record in value]


LOST = "DELETE FROM shop.orders WHERE id = 1"
DOUBLED = "INSERT INTO shop.orders FROM shop.orders WHERE id = 1"
CHANGED = "UPDATE shop.orders SET paid = false WHERE id = 2"


@pytest.mark.parametrize(
    ("shop", "harm"),
    [("count", LOST), ("count", DOUBLED), ("fingerprint", LOST), ("fingerprint", CHANGED), ("full", CHANGED)],
    indirect=["shop"],
)
def test_a_replica_that_is_not_as_its_table_blocks_what_reads_it(shop: Shop, harm: str) -> None:
    passed, found = shop.sync()
    assert (passed, found["level"], found["rows"], found["expected"]) == (True, shop.level, 40, 40)
    assert found["dwh/snapshot_id"] == str(shop.lake.snapshots("shop.orders")[-1]["snapshot-id"])
    assert shop.read == [40]

    shop.harm(harm)
    passed, found = shop.sync(expect_success=False)
    assert not passed
    assert found["expected"] == 40
    assert shop.read == [40]


def test_a_count_does_not_see_what_a_fingerprint_sees(lake: Lake) -> None:
    shop = Shop(lake, "count")
    lake.run(shop.orders)
    shop.sync()
    shop.harm(CHANGED)
    assert shop.sync()[0]


def test_the_columns_and_partitions_that_differ_are_shown(shop: Shop) -> None:
    shop.sync()
    shop.harm(CHANGED)
    _, found = shop.sync(expect_success=False)
    assert {record["column"] for record in records(found["differing columns"].records)} == {"paid"}
    (partition,) = records(found["differing partitions"].records)
    assert "us" in partition["name"]
    assert (partition["rows_in_table"], partition["rows_in_replica"]) == (20, 20)
    assert "**different**" in found["report"]


def test_a_replica_that_was_never_loaded_says_so(shop: Shop) -> None:
    result = shop.lake.run(shop.orders, shop.replica, shop.check, select=[shop.orders], expect_success=True)
    assert result.get_asset_check_evaluations() == []
    checked = dg.Definitions(
        assets=[shop.orders, shop.replica], asset_checks=[shop.check], resources=shop.lake.resources
    )
    job = dg.define_asset_job("verify", selection=dg.AssetSelection.checks(shop.check))
    result = (
        checked.merge(checked, dg.Definitions(jobs=[job]))
        .resolve_job_def("verify")
        .execute_in_process(instance=shop.lake.instance, run_config=QUIET, raise_on_error=False)
    )
    assert not result.success
    assert "Sync a replica into it first" in failure_text(result)


# --- Repair ---


def test_a_repair_loads_the_partitions_that_differ_and_tells_the_check(shop: Shop) -> None:
    shop.sync()
    before = shop.held()
    shop.harm(CHANGED)
    assert not shop.sync(expect_success=False)[0]
    result = shop.repair(replica="duckdb/shop/orders")
    assert shop.held() == before
    told: dict[str, Any] = {name: value.value for name, value in _output_metadata(result).items()}
    assert (told["dwh/rows_added"], told["dwh/rows_removed"]) == (20, 20)
    assert "**different**" in told["before"]
    assert "equal" in told["after"]
    (evaluation,) = result.get_asset_check_evaluations()
    assert (evaluation.asset_key, evaluation.check_name, evaluation.passed) == (REPLICA, "parity", True)
    assert shop.sync()[0]


def test_a_replica_that_is_as_its_table_is_left_alone(shop: Shop) -> None:
    shop.sync()
    result = shop.repair(replica="duckdb/shop/orders", level="full")
    assert set(_output_metadata(result)) == {"before"}
    assert result.get_asset_check_evaluations() == []


def test_an_unknown_replica_is_named_with_those_that_there_are(shop: Shop) -> None:
    result = shop.repair(replica="duckdb/shop/order", expect_success=False)
    assert "no replica 'duckdb/shop/order'. There is duckdb/shop/orders." in failure_text(result)


def _output_metadata(result: dg.ExecuteInProcessResult) -> dict[str, dg.MetadataValue]:
    (event,) = [event for event in result.all_node_events if event.is_successful_output]
    return dict(event.step_output_data.metadata)
