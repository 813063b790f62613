"""Every attribute of a replica reaches the place that it is about; it follows its table when rows changed."""

from collections.abc import Iterator
from typing import Any

import dagster as dg
import duckdb
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest

from dwh_tests.components import computed
from dwh_tests.components.project import COMPUTED, loaded, table
from dwh_tests.orchestration.lake import QUIET, Lake
from dwh_tests.warehouses.lake import commit_replace

TABLE, REPLICA = dg.AssetKey(["iceberg", "shop", "orders"]), dg.AssetKey(["duckdb", "shop", "orders"])


def declared(*replicas: str, more: str = "") -> str:
    listed = "".join(f"\n    - {one}" for one in replicas)
    return f"""\
type: dwh_assets.components.IcebergTable
attributes:
  table: shop.orders
  compute: {COMPUTED}.orders
  owners: ["team:shop"]
  tags: {{layer: gold}}
  {more}
  replicas:{listed}
"""


def assets_of(definitions: dg.Definitions) -> dict[str, dg.AssetsDefinition]:
    assets = [one for one in definitions.assets or [] if isinstance(one, dg.AssetsDefinition)]
    return {key.to_user_string(): one for one in assets for key in one.keys if key != TABLE}


def test_each_warehouse_has_an_asset_an_io_manager_and_a_pool_of_its_own() -> None:
    replicas = [
        "{warehouse: duckdb}",
        "{warehouse: motherduck, into: mart.orders}",
        "{warehouse: snowflake, resource: eu_snowflake}",
        "{warehouse: bigquery}",
    ]
    with loaded(declared(*replicas)) as definitions:
        found = {
            key: (one.get_io_manager_key_for_asset_key(dg.AssetKey(key.split("/"))), one.op.pool)
            for key, one in assets_of(definitions).items()
        }
        kinds = {key: table(definitions, *key.split("/")).kinds for key in found}
        into = {key: table(definitions, *key.split("/")).metadata["into"] for key in found}
    assert found == {
        "duckdb/shop/orders": ("duckdb_replica_io_manager", "duckdb/duckdb"),
        "motherduck/shop/orders": ("motherduck_replica_io_manager", "motherduck/motherduck/mart.orders"),
        "snowflake/shop/orders": ("eu_snowflake_replica_io_manager", "snowflake/eu_snowflake/shop.orders"),
        "bigquery/shop/orders": ("bigquery_replica_io_manager", "bigquery/bigquery/shop.orders"),
    }
    assert kinds == {key: {key.split("/")[0]} for key in found}
    assert set(into.values()) == {"shop.orders", "mart.orders"}


def test_what_is_declared_is_metadata_and_what_is_not_is_left_out() -> None:
    full = (
        "{warehouse: bigquery, mode: copy, cluster_by: [place], partition_by: {field: at, transform: month}, "
        "nested: json, wide_decimals: text, nanoseconds: truncate, dropped_columns: keep, "
        "create_table: false, pin_days: 3, parity: full}"
    )
    with loaded(declared(full, "{warehouse: duckdb, indexes: [[id], [place, id]]}")) as definitions:
        found, plain = (
            {name: value for name, value in table(definitions, kind, "shop", "orders").metadata.items()
             if not name.startswith("dagster/")}
            for kind in ("bigquery", "duckdb")
        )  # fmt: skip
    assert found == {
        "table": "shop.orders",
        "into": "shop.orders",
        "cluster_by": ["place"],
        "partition_by": {"field": "at", "transform": "month"},
        "nested": "json",
        "wide_decimals": "text",
        "nanoseconds": "truncate",
        "dropped_columns": "keep",
        "create_table": False,
        "pin_days": 3.0,
        "parity": "full",
    }
    assert plain == {"table": "shop.orders", "into": "shop.orders", "indexes": [["id"], ["place", "id"]]}


def test_several_replicas_in_one_warehouse_have_names() -> None:
    replicas = ["{warehouse: duckdb}", "{warehouse: duckdb, name: orders_q3, at: q3, into: q3.orders}"]
    with loaded(declared(*replicas)) as definitions:
        assert set(assets_of(definitions)) == {"duckdb/shop/orders", "duckdb/shop/orders_q3"}
        spec = table(definitions, "duckdb", "shop", "orders_q3")
        assert (spec.metadata["at"], spec.metadata["into"]) == ("q3", "q3.orders")
        assert "kept at q3" in str(spec.description)
        (asset,) = [one for key, one in assets_of(definitions).items() if key.endswith("q3")]
        assert asset.op.ins["table"].metadata == {"tag": "q3"}
        job = definitions.resolve_job_def("shop_orders")
        assert dg.AssetKey(["duckdb", "shop", "orders_q3"]) in job.asset_layer.selected_asset_keys


def test_a_replica_is_there_where_the_environment_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    yaml = declared("{warehouse: duckdb}", "{warehouse: snowflake, when_env: DWH_SNOWFLAKE_DATABASE}")
    for value, there in (
        ("", {"duckdb/shop/orders"}),
        ("LAKE", {"duckdb/shop/orders", "snowflake/shop/orders"}),
    ):
        monkeypatch.setenv("DWH_SNOWFLAKE_DATABASE", value)
        with loaded(yaml) as definitions:
            assert set(assets_of(definitions)) == there
            assert {key.asset_key.to_user_string() for key in _checks(definitions)} - {
                TABLE.to_user_string()
            } == there


