"""A real SQLite catalog with local files, written by PyIceberg itself."""

from pathlib import Path

import pyarrow as pa
import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.table import Table

from dwh_tests.warehouses.lake import open_catalog


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    return tmp_path / "lake"


@pytest.fixture
def catalog(lake: Path) -> SqlCatalog:
    lake.mkdir()
    catalog = open_catalog(lake)
    catalog.create_namespace("sales")
    return catalog


@pytest.fixture
def orders(catalog: SqlCatalog) -> Table:
    """A table of three rows."""
    table = catalog.create_table("sales.orders", pa.schema([("id", pa.int64()), ("item", pa.string())]))
    table.append(pa.table({"id": [1, 2, 3], "item": ["pen", None, "ink"]}))
    return table
