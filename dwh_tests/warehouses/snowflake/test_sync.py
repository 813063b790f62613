"""Replicas in Snowflake, brought to versions of a real table by the engine of all warehouses."""

import logging
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from threading import Thread
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.types import IntegerType, ListType, LongType, NestedField, StringType, TimestamptzType
from snowflake.connector import SnowflakeConnection
from snowflake.connector.cursor import SnowflakeCursor

from dwh_assets.warehouses.replica import Replica
from dwh_assets.warehouses.session import Purpose
from dwh_assets.warehouses.snowflake.warehouse import SnowflakeWarehouse
from dwh_tests.independent import iceberg_rows
from dwh_tests.servers.fakesnow import FakeSnow
from dwh_tests.warehouses.lake import commit_replace
from dwh_tests.warehouses.snowflake.conftest import Connect

PAID = datetime(2024, 1, 1, tzinfo=UTC)
ROWS = [(1, "pen", PAID, 1, ["a", None]), (2, None, None, None, None), (3, "ink", PAID, 3, [])]
Rows = Counter[tuple[Any, ...]]


@pytest.fixture
def sales(catalog: SqlCatalog) -> Table:
    """Orders by their number, with a column that Snowflake holds in a VARIANT."""
    schema = Schema(
        NestedField(1, "id", LongType(), required=True),
        NestedField(2, "item", StringType(), required=False),
        NestedField(3, "paid at", TimestamptzType(), required=False),
        NestedField(4, "amount", IntegerType(), required=False),
        NestedField(5, "tags", ListType(6, StringType(), False), required=False),
        identifier_field_ids=[1],
    )
    table = catalog.create_table("sales.sold", schema)
    table.append(sold(table, *ROWS))
    # In another file, so that to read what changed is less than to read it all.
    table.append(sold(table, *((number, "same", None, number, None) for number in range(100, 120))))
    return table


def sold(table: Table, *rows: tuple[Any, ...]) -> pa.Table:
    schema = table.schema().as_arrow()
    return pa.Table.from_pylist([dict(zip(schema.names, row, strict=True)) for row in rows], schema)


@pytest.fixture
def replica(warehouse: SnowflakeWarehouse) -> Replica:
    return warehouse.replica("sales.sold", into="Analytics.sold")


def multiset(rows: pa.Table) -> Rows:
    return Counter(tuple((name, str(value)) for name, value in row.items()) for row in rows.to_pylist())


def require_same(replica: Replica, table: Table) -> None:
    """Compare all rows with what another reader of the lake finds, and the claimed snapshot."""
    table.refresh()
    snapshot = table.current_snapshot()
    assert snapshot
    assert replica.snapshot_id == snapshot.snapshot_id
    assert multiset(replica.read().read_all()) == multiset(lake_rows(table))


def lake_rows(table: Table) -> pa.Table:
    """All rows, by DuckDB, under today's names: it shows columns that were added later not at all."""
    found = iceberg_rows(table.metadata_location)
    return found.select([name for name in table.schema().column_names if name in found.column_names])


def test_a_replica_follows_what_changes(
    catalog: SqlCatalog, sales: Table, replica: Replica, connect: Connect
) -> None:
    first = replica.sync(catalog)
    assert (first.method, first.rows_inserted) == ("full", 23)
    require_same(replica, sales)

    sales.upsert(sold(sales, (2, "ink'; --", PAID, 5, ["z"]), (4, "new", None, 4, None)))
    second = replica.sync(catalog)
    assert (second.method, second.rows_inserted, second.rows_updated) == ("incremental", 1, 1)
    require_same(replica, sales)

    sales.delete("id = 1")
    third = replica.sync(catalog)
    assert (third.method, third.rows_deleted) == ("incremental", 1)
    require_same(replica, sales)

    commit_replace(sales)
    assert replica.sync(catalog).method == "none"
    with connect() as connection:
        cursor = connection.cursor().execute('SELECT id, item, "paid at" FROM analytics.sold ORDER BY id')
        assert cursor
        assert [row[:2] for row in cursor.fetchall()][:3] == [(2, "ink'; --"), (3, "ink"), (4, "new")]


