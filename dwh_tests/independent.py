"""Another reader of Iceberg tables than the code under test: DuckDB's `iceberg` extension.

It comes as a Python package for one version of DuckDB, is loaded from there once a process (which takes most
of a second), and leaves nothing behind.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest


def iceberg_rows(
    metadata_location: str, snapshot_id: int | None = None, *, where: str = "true", values: Iterable[Any] = ()
) -> pa.Table:
    """Return the rows of the table whose metadata file this is; the newest snapshot's unless one is named.

    `where` is a condition of DuckDB with a question mark for each of `values`. The order of rows means
    nothing. Skips the test where the extension is not installed.
    """
    path = metadata_location.removeprefix("file://")
    options = "" if snapshot_id is None else f", snapshot_from_id := {snapshot_id:d}"
    query = f"SELECT * FROM iceberg_scan(?{options}) WHERE {where}"
    return _connection().sql(query, params=[path, *values]).to_arrow_table()


@cache
def _connection() -> duckdb.DuckDBPyConnection:
    offline = {"autoinstall_known_extensions": False, "autoload_known_extensions": False}
    connection = duckdb.connect(config={**offline})
    connection.execute("SET SESSION TimeZone = 'UTC'")
    for name in ("avro", "iceberg"):
        connection.execute(f"LOAD '{_extension(name)}'")
    return connection


def _extension(name: str) -> Path:
    package = importlib.util.find_spec(f"duckdb_extension_{name}")
    folders = package.submodule_search_locations if package else None
    for folder in folders or []:
        for found in Path(folder).glob(f"extensions/v{duckdb.__version__}/{name}.duckdb_extension"):
            return found
    pytest.skip(f"duckdb-extension-{name} for DuckDB {duckdb.__version__} is not installed")
