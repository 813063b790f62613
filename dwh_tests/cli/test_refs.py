"""`dwh tag` and `dwh branch` make, list and drop what the metadata file then has, or has no more."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import pytest

from dwh_assets.iceberg.refs import create_branch
from dwh_tests.cli.conftest import Dwh, ids
from dwh_tests.iceberg.conftest import TABLE, Lake

DAY_MS = 86_400_000


def refs(lake: Lake) -> dict[str, Any]:
    found: dict[str, Any] = lake.metadata["refs"]
    return found


@pytest.mark.parametrize("kind", ["tag", "branch"])
def test_a_name_is_given_listed_and_taken_back(lake: Lake, dwh: Dwh, kind: str) -> None:
    first = ids(lake)[0]
    told = dwh(kind, TABLE, "q3", "--at", "2 versions ago", "--json").json
    assert refs(lake)["q3"] == {"snapshot-id": int(first), "type": kind}
    assert (told["snapshot_id"], told["resolved"], told["expires_at"]) == (first, "2 versions ago", None)
    listed = dwh(kind, TABLE, "--json").json["refs"]
    expected = {"tag": ["q3"], "branch": ["main", "q3"]}[kind]
    assert [(ref["name"], ref["kind"]) for ref in listed] == [(name, kind) for name in expected]
    dropped = dwh(kind, TABLE, "q3", "--drop", "--json").json
    assert (dropped["name"], dropped["snapshot_id"], dropped["dropped"]) == ("q3", first, True)
    assert list(refs(lake)) == ["main"]


def test_without_a_point_what_main_shows_is_named(lake: Lake, dwh: Dwh) -> None:
    said = dwh("tag", TABLE, "now").out
    assert refs(lake)["now"]["snapshot-id"] == int(ids(lake)[-1])
    assert said == f"tag now of {TABLE} is at snapshot {ids(lake)[-1]} (main).\n"
    rows = [line.split() for line in dwh("tag", TABLE).out.splitlines()]
    assert [row[:2] for row in rows] == [["name", "snapshot"], ["now", ids(lake)[-1]]]


@pytest.mark.parametrize(("text", "days"), [("36h", 1.5), ("30d", 30), ("2w", 14), ("1440m", 1)])
def test_a_lifetime_counts_from_now(lake: Lake, dwh: Dwh, text: str, days: float) -> None:
    before = time.time() * 1000
    assert dwh("tag", TABLE, "q3", "--at", "2 versions ago", "--lifetime", text).code == 0
    after = time.time() * 1000
    made = lake.metadata["snapshots"][0]["timestamp-ms"]
    ends = made + refs(lake)["q3"]["max-ref-age-ms"]
    assert before - 1 <= ends - days * DAY_MS <= after + 1


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("q3", "--lifetime", "soon"), 2, "write 90m, 12h, 30d or 2w"),
        (("q3", "--lifetime", "99999999999999w"), 2, "leave it out for ever"),
        (("--drop",), 2, "--drop needs the name of a tag"),
        (("--at", "main"), 2, "--at needs the name of a tag"),
        (("q3", "--drop", "--at", "main"), 2, "--drop goes without --at"),
        (("q3", "--lifetime", "0d"), 1, "cannot be kept for"),
        (("q3", "--drop"), 1, "has no tag 'q3'"),
        (("main", "--drop"), 1, "main is what readers see"),
        (("main",), 1, "has a branch 'main' already"),
        (("q3", "--at", "q9"), 1, "has no tag or branch 'q9'"),
    ],
)
def test_what_is_refused_changes_nothing(
    lake: Lake, dwh: Dwh, arguments: tuple[str, ...], code: int, said: str
) -> None:
    before = lake.metadata
    told = dwh("tag", TABLE, *arguments)
    assert (told.code, told.out) == (code, "")
    assert said in told.err
    assert lake.metadata == before


def test_branches_whose_time_is_over_are_pruned(lake: Lake, dwh: Dwh) -> None:
    assert dwh("branch", TABLE, "--prune").out == f"{TABLE} has no branch whose time is over.\n"
    create_branch(lake.catalog, lake.table, "over", lifetime=timedelta(milliseconds=1))
    dwh("branch", TABLE, "later", "--lifetime", "1d")
    time.sleep(0.01)
    (pruned,) = dwh("branch", TABLE, "--prune", "--json").json["pruned"]
    assert (pruned["name"], pruned["snapshot_id"]) == ("over", ids(lake)[-1])
    assert list(refs(lake)) == ["main", "later"]
    for other in (("later",), ("--lifetime", "1d"), ("--drop",)):
        assert dwh("branch", TABLE, *other, "--prune").code == 2


def test_a_table_without_tags_says_so(dwh: Dwh) -> None:
    assert dwh("tag", TABLE).out == f"{TABLE} has no tag.\n"
    assert dwh("tag", TABLE, "--json").json == {"table": TABLE, "refs": []}
