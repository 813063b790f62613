"""Every attribute of a table's YAML reaches the place that it is about."""

import json
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster_duckdb import DuckDBResource

from dwh_assets import IcebergWriter
from dwh_assets.components import IcebergTable
from dwh_tests.components.project import COMPUTED, loaded, table
from dwh_tests.orchestration.lake import QUIET, Lake, failure_text

ROOT = Path(__file__).resolve().parents[2]
FULL = f"""
    # A comment, so that documents do not begin where lines are counted from.
    type: dwh_assets.components.IcebergTable
    attributes:
      table: shop.prices
      compute: {COMPUTED}.orders
    ---
    type: dwh_assets.components.IcebergTable
    attributes:
      table: shop.orders
      compute: {COMPUTED}.by_place
      description: One row an order.
      write_mode: overwrite
      key_columns: [id, place]
      columns:
        id: {{description: Number of the order., type: int}}
        place: {{required: true}}
      partition_spec: [{{field: place}}, {{field: id, transform: "bucket[4]"}}]
      sort_order: [{{field: id, direction: desc, nulls: last}}]
      schema_evolution: {{mode: permissive}}
      table_properties: {{comment: ours, history.expire.min-snapshots-to-keep: "9"}}
      target_file_size_bytes: 1048576
      partitions: [{{column: place, keys: ["1", eu]}}]
      replicas: [{{warehouse: duckdb, into: mart.orders}}]
      policy: {{keep_snapshots: 3, snapshot_age_days: 0.5, metadata_versions: 7}}
      max_writers: 3
      owners: ["team:shop", ann@example.com]
      tags: {{layer: gold}}
      freshness: {{fail_after_hours: 72, warn_after_hours: 24}}
"""
ORDERS_AND_PRICES = f"""
        type: dwh_assets.components.IcebergTable
        attributes: {{table: shop.orders, compute: {COMPUTED}.orders}}
        ---
        type: dwh_assets.components.IcebergTable
        attributes: {{table: shop.prices, compute: {COMPUTED}.growing}}
""".strip()


@pytest.fixture
def shop(lake: Lake) -> Lake:
    """A lake that has a DuckDB file beside it."""
    lake.replicate()
    return lake


def run(
    shop: Lake, definitions: dg.Definitions, *keys: str, expect_success: bool = True, **options: Any
) -> dg.ExecuteInProcessResult:
    """Materialize assets of loaded definitions on the lake, with their checks."""
    job = definitions.resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(
        instance=shop.instance,
        asset_selection=[dg.AssetKey(key.split("/")) for key in keys],
        run_config={**QUIET, **options.pop("run_config", {})},
        raise_on_error=expect_success,
        **options,
    )
    assert result.success is expect_success
    return result


def test_a_declaration_becomes_the_table_asset() -> None:
    with loaded(FULL) as definitions:
        spec = table(definitions, "iceberg", "shop", "orders")
        assert spec.description == "One row an order."
        assert spec.group_name == "shop"
        assert set(spec.owners) == {"team:shop", "ann@example.com"}
        assert spec.kinds == {"iceberg"}
        assert spec.tags["layer"] == "gold"
        assert spec.partitions_def == dg.StaticPartitionsDefinition(["1", "eu"])
        assert spec.freshness_policy == dg.FreshnessPolicy.time_window(
            fail_window=timedelta(hours=72), warn_window=timedelta(hours=24)
        )
        assert spec.metadata["table"] == "shop.orders"
        assert spec.metadata["partition_expr"] == "place"
        assert spec.metadata["dwh/max_writers"] == 3
        (asset,) = [
            a for a in definitions.assets or [] if isinstance(a, dg.AssetsDefinition) and spec.key in a.keys
        ]
        assert asset.op.pool == "iceberg/shop.orders"
        assert asset.get_io_manager_key_for_asset_key(spec.key) == "iceberg_io_manager"
        assert asset.backfill_policy == dg.BackfillPolicy.multi_run(1)


def test_each_document_is_a_place_in_the_file() -> None:
    """Dagster keeps file and line of every asset; runs that fail say them."""
    with loaded(FULL) as definitions:
        lines = {}
        for spec in definitions.resolve_all_asset_specs():
            reference = spec.metadata["dagster/code_references"].code_references[-1]
            assert reference.file_path.endswith("defs.yaml")
            lines[spec.key.to_user_string()] = reference.line_number
    assert lines == {"iceberg/shop/prices": 2, "iceberg/shop/orders": 7, "duckdb/shop/orders": 7}


