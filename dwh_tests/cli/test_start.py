"""The command as a process of its own: it starts without the libraries that a command then needs."""

from __future__ import annotations

import json
from pathlib import Path

import dwh_assets
from dwh_tests.cli.conftest import environment_of, ids, process
from dwh_tests.iceberg.conftest import TABLE, Lake

COMMANDS = ("history", "show", "diff", "tag", "branch", "publish", "rollback", "release", "lineage", "doctor")
HEAVY = {"dagster", "duckdb", "numpy", "pandas", "pyarrow", "pydantic", "pyiceberg", "sqlalchemy", "sqlglot"}


def test_help_loads_nothing_heavy() -> None:
    script = (
        "import sys; from dwh_assets.cli.main import app\n"
        "try: app(['--help'])\n"
        "finally: print(sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    done = process("-c", script)
    assert "Usage: " in done.stdout
    assert "typer" in done.stderr
    assert not {name for name in HEAVY if f"'{name}'" in done.stderr}


def test_without_arguments_the_help_is_shown() -> None:
    done = process("-m", "dwh_assets.cli")
    assert done.returncode == 0
    for name in COMMANDS:
        assert f"  {name} " in done.stdout


def test_a_command_answers_in_a_pipe(lake: Lake) -> None:
    done = process("-m", "dwh_assets.cli", "history", TABLE, "--json", env=environment_of(lake))
    assert (done.returncode, done.stderr) == (0, "")
    assert [version["snapshot_id"] for version in json.loads(done.stdout)["versions"]] == ids(lake)[::-1]


def test_a_command_does_not_load_dagster(lake: Lake) -> None:
    script = (
        "import sys; from dwh_assets.cli.main import app\n"
        f"try: app(['show', {TABLE!r}, '--rows', '1'])\n"
        "finally: print('dagster' in sys.modules, file=sys.stderr)"
    )
    assert process("-c", script, env=environment_of(lake)).stderr == "False\n"


def test_an_answer_in_another_encoding_is_still_an_answer(tmp_path: Path) -> None:
    env = {"DWH_WAREHOUSE": str(tmp_path / "Lager-für-alle"), "PYTHONIOENCODING": "ascii"}
    done = process("-m", "dwh_assets.cli", "history", TABLE, env={"DWH_CATALOG_URI": "", **env})
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


def test_every_public_name_is_loaded_when_it_is_asked_for() -> None:
    for name in dwh_assets.__all__:
        found = getattr(dwh_assets, name)
        assert found.__name__ == name
        assert name in dir(dwh_assets)
