"""A table with three versions in a SQLite catalog, and the command that looks at it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from os import environ
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from dwh_assets.cli.main import app
from dwh_tests.iceberg.conftest import Lake
from dwh_tests.versioning.graph import GraphLake

RUN = {
    "dwh.run-id": "0a3f2f3e-6d0f-4b0a-9b38-8a7f6f2f1c11",
    "dwh.asset-key": "iceberg/shop/orders",
    "dwh.partition-key": "2024-01-01",
    "dwh.input.shop.sales": "7316258126437",
}


@dataclass(frozen=True)
class Told:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it printed, as JSON."""
        return json.loads(self.out)

    @property
    def error(self) -> dict[str, Any]:
        """What it printed to stderr, as JSON; nothing may have gone to stdout."""
        assert self.out == ""
        found: dict[str, Any] = json.loads(self.err)["error"]
        return found


Dwh = Callable[..., Told]


def called(environment: Mapping[str, str], *arguments: str) -> Told:
    """Call `dwh` in this process."""
    result = CliRunner(env=environment).invoke(app, list(arguments), prog_name="dwh")
    return Told(result.exit_code, result.stdout, result.stderr)


def process(*arguments: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Call Python in a process of its own."""
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, env={**environ, **(env or {})}, capture_output=True, text=True, check=False, timeout=120
    )


def environment_of(lake: Lake | GraphLake) -> dict[str, str]:
    """How the environment names the catalog of a lake."""
    properties = lake.properties
    return {
        "DWH_CATALOG_TYPE": "sql",
        "DWH_CATALOG_URI": properties["uri"],
        "DWH_WAREHOUSE": properties["warehouse"],
        "DWH_DUCKDB_PATH": str(lake.folder / "replicas.duckdb"),
        "DWH_LEDGER_URL": "",
        "FORCE_COLOR": "",
        "COLUMNS": "",
    }


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """Three versions: an append, an upsert by a run that brings a column, an overwrite of a part."""
    lake = Lake(tmp_path)
    lake.write(pa.table({"id": [1, 2], "place": ["eu", "us"]}))
    more = pa.table({"id": [2, 3], "place": ["us", "eu"], "price": [2.5, 3.5]})
    lake.writer(write_mode="upsert", key_columns=["id"]).write(more, summary=RUN)
    last = pa.table({"id": [4], "place": ["eu"], "price": [4.5]})
    lake.write(last, write_mode="overwrite", where="id = 1 or id = 4")
    return lake


@pytest.fixture
def dwh(lake: Lake) -> Dwh:
    """Call `dwh` with arguments; a keyword `env` is added to the environment."""

    def call(*arguments: str, env: Mapping[str, str] | None = None) -> Told:
        return called({**environment_of(lake), **(env or {})}, *arguments)

    return call


def ids(lake: Lake) -> list[str]:
    """The snapshots in the order in which they were made, as text."""
    return [str(snapshot["snapshot-id"]) for snapshot in lake.metadata["snapshots"]]
