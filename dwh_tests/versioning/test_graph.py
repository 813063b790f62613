"""Rolling back a table with all that was computed from it: three levels, and replicas in any state."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from dwh_assets.errors import ConfigurationError, ConflictError, NotFoundError
from dwh_assets.ledger import Ledger
from dwh_assets.versioning.graph import GraphRollback, plan_rollback, plan_undo
from dwh_assets.versioning.graph_apply import GraphResult, apply_rollback, resume_rollback
from dwh_tests.versioning.graph import GraphLake, next_millisecond

RAW, MIDDLE, TOP, ASIDE = "shop.raw", "shop.middle", "mart.top", "shop.aside"


@pytest.fixture
def ledger(graph: GraphLake) -> Ledger:
    return Ledger(f"sqlite:///{graph.folder}/ledger.db")


def generation(graph: GraphLake, number: int) -> dict[str, int]:
    """Compute all three levels once, in order; ids tell the generation."""
    raw = graph.write(RAW, [number])
    next_millisecond()
    middle = graph.write(MIDDLE, [number * 10], reads={RAW: raw})
    next_millisecond()
    top = graph.write(TOP, [number * 100], reads={MIDDLE: middle})
    next_millisecond()
    return {RAW: raw, MIDDLE: middle, TOP: top}


def heads(graph: GraphLake) -> dict[str, int]:
    return {name: graph.head(name) for name in (RAW, MIDDLE, TOP)}


def moves(plan: GraphRollback) -> dict[str, int | None]:
    return {item.table: item.rollback.to_snapshot_id if item.rollback else None for item in plan.tables}


@contextmanager
def held_open(graph: GraphLake, replica: str) -> Iterator[None]:
    """Another process holds the replica's file."""
    script = (
        "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('open', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", script, str(graph.database(replica))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        yield
        process.kill()


def test_three_levels_go_to_the_version_of_the_root_and_nothing_else_moves(
    graph: GraphLake, ledger: Ledger
) -> None:
    aside = graph.write(ASIDE, [7])
    first = generation(graph, 1)
    second = generation(graph, 2)
    third = generation(graph, 3)
    plan = plan_rollback(graph.catalog, RAW, first[RAW])
    assert heads(graph) == third, "a plan changes nothing"
    assert moves(plan) == first
    assert [item.table for item in plan.tables] == [RAW, MIDDLE, TOP], "inputs first"
    assert all(item.fresh for item in plan.tables)
    assert GraphRollback.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan

    result = apply_rollback(graph.catalog, plan, ledger)
    assert heads(graph) == first
    assert (graph.ids(RAW), graph.ids(MIDDLE), graph.ids(TOP)) == ([1], [10], [100])
    assert graph.head(ASIDE) == aside
    assert {name: list(graph.tags(name).values()) for name in third} == {n: [i] for n, i in third.items()}
    assert (result.not_brought_back, result.operation.state) == ({}, "done")
    assert ledger.pins(RAW) == []
    assert second[RAW] in {s.snapshot_id for s in graph.table(RAW).metadata.snapshots}


def test_a_rollback_of_a_graph_is_undone_as_one(graph: GraphLake, ledger: Ledger) -> None:
    first, second = generation(graph, 1), generation(graph, 2)
    done = apply_rollback(graph.catalog, plan_rollback(graph.catalog, RAW, first[RAW]), ledger)
    for name in second:
        graph.replica(name.replace(".", "_"), name).sync(graph.catalog)
    undo = plan_undo(graph.catalog, ledger, done.operation.id, graph.replicas)
    assert moves(undo) == second
    apply_rollback(graph.catalog, undo, ledger, graph.replicas)
    assert heads(graph) == second
    assert graph.replica_ids("mart_top") == [200]


def test_a_replica_ahead_one_behind_and_one_down_are_handled_and_told(
    graph: GraphLake, ledger: Ledger
) -> None:
    generation(graph, 1)
    graph.replica("behind", RAW).sync(graph.catalog)
    target = generation(graph, 2)
    graph.replica("there", TOP).sync(graph.catalog)
    graph.replica("locked", MIDDLE).sync(graph.catalog)
    generation(graph, 3)
    graph.replica("ahead", TOP).sync(graph.catalog)
    graph.replica("torn", MIDDLE).sync(graph.catalog)
    graph.database("torn").write_bytes(b"not a database" * 400)
    graph.replica("never", TOP)
    graph.replica("stranger", ASIDE)

    with held_open(graph, "locked"):
        plan = plan_rollback(graph.catalog, RAW, target[RAW], graph.replicas)
        assert {item.replica: item.position for item in plan.replicas} == {
            "ahead": "ahead", "behind": "behind", "there": "there", "never": "empty",
            "locked": "unknown", "torn": "unknown",
        }  # fmt: skip
        result = apply_rollback(graph.catalog, plan, ledger, graph.replicas, run_id="run-9")
    assert heads(graph) == target
    assert (graph.replica_ids("ahead"), graph.replica_ids("behind"), graph.replica_ids("there")) == (
        [200], [2], [200],
    )  # fmt: skip
    assert graph.replicas["ahead"].snapshot_id == target[TOP]
    assert not graph.database("never").exists()
    assert set(result.not_brought_back) == {"locked", "torn"}
    assert "PID" in result.not_brought_back["locked"]
    assert "cannot be opened" in result.not_brought_back["torn"]
    assert result.operation.state == "incomplete"
    assert [pin.snapshot_id for pin in ledger.pins(MIDDLE)] == [target[MIDDLE]]
    assert "Resume it" in result.to_markdown()

    graph.database("torn").unlink()
    resumed = resume_rollback(graph.catalog, ledger, result.operation.id, graph.replicas)
    assert (resumed.not_brought_back, resumed.operation.state) == ({}, "done")
    assert (graph.replica_ids("locked"), graph.replica_ids("torn")) == ([20], [20])
    pins = {(pin.owner, pin.snapshot_id) for pin in ledger.pins(MIDDLE)}
    assert pins == {("replica duckdb/shop.middle", target[MIDDLE])}, "those of the rollback are gone"


def test_a_computed_table_goes_no_further_back_than_its_inputs_demand(graph: GraphLake) -> None:
    """The middle table was computed twice from the first version of the root."""
    raw = graph.write(RAW, [1])
    graph.write(MIDDLE, [10], reads={RAW: raw})
    again = graph.write(MIDDLE, [11], reads={RAW: raw})
    graph.write(MIDDLE, [20], reads={RAW: graph.write(RAW, [2])})
    top = graph.write(TOP, [110], reads={MIDDLE: again})
    plan = plan_rollback(graph.catalog, RAW, raw)
    assert moves(plan) == {RAW: raw, MIDDLE: again, TOP: top}
    (item,) = [item for item in plan.tables if item.table == TOP]
    assert item.rollback is not None
    assert item.rollback.move is None, "it is there already"


def test_what_lags_behind_its_input_is_consistent_but_not_fresh(graph: GraphLake) -> None:
    old = graph.write(RAW, [1])
    middle = graph.write(MIDDLE, [10], reads={RAW: old})
    target = graph.write(RAW, [2])
    graph.write(RAW, [3])
    plan = plan_rollback(graph.catalog, RAW, target)
    assert {item.table: item.fresh for item in plan.tables} == {RAW: True, MIDDLE: False}
    assert moves(plan)[MIDDLE] == middle


def test_a_table_with_two_inputs_needs_both_early_enough(graph: GraphLake) -> None:
    """Its second version read the middle table as it was, but the root beside it too late."""
    first = generation(graph, 1)
    both = graph.write("mart.both", [1], reads={RAW: first[RAW], MIDDLE: first[MIDDLE]})
    later = graph.write(RAW, [2])
    graph.write("mart.both", [2], reads={RAW: later, MIDDLE: first[MIDDLE]})
    assert moves(plan_rollback(graph.catalog, RAW, first[RAW]))["mart.both"] == both


def test_what_grew_from_many_versions_goes_back_to_before_the_first_that_is_too_late(
    graph: GraphLake,
) -> None:
    raws, grown = [], []
    for number in range(4):
        raws.append(graph.write(RAW, [number], write_mode="append"))
        grown.append(graph.write(MIDDLE, [number], reads={RAW: raws[-1]}, write_mode="append"))
    assert moves(plan_rollback(graph.catalog, RAW, raws[1]))[MIDDLE] == grown[1]


def test_a_compaction_in_between_makes_nothing_too_late(graph: GraphLake, ledger: Ledger) -> None:
    raw = graph.write(RAW, [1])
    compacted = graph.compact(RAW)
    middle = graph.write(MIDDLE, [10], reads={RAW: compacted})
    compacted_middle = graph.compact(MIDDLE)
    graph.write(MIDDLE, [20], reads={RAW: graph.write(RAW, [2])})
    plan = plan_rollback(graph.catalog, RAW, raw)
    assert moves(plan) == {RAW: raw, MIDDLE: compacted_middle}
    assert all(item.fresh for item in plan.tables)
    apply_rollback(graph.catalog, plan, ledger)
    assert (graph.ids(MIDDLE), middle != compacted_middle) == ([10], True)


def test_what_has_no_version_that_goes_with_it_stays_and_is_told_and_so_is_what_came_from_it(
    graph: GraphLake, ledger: Ledger
) -> None:
    raw = graph.write(RAW, [1])
    next_millisecond()
    later = graph.write(RAW, [2])
    middle = graph.write(MIDDLE, [20], reads={RAW: later})
    top = graph.write(TOP, [200], reads={MIDDLE: middle})
    graph.replica("of_top", TOP).sync(graph.catalog)
    plan = plan_rollback(graph.catalog, RAW, raw, graph.replicas)
    assert moves(plan) == {RAW: raw, MIDDLE: None, TOP: None}
    assert f"{RAW} at {later}, which is later than {raw}" in plan.problems[MIDDLE]
    assert f"{MIDDLE} at {middle}, which cannot be brought back itself" in plan.problems[TOP]
    assert plan.replicas == ()
    result = apply_rollback(graph.catalog, plan, ledger, graph.replicas)
    assert heads(graph) == {RAW: raw, MIDDLE: middle, TOP: top}
    assert set(result.not_brought_back) == {MIDDLE, TOP}
    assert MIDDLE in result.to_markdown()


def test_an_expired_input_is_early_enough_only_if_it_was_read_before_the_target_was_made(
    graph: GraphLake,
) -> None:
    early = graph.write(RAW, [1])
    before = graph.write(MIDDLE, [10], reads={RAW: early})
    next_millisecond()
    target = graph.write(RAW, [2])
    next_millisecond()
    gone = graph.write(RAW, [3])
    graph.write(MIDDLE, [30], reads={RAW: gone})
    graph.write(RAW, [4])
    graph.table(RAW).manage_snapshots().create_tag(target, "kept").commit()
    graph.expire(RAW, early, gone)
    assert moves(plan_rollback(graph.catalog, RAW, target)) == {RAW: target, MIDDLE: before}


def test_an_interrupted_rollback_is_resumed_where_it_stopped(graph: GraphLake, ledger: Ledger) -> None:
    first, second = generation(graph, 1), generation(graph, 2)
    graph.replica("of_top", TOP).sync(graph.catalog)
    plan = plan_rollback(graph.catalog, RAW, first[RAW], graph.replicas)

    def stop_after_the_second(step: str) -> None:
        if step.startswith(f"table {MIDDLE}"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        apply_rollback(graph.catalog, plan, ledger, graph.replicas, on_step=stop_after_the_second)
    assert heads(graph) == {**first, TOP: second[TOP]}
    (begun,) = ledger.operations("rollback")
    assert (begun.state, begun.open_items) == ("running", (f"table {TOP}", "replica of_top"))
    # As if the process had died between the commit and the note of it.
    ledger.mark(begun.id, f"table {MIDDLE}", "pending")

    done = resume_rollback(graph.catalog, ledger, begun.id, graph.replicas)
    assert (done.operation.state, heads(graph)) == ("done", first)
    assert graph.replica_ids("of_top") == [100]
    assert [len(graph.tags(name)) for name in first] == [1, 1, 1]
    with pytest.raises(NotFoundError, match="rollback/none"):
        resume_rollback(graph.catalog, ledger, "rollback/none")


def test_commits_that_arrive_after_the_plan_stop_it_before_anything_changes(
    graph: GraphLake, ledger: Ledger
) -> None:
    first = generation(graph, 1)
    generation(graph, 2)
    plan = plan_rollback(graph.catalog, RAW, first[RAW])
    graph.write(TOP, [999])
    before = heads(graph)
    with pytest.raises(ConflictError, match=TOP):
        apply_rollback(graph.catalog, plan, ledger)
    assert (heads(graph), ledger.operations("rollback")) == (before, [])


def test_a_commit_that_arrives_in_the_middle_fails_that_table_alone(graph: GraphLake, ledger: Ledger) -> None:
    first = generation(graph, 1)
    generation(graph, 2)
    graph.replica("of_middle", MIDDLE).sync(graph.catalog)
    plan = plan_rollback(graph.catalog, RAW, first[RAW], graph.replicas)

    def arrive(step: str) -> None:
        if step.startswith(f"table {RAW}"):
            graph.write(MIDDLE, [999])

    result = apply_rollback(graph.catalog, plan, ledger, graph.replicas, on_step=arrive)
    assert set(result.not_brought_back) == {MIDDLE, "of_middle"}
    assert "other commits arrived" in result.not_brought_back[MIDDLE]
    assert (graph.ids(MIDDLE), graph.ids(TOP), graph.replica_ids("of_middle")) == ([999], [100], [20])


def test_commits_beside_the_target_are_lost_only_where_that_is_allowed(
    graph: GraphLake, ledger: Ledger
) -> None:
    first, second = generation(graph, 1), generation(graph, 2)
    apply_rollback(graph.catalog, plan_rollback(graph.catalog, RAW, first[RAW]), ledger)
    generation(graph, 3)
    plan = plan_rollback(graph.catalog, RAW, second[RAW])
    with pytest.raises(ConfigurationError, match=RAW):
        apply_rollback(graph.catalog, plan, ledger)
    result: GraphResult = apply_rollback(graph.catalog, plan, ledger, allow_lost=True)
    assert result.operation.state == "done"
    assert graph.ids(RAW) == [2]
    assert moves(plan)[MIDDLE] == first[MIDDLE], "what was made from the third generation is too late"
