"""What a materialization says in the Dagster UI, and what the snapshot itself remembers."""

from collections.abc import Iterator
from typing import Any

import dagster as dg
import pyarrow as pa
from dagster import DagsterEventType
from pyiceberg.table.snapshots import Operation

from dwh_assets.iceberg.commit import commit
from dwh_assets.iceberg.snapshot import Change
from dwh_tests.orchestration.lake import Lake, materializations, written_by

TABLE = "shop.orders"
ROWS = pa.table({"id": [1, 2, 3], "place": ["eu", "eu", "us"]})
REGIONS = dg.StaticPartitionsDefinition(["eu", "us", "apac"])


def values(event: dg.AssetMaterialization) -> dict[str, Any]:
    return {name: value.value for name, value in event.metadata.items()}


def test_ids_are_text_and_numbers_are_numbers(lake: Lake) -> None:
    orders = written_by(lambda _: ROWS, write_mode="overwrite")
    (first,) = materializations(lake.run(orders), TABLE)
    (second,) = materializations(lake.run(orders), TABLE)
    older, newer = lake.snapshots(TABLE)
    files = lake.files(TABLE)

    assert isinstance(second.metadata["dwh/snapshot_id"], dg.TextMetadataValue)
    assert isinstance(second.metadata["dwh/parent_snapshot_id"], dg.TextMetadataValue)
    assert values(first)["dwh/parent_snapshot_id"] == "none"
    found = values(second)
    expected = {
        "dwh/snapshot_id": str(newer["snapshot-id"]),
        "dwh/parent_snapshot_id": str(older["snapshot-id"]),
        "dwh/logical_snapshot_id": str(newer["snapshot-id"]),
        "dwh/operation": "overwrite",
        "dwh/rows_added": 3,
        "dwh/rows_updated": 0,
        "dwh/rows_removed": 3,
        "dwh/files_added": 1,
        "dwh/files_removed": 1,
        "dwh/bytes_added": sum(map(len, files.values())),
        "dwh/total_bytes": sum(map(len, files.values())),
        "dagster/row_count": 3,
        "dagster/table_name": TABLE,
        "dagster/uri": lake.metadata(TABLE)["location"],
    }
    assert {name: found[name] for name in expected} == expected
    assert isinstance(second.metadata["dwh/summary"], dg.MarkdownMetadataValue)
    assert str(newer["snapshot-id"]) in found["dwh/summary"]


def test_the_data_version_is_the_snapshot(lake: Lake) -> None:
    """Pins `step_context.set_data_version`, which is half public."""
    orders = written_by(lambda _: ROWS)
    (event,) = materializations(lake.run(orders), TABLE)
    assert event.tags is not None
    assert event.tags["dagster/data_version"] == str(lake.snapshots(TABLE)[-1]["snapshot-id"])
    assert event.tags["dagster/data_version_is_user_provided"] == "true"
    latest = lake.instance.get_latest_materialization_event(dg.AssetKey(["iceberg", "shop", "orders"]))
    assert latest is not None
    assert latest.asset_materialization == event


def test_each_partition_of_a_single_run_has_the_version_and_a_count_of_its_own(lake: Lake) -> None:
    """Pins `step_context.add_asset_metadata` with a partition key, which is half public."""

    def compute(context: dg.AssetExecutionContext) -> pa.Table:
        places = [place for place in ("eu", "eu", "us") if place in context.partition_keys]
        return pa.table({"place": pa.array(places, pa.string())})

    orders = written_by(compute, partitions=REGIONS, write_mode="overwrite", partition_expr="place")
    found = materializations(lake.run(orders, between=("eu", "apac")), TABLE)
    assert {event.partition: values(event)["dagster/partition_row_count"] for event in found} == {
        "eu": 2,
        "us": 1,
        "apac": 0,
    }
    assert {values(event)["dagster/row_count"] for event in found} == {3}
    (snapshot,) = lake.snapshots(TABLE)
    assert {(event.tags or {})["dagster/data_version"] for event in found} == {str(snapshot["snapshot-id"])}

    (alone,) = materializations(lake.run(orders, partition="us"), TABLE)
    assert (alone.partition, values(alone)["dagster/partition_row_count"]) == ("us", 1)
    assert values(alone)["dagster/row_count"] == 3


def test_a_run_that_writes_nothing_keeps_the_version(lake: Lake) -> None:
    (first,) = materializations(lake.run(written_by(lambda _: ROWS)), TABLE)
    (second,) = materializations(lake.run(written_by(lambda _: ROWS.slice(0, 0))), TABLE)
    assert (first.tags or {})["dagster/data_version"] == (second.tags or {})["dagster/data_version"]
    assert values(second)["dwh/operation"] == "none"
    assert values(second)["dagster/row_count"] == 3
    assert len(lake.snapshots(TABLE)) == 1


def test_a_snapshot_that_changed_no_row_does_not_make_a_new_version(lake: Lake) -> None:
    """Compaction commits a snapshot of its own; the version stays that of the rows."""
    lake.run(written_by(lambda _: ROWS))
    table = lake.iceberg.load_table(TABLE)
    committed = commit(lake.iceberg.catalog, table, lambda _: Change(operation=Operation.REPLACE))
    assert committed is not None
    written, replaced = lake.snapshots(TABLE)
    assert replaced["summary"]["operation"] == "replace"

    (event,) = materializations(lake.run(written_by(lambda _: ROWS.slice(0, 0))), TABLE)
    assert values(event)["dwh/snapshot_id"] == str(replaced["snapshot-id"])
    assert (event.tags or {})["dagster/data_version"] == str(written["snapshot-id"])


