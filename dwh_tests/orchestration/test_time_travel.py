"""Inputs are read at the version that somebody asked for, and a run that reads the past leaves main alone."""

import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest
from pyiceberg.table import DataScan

from dwh_assets.iceberg.refs import create_branch, create_tag, set_lifetime
from dwh_tests.orchestration.lake import Lake, failure_text, materializations, written_by

SALES, REPORT = "shop.sales", "shop.report"
SALES_KEY, REPORT_KEY = dg.AssetKey(["iceberg", "shop", "sales"]), dg.AssetKey(["iceberg", "shop", "report"])
REGIONS = dg.StaticPartitionsDefinition(["eu", "us"])
MS = timedelta(milliseconds=1)


@pytest.fixture
def sold(lake: Lake) -> Lake:
    """Sales of three versions, one more row each, some milliseconds apart."""
    for number in range(3):
        lake.fill(SALES, pa.table({"id": [number], "region": ["eu" if number % 2 else "us"]}))
        time.sleep(0.004)
    return lake


def sales(**described: Any) -> dg.AssetSpec:
    spec = dg.AssetSpec(SALES_KEY, metadata={"table": SALES, **described})
    return spec.with_io_manager_key("iceberg_io_manager")


def report(
    pin: Mapping[str, Any] | None = None, *, write_mode: str = "overwrite", **settings: Any
) -> dg.AssetsDefinition:
    """A table of the ids that were sold; `seen` keeps them, also where nothing could be written."""
    metadata = {"write_mode": write_mode, **settings.pop("metadata", {})}

    @dg.asset(
        key=REPORT_KEY,
        ins={"sold": dg.AssetIn(SALES_KEY, metadata=pin, input_manager_key="iceberg_io_manager")},
        io_manager_key="iceberg_io_manager",
        metadata=metadata,
        **settings,
    )
    def compute(sold: pa.Table) -> pa.Table:
        return pa.table({"id": sorted(sold["id"].to_pylist())})

    asset: dg.AssetsDefinition = compute
    return asset


def snapshots(lake: Lake, table: str = SALES) -> list[int]:
    return [snapshot["snapshot-id"] for snapshot in lake.snapshots(table)]


def moment(lake: Lake, number: int, table: str = SALES) -> str:
    """When main of the table moved to its so manieth version."""
    entry = lake.metadata(table)["snapshot-log"][number]
    at: datetime = datetime(1970, 1, 1, tzinfo=UTC) + entry["timestamp-ms"] * MS
    return at.isoformat()


def ids_in(lake: Lake, branch: str = "main", table: str = REPORT) -> list[int]:
    """The ids that a branch holds, read without the code under test."""
    snapshot_id = lake.metadata(table)["refs"][branch]["snapshot-id"]
    return sorted(lake.iceberg.load_table(table).scan(snapshot_id=snapshot_id).to_arrow()["id"].to_pylist())


def summary_of(lake: Lake, branch: str = "main") -> dict[str, str]:
    metadata = lake.metadata(REPORT)
    snapshot_id = metadata["refs"][branch]["snapshot-id"]
    return next(dict(s["summary"]) for s in metadata["snapshots"] if s["snapshot-id"] == snapshot_id)


def of_input(name: str, **pin: Any) -> dict[str, Any]:
    """Run config that says which version an input is read at."""
    return {"ops": {"iceberg__shop__report": {"inputs": {name: pin}}}}


# --- One input ---


@pytest.mark.parametrize("said_in", ["metadata", "config"])
@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("as_of time", [0, 1]),
        ("as_of ago", [0, 1]),
        ("as_of tag", [0]),
        ("tag", [0]),
        ("branch", [0, 1]),
        ("snapshot_id", [0, 1]),
        ("snapshot_id text", [0, 1]),
    ],
)
def test_an_input_is_read_where_it_is_told(sold: Lake, kind: str, expected: list[int], said_in: str) -> None:
    first, second, _ = snapshots(sold)
    catalog, table = sold.iceberg.catalog, sold.iceberg.load_table(SALES)
    create_tag(catalog, table, "q3", first)
    create_branch(catalog, table, "trial", second)
    pins: dict[str, dict[str, Any]] = {
        "as_of time": {"as_of": moment(sold, 1)},
        "as_of ago": {"as_of": "1 version ago"},
        "as_of tag": {"as_of": "q3"},
        "tag": {"tag": "q3"},
        "branch": {"branch": "trial"},
        "snapshot_id": {"snapshot_id": second},
        "snapshot_id text": {"snapshot_id": str(second)},
    }
    pin = pins[kind]
    if said_in == "metadata":
        result = sold.run(sales(), report(pin))
    else:
        result = sold.run(sales(), report(), config=of_input("sold", **pin))
    assert ids_in(sold) == expected
    read = first if expected == [0] else second
    assert summary_of(sold)[f"dwh.input.{SALES}"] == str(read)
    (made,) = materializations(result, REPORT)
    assert str(read) in str(made.metadata["dwh/read"].value)


