"""Each materialization says what exactly it changed."""

from typing import Any

import dagster as dg
import pyarrow as pa
import pytest

from dwh_assets.orchestration import changes
from dwh_tests.orchestration.lake import Lake, materializations, written_by

UPSERT: dict[str, Any] = {"write_mode": "upsert", "key_columns": ["id"]}
FIRST = pa.table({"id": [1, 2], "place": ["eu", "us"]})
SECOND = pa.table({"id": [2, 3], "place": ["asia", "eu"]})


def told(result: dg.ExecuteInProcessResult) -> str | None:
    (metadata,) = (event.metadata for event in materializations(result, "shop.orders"))
    found = metadata.get("dwh/changes")
    return None if found is None else str(found.value)


def counts(text: str | None) -> list[str]:
    """The cells of the row below the head of the first table."""
    lines = [line for line in (text or "").splitlines() if line.startswith("|")]
    return [cell.strip() for cell in lines[2].strip("|").split("|")]


def test_what_came_and_what_changed_is_told(lake: Lake) -> None:
    assert counts(told(lake.run(written_by(lambda _: FIRST, **UPSERT)))) == ["2", "0", "0"]
    text = told(lake.run(written_by(lambda _: SECOND, **UPSERT)))
    assert counts(text) == ["1", "0", "1"]
    assert "| place | 1 |" in (text or "")


def test_rows_without_a_key_are_told_as_removed_and_added(lake: Lake) -> None:
    lake.run(written_by(lambda _: FIRST, write_mode="overwrite"))
    assert counts(told(lake.run(written_by(lambda _: SECOND, write_mode="overwrite")))) == ["2", "2", "0"]


def test_a_run_that_changes_nothing_tells_nothing(lake: Lake) -> None:
    lake.run(written_by(lambda _: FIRST, **UPSERT))
    assert told(lake.run(written_by(lambda _: FIRST, **UPSERT))) is None


def test_columns_that_come_are_told(lake: Lake) -> None:
    lake.run(written_by(lambda _: FIRST, **UPSERT))
    wider = SECOND.append_column("price", pa.array([1.5, 2.5]))
    assert "price" in (told(lake.run(written_by(lambda _: wider, **UPSERT))) or "")


def test_more_rows_than_are_worth_it_are_not_read_again(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "_MOST_ROWS", 1)
    assert counts(told(lake.run(written_by(lambda _: FIRST, **UPSERT)))) == ["2", "0", "0"]
    assert "dwh diff" in (told(lake.run(written_by(lambda _: SECOND, **UPSERT))) or "")