def test_a_declaration_becomes_replica_checks_and_job() -> None:
    with loaded(FULL) as definitions:
        replica = table(definitions, "duckdb", "shop", "orders")
        assert [dep.asset_key for dep in replica.deps] == [dg.AssetKey(["iceberg", "shop", "orders"])]
        assert replica.kinds == {"duckdb"}
        assert set(replica.owners) == {"team:shop", "ann@example.com"}
        assert replica.metadata["into"] == "mart.orders"
        assert replica.partitions_def is None

        checks = {
            key.to_user_string(): spec.blocking
            for asset in definitions.asset_checks or []
            for key, spec in zip(asset.check_keys, asset.check_specs, strict=True)
        }
        assert checks == {
            "iceberg/shop/prices:doctor": False,
            "iceberg/shop/orders:doctor": False,
            "iceberg/shop/orders:key_is_unique": False,
            "duckdb/shop/orders:parity": True,
        }
        job = definitions.resolve_job_def("shop_orders")
        assert {key.to_user_string() for key in job.asset_layer.asset_graph.asset_check_keys} == set(
            checks
        ) - {
            "iceberg/shop/prices:doctor",
            "iceberg/shop/orders:doctor",
        }
        assert {key.to_user_string() for key in job.asset_layer.selected_asset_keys} == {
            "iceberg/shop/orders",
            "duckdb/shop/orders",
        }


def test_a_declaration_becomes_the_iceberg_table(shop: Lake) -> None:
    with loaded(FULL, shop.resources) as definitions:
        run(shop, definitions, "iceberg/shop/orders", partition_key="eu")
    metadata = shop.metadata("shop.orders")
    (schema,) = metadata["schemas"]
    assert [(f["name"], f["type"], f["required"], f.get("doc")) for f in schema["fields"]] == [
        ("id", "int", True, "Number of the order."),
        ("place", "string", True, None),
    ]
    assert schema["identifier-field-ids"] == [1, 2]
    (spec,) = metadata["partition-specs"]
    assert [(f["source-id"], f["transform"]) for f in spec["fields"]] == [(2, "identity"), (1, "bucket[4]")]
    order = metadata["sort-orders"][-1]["fields"]
    assert [(f["source-id"], f["direction"], f["null-order"]) for f in order] == [(1, "desc", "nulls-last")]
    properties = metadata["properties"]
    assert properties["comment"] == "ours"
    assert properties["history.expire.min-snapshots-to-keep"] == "9", "what is said outright wins"
    assert properties["history.expire.max-snapshot-age-ms"] == "43200000"
    assert properties["write.metadata.previous-versions-max"] == "7"
    assert properties["write.metadata.delete-after-commit.enabled"] == "true"


def test_partitions_and_replica_hold_the_rows(shop: Lake) -> None:
    with loaded(FULL, shop.resources) as definitions:
        run(shop, definitions, "iceberg/shop/orders", partition_key="1")
        run(shop, definitions, "iceberg/shop/orders", partition_key="eu")
        result = run(shop, definitions, "iceberg/shop/orders", "duckdb/shop/orders", partition_key="1")
    assert shop.rows("shop.orders") == [{"id": 0, "place": "1"}, {"id": 0, "place": "eu"}]
    with DuckDBResource(database=str(shop.folder / "replicas.duckdb")).get_connection() as connection:
        assert connection.execute("SELECT * FROM mart.orders ORDER BY place").fetchall() == [
            (0, "1"),
            (0, "eu"),
        ]
    assert {check.check_name: check.passed for check in result.get_asset_check_evaluations()} == {
        "doctor": True,
        "key_is_unique": True,
        "parity": True,
    }


def test_inputs_previous_and_options_reach_the_function(shop: Lake) -> None:
    yaml = f"""
        {ORDERS_AND_PRICES}
        ---
        type: dwh_assets.components.IcebergTable
        attributes:
          table: mart.report
          compute: {COMPUTED}.report
          inputs:
            orders: {{table: shop.orders, columns: [id], where: id > 1}}
            prices: {{table: shop.prices}}
        ---
        type: dwh_assets.components.IcebergTable
        attributes: {{table: shop.first, compute: {COMPUTED}.with_an_option}}
        """
    with loaded(yaml, shop.resources) as definitions:
        run(shop, definitions, "iceberg/shop/orders", "iceberg/shop/prices", "iceberg/shop/first")
        run(shop, definitions, "iceberg/shop/prices")
        run(shop, definitions, "iceberg/mart/report")
    assert [row["id"] for row in shop.rows("shop.prices")] == [0, 1]
    assert shop.rows("mart.report") == [{"id": 2, "prices": 2}, {"id": 3, "prices": 2}]
    assert [row["id"] for row in shop.rows("shop.first")] == [1, 2]


