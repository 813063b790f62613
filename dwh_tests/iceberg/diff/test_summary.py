"""What is told of the columns of changed rows, and how a comparison is rendered."""

from __future__ import annotations

import json
from decimal import Decimal

import duckdb
import pyarrow as pa
import pytest

from dwh_assets.iceberg.diff.compare import compare
from dwh_tests.iceberg.conftest import Lake
from dwh_tests.iceberg.diff.test_compare import KEYS, append, orders, upsert


def test_the_columns_of_changed_rows_are_summed_up(lake: Lake) -> None:
    first = append(lake, orders(range(1000)))
    lake.table.delete("id < 3")
    last = upsert(lake, orders([5, 6, 2000], amount=[None, 60.0, 1.0], note="the same"))
    with compare(lake.table, first, last, keys=KEYS) as diff:
        id_, amount, note = diff.columns
        changes = diff.changes().read_all()
    assert [column.rows_changed for column in (id_, amount, note)] == [0, 2, 2]
    for side, kinds in (("before", ("delete", "update_before")), ("after", ("insert", "update_after"))):
        found = duckdb.from_arrow(changes).filter(f"_change_type IN {kinds}")
        summed = "count(*), count(*) - count(amount), avg(amount), min(note)"
        rows, nulls, mean, least = found.aggregate(summed).fetchone() or ()
        values = getattr(amount, side)
        assert (values.rows, values.nulls, values.mean) == (rows, nulls, mean)
        assert values.null_rate == nulls / rows
        assert getattr(note, side).least == least
    assert (note.before.distinct, note.after.distinct) == (5, 1)
    assert amount.mean_drift == pytest.approx(30.5 - (0 + 1 + 2 + 5 + 6) / 5)
    assert note.mean_drift is None


def test_a_multiset_tells_no_changed_columns(lake: Lake) -> None:
    first = append(lake, orders(range(10)))
    last = upsert(lake, orders([5], amount=7.5))
    with compare(lake.table, first, last) as diff:
        assert [column.rows_changed for column in diff.columns] == [None] * 3
        assert diff.columns[1].after.greatest == 7.5
    with compare(lake.table, first, first) as diff:
        assert diff.columns[1].before.rows == 0
        assert diff.columns[1].before.null_rate is None


def test_markdown_names_what_changed(lake: Lake) -> None:
    first = append(lake, orders(range(1000)))
    upsert(lake, orders([5, 6, 2000], amount=1.5, note="a|b"))
    last = append(lake, orders([3000], **{"odd|name": "x"}), schema_evolution={"enabled": True})
    with compare(lake.table, first, last, keys=KEYS) as diff:
        text = diff.to_markdown()
    lines = text.splitlines()
    assert f"{first} → {last}" in lines[0]
    assert "| 2 | 0 | 2 |" in lines
    assert "- added odd\\|name (string)" in lines
    (amount,) = [line for line in lines if line.startswith("| amount")]
    assert amount.split(" | ")[1] == "2"
    tables = [line for line in lines if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in tables} == {4, 6}


def test_the_dictionary_is_json(lake: Lake) -> None:
    rows = pa.table(
        {"id": [1, 2], "price": [Decimal("1.50"), None], "ratio": [float("nan"), 1.0], "raw": [b"\xff", b""]}
    )
    first = append(lake, rows)
    with compare(lake.table, None, first, keys=KEYS) as diff:
        found = json.loads(json.dumps(diff.to_dict(), allow_nan=False))
    assert found["to_snapshot_id"] == str(first)
    assert (found["from_snapshot_id"], found["rows_added"]) == (None, 2)
    price = next(column for column in found["columns"] if column["name"] == "price")
    assert price["after"] == {
        "rows": 2,
        "nulls": 1,
        "distinct": 1,
        "least": "1.50",
        "greatest": "1.50",
        "mean": 1.5,
        "null_rate": 0.5,
    }
