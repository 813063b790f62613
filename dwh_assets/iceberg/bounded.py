"""DuckDB as it computes here: in bounded memory, spilling to a folder that goes with it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import duckdb

_MEMORY_LIMIT = "512MB"
# What conditions mean must not depend on the machine, and no statement loads code or sees our variables.
_SETTINGS_SQL = (
    "SET TimeZone = 'UTC'",
    "SET autoinstall_known_extensions = false",
    "SET autoload_known_extensions = false",
    "SET python_enable_replacements = false",
    "SET preserve_insertion_order = false",
    "SET enable_progress_bar = false",
)


@contextmanager
def bounded_duckdb(*, reads_files: bool = True) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open an empty database in memory whose settings no statement can change any more.

    Without `reads_files` a statement sees nothing but what is registered.
    """
    with tempfile.TemporaryDirectory(prefix="dwh-") as folder, duckdb.connect() as connection:
        connection.execute("SET memory_limit = ?", [_MEMORY_LIMIT])
        connection.execute("SET temp_directory = ?", [folder])
        for setting_sql in _SETTINGS_SQL:
            connection.execute(setting_sql)
        if not reads_files:
            connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
        yield connection
