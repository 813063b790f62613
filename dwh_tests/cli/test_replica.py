"""`dwh replica` lists copies, brings them to a version, and says whether they are as their tables."""

from __future__ import annotations

from typing import Any

import duckdb
import pytest

from dwh_assets.warehouses.duckdb.warehouse import DuckDBWarehouse
from dwh_assets.warehouses.replica import Replica
from dwh_tests.cli.conftest import Told, called, environment_of
from dwh_tests.cli.test_documentation import documented
from dwh_tests.versioning.graph import GraphLake, next_millisecond
from dwh_tests.warehouses.lake import query

RAW, NAME = "shop.raw", "duckdb/shop/raw"


def dwh(graph: GraphLake, *arguments: str, **environment: str) -> Told:
    return called({**environment_of(graph), **environment}, "replica", *arguments)


def replica(graph: GraphLake) -> Replica:
    return DuckDBWarehouse(graph.folder / "replicas.duckdb").replica(RAW)


def held(graph: GraphLake) -> list[int]:
    return [row[0] for row in query(graph.folder / "replicas.duckdb", "SELECT id FROM shop.raw ORDER BY id")]


@pytest.fixture
def versions(graph: GraphLake) -> list[int]:
    """Two versions; the replica holds the first."""
    first = graph.write(RAW, [1])
    replica(graph).sync(graph.catalog)
    next_millisecond()
    return [first, graph.write(RAW, [2, 3])]


def test_replicas_are_listed_with_what_they_hold_and_how_far_they_are_behind(
    graph: GraphLake, versions: list[int]
) -> None:
    (told,) = dwh(graph, "list", "--json").json["replicas"]
    at = {one.snapshot_id: one.timestamp_ms for one in graph.table(RAW).metadata.snapshots}
    assert told.pop("lag_seconds") == pytest.approx((at[versions[1]] - at[versions[0]]) / 1000)
    assert told.pop("synced_at").endswith("+00:00")
    assert told == {
        "replica": NAME,
        "table": RAW,
        "warehouse": "duckdb",
        "into": RAW,
        "mode": "copy",
        "snapshot_id": str(versions[0]),
        "logical_snapshot_id": str(versions[0]),
        "lag_versions": 1,
        "rows": 1,
        "run_id": None,
        "pending": "",
    }
    _, line = dwh(graph, "list").out.splitlines()
    assert line.split()[:7] == [NAME, RAW, RAW, "copy", str(versions[0]), "1", "1"]


def test_where_nothing_was_copied_there_is_nothing(graph: GraphLake) -> None:
    graph.write(RAW, [1])
    assert dwh(graph, "list").out == "There is no replica.\n"
    assert dwh(graph, "list", "--json").json == {"replicas": [], "unavailable": []}
    failed = dwh(graph, "sync", NAME)
    assert failed.code == 1
    assert f"There is no replica '{NAME}'. There is none." in " ".join(failed.err.replace("->", "").split())


def test_a_replica_is_brought_to_the_head_and_to_a_named_version(
    graph: GraphLake, versions: list[int]
) -> None:
    told = dwh(graph, "sync", NAME, "--json").json
    assert (told["replica"], told["resolved"], told["mode"]) == (NAME, "main", "copy")
    assert (told["from_snapshot_id"], told["to_snapshot_id"]) == (str(versions[0]), str(versions[1]))
    assert (told["rows_inserted"], told["rows_deleted"], held(graph)) == (2, 1, [2, 3])

    back = dwh(graph, "sync", NAME, "--at", "1 version ago")
    assert back.code == 0
    assert str(versions[0]) in back.out
    assert held(graph) == [1]
    pins = {(pin.snapshot_id, pin.owner) for pin in _ledger(graph).pins(RAW)}
    assert pins == {(versions[0], replica(graph).owner)}


def _ledger(graph: GraphLake) -> Any:
    from dwh_assets.ledger import Ledger

    return Ledger(f"sqlite:///{graph.folder}/lake/ledger.db")


def test_a_difference_is_told_and_is_the_exit_code(graph: GraphLake, versions: list[int]) -> None:
    dwh(graph, "sync", NAME)
    same = dwh(graph, "verify", NAME, "--json")
    assert (same.code, same.json["equal"], same.json["level"]) == (0, True, "fingerprint")
    assert (same.json["rows_in_table"], same.json["rows_in_replica"]) == (2, 2)
    with duckdb.connect(graph.folder / "replicas.duckdb") as connection:
        connection.execute("UPDATE shop.raw SET id = 7 WHERE id = 3")

    differs = dwh(graph, "verify", NAME, "--json")
    assert (differs.code, differs.json["equal"]) == (1, False)
    assert "id" in {column["column"] for column in differs.json["columns"]}
    told = dwh(graph, "verify", NAME, "--level", "full")
    assert told.code == 1
    assert "differs from its table" in told.out
    assert dwh(graph, "verify", NAME, "--level", "count").code == 0

    mended = dwh(graph, "verify", NAME, "--repair", "--json")
    assert (mended.code, mended.json["equal"], held(graph)) == (0, True, [2, 3])
    assert mended.json["repaired"]["rows_inserted"] > 0
    assert set(mended.json) == set(differs.json)


def test_a_count_says_nothing_that_could_be_repaired(graph: GraphLake, versions: list[int]) -> None:
    refused = dwh(graph, "verify", NAME, "--repair", "--level", "count")
    assert (refused.code, "--level fingerprint" in refused.err) == (2, True)


def test_a_warehouse_that_is_down_is_told_beside_what_others_hold(
    graph: GraphLake, versions: list[int]
) -> None:
    """A port at which nobody listens."""
    secret = "hunter2-is-not-shown"
    snowflake = {
        "DWH_SNOWFLAKE_DATABASE": "LAKE",
        "SNOWFLAKE_ACCOUNT": "nobody",
        "SNOWFLAKE_USER": "nobody",
        "SNOWFLAKE_PASSWORD": secret,
        "SNOWFLAKE_HOST": "127.0.0.1",
        "SNOWFLAKE_PORT": "9",
        "SNOWFLAKE_PROTOCOL": "http",
    }
    listed = dwh(graph, "list", "--json", **snowflake)
    assert listed.code == 1
    assert [one["replica"] for one in listed.json["replicas"]] == [NAME]
    (down,) = listed.json["unavailable"]
    assert down["warehouse"] == "snowflake"
    failed = dwh(graph, "sync", "snowflake/shop/raw", "--json", **snowflake)
    assert failed.code in (1, 3)
    assert secret not in listed.out + listed.err + failed.err


def test_the_keys_of_the_json_are_documented(graph: GraphLake, versions: list[int]) -> None:
    (one,) = dwh(graph, "list", "--json").json["replicas"]
    assert {"replicas", "unavailable", *one} <= documented("replica list")
    assert set(dwh(graph, "sync", NAME, "--json").json) <= documented("replica sync")
    assert set(dwh(graph, "verify", NAME, "--json").json) <= documented("replica verify")
