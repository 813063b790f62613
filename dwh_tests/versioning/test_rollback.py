"""Rolling one table back: what it then reads, what is kept, and what is refused."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.exceptions import CommitFailedException

from dwh_assets.errors import ConfigurationError, ConflictError, NotFoundError
from dwh_assets.iceberg.refs import drop_branch
from dwh_assets.versioning.branches import fast_forward
from dwh_assets.versioning.graph import plan_rollback
from dwh_assets.versioning.rollback import apply_table_rollback, plan_table_rollback, rollback
from dwh_tests.versioning.graph import GraphLake

TABLE = "shop.orders"


def three(graph: GraphLake) -> list[int]:
    return [graph.write(TABLE, [number], write_mode="append") for number in (1, 2, 3)]


def test_the_table_reads_as_it_did_and_what_it_leaves_is_tagged(graph: GraphLake) -> None:
    first, second, third = three(graph)
    done = rollback(graph.catalog, TABLE, first)
    assert graph.ids(TABLE) == [1]
    assert (graph.head(TABLE), graph.tags(TABLE)) == (first, {done.tag: third})
    assert [commit.snapshot_id for commit in done.dropped] == [third, second]
    assert done.dropped[0].run_id == "run-3"
    assert (done.lost, done.restored) == ((), ())
    assert graph.ids(TABLE, third) == [1, 2, 3], "nothing is lost"
    log = [entry.snapshot_id for entry in graph.table(TABLE).metadata.snapshot_log]
    assert log == [first, second, third, first], "time travel knows what main showed when"


def test_a_rollback_is_rolled_back_to_its_tag_even_after_expiry(graph: GraphLake) -> None:
    first, second, third = three(graph)
    rollback(graph.catalog, TABLE, first)
    with pytest.raises(ValueError, match="protected"):
        graph.expire(TABLE, third)
    graph.expire(TABLE, second)
    (kept,) = graph.tags(TABLE).values()
    undone = rollback(graph.catalog, TABLE, kept)
    assert [commit.snapshot_id for commit in undone.restored] == [third]
    assert undone.lost == ()
    assert graph.ids(TABLE) == [1, 2, 3]


def test_a_dry_run_says_the_same_and_changes_nothing(graph: GraphLake) -> None:
    first, _, third = three(graph)
    before = graph.table(TABLE).metadata_location
    plan = rollback(graph.catalog, TABLE, first, dry_run=True)
    assert graph.table(TABLE).metadata_location == before
    assert plan.tag is not None
    said = plan.to_markdown()
    assert f"from snapshot `{third}` to `{first}`" in said
    assert plan.tag in said
    assert said.count("no longer shown") == 2
    assert json.loads(json.dumps(plan.to_dict()))["to_snapshot_id"] == str(first)
    apply_table_rollback(graph.catalog, plan)
    assert (graph.head(TABLE), graph.tags(TABLE)) == (first, {plan.tag: third})


def test_where_it_stands_already_nothing_is_done(graph: GraphLake) -> None:
    *_, third = three(graph)
    before = graph.table(TABLE).metadata_location
    done = rollback(graph.catalog, TABLE, third)
    assert (done.move, done.tag) == (None, None)
    assert "already" in done.to_markdown()
    assert graph.table(TABLE).metadata_location == before


def test_commits_that_nobody_looked_at_are_not_rolled_back(graph: GraphLake) -> None:
    first, second, third = three(graph)
    with pytest.raises(ConflictError, match=str(third)):
        rollback(graph.catalog, TABLE, first, expected_head=second)
    plan = plan_table_rollback(graph.table(TABLE), first)
    fourth = graph.write(TABLE, [4], write_mode="append")
    with pytest.raises(ConflictError, match="other commits arrived"):
        apply_table_rollback(graph.catalog, plan)
    assert (graph.head(TABLE), graph.tags(TABLE)) == (fourth, {})
    rollback(graph.catalog, TABLE, first, expected_head=fourth)
    assert graph.ids(TABLE) == [1]


def test_a_target_beside_newer_commits_is_refused_unless_told_so(graph: GraphLake) -> None:
    first, _, third = three(graph)
    rollback(graph.catalog, TABLE, first)
    fourth = graph.write(TABLE, [4], write_mode="append")
    with pytest.raises(ConfigurationError, match=rf"1 commits of main.*{fourth}"):
        rollback(graph.catalog, TABLE, third)
    assert graph.ids(TABLE) == [1, 4]
    done = rollback(graph.catalog, TABLE, third, allow_lost=True)
    assert [commit.snapshot_id for commit in done.lost] == [fourth]
    assert graph.ids(TABLE) == [1, 2, 3]
    assert fourth in graph.tags(TABLE).values()


def test_a_target_that_is_gone_or_never_was_is_refused(graph: GraphLake) -> None:
    first, *_ = three(graph)
    graph.expire(TABLE, first)
    with pytest.raises(NotFoundError, match=str(first)):
        rollback(graph.catalog, TABLE, first)
    with pytest.raises(NotFoundError, match=r"shop\.none"):
        rollback(graph.catalog, "shop.none", first)


def test_what_main_never_showed_is_not_published_by_a_rollback(graph: GraphLake) -> None:
    three(graph)
    audited = graph.write(TABLE, [7], write_mode="append", branch="audit")
    with pytest.raises(ConfigurationError, match=r"not known to have shown.*'audit'"):
        rollback(graph.catalog, TABLE, audited)
    assert graph.ids(TABLE) == [1, 2, 3]


@pytest.fixture
def expired(graph: GraphLake) -> GraphLake:
    """Expiry took the commits after the tags `failed`, of a branch that is dropped, and `good`, of main."""
    good = graph.write(TABLE, [1], write_mode="append")
    failed = graph.write(TABLE, [666], write_mode="append", branch="audit_1")
    for name, snapshot_id in (("good", good), ("failed", failed)):
        graph.table(TABLE).manage_snapshots().create_tag(snapshot_id, name).commit()
    drop_branch(graph.catalog, graph.table(TABLE), "audit_1", forget=True)
    second = graph.write(TABLE, [2], write_mode="append")
    graph.write(TABLE, [3], write_mode="append")
    graph.expire(TABLE, second)
    return graph


@pytest.mark.parametrize("log_is_cut", [False, True])
def test_a_tag_on_what_failed_its_audits_is_no_way_back(expired: GraphLake, log_is_cut: bool) -> None:
    """Iceberg's own expiry cuts the log where it took a snapshot; PyIceberg's leaves the rest."""
    if log_is_cut:
        cut_log(expired)
    tags = expired.tags(TABLE)
    for plan in (plan_table_rollback, lambda table, to: plan_rollback(expired.catalog, TABLE, to)):
        with pytest.raises(ConfigurationError, match=r"'audit_1'.*may never have passed"):
            plan(expired.table(TABLE), tags["failed"])
    with pytest.raises(ConfigurationError, match="--allow-unpublished"):
        rollback(expired.catalog, TABLE, tags["failed"], allow_lost=True)
    assert rollback(expired.catalog, TABLE, tags["good"], dry_run=True).lost == ()
    rollback(expired.catalog, TABLE, tags["failed"], allow_lost=True, allow_unpublished=True)
    assert expired.ids(TABLE) == [1, 666]


def test_what_was_published_before_expiry_is_a_way_back(graph: GraphLake) -> None:
    graph.write(TABLE, [1], write_mode="append")
    published = graph.write(TABLE, [7], write_mode="append", branch="audit_1")
    fast_forward(graph.table(TABLE), "audit_1", drop=True)
    graph.table(TABLE).manage_snapshots().create_tag(published, "q3").commit()
    second = graph.write(TABLE, [2], write_mode="append")
    graph.write(TABLE, [3], write_mode="append")
    graph.expire(TABLE, second)
    assert rollback(graph.catalog, TABLE, published).lost == ()
    assert graph.ids(TABLE) == [1, 7]


def cut_log(graph: GraphLake) -> None:
    """Leave of the table's log only what main shows now."""
    path = Path(graph.table(TABLE).metadata_location.removeprefix("file://"))
    told = json.loads(path.read_text())
    path.write_text(json.dumps({**told, "snapshot-log": told["snapshot-log"][-1:]}))


