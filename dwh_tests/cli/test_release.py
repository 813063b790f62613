"""`dwh release` names what many tables show, tells two of them apart, and brings them all back."""

from __future__ import annotations

from pathlib import Path

import pytest

from dwh_assets.warehouses.duckdb.warehouse import DuckDBWarehouse
from dwh_tests.cli.conftest import Told, called, environment_of
from dwh_tests.versioning.graph import GraphLake
from dwh_tests.versioning.test_graph import MIDDLE, RAW, TOP, generation, heads


def release(graph: GraphLake, *arguments: str) -> Told:
    return called(environment_of(graph), "release", *arguments)


def ledger(graph: GraphLake) -> Path:
    return graph.folder / "lake" / "ledger.db"


@pytest.fixture
def released(graph: GraphLake) -> list[dict[str, int]]:
    """Two releases: q1 with a replica beside it, and q2, in which every table has changed."""
    first = generation(graph, 1)
    DuckDBWarehouse(graph.folder / "replicas.duckdb").replica(TOP).sync(graph.catalog)
    assert release(graph, "create", "q1").code == 0
    second = generation(graph, 2)
    assert release(graph, "create", "q2", RAW, MIDDLE, TOP).code == 0
    return [first, second]


def test_a_release_is_made_listed_and_shown(graph: GraphLake, released: list[dict[str, int]]) -> None:
    first, second = released
    assert {name: graph.tags(name) for name in first} == {
        name: {"q1": first[name], "q2": second[name]} for name in first
    }
    listed = release(graph, "list", "--json").json["releases"]
    assert [one["name"] for one in listed] == ["q1", "q2"]
    shown = release(graph, "show", "q1", "--json").json
    assert shown == listed[0]
    assert shown["versions"] == {name: str(snapshot) for name, snapshot in first.items()}
    assert shown["replicas"]["duckdb/mart/top"]["snapshot_id"] == str(first[TOP])
    lines = release(graph, "show", "q1").out.splitlines()
    assert {tuple(line.split()) for line in lines[2:5]} == {(n, str(i)) for n, i in first.items()}
    assert lines[5] == f"replica duckdb/mart/top: held {TOP} at {first[TOP]}"
    assert [line.split()[0] for line in release(graph, "list").out.splitlines()] == ["release", "q1", "q2"]


def test_releases_are_compared_table_by_table(graph: GraphLake, released: list[dict[str, int]]) -> None:
    first, second = released
    told = release(graph, "compare", "q1", "q2", "--json").json
    assert told["tables"] == [
        {
            "table": name,
            "before_snapshot_id": str(first[name]),
            "after_snapshot_id": str(second[name]),
            "same_rows": False,
        }
        for name in sorted(first)
    ]


def test_all_tables_go_back_to_a_release(graph: GraphLake, released: list[dict[str, int]]) -> None:
    first, second = released
    planned = release(graph, "rollback", "q1", "--json").json
    assert (planned["applied"], heads(graph)) == (False, second)
    done = release(graph, "rollback", "q1", "--yes", "--json")
    assert (done.code, done.json["applied"], done.json["resolved"]) == (0, True, "release q1")
    assert heads(graph) == first
    assert (graph.ids(RAW), graph.ids(MIDDLE), graph.ids(TOP)) == ([1], [10], [100])


def test_a_stale_table_is_named(graph: GraphLake) -> None:
    generation(graph, 1)
    graph.write(RAW, [2])
    refused = release(graph, "create", "q1", "--json")
    assert (refused.error["type"], refused.code) == ("ConfigurationError", 1)
    assert f"{MIDDLE} is stale" in refused.error["message"]
    assert release(graph, "list").out == "There is no release.\n"


def test_a_release_is_forgotten_with_its_tags(graph: GraphLake, released: list[dict[str, int]]) -> None:
    assert release(graph, "drop", "q1").code == 0
    assert [list(graph.tags(name)) for name in released[0]] == [["q2"], ["q2"], ["q2"]]
    assert [one["name"] for one in release(graph, "list", "--json").json["releases"]] == ["q2"]


def test_where_nothing_was_released_no_ledger_is_made(graph: GraphLake) -> None:
    generation(graph, 1)
    assert release(graph, "list", "--json").json == {"releases": []}
    for arguments in (("show", "q1"), ("compare", "q1", "q2"), ("rollback", "q1"), ("drop", "q1")):
        error = release(graph, *arguments, "--json").error
        assert (error["type"], error["exit_code"]) == ("NotFoundError", 1)
    assert not ledger(graph).exists()


def test_without_a_subcommand_it_says_how_it_is_called(graph: GraphLake) -> None:
    found = release(graph)
    assert found.code == 2
    assert "dwh release --help" in found.err