def test_who_says_it_most_closely_wins(sold: Lake) -> None:
    first, second, _ = snapshots(sold)
    as_of = {"dwh/as_of": moment(sold, 0), "dwh/write_to": "main"}
    sold.run(sales(), report(), tags=as_of)
    assert ids_in(sold) == [0]
    pinned = report({"snapshot_id": second})
    sold.run(sales(), pinned, tags=as_of)
    assert ids_in(sold) == [0, 1]
    sold.run(sales(), pinned, tags=as_of, config=of_input("sold", snapshot_id=first))
    assert ids_in(sold) == [0]


def test_one_table_may_be_read_at_two_versions(sold: Lake) -> None:
    """Dagster wants an asset of its own for each; both name the table."""
    first, _, third = snapshots(sold)
    then = dg.AssetSpec(["iceberg", "shop", "sales_then"], metadata={"table": SALES})

    @dg.asset(
        key=REPORT_KEY,
        ins={
            "before": dg.AssetIn(then.key, metadata={"as_of": "2 versions ago"}),
            "now": dg.AssetIn(SALES_KEY),
        },
        io_manager_key="iceberg_io_manager",
    )
    def growth(before: pa.Table, now: pa.Table) -> pa.Table:
        return pa.table({"id": [now.num_rows - before.num_rows]})

    sold.run(sales(), then.with_io_manager_key("iceberg_io_manager"), growth)
    assert ids_in(sold) == [2]
    assert summary_of(sold)[f"dwh.input.{SALES}"].split(",") == [str(first), str(third)]


def test_an_input_has_the_columns_and_rows_of_its_version(sold: Lake) -> None:
    table = sold.iceberg.load_table(SALES)
    with table.update_schema() as update:
        update.rename_column("id", "number")
    sold.fill(SALES, pa.table({"number": [9], "region": ["us"]}))
    seen = report({"as_of": "1 version ago", "where": "id > 0", "columns": ["id"]})
    sold.run(sales(), seen)
    assert ids_in(sold) == [1, 2]


def test_a_partition_of_the_past_is_read(sold: Lake) -> None:
    def by_region(pin: Mapping[str, Any]) -> list[Any]:
        upstream = dg.AssetSpec(
            SALES_KEY, metadata={"table": SALES, "partition_expr": "region"}, partitions_def=REGIONS
        ).with_io_manager_key("iceberg_io_manager")

        @dg.asset(
            key=REPORT_KEY,
            partitions_def=REGIONS,
            ins={"sold": dg.AssetIn(SALES_KEY, metadata=pin)},
            io_manager_key="iceberg_io_manager",
            metadata={"partition_expr": "region", "write_mode": "overwrite"},
        )
        def regional(sold: pa.Table) -> pa.Table:
            return sold

        return [upstream, regional]

    sold.run(*by_region({"as_of": "2 versions ago"}), partition="us")
    assert ids_in(sold) == [0]
    sold.run(*by_region({}), partition="us")
    assert ids_in(sold) == [0, 2]


# --- Misses ---


@pytest.mark.parametrize(
    ("pin", "told"),
    [
        ({"as_of": "2020-01-01"}, "nothing had been written yet"),
        ({"tag": "q4"}, "shop.sales has no tag 'q4'. Did you mean 'q3'?"),
        ({"tag": "trial"}, "has no tag 'trial'"),
        ({"tag": "2026-01-01"}, "has no tag '2026-01-01'"),
        ({"branch": "q3"}, "has no branch 'q3'"),
        ({"snapshot_id": 7}, "has no snapshot 7"),
        ({"snapshot_id": "seven"}, "'seven' is no snapshot id"),
        ({"tag": "q3", "branch": "trial"}, "said twice by the input sold: tag and branch"),
    ],
)
def test_a_version_that_is_not_there_fails_the_run_at_once(
    sold: Lake, pin: Mapping[str, Any], told: str
) -> None:
    table = sold.iceberg.load_table(SALES)
    create_tag(sold.iceberg.catalog, table, "q3")
    create_branch(sold.iceberg.catalog, sold.iceberg.load_table(SALES), "trial")
    asset = report(pin, retry_policy=dg.RetryPolicy(max_retries=1))
    result = sold.run(sales(), asset, expect_success=False)
    assert told in failure_text(result)
    assert not any(event.is_step_up_for_retry for event in result.all_events)
    assert not sold.exists(REPORT)


