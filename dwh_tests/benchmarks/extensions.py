"""DuckDB with the extensions that come as Python packages, and nothing fetched."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from dwh_tests.benchmarks.model import Facts, Task, Unavailable


def connect(*names: str) -> Any:
    """Open an in-memory DuckDB with the named extensions loaded."""
    import duckdb

    connection = duckdb.connect(
        config={"autoinstall_known_extensions": False, "autoload_known_extensions": False}
    )
    for name in names:
        connection.execute(f"LOAD '{_file(name)}'")
    return connection


def missing(name: str) -> str | None:
    """Say why an extension cannot be loaded, or None."""
    try:
        _file(name)
    except Unavailable as reason:
        return str(reason)
    return None


def iceberg_facts(metadata_location: str, task: Task) -> Facts:
    """Read the facts of an Iceberg table with DuckDB, whoever wrote it."""
    from dwh_tests.benchmarks.data import facts_sql, one_row

    path = metadata_location.removeprefix("file://").removeprefix("file:")
    with connect("avro", "iceberg") as connection:
        return one_row(connection, facts_sql(task, f"iceberg_scan('{path}')"))


def _file(name: str) -> Path:
    import duckdb

    package = importlib.util.find_spec(f"duckdb_extension_{name}")
    for folder in (package.submodule_search_locations if package else None) or []:
        for found in Path(folder).glob(f"extensions/v{duckdb.__version__}/{name}.duckdb_extension"):
            return found
    raise Unavailable(f"duckdb-extension-{name} for DuckDB {duckdb.__version__} is not installed")
