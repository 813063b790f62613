"""What is written to a branch stays there until main takes the branch over, whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.types import LongType, StringType

from dwh_assets.errors import (
    ConfigurationError,
    ConflictError,
    DivergedError,
    NotFoundError,
    UnsupportedError,
)
from dwh_assets.iceberg.refs import drop_branch
from dwh_assets.iceberg.scan import read, scan
from dwh_assets.iceberg.versions import at_branch
from dwh_assets.versioning.branches import fast_forward
from dwh_assets.versioning.cherry_pick import cherry_pick
from dwh_assets.versioning.rollback import rollback
from dwh_tests.iceberg.conftest import Lake
from dwh_tests.iceberg.diff.compaction import compact
from dwh_tests.versioning.conftest import now, on, orders, shape

# A write that changes everything about a table that can be changed
NEW_SHAPE: dict[str, Any] = {
    "partition_spec": [{"field": "region"}],
    "sort_order": [{"field": "id", "direction": "desc"}],
    "table_properties": {"owner": "shop"},
    "columns": {"region": {"description": "Where it was sold."}},
}


def changed(*ids: int) -> pa.Table:
    return orders(*ids, note=["new"] * len(ids))


# --- What a branch wants of the table ---


def test_a_write_to_a_branch_changes_nothing_of_main(filled: Lake) -> None:
    before, rows = shape(filled), now(filled)
    filled.write(changed(3), branch="wip", **NEW_SHAPE)
    assert (shape(filled), now(filled)) == (before, rows)
    assert [row.get("note") for row in on(filled, "wip")] == [None, None, "new"]
    assert filled.table.scan().to_arrow().column_names == ["id", "region"]


def test_main_takes_over_rows_columns_partitioning_order_and_properties_at_once(filled: Lake) -> None:
    filled.write(changed(3), branch="wip", **NEW_SHAPE)
    expected, versions = on(filled, "wip"), len(filled.metadata["metadata-log"])
    published = fast_forward(filled.table, "wip")
    assert now(filled) == expected
    assert len(filled.metadata["metadata-log"]) == versions + 1, "one commit"
    found = shape(filled)
    assert found["columns"] == [
        (1, "id", "long", False),
        (2, "region", "string", False),
        (3, "note", "string", False),
    ]
    assert (found["partitions"], found["order"]) == ([("region", "identity")], [1])
    assert found["properties"]["owner"] == "shop"
    assert (published.snapshot_id, len(published.snapshots)) == (found["head"], 1)
    filled.write(changed(4), **NEW_SHAPE)
    assert [row["id"] for row in now(filled)] == [1, 2, 3, 4]


def test_later_writes_build_on_the_branch_s_shape(filled: Lake) -> None:
    filled.write(changed(3), branch="wip", **NEW_SHAPE)
    schemas = len(filled.metadata["schemas"])
    second = filled.write(orders(4, note=["again"], more=[1]), branch="wip")
    assert second.schema_changes == ("added more long",)
    third = filled.write(
        orders(4, note=["once more"], more=[2]), branch="wip", write_mode="upsert", key_columns=["id"]
    )
    assert (third.schema_changes, third.rows_updated) == ((), 1)
    assert len(filled.metadata["schemas"]) == schemas + 1
    fast_forward(filled.table, "wip")
    assert [(row["id"], row["note"], row["more"]) for row in now(filled)] == [
        (1, None, None),
        (2, None, None),
        (3, "new", None),
        (4, "once more", 2),
    ]
    assert shape(filled)["partitions"] == [("region", "identity")]


def test_a_branch_is_read_with_its_columns(filled: Lake) -> None:
    filled.write(changed(3), branch="wip")
    found = read(scan(at_branch(filled.table, "wip"), where="note = 'new'")).read_all()
    assert found.to_pylist() == changed(3).to_pylist()
    with pytest.raises(ConfigurationError, match="note"):
        scan(filled.table, where="note = 'new'")


def test_what_is_pending_survives_a_snapshot_of_another_engine(filled: Lake) -> None:
    filled.write(changed(3), branch="wip", **NEW_SHAPE)
    filled.table.append(orders(4), branch="wip")
    fast_forward(filled.table, "wip")
    assert shape(filled)["partitions"] == [("region", "identity")]
    assert [row["note"] for row in now(filled)] == [None, None, "new", None]


def test_a_column_may_become_optional_or_wider_on_a_branch_alone(lake: Lake) -> None:
    lake.write(pa.table({"id": pa.array([1], pa.int32()), "x": [1]}, schema=_required()))
    nulls = pa.table({"id": pa.array([2], pa.int64()), "x": pa.array([None], pa.int64())})
    result = lake.write(nulls, branch="wip")
    assert result.schema_changes == ("widened id from int to long", "made x optional")
    assert [column[2:] for column in shape(lake)["columns"]] == [("int", True), ("long", True)]
    fast_forward(lake.table, "wip")
    assert [column[2:] for column in shape(lake)["columns"]] == [("long", True), ("long", False)]
    assert [row["x"] for row in now(lake)] == [1, None]


def _required() -> pa.Schema:
    return pa.schema([pa.field("id", pa.int32(), nullable=False), pa.field("x", pa.int64(), nullable=False)])


def test_two_branches_may_bring_columns_of_one_name_and_only_one_is_published(filled: Lake) -> None:
    filled.write(orders(3, note=["text"]), branch="one")
    filled.write(orders(4, note=[7]), branch="two")
    assert [row.get("note") for row in on(filled, "two")] == [None, None, 7]
    ids = {f["id"] for schema in filled.metadata["schemas"] for f in schema["fields"] if f["name"] == "note"}
    assert ids == {3, 4}, "ids are given once for the whole table"
    fast_forward(filled.table, "one")
    before = shape(filled)
    with pytest.raises(DivergedError, match=r"lacks"):
        fast_forward(filled.table, "two")
    with pytest.raises(DivergedError, match=r"'note'.*ids 3 and 4"):
        cherry_pick(filled.table, "two")
    assert shape(filled) == before


def test_a_column_that_main_has_got_meanwhile_is_the_same_column_on_the_branch(filled: Lake) -> None:
    filled.write(orders(3, mine=["x"]), branch="wip")
    filled.table.update_schema().add_column("note", StringType()).commit()
    filled.write(orders(4, mine=["y"], note=["n"]), branch="wip")
    (field,) = {f["id"] for s in filled.metadata["schemas"] for f in s["fields"] if f["name"] == "note"}
    assert field == 4
    fast_forward(filled.table, "wip")
    assert [(row["id"], row["note"], row["mine"]) for row in now(filled)] == [
        (1, None, None),
        (2, None, None),
        (3, None, "x"),
        (4, "n", "y"),
    ]


def test_main_s_own_new_columns_stay_when_it_takes_a_branch_over(filled: Lake) -> None:
    filled.write(orders(3, mine=["x"]), branch="wip")
    filled.table.update_schema().add_column("theirs", LongType()).rename_column("region", "area").commit()
    fast_forward(filled.table, "wip")
    assert [column[1] for column in shape(filled)["columns"]] == ["id", "area", "theirs", "mine"]
    assert [row["mine"] for row in now(filled)] == [None, None, "x"]


def test_one_column_changed_on_both_sides_is_refused(filled: Lake) -> None:
    filled.write(orders(3), branch="wip", columns={"region": {"description": "ours"}})
    filled.table.update_schema().update_column("region", doc="theirs").commit()
    before = shape(filled)
    with pytest.raises(DivergedError, match=r"shop.orders: column 'region'"):
        fast_forward(filled.table, "wip")
    assert shape(filled) == before


def test_partitioning_changed_on_both_sides_is_refused(filled: Lake) -> None:
    filled.write(orders(3), branch="wip", partition_spec=[{"field": "region"}])
    filled.table.update_spec().add_identity("id").commit()
    before = shape(filled)
    with pytest.raises(DivergedError, match="partitioning"):
        fast_forward(filled.table, "wip")
    assert shape(filled) == before


def test_a_branch_cannot_be_partitioned_by_what_main_has_not(filled: Lake) -> None:
    before = filled.table.metadata_location
    for declared in ({"partition_spec": [{"field": "note"}]}, {"sort_order": [{"field": "note"}]}):
        with pytest.raises(UnsupportedError, match=r"'note' is new on this branch.*Publish the column first"):
            filled.write(changed(3), branch="wip", **declared)
    assert filled.table.metadata_location == before


# --- Fast-forward ---


def test_a_diverged_branch_is_refused_with_what_diverged(filled: Lake) -> None:
    filled.write(orders(3), branch="wip")
    meanwhile = filled.writer().write(orders(4, 5), summary={"dwh.run-id": "run-7"})
    before = shape(filled)
    with pytest.raises(DivergedError) as raised:
        fast_forward(filled.table, "wip")
    for word in ("'wip'", str(meanwhile.snapshot_id), "append", "run-7", "2 rows inserted"):
        assert word in raised.value.message
    assert shape(filled) == before


def test_only_what_was_audited_is_published(filled: Lake) -> None:
    audited = filled.write(orders(3), branch="wip").snapshot_id
    filled.write(orders(4), branch="wip")
    before = shape(filled)
    with pytest.raises(ConflictError, match="wip"):
        fast_forward(filled.table, "wip", head=audited)
    with pytest.raises(DivergedError, match="audited"):
        fast_forward(filled.table, "wip", base=audited)
    assert shape(filled) == before


def test_a_branch_is_published_once_and_can_go_with_it(filled: Lake) -> None:
    filled.write(orders(3), branch="wip")
    first = fast_forward(filled.table, "wip")
    second = fast_forward(filled.table, "wip", drop=True)
    assert (second.snapshot_id, second.snapshots) == (first.snapshot_id, ())
    assert set(filled.metadata["refs"]) == {"main"}
    filled.write(orders(4), branch="wip")
    fast_forward(filled.table, "wip", drop=True)
    assert set(filled.metadata["refs"]) == {"main"}
    assert [row["id"] for row in now(filled)] == [1, 2, 3, 4]


def test_a_commit_that_concerns_neither_does_not_hinder_publishing(filled: Lake) -> None:
    filled.write(orders(3), branch="wip")
    stale = filled.table
    filled.table.manage_snapshots().create_tag(stale.metadata.current_snapshot_id or 0, "q3").commit()
    fast_forward(stale, "wip")
    assert [row["id"] for row in now(filled)] == [1, 2, 3]
    assert set(filled.metadata["refs"]) == {"main", "wip", "q3"}


def test_an_unknown_branch_and_a_tag_are_refused(filled: Lake) -> None:
    head = filled.table.metadata.current_snapshot_id or 0
    filled.table.manage_snapshots().create_tag(head, "q3").commit()
    with pytest.raises(NotFoundError, match=r"'wip'.*main, q3"):
        fast_forward(filled.table, "wip")
    with pytest.raises(ConfigurationError, match="tag"):
        fast_forward(filled.table, "q3")
    with pytest.raises(ConfigurationError, match="tag"):
        drop_branch(filled.catalog, filled.table, "q3")
    with pytest.raises(ConfigurationError, match="main"):
        drop_branch(filled.catalog, filled.table, "main")


def test_a_branch_is_written_while_main_is_and_both_land(filled: Lake) -> None:
    """Branches have heads of their own, but snapshots are numbered for the whole table."""

    def arriving() -> Iterator[pa.RecordBatch]:
        filled.write(orders(9))
        yield from orders(3).to_batches()

    reader = pa.RecordBatchReader.from_batches(orders(3).schema, arriving())
    result = filled.write(reader, branch="wip")
    assert (result.attempts, result.total_rows) == (2, 4)
    assert [row["id"] for row in now(filled)] == [1, 2, 9]
    assert [row["id"] for row in on(filled, "wip")] == [1, 2, 3, 9]
    assert not filled.orphans()


@pytest.fixture
def rolled_back(lake: Lake) -> tuple[Lake, int]:
    """A branch with order 4 that was begun on order 3, which main has taken over with order 2 and left."""
    first = lake.write(orders(1)).snapshot_id
    lake.write(orders(2), branch="two")
    lake.write(orders(9), branch="two")
    fast_forward(lake.table, "two", drop=True)
    third = lake.write(orders(3)).snapshot_id
    lake.write(orders(4), branch="dev")
    assert first is not None
    assert third is not None
    rollback(lake.catalog, lake.name, first)
    return lake, third


def test_a_branch_does_not_bring_back_what_main_has_rolled_back(rolled_back: tuple[Lake, int]) -> None:
    lake, third = rolled_back
    before = shape(lake)
    with pytest.raises(DivergedError, match="rolled back since, and would bring 3") as raised:
        fast_forward(lake.table, "dev")
    assert str(third) in raised.value.message
    assert "--allow-rolled-back" in raised.value.remedy
    assert shape(lake) == before
    fast_forward(lake.table, "dev", allow_rolled_back=True)
    assert [row["id"] for row in now(lake)] == [1, 2, 3, 4, 9]


def test_a_branch_begun_in_the_middle_of_what_was_taken_over_does_not_either(
    rolled_back: tuple[Lake, int],
) -> None:
    """Of a branch that main takes over, its log names only the head."""
    lake, third = rolled_back
    parents = {s["snapshot-id"]: s.get("parent-snapshot-id") for s in lake.metadata["snapshots"]}
    middle = parents[parents[third]]
    lake.table.manage_snapshots().create_branch(middle, "mid").commit()
    lake.write(orders(5), branch="mid")
    with pytest.raises(DivergedError, match="would bring 1"):
        fast_forward(lake.table, "mid")


def test_what_main_has_rolled_back_is_not_picked_with_a_branch(rolled_back: tuple[Lake, int]) -> None:
    lake, third = rolled_back
    cherry_pick(lake.table, "dev")
    assert [row["id"] for row in now(lake)] == [1, 4]
    cherry_pick(lake.table, third)
    assert [row["id"] for row in now(lake)] == [1, 3, 4], "one that is named is meant"


def test_a_branch_from_before_is_published_once_the_rollback_is_undone(rolled_back: tuple[Lake, int]) -> None:
    lake, third = rolled_back
    rollback(lake.catalog, lake.name, third)
    fast_forward(lake.table, "dev")
    assert [row["id"] for row in now(lake)] == [1, 2, 3, 4, 9]


# --- Dropping ---


def test_a_dropped_branch_is_gone_and_its_snapshots_too_if_so_asked(filled: Lake) -> None:
    kept = filled.write(orders(3), branch="wip").snapshot_id
    drop_branch(filled.catalog, filled.table, "wip")
    assert set(filled.metadata["refs"]) == {"main"}
    assert kept in {snapshot["snapshot-id"] for snapshot in filled.metadata["snapshots"]}
    filled.write(orders(3), branch="wip")
    tagged = filled.write(orders(4), branch="wip").snapshot_id or 0
    last = filled.write(orders(5), branch="wip").snapshot_id
    filled.table.manage_snapshots().create_tag(tagged, "q3").commit()
    drop_branch(filled.catalog, filled.table, "wip", forget=True)
    left = {snapshot["snapshot-id"] for snapshot in filled.metadata["snapshots"]}
    assert (tagged in left, last in left) == (True, False)
    assert [row["id"] for row in now(filled)] == [1, 2]


# --- Cherry-picking ---


def test_appends_of_a_diverged_branch_are_taken_over_with_their_files(filled: Lake) -> None:
    one = filled.writer(branch="wip").write(orders(3), summary={"dwh.run-id": "run-3"})
    filled.write(orders(4, note=["n"]), branch="wip")
    filled.write(orders(9))
    files = filled.on_disk(".parquet")
    picked = cherry_pick(filled.table, "wip")
    assert filled.on_disk(".parquet") == files, "no data file is written"
    assert [(row["id"], row["note"]) for row in now(filled)] == [
        (1, None),
        (2, None),
        (3, None),
        (4, "n"),
        (9, None),
    ]
    assert (len(picked.snapshots), picked.snapshots[0]) == (2, one.snapshot_id)
    assert (filled.summary["dwh.run-id"], filled.summary["dwh.total-rows"]) == ("run-3", "5")
    assert cherry_pick(filled.table, "wip").snapshots == ()
    assert len(now(filled)) == 5
    upserted = filled.write(orders(3, note=["u"]), write_mode="upsert", key_columns=["id"])
    assert (upserted.rows_updated, upserted.total_rows) == (1, 5)


def test_one_snapshot_may_be_picked_alone(filled: Lake) -> None:
    filled.write(orders(3), branch="wip")
    second = filled.write(orders(4), branch="wip").snapshot_id or 0
    filled.write(orders(9))
    assert cherry_pick(filled.table, second).snapshots == (second,)
    assert [row["id"] for row in now(filled)] == [1, 2, 4, 9]
    cherry_pick(filled.table, "wip")
    assert [row["id"] for row in now(filled)] == [1, 2, 3, 4, 9]


def keyed(lake: Lake, *ids: int, **declared: Any) -> None:
    lake.write(orders(*ids), write_mode="upsert", key_columns=["region", "id"], **declared)


def test_keys_that_main_has_got_meanwhile_are_not_picked_a_second_time(lake: Lake) -> None:
    keyed(lake, 1)
    lake.write(orders(3, 4, 5, 6, 7, 8, 9, note=["b"] * 7), branch="wip")
    keyed(lake, 1, 3, 4, 5, 6, 7, 8)
    before = shape(lake)
    with pytest.raises(DivergedError, match="rows of 6 keys meanwhile") as raised:
        cherry_pick(lake.table, "wip")
    for word in ("shop.orders", "(id=3, region='eu')", "(id=7, region='eu'), …"):
        assert word in raised.value.message
    assert "upsert" in raised.value.remedy
    assert shape(lake) == before


def test_other_keys_are_picked_and_what_a_compaction_wrote_again_is_not_new(lake: Lake) -> None:
    keyed(lake, 1, 2)
    lake.write(orders(3), branch="wip")
    compact(lake.catalog, lake.name)
    lake.table.update_schema().rename_column("region", "area").commit()
    lake.table.update_schema().move_first("area").commit()
    lake.write(pa.table({"id": [4], "area": ["eu"]}), write_mode="upsert", key_columns=["area", "id"])
    cherry_pick(lake.table, "wip")
    assert [(row["id"], row["area"]) for row in now(lake)] == [(n, "eu") for n in (1, 2, 3, 4)]


def test_a_key_that_comes_while_it_is_picked_is_found(lake: Lake) -> None:
    keyed(lake, 1)
    lake.write(orders(3), branch="wip")
    keyed(lake, 2)
    stale = lake.catalog.load_table(lake.name)
    keyed(lake, 3)
    with pytest.raises(DivergedError, match="id=3"):
        cherry_pick(stale, "wip")
    assert [row["id"] for row in now(lake)] == [1, 2, 3]


def test_a_key_that_was_picked_is_written_once(filled: Lake) -> None:
    filled.writer(branch="wip", idempotency_key="k").write(orders(3))
    filled.write(orders(9))
    cherry_pick(filled.table, "wip")
    assert filled.writer(idempotency_key="k").write(orders(3)).repeated


def test_anything_but_appends_is_refused_with_what_it_is(filled: Lake) -> None:
    filled.write(orders(3), branch="wip")
    gone = filled.write(orders(1, 5), branch="wip", write_mode="upsert", key_columns=["id"])
    assert gone.rows_unchanged == 1
    replaced = filled.write(orders(7), branch="wip", write_mode="overwrite").snapshot_id
    filled.write(orders(9))
    before = shape(filled)
    with pytest.raises(UnsupportedError, match=rf"{replaced}.*overwrite"):
        cherry_pick(filled.table, "wip")
    filled.writer(branch="fed").write_stream([pa.RecordBatch.from_pylist(orders(8).to_pylist())], "events")
    with pytest.raises(UnsupportedError, match="'events'"):
        cherry_pick(filled.table, "fed")
    with pytest.raises(NotFoundError, match="12345"):
        cherry_pick(filled.table, 12345)
    assert shape(filled) == before


@pytest.mark.parametrize("own", [{}, {"extra": [1]}], ids=["no column of its own", "one of its own"])
def test_a_branch_from_before_a_rollback_brings_all_of_its_columns(lake: Lake, own: dict[str, Any]) -> None:
    first = lake.write(orders(1)).snapshot_id
    assert first is not None
    lake.write(orders(2, note=["n"]))
    lake.write(orders(3, note=["m"], **own), branch="dev")
    rollback(lake.catalog, lake.name, first)
    fast_forward(lake.catalog.load_table(lake.name), "dev", allow_rolled_back=True)
    assert [column[1] for column in shape(lake)["columns"]] == ["id", "region", "note", *own]
    assert [row["note"] for row in now(lake)] == [None, "n", "m"]
