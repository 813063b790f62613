"""Which catalog is meant: the environment's, unless options or PyIceberg's own configuration name another."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

from dwh_tests.cli.conftest import Dwh, called, environment_of, ids, process
from dwh_tests.iceberg.conftest import TABLE, Lake

NOTHING = dict.fromkeys(("DWH_CATALOG_TYPE", "DWH_CATALOG_URI", "DWH_WAREHOUSE"), "")


def newest(told: list[dict[str, str]]) -> str:
    return told[0]["snapshot_id"]


@pytest.fixture
def other(tmp_path: Path) -> Lake:
    """Another lake with a table of the same name."""
    (tmp_path / "other").mkdir()
    other = Lake(tmp_path / "other")
    other.write(pa.table({"id": [1]}))
    return other


def test_options_go_before_the_environment(lake: Lake, other: Lake, dwh: Dwh) -> None:
    uri, warehouse = other.properties["uri"], other.properties["warehouse"]
    assert newest(dwh("history", TABLE, "--json").json["versions"]) == ids(lake)[-1]
    chosen = dwh("history", TABLE, "--json", "--catalog-uri", uri, "--warehouse", warehouse)
    assert newest(chosen.json["versions"]) == ids(other)[-1]


def test_a_warehouse_alone_names_the_catalog_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NOTHING:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "lakehouse"
    lake = Lake(folder)
    folder.mkdir()
    lake.write(pa.table({"id": [1]}))
    for arguments in ((), ("--warehouse", "lakehouse"), ("--warehouse", f"file://{folder}")):
        assert newest(called({}, "history", TABLE, "--json", *arguments).json["versions"]) == ids(lake)[-1]


def test_pyicebergs_own_configuration_names_catalogs(lake: Lake, other: Lake, tmp_path: Path) -> None:
    lines = ["catalog:", "  dwh:", *(f"    {name}: {value}" for name, value in other.properties.items())]
    (tmp_path / ".pyiceberg.yaml").write_text("\n".join(lines))
    env = {**environment_of(lake), "PYICEBERG_HOME": str(tmp_path)}
    chosen = ("--catalog", "dwh", "--json")
    told = process("-m", "dwh_assets.cli", "history", TABLE, *chosen, env=env)
    assert newest(json.loads(told.stdout)["versions"]) == ids(other)[-1]
    told = process("-m", "dwh_assets.cli", "doctor", TABLE, *chosen, env=env)
    assert (told.returncode, json.loads(told.stdout)["status"]) == (0, "ok")


def test_a_name_is_not_joined_with_where_it_is(dwh: Dwh) -> None:
    error = dwh("history", TABLE, "--catalog", "prod", "--warehouse", "x", "--json").error
    assert (error["type"], error["exit_code"]) == ("UsageError", 2)
    assert "'prod' is none of sql, rest, glue, hive, hadoop" in error["message"]
