"""Replicas in Snowflake and BigQuery through Dagster's own resources, against servers on this machine."""

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest
from pyiceberg.table import DataScan

from dwh_assets.definitions import defs
from dwh_assets.orchestration.parity import parity_check
from dwh_tests.orchestration.lake import Lake, failure_text, written_by
from dwh_tests.servers.demo_warehouses import bigquery_environment, snowflake_environment
from dwh_tests.servers.fakesnow import FakeSnow
from dwh_tests.servers.local_bigquery import LocalBigQuery

TABLE = dg.AssetKey(["iceberg", "shop", "orders"])
MANY = pa.table({"id": range(200), "place": ["eu", None] * 100})
CHANGED = pa.table({"id": [3, 200], "place": ["us", "us"]})


@dataclass
class Warehouse:
    """One that the environment names: how the definitions reach it, and how a test does without them."""

    kind: str
    secret: str
    count: Callable[[str], int]
    break_rows: Callable[[], None]

    @property
    def key(self) -> dg.AssetKey:
        return dg.AssetKey([self.kind, "shop", "orders"])

    @property
    def io_manager(self) -> str:
        return f"{self.kind}_replica_io_manager"


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, str]], None]:
    def name(variables: dict[str, str]) -> None:
        for variable, value in variables.items():
            monkeypatch.setenv(variable, value)

    return name


@pytest.fixture
def snowflake(fakesnow: FakeSnow, named: Callable[[dict[str, str]], None]) -> Warehouse:
    """An account with a database that no other test has."""
    database, password = f"DB_{secrets.token_hex(4)}".upper(), secrets.token_hex(16)
    with fakesnow.connect(database):
        named({**snowflake_environment(fakesnow), "DWH_SNOWFLAKE_DATABASE": database})
        named({"SNOWFLAKE_PASSWORD": password})  # any will do

    def ask(sql: str) -> Any:
        with fakesnow.connect(database) as connection:
            cursor = connection.cursor()
            cursor.execute(sql)
            return cursor.fetchone()

    return Warehouse(
        "snowflake",
        password,
        lambda where: int(ask(f"SELECT COUNT(*) FROM SHOP.ORDERS WHERE {where}")[0]),
        lambda: ask("UPDATE SHOP.ORDERS SET PLACE = 'xx' WHERE ID = 7"),
    )


@pytest.fixture
def bigquery(local_bigquery: LocalBigQuery, named: Callable[[dict[str, str]], None]) -> Iterator[Warehouse]:
    """A project; the dataset of the test is dropped afterwards."""
    named(bigquery_environment(local_bigquery))
    with local_bigquery.client() as client:

        def ask(sql: str) -> Any:
            return list(client.query_and_wait(sql))

        yield Warehouse(
            "bigquery",
            local_bigquery.service_account["private_key"].splitlines()[5],
            lambda where: int(ask(f"SELECT COUNT(*) FROM shop.orders WHERE {where}")[0][0]),
            lambda: ask("UPDATE shop.orders SET place = 'xx' WHERE id = 7"),
        )
        client.delete_dataset("shop", delete_contents=True, not_found_ok=True)


@pytest.fixture(params=["snowflake", "bigquery"])
def warehouse(request: pytest.FixtureRequest) -> Warehouse:
    found: Warehouse = request.getfixturevalue(request.param)
    return found


@contextmanager
def shop(lake: Lake, warehouse: Warehouse) -> Iterator[tuple[Any, ...]]:
    """The replica with its check, over the resources of the shipped definitions."""
    resources = defs().resources or {}
    lake.resources[warehouse.kind] = resources[warehouse.kind]
    manager = resources[warehouse.io_manager]
    lake.resources[warehouse.io_manager] = type(manager)(
        iceberg=lake.iceberg, ledger=lake.ledger, **{warehouse.kind: resources[warehouse.kind]}
    )
    metadata = {"table": "shop.orders", "into": "shop.orders"}

    @dg.asset(
        key=warehouse.key,
        ins={"table": dg.AssetIn(key=TABLE, dagster_type=DataScan)},
        metadata=metadata,
        io_manager_key=warehouse.io_manager,
    )
    def replica(table: DataScan) -> DataScan:
        return table

    yield replica, parity_check(warehouse.key, metadata, io_manager=warehouse.io_manager, pool=warehouse.kind)


def upserted(rows: pa.Table) -> dg.AssetsDefinition:
    return written_by(lambda _: rows, write_mode="upsert", key_columns=["id"])