def test_mains_past_is_no_answer_for_another_branch(sold: Lake) -> None:
    create_branch(sold.iceberg.catalog, sold.iceberg.load_table(SALES), "trial")
    result = sold.run(
        sales(branch="trial"), report(), tags={"dwh/as_of": moment(sold, 0)}, expect_success=False
    )
    assert "only main's past is known" in failure_text(result)


# --- A whole run ---


def test_a_run_of_the_past_is_rebuilt_beside_main(sold: Lake) -> None:
    sold.run(sales(), report())
    (head,) = snapshots(sold, REPORT)
    result = sold.run(sales(), report(), tags={"dwh/as_of": moment(sold, 1)})
    branch = f"as-of-{moment(sold, 1)}"
    assert sold.metadata(REPORT)["current-snapshot-id"] == head
    assert (ids_in(sold), ids_in(sold, branch)) == ([0, 1, 2], [0, 1])
    assert summary_of(sold, branch)[f"dwh.input.{SALES}"] == str(snapshots(sold)[1])
    assert summary_of(sold, branch)["dwh.as-of"] == moment(sold, 1)
    (made,) = materializations(result, REPORT)
    assert made.metadata["dwh/as_of"].value == moment(sold, 1)
    assert made.metadata["dwh/branch"].value == branch
    assert "`main` stays as it is" in str(made.metadata["dwh/summary"].value)
    assert "dagster/row_count" not in made.metadata
    assert made.tags is not None
    assert made.tags["dagster/data_version"] == str(head)


def test_what_is_no_name_for_a_branch_fails_the_run(sold: Lake) -> None:
    tags = {"dwh/as_of": "1 version ago", "dwh/write_to": "a\nb"}
    result = sold.run(sales(), report(), tags=tags, expect_success=False)
    assert "dwh/write_to says 'a\\nb', which is no name for a branch" in failure_text(result)
    assert not sold.exists(REPORT)


def test_a_branch_that_nobody_named_is_kept_for_thirty_days(sold: Lake) -> None:
    """However old the version is that it begins at; the next run of the past drops those that are over."""
    sold.run(sales(), report())
    first, second = moment(sold, 0), moment(sold, 1)
    for tags in ({"dwh/as_of": first}, {"dwh/as_of": first, "dwh/write_to": "trial"}):
        sold.run(sales(), report(), tags=tags)
    kept = {name: ref.get("max-ref-age-ms") for name, ref in sold.metadata(REPORT)["refs"].items()}
    assert kept == {"main": None, f"as-of-{first}": 30 * 86_400_000, "trial": None}
    table = sold.iceberg.load_table(REPORT)
    set_lifetime(sold.iceberg.catalog, table, f"as-of-{first}", timedelta(milliseconds=1))
    time.sleep(0.01)
    sold.run(sales(), report(), tags={"dwh/as_of": second})
    assert set(sold.metadata(REPORT)["refs"]) == {"main", "trial", f"as-of-{second}"}


def test_a_run_of_the_past_writes_where_it_is_told(sold: Lake) -> None:
    sold.run(sales(), report())
    for branch in ("main", "trial"):
        sold.run(sales(), report(), tags={"dwh/as_of": "1 version ago", "dwh/write_to": branch})
        assert ids_in(sold, branch) == [0, 1]
    assert set(sold.metadata(REPORT)["refs"]) == {"main", "trial"}


