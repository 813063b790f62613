"""A replica through Dagster: synced to a snapshot, described, and read as an input."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from pyiceberg.table import DataScan

from dwh_assets.iceberg.refs import create_tag
from dwh_assets.orchestration.resources import LedgerResource
from dwh_assets.versioning.releases import create_release
from dwh_tests.orchestration.lake import Lake, failure_text, written_by

ROWS = pa.table({"id": [1, 2, 3], "place": ["eu", None, "us"]})
REPLICA = dg.AssetKey(["duckdb", "shop", "orders"])


def replica_of(
    then: Callable[[], object] = lambda: None, key: dg.AssetKey = REPLICA, **metadata: Any
) -> dg.AssetsDefinition:
    """Return a replica's asset that does something between reading which snapshot there is, and the sync."""

    @dg.asset(
        key=key,
        ins={"table": dg.AssetIn(key=["iceberg", "shop", "orders"], dagster_type=DataScan)},
        metadata={"table": "shop.orders", "into": "mart.orders", **metadata},
        io_manager_key="duckdb_replica_io_manager",
    )
    def replica(table: DataScan) -> DataScan:
        then()
        return table

    made: dg.AssetsDefinition = replica
    return made


replica = replica_of()


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


# --- What a sync tells ---


def _told(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    return {name: value.value for name, value in _event(result).metadata.items()}


def test_a_sync_of_what_changed_is_told_by_its_rows(shop: Lake) -> None:
    def upserted(rows: pa.Table) -> dg.AssetsDefinition:
        return written_by(lambda _: rows, write_mode="upsert", key_columns=["id"])

    many = pa.table({"id": range(100), "place": ["eu"] * 100})
    shop.run(upserted(many), replica)
    changed = pa.table({"id": [7, 8, 100], "place": ["us", "us", "us"]})
    told = _told(shop.run(upserted(changed), replica))
    assert (told["dwh/operation"], told["dwh/mode"]) == ("incremental", "copy")
    assert (told["dwh/rows_added"], told["dwh/rows_updated"], told["dwh/rows_removed"]) == (1, 2, 0)
    assert told["dagster/row_count"] == 101
    assert "rows changed since snapshot" in told["dwh/reason"]
    assert told["dwh/statements"] > 0
    assert told["dwh/bytes_added"] > 0
    assert "1 rows in, 2 updated, 0 out" in told["dwh/summary"]
    assert [row for row in _held(shop) if row[1] == "us"] == [(7, "us"), (8, "us"), (100, "us")]


def test_how_far_the_table_is_ahead_afterwards_is_told(shop: Lake) -> None:
    orders = written_by(lambda _: ROWS)
    told = _told(shop.run(orders, replica))
    assert (told["dwh/lag_versions"], told["dwh/lag_minutes"]) == (0, 0)

    def meanwhile() -> None:
        for _ in range(2):
            shop.fill("shop.orders", ROWS)

    told = _told(shop.run(orders, replica_of(meanwhile)))
    held, *_, head = shop.snapshots("shop.orders")[-3:]
    assert told["dwh/snapshot_id"] == str(held["snapshot-id"])
    assert told["dwh/lag_versions"] == 2
    minutes = (head["timestamp-ms"] - held["timestamp-ms"]) / 60_000
    assert told["dwh/lag_minutes"] == pytest.approx(minutes, abs=0.001)


def test_what_a_replica_holds_is_kept_from_expiry_so_long_as_it_is_declared(shop: Lake) -> None:
    before = datetime.now(UTC)
    shop.run(written_by(lambda _: ROWS), replica_of(pin_days=3))
    shop.run(written_by(lambda _: ROWS), replica_of(pin_days=3))
    (pin,) = shop.ledger.ledger.pins("shop.orders")
    assert pin.snapshot_id == shop.snapshots("shop.orders")[-1]["snapshot-id"]
    assert pin.until is not None
    assert before + timedelta(days=3) <= pin.until <= datetime.now(UTC) + timedelta(days=3)


def test_a_lake_without_a_ledger_is_replicated_all_the_same(
    shop: Lake, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One on an object store, where nobody has named a ledger."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DWH_WAREHOUSE", "s3://bucket/lake")
    monkeypatch.setenv("DWH_LEDGER_URL", "")
    shop.ledger = LedgerResource()
    shop.replicate()
    result = shop.run(written_by(lambda _: ROWS), replica)
    assert _held(shop) == [(1, "eu"), (2, None), (3, "us")]
    said = [entry.user_message for entry in shop.instance.all_logs(result.run_id)]
    assert any("nothing keeps what this replica holds" in one for one in said)


def test_a_ledger_that_cannot_be_opened_is_an_error_before_any_row_is_loaded(shop: Lake) -> None:
    shop.ledger = LedgerResource(url="nosuchdatabase://somewhere")
    shop.replicate()
    result = shop.run(written_by(lambda _: ROWS), replica, expect_success=False)
    assert "The ledger cannot be opened" in failure_text(result)
    assert not shop.database.exists()


# --- What is declared ---


def test_what_is_declared_reaches_the_warehouse(shop: Lake) -> None:
    shop.run(written_by(lambda _: ROWS), replica_of(indexes=[["id"], ["place", "id"]], mode="append_only"))
    with duckdb.connect(str(shop.database), read_only=True) as connection:
        indexes = connection.execute("SELECT expressions FROM duckdb_indexes() ORDER BY ALL").fetchall()
        modes = connection.execute("SELECT mode FROM main._dwh_replicas").fetchall()
    assert [text for (text,) in indexes] == ["[id]", "[place, id]"]
    assert modes == [("append_only",)]


def test_a_wrong_declaration_names_the_asset_and_the_attribute(shop: Lake) -> None:
    result = shop.run(written_by(lambda _: ROWS), replica_of(pin_days="a week"), expect_success=False)
    assert "duckdb/shop/orders: pin_days is 'a week'" in failure_text(result)


def test_an_input_is_read_where_columns_have_values(shop: Lake) -> None:
    read: list[Any] = []

    def reader(name: str, where: Any) -> dg.AssetsDefinition:
        @dg.asset(name=name, ins={"rows": dg.AssetIn(key=REPLICA, metadata={"where": where})})
        def read_some(rows: pa.Table) -> None:
            read.append(rows["id"].to_pylist())

        made: dg.AssetsDefinition = read_some
        return made

    shop.run(
        written_by(lambda _: ROWS), replica, reader("eu", {"place": "eu"}), reader("no", {"place": None})
    )
    assert sorted(read) == [[1], [2]]
    text = reader("text", "place = 'eu'")
    result = shop.run(written_by(lambda _: ROWS), replica, text, expect_success=False)
    assert "cannot be read where \"place = 'eu'\"" in failure_text(result)


# --- A replica that stays where it is ---


AT = dg.AssetKey(["duckdb", "shop", "orders_q3"])
at_q3 = replica_of(key=AT, at="q3", into="q3.orders")


def _at_q3(shop: Lake) -> list[int]:
    with duckdb.connect(str(shop.database), read_only=True) as connection:
        return [row[0] for row in connection.execute("SELECT id FROM q3.orders ORDER BY id").fetchall()]


def test_a_replica_stays_at_a_tag(shop: Lake) -> None:
    orders = written_by(lambda _: ROWS)
    shop.run(orders)
    create_tag(shop.iceberg.catalog, shop.iceberg.load_table("shop.orders"), "q3")
    tagged = shop.snapshots("shop.orders")[-1]["snapshot-id"]
    shop.run(orders, at_q3, replica)
    result = shop.run(orders, at_q3, replica)
    (event,) = [e for e in result.get_asset_materialization_events() if e.asset_key == AT]
    told = event.step_materialization_data.materialization
    assert told.metadata["dwh/snapshot_id"].value == str(tagged)
    assert (told.tags or {})["dagster/data_version"] == str(tagged)
    assert _at_q3(shop) == [1, 2, 3]
    assert told.metadata["dwh/operation"].value == "none"
    assert told.metadata["dwh/lag_versions"].value == 2
    assert len(_held(shop)) == 9


def test_a_replica_stays_at_a_release_and_not_at_one_that_was_interrupted(shop: Lake) -> None:
    orders = written_by(lambda _: ROWS)
    shop.run(orders)
    catalog, ledger = shop.iceberg.catalog, shop.ledger.ledger
    create_release(catalog, ledger, "q3")
    shop.run(orders, at_q3)
    assert _at_q3(shop) == [1, 2, 3]
    ledger.mark("release/q3", "shop.orders", "pending")
    ledger.end("release/q3")
    result = shop.run(orders, at_q3, expect_success=False)
    assert "'q3' was interrupted" in failure_text(result)


def test_a_run_of_the_past_does_not_move_a_replica_that_stays(shop: Lake) -> None:
    orders = written_by(lambda _: ROWS)
    shop.run(orders)
    first = shop.snapshots("shop.orders")[0]["snapshot-id"]
    shop.run(orders)
    create_tag(shop.iceberg.catalog, shop.iceberg.load_table("shop.orders"), "q3")
    shop.run(orders, at_q3, select=[at_q3], tags={"dwh/as_of": str(first)})
    assert len(_at_q3(shop)) == 6


def test_a_version_that_nobody_has_named_is_an_error(shop: Lake) -> None:
    result = shop.run(written_by(lambda _: ROWS), at_q3, expect_success=False)
    assert "shop.orders has no tag 'q3'" in failure_text(result)
