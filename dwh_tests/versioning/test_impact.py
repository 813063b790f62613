"""What was made from a version, against a graph that the test itself has written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dwh_assets.errors import NotFoundError
from dwh_assets.versioning.impact import Impact, impact
from dwh_tests.versioning.lake import Lake, next_millisecond


def made(found: Impact) -> list[tuple[str, int]]:
    return [(write.table, write.snapshot_id) for write in found.writes]


def test_what_read_a_version_is_found_step_by_step_and_what_read_another_is_not(lake: Lake) -> None:
    raw = lake.write("shop.raw", [1])
    middle = lake.write("shop.middle", [1], reads={"shop.raw": raw})
    next_millisecond()
    top = lake.write("mart.top", [1], reads={"shop.middle": middle})
    lake.write("mart.aside", [1])
    newer = lake.write("shop.raw", [2])
    lake.write("shop.middle", [2], reads={"shop.raw": newer})

    found = impact(lake.catalog, "shop.raw", raw)
    assert made(found) == [("shop.middle", middle), ("mart.top", top)]
    assert [write.current for write in found.writes] == [False, True]
    assert found.writes[0].run_id == "run-2"
    assert found.tables == ("mart.top", "shop.middle")
    assert all(write.certain for write in found.writes)
    assert made(impact(lake.catalog, "mart.top")) == []
    assert json.loads(json.dumps(found.to_dict()))["writes"][1]["snapshot_id"] == str(top)


def test_what_read_a_later_version_that_holds_the_rows_is_made_from_them(lake: Lake) -> None:
    """The middle table grows: what read it after the second append has its first input, too."""
    raw = lake.write("shop.raw", [1])
    middle = lake.write("shop.middle", [1], reads={"shop.raw": raw}, write_mode="append")
    grown = lake.write("shop.middle", [2], write_mode="append")
    top = lake.write("mart.top", [1, 2], reads={"shop.middle": grown})
    replaced = lake.write("shop.middle", [3])
    lake.write("mart.later", [3], reads={"shop.middle": replaced})
    assert set(made(impact(lake.catalog, "shop.raw"))) == {("shop.middle", middle), ("mart.top", top)}


def test_a_compaction_is_the_version_that_it_compacted(lake: Lake) -> None:
    raw = lake.write("shop.raw", [1])
    compacted = lake.compact("shop.raw")
    top = lake.write("mart.top", [1], reads={"shop.raw": compacted})
    assert made(impact(lake.catalog, "shop.raw", raw)) == [("mart.top", top)]
    assert made(impact(lake.catalog, "shop.raw", compacted)) == [("mart.top", top)]


def test_what_read_an_expired_version_of_a_table_concerned_is_told_as_uncertain(lake: Lake) -> None:
    raw = lake.write("shop.raw", [1])
    lake.write("shop.middle", [1], reads={"shop.raw": raw}, write_mode="append")
    next_millisecond()
    grown = lake.write("shop.middle", [2], write_mode="append")
    top = lake.write("mart.top", [1, 2], reads={"shop.middle": grown})
    lake.write("shop.middle", [3], write_mode="append")
    lake.expire("shop.middle", grown)
    found = {write.snapshot_id: write.certain for write in impact(lake.catalog, "shop.raw", raw).writes}
    assert found[top] is False
    assert list(found.values()).count(True) == 1


def test_replicas_that_hold_what_was_made_are_told_and_those_that_do_not_answer(lake: Lake) -> None:
    raw = lake.write("shop.raw", [1])
    top = lake.write("mart.top", [1], reads={"shop.raw": raw})
    for name in ("behind", "down", "newer"):
        lake.replica(name, "mart.top").sync(lake.catalog)
    lake.compact("mart.top")
    lake.write("mart.top", [2], reads={"shop.raw": lake.write("shop.raw", [2])})
    lake.replicas["newer"].sync(lake.catalog)
    lake.replica("never", "mart.top")
    lake.replica("aside", "shop.aside")

    lake.database("down").write_bytes(b"not a database" * 400)
    found = impact(lake.catalog, "shop.raw", raw, replicas=lake.replicas)
    assert [(held.replica, held.snapshot_id) for held in found.replicas] == [("behind", top), ("down", None)]
    assert "cannot be opened" in found.replicas[1].problem


def test_a_table_that_cannot_be_read_is_named_and_hides_nothing_else(lake: Lake) -> None:
    raw = lake.write("shop.raw", [1])
    top = lake.write("mart.top", [1], reads={"shop.raw": raw})
    lake.write("mart.torn", [1])
    Path(lake.table("mart.torn").metadata_location.removeprefix("file://")).write_text("{")
    found = impact(lake.catalog, "shop.raw", raw)
    assert made(found) == [("mart.top", top)]
    assert found.unreadable == ("mart.torn",)


def test_an_unknown_snapshot_is_named(lake: Lake) -> None:
    lake.write("shop.raw", [1])
    with pytest.raises(NotFoundError, match="12345"):
        impact(lake.catalog, "shop.raw", 12345)
