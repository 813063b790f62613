"""A replica that somebody changed by hand is noticed, and only what differs is loaded again."""

from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.transforms import IdentityTransform
from pyiceberg.types import LongType, NestedField, StringType

from dwh_assets.errors import ConfigurationError, NotFoundError
from dwh_assets.ledger import Ledger
from dwh_assets.warehouses.base import Mode
from dwh_assets.warehouses.duckdb.warehouse import DuckDBWarehouse
from dwh_assets.warehouses.options import ReplicaOptions
from dwh_assets.warehouses.replica import Replica
from dwh_tests.warehouses.lake import snapshot_of

SCHEMA = Schema(
    NestedField(1, "place", StringType(), required=False),
    NestedField(2, "id", LongType(), required=True),
    NestedField(3, "item", StringType(), required=False),
    identifier_field_ids=[2],
)
ROWS = {"place": ["eu", "eu", "us", None], "id": [1, 2, 3, 4], "item": ["pen", None, "ink", "nib"]}


def make(catalog: SqlCatalog, spec: PartitionSpec | None = None) -> None:
    table = catalog.create_table("sales.stock", SCHEMA, partition_spec=spec or PartitionSpec())
    table.append(pa.table(ROWS, schema=SCHEMA.as_arrow()))


def change(database: Path, statement: str) -> None:
    with duckdb.connect(database) as connection:
        connection.execute(statement)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "w.duckdb"


def synced(catalog: SqlCatalog, database: Path, mode: Mode = "copy") -> Replica:
    replica = DuckDBWarehouse(database).replica("sales.stock", mode=mode)
    replica.sync(catalog)
    return replica


@pytest.mark.parametrize("partitioned", [True, False], ids=["partitioned", "by key"])
def test_only_the_parts_that_differ_are_loaded_again(
    catalog: SqlCatalog, database: Path, partitioned: bool
) -> None:
    spec = PartitionSpec(PartitionField(1, 1000, IdentityTransform(), "place"))
    make(catalog, spec if partitioned else None)
    replica = synced(catalog, database)
    assert replica.verify(catalog).equal
    change(database, "UPDATE sales.stock SET item = 'cap' WHERE id = 3; DELETE FROM sales.stock WHERE id = 4")

    report = replica.verify(catalog)
    assert not report.equal
    assert (report.rows_in_table, report.rows_in_replica) == (4, 3)
    result = replica.repair(catalog, report)

    assert (result.method, result.rows_inserted, result.rows_deleted) == ("incremental", 2, 1)
    assert result.reason.startswith("repair of ")
    for level in ("count", "fingerprint", "full"):
        assert replica.verify(catalog, level).equal
    held = sorted(replica.read().read_all().to_pylist(), key=lambda row: row["id"])
    assert held == [dict(zip(ROWS, row, strict=True)) for row in zip(*ROWS.values(), strict=True)]
    assert replica.sync(catalog).method == "none"


def test_without_parts_all_rows_are_loaded_again(catalog: SqlCatalog, database: Path, orders: object) -> None:
    replica = DuckDBWarehouse(database).replica("sales.orders")
    replica.sync(catalog)
    change(database, "UPDATE sales.orders SET item = 'cap' WHERE id = 3")
    result = replica.repair(catalog, replica.verify(catalog))
    assert (result.method, result.reason, result.rows_inserted) == ("full", "repair", 3)
    assert replica.verify(catalog, "full").equal


def test_history_is_kept_by_a_repair(catalog: SqlCatalog, database: Path) -> None:
    make(catalog)
    replica = synced(catalog, database, "merge_into")
    change(database, "UPDATE sales.stock SET item = 'cap' WHERE id = 3")
    report = replica.verify(catalog)
    assert not report.equal
    replica.repair(catalog, report)
    assert replica.verify(catalog, "full").equal
    with duckdb.connect(database) as connection:
        rows = connection.execute("SELECT item, _dwh_valid_to IS NULL FROM sales.stock WHERE id = 3")
        assert sorted(rows.fetchall()) == [("cap", False), ("ink", True)]


def test_drift_that_a_change_meets_is_loaded_again(catalog: SqlCatalog, database: Path) -> None:
    make(catalog)
    replica = synced(catalog, database)
    change(database, "DELETE FROM sales.stock WHERE id = 3")
    catalog.load_table("sales.stock").delete("id = 3")
    result = replica.sync(catalog)
    assert result.method == "full"
    assert "1 rows were to be deleted, and 0 were" in result.reason
    assert replica.verify(catalog, "full").equal
    state = replica.state()
    assert state is not None
    assert state.rows == 3


def test_a_report_on_another_replica_mends_nothing(catalog: SqlCatalog, database: Path) -> None:
    make(catalog)
    replica = synced(catalog, database)
    other = DuckDBWarehouse(database).replica("sales.stock", into="sales.other")
    other.sync(catalog)
    with pytest.raises(ConfigurationError, match=r"report on sales\.stock"):
        other.repair(catalog, replica.verify(catalog))


def test_the_snapshot_that_is_held_stays_pinned(catalog: SqlCatalog, database: Path, tmp_path: Path) -> None:
    make(catalog)
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db")
    options = ReplicaOptions(pin_days=3)
    replica = DuckDBWarehouse(database).replica("sales.stock", options=options)
    replica.sync(catalog, ledger=ledger)
    table = catalog.load_table("sales.stock")
    first = snapshot_of(table)
    assert [(pin.snapshot_id, pin.owner) for pin in ledger.pins("sales.stock")] == [(first, replica.owner)]
    table.append(pa.table({"place": ["us"], "id": [5], "item": ["cap"]}, schema=SCHEMA.as_arrow()))
    replica.sync(catalog, ledger=ledger)
    assert [pin.snapshot_id for pin in ledger.pins("sales.stock")] == [snapshot_of(table)]
    replica.drop(ledger)
    assert ledger.pins("sales.stock") == []


def test_what_was_never_loaded_cannot_be_verified(catalog: SqlCatalog, database: Path) -> None:
    make(catalog)
    with pytest.raises(NotFoundError):
        DuckDBWarehouse(database).replica("sales.stock").verify(catalog)
