"""What was made from a version, against a graph that the test itself has written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dwh_assets.errors import NotFoundError
from dwh_assets.versioning.impact import Impact, impact
from dwh_tests.versioning.graph import GraphLake, next_millisecond


def made(found: Impact) -> list[tuple[str, int]]:
    return [(write.table, write.snapshot_id) for write in found.writes]


def test_what_read_a_version_is_found_step_by_step_and_what_read_another_is_not(graph: GraphLake) -> None:
    raw = graph.write("shop.raw", [1])
    middle = graph.write("shop.middle", [1], reads={"shop.raw": raw})
    next_millisecond()
    top = graph.write("mart.top", [1], reads={"shop.middle": middle})
    graph.write("mart.aside", [1])
    newer = graph.write("shop.raw", [2])
    graph.write("shop.middle", [2], reads={"shop.raw": newer})

    found = impact(graph.catalog, "shop.raw", raw)
    assert made(found) == [("shop.middle", middle), ("mart.top", top)]
    assert [write.current for write in found.writes] == [False, True]
    assert found.writes[0].run_id == "run-2"
    assert found.tables == ("mart.top", "shop.middle")
    assert all(write.certain for write in found.writes)
    assert made(impact(graph.catalog, "mart.top")) == []
    assert json.loads(json.dumps(found.to_dict()))["writes"][1]["snapshot_id"] == str(top)


def test_what_read_a_later_version_that_holds_the_rows_is_made_from_them(graph: GraphLake) -> None:
    """The middle table grows: what read it after the second append has its first input, too."""
    raw = graph.write("shop.raw", [1])
    middle = graph.write("shop.middle", [1], reads={"shop.raw": raw}, write_mode="append")
    grown = graph.write("shop.middle", [2], write_mode="append")
    top = graph.write("mart.top", [1, 2], reads={"shop.middle": grown})
    replaced = graph.write("shop.middle", [3])
    graph.write("mart.later", [3], reads={"shop.middle": replaced})
    assert set(made(impact(graph.catalog, "shop.raw"))) == {("shop.middle", middle), ("mart.top", top)}


def test_a_compaction_is_the_version_that_it_compacted(graph: GraphLake) -> None:
    raw = graph.write("shop.raw", [1])
    compacted = graph.compact("shop.raw")
    top = graph.write("mart.top", [1], reads={"shop.raw": compacted})
    assert made(impact(graph.catalog, "shop.raw", raw)) == [("mart.top", top)]
    assert made(impact(graph.catalog, "shop.raw", compacted)) == [("mart.top", top)]


def test_what_read_an_expired_version_of_a_table_concerned_is_told_as_uncertain(graph: GraphLake) -> None:
    raw = graph.write("shop.raw", [1])
    graph.write("shop.middle", [1], reads={"shop.raw": raw}, write_mode="append")
    next_millisecond()
    grown = graph.write("shop.middle", [2], write_mode="append")
    top = graph.write("mart.top", [1, 2], reads={"shop.middle": grown})
    graph.write("shop.middle", [3], write_mode="append")
    graph.expire("shop.middle", grown)
    found = {write.snapshot_id: write.certain for write in impact(graph.catalog, "shop.raw", raw).writes}
    assert found[top] is False
    assert list(found.values()).count(True) == 1


def test_replicas_that_hold_what_was_made_are_told_and_those_that_do_not_answer(graph: GraphLake) -> None:
    raw = graph.write("shop.raw", [1])
    top = graph.write("mart.top", [1], reads={"shop.raw": raw})
    for name in ("behind", "down", "newer"):
        graph.replica(name, "mart.top").sync(graph.catalog)
    graph.compact("mart.top")
    graph.write("mart.top", [2], reads={"shop.raw": graph.write("shop.raw", [2])})
    graph.replicas["newer"].sync(graph.catalog)
    graph.replica("never", "mart.top")
    graph.replica("aside", "shop.aside")

    graph.database("down").write_bytes(b"not a database" * 400)
    found = impact(graph.catalog, "shop.raw", raw, replicas=graph.replicas)
    assert [(held.replica, held.snapshot_id) for held in found.replicas] == [("behind", top), ("down", None)]
    assert "cannot be opened" in found.replicas[1].problem


def test_a_table_that_cannot_be_read_is_named_and_hides_nothing_else(graph: GraphLake) -> None:
    raw = graph.write("shop.raw", [1])
    top = graph.write("mart.top", [1], reads={"shop.raw": raw})
    graph.write("mart.torn", [1])
    Path(graph.table("mart.torn").metadata_location.removeprefix("file://")).write_text("{")
    found = impact(graph.catalog, "shop.raw", raw)
    assert made(found) == [("mart.top", top)]
    assert found.unreadable == ("mart.torn",)


def test_an_unknown_snapshot_is_named(graph: GraphLake) -> None:
    graph.write("shop.raw", [1])
    with pytest.raises(NotFoundError, match="12345"):
        impact(graph.catalog, "shop.raw", 12345)