def test_columns_follow_the_table(catalog: SqlCatalog, sales: Table, replica: Replica) -> None:
    replica.sync(catalog)
    with sales.update_schema() as update:
        update.add_column("note", StringType()).rename_column("item", "thing")
        update.update_column("amount", LongType()).delete_column("tags")
    assert replica.sync(catalog).method == "incremental"
    assert replica.read().schema.names == ["id", "thing", "paid at", "amount", "note"]
    assert replica.read(["id", "amount"], {"thing": "ink"}).read_all().to_pylist() == [{"id": 3, "amount": 3}]
    sales.append(sold(sales, (9, "nib", None, 2**40, "first")))
    assert replica.sync(catalog).method == "incremental"
    assert replica.read(where={"id": 9}).read_all()["amount"].to_pylist() == [2**40]
    assert replica.count() == 24


def test_columns_that_cannot_be_followed_are_loaded_again(
    catalog: SqlCatalog, sales: Table, replica: Replica
) -> None:
    replica.sync(catalog)
    with sales.update_schema() as update:
        update.rename_column("item", "between")
    with sales.update_schema() as update:
        update.rename_column("amount", "item")
    with sales.update_schema() as update:
        update.rename_column("between", "amount")
    result = replica.sync(catalog)
    assert (result.method, result.rows_inserted, result.rows_deleted) == ("full", 23, 23)
    assert "exchanged their names" in result.reason
    assert replica.read(["item", "amount"], {"id": 3}).read_all().to_pylist() == [
        {"item": 3, "amount": "ink"}
    ]


def test_without_a_key_equal_rows_are_counted(catalog: SqlCatalog, warehouse: SnowflakeWarehouse) -> None:
    table = catalog.create_table("sales.plain", pa.schema([("n", pa.int64()), ("f", pa.float64())]))
    rows = [{"n": 1, "f": float("nan")}, {"n": 2, "f": -0.0}, {"n": None, "f": None}]
    table.append(pa.Table.from_pylist([*rows, *rows, *rows], table.schema().as_arrow()))
    replica = warehouse.replica("sales.plain")
    replica.sync(catalog)
    table.overwrite(pa.Table.from_pylist([*rows, rows[0]], table.schema().as_arrow()))
    result = replica.sync(catalog)
    assert (result.method, result.rows_deleted) == ("incremental", 5)
    require_same(replica, table)


def test_a_table_that_is_loaded_by_files(catalog: SqlCatalog, sales: Table, connect: Connect) -> None:
    replica = SnowflakeWarehouse(connect, insert_below=0).replica("sales.sold")
    replica.sync(catalog)
    require_same(replica, sales)
    sales.upsert(sold(sales, (1, "quill", PAID, 1, ["b"])))
    assert replica.sync(catalog).method == "incremental"
    require_same(replica, sales)


def test_replicas_are_found_and_dropped(
    catalog: SqlCatalog, sales: Table, replica: Replica, warehouse: SnowflakeWarehouse
) -> None:
    replica.sync(catalog)
    warehouse.replica("sales.sold").sync(catalog)
    assert [found.into for found in warehouse.replicas()] == ["ANALYTICS.SOLD", "SALES.SOLD"]
    replica.drop()
    assert [found.into for found in warehouse.replicas()] == ["SALES.SOLD"]
    assert replica.state() is None


# --- Several at once, and ends in the middle ---