def told(result: dg.ExecuteInProcessResult, key: dg.AssetKey) -> dict[str, Any]:
    (event,) = [one for one in result.get_asset_materialization_events() if one.asset_key == key]
    return {
        name: value.value for name, value in event.step_materialization_data.materialization.metadata.items()
    }


@pytest.mark.server
def test_a_replica_follows_its_table_and_is_compared_with_it(lake: Lake, warehouse: Warehouse) -> None:
    read: list[Any] = []

    @dg.asset(ins={"copy": dg.AssetIn(key=warehouse.key, metadata={"where": {"place": "us"}})})
    def report(copy: pa.Table) -> None:
        read.append(copy.sort_by("id").to_pydict())

    with shop(lake, warehouse) as (replica, check):
        first = lake.run(upserted(MANY), replica, check)
        assert told(first, warehouse.key)["dwh/operation"] == "full"
        assert warehouse.count("TRUE") == 200
        second = lake.run(upserted(CHANGED), replica, check, report)
        found = told(second, warehouse.key)
        assert (found["dwh/operation"], found["dagster/row_count"]) == ("incremental", 201)
        assert (found["dwh/rows_added"], found["dwh/rows_updated"], found["dwh/rows_removed"]) == (1, 1, 0)
        assert found["dwh/snapshot_id"] == str(lake.snapshots("shop.orders")[-1]["snapshot-id"])
        assert warehouse.count("place = 'us'") == 2
        assert read == [{"id": [3, 200], "place": ["us", "us"]}]
        for result in (first, second):
            (evaluation,) = result.get_asset_check_evaluations()
            assert evaluation.passed
    pins = {pin.snapshot_id for pin in lake.ledger.ledger.pins("shop.orders")}
    assert pins == {lake.snapshots("shop.orders")[-1]["snapshot-id"]}


@pytest.mark.server
def test_a_value_that_is_not_the_tables_is_found_and_no_secret_is_told(
    lake: Lake, warehouse: Warehouse
) -> None:
    with shop(lake, warehouse) as (replica, check):
        orders = upserted(MANY)
        lake.run(orders, replica, check)
        warehouse.break_rows()
        result = lake.run(orders, replica, check, select=[replica], expect_success=False)
    (evaluation,) = result.get_asset_check_evaluations()
    assert not evaluation.passed
    columns = evaluation.metadata["differing columns"].value.records  # type: ignore[union-attr]
    assert {record.data["column"] for record in columns} == {"place"}
    everything = [entry.to_json() for entry in lake.instance.all_logs(result.run_id)]
    assert not [text for text in everything if warehouse.secret in text]


@pytest.mark.server
def test_a_wrong_password_is_an_error_that_does_not_show_it(
    lake: Lake, snowflake: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody listens at that port."""
    monkeypatch.setenv("SNOWFLAKE_PORT", "9")
    monkeypatch.setenv("SNOWFLAKE_PASSWORD", "hunter2-is-not-shown")
    with shop(lake, snowflake) as (replica, _):
        result = lake.run(upserted(MANY), replica, expect_success=False)
    assert "Snowflake" in failure_text(result)
    everything = "".join(entry.to_json() for entry in lake.instance.all_logs(result.run_id))
    assert "hunter2" not in everything


def test_the_shipped_replicas_are_there_where_the_environment_names_their_warehouses(
    named: Callable[[dict[str, str]], None], tmp_path: Path
) -> None:
    key = tmp_path / "key.json"
    named(
        {
            "DWH_MOTHERDUCK_DATABASE": "lakehouse",
            "DWH_SNOWFLAKE_DATABASE": "LAKEHOUSE",
            "SNOWFLAKE_ACCOUNT": "somebody",
            "SNOWFLAKE_USER": "somebody",
            "SNOWFLAKE_PASSWORD": "hunter2",
            "DWH_BIGQUERY_PROJECT": "a-project",
            "GOOGLE_APPLICATION_CREDENTIALS": str(key),
        }
    )
    definitions = defs()
    keys = {
        spec.key.path[0] for spec in definitions.resolve_all_asset_specs() if spec.key.path[-1] == "flights"
    }
    assert keys == {"iceberg", "duckdb", "motherduck", "snowflake", "bigquery"}
    dg.Definitions.validate_loadable(definitions)
    resources = definitions.resources or {}
    assert "hunter2" not in str(resources["snowflake"])
