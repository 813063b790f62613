"""DuckDB as the project computes with it: bounded memory, a folder to spill to, alike on every machine."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack

import duckdb

_MEMORY_LIMIT = "512MB"
# What conditions mean must not depend on the machine, and no statement loads code or sees our variables.
_SETTINGS_SQL = (
    "SET TimeZone = 'UTC'",
    "SET autoinstall_known_extensions = false",
    "SET autoload_known_extensions = false",
    "SET python_enable_replacements = false",
    "SET preserve_insertion_order = false",
    "SET lock_configuration = true",
)


def open_engine(resources: ExitStack, *, pushes_down_joins: bool = True) -> duckdb.DuckDBPyConnection:
    """Open an empty database in memory that spills to a temporary folder; both go with `resources`.

    Without `pushes_down_joins` no join hands its keys to a scan as a filter.
    """
    folder = resources.enter_context(tempfile.TemporaryDirectory(prefix="dwh-"))
    connection = resources.enter_context(duckdb.connect())
    connection.execute("SET memory_limit = ?", [_MEMORY_LIMIT])
    connection.execute("SET temp_directory = ?", [folder])
    if not pushes_down_joins:
        connection.execute("SET disabled_optimizers = 'join_filter_pushdown'")
    for setting_sql in _SETTINGS_SQL:
        connection.execute(setting_sql)
    return connection