def test_an_input_is_read_at_the_version_that_yaml_or_the_run_names(shop: Lake) -> None:
    yaml = f"""
        {ORDERS_AND_PRICES}
        ---
        type: dwh_assets.components.IcebergTable
        attributes:
          table: mart.report
          compute: {COMPUTED}.report
          write_mode: overwrite
          inputs:
            orders: {{table: shop.orders, where: id > 2}}
            prices: {{table: shop.prices, as_of: 1 version ago}}
        """
    with loaded(yaml, shop.resources) as definitions:
        run(shop, definitions, "iceberg/shop/orders")
        for _ in range(3):
            run(shop, definitions, "iceberg/shop/prices")
        run(shop, definitions, "iceberg/mart/report")
        assert [row["prices"] for row in shop.rows("mart.report")] == [2]
        pin = {"ops": {"iceberg__mart__report": {"inputs": {"prices": {"as_of": "2 versions ago"}}}}}
        run(shop, definitions, "iceberg/mart/report", run_config=pin)
        assert [row["prices"] for row in shop.rows("mart.report")] == [1]


def test_previous_is_the_table_of_the_moment_that_a_run_reads(shop: Lake) -> None:
    yaml = f"""
        type: dwh_assets.components.IcebergTable
        attributes: {{table: shop.prices, compute: {COMPUTED}.growing}}
        """
    with loaded(yaml, shop.resources) as definitions:
        for _ in range(3):
            run(shop, definitions, "iceberg/shop/prices")
        run(shop, definitions, "iceberg/shop/prices", tags={"dwh/as_of": "1 version ago"})
    refs = shop.metadata("shop.prices")["refs"]
    aside = refs["as-of-1-version-ago"]["snapshot-id"]
    written = shop.iceberg.load_table("shop.prices").scan(snapshot_id=aside)
    assert sorted(written.to_arrow()["id"].to_pylist()) == [0, 1, 2]
    assert [row["id"] for row in shop.rows("shop.prices")] == [0, 1, 2]


def test_templates_are_resolved_and_other_texts_stay_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_LAYER", "silver")
    monkeypatch.setenv("SHOP_WRITERS", "4")
    yaml = f"""
        type: dwh_assets.components.IcebergTable
        attributes:
          table: shop.orders
          compute: {COMPUTED}.by_place
          partitions: [{{column: place, keys: ["1", "02", "1.50", "true", "None", "2013-01-01"]}}]
          tags: {{layer: "{{{{ env.SHOP_LAYER }}}}"}}
          max_writers: "{{{{ env.SHOP_WRITERS }}}}"
        """
    with loaded(yaml) as definitions:
        spec = table(definitions, "iceberg", "shop", "orders")
    assert spec.tags["layer"] == "silver"
    assert spec.metadata["dwh/max_writers"] == 4
    assert spec.partitions_def is not None
    assert spec.partitions_def.get_partition_keys() == ["1", "02", "1.50", "true", "None", "2013-01-01"]


def test_a_dagster_partition_of_each_kind_can_be_declared() -> None:
    yaml = f"""
        type: dwh_assets.components.IcebergTable
        attributes:
          table: shop.orders
          compute: {COMPUTED}.by_place
          partitions: [%s]
        """
    cases = {
        "{column: at, every: hour, start: 2024-02-28, end: '2024-02-28T03:00'}": (
            ["2024-02-28-00:00", "2024-02-28-01:00", "2024-02-28-02:00"]
        ),
        "{column: at, every: day, start: 2024-02-28, end: 2024-03-01}": ["2024-02-28", "2024-02-29"],
        "{column: at, every: week, start: 2024-02-25, end: 2024-03-10}": ["2024-02-25", "2024-03-03"],
        "{column: at, every: month, start: 2023-12-01, end: 2024-02-01}": ["2023-12-01", "2024-01-01"],
        "{column: at, cron: '0 6,18 * * *', start: '2024-02-28T06:00', end: '2024-02-29T06:00'}": (
            ["2024-02-28-06:00", "2024-02-28-18:00"]
        ),
        "{column: at, keys: [b, a]}": ["b", "a"],
        "{column: at, name: day, every: day, start: 2024-02-28, end: 2024-03-01},"
        "{column: place, name: region, keys: [eu, us]}": (
            ["2024-02-28|eu", "2024-02-28|us", "2024-02-29|eu", "2024-02-29|us"]
        ),
    }
    for declared, keys in cases.items():
        with loaded(yaml % declared) as definitions:
            spec = table(definitions, "iceberg", "shop", "orders")
        assert spec.partitions_def is not None
        assert [str(key) for key in spec.partitions_def.get_partition_keys()] == keys

    with loaded(
        yaml % "{column: at, every: day, start: 2024-03-10, timezone: America/New_York}"
    ) as definitions:
        partitions = table(definitions, "iceberg", "shop", "orders").partitions_def
    assert isinstance(partitions, dg.TimeWindowPartitionsDefinition)
    window = partitions.time_window_for_partition_key("2024-03-10")
    assert window.end.timestamp() - window.start.timestamp() == 23 * 3600

    with loaded(yaml % "{column: at, dynamic: shops}") as definitions:
        partitions = table(definitions, "iceberg", "shop", "orders").partitions_def
    assert partitions == dg.DynamicPartitionsDefinition(name="shops")


