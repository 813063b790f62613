"""`dwh lineage` tells what was written down of inputs, backwards and forwards."""

from __future__ import annotations

from dwh_assets.warehouses.duckdb.warehouse import DuckDBWarehouse
from dwh_tests.cli.conftest import called, environment_of
from dwh_tests.versioning.graph import GraphLake
from dwh_tests.versioning.test_graph import MIDDLE, RAW, TOP, generation


def test_the_versions_that_made_a_version_are_told(graph: GraphLake) -> None:
    first = generation(graph, 1)
    generation(graph, 2)
    told = called(environment_of(graph), "lineage", TOP, "1 version ago", "--json").json
    assert (told["table"], told["snapshot_id"], told["resolved"]) == (TOP, str(first[TOP]), "1 version ago")
    assert {one["table"]: one["snapshot_id"] for one in told["versions"]} == {
        name: str(snapshot) for name, snapshot in first.items()
    }
    lines = called(environment_of(graph), "lineage", TOP, str(first[TOP])).out.splitlines()
    assert [line.split()[:2] for line in lines[2:]] == [
        [name, str(first[name])] for name in (TOP, MIDDLE, RAW)
    ]
    assert f"{MIDDLE} at {first[MIDDLE]}" in lines[2]


def test_what_was_made_from_a_version_is_told(graph: GraphLake) -> None:
    first = generation(graph, 1)
    DuckDBWarehouse(graph.folder / "replicas.duckdb").replica(TOP).sync(graph.catalog)
    second = generation(graph, 2)
    told = called(environment_of(graph), "lineage", RAW, str(first[RAW]), "--impact", "--json").json
    assert {one["table"]: one["snapshot_id"] for one in told["writes"]} == {
        MIDDLE: str(first[MIDDLE]),
        TOP: str(first[TOP]),
    }
    assert [(one["replica"], one["snapshot_id"]) for one in told["replicas"]] == [
        ("duckdb/mart/top", str(first[TOP]))
    ]
    shown = called(environment_of(graph), "lineage", RAW, "--impact").out.splitlines()
    assert [line.split()[:2] for line in shown[2:]] == [
        [MIDDLE, str(second[MIDDLE])],
        [TOP, str(second[TOP])],
    ]


def test_a_version_that_nobody_read_says_so(graph: GraphLake) -> None:
    graph.write(RAW, [1])
    assert called(environment_of(graph), "lineage", RAW, "--impact").out.splitlines()[-1] == (
        "No write has read it."
    )
