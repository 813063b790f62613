"""`dwh history` tells what the metadata file says, for people and for programs."""

from __future__ import annotations

from datetime import UTC, datetime

import pyarrow as pa

from dwh_tests.cli.conftest import RUN, Dwh, ids
from dwh_tests.iceberg.conftest import TABLE, Lake
from dwh_tests.versioning.test_points import expire, move_main


def test_versions_are_told_newest_first(lake: Lake, dwh: Dwh) -> None:
    told = dwh("history", TABLE, "--json").json
    snapshots = lake.metadata["snapshots"][::-1]
    assert (told["table"], told["older"]) == (TABLE, 0)
    assert [version["snapshot_id"] for version in told["versions"]] == ids(lake)[::-1]
    assert [version["operation"] for version in told["versions"]] == [
        snapshot["summary"]["operation"] for snapshot in snapshots
    ]
    assert [datetime.fromisoformat(version["committed_at"]) for version in told["versions"]] == [
        datetime.fromtimestamp(snapshot["timestamp-ms"] / 1000, UTC) for snapshot in snapshots
    ]
    assert [version["total_rows"] for version in told["versions"]] == [3, 3, 2]
    by_run = told["versions"][1]
    assert by_run["run_id"] == RUN["dwh.run-id"]
    assert by_run["partition_key"] == RUN["dwh.partition-key"]
    assert by_run["inputs"] == {"shop.sales": [RUN["dwh.input.shop.sales"]]}
    assert (by_run["rows_inserted"], by_run["rows_updated"], by_run["rows_deleted"]) == (1, 1, 0)


def test_people_see_a_line_for_each_version_with_whole_ids(lake: Lake, dwh: Dwh) -> None:
    lines = dwh("history", TABLE).out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == ids(lake)[::-1]
    assert lines[1].split()[3:] == ["overwrite", "3", "+1", "-1", "main"]
    assert lines[2].split()[3:] == ["overwrite", "3", "+1", "~1", "2024-01-01", RUN["dwh.run-id"]]
    assert lines[3].split()[3:] == ["append", "2", "+2"]


def test_a_limit_leaves_out_the_older_and_says_so(lake: Lake, dwh: Dwh) -> None:
    told = dwh("history", TABLE, "--limit", "1", "--json").json
    assert ([version["snapshot_id"] for version in told["versions"]], told["older"]) == (ids(lake)[-1:], 2)
    assert dwh("history", TABLE, "-n", "1").out.splitlines()[-1] == "2 older; --limit 0 shows all."
    assert len(dwh("history", TABLE, "-n", "0", "--json").json["versions"]) == 3


def test_what_is_not_on_main_and_what_is_gone_is_told(lake: Lake, dwh: Dwh) -> None:
    first, second, third = ids(lake)
    move_main(lake, int(second))
    lake.write(pa.table({"id": [9], "place": ["eu"], "price": [1.0]}), branch="trial")
    expire(lake, int(first))
    told = dwh("history", TABLE).out.splitlines()
    lines = {line.split()[0]: line for line in told}
    assert lines[third].endswith("(not on main)")
    assert lines[ids(lake)[-1]].endswith("trial (not on main)")
    assert lines[second].count("not on main") == 0
    assert told[-1] == "Snapshots that expired before or between these: 1."
    assert first not in lines


def test_a_table_without_a_version_says_so(lake: Lake, dwh: Dwh) -> None:
    lake.catalog.create_table("shop.empty", pa.schema([("id", pa.int64())]))
    assert dwh("history", "shop.empty").out == "shop.empty has no version yet.\n"
    assert dwh("history", "shop.empty", "--json").json["versions"] == []
