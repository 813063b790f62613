"""Releases over tables that are computed from each other."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dwh_assets.errors import ConfigurationError, NotFoundError
from dwh_assets.iceberg.refs import create_tag
from dwh_assets.ledger import Ledger
from dwh_assets.versioning.graph_apply import apply_rollback
from dwh_assets.versioning.releases import (
    compare_releases,
    create_release,
    drop_release,
    get_release,
    list_releases,
    named_version,
    plan_release_rollback,
    resume_release,
)
from dwh_tests.versioning.graph import GraphLake
from dwh_tests.versioning.test_graph import MIDDLE, RAW, TOP, generation, heads


@pytest.fixture
def ledger(graph: GraphLake) -> Ledger:
    return Ledger(f"sqlite:///{graph.folder}/ledger.db")


def test_a_release_tags_every_table_and_tells_what_replicas_held(graph: GraphLake, ledger: Ledger) -> None:
    first = generation(graph, 1)
    graph.replica("behind", TOP).sync(graph.catalog)
    second = generation(graph, 2)
    graph.replica("never", RAW)
    graph.replica("torn", RAW).sync(graph.catalog)
    graph.database("torn").write_bytes(b"not a database" * 400)

    release = create_release(graph.catalog, ledger, "q3", replicas=graph.replicas)
    assert {one.table: one.snapshot_id for one in release.versions} == second
    assert [graph.tags(name) for name in second] == [{"q3": snapshot} for snapshot in second.values()]
    held = {one.replica: (one.snapshot_id, bool(one.problem)) for one in release.replicas}
    assert held == {"behind": (first[TOP], False), "never": (None, False), "torn": (None, True)}
    again = Ledger(f"sqlite:///{graph.folder}/ledger.db")
    assert (list_releases(again), get_release(again, "q3")) == ([release], release)
    assert json.loads(json.dumps(release.to_dict()))["versions"][TOP] == str(second[TOP])
    assert ledger.pins(TOP) == []


def test_a_stale_table_is_named_and_nothing_is_tagged(graph: GraphLake, ledger: Ledger) -> None:
    first = generation(graph, 1)
    newer = graph.write(RAW, [2])
    with pytest.raises(ConfigurationError) as refused:
        create_release(graph.catalog, ledger, "q3")
    assert f"{MIDDLE} is stale: it was made from {RAW} at snapshot {first[RAW]}" in str(refused.value)
    assert str(newer) in str(refused.value)
    assert TOP not in refused.value.message, "its input is the version that is released"
    assert [graph.tags(name) for name in first] == [{}, {}, {}]
    assert list_releases(ledger) == []

    create_release(graph.catalog, ledger, "q3", [MIDDLE, TOP])
    assert graph.tags(RAW) == {}


@pytest.mark.parametrize("name", ["", " spring", "spring\x00", "spr\ning"])
def test_what_is_no_name_begins_no_release(graph: GraphLake, ledger: Ledger, name: str) -> None:
    generation(graph, 1)
    with pytest.raises(ConfigurationError, match="is no name"):
        create_release(graph.catalog, ledger, name)
    assert list(ledger.operations("release")) == []


def test_a_compaction_makes_nothing_stale(graph: GraphLake, ledger: Ledger) -> None:
    generation(graph, 1)
    create_release(graph.catalog, ledger, "before")
    compacted = graph.compact(RAW)
    release = create_release(graph.catalog, ledger, "after")
    assert {one.table: one.snapshot_id for one in release.versions}[RAW] == compacted
    compared = compare_releases(ledger, "before", "after")
    assert (compared.changed, compared.added, compared.removed) == ((), (), ())


def test_what_grows_counts_by_its_newest_read(graph: GraphLake, ledger: Ledger) -> None:
    for number in range(2):
        raw = graph.write(RAW, [number], write_mode="append")
        graph.write(MIDDLE, [number], reads={RAW: raw}, write_mode="append")
    assert len(create_release(graph.catalog, ledger, "q3").versions) == 2


def test_an_interrupted_release_is_invisible_until_it_is_resumed(
    graph: GraphLake, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = generation(graph, 1)
    commit = graph.catalog.commit_table

    def dies(table: Any, *rest: Any) -> Any:
        if table.name()[-1] == "raw":
            raise KeyboardInterrupt
        return commit(table, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(graph.catalog, "commit_table", dies)
        with pytest.raises(KeyboardInterrupt):
            create_release(graph.catalog, ledger, "q3")
    assert list_releases(ledger) == []
    with pytest.raises(NotFoundError, match=r"interrupted: .*shop\.raw"):
        get_release(ledger, "q3")
    with pytest.raises(NotFoundError, match="interrupted"):
        plan_release_rollback(graph.catalog, ledger, "q3")
    assert [pin.snapshot_id for pin in ledger.pins(RAW)] == [first[RAW]], "expiry leaves it to be resumed"

    generation(graph, 2)
    release = resume_release(graph.catalog, ledger, "q3")
    assert {one.table: one.snapshot_id for one in release.versions} == first
    assert [graph.tags(name)["q3"] for name in first] == list(first.values())
    assert list_releases(ledger) == [release]
    assert ledger.pins(RAW) == []


def test_a_name_is_given_once_and_free_again_when_dropped(graph: GraphLake, ledger: Ledger) -> None:
    first = generation(graph, 1)
    create_release(graph.catalog, ledger, "q3")
    with pytest.raises(ConfigurationError, match="q3"):
        create_release(graph.catalog, ledger, "q3")
    graph.table(TOP).manage_snapshots().create_tag(first[TOP], "taken").commit()
    with pytest.raises(ConfigurationError, match=rf"{TOP}.*taken"):
        create_release(graph.catalog, ledger, "taken")
    drop_release(graph.catalog, ledger, "q3")
    assert graph.tags(RAW) == {}
    assert graph.tags(TOP) == {"taken": first[TOP]}
    create_release(graph.catalog, ledger, "q3")


def test_two_releases_are_compared_table_by_table(graph: GraphLake, ledger: Ledger) -> None:
    first = generation(graph, 1)
    graph.write("shop.old", [1])
    create_release(graph.catalog, ledger, "q3")
    graph.catalog.drop_table("shop.old")
    top = graph.write(TOP, [5], reads={MIDDLE: first[MIDDLE]})
    new = graph.write("shop.new", [1])
    create_release(graph.catalog, ledger, "q4")
    compared = compare_releases(ledger, "q3", "q4")
    assert (compared.added, compared.removed) == (("shop.new",), ("shop.old",))
    assert [(one.table, one.before, one.after) for one in compared.changed] == [(TOP, first[TOP], top)]
    assert {one.table: one.after for one in compared.tables}["shop.new"] == new
    with pytest.raises(NotFoundError, match=r"q9.*q3, q4"):
        compare_releases(ledger, "q3", "q9")


def test_a_release_is_rolled_back_to_with_what_came_of_it_and_its_replicas(
    graph: GraphLake, ledger: Ledger
) -> None:
    first = generation(graph, 1)
    create_release(graph.catalog, ledger, "q3", [RAW, MIDDLE])
    generation(graph, 2)
    graph.replica("of_top", TOP).sync(graph.catalog)
    plan = plan_release_rollback(graph.catalog, ledger, "q3", graph.replicas)
    result = apply_rollback(graph.catalog, plan, ledger, graph.replicas)
    assert (heads(graph), graph.replica_ids("of_top"), result.not_brought_back) == (first, [100], {})


def test_there_is_nothing_to_release_without_data(graph: GraphLake, ledger: Ledger) -> None:
    with pytest.raises(NotFoundError):
        create_release(graph.catalog, ledger, "q3")
    with pytest.raises(NotFoundError, match=r"shop\.none"):
        create_release(graph.catalog, ledger, "q3", ["shop.none"])


def test_a_name_is_that_of_a_finished_release_or_else_of_a_tag(graph: GraphLake, ledger: Ledger) -> None:
    first = generation(graph, 1)
    create_release(graph.catalog, ledger, "q3", [RAW, MIDDLE])
    create_tag(graph.catalog, graph.table(TOP), "q3", first[TOP])
    generation(graph, 2)
    found = named_version(graph.table(RAW), "q3", ledger)
    assert (found.snapshot_id, found.described) == (first[RAW], "release q3")
    assert named_version(graph.table(TOP), "q3", ledger).described == "tag q3", "that table is not part of it"
    assert named_version(graph.table(RAW), "q3", None).described == "tag q3"
    for name in ("q4", "main"):
        with pytest.raises(NotFoundError, match="has no tag"):
            named_version(graph.table(RAW), name, ledger)


def test_the_tag_of_an_interrupted_release_is_no_version(graph: GraphLake, ledger: Ledger) -> None:
    generation(graph, 1)
    create_release(graph.catalog, ledger, "q3")
    ledger.mark("release/q3", TOP, "pending")
    ledger.end("release/q3")
    with pytest.raises(NotFoundError, match=r"q3' was interrupted: mart.top not tagged"):
        named_version(graph.table(RAW), "q3", ledger)