def _checks(definitions: dg.Definitions) -> list[dg.AssetCheckKey]:
    return [key for check in definitions.asset_checks or [] for key in check.check_keys]


def test_a_replica_of_a_branch_says_so() -> None:
    with loaded(declared("{warehouse: duckdb}", more="branch: trial")) as definitions:
        assert table(definitions, "duckdb", "shop", "orders").metadata["branch"] == "trial"


def test_a_schedule_verifies_and_does_nothing_else() -> None:
    replicas = ["{warehouse: duckdb, verify_schedule: 0 3 * * *}", "{warehouse: snowflake}"]
    with loaded(declared(*replicas)) as definitions:
        (schedule,) = definitions.schedules or []
        assert isinstance(schedule, dg.ScheduleDefinition)
        assert (schedule.name, schedule.cron_schedule) == ("verify_duckdb_shop_orders", "0 3 * * *")
        layer = definitions.resolve_job_def("verify_duckdb_shop_orders").asset_layer
        assert layer.selected_asset_keys == set()
        assert {key.to_user_string() for key in layer.asset_graph.asset_check_keys} == {
            "duckdb/shop/orders:parity"
        }


def test_changes_are_not_compared_with_rows() -> None:
    with loaded(declared("{warehouse: duckdb, mode: append_only}")) as definitions:
        assert REPLICA not in {key.asset_key for key in _checks(definitions)}
        spec = table(definitions, "duckdb", "shop", "orders")
        assert "Changes of shop.orders" in str(spec.description)


# --- Automation ---


@pytest.fixture
def shop(lake: Lake) -> Lake:
    """A lake with a DuckDB file for its replicas."""
    lake.replicate()
    return lake


class Automated:
    """The orders and their replica, as `dagster dev` would run them."""

    def __init__(self, lake: Lake, definitions: dg.Definitions) -> None:
        self._lake, self._definitions = lake, definitions
        self._cursor: Any = None

    def run(self, *keys: dg.AssetKey) -> None:
        result = self._definitions.resolve_implicit_global_asset_job_def().execute_in_process(
            instance=self._lake.instance, asset_selection=list(keys), run_config=QUIET
        )
        assert result.success

    def requested(self) -> set[str]:
        """What automation would start now."""
        found = dg.evaluate_automation_conditions(self._definitions, self._lake.instance, cursor=self._cursor)
        self._cursor = found.cursor
        return {key.to_user_string() for key in (TABLE, REPLICA) if found.get_num_requested(key)}

    def status(self) -> StaleStatus:
        """What the UI says of the replica."""
        graph = self._definitions.resolve_asset_graph()
        loading = LoadingContextForTest(self._lake.instance)
        return CachingStaleStatusResolver(self._lake.instance, graph, loading).get_status(REPLICA)

    def report(self, version: str) -> None:
        """Report the table as materialized at a data version, as maintenance does after a commit."""
        self._lake.instance.report_runless_asset_event(
            dg.AssetMaterialization(TABLE, tags={"dagster/data_version": version})
        )


@pytest.fixture
def automated(shop: Lake) -> Iterator[Automated]:
    """The table and its replica, materialized; automation has seen that."""
    computed.ARRIVING[:] = [{"id": 1}]
    yaml = declared("{warehouse: duckdb}", more="write_mode: overwrite").replace(
        f"{COMPUTED}.orders", f"{COMPUTED}.arriving"
    )
    with loaded(yaml, shop.resources) as definitions:
        there = Automated(shop, definitions)
        there.run(TABLE, REPLICA)
        there.requested()
        yield there
    computed.ARRIVING.clear()


def test_a_change_of_rows_is_followed(automated: Automated, shop: Lake) -> None:
    assert automated.requested() == set()
    assert automated.status() == StaleStatus.FRESH
    computed.ARRIVING[:] = [{"id": 2}]
    automated.run(TABLE)
    assert automated.status() == StaleStatus.STALE
    assert automated.requested() == {"duckdb/shop/orders"}
    automated.run(REPLICA)
    assert automated.status() == StaleStatus.FRESH
    assert automated.requested() == set()
    with duckdb.connect(str(shop.database), read_only=True) as connection:
        assert connection.execute("FROM shop.orders").fetchall() == [(2,)]


def test_a_compaction_is_not(automated: Automated, shop: Lake) -> None:
    (logical,) = (str(one["snapshot-id"]) for one in shop.snapshots("shop.orders"))
    commit_replace(shop.iceberg.catalog.load_table("shop.orders"))
    assert shop.snapshots("shop.orders")[-1]["summary"]["operation"] == "replace"
    assert automated.requested() == set()
    assert automated.status() == StaleStatus.FRESH
    automated.report(logical)
    assert automated.status() == StaleStatus.FRESH, "the same logical snapshot, of whatever event"
