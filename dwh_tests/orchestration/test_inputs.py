"""An input arrives as it is annotated, narrowed as its metadata say, and is read at a snapshot."""

from collections.abc import Callable, Mapping
from typing import Any

import dagster as dg
import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from pyiceberg.table import DataScan

from dwh_tests.orchestration.lake import Lake, failure_text, step_failure, written_by

ORDERS = pa.table({"id": [1, 2, 3, 4], "place": ["eu", None, "us", "eu"], "price": [1.5, 2.5, None, 4.5]})
REGIONS = dg.StaticPartitionsDefinition(["eu", "us"])
DAYS = dg.DailyPartitionsDefinition("2024-02-28", end_date="2024-03-02")
REPORT = "shop.report"

# How to see the ids that arrived, for each type.
AS: dict[Any, Callable[[Any], list[int]]] = {
    pa.Table: lambda rows: rows["id"].to_pylist(),
    pa.RecordBatchReader: lambda rows: rows.read_all()["id"].to_pylist(),
    pd.DataFrame: lambda rows: rows["id"].tolist(),
    pl.DataFrame: lambda rows: rows["id"].to_list(),
    pl.LazyFrame: lambda rows: rows.collect()["id"].to_list(),
    duckdb.DuckDBPyRelation: lambda rows: [row[0] for row in rows.project("id").fetchall()],
    DataScan: lambda rows: rows.to_arrow()["id"].to_pylist(),
}


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory, dagster_instance: dg.DagsterInstance) -> Lake:
    """A lake that is read: the only asset that writes to it has nothing to write."""
    lake = Lake(tmp_path_factory.mktemp("filled"), dagster_instance)
    lake.fill("shop.sales", ORDERS)
    lake.fill("shop.none", ORDERS.slice(0, 0))
    lake.fill("shop.days", IN_DAYS)
    return lake


def upstream(table: str, **described: Any) -> dg.AssetSpec:
    """The asset that is read, written by somebody else to a table of another name."""
    partitions = described.pop("partitions_def", None)
    metadata = {"table": table, **described}
    spec = dg.AssetSpec(["iceberg", "shop", "orders"], metadata=metadata, partitions_def=partitions)
    return spec.with_io_manager_key("iceberg_io_manager")


class Reader:
    """An asset that reads orders, and keeps what arrived."""

    def __init__(
        self,
        annotation: Any,
        metadata: Mapping[str, Any] | None = None,
        partitions: dg.PartitionsDefinition[str] | None = None,
        mapping: dg.PartitionMapping | None = None,
        **settings: Any,
    ) -> None:
        self.arrived: list[Any] = []

        @dg.asset(
            key=["iceberg", "shop", "report"],
            ins={
                "orders": dg.AssetIn(
                    key=["iceberg", "shop", "orders"],
                    metadata=metadata,
                    dagster_type=annotation,
                    partition_mapping=mapping,
                )
            },
            partitions_def=partitions,
            io_manager_key="iceberg_io_manager",
            metadata={"partition_expr": "at"},
            **settings,
        )
        def report(orders) -> pa.Table:
            self.arrived.append(orders)
            seen = sorted(AS[annotation](orders) if annotation in AS else orders["id"].to_pylist())
            self.seen = seen
            return pa.table({"at": pa.array([], pa.string())})

        self.asset: dg.AssetsDefinition = report


@pytest.mark.parametrize(
    "annotation", AS, ids=lambda kind: f"{kind.__module__.split('.')[0]}.{kind.__name__}"
)
def test_an_input_arrives_as_it_is_annotated(filled: Lake, annotation: Any) -> None:
    reader = Reader(annotation, metadata={"columns": ["id", "price"], "where": "place = 'eu' and id > 1"})
    filled.run(upstream("shop.sales"), reader.asset)
    (arrived,) = reader.arrived
    assert isinstance(arrived, annotation)
    assert reader.seen == [4]
    if annotation in (pa.Table, pd.DataFrame, pl.DataFrame):
        assert list(arrived.columns if annotation is not pa.Table else arrived.column_names) == [
            "id",
            "price",
        ]


@pytest.mark.parametrize(
    "annotation", AS, ids=lambda kind: f"{kind.__module__.split('.')[0]}.{kind.__name__}"
)
def test_an_empty_input_arrives_with_its_columns(filled: Lake, annotation: Any) -> None:
    reader = Reader(annotation)
    filled.run(upstream("shop.none"), reader.asset)
    assert reader.seen == []


