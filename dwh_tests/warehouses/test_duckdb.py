"""A replica follows its table: what is loaded, when nothing is, and what stays when a load fails."""

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.table import Table
from pyiceberg.types import DoubleType, LongType, StringType

from dwh_assets.errors import ConfigurationError, DataError, DwhError, NotFoundError
from dwh_assets.warehouses.duckdb.warehouse import DuckDBWarehouse
from dwh_assets.warehouses.options import ReplicaOptions
from dwh_assets.warehouses.replica import Replica
from dwh_assets.warehouses.session import Layout
from dwh_tests.independent import iceberg_rows
from dwh_tests.warehouses.lake import commit_replace, query, snapshot_of


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "made" / "on demand" / "w.duckdb"


@pytest.fixture
def replica(database: Path) -> Replica:
    return DuckDBWarehouse(database, wait_seconds=5).replica("sales.orders", into="nyc.orders")


def held_rows(replica: Replica) -> Counter[tuple[Any, ...]]:
    return multiset(replica.read().read_all())


def multiset(rows: pa.Table) -> Counter[tuple[Any, ...]]:
    return Counter(tuple(sorted(row.items())) for row in rows.to_pylist())


# --- What is loaded ---


def test_first_sync_loads_all_rows_and_remembers_the_snapshot(
    catalog: SqlCatalog, orders: Table, replica: Replica, database: Path
) -> None:
    before = datetime.now(UTC)
    result = replica.sync(catalog, run_id="run-1")

    assert (result.mode, result.method, result.reason) == ("copy", "full", "it is the first load")
    assert (result.from_snapshot, result.to_snapshot) == (None, snapshot_of(orders))
    assert (result.rows_inserted, result.rows_updated, result.rows_deleted) == (3, 0, 0)
    assert result.bytes > 0
    assert result.statements > 0
    assert result.seconds > 0
    assert held_rows(replica) == multiset(iceberg_rows(orders.metadata_location))
    state = replica.state()
    assert state is not None
    assert (state.table, state.rows, state.run_id) == ("sales.orders", 3, "run-1")
    assert state.snapshot_id == state.logical_snapshot_id == replica.snapshot_id == snapshot_of(orders)
    assert state.synced_at is not None
    assert before <= state.synced_at <= datetime.now(UTC)
    assert query(database, "SELECT count(*) FROM nyc.orders") == [(3,)]


def test_without_into_the_replica_has_the_name_of_the_table(
    catalog: SqlCatalog, orders: Table, database: Path
) -> None:
    DuckDBWarehouse(database).replica("sales.orders").sync(orders)
    assert query(database, "SELECT count(*) FROM sales.orders") == [(3,)]


def test_a_replica_follows_its_table(catalog: SqlCatalog, orders: Table, replica: Replica) -> None:
    first = replica.sync(catalog)
    orders.append(pa.table({"id": [4], "item": ["ink"]}))
    orders.delete("id = 1")

    result = replica.sync(catalog)

    assert (result.from_snapshot, result.to_snapshot) == (first.to_snapshot, snapshot_of(orders))
    assert (result.method, result.rows_inserted, result.rows_deleted) == ("incremental", 1, 1)
    assert result.reason == f"2 rows changed since snapshot {first.to_snapshot}"
    assert held_rows(replica) == multiset(iceberg_rows(orders.metadata_location))


def test_a_named_snapshot_is_loaded_with_its_own_columns(orders: Table, replica: Replica) -> None:
    old = snapshot_of(orders)
    with orders.update_schema() as schema:
        schema.add_column("price", DoubleType())
    orders.append(pa.table({"id": [4], "item": ["ink"], "price": [0.5]}))

    replica.sync(orders)
    assert replica.sync(orders, old).to_snapshot == old

    assert held_rows(replica) == multiset(iceberg_rows(orders.metadata_location, old).select(["id", "item"]))
    assert replica.read().schema.names == ["id", "item"]


