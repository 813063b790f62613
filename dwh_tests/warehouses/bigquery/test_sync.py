"""Whole syncs of a lake's table into BigQuery, cut off anywhere, and two at once."""

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from google.cloud import bigquery
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.table import Table
from pyiceberg.types import DoubleType, LongType, StringType

from dwh_assets.errors import ConfigurationError, DwhError, UnsupportedError
from dwh_assets.warehouses.bigquery.warehouse import BigQueryWarehouse
from dwh_assets.warehouses.options import ReplicaOptions
from dwh_assets.warehouses.session import Layout
from dwh_tests.servers.local_bigquery import LocalBigQuery
from dwh_tests.servers.proxy import Answer, Request, proxy
from dwh_tests.warehouses.bigquery.conftest import rows
from dwh_tests.warehouses.bigquery.test_session import behind

pytestmark = pytest.mark.server

SCHEMA = pa.schema(
    [
        pa.field("id", pa.int64(), nullable=False),
        ("item", pa.string()),
        ("day", pa.date32()),
        ("tags", pa.list_(pa.string())),
    ]
)
ROWS: list[dict[str, Any]] = [
    {
        "id": n,
        "item": None if n % 5 == 0 else f"item {n}",
        "day": date(2024, 1, 1) + timedelta(days=10 * n),
        "tags": ["a", None] if n % 2 else None,
    }
    for n in range(1, 21)
]


@pytest.fixture
def sales(catalog: SqlCatalog) -> Table:
    """Twenty rows with a key, one day of every ten."""
    table = catalog.create_table("sales.keyed", SCHEMA)
    with table.update_schema() as update:
        update.set_identifier_fields("id")
    table.append(of(ROWS))
    return table


