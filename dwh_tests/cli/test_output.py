"""Tables stay whole in a pipe, and readable on any terminal."""

from __future__ import annotations

import re

import pytest

from dwh_tests.cli.conftest import RUN, Dwh, ids
from dwh_tests.iceberg.conftest import TABLE, Lake

STYLE = re.compile("\x1b" + r"\[[\d;]*m")


def terminal(columns: int) -> dict[str, str]:
    return {"FORCE_COLOR": "1", "COLUMNS": str(columns)}


def test_a_pipe_gets_no_colour_and_whole_lines(lake: Lake, dwh: Dwh) -> None:
    shown = dwh("history", TABLE, env={"COLUMNS": "40"}).out
    assert "\x1b" not in shown
    assert len(shown.splitlines()) == 1 + len(ids(lake))
    assert RUN["dwh.run-id"] in shown


@pytest.mark.parametrize(
    ("columns", "lines", "run"),
    [(200, 4, RUN["dwh.run-id"]), (110, 4, RUN["dwh.run-id"][:8])],
    ids=["wide", "a run shortened"],
)
def test_a_terminal_gets_a_table_that_fits(dwh: Dwh, columns: int, lines: int, run: str) -> None:
    shown = dwh("history", TABLE, env=terminal(columns)).out
    plain = STYLE.sub("", shown).splitlines()
    assert shown != "\n".join(plain)
    assert len(plain) == lines
    assert max(map(len, plain)) <= columns
    assert plain[2].split()[-1] == run


def test_a_narrow_terminal_gets_names_and_values(lake: Lake, dwh: Dwh) -> None:
    shown = STYLE.sub("", dwh("history", TABLE, env=terminal(50)).out)
    versions = shown.strip().split("\n\n")
    assert [version.splitlines()[0].split() for version in versions] == [
        ["snapshot", snapshot_id] for snapshot_id in ids(lake)[::-1]
    ]
    assert versions[1].splitlines()[-1].split() == ["run", RUN["dwh.run-id"]]