def test_a_table_without_rows_is_a_table_with_columns(catalog: SqlCatalog, database: Path) -> None:
    table = catalog.create_table("sales.empty", pa.schema([("id", pa.int64())]))
    replica = DuckDBWarehouse(database).replica("sales.empty")

    first, second = replica.sync(catalog), replica.sync(catalog)

    assert (first.method, first.to_snapshot, first.rows_inserted) == ("full", None, 0)
    assert (second.method, second.reason) == ("none", "the table has no snapshot yet")
    assert replica.read().read_all().num_rows == 0
    table.append(pa.table({"id": [1]}))
    table.delete("id = 1")
    assert replica.sync(catalog).to_snapshot == snapshot_of(table.refresh())
    assert replica.read().read_all().num_rows == 0


def test_many_files_and_deleted_rows_arrive(catalog: SqlCatalog, replica: Replica, orders: Table) -> None:
    for start in range(10, 110, 10):
        orders.append(pa.table({"id": range(start, start + 10), "item": [f"item {start}"] * 10}))
    orders.delete("id >= 25 and id < 55")
    replica.sync(catalog)
    expected = [(1, "pen"), (2, None), (3, "ink")]
    expected += [(i, f"item {i // 10 * 10}") for i in range(10, 110) if not 25 <= i < 55]
    assert sorted(replica.read().read_all().to_pydict()["id"]) == [i for i, _ in expected]
    assert held_rows(replica) == Counter((("id", i), ("item", item)) for i, item in expected)


