"""DuckDB's extensions: those that it has installed, or that came as Python packages."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import duckdb

from dwh_assets.errors import UnsupportedError
from dwh_assets.iceberg.faults import first_line


def load_extensions(connection: duckdb.DuckDBPyConnection, *names: str) -> None:
    """Load extensions. Raises `UnsupportedError` that says how to get one that is missing."""
    for name in names:
        found = _packaged(name)
        try:
            connection.load_extension(str(found or name))
        except duckdb.Error as error:
            raise UnsupportedError(
                f"DuckDB's extension {name} cannot be loaded: {first_line(error)}.",
                remedy=f"Run INSTALL {name} in DuckDB once, or install the package duckdb-extension-{name} "
                f"for DuckDB {duckdb.__version__}.",
            ) from None


def _packaged(name: str) -> Path | None:
    package = importlib.util.find_spec(f"duckdb_extension_{name}")
    folders = (package.submodule_search_locations if package else None) or []
    pattern = f"extensions/v{duckdb.__version__}/{name}.duckdb_extension"
    return next((file for folder in folders for file in Path(folder).glob(pattern)), None)