@pytest.mark.parametrize(
    ("declared", "policy"),
    [("all", dg.BackfillPolicy.single_run()), ("5", dg.BackfillPolicy.multi_run(5))],
)
def test_a_backfill_computes_as_many_partitions_in_a_run_as_declared(
    declared: str, policy: dg.BackfillPolicy
) -> None:
    yaml = f"""
        type: dwh_assets.components.IcebergTable
        attributes:
          table: shop.orders
          compute: {COMPUTED}.by_place
          partitions: [{{column: place, keys: [eu]}}]
          partitions_per_run: {declared}
        """
    with loaded(yaml) as definitions:
        asset = definitions.resolve_asset_graph().assets_def_for_key(
            dg.AssetKey(["iceberg", "shop", "orders"])
        )
    assert asset.backfill_policy == policy


def test_a_key_column_that_the_data_lack_names_table_file_and_line_when_it_is_written(shop: Lake) -> None:
    yaml = f"""
        type: dwh_assets.components.IcebergTable
        attributes: {{table: shop.prices, compute: {COMPUTED}.orders}}
        ---
        type: dwh_assets.components.IcebergTable
        attributes: {{table: shop.orders, compute: {COMPUTED}.orders, key_columns: [number]}}
        """
    with loaded(yaml, shop.resources) as definitions:
        result = run(shop, definitions, "iceberg/shop/orders", expect_success=False)
    text = failure_text(result).replace("\\", "/")
    assert "shop.orders: column 'number' is declared, but the data have only id, place" in text
    assert "shop/defs.yaml:4" in text


def test_an_error_of_ours_in_a_function_names_the_declaration_too(shop: Lake) -> None:
    yaml = f"""
        type: dwh_assets.components.IcebergTable
        attributes:
          table: shop.orders
          compute: {COMPUTED}.of_one_window
          partitions: [{{column: place, keys: [eu]}}]
        """
    with loaded(yaml, shop.resources) as definitions:
        result = run(shop, definitions, "iceberg/shop/orders", partition_key="eu", expect_success=False)
    text = failure_text(result).replace("\\", "/")
    assert "0 time windows" in text
    assert "shop/defs.yaml:1" in text


def test_a_run_without_a_partition_does_not_reach_the_function(shop: Lake) -> None:
    with loaded(FULL, shop.resources) as definitions:
        result = run(shop, definitions, "iceberg/shop/orders", expect_success=False)
    assert "selects none of them" in failure_text(result)
    assert not shop.exists("shop.orders")


def test_every_attribute_has_a_description() -> None:
    model = IcebergTable.get_model_cls()
    schema = model.model_json_schema()
    places = {"": schema, **schema["$defs"]}
    found = {
        f"{name}.{attribute}": described.get("description")
        for name, place in places.items()
        for attribute, described in place.get("properties", {}).items()
    }
    assert not [attribute for attribute, description in found.items() if not description]
    assert {".table", ".partitions", "Column.type", "PartitionDimension.every", "Replica.into"} <= set(found)
    assert all(place.get("additionalProperties") is False for place in places.values())


def dg_says(*arguments: str) -> str:
    """What the command `dg` prints."""
    command = [sys.executable, "-m", "dagster_dg_cli.cli", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_dg_lists_the_component_with_its_summary() -> None:
    items = json.loads(dg_says("list", "components", "--json"))["items"]
    listed = {item["key"]: item["summary"] for item in items}
    assert listed["dwh_assets.components.IcebergTable"] == (IcebergTable.__doc__ or "").partition("\n")[0]


def test_dg_shows_the_capabilities_of_the_writer() -> None:
    component = "dwh_assets.components.IcebergTable"
    schema = json.loads(dg_says("utils", "inspect-component", component, "--defs-yaml-json-schema"))
    told = schema["properties"]["attributes"]["x-capabilities"]
    assert told == IcebergWriter.capabilities.as_dict()
    assert set(told["modes"]) == {"append", "overwrite", "upsert", "merge"}
    described = dg_says("utils", "inspect-component", component, "--description")
    assert str(IcebergWriter.capabilities) in described
    assert {*told["modes"], *told["features"]} == set(IcebergTable.get_spec().tags)
