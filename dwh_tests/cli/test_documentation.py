"""What docs/command-line.md says of JSON is what the commands print."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from dwh_tests.cli.conftest import Dwh, called, environment_of
from dwh_tests.iceberg.conftest import TABLE, Lake

PAGE = Path(__file__).resolve().parents[2] / "docs" / "command-line.md"


def documented(command: str) -> set[str]:
    """The keys in the row of the table that names the command."""
    for line in PAGE.read_text(encoding="utf-8").split("\n"):
        cells = line.split("|")
        if len(cells) == 4 and f"`{command}`" in cells[1]:
            return set(re.findall(r"`(\w+)`", cells[2]))
    raise AssertionError(command)


def keys(told: Any) -> set[str]:
    """The keys of an object, and of the objects in lists that it holds, without those of versions."""
    found = set(told)
    for name, value in told.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            found |= (
                set() if "parent_snapshot_id" in value[0] or name in ("changes", "dropped") else set(value[0])
            )
    return found


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("history", ()),
        ("show", ("--rows", "1")),
        ("tag", ()),
        ("rollback", ("1 version ago",)),
        ("lineage", ()),
        ("lineage --impact", ()),
        ("doctor", ("--no-probe",)),
        ("rollback --graph", ("1 version ago",)),
    ],
)
def test_keys_are_documented(dwh: Dwh, command: str, arguments: tuple[str, ...]) -> None:
    assert dwh("tag", TABLE, "q3").code == 0
    name, *options = command.split()
    told = dwh(name, TABLE, *arguments, *options, "--json").json
    if command == "show":
        told = {key: value for key, value in told.items() if key != "rows"} | {"rows": None}
    assert keys(told) <= documented(command)


def test_keys_of_changes_are_documented(lake: Lake, dwh: Dwh) -> None:
    diff = dwh("diff", TABLE, "1 version ago", "--rows", "1", "--json").json
    assert set(diff) == documented("diff")
    for made in (("tag", "q4"), ("branch", "trial")):
        assert set(dwh(made[0], TABLE, made[1], "--json").json) <= documented("tag")
    lake.write(pa.table({"id": [9], "place": ["eu"], "price": [1.0]}), branch="trial")
    assert set(dwh("publish", TABLE, "trial", "--json").json) == documented("publish")
    assert set(dwh("branch", TABLE, "trial", "--drop", "--json").json) <= documented("branch")


def test_keys_of_a_version_are_documented(dwh: Dwh) -> None:
    (version, *_) = dwh("history", TABLE, "--json").json["versions"]
    paragraph = PAGE.read_text(encoding="utf-8").rpartition("A version of `history` and `show`")[2]
    assert set(version) == set(re.findall(r"`(\w+)`", paragraph)) - {"main"}


def test_keys_of_releases_are_documented(lake: Lake) -> None:
    def release(*arguments: str) -> Any:
        return called(environment_of(lake), "release", *arguments, "--json").json

    assert set(release("create", "q1")) == documented("release create")
    release("create", "q2")
    assert set(release("list")) == documented("release list")
    assert keys(release("compare", "q1", "q2")) == documented("release compare")
    assert keys(release("rollback", "q1")) <= documented("rollback --graph")
    assert set(release("drop", "q2")) == documented("release drop")
