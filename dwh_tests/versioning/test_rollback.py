"""Rolling one table back: what it then reads, what is kept, and what is refused."""

from __future__ import annotations

import json
import multiprocessing
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.exceptions import CommitFailedException

from dwh_assets.errors import ConfigurationError, ConflictError, NotFoundError
from dwh_assets.versioning.rollback import apply_table_rollback, plan_table_rollback, rollback
from dwh_tests.versioning.lake import Lake

TABLE = "shop.orders"


def three(lake: Lake) -> list[int]:
    return [lake.write(TABLE, [number], write_mode="append") for number in (1, 2, 3)]


def test_the_table_reads_as_it_did_and_what_it_leaves_is_tagged(lake: Lake) -> None:
    first, second, third = three(lake)
    done = rollback(lake.catalog, TABLE, first)
    assert lake.ids(TABLE) == [1]
    assert (lake.head(TABLE), lake.tags(TABLE)) == (first, {done.tag: third})
    assert [commit.snapshot_id for commit in done.dropped] == [third, second]
    assert done.dropped[0].run_id == "run-3"
    assert (done.lost, done.restored) == ((), ())
    assert lake.ids(TABLE, third) == [1, 2, 3], "nothing is lost"
    log = [entry.snapshot_id for entry in lake.table(TABLE).metadata.snapshot_log]
    assert log == [first, second, third, first], "time travel knows what main showed when"


def test_a_rollback_is_rolled_back_to_its_tag_even_after_expiry(lake: Lake) -> None:
    first, second, third = three(lake)
    rollback(lake.catalog, TABLE, first)
    with pytest.raises(ValueError, match="protected"):
        lake.expire(TABLE, third)
    lake.expire(TABLE, second)
    (kept,) = lake.tags(TABLE).values()
    undone = rollback(lake.catalog, TABLE, kept)
    assert [commit.snapshot_id for commit in undone.restored] == [third]
    assert undone.lost == ()
    assert lake.ids(TABLE) == [1, 2, 3]


def test_a_dry_run_says_the_same_and_changes_nothing(lake: Lake) -> None:
    first, _, third = three(lake)
    before = lake.table(TABLE).metadata_location
    plan = rollback(lake.catalog, TABLE, first, dry_run=True)
    assert lake.table(TABLE).metadata_location == before
    assert plan.tag is not None
    said = plan.to_markdown()
    assert f"from snapshot `{third}` to `{first}`" in said
    assert plan.tag in said
    assert said.count("no longer shown") == 2
    assert json.loads(json.dumps(plan.to_dict()))["to_snapshot_id"] == str(first)
    apply_table_rollback(lake.catalog, plan)
    assert (lake.head(TABLE), lake.tags(TABLE)) == (first, {plan.tag: third})


def test_where_it_stands_already_nothing_is_done(lake: Lake) -> None:
    *_, third = three(lake)
    before = lake.table(TABLE).metadata_location
    done = rollback(lake.catalog, TABLE, third)
    assert (done.move, done.tag) == (None, None)
    assert "already" in done.to_markdown()
    assert lake.table(TABLE).metadata_location == before


def test_commits_that_nobody_looked_at_are_not_rolled_back(lake: Lake) -> None:
    first, second, third = three(lake)
    with pytest.raises(ConflictError, match=str(third)):
        rollback(lake.catalog, TABLE, first, expected_head=second)
    plan = plan_table_rollback(lake.table(TABLE), first)
    fourth = lake.write(TABLE, [4], write_mode="append")
    with pytest.raises(ConflictError, match="other commits arrived"):
        apply_table_rollback(lake.catalog, plan)
    assert (lake.head(TABLE), lake.tags(TABLE)) == (fourth, {})
    rollback(lake.catalog, TABLE, first, expected_head=fourth)
    assert lake.ids(TABLE) == [1]


def test_a_target_beside_newer_commits_is_refused_unless_told_so(lake: Lake) -> None:
    first, _, third = three(lake)
    rollback(lake.catalog, TABLE, first)
    fourth = lake.write(TABLE, [4], write_mode="append")
    with pytest.raises(ConfigurationError, match=rf"1 commits of main.*{fourth}"):
        rollback(lake.catalog, TABLE, third)
    assert lake.ids(TABLE) == [1, 4]
    done = rollback(lake.catalog, TABLE, third, allow_lost=True)
    assert [commit.snapshot_id for commit in done.lost] == [fourth]
    assert lake.ids(TABLE) == [1, 2, 3]
    assert fourth in lake.tags(TABLE).values()


def test_a_target_that_is_gone_or_never_was_is_refused(lake: Lake) -> None:
    first, *_ = three(lake)
    lake.expire(TABLE, first)
    with pytest.raises(NotFoundError, match=str(first)):
        rollback(lake.catalog, TABLE, first)
    with pytest.raises(NotFoundError, match=r"shop\.none"):
        rollback(lake.catalog, "shop.none", first)


def test_what_main_never_showed_is_not_published_by_a_rollback(lake: Lake) -> None:
    three(lake)
    audited = lake.write(TABLE, [7], write_mode="append", branch="audit")
    with pytest.raises(ConfigurationError, match="never shown"):
        rollback(lake.catalog, TABLE, audited)
    assert lake.ids(TABLE) == [1, 2, 3]


