"""Every test of the suite runs in every warehouse; `make test-live` runs it in the real services."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from pyiceberg.catalog.sql import SqlCatalog

from dwh_tests.iceberg.conftest import Lake
from dwh_tests.warehouses.conformance.exceptions import excepted
from dwh_tests.warehouses.conformance.places import (
    LIVE,
    TABLE,
    Place,
    bigquery_place,
    duckdb_place,
    fakesnow_place,
)
from dwh_tests.warehouses.lake import open_catalog

EMULATED = ["duckdb", "snowflake", "bigquery"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One warehouse after the other, so that each server is started once."""
    if "place" in metafunc.fixturenames:
        names = [*LIVE] if os.environ.get("DWH_TEST_LIVE") else EMULATED
        marked = [
            pytest.param(name, marks=[] if name == "duckdb" else [pytest.mark.server]) for name in names
        ]
        metafunc.parametrize("place", marked, indirect=True)


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """A warehouse with a schema that no other test uses."""
    name: str = request.param
    _skip_exceptions(request, name)
    if name in LIVE:
        make, variables = LIVE[name]
        missing = [variable for variable in variables if not os.environ.get(variable)]
        if missing:
            pytest.skip(f"{', '.join(missing)} not set, so {name.removeprefix('live-')} cannot be reached")
        opened = make()
    elif name == "snowflake":
        opened = fakesnow_place(request.getfixturevalue("fakesnow"))
    elif name == "bigquery":
        opened = bigquery_place(name, request.getfixturevalue("local_bigquery").client)
    else:
        opened = duckdb_place(tmp_path / "warehouse.duckdb")
    with opened as place:
        yield place


def _skip_exceptions(request: pytest.FixtureRequest, name: str) -> None:
    test = request.node.originalname
    parameters = request.node.callspec.id.split("-")
    for key in (test, *(f"{test}[{one}]" for one in parameters)):
        if reason := excepted(name, key):
            pytest.skip(f"{name}: {reason}")


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """A catalog and one table of it, by our own writer."""
    return Lake(tmp_path, TABLE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the catalog of `catalog` is."""
    return tmp_path / "lake"


@pytest.fixture
def catalog(folder: Path) -> SqlCatalog:
    """A catalog for tables that our writer does not make."""
    folder.mkdir()
    catalog = open_catalog(folder)
    catalog.create_namespace("sales")
    return catalog


@pytest.fixture
def no_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a killed sync has announced is nobody's the moment after."""
    monkeypatch.setattr("dwh_assets.warehouses.sync.LEASE", timedelta(0))