@pytest.mark.slow
def test_two_syncs_at_once_end_with_one_copy_of_each_row(
    catalog: SqlCatalog, sales: Table, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dwh_assets.warehouses.sync.LEASE", timedelta(0))
    replicas = [SnowflakeWarehouse(connect).replica("sales.sold") for _ in range(2)]
    replicas[0].sync(catalog)
    sales.upsert(sold(sales, (2, "both", PAID, 5, ["z"]), (4, "new", None, 4, None)))
    failures: list[BaseException] = []

    def sync(replica: Replica) -> None:
        try:
            replica.sync(sales)
        except BaseException as error:
            failures.append(error)

    threads = [Thread(target=sync, args=(one,)) for one in replicas]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    require_same(replicas[0], sales)


class Killed(BaseException):
    """The process has ended: nothing that it would say reaches the server."""


@contextmanager
def killed_at(connect: Connect, fakesnow: FakeSnow, statement: int) -> Iterator[SnowflakeWarehouse]:
    """A warehouse whose client falls silent at its `statement`th word, without ending its session.

    The service ends such a session, and what it had not committed, by itself; the emulator does when asked.
    """
    sent = count(1)
    tokens: list[str] = []

    class Dying(SnowflakeCursor):
        def execute(self, *arguments: Any, **options: Any) -> Any:
            if next(sent) >= statement:
                raise Killed
            return super().execute(*arguments, **options)

    @contextmanager
    def dying() -> Iterator[SnowflakeConnection]:
        with connect() as connection:
            tokens.append(connection.rest.token)  # type: ignore[union-attr,arg-type]
            make = connection.cursor
            connection.cursor = lambda cursor_class=Dying: make(cursor_class)  # type: ignore[method-assign]
            yield connection

    try:
        yield SnowflakeWarehouse(dying)
    finally:
        for token in tokens:
            fakesnow.end_session(token)


def change_rows(table: Table) -> None:
    table.upsert(sold(table, (2, "two", PAID, 5, ["z"]), (4, "new", None, 4, None)))


def change_columns(table: Table) -> None:
    change_rows(table)
    with table.update_schema() as update:
        update.rename_column("item", "thing")


def exchange_columns(table: Table) -> None:
    for old, new in (("item", "between"), ("amount", "item"), ("between", "amount")):
        with table.update_schema() as update:
            update.rename_column(old, new)
    table.append(sold(table, (4, "new", None, 4, None)))


@pytest.mark.slow
@pytest.mark.parametrize("change", [None, change_columns, exchange_columns])
def test_a_sync_may_be_killed_at_every_statement(
    catalog: SqlCatalog,
    sales: Table,
    warehouse: SnowflakeWarehouse,
    connect: Connect,
    fakesnow: FakeSnow,
    monkeypatch: pytest.MonkeyPatch,
    change: Any,
) -> None:
    monkeypatch.setattr("dwh_assets.warehouses.sync.LEASE", timedelta(0))
    before = first = None
    replica = warehouse.replica("sales.sold")
    if change:
        replica.sync(catalog)
        before = multiset(replica.read().read_all())
        first = replica.snapshot_id
        change(sales)
    for statement in count(1, 1 if os.environ.get("DWH_EVERY_STEP") else 5):
        into = f"sales.killed_{statement}"
        replica = warehouse.replica("sales.sold", into)
        if change:
            replica.sync(catalog, first)
        with killed_at(connect, fakesnow, statement) as dying:
            try:
                dying.replica("sales.sold", into).sync(catalog)
                break
            except Killed:
                pass
        require_old_or_new(replica, before, sales)
        replica.sync(catalog)
        require_same(replica, sales)
    assert statement > 10
    require_same(replica, sales)
    with warehouse.open(Purpose("", None)) as session:
        assert session.state_tables()


def require_old_or_new(replica: Replica, before: Rows | None, table: Table) -> None:
    """Readers never see half of a sync, and no snapshot is claimed without its rows."""
    state = replica.state()
    if state is None or state.snapshot_id is None:
        return
    held = multiset(replica.read().read_all())
    snapshot = table.current_snapshot()
    assert snapshot
    is_new = state.snapshot_id == snapshot.snapshot_id
    assert held == (multiset(lake_rows(table)) if is_new else before)


# --- As Dagster connects, and what it must not tell ---


def test_dagsters_resource_is_a_factory_and_its_password_is_never_said(
    catalog: SqlCatalog, sales: Table, fakesnow: FakeSnow, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    from dagster_snowflake import SnowflakeResource

    secret = "pass-word-that-nobody-says"
    resource = SnowflakeResource(
        account=fakesnow.account,
        user=fakesnow.user,
        password=secret,
        database=database,
        schema="PUBLIC",
        additional_snowflake_connection_args=fakesnow.connection_options,
    )
    caplog.set_level(logging.DEBUG)
    warehouse = SnowflakeWarehouse(resource.get_connection)
    replica = warehouse.replica("sales.sold")
    replica.sync(catalog, run_id="run-9")
    require_same(replica, sales)
    said = caplog.text + repr(warehouse) + repr(replica) + repr(replica.state())
    assert "sales.sold" in said
    assert secret not in said
