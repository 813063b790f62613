"""How a sync brings a replica to a version, why, and what it never touches."""

from pathlib import Path

import pyarrow as pa
import pytest

from dwh_assets.errors import ConfigurationError, NotFoundError
from dwh_assets.ledger import Ledger
from dwh_tests.iceberg.conftest import Lake
from dwh_tests.iceberg.diff.compaction import compact
from dwh_tests.warehouses.conformance.expected import require_same
from dwh_tests.warehouses.conformance.places import TABLE, Place


def rows(*numbers: int, item: str = "x") -> pa.Table:
    return pa.table({"id": numbers, "item": [item] * len(numbers)})


def filled(lake: Lake) -> Lake:
    lake.write(rows(*range(20)), key_columns=["id"])
    return lake


def held_id(lake: Lake) -> int:
    head = lake.table.current_snapshot()
    assert head is not None
    return head.snapshot_id


def test_a_table_without_rows_and_one_without_snapshots(place: Place, lake: Lake) -> None:
    lake.catalog.create_namespace("shop")
    table = lake.catalog.create_table(TABLE, pa.schema([("id", pa.int64()), ("item", pa.string())]))
    replica = place.replica()
    assert replica.state() is None
    assert (replica.sync(lake.catalog).to_snapshot, replica.snapshot_id) == (None, None)
    assert replica.sync(lake.catalog).reason == "the table has no snapshot yet"
    assert replica.read().read_all().num_rows == replica.count() == 0
    table.append(rows(1))
    replica.sync(lake.catalog)
    table.refresh().delete("id = 1")
    assert replica.sync(lake.catalog).method == "incremental"
    require_same(replica, lake)
    assert replica.read().read_all().num_rows == 0


def test_only_what_is_needed_is_done(place: Place, lake: Lake) -> None:
    filled(lake)
    replica = place.replica()
    first = replica.sync(lake.catalog, run_id="run-1")
    assert (first.mode, first.method, first.reason) == ("copy", "full", "it is the first load")
    state = replica.state()
    assert state is not None
    assert (state.table, state.rows, state.run_id) == (TABLE, 20, "run-1")
    again = replica.sync(lake.catalog, run_id="run-2")
    assert (again.method, again.bytes, again.rows_inserted) == ("none", 0, 0)
    assert replica.state() == state
    compact(lake.catalog, TABLE)
    for task in lake.table.scan().plan_files():
        lake.table.io.delete(task.file.file_path)  # whoever reads a row now fails
    moved = replica.sync(lake.catalog)
    assert (moved.method, moved.to_snapshot, replica.snapshot_id) == ("none", held_id(lake), held_id(lake))


def test_a_replica_goes_back_and_forth_between_versions(place: Place, lake: Lake) -> None:
    filled(lake)
    first = held_id(lake)
    replica = place.replica()
    replica.sync(lake.catalog)
    lake.write(rows(3, 40, item="y"), write_mode="upsert", key_columns=["id"])
    assert replica.sync(lake.catalog).method == "incremental"
    back = replica.sync(lake.catalog, first)
    assert (back.method, back.to_snapshot, replica.snapshot_id) == ("incremental", first, first)
    assert sorted(replica.read().read_all()["id"].to_pylist()) == [*range(20)]
    replica.sync(lake.catalog)
    require_same(replica, lake)


def test_reasons_for_all_rows(place: Place, lake: Lake) -> None:
    filled(lake)
    replica = place.replica()
    replica.sync(lake.catalog)
    held = held_id(lake)
    lake.write(rows(1, 2, item="y"), write_mode="upsert", key_columns=["id"])
    lake.table.maintenance.expire_snapshots().by_id(held).commit()
    result = replica.sync(lake.catalog)
    assert (result.method, result.reason) == ("full", f"the snapshot {held} that it holds was expired")
    require_same(replica, lake)

    lake.write(rows(*range(20), item="z"), write_mode="upsert", key_columns=["id"])
    result = replica.sync(lake.catalog)
    assert (result.method, result.reason) == ("full", "more rows changed than the table has")
    require_same(replica, lake)

    place.ask(f"DROP TABLE {place.into}")
    assert replica.sync(lake.catalog).reason == "the replica's table was dropped"
    require_same(replica, lake)

    lake.catalog.drop_table(TABLE)
    filled(lake)
    assert replica.sync(lake.catalog).reason == f"{TABLE} was dropped and created again"
    require_same(replica, lake)


def test_somebody_elses_table_is_never_touched(place: Place, lake: Lake) -> None:
    filled(lake)
    place.ask(f"CREATE TABLE {place.into} AS SELECT 4711 AS id")
    replica = place.replica()
    with pytest.raises(ConfigurationError, match="is not a replica"):
        replica.sync(lake.catalog)
    with pytest.raises(NotFoundError):
        replica.read()
    replica.drop()
    assert [int(number) for (number,) in place.ask(f"SELECT id FROM {place.into}")] == [4711]


def test_another_tables_replica_is_never_replaced(place: Place, lake: Lake) -> None:
    filled(lake)
    replica = place.replica()
    replica.sync(lake.catalog)
    lake.catalog.create_table("shop.returns", lake.table.schema())
    other = place.replica(table="shop.returns")
    with pytest.raises(ConfigurationError, match=rf"a replica of {TABLE}, not of shop\.returns"):
        other.sync(lake.catalog)
    other.drop()
    assert other.state() is None
    require_same(replica, lake)


@pytest.mark.parametrize("keyed", [True, False], ids=["keyed", "unkeyed"])
def test_drift_is_noticed_and_repaired(place: Place, lake: Lake, keyed: bool) -> None:
    lake.write(rows(*range(20)), **({"key_columns": ["id"]} if keyed else {}))
    replica = place.replica()
    replica.sync(lake.catalog)
    place.ask(f"UPDATE {place.into} SET item = 'changed' WHERE id = 3")
    place.ask(f"DELETE FROM {place.into} WHERE id = 4")
    for level in ("count", "fingerprint", "full"):
        assert not replica.verify(lake.catalog, level).equal
    replica.repair(lake.catalog, replica.verify(lake.catalog))
    require_same(replica, lake)

    place.ask(f"DELETE FROM {place.into} WHERE id = 5")
    lake.table.delete("id = 5")
    result = replica.sync(lake.catalog)
    assert (result.method, "1 rows were to be deleted, and 0 were" in result.reason) == ("full", True)
    require_same(replica, lake)


def test_a_replica_is_found_pinned_and_dropped(place: Place, lake: Lake, tmp_path: Path) -> None:
    filled(lake)
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db")
    replica = place.replica()
    replica.sync(lake.catalog, ledger=ledger)
    assert [pin.snapshot_id for pin in ledger.pins(TABLE)] == [held_id(lake)]
    found = [(one.table, one.target.schema, one.target.name) for one in place.connect().replicas()]
    assert (TABLE, replica.target.schema, replica.target.name) in found
    replica.drop(ledger)
    assert replica.state() is None
    assert ledger.pins(TABLE) == []
    assert replica.sync(lake.catalog).reason == "it is the first load"