def test_columns_have_types_descriptions_and_constraints(lake: Lake) -> None:
    orders = written_by(
        lambda _: ROWS,
        key_columns=["id"],
        columns={"id": {"description": "Number of the order.", "type": "int"}, "place": {"required": True}},
    )
    (event,) = materializations(lake.run(orders), TABLE)
    schema = values(event)["dagster/column_schema"]
    assert isinstance(schema, dg.TableSchema)
    number, place = schema.columns
    assert (number.name, number.type, number.description) == ("id", "int", "Number of the order.")
    assert (number.constraints.nullable, number.constraints.unique) == (False, True)
    assert (place.name, place.type, place.description) == ("place", "string", None)
    assert (place.constraints.nullable, place.constraints.unique) == (False, False)


def test_a_key_of_two_columns_is_unique_in_neither(lake: Lake) -> None:
    orders = written_by(lambda _: ROWS, key_columns=["id", "place"])
    (event,) = materializations(lake.run(orders), TABLE)
    for column in values(event)["dagster/column_schema"].columns:
        assert not column.constraints.unique
        assert column.constraints.other == ["part of the key"]


def test_the_snapshot_remembers_run_partition_and_the_versions_that_it_was_made_from(lake: Lake) -> None:
    @dg.asset(
        key=["iceberg", "shop", "report"],
        ins={name: dg.AssetIn(key=["iceberg", "shop", name]) for name in ("orders", "prices")},
        io_manager_key="iceberg_io_manager",
        partitions_def=REGIONS,
        metadata={"partition_expr": "place"},
    )
    def report(context: dg.AssetExecutionContext, orders: pa.Table, prices: pa.Table) -> pa.Table:
        return pa.table({"place": [context.partition_key], "rows": [orders.num_rows + prices.num_rows]})

    orders = written_by(lambda _: ROWS)
    prices = written_by(lambda _: ROWS, table="shop.prices")
    lake.run(orders, prices)
    lake.run(orders)
    result = lake.run(orders, prices, report, select=[report], partition="us")

    (snapshot,) = lake.snapshots("shop.report")
    summary = snapshot["summary"]
    assert summary["dwh.run-id"] == result.run_id
    assert summary["dwh.partition-key"] == "us"
    assert summary["dwh.asset-key"] == "iceberg/shop/report"
    assert summary["dwh.input.shop.orders"] == str(lake.snapshots("shop.orders")[-1]["snapshot-id"])
    assert summary["dwh.input.shop.prices"] == str(lake.snapshots("shop.prices")[-1]["snapshot-id"])


def test_both_outputs_of_a_step_remember_what_it_read(lake: Lake) -> None:
    @dg.multi_asset(
        ins={"orders": dg.AssetIn(key=["iceberg", "shop", "orders"])},
        outs={
            name: dg.AssetOut(key=["iceberg", "shop", name], io_manager_key="iceberg_io_manager")
            for name in ("small", "large")
        },
    )
    def split(orders: pa.Table) -> Iterator[dg.Output[pa.Table]]:
        yield dg.Output(orders.slice(0, 1), output_name="small")
        yield dg.Output(orders.slice(1), output_name="large")

    lake.run(written_by(lambda _: ROWS), split)
    read = str(lake.snapshots("shop.orders")[-1]["snapshot-id"])
    for name in ("small", "large"):
        (snapshot,) = lake.snapshots(f"shop.{name}")
        assert snapshot["summary"]["dwh.input.shop.orders"] == read


def test_a_step_that_is_retried_remembers_what_the_last_attempt_read(lake: Lake) -> None:
    attempts: list[int] = []

    @dg.asset(
        key=["iceberg", "shop", "report"],
        ins={"orders": dg.AssetIn(key=["iceberg", "shop", "orders"])},
        io_manager_key="iceberg_io_manager",
        retry_policy=dg.RetryPolicy(max_retries=1),
    )
    def report(context: dg.AssetExecutionContext, orders: pa.Table) -> pa.Table:
        attempts.append(orders.num_rows)
        if context.retry_number == 0:
            lake.iceberg.load_table(TABLE).append(ROWS)
            raise RuntimeError("lost connection")
        return orders

    lake.run(written_by(lambda _: ROWS), report)
    assert attempts == [3, 6]
    (snapshot,) = lake.snapshots("shop.report")
    assert snapshot["summary"]["dwh.input.shop.orders"] == str(lake.snapshots(TABLE)[-1]["snapshot-id"])


def test_what_was_read_is_an_observation_of_the_input(lake: Lake) -> None:
    @dg.asset(
        key=["iceberg", "shop", "report"],
        ins={"orders": dg.AssetIn(key=["iceberg", "shop", "orders"])},
        io_manager_key="iceberg_io_manager",
    )
    def report(orders: pa.Table) -> pa.Table:
        return orders

    result = lake.run(written_by(lambda _: ROWS), report)
    (observed,) = [
        event.asset_observation_data.asset_observation
        for event in result.all_events
        if event.event_type == DagsterEventType.ASSET_OBSERVATION
    ]
    assert observed.asset_key == dg.AssetKey(["iceberg", "shop", "orders"])
    assert observed.metadata["dwh/snapshot_id"].value == str(lake.snapshots(TABLE)[-1]["snapshot-id"])
