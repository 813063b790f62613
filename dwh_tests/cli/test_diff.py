"""`dwh diff` counts and shows what differs between what another reader finds at both versions."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pyarrow as pa
import pytest

from dwh_tests.cli.conftest import RUN, Dwh, ids
from dwh_tests.iceberg.conftest import TABLE, Lake, multiset

COLUMNS = ("id", "place", "price")
# The column that the first version lacks is none in which it can differ, seen from it.
COLUMNS_OF = (COLUMNS[:2], COLUMNS, COLUMNS)


def version(lake: Lake, number: int, columns: tuple[str, ...] = COLUMNS) -> list[dict[str, Any]]:
    """The rows of a version in these columns."""
    rows = lake.rows(int(ids(lake)[number]))
    return [{name: row.get(name) for name in columns} for row in rows]


def changed(lake: Lake, before: int, after: int) -> Counter[str]:
    """By id, in plain Python: what a full outer join of both versions finds."""
    columns = COLUMNS_OF[after]
    old, new = ({row["id"]: row for row in version(lake, number, columns)} for number in (before, after))
    counted = Counter(
        {"rows_added": len(new.keys() - old.keys()), "rows_removed": len(old.keys() - new.keys())}
    )
    counted["rows_modified"] = sum(old[key] != new[key] for key in old.keys() & new.keys())
    return counted


@pytest.mark.parametrize("keys", [["--keys", "id"], []], ids=["named", "the table's own"])
@pytest.mark.parametrize(("before", "after"), [(0, 1), (0, 2), (1, 2), (2, 0)])
def test_versions_are_compared_by_key(lake: Lake, dwh: Dwh, before: int, after: int, keys: list[str]) -> None:
    first, last = ids(lake)[before], ids(lake)[after]
    told = dwh("diff", TABLE, first, last, *keys, "--json").json
    assert {name: told[name] for name in changed(lake, before, after)} == changed(lake, before, after)
    assert (told["from_snapshot_id"], told["to_snapshot_id"], told["keys"]) == (first, last, ["id"])
    assert told["changes"] is None


def test_without_keys_rows_come_and_go(lake: Lake, dwh: Dwh) -> None:
    told = dwh("diff", TABLE, "2 versions ago", "--keys", "", "--rows", "99", "--json").json
    old, new = multiset(version(lake, 0)), multiset(version(lake, 2))
    assert (told["from_resolved"], told["to_resolved"]) == ("2 versions ago", "main")
    assert (told["rows_added"], told["rows_removed"]) == ((new - old).total(), (old - new).total())
    for kind, expected in {"insert": new - old, "delete": old - new}.items():
        rows = [row for row in told["changes"] if row["_change_type"] == kind]
        assert multiset({name: row[name] for name in COLUMNS} for row in rows) == expected
    assert {row["_snapshot_id"] for row in told["changes"]} == {ids(lake)[2]}


def test_each_snapshots_changes_carry_its_id_and_run(lake: Lake, dwh: Dwh) -> None:
    told = dwh("diff", TABLE, "2 versions ago", "main", "--per-snapshot", "--keys", "id", "--json").json
    found = [(row["_snapshot_id"], row["_change_type"], row["_run_id"], row["id"]) for row in told["changes"]]
    _, second, third = ids(lake)
    run = RUN["dwh.run-id"]
    assert sorted(found[:3], key=lambda row: (row[3], row[1])) == [
        (second, "update_after", run, 2),
        (second, "update_before", run, 2),
        (second, "insert", run, 3),
    ]
    assert sorted(found[3:], key=lambda row: row[3]) == [
        (third, "delete", None, 1),
        (third, "insert", None, 4),
    ]


def test_as_many_changed_rows_are_shown_as_asked_for(lake: Lake, dwh: Dwh) -> None:
    assert len(dwh("diff", TABLE, "2 versions ago", "--rows", "2", "--json").json["changes"]) == 2


def test_people_see_counts_columns_and_rows(lake: Lake, dwh: Dwh) -> None:
    lines = dwh("diff", TABLE, "2 versions ago", "--keys", "id", "-n", "9").out.splitlines()
    first, _, third = ids(lake)
    assert lines[0] == f"{TABLE} from {first} (2 versions ago) to {third} (main)"
    counts = changed(lake, 0, 2)
    assert [line.split() for line in lines[1:4]] == [
        ["rows", "added", str(counts["rows_added"])],
        ["rows", "removed", str(counts["rows_removed"])],
        ["rows", "modified", str(counts["rows_modified"])],
    ]
    assert lines[5].split(maxsplit=1) == ["column", "added price (double)"]
    assert ["price", "1"] in [line.split()[:2] for line in lines]
    assert sum("update_after" in line for line in lines) == counts["rows_modified"]


def test_equal_versions_say_so(dwh: Dwh) -> None:
    lines = dwh("diff", TABLE, "main", "--rows", "1").out.splitlines()
    assert [line.split()[-1] for line in lines[1:3]] == ["0", "0"]
    assert lines[-1] == "No row changed."


def test_a_change_of_partitioning_and_properties_is_told(lake: Lake, dwh: Dwh) -> None:
    table = lake.catalog.load_table(TABLE)
    with table.update_spec() as spec:
        spec.add_identity("place")
    with table.transaction() as transaction:
        transaction.set_properties({"owner": "shop"})
    lake.write(pa.table({"id": [5], "place": ["us"], "price": [0.5]}))
    told = dwh("diff", TABLE, "1 version ago", "--json").json
    assert [(one["kind"], one["name"]) for one in told["partition_spec_changes"]] == [("added", "place")]
    assert [(one["name"], one["after"]) for one in told["property_changes"]] == [("owner", "shop")]


def test_a_key_that_is_no_column_is_refused(dwh: Dwh) -> None:
    error = dwh("diff", TABLE, "main", "--keys", "nr", "--json").error
    assert (error["type"], error["exit_code"]) == ("ConfigurationError", 1)
    assert "'nr'" in error["message"]
