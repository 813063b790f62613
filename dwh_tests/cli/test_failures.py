"""What cannot be done ends in two lines, or JSON, and in the exit code that says whether to repeat it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer

from dwh_assets.cli.failures import told
from dwh_assets.errors import CommitUnknownError, ConflictError, DataError
from dwh_tests.cli.conftest import Dwh
from dwh_tests.iceberg.conftest import TABLE, Lake, local


def test_an_error_is_two_lines(dwh: Dwh) -> None:
    found = dwh("show", TABLE, "9 versions ago")
    happened, remedy = found.err.splitlines()
    assert (found.code, found.out) == (1, "")
    assert happened.startswith(f"error: {TABLE} has no version 9 versions ago")
    assert remedy.startswith("    -> Go back 2 versions at most")


def test_an_error_is_json_where_json_was_asked_for(dwh: Dwh) -> None:
    error = dwh("show", TABLE, "9 versions ago", "--json").error
    assert (error["type"], error["exit_code"]) == ("NotFoundError", 1)
    assert error["message"].startswith(f"{TABLE} has no version 9 versions ago")
    assert error["remedy"].startswith("Go back 2 versions at most")


@pytest.mark.parametrize(
    "arguments",
    [
        ("history",),
        ("nothing",),
        ("history", "orders"),
        ("history", TABLE, "-n", "x"),
        ("show", TABLE, "--up"),
    ],
)
def test_a_wrong_call_is_told_alike(dwh: Dwh, arguments: tuple[str, ...]) -> None:
    found = dwh(*arguments)
    assert (found.code, found.out) == (2, "")
    assert len(found.err.splitlines()) == 2
    error = dwh(*arguments, "--json").error
    assert (error["type"], error["exit_code"]) == ("UsageError", 2)
    assert error["message"] in found.err


def test_what_may_go_away_by_itself_has_its_own_code(dwh: Dwh) -> None:
    found = dwh("history", TABLE, "--catalog", "rest", "--catalog-uri", "http://ann:hunter2@127.0.0.1:9")
    assert found.code == 3
    assert "does not answer" in found.err
    assert "hunter2" not in found.err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (DataError("It is so."), 1),
        (ConflictError("It is so."), 3),
        (CommitUnknownError("It is so."), 4),
        (ConnectionError("It is so."), 3),
        (KeyError("It is so."), 1),
    ],
)
def test_the_kind_of_an_error_is_its_exit_code(
    capsys: pytest.CaptureFixture[str], error: Exception, code: int
) -> None:
    with pytest.raises(typer.Exit) as ended, told(True, TABLE, dict):
        raise error
    assert ended.value.exit_code == code
    said = json.loads(capsys.readouterr().err)["error"]
    assert said["exit_code"] == code
    assert "It is so" in said["message"]


@pytest.mark.parametrize("as_json", [True, False])
def test_no_secret_and_no_traceback_is_printed(capsys: pytest.CaptureFixture[str], as_json: bool) -> None:
    properties = {"token": "t0psecret", "uri": "postgresql://ann:hunter2@db/lake"}
    with pytest.raises(typer.Exit), told(as_json, TABLE, lambda: properties):
        raise ValueError("at postgresql://ann:hunter2@db/lake with t0psecret\nhunter2")
    said = capsys.readouterr().err
    assert "This should not happen" in said
    assert not {word for word in ("hunter2", "t0psecret", "Traceback") if word in said}


def test_a_catalog_that_is_not_there_is_not_made(tmp_path: Path, dwh: Dwh) -> None:
    nowhere = tmp_path / "nowhere"
    found = dwh("history", TABLE, "--catalog-uri", f"sqlite:///{nowhere}/catalog.db")
    assert found.code == 1
    assert "There is no catalog at" in found.err
    assert not nowhere.exists()


def test_a_damaged_table_is_told(lake: Lake, dwh: Dwh) -> None:
    Path(local(lake.table.metadata_location)).write_text("{")
    error = dwh("history", TABLE, "--json").error
    assert (error["type"], error["exit_code"]) == ("DamagedError", 1)
    assert TABLE in error["message"]


def test_a_damaged_data_file_is_told(lake: Lake, dwh: Dwh) -> None:
    for path in lake.on_disk(".parquet"):
        Path(path).write_bytes(b"PAR1")
    error = dwh("show", TABLE, "--rows", "1", "--json").error
    assert (error["type"], error["exit_code"]) == ("DamagedError", 1)