def test_a_tagged_version_before_the_oldest_kept_commit_is_no_other_way(lake: Lake) -> None:
    """PyIceberg's expiry forgets whose parent an expired snapshot was."""
    first, second, third = three(lake)
    lake.table(TABLE).manage_snapshots().create_tag(first, "q1").commit()
    lake.expire(TABLE, second)
    assert lake.table(TABLE).metadata.snapshot_by_id(third).parent_snapshot_id is None  # type: ignore[union-attr]
    done = rollback(lake.catalog, TABLE, first)
    assert ([commit.snapshot_id for commit in done.dropped], done.lost) == ([third], ())
    assert lake.ids(TABLE) == [1]


def test_columns_become_those_of_then_and_come_back_with_the_undo(lake: Lake) -> None:
    first = lake.write(TABLE, pa.table({"id": pa.array([1], pa.int32())}))
    second = lake.write(TABLE, pa.table({"id": pa.array([1 << 40]), "place": ["eu"]}))
    with lake.table(TABLE).update_schema() as update:
        update.rename_column("place", "region")
    lake.write(TABLE, pa.table({"id": [3], "region": ["us"]}), write_mode="append")

    done = rollback(lake.catalog, TABLE, first)
    assert lake.rows(TABLE) == [{"id": 1}]
    assert str(lake.table(TABLE).schema().find_type("id")) == "int"
    assert [note for note in done.notes if "region" in note] == ["column region goes"]
    rollback(lake.catalog, TABLE, second)
    assert lake.rows(TABLE) == [{"id": 1 << 40, "place": "eu"}]
    (newest,) = {*lake.tags(TABLE).values()} - {first}
    rollback(lake.catalog, TABLE, newest)
    assert sorted(row["region"] for row in lake.rows(TABLE)) == ["eu", "us"]


def test_partitioning_and_order_by_a_column_that_goes_give_way(lake: Lake) -> None:
    by_place: dict[str, Any] = {
        "partition_spec": [{"field": "place"}], "sort_order": [{"field": "place"}]
    }  # fmt: skip
    first = lake.write(TABLE, [1])
    second = lake.write(TABLE, pa.table({"id": [2], "place": ["eu"]}), **by_place)
    done = rollback(lake.catalog, TABLE, first)
    table = lake.table(TABLE)
    assert (table.spec().fields, table.sort_order().fields, lake.rows(TABLE)) == ((), [], [{"id": 1}])
    assert any("partitioning" in note for note in done.notes)
    lake.write(TABLE, [5], write_mode="append")
    assert lake.ids(TABLE) == [1, 5]
    rollback(lake.catalog, TABLE, second, allow_lost=True)
    assert lake.rows(TABLE) == [{"id": 2, "place": "eu"}]


def test_a_commit_that_leaves_main_alone_is_waited_out(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """The catalog refuses a commit that another one overtook, whatever it was about."""
    first, _, third = three(lake)
    plan = plan_table_rollback(lake.table(TABLE), first)

    original = lake.catalog.commit_table
    overtaken: list[int] = []

    def overtake(*arguments: Any) -> Any:
        if not overtaken:
            overtaken.append(1)
            raise CommitFailedException("Table has been updated by another process")
        return original(*arguments)

    monkeypatch.setattr(lake.catalog, "commit_table", overtake)
    apply_table_rollback(lake.catalog, plan)
    assert (lake.head(TABLE), lake.tags(TABLE)) == (first, {plan.tag: third})


def test_an_answer_that_was_lost_is_found_in_the_table(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _, third = three(lake)
    original = lake.catalog.commit_table

    def lose(*arguments: Any) -> Any:
        original(*arguments)
        raise ConnectionError("the answer was lost")

    monkeypatch.setattr(lake.catalog, "commit_table", lose)
    done = rollback(lake.catalog, TABLE, first)
    assert (lake.head(TABLE), lake.tags(TABLE)) == (first, {done.tag: third})


def _race(folder: str, to: int, start: Any, results: Any) -> None:
    from pathlib import Path

    lake = Lake(Path(folder))
    plan = plan_table_rollback(lake.table(TABLE), to)
    start.wait(60)
    try:
        apply_table_rollback(lake.catalog, plan)
        results.put(("done", to))
    except ConflictError:
        results.put(("refused", to))


def test_of_two_rollbacks_at_once_one_wins_and_the_other_is_refused(lake: Lake) -> None:
    first, second, third = three(lake)
    context = multiprocessing.get_context("spawn")
    start, results = context.Barrier(2), context.Queue()
    workers = [
        context.Process(target=_race, args=(str(lake.folder), to, start, results)) for to in (first, second)
    ]
    for worker in workers:
        worker.start()
    found = dict(results.get(timeout=120) for _ in workers)
    for worker in workers:
        worker.join(60)
    assert found.keys() == {"done", "refused"}
    assert lake.head(TABLE) == found["done"]
    assert list(lake.tags(TABLE).values()) == [third]