def test_every_input_reads_its_own_version_of_the_moment(sold: Lake) -> None:
    """A computed table in the middle: it is read as it was then, unless the run computes it itself."""

    @dg.asset(
        key=["iceberg", "shop", "total"],
        ins={"rows": dg.AssetIn(REPORT_KEY)},
        io_manager_key="iceberg_io_manager",
        metadata={"write_mode": "overwrite"},
    )
    def total(rows: pa.Table) -> pa.Table:
        return pa.table({"id": [sum(rows["id"].to_pylist())]})

    middle = report()
    sold.run(sales(), middle, total)
    at = moment(sold, 0, REPORT)
    time.sleep(0.004)
    sold.fill(SALES, pa.table({"id": [10], "region": ["eu"]}))
    sold.run(sales(), middle, total)
    assert ids_in(sold, table="shop.total") == [13]
    sold.run(sales(), middle, total, select=[total], tags={"dwh/as_of": at})
    assert ids_in(sold, f"as-of-{at}", "shop.total") == [3]
    early = moment(sold, 1)
    sold.run(sales(), middle, total, tags={"dwh/as_of": early})
    assert ids_in(sold, f"as-of-{early}") == [0, 1]
    assert ids_in(sold, f"as-of-{early}", "shop.total") == [1]
    assert ids_in(sold, table="shop.total") == [13]


def test_rows_are_appended_to_those_of_the_moment(sold: Lake) -> None:
    appending = report(write_mode="append")
    sold.run(sales(), appending)
    at = moment(sold, 0, REPORT)
    time.sleep(0.004)
    sold.run(sales(), appending)
    sold.run(sales(), appending, tags={"dwh/as_of": at})
    assert ids_in(sold, f"as-of-{at}") == [0, 0, 1, 1, 2, 2]
    assert len(ids_in(sold)) == 6
    early = moment(sold, 1)
    result = sold.run(sales(), appending, tags={"dwh/as_of": early}, expect_success=False)
    assert "goes on from the table's own rows" in failure_text(result)
    assert f"as-of-{early}" not in sold.metadata(REPORT)["refs"]


def test_a_run_of_the_past_does_not_change_columns(sold: Lake) -> None:
    sold.run(sales(), report())

    @dg.asset(
        key=REPORT_KEY,
        ins={"sold": dg.AssetIn(SALES_KEY)},
        io_manager_key="iceberg_io_manager",
        metadata={"write_mode": "overwrite"},
    )
    def wider(sold: pa.Table) -> pa.Table:
        return sold

    before = sold.metadata(REPORT)
    result = sold.run(sales(), wider, tags={"dwh/as_of": "1 version ago"}, expect_success=False)
    assert "region" in failure_text(result)
    assert sold.metadata(REPORT)["schemas"] == before["schemas"]
    assert sold.rows(REPORT) == [{"id": 0}, {"id": 1}, {"id": 2}]


def test_partition_counts_are_those_of_main(sold: Lake) -> None:
    regional = written_by(
        lambda _: pa.table({"id": [5], "region": ["us"]}),
        table=REPORT,
        partitions=REGIONS,
        write_mode="overwrite",
        partition_expr="region",
    )
    sold.run(regional, partition="us")
    time.sleep(0.004)
    at = datetime.now(UTC).isoformat()
    result = sold.run(regional, partition="us", tags={"dwh/as_of": at})
    (made,) = materializations(result, REPORT)
    assert "dagster/partition_row_count" not in made.metadata
    assert made.metadata["dwh/branch"].value == f"as-of-{at}"


# --- Replicas ---


@pytest.fixture
def copied(sold: Lake) -> Lake:
    """A lake with a DuckDB file, that replicas go to."""
    sold.replicate()
    return sold


@dg.asset(
    key=["duckdb", "shop", "sales"],
    ins={"table": dg.AssetIn(SALES_KEY, dagster_type=DataScan)},
    io_manager_key="duckdb_replica_io_manager",
    metadata={"table": SALES, "into": SALES},
)
def replica(table: Any) -> Any:
    return table


def test_a_replica_is_not_taken_back_by_a_run_of_the_past(copied: Lake) -> None:
    copied.run(sales(), replica)
    result = copied.run(sales(), replica, tags={"dwh/as_of": moment(copied, 0)}, expect_success=False)
    assert "would go back to snapshot" in failure_text(result)
    copied.run(sales(), replica, tags={"dwh/as_of": datetime.now(UTC).isoformat()})


def test_a_replica_has_no_past_to_read(copied: Lake) -> None:
    @dg.asset(
        key=REPORT_KEY,
        ins={"copy": dg.AssetIn(["duckdb", "shop", "sales"])},
        io_manager_key="iceberg_io_manager",
    )
    def from_copy(copy: pa.Table) -> pa.Table:
        return copy

    copied.run(sales(), replica, from_copy)
    tags = {"dwh/as_of": moment(copied, 0)}
    result = copied.run(sales(), replica, from_copy, select=[from_copy], tags=tags, expect_success=False)
    assert "is a replica, which holds one version only" in failure_text(result)
