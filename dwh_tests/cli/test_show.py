"""`dwh show` describes the version that a point names, and reads its rows as another reader does."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from dwh_tests.cli.conftest import RUN, Dwh, called, environment_of, ids
from dwh_tests.iceberg.conftest import TABLE, Lake, multiset


@pytest.mark.parametrize("point", [None, "1 version ago", "2 versions ago"])
def test_a_version_is_described_and_read(lake: Lake, dwh: Dwh, point: str | None) -> None:
    wanted = ids(lake)[::-1][int((point or "0")[0])]
    told = dwh("show", TABLE, *([point] if point else []), "--rows", "99", "--json").json
    assert told["resolved"] == (point or "main")
    assert told["version"]["snapshot_id"] == wanted
    expected = lake.rows(int(wanted))
    assert told["version"]["total_rows"] == len(expected)
    names = [column["name"] for column in told["columns"]]
    assert multiset(told["rows"]) == multiset({name: row[name] for name in names} for row in expected)


def test_every_kind_of_point_is_taken(lake: Lake, dwh: Dwh) -> None:
    first, second, third = ids(lake)
    assert dwh("tag", TABLE, "q3", "--at", first).code == 0
    at = lake.metadata["snapshot-log"][1]["timestamp-ms"] / 1000
    moment = datetime.fromtimestamp(at, UTC).isoformat()
    for point, wanted in {"q3": first, second: second, moment: second, "main": third}.items():
        assert dwh("show", TABLE, point, "--json").json["version"]["snapshot_id"] == wanted


def test_columns_and_a_filter_narrow_the_rows(dwh: Dwh) -> None:
    told = dwh("show", TABLE, "--where", "place = 'eu'", "--columns", "id, price", "--json").json
    assert sorted(told["rows"], key=lambda row: row["id"]) == [
        {"id": 3, "price": 3.5},
        {"id": 4, "price": 4.5},
    ]
    assert len(dwh("show", TABLE, "--rows", "1", "--json").json["rows"]) == 1
    assert dwh("show", TABLE, "--json").json["rows"] is None


def test_people_see_who_made_it_and_from_what(lake: Lake, dwh: Dwh) -> None:
    lines = dwh("show", TABLE, "1 version ago", "--rows", "9").out.splitlines()
    facts = {line[:20].strip(): line[20:] for line in lines[1 : lines.index("")]}
    assert lines[0] == f"{TABLE} at 1 version ago"
    assert (facts["snapshot"], facts["parent"]) == (ids(lake)[1], ids(lake)[0])
    assert (facts["run"], facts["rows"], facts["rows changed"]) == (RUN["dwh.run-id"], "3", "+1 ~1")
    assert facts["input"] == f"shop.sales at {RUN['dwh.input.shop.sales']}"
    blocks = "\n".join(lines).split("\n\n")
    assert [line.split()[1:] for line in blocks[1].splitlines()[1:]] == [
        ["id", "long"],
        ["place", "string"],
        ["price", "double"],
    ]
    assert sorted(line.split() for line in blocks[2].splitlines()[1:]) == [
        ["1", "eu", "null"],
        ["2", "us", "2.5"],
        ["3", "eu", "3.5"],
    ]


def test_values_of_every_kind_are_json(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    at = datetime(2024, 2, 29, 23, 59, 59, 999999, tzinfo=UTC)
    row: dict[str, Any] = {
        "price": Decimal("12345678901234567890.12"),
        "ratio": float("nan"),
        "at": at,
        "local": at.replace(tzinfo=None),
        "day": at.date(),
        "raw": b"\x00\xff",
        "tags": ["a", None],
        "nested": {"x": float("-inf"), "at": at},
    }
    lake.write(pa.Table.from_pylist([row]))
    (told,) = called(environment_of(lake), "show", TABLE, "--rows", "1", "--json").json["rows"]
    assert told == {
        "price": "12345678901234567890.12",
        "ratio": "nan",
        "at": "2024-02-29T23:59:59.999999+00:00",
        "local": "2024-02-29T23:59:59.999999",
        "day": "2024-02-29",
        "raw": "00ff",
        "tags": ["a", None],
        "nested": {"x": "-inf", "at": "2024-02-29T23:59:59.999999+00:00"},
    }


def test_what_a_terminal_would_obey_is_shown_and_not_sent(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lake.write(pa.table({"text": ["a\x1b[2Jb\nc"]}))
    shown = called(environment_of(lake), "show", TABLE, "--rows", "1").out
    assert "\x1b" not in shown
    assert shown.splitlines()[-1] == r"a\x1b[2Jb\nc"


def test_no_rows_are_told(dwh: Dwh) -> None:
    assert dwh("show", TABLE, "--where", "id = 77").out.splitlines()[-1] == "No such rows."
