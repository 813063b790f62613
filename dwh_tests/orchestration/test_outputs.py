"""What an asset returns becomes one snapshot, once, or nothing changes."""

from collections.abc import Callable, Iterator
from typing import Any

import dagster as dg
import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from pyiceberg.table import Table

from dwh_assets.orchestration import step
from dwh_tests.orchestration.lake import Lake, failure_text, materializations, step_failure, written_by

ROWS = pa.table({"id": [1, 2, 3], "place": ["eu", None, "us"]})
EXPECTED = [{"id": 1, "place": "eu"}, {"id": 2, "place": None}, {"id": 3, "place": "us"}]
REGIONS = dg.StaticPartitionsDefinition(["eu", "us"])
TABLE = "shop.orders"


def _relation() -> duckdb.DuckDBPyRelation:
    connection = duckdb.connect()
    connection.register("arriving", ROWS)
    return connection.sql("SELECT * FROM arriving")


RETURNED: dict[str, Callable[[], Any]] = {
    "pyarrow.Table": lambda: ROWS,
    "pyarrow.RecordBatch": lambda: ROWS.to_batches()[0],
    "pyarrow.RecordBatchReader": lambda: ROWS.to_reader(max_chunksize=1),
    "pyarrow.Dataset": lambda: ds.dataset(ROWS),
    "an iterator of batches": lambda: iter(ROWS.to_batches(max_chunksize=2)),
    "pandas.DataFrame": lambda: pd.DataFrame({"id": [1, 2, 3], "place": ["eu", None, "us"]}),
    "polars.DataFrame": lambda: pl.DataFrame({"id": [1, 2, 3], "place": ["eu", None, "us"]}),
    "polars.LazyFrame": lambda: pl.LazyFrame({"id": [1, 2, 3], "place": ["eu", None, "us"]}),
    "duckdb.DuckDBPyRelation": _relation,
}


@pytest.mark.parametrize("returned", RETURNED.values(), ids=RETURNED)
def test_whatever_holds_rows_may_be_returned(lake: Lake, returned: Callable[[], Any]) -> None:
    lake.run(written_by(lambda _: returned(), write_mode="overwrite"))
    assert lake.rows(TABLE) == EXPECTED


def test_a_scan_of_another_table_may_be_returned(lake: Lake) -> None:
    lake.run(written_by(lambda _: ROWS, table="shop.source"))
    lake.run(written_by(lambda _: lake.iceberg.load_table("shop.source").scan(row_filter="id < 3")))
    assert lake.rows(TABLE) == EXPECTED[:2]


@pytest.mark.parametrize("returned", [42, "rows", {"id": [1]}, [1, 2]], ids=["int", "str", "dict", "list"])
def test_what_holds_no_rows_is_refused_once(lake: Lake, returned: Any) -> None:
    attempts: list[int] = []

    def compute(context: dg.AssetExecutionContext) -> Any:
        attempts.append(context.retry_number)
        return returned

    orders = written_by(compute, retry_policy=dg.RetryPolicy(max_retries=3))
    result = lake.run(orders, expect_success=False)
    assert attempts == [0], "the same data fail the same way"
    assert "Arrow" in failure_text(result)
    assert not lake.exists(TABLE)


# --- Retries ---


def crashing_after_its_write(crashes: list[Exception], **settings: Any) -> dg.AssetsDefinition:
    """An asset whose step goes on after its output is stored; it ends with the next of `crashes`, if any."""

    @dg.asset(key=["iceberg", "shop", "orders"], io_manager_key="iceberg_io_manager", **settings)
    def orders() -> Iterator[dg.Output[pa.Table]]:
        yield dg.Output(ROWS)
        if crashes:
            raise crashes.pop()

    asset: dg.AssetsDefinition = orders
    return asset


def test_a_step_that_asks_for_a_retry_after_its_write_writes_once(lake: Lake) -> None:
    result = lake.run(crashing_after_its_write([dg.RetryRequested(max_retries=1)]))
    assert [event.step_key for event in result.all_events if event.is_step_up_for_retry]
    assert lake.rows(TABLE) == EXPECTED
    assert len(lake.snapshots(TABLE)) == 1


def test_a_step_that_is_retried_by_policy_after_its_write_writes_once(lake: Lake) -> None:
    policy = dg.RetryPolicy(max_retries=2)
    crashes: list[Exception] = [RuntimeError("lost connection"), RuntimeError("again")]
    result = lake.run(crashing_after_its_write(crashes, retry_policy=policy))
    assert lake.rows(TABLE) == EXPECTED
    last = materializations(result, TABLE)[-1]
    assert last.metadata["dwh/snapshot_id"].value == str(lake.snapshots(TABLE)[0]["snapshot-id"])
    assert last.metadata["dwh/rows_added"].value == 3, "the retry reports what the first attempt wrote"
    assert "earlier attempt" in str(last.metadata["dwh/summary"].value)


