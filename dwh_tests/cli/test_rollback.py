"""`dwh rollback` shows what it would do, does it when told to, and says how to take it back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from dwh_assets.ledger import Ledger
from dwh_assets.versioning.graph import plan_rollback
from dwh_assets.versioning.graph_apply import apply_rollback
from dwh_assets.warehouses.duckdb.warehouse import DuckDBWarehouse
from dwh_tests.cli.conftest import Dwh, Told, called, environment_of, ids
from dwh_tests.iceberg.conftest import TABLE, Lake, multiset
from dwh_tests.versioning.graph import GraphLake
from dwh_tests.versioning.test_graph import MIDDLE, RAW, TOP, generation, heads, held_open
from dwh_tests.warehouses.lake import query


def test_a_dry_run_says_what_would_go_and_changes_nothing(lake: Lake, dwh: Dwh) -> None:
    before = lake.metadata
    told = dwh("rollback", TABLE, "2 versions ago", "--json").json
    first, second, third = ids(lake)
    assert (told["from_snapshot_id"], told["to_snapshot_id"], told["applied"]) == (third, first, False)
    assert [commit["snapshot_id"] for commit in told["dropped"]] == [third, second]
    lines = dwh("rollback", TABLE, "2 versions ago", "--dry-run").out.splitlines()
    assert lines[0] == f"{TABLE}: main from {third} to {first}"
    assert [line.split()[3] for line in lines[2:4]] == [third, second]
    assert lines[-1] == "Nothing has been changed; --yes does it."
    assert lake.metadata == before


def test_it_is_done_when_told_to_and_undone_as_it_says(lake: Lake, dwh: Dwh) -> None:
    first, _, third = ids(lake)
    rows = {snapshot: multiset(lake.rows(int(snapshot))) for snapshot in (first, third)}
    done = dwh("rollback", TABLE, "2 versions ago", "--yes")
    assert done.code == 0
    assert lake.metadata["current-snapshot-id"] == int(first)
    assert multiset(lake.rows()) == rows[first]
    undo = next(line for line in done.out.splitlines() if "The undo: dwh " in line)
    assert dwh(*undo.partition("The undo: dwh ")[2].split()).code == 0
    assert lake.metadata["current-snapshot-id"] == int(third)
    assert multiset(lake.rows()) == rows[third]


def test_commits_beside_the_target_are_not_lost_unless_told_so(lake: Lake, dwh: Dwh) -> None:
    third = ids(lake)[-1]
    assert dwh("rollback", TABLE, "1 version ago", "--yes").code == 0
    lake.write(pa.table({"id": [9], "place": ["eu"], "price": [1.0]}))
    head = lake.metadata["current-snapshot-id"]
    refused = dwh("rollback", TABLE, third, "--yes", "--json").error
    assert (refused["type"], refused["exit_code"]) == ("ConfigurationError", 1)
    assert lake.metadata["current-snapshot-id"] == head
    assert dwh("rollback", TABLE, third, "--yes", "--allow-lost").code == 0
    assert lake.metadata["current-snapshot-id"] == int(third)


@pytest.mark.parametrize("graph", [(), ("--graph",)], ids=["table", "graph"])
def test_what_was_never_published_is_refused_unless_told_so(
    lake: Lake, dwh: Dwh, graph: tuple[str, ...]
) -> None:
    lake.write(pa.table({"id": [9], "place": ["eu"], "price": [1.0]}), branch="trial")
    head = lake.metadata["current-snapshot-id"]
    refused = dwh("rollback", TABLE, "trial", "--yes", *graph, "--json").error
    assert (refused["type"], "--allow-unpublished" in refused["remedy"]) == ("ConfigurationError", True)
    assert lake.metadata["current-snapshot-id"] == head
    assert dwh("rollback", TABLE, "trial", "--yes", *graph, "--allow-unpublished").code == 0
    assert 9 in lake.column("id")


def test_where_main_stands_already_is_told(dwh: Dwh) -> None:
    assert "already" in dwh("rollback", TABLE, "main").out.splitlines()[0]


@pytest.mark.parametrize("arguments", [(), ("main", "--resume", "x"), ("--resume", "x", "--undo", "y")])
def test_one_thing_at_a_time(dwh: Dwh, arguments: tuple[str, ...]) -> None:
    assert dwh("rollback", TABLE, *arguments, "--json").error["exit_code"] == 2


# --- With what was computed from it ---


def replica_file(graph: GraphLake) -> Path:
    return graph.folder / "replicas.duckdb"


@pytest.fixture
def generations(graph: GraphLake) -> list[dict[str, int]]:
    """Two generations of three tables, and replicas of two of them in one file: one current, one behind."""
    warehouse = DuckDBWarehouse(replica_file(graph))
    first = generation(graph, 1)
    warehouse.replica(TOP).sync(graph.catalog)
    second = generation(graph, 2)
    warehouse.replica(RAW).sync(graph.catalog)
    return [first, second]


def run(graph: GraphLake, *arguments: str) -> Told:
    return called(environment_of(graph), "rollback", RAW, *arguments)


def replica_ids(graph: GraphLake, table: str) -> list[int]:
    return [row[0] for row in query(replica_file(graph), f"SELECT id FROM {table} ORDER BY id")]


def test_a_graph_is_planned_done_and_undone(graph: GraphLake, generations: list[dict[str, int]]) -> None:
    first, second = generations
    to = str(first[RAW])
    planned: dict[str, Any] = run(graph, to, "--graph", "--json").json
    assert heads(graph) == second
    assert {item["table"]: int(item["rollback"]["to_snapshot_id"]) for item in planned["tables"]} == first
    assert {one["replica"]: one["position"] for one in planned["replicas"]} == {
        "duckdb/shop/raw": "ahead",
        "duckdb/mart/top": "there",
    }
    done = run(graph, to, "--graph", "--yes", "--json")
    assert (done.code, done.json["applied"], done.json["not_brought_back"]) == (0, True, {})
    assert heads(graph) == first
    assert (replica_ids(graph, RAW), replica_ids(graph, TOP)) == ([1], [100])
    undone = run(graph, "--undo", done.json["operation"], "--yes")
    assert undone.code == 0
    assert heads(graph) == second
    assert (replica_ids(graph, RAW), replica_ids(graph, TOP)) == ([2], [200])


def test_replicas_of_another_lake_in_the_same_file_are_left_alone(
    tmp_path: Path, graph: GraphLake, generations: list[dict[str, int]]
) -> None:
    other = GraphLake(tmp_path / "other")
    other.folder.mkdir()
    first = generation(other, 7)
    generation(other, 8)
    env = {**environment_of(other), "DWH_DUCKDB_PATH": str(replica_file(graph))}
    done = called(env, "rollback", RAW, str(first[RAW]), "--graph", "--yes", "--json").json
    assert done["replicas"] == []
    assert (replica_ids(graph, RAW), replica_ids(graph, TOP)) == ([2], [100])


def test_a_table_that_cannot_come_back_is_told_and_fails_the_command(
    graph: GraphLake, generations: list[dict[str, int]]
) -> None:
    first, second = generations
    graph.expire(MIDDLE, first[MIDDLE])
    done = run(graph, str(first[RAW]), "--graph", "--yes")
    assert done.code == 1
    assert f"Not brought back: {MIDDLE}: " in done.out
    assert heads(graph)[RAW] == first[RAW]
    assert heads(graph)[MIDDLE] == second[MIDDLE]


def test_a_file_of_replicas_that_is_held_is_told_before_anything_changes(
    graph: GraphLake, generations: list[dict[str, int]]
) -> None:
    graph.replicas["replicas"] = DuckDBWarehouse(replica_file(graph)).replica(RAW)
    with held_open(graph, "replicas"):
        held = run(graph, str(generations[0][RAW]), "--graph", "--yes", "--json")
    assert (held.error["type"], held.code) == ("UnavailableError", 3)
    assert heads(graph) == generations[1]


def test_what_failed_is_resumed(graph: GraphLake, generations: list[dict[str, int]]) -> None:
    replica = DuckDBWarehouse(replica_file(graph), wait_seconds=0.2).replica(RAW)
    graph.replicas["replicas"] = replica
    replicas = {"duckdb/shop/raw": replica}
    plan = plan_rollback(graph.catalog, RAW, generations[0][RAW], replicas)
    with held_open(graph, "replicas"):
        ledger = Ledger(f"sqlite:///{graph.folder}/lake/ledger.db")
        begun = apply_rollback(graph.catalog, plan, ledger, replicas)
    assert begun.operation.open_items == ("replica duckdb/shop/raw",)
    resumed = run(graph, "--resume", begun.operation.id, "--json")
    assert (resumed.code, resumed.json["operation"]) == (0, begun.operation.id)
    assert resumed.json["not_brought_back"] == {}
    assert replica_ids(graph, RAW) == [1]