def test_a_tagged_version_before_the_oldest_kept_commit_is_no_other_way(graph: GraphLake) -> None:
    """PyIceberg's expiry forgets whose parent an expired snapshot was."""
    first, second, third = three(graph)
    graph.table(TABLE).manage_snapshots().create_tag(first, "q1").commit()
    graph.expire(TABLE, second)
    assert graph.table(TABLE).metadata.snapshot_by_id(third).parent_snapshot_id is None  # type: ignore[union-attr]
    done = rollback(graph.catalog, TABLE, first)
    assert ([commit.snapshot_id for commit in done.dropped], done.lost) == ([third], ())
    assert graph.ids(TABLE) == [1]


def test_columns_become_those_of_then_and_come_back_with_the_undo(graph: GraphLake) -> None:
    first = graph.write(TABLE, pa.table({"id": pa.array([1], pa.int32())}))
    second = graph.write(TABLE, pa.table({"id": pa.array([1 << 40]), "place": ["eu"]}))
    with graph.table(TABLE).update_schema() as update:
        update.rename_column("place", "region")
    graph.write(TABLE, pa.table({"id": [3], "region": ["us"]}), write_mode="append")

    done = rollback(graph.catalog, TABLE, first)
    assert graph.rows(TABLE) == [{"id": 1}]
    assert str(graph.table(TABLE).schema().find_type("id")) == "int"
    assert [note for note in done.notes if "region" in note] == ["column region goes"]
    rollback(graph.catalog, TABLE, second)
    assert graph.rows(TABLE) == [{"id": 1 << 40, "place": "eu"}]
    (newest,) = {*graph.tags(TABLE).values()} - {first}
    rollback(graph.catalog, TABLE, newest)
    assert sorted(row["region"] for row in graph.rows(TABLE)) == ["eu", "us"]