def test_a_step_retry_of_one_partition_does_not_hide_another_partition(lake: Lake) -> None:
    def compute(context: dg.AssetExecutionContext) -> pa.Table:
        return pa.table({"id": [1], "place": [context.partition_key]})

    orders = written_by(compute, partitions=REGIONS, partition_expr="place")
    tags = {"dagster/parent_run_id": "0" * 8, "dagster/retry_number": "1"}
    lake.run(orders, partition="eu", tags=tags)
    lake.run(orders, partition="us", tags=tags)
    lake.run(orders, partition="us", tags=tags)
    assert [row["place"] for row in lake.rows(TABLE)] == ["eu", "us"]


def _retry_of(run: dg.ExecuteInProcessResult, number: int, root: dg.ExecuteInProcessResult) -> dict[str, str]:
    return {**_again(run, root), "dagster/retry_number": str(number)}


def _again(run: dg.ExecuteInProcessResult, root: dg.ExecuteInProcessResult) -> dict[str, str]:
    return {"dagster/parent_run_id": run.run_id, "dagster/root_run_id": root.run_id}


def test_a_run_that_is_retried_after_its_write_writes_once(lake: Lake) -> None:
    orders = crashing_after_its_write([RuntimeError("killed"), RuntimeError("killed")])
    first = lake.run(orders, expect_success=False)
    second = lake.run(orders, tags=_retry_of(first, 1, first), expect_success=False)
    lake.run(orders, tags=_retry_of(second, 2, first))
    assert lake.rows(TABLE) == EXPECTED


def test_a_new_run_and_a_re_execution_by_hand_write_again(lake: Lake) -> None:
    orders = written_by(lambda _: ROWS)
    first = lake.run(orders)
    lake.run(orders)
    lake.run(orders, tags=_again(first, first))
    assert len(lake.rows(TABLE)) == 9


def test_a_retry_of_a_re_execution_by_hand_is_told_from_the_run_before_it(lake: Lake) -> None:
    """All three have the same root run, and it wrote: the retry must still write for the re-execution."""
    orders = crashing_after_its_write([])
    first = lake.run(orders)

    crash_before = written_by(_raise)
    again = lake.run(crash_before, tags=_again(first, first), expect_success=False)
    lake.run(orders, tags=_retry_of(again, 1, first))
    assert len(lake.rows(TABLE)) == 6

    crash_after = crashing_after_its_write([RuntimeError("killed")])
    again = lake.run(crash_after, tags=_again(first, first), expect_success=False)
    lake.run(orders, tags=_retry_of(again, 1, first))
    assert len(lake.rows(TABLE)) == 9


def _raise(_: dg.AssetExecutionContext) -> None:
    raise RuntimeError("killed before the write")


def test_a_transient_failure_is_retried_by_the_policy(lake: Lake) -> None:
    """The catalog's file cannot be opened at first: a folder lies in its place."""
    obstacle = lake.folder / "catalog.db"
    obstacle.mkdir()
    attempts: list[int] = []

    def compute(context: dg.AssetExecutionContext) -> pa.Table:
        attempts.append(context.retry_number)
        if context.retry_number == 1:
            obstacle.rmdir()
        return ROWS

    lake.run(written_by(compute, retry_policy=dg.RetryPolicy(max_retries=1)))
    assert attempts == [0, 1]
    assert lake.rows(TABLE) == EXPECTED


# --- Nothing is written where it is not clear what ---

DATE_ROWS = pa.table({"id": [1], "day": pa.array([19_000], pa.date32()), "place": ["eu"]})
HOURS = dg.HourlyPartitionsDefinition("2024-02-28-00:00")

UNCLEAR: dict[str, tuple[dg.PartitionsDefinition[str], str, dict[str, Any], str]] = {
    "no partition_expr": (REGIONS, "eu", {}, "partition_expr"),
    "unknown column": (REGIONS, "eu", {"partition_expr": "nowhere"}, "'nowhere'"),
    "key of another type": (REGIONS, "eu", {"partition_expr": "id"}, "'eu' is not a value of column 'id'"),
    "hour of a date": (HOURS, "2024-02-28-05:00", {"partition_expr": "day"}, "midnight"),
    "dimensions for one": (REGIONS, "eu", {"partition_expr": {"region": "place"}}, "partition_expr"),
}


@pytest.mark.parametrize(
    ("mode", "rows"),
    [("overwrite", DATE_ROWS), ("overwrite", DATE_ROWS.slice(0, 0)), ("append", DATE_ROWS)],
    ids=["overwrite", "overwrite with nothing", "append"],
)
@pytest.mark.parametrize("case", UNCLEAR.values(), ids=UNCLEAR)
def test_a_filter_that_cannot_be_built_changes_nothing(
    lake: Lake, case: tuple[dg.PartitionsDefinition[str], str, dict[str, Any], str], mode: str, rows: pa.Table
) -> None:
    partitions, key, metadata, message = case
    orders = written_by(lambda _: rows, partitions=partitions, write_mode=mode, **metadata)

    result = lake.run(orders, partition=key, expect_success=False)
    assert message in failure_text(result)
    assert not lake.exists(TABLE), "not even an empty table is made"

    lake.fill(TABLE, DATE_ROWS)
    before = lake.metadata(TABLE)
    result = lake.run(orders, partition=key, expect_success=False)
    assert message in failure_text(result)
    assert step_failure(result).user_failure_data.metadata["error"].value == "ConfigurationError"
    assert lake.metadata(TABLE) == before