def test_a_replica_goes_to_the_file_in_portions(
    catalog: SqlCatalog, orders: Table, replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dwh_assets.warehouses.source._STREAM_BYTES", 1)
    orders.append(pa.table({"id": [4], "item": ["ink"]}))
    lines: list[str] = []
    replica.sync(catalog, on_progress=lines.append)
    assert held_rows(replica) == multiset(iceberg_rows(orders.metadata_location))
    assert lines[0].startswith("sales.orders into nyc.orders: ")


def test_a_reload_does_not_make_the_file_grow_without_end(catalog: SqlCatalog, database: Path) -> None:
    rows = pa.table({"id": range(400_000)})
    table = catalog.create_table("sales.big", rows.schema)
    table.append(rows)
    replica = DuckDBWarehouse(database).replica("sales.big")
    sizes = []
    for _ in range(5):
        table.overwrite(rows)
        replica.sync(catalog)
        sizes.append(database.stat().st_size)
    # The old replica and the new one lie in the file together, and that is all.
    assert sizes[-1] <= 2.5 * sizes[0]


# --- When the columns change ---


def test_added_renamed_widened_moved_and_dropped_columns(
    catalog: SqlCatalog, replica: Replica, database: Path
) -> None:
    arrow = pa.schema([("id", pa.int32()), ("item", pa.string()), ("gone", pa.bool_())])
    table = catalog.create_table("sales.orders", arrow)
    table.append(pa.table({"id": [1], "item": ["pen"], "gone": [True]}, schema=arrow))
    replica.sync(catalog)
    with table.update_schema() as schema:
        schema.delete_column("gone")
        schema.rename_column("item", "Article")
        schema.update_column("id", LongType())
        schema.add_column("note", StringType(), doc="new")
        schema.move_first("note")
    table.append(pa.table({"note": ["n"], "id": [2**40], "Article": ["ink"]}))

    result = replica.sync(catalog)

    assert (result.method, result.rows_inserted) == ("incremental", 1)
    assert query(
        database, "SELECT column_name, data_type FROM duckdb_columns() WHERE schema_name = 'nyc'"
    ) == [
        ("id", "BIGINT"),
        ("Article", "VARCHAR"),
        ("note", "VARCHAR"),
    ]
    assert replica.read().schema.names == ["note", "id", "Article"]
    assert sorted(query(database, "SELECT id, Article, note FROM nyc.orders")) == [
        (1, "pen", None),
        (2**40, "ink", "n"),
    ]


def test_columns_that_change_without_a_snapshot_are_followed_once(
    catalog: SqlCatalog, orders: Table, replica: Replica
) -> None:
    replica.sync(catalog)
    with orders.update_schema() as schema:
        schema.add_column("price", DoubleType())

    result = replica.sync(catalog)
    assert (result.method, result.rows_inserted) == ("incremental", 0)
    assert replica.read().schema.names == ["id", "item", "price"]
    assert replica.sync(catalog).method == "none"
    # Naming the snapshot that is current anyway changes nothing.
    assert replica.sync(catalog, snapshot_of(orders)).method == "none"


def test_going_back_to_before_a_column_empties_it(orders: Table, replica: Replica) -> None:
    old = snapshot_of(orders)
    with orders.update_schema() as schema:
        schema.add_column("price", DoubleType())
    orders.overwrite(pa.table({"id": [2], "item": pa.array([None], pa.string()), "price": [0.5]}), "id = 2")
    replica.sync(orders)
    orders.manage_snapshots().rollback_to_snapshot(old).commit()

    result = replica.sync(orders.refresh())

    # The table keeps its newest columns, although the snapshot is older than one of them.
    assert (result.method, result.rows_inserted, result.rows_deleted) == ("incremental", 1, 1)
    assert sorted(replica.read().read_all().to_pylist(), key=lambda row: row["id"]) == [
        {"id": 1, "item": "pen", "price": None},
        {"id": 2, "item": None, "price": None},
        {"id": 3, "item": "ink", "price": None},
    ]


def test_a_column_that_comes_back_with_an_older_snapshot_has_its_values(
    orders: Table, replica: Replica
) -> None:
    old = snapshot_of(orders)
    with orders.update_schema() as schema:
        schema.delete_column("item")
    replica.sync(orders)
    orders.append(pa.table({"id": [4]}))

    assert replica.sync(orders, old).reason == "the column item is back, with its values"

    assert held_rows(replica) == multiset(iceberg_rows(orders.metadata_location, old))


def test_a_new_column_does_not_take_the_values_of_one_that_was_kept(orders: Table, database: Path) -> None:
    options = ReplicaOptions(dropped_columns="keep")
    replica = DuckDBWarehouse(database).replica("sales.orders", options=options)
    replica.sync(orders)
    with orders.update_schema() as schema:
        schema.delete_column("item")
    orders.append(pa.table({"id": [4]}))
    assert replica.sync(orders).method == "incremental"
    assert query(database, "SELECT item FROM sales.orders WHERE id = 1") == [("pen",)]
    with orders.update_schema() as schema:
        schema.add_column("Item", StringType())

    assert replica.sync(orders).reason == "it has a column Item already, which is another one"

    assert replica.read(["Item"]).read_all().to_pydict() == {"Item": [None] * 4}


def test_columns_change_under_an_index(orders: Table, database: Path) -> None:
    options = ReplicaOptions(layout=Layout(indexes=(("id",),)))
    replica = DuckDBWarehouse(database).replica("sales.orders", options=options)
    replica.sync(orders)
    with orders.update_schema() as schema:
        schema.rename_column("item", "thing")
    assert replica.sync(orders).reason == "its columns changed, and indexes hold on to the old ones"
    assert replica.read().schema.names == ["id", "thing"]
    assert query(database, "SELECT count(*) FROM duckdb_indexes()") == [(1,)]


# --- When nothing is loaded ---


def test_a_replica_that_is_current_is_left_alone(
    catalog: SqlCatalog, orders: Table, replica: Replica, database: Path
) -> None:
    replica.sync(catalog, run_id="run-1")
    state, written = replica.state(), database.stat().st_mtime_ns

    result = replica.sync(catalog, run_id="run-2")

    assert result.method == "none"
    assert str(snapshot_of(orders)) in result.reason
    assert (result.rows_inserted, result.rows_deleted, result.bytes) == (0, 0, 0)
    assert result.from_snapshot == result.to_snapshot == snapshot_of(orders)
    assert replica.state() == state
    assert database.stat().st_mtime_ns == written


@pytest.mark.parametrize("recorded", [True, False], ids=["ours", "another engine's"])
def test_a_compaction_moves_the_replica_without_a_row(
    catalog: SqlCatalog, orders: Table, replica: Replica, recorded: bool
) -> None:
    replica.sync(catalog)
    before = snapshot_of(orders)
    compacted = commit_replace(orders, **({"dwh.logical-snapshot-id": str(before)} if recorded else {}))
    for data_file in orders.scan().plan_files():
        orders.io.delete(data_file.file.file_path)  # whoever reads a row now fails

    result = replica.sync(catalog)

    assert (result.method, result.rows_inserted) == ("none", 0)
    assert (result.from_snapshot, result.to_snapshot) == (before, snapshot_of(compacted))
    state = replica.state()
    assert state is not None
    assert (state.snapshot_id, state.logical_snapshot_id, state.rows) == (snapshot_of(compacted), before, 3)


def test_a_table_made_again_is_loaded_again(catalog: SqlCatalog, replica: Replica) -> None:
    catalog.create_table("sales.orders", pa.schema([("id", pa.int64())]))
    replica.sync(catalog)
    catalog.drop_table("sales.orders")
    catalog.create_table("sales.orders", pa.schema([("other", pa.string())]))
    assert replica.sync(catalog).reason == "sales.orders was dropped and created again"
    assert replica.read().schema.names == ["other"]


def test_a_replica_dropped_by_hand_is_loaded_again(
    catalog: SqlCatalog, orders: Table, replica: Replica, database: Path
) -> None:
    replica.sync(catalog)
    with duckdb.connect(database) as connection:
        connection.execute("DROP TABLE nyc.orders")
    assert replica.sync(catalog).reason == "the replica's table was dropped"
    assert replica.read().read_all().num_rows == 3


def test_a_table_of_somebody_else_is_filled_once_it_has_the_columns(orders: Table, database: Path) -> None:
    replica = DuckDBWarehouse(database).replica("sales.orders", options=ReplicaOptions(create_table=False))
    database.parent.mkdir(parents=True)
    with duckdb.connect(database) as connection:
        connection.execute("CREATE SCHEMA sales; CREATE TABLE sales.orders (own INT, ITEM TEXT, id BIGINT)")
    assert replica.sync(orders).rows_inserted == 3
    with orders.update_schema() as schema:
        schema.add_column("price", DoubleType())
    with pytest.raises(ConfigurationError, match="has no column price, and create_table is false"):
        replica.sync(orders)
    with duckdb.connect(database) as connection:
        connection.execute("ALTER TABLE sales.orders ADD COLUMN price DOUBLE")

    assert replica.sync(orders).reason == "its columns changed, and create_table is false"
    assert held_rows(replica) == multiset(iceberg_rows(orders.metadata_location))


def test_a_replica_of_the_first_release_is_loaded_again(
    orders: Table, replica: Replica, database: Path
) -> None:
    database.parent.mkdir(parents=True)
    with duckdb.connect(database) as connection:
        connection.execute("""
            CREATE SCHEMA nyc; CREATE TABLE nyc.orders AS SELECT 1 AS id, 'old' AS item;
            CREATE TABLE _dwh_replicas (
                schema_name VARCHAR NOT NULL, table_name VARCHAR NOT NULL, iceberg_table VARCHAR NOT NULL,
                table_uuid VARCHAR NOT NULL, snapshot_id BIGINT, logical_snapshot_id BIGINT,
                schema_id INTEGER NOT NULL, row_count BIGINT NOT NULL,
                synced_at TIMESTAMP WITH TIME ZONE NOT NULL, run_id VARCHAR)
        """)
        values = ["nyc", "orders", "sales.orders", str(orders.metadata.table_uuid), snapshot_of(orders)]
        connection.execute(
            "INSERT INTO _dwh_replicas VALUES (?, ?, ?, ?, ?, 1, 0, 1, '2025-01-01 00:00:00+00', NULL)",
            values,
        )
    assert replica.state() is None
    other = DuckDBWarehouse(database).replica("sales.returns", into="nyc.orders")
    with pytest.raises(ConfigurationError, match=r"is a replica of sales\.orders"):
        other.sync(orders.catalog.create_table("sales.returns", orders.schema()))

    assert (replica.sync(orders).method, replica.sync(orders).method) == ("full", "none")

    assert held_rows(replica) == multiset(iceberg_rows(orders.metadata_location))


# --- What is refused ---


def test_what_duckdb_refuses_names_the_table(orders: Table, replica: Replica) -> None:
    indexed = ReplicaOptions(layout=Layout(indexes=(("nothing",),)))
    with pytest.raises(ConfigurationError, match=r'sales\.orders: DuckDB says .* column named "nothing"'):
        replace(replica, options=indexed).sync(orders)
    replica.sync(orders)
    with pytest.raises(DataError, match=r"sales\.orders: DuckDB says .* 'abc'"):
        replica.read(where={"id": "abc"})


def test_a_load_that_fails_leaves_the_settings_of_the_database(orders: Table, database: Path) -> None:
    database.parent.mkdir(parents=True)
    with duckdb.connect(database) as connection:
        connection.execute("CREATE SCHEMA sales; CREATE TABLE sales.orders (id BIGINT, item INT)")
        warehouse = DuckDBWarehouse(connection.cursor)
        replica = warehouse.replica("sales.orders", options=ReplicaOptions(create_table=False))
        with pytest.raises(DataError, match="Could not convert string 'pen'"):
            replica.sync(orders)
        assert connection.execute("SELECT current_setting('preserve_insertion_order')").fetchone() == (True,)


def test_a_table_that_is_no_replica_is_never_replaced(
    catalog: SqlCatalog, orders: Table, replica: Replica, database: Path
) -> None:
    database.parent.mkdir(parents=True)
    with duckdb.connect(database) as connection:
        connection.execute("CREATE SCHEMA NYC; CREATE TABLE NYC.Orders AS SELECT 'precious' AS a")
    with pytest.raises(ConfigurationError, match=r"nyc\.orders is not a replica"):
        replica.sync(catalog)
    replica.drop()
    assert query(database, "SELECT * FROM nyc.orders") == [("precious",)]


def test_a_replica_of_another_table_is_never_replaced(
    catalog: SqlCatalog, orders: Table, replica: Replica, database: Path
) -> None:
    catalog.create_table("sales.returns", orders.schema())
    replica.sync(catalog)
    other = DuckDBWarehouse(database).replica("sales.returns", into="NYC.ORDERS")
    with pytest.raises(ConfigurationError, match=r"a replica of sales\.orders, not of sales\.returns"):
        other.sync(catalog)
    assert other.snapshot_id is None
    other.drop()
    assert replica.sync(catalog).method == "none"


def test_what_is_not_there_is_named(catalog: SqlCatalog, orders: Table, database: Path) -> None:
    warehouse = DuckDBWarehouse(database)
    with pytest.raises(NotFoundError, match=r"no table sales\.nothing"):
        warehouse.replica("sales.nothing").sync(catalog)
    with pytest.raises(NotFoundError, match="no snapshot 12345"):
        warehouse.replica("sales.orders").sync(catalog, 12345)
    with pytest.raises(NotFoundError, match=r"sales\.orders was never loaded"):
        warehouse.replica("sales.orders").read()
    with pytest.raises(
        ConfigurationError, match=r"replica of sales\.nothing, but the table given is sales\.orders"
    ):
        warehouse.replica("sales.nothing").sync(orders)
    with pytest.raises(NotFoundError, match=r"missing\.duckdb"):
        DuckDBWarehouse(database.with_name("missing.duckdb")).replica("sales.orders").read()


def test_a_wrong_declaration_is_named(database: Path) -> None:
    with pytest.raises(ConfigurationError, match="in memory"):
        DuckDBWarehouse(":memory:")
    with pytest.raises(ConfigurationError, match="no name of a table"):
        DuckDBWarehouse(database).replica("sales.orders", into="nyc.")


# --- What stays when a load fails ---


def test_a_load_that_fails_leaves_the_old_replica(
    catalog: SqlCatalog, orders: Table, replica: Replica
) -> None:
    first = replica.sync(catalog)
    before = replica.state(), held_rows(replica)
    orders.append(pa.table({"id": [4], "item": ["ink"]}))
    known = {task.file.file_path for task in orders.scan(snapshot_id=first.to_snapshot).plan_files()}
    (lost,) = {task.file.file_path for task in orders.scan().plan_files()} - known
    content = orders.io.new_input(lost).open().read()
    orders.io.delete(lost)

    with pytest.raises(NotFoundError, match=r"sales\.orders"):
        replica.sync(catalog)

    assert (replica.state(), held_rows(replica)) == before
    with orders.io.new_output(lost).create() as stream:
        stream.write(content)
    assert replica.sync(catalog).method == "incremental"
    assert held_rows(replica) == multiset(iceberg_rows(orders.metadata_location))


def test_an_error_of_the_caller_comes_back_as_it_is(
    catalog: SqlCatalog, orders: Table, replica: Replica
) -> None:
    class Stopped(Exception):
        pass

    def stop(_: str) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        replica.sync(catalog, on_progress=stop)
    assert replica.state() is None
    assert replica.sync(catalog).method == "full"


# --- Reading ---


def test_columns_and_equality(catalog: SqlCatalog, orders: Table, replica: Replica) -> None:
    replica.sync(catalog)
    assert replica.read(["item"], {"id": 1}).read_all().to_pylist() == [{"item": "pen"}]
    assert replica.read(["item", "id"], {"item": None}).read_all().to_pylist() == [{"item": None, "id": 2}]
    assert replica.read(where={"id": 1, "item": "ink"}).read_all().num_rows == 0
    assert replica.read(where={"item": "' OR true --"}).read_all().num_rows == 0
    for asked in (lambda: replica.read(["Item"]), lambda: replica.read(where={"1=1 --": 1})):
        with pytest.raises(NotFoundError, match="has no column"):
            asked()


def test_a_reader_that_is_dropped_lets_go_of_the_file(
    catalog: SqlCatalog, orders: Table, replica: Replica, database: Path
) -> None:
    replica.sync(catalog)
    for reader in (replica.read(), replica.read()):
        assert reader.schema.names == ["id", "item"]
    started = replica.read()
    started.read_next_batch()
    del reader, started
    duckdb.connect(database, config={"threads": 1}).close()


def test_drop_forgets_the_replica(
    catalog: SqlCatalog, orders: Table, replica: Replica, database: Path
) -> None:
    replica.drop()
    replica.sync(catalog)
    replica.drop()
    assert replica.state() is None
    with pytest.raises(DwhError, match="never loaded"):
        replica.read()
    assert query(database, "SELECT count(*) FROM main._dwh_replicas") == [(0,)]
    assert replica.sync(catalog).reason == "it is the first load"


def test_rows_are_sorted_and_indexed_as_declared(catalog: SqlCatalog, orders: Table, database: Path) -> None:
    layout = Layout(cluster_by=("item", "id"), indexes=(("id",),))
    replica = DuckDBWarehouse(database).replica("sales.orders", options=ReplicaOptions(layout=layout))
    orders.append(pa.table({"id": [9, 5], "item": ["cap", "ink"]}))
    replica.sync(catalog)
    assert query(database, "SELECT id FROM sales.orders ORDER BY rowid") == [(9,), (3,), (5,), (1,), (2,)]
    indexed = "SELECT expressions FROM duckdb_indexes() WHERE table_name = 'orders'"
    assert query(database, indexed) == [("[id]",)]
    orders.append(pa.table({"id": [4], "item": ["cap"]}))
    assert replica.sync(catalog).method == "incremental"
    assert query(database, "SELECT item FROM sales.orders WHERE id = 4") == [("cap",)]