def test_an_input_without_annotation_is_an_arrow_table(lake: Lake) -> None:
    arrived: list[Any] = []

    @dg.asset(io_manager_key="iceberg_io_manager", key=["iceberg", "shop", "report"],
              ins={"orders": dg.AssetIn(key=["iceberg", "shop", "orders"])})  # fmt: skip
    def report(orders):
        arrived.append(orders)
        return orders

    lake.run(written_by(lambda _: ORDERS), report)
    assert isinstance(arrived[0], pa.Table)
    assert lake.rows(REPORT) == lake.rows("shop.orders")


@pytest.mark.parametrize(
    ("annotation", "metadata", "message"),
    [
        (list, {}, "pyarrow.RecordBatchReader"),
        (pa.Table, {"columns": ["id", "nowhere"]}, "no column 'nowhere'"),
        (pa.Table, {"where": "nowhere = 1"}, "nowhere"),
        (pa.Table, {"where": "id >"}, "id >"),
        (pa.Table, {"where": "id = 'one'"}, "id"),
        (pa.Table, {"where": ""}, "filter"),
    ],
)
def test_an_input_that_cannot_be_read_so_is_refused_once(
    filled: Lake, annotation: Any, metadata: dict[str, Any], message: str
) -> None:
    reader = Reader(annotation, metadata=metadata, retry_policy=dg.RetryPolicy(max_retries=2))
    result = filled.run(upstream("shop.sales"), reader.asset, expect_success=False)
    assert message in failure_text(result)
    assert "shop.sales" in failure_text(result) or annotation is list
    assert step_failure(result).user_failure_data.metadata["remedy"].value != "none"
    assert not [event for event in result.all_events if event.is_step_up_for_retry]
    assert not reader.arrived


def test_an_input_that_was_never_written_says_what_to_do(lake: Lake) -> None:
    reader = Reader(pa.Table)
    orders = written_by(lambda _: ORDERS)
    result = lake.run(orders, reader.asset, select=[reader.asset], expect_success=False)
    assert "Materialize iceberg/shop/orders first" in failure_text(result)


# --- Partitions of the input ---


# Two orders on each of three days; and one on no day, which no partition holds
IN_DAYS = pa.table(
    {
        "id": [1, 2, 11, 12, 21, 22, 99],
        "day": pa.array(["2024-02-28"] * 2 + ["2024-02-29"] * 2 + ["2024-03-01"] * 2 + [None]).cast(
            pa.date32()
        ),
    }
)


def read_in_days(lake: Lake, reader: Reader, **run: Any) -> list[int]:
    lake.run(upstream("shop.days", partitions_def=DAYS, partition_expr="day"), reader.asset, **run)
    return reader.seen


def test_a_partition_reads_its_own_partition(filled: Lake) -> None:
    assert read_in_days(filled, _daily(), partition="2024-02-29") == [11, 12]


def test_a_range_reads_its_own_range(filled: Lake) -> None:
    assert read_in_days(filled, _daily(), between=("2024-02-28", "2024-02-29")) == [1, 2, 11, 12]


def test_a_range_of_all_partitions_reads_no_row_outside_of_them(filled: Lake) -> None:
    found = read_in_days(filled, _daily(), between=("2024-02-28", "2024-03-01"))
    assert found == [1, 2, 11, 12, 21, 22]


def test_an_asset_without_partitions_reads_also_rows_of_no_partition(filled: Lake) -> None:
    assert read_in_days(filled, Reader(pa.Table)) == [1, 2, 11, 12, 21, 22, 99]


def test_an_asset_without_partitions_reads_the_partition_that_it_is_mapped_to(filled: Lake) -> None:
    mapping = dg.SpecificPartitionsPartitionMapping(["2024-02-29"])
    assert read_in_days(filled, Reader(pa.Table, mapping=mapping)) == [11, 12]


def test_where_and_partition_both_hold(filled: Lake) -> None:
    reader = _daily(input_metadata={"where": "id = 12 or id = 1"})
    assert read_in_days(filled, reader, partition="2024-02-29") == [12]


def test_a_mapping_to_no_partition_reads_nothing(filled: Lake) -> None:
    """The day before the first day is none of the table's; that is not "no filter"."""
    mapping = dg.TimeWindowPartitionMapping(
        start_offset=-1, end_offset=-1, allow_nonexistent_upstream_partitions=True
    )
    assert read_in_days(filled, _daily(mapping=mapping), partition="2024-02-28") == []


def test_a_mapping_to_the_day_before_reads_that(filled: Lake) -> None:
    mapping = dg.TimeWindowPartitionMapping(start_offset=-1, end_offset=-1)
    assert read_in_days(filled, _daily(mapping=mapping), partition="2024-03-01") == [11, 12]


def _daily(
    mapping: dg.PartitionMapping | None = None, input_metadata: Mapping[str, Any] | None = None
) -> Reader:
    return Reader(pa.Table, metadata=input_metadata, partitions=DAYS, mapping=mapping)