@pytest.mark.parametrize("mode", ["overwrite", "append"])
def test_a_run_without_a_partition_is_not_a_run_of_the_whole_table(lake: Lake, mode: str) -> None:
    def compute(context: dg.AssetExecutionContext) -> pa.Table:
        return pa.table({"id": [1], "place": ["eu"]})

    orders = written_by(compute, partitions=REGIONS, write_mode=mode, partition_expr="place")
    lake.fill(TABLE, ROWS)
    before = lake.metadata(TABLE)
    result = lake.run(orders, expect_success=False)
    assert "selects none of them" in failure_text(result)
    assert lake.metadata(TABLE) == before


def test_a_range_that_holds_no_partition_is_not_a_range_of_all(lake: Lake) -> None:
    """Backwards in one dimension: Dagster takes it, and it has no cell."""
    grid = dg.MultiPartitionsDefinition(
        {"region": REGIONS, "size": dg.StaticPartitionsDefinition(["large", "small"])}
    )
    rows = pa.table({"id": [1], "place": ["eu"], "size": ["small"]})
    expr = {"region": "place", "size": "size"}
    lake.fill(TABLE, rows)
    before = lake.metadata(TABLE)
    orders = written_by(lambda _: rows, partitions=grid, write_mode="overwrite", partition_expr=expr)
    result = lake.run(orders, between=("us|large", "eu|small"), expect_success=False)
    assert "selects none of them" in failure_text(result)
    assert lake.metadata(TABLE) == before


def test_rows_outside_of_the_partition_are_refused_and_named(lake: Lake) -> None:
    lake.fill(TABLE, ROWS)
    before = lake.metadata(TABLE)
    orders = written_by(lambda _: ROWS, partitions=REGIONS, write_mode="overwrite", partition_expr="place")
    result = lake.run(orders, partition="eu", expect_success=False)
    assert "2 rows lie outside" in failure_text(result)
    assert lake.metadata(TABLE) == before


@pytest.mark.parametrize(
    ("table", "settings", "message"),
    [
        (TABLE, {"write_mode": "replace"}, "write_mode is 'replace'"),
        (TABLE, {"write_mode": "upsert"}, "needs key_columns"),
        (TABLE, {"partition_spec": [{"field": "id", "transform": "buckets[4]"}]}, "buckets[4]"),
        (TABLE, {"partition_spec": [{"field": "nowhere"}]}, "'nowhere'"),
        (TABLE, {"key_columns": ["nowhere"]}, "'nowhere'"),
        ("orders", {}, "which Iceberg table"),
    ],
)
def test_a_wrong_declaration_is_refused_once(
    lake: Lake, table: str, settings: dict[str, Any], message: str
) -> None:
    attempts: list[int] = []

    def compute(context: dg.AssetExecutionContext) -> pa.Table:
        attempts.append(context.retry_number)
        return ROWS

    orders = written_by(compute, table=table, retry_policy=dg.RetryPolicy(max_retries=2), **settings)
    result = lake.run(orders, expect_success=False)
    assert message in failure_text(result)
    assert table in failure_text(result)
    assert attempts == [0]
    assert not lake.exists(TABLE)


# --- What others did to the table stays ---


def test_properties_that_others_set_survive(lake: Lake) -> None:
    orders = written_by(lambda _: ROWS, write_mode="overwrite", table_properties={"comment": "ours"})
    lake.run(orders)
    table: Table = lake.iceberg.catalog.load_table(TABLE)
    with table.transaction() as transaction:
        transaction.set_properties({"owner": "another engine", "write.metadata.previous-versions-max": "7"})
    lake.run(orders)
    properties = lake.metadata(TABLE)["properties"]
    assert properties["owner"] == "another engine"
    assert properties["write.metadata.previous-versions-max"] == "7"
    assert properties["comment"] == "ours"


# --- What Dagster says of a run that repeats another ---


def test_the_tags_of_retries_are_dagsters_own() -> None:
    """Pins names that Dagster does not export; a retry is recognised by them."""
    from dagster._core.storage import tags

    assert tags.RETRY_NUMBER_TAG == step.RETRY_TAG
    assert tags.PARENT_RUN_ID_TAG == step.PARENT_RUN_TAG
    assert step.RETRY_TAG in tags.TAGS_TO_MAYBE_OMIT_ON_RETRY, "a re-execution by hand does not inherit it"
