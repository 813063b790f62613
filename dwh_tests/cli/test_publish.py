"""`dwh publish` lets main take a branch over, and refuses one that has diverged with what diverged."""

from __future__ import annotations

import pyarrow as pa
import pytest

from dwh_tests.cli.conftest import Dwh, ids
from dwh_tests.iceberg.conftest import TABLE, Lake

ROW = pa.table({"id": [9], "place": ["eu"], "price": [1.0], "note": ["new"]})


@pytest.fixture
def lake(lake: Lake) -> Lake:
    """With a branch that brings a row and a column."""
    lake.write(ROW, branch="trial")
    return lake


def test_main_takes_over_what_the_branch_has(lake: Lake, dwh: Dwh) -> None:
    third, head = ids(lake)[-2:]
    assert lake.column("id") == [2, 3, 4]
    told = dwh("publish", TABLE, "trial", "--json").json
    assert told == {
        "table": TABLE,
        "branch": "trial",
        "before_snapshot_id": third,
        "snapshot_id": head,
        "snapshots": [head],
        "dropped": False,
    }
    assert lake.column("id") == [2, 3, 4, 9]
    assert {row["note"] for row in lake.rows()} == {None, "new"}
    again = dwh("publish", TABLE, "trial", "--drop").out
    assert again == f"{TABLE}: main had all of trial already; it is at snapshot {head}.\n"
    assert list(lake.metadata["refs"]) == ["main"]


def test_a_diverged_branch_is_refused_with_what_diverged(lake: Lake, dwh: Dwh) -> None:
    lake.write(pa.table({"id": [5], "place": ["us"], "price": [2.0]}))
    newest = ids(lake)[-1]
    refused = dwh("publish", TABLE, "trial", "--drop", "--json")
    assert (refused.error["type"], refused.code) == ("DivergedError", 1)
    assert newest in refused.error["message"]
    assert lake.column("id") == [2, 3, 4, 5]
    assert "trial" in lake.metadata["refs"]


def test_what_a_diverged_branch_appends_can_be_picked(lake: Lake, dwh: Dwh) -> None:
    lake.write(pa.table({"id": [5], "place": ["us"], "price": [2.0]}))
    on_branch, before = ids(lake)[-2:]
    lines = dwh("publish", TABLE, "trial", "--cherry-pick").out.splitlines()
    assert lines == [
        f"{TABLE}: main went from snapshot {before} to {ids(lake)[-1]}.",
        f"Taken over from trial: {on_branch}.",
    ]
    assert lake.column("id") == [2, 3, 4, 5, 9]


def test_what_main_has_rolled_back_comes_back_only_if_that_is_allowed(lake: Lake, dwh: Dwh) -> None:
    dwh("rollback", TABLE, "1 version ago", "--yes")
    rolled_back = lake.column("id")
    refused = dwh("publish", TABLE, "trial", "--json")
    assert (refused.error["type"], refused.code) == ("DivergedError", 1)
    assert "--allow-rolled-back" in refused.error["remedy"]
    assert lake.column("id") == rolled_back
    assert dwh("publish", TABLE, "trial", "--allow-rolled-back").code == 0
    assert lake.column("id") == [2, 3, 4, 9]


@pytest.mark.parametrize(
    ("arguments", "kind", "code"),
    [
        (("nothing",), "NotFoundError", 1),
        (("trial", "--drop", "--cherry-pick"), "UsageError", 2),
        (("trial", "--allow-rolled-back", "--cherry-pick"), "UsageError", 2),
    ],
)
def test_what_cannot_be_published(dwh: Dwh, arguments: tuple[str, ...], kind: str, code: int) -> None:
    error = dwh("publish", TABLE, *arguments, "--json").error
    assert (error["type"], error["exit_code"]) == (kind, code)