def of(some: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(some, SCHEMA)


def ids(client: bigquery.Client, dataset: str) -> list[int]:
    return [row[0] for row in rows(client, f"SELECT `id` FROM `{dataset}`.`orders`")]


def leftovers(client: bigquery.Client, dataset: str) -> set[str]:
    return {table.table_id for table in client.list_tables(dataset)} - {"orders", "_dwh_replicas"}


def lake_rows(table: Table) -> list[str]:
    """What PyIceberg itself reads."""
    return sorted(map(repr, table.refresh().scan().to_arrow().to_pylist()))


def replica_rows(warehouse: BigQueryWarehouse, dataset: str, table: str = "sales.keyed") -> list[str]:
    return sorted(map(repr, warehouse.replica(table, f"{dataset}.orders").read().read_all().to_pylist()))


@pytest.mark.parametrize("fixture", ["warehouse", "streaming_warehouse"])
def test_replica_follows_its_table(
    request: pytest.FixtureRequest,
    fixture: str,
    client: bigquery.Client,
    dataset: str,
    catalog: SqlCatalog,
    sales: Table,
) -> None:
    warehouse: BigQueryWarehouse = request.getfixturevalue(fixture)
    replica = warehouse.replica("sales.keyed", f"{dataset}.orders")
    assert replica.sync(catalog).method == "full"
    assert replica_rows(warehouse, dataset) == lake_rows(sales)
    assert replica.sync(catalog).method == "none"

    sales.upsert(of([{**ROWS[2], "item": "changed"}, {**ROWS[0], "id": 99}]), ["id"])
    sales.delete("id = 7")
    result = replica.sync(catalog)
    counted = (result.method, result.rows_inserted, result.rows_updated, result.rows_deleted)
    assert counted == ("incremental", 1, 1, 1)
    assert replica_rows(warehouse, dataset) == lake_rows(sales)
    assert sorted(ids(client, dataset)) == sorted({*range(1, 21), 99} - {7})
    assert not leftovers(client, dataset)
    assert replica.snapshot_id == sales.refresh().metadata.current_snapshot_id


def test_replica_follows_its_columns(
    warehouse: BigQueryWarehouse, client: bigquery.Client, dataset: str, catalog: SqlCatalog, sales: Table
) -> None:
    replica = warehouse.replica("sales.keyed", f"{dataset}.orders")
    replica.sync(catalog)
    with sales.update_schema(allow_incompatible_changes=True) as update:
        update.rename_column("item", "thing").add_column("size", DoubleType()).delete_column("day")
    sales.append(
        pa.table(
            {"id": [100], "thing": ["new"], "tags": [["x"]], "size": [1.5]},
            schema=sales.refresh().scan().to_arrow().schema,
        )
    )
    assert replica.sync(catalog).method == "incremental"
    assert replica_rows(warehouse, dataset) == lake_rows(sales)
    names = [field.name for field in client.get_table(f"{dataset}.orders").schema]
    assert names == ["id", "thing", "tags", "size"]

    with sales.update_schema(allow_incompatible_changes=True) as update:
        update.delete_column("size")
    with sales.update_schema() as update:
        update.add_column("size", StringType())
    replica.sync(catalog)
    assert replica_rows(warehouse, dataset) == lake_rows(sales)
    assert not leftovers(client, dataset)


def test_layout_is_that_of_the_options(
    warehouse: BigQueryWarehouse, client: bigquery.Client, dataset: str, catalog: SqlCatalog, sales: Table
) -> None:
    """The staging table has it, and the service's clone keeps it; the emulator's clone does not."""
    layout = Layout(partition_by="day", partition_grain="month", cluster_by=("item",))
    replica = warehouse.replica("sales.keyed", f"{dataset}.orders", options=ReplicaOptions(layout=layout))
    replica.sync(catalog)
    created = [
        job.query
        for job in client.list_jobs(max_results=50)
        if isinstance(job, bigquery.QueryJob) and dataset in job.query and "_rows_" in job.query
    ]
    assert any("PARTITION BY DATE_TRUNC(`day`, MONTH) CLUSTER BY `item`" in sql for sql in created)
    assert any(sql.startswith("CREATE OR REPLACE TABLE") and " CLONE " in sql for sql in created)


def test_layout_that_bigquery_lacks_is_refused_before_anything_is_made(
    warehouse: BigQueryWarehouse, client: bigquery.Client, dataset: str, catalog: SqlCatalog, sales: Table
) -> None:
    options = ReplicaOptions(layout=Layout(cluster_by=("tags",)))
    with pytest.raises(ConfigurationError, match="tags, which is JSON"):
        warehouse.replica("sales.keyed", f"{dataset}.orders", options=options).sync(catalog)
    assert {table.table_id for table in client.list_tables(dataset)} <= {"_dwh_replicas"}


def test_name_that_bigquery_does_not_take_is_refused_before_anything_is_made(
    warehouse: BigQueryWarehouse, client: bigquery.Client, dataset: str, catalog: SqlCatalog
) -> None:
    hostile = "x`; DROP TABLE orders; --"
    catalog.create_table("sales.hostile", pa.schema([(hostile, pa.int64())]))
    with pytest.raises((ConfigurationError, UnsupportedError), match="DROP TABLE"):
        warehouse.replica("sales.hostile", f"{dataset}.orders").sync(catalog)
    assert not list(client.list_tables(dataset))


def test_replica_of_another_table_is_not_touched(
    warehouse: BigQueryWarehouse, client: bigquery.Client, dataset: str, catalog: SqlCatalog, sales: Table
) -> None:
    client.query_and_wait(f"CREATE TABLE `{dataset}`.`orders` AS SELECT 1 AS `id`")
    with pytest.raises(ConfigurationError, match="not a replica"):
        warehouse.replica("sales.keyed", f"{dataset}.orders").sync(catalog)
    assert ids(client, dataset) == [1]


def test_replicas_are_listed_and_dropped(
    warehouse: BigQueryWarehouse, client: bigquery.Client, dataset: str, catalog: SqlCatalog, sales: Table
) -> None:
    replica = warehouse.replica("sales.keyed", f"{dataset}.orders")
    replica.sync(catalog)
    assert (replica.table, replica.into) in [(found.table, found.into) for found in warehouse.replicas()]
    replica.drop()
    assert {table.table_id for table in client.list_tables(dataset)} == {"_dwh_replicas"}
    assert replica.state() is None


def test_two_syncs_at_once_end_right(
    warehouse: BigQueryWarehouse, dataset: str, catalog: SqlCatalog, lake: Path, sales: Table
) -> None:
    from dwh_tests.warehouses.lake import open_catalog

    replica = warehouse.replica("sales.keyed", f"{dataset}.orders")
    replica.sync(catalog)
    sales.delete("id < 5")
    sales.append(of([{**ROWS[0], "id": 50}]))
    together = threading.Barrier(3)

    def sync(_: int) -> str:
        other = open_catalog(lake)
        together.wait(timeout=30)
        return warehouse.replica("sales.keyed", f"{dataset}.orders").sync(other).method

    with ThreadPoolExecutor(3) as pool:
        methods = sorted(pool.map(sync, range(3)))
    assert methods.count("none") <= 2
    assert replica_rows(warehouse, dataset) == lake_rows(sales)


# --- Cut off ---


class Cut:
    """Lets so many changing requests pass, and refuses all others: to the warehouse, its client is dead."""

    def __init__(self, passes: int) -> None:
        self.left = passes
        self.refused = False

    def __call__(self, request: Request) -> Answer | None:
        if request.method == "GET" and not self.refused:
            return None
        self.left -= 1
        if self.left >= 0:
            return None
        self.refused = True
        return 400, b'{"error": {"code": 400, "message": "cut", "errors": [{"reason": "invalid"}]}}'


def change_rows(table: Table, number: int) -> None:
    table.delete(f"id = {number}")
    table.append(pa.table({"id": [100 + number]}, schema=pa.schema([SCHEMA.field("id")])))


def change_columns(table: Table, number: int) -> None:
    with table.update_schema() as update:
        update.rename_column(*(("item", "thing"), ("thing", "item"))[number % 2 - 1])
        update.add_column(f"size_{number}", LongType())
    change_rows(table, number)


def change_a_type(table: Table, number: int) -> None:
    """What no steps follow, so that the whole table has to be put in another's place."""
    with table.update_schema(allow_incompatible_changes=True) as update:
        update.delete_column("item")
    with table.update_schema() as update:
        update.add_column("item", (LongType(), StringType())[number % 2])
    change_rows(table, number)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "passes"),
    [(change_rows, 0), (change_columns, 1), (change_a_type, 2)],
    ids=["rows", "columns", "type"],
)
def test_sync_that_is_cut_off_is_finished_by_the_next(
    local_bigquery: LocalBigQuery,
    warehouse: BigQueryWarehouse,
    client: bigquery.Client,
    dataset: str,
    catalog: SqlCatalog,
    sales: Table,
    change: Callable[[Table, int], None],
    passes: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Cut before every so many requests that change something, until one sync is not cut any more."""
    monkeypatch.setattr("dwh_assets.warehouses.sync.LEASE", timedelta(0))
    replica = warehouse.replica("sales.keyed", f"{dataset}.orders")
    replica.sync(catalog)
    first, stride = passes, 3 if os.environ.get("DWH_EVERY_STEP") else 12
    for number in range(1, 20):
        before, held = ids(client, dataset), replica.snapshot_id
        change(sales.refresh(), number)
        after = sorted(sales.refresh().scan().to_arrow()["id"].to_pylist())
        cut = Cut(passes)
        with proxy(local_bigquery.port, request=cut) as address, suppress(DwhError):
            behind(address).replica("sales.keyed", f"{dataset}.orders").sync(catalog)
        seen, claimed = sorted(ids(client, dataset)), replica.snapshot_id
        where = f"cut after {passes} requests"
        assert seen in (sorted(before), after), where
        # Between the rows and the record of what no transaction holds, nothing is claimed.
        assert claimed is None or (claimed == held) is (seen == sorted(before)), where
        replica.sync(catalog)
        assert replica_rows(warehouse, dataset) == lake_rows(sales), where
        if not cut.refused:
            break
        passes += stride
    assert first + 6 < passes < first + 57