def test_columns_stay_where_partitioning_or_order_needs_one_that_would_go(graph: GraphLake) -> None:
    first = graph.write(TABLE, [1])
    graph.write(TABLE, pa.table({"id": [2], "place": ["eu"]}), partition_spec=[{"field": "place"}])
    done = rollback(graph.catalog, TABLE, first)
    assert graph.rows(TABLE) == [{"id": 1, "place": None}]
    assert any("partitioned or sorted by place" in note for note in done.notes)
    assert graph.table(TABLE).inspect.files().num_rows == 1
    graph.write(TABLE, pa.table({"id": [5], "place": ["us"]}), write_mode="append")
    assert graph.ids(TABLE) == [1, 5]


def test_a_commit_that_leaves_main_alone_is_waited_out(
    graph: GraphLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The catalog refuses a commit that another one overtook, whatever it was about."""
    first, _, third = three(graph)
    plan = plan_table_rollback(graph.table(TABLE), first)

    original = graph.catalog.commit_table
    overtaken: list[int] = []

    def overtake(*arguments: Any) -> Any:
        if not overtaken:
            overtaken.append(1)
            raise CommitFailedException("Table has been updated by another process")
        return original(*arguments)

    monkeypatch.setattr(graph.catalog, "commit_table", overtake)
    apply_table_rollback(graph.catalog, plan)
    assert (graph.head(TABLE), graph.tags(TABLE)) == (first, {plan.tag: third})


def test_an_answer_that_was_lost_is_found_in_the_table(
    graph: GraphLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _, third = three(graph)
    original = graph.catalog.commit_table

    def lose(*arguments: Any) -> Any:
        original(*arguments)
        raise ConnectionError("the answer was lost")

    monkeypatch.setattr(graph.catalog, "commit_table", lose)
    done = rollback(graph.catalog, TABLE, first)
    assert (graph.head(TABLE), graph.tags(TABLE)) == (first, {done.tag: third})


def _race(folder: str, to: int, start: Any, results: Any) -> None:
    from pathlib import Path

    graph = GraphLake(Path(folder))
    plan = plan_table_rollback(graph.table(TABLE), to)
    start.wait(60)
    try:
        apply_table_rollback(graph.catalog, plan)
        results.put(("done", to))
    except ConflictError:
        results.put(("refused", to))


def test_of_two_rollbacks_at_once_one_wins_and_the_other_is_refused(graph: GraphLake) -> None:
    first, second, third = three(graph)
    context = multiprocessing.get_context("spawn")
    start, results = context.Barrier(2), context.Queue()
    workers = [
        context.Process(target=_race, args=(str(graph.folder), to, start, results)) for to in (first, second)
    ]
    for worker in workers:
        worker.start()
    found = dict(results.get(timeout=120) for _ in workers)
    for worker in workers:
        worker.join(60)
    assert found.keys() == {"done", "refused"}
    assert graph.head(TABLE) == found["done"]
    assert list(graph.tags(TABLE).values()) == [third]
