"""A view in DuckDB over the table's own files, shown other ones by each sync."""

from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.table import Table
from pyiceberg.types import LongType

from dwh_assets.errors import ConfigurationError, UnsupportedError
from dwh_assets.warehouses.duckdb.extensions import load_extensions
from dwh_assets.warehouses.duckdb.warehouse import DuckDBWarehouse
from dwh_assets.warehouses.replica import Replica
from dwh_tests.servers.availability import package
from dwh_tests.warehouses.lake import commit_replace, snapshot_of

_MISSING = package("duckdb_extension_iceberg", "dwh_assets[bench]")()
pytestmark = pytest.mark.skipif(_MISSING is not None, reason=str(_MISSING))


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "w.duckdb"


@pytest.fixture
def replica(database: Path) -> Replica:
    return DuckDBWarehouse(database).replica("sales.orders", into="shown.orders", mode="external")


def rows(database: Path) -> list[tuple[object, ...]]:
    """What somebody sees who queries it."""
    with duckdb.connect(database, read_only=True) as connection:
        load_extensions(connection, "avro", "iceberg")
        return sorted(connection.execute("SELECT * FROM shown.orders").fetchall())


def test_a_sync_shows_the_newest_files(
    catalog: SqlCatalog, orders: Table, replica: Replica, database: Path
) -> None:
    result = replica.sync(catalog)
    assert (result.mode, result.method, result.reason) == ("external", "repointed", "it is the first sync")
    assert (result.rows_inserted, result.bytes) == (0, 0)
    first = snapshot_of(orders)
    orders.append(pa.table({"id": [4], "item": ["cap"]}))
    assert len(rows(database)) == 3  # until it is shown the new ones

    assert replica.sync(catalog).method == "repointed"
    assert rows(database)[-1] == (4, "cap")
    assert replica.sync(catalog).method == "none"
    state = replica.state()
    assert state is not None
    assert (state.rows, state.snapshot_id, replica.count()) == (4, snapshot_of(orders), 4)
    assert replica.verify(catalog, "full").equal
    assert replica.read(["item"], {"id": 4}).read_all().to_pylist() == [{"item": "cap"}]

    assert replica.sync(catalog, first).method == "repointed"
    assert len(rows(database)) == 3


def test_compacted_files_are_shown_too(
    catalog: SqlCatalog, orders: Table, replica: Replica, database: Path
) -> None:
    replica.sync(catalog)
    commit_replace(orders)
    assert replica.sync(catalog).method == "repointed"
    assert replica.snapshot_id == snapshot_of(catalog.load_table("sales.orders"))


def test_new_columns_are_shown(catalog: SqlCatalog, orders: Table, replica: Replica, database: Path) -> None:
    replica.sync(catalog)
    with orders.update_schema() as schema:
        schema.add_column("price", LongType())
        schema.rename_column("item", "article")
    orders.append(pa.table({"id": [4], "article": ["cap"], "price": [7]}))
    replica.sync(catalog)
    assert rows(database)[-1] == (4, "cap", 7)
    assert replica.read().schema.names == ["id", "article", "price"]


def test_a_table_of_somebody_else_is_left_alone(
    catalog: SqlCatalog, orders: Table, replica: Replica, database: Path
) -> None:
    with duckdb.connect(database) as connection:
        connection.execute("CREATE SCHEMA shown; CREATE TABLE shown.orders AS SELECT 1 AS a")
    with pytest.raises(ConfigurationError, match="not a replica"):
        replica.sync(catalog)
    assert rows(database) == [(1,)]


def test_a_copy_becomes_a_view_and_a_view_a_copy(
    catalog: SqlCatalog, orders: Table, replica: Replica, database: Path
) -> None:
    copy = DuckDBWarehouse(database).replica("sales.orders", into="shown.orders")
    assert copy.sync(catalog).method == "full"
    assert replica.sync(catalog).method == "repointed"
    assert len(rows(database)) == 3
    result = copy.sync(catalog)
    assert (result.method, result.reason) == ("full", "its mode was external, and is copy now")
    assert copy.verify(catalog, "full").equal
    replica.sync(catalog)
    replica.drop()
    assert replica.state() is None


def test_without_a_snapshot_there_is_nothing_to_show(catalog: SqlCatalog, database: Path) -> None:
    catalog.create_table("sales.orders", pa.schema([("id", pa.int64())]))
    with pytest.raises(UnsupportedError, match=r"sales\.orders has no snapshot yet"):
        DuckDBWarehouse(database).replica("sales.orders", mode="external").sync(catalog)
