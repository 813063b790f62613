"""DuckDB as the calculator: one instance a process, in bounded memory, with a folder to spill to.

Starting and ending an instance takes tens of milliseconds, as long as a small write; connecting to one that
runs takes none. What a connection registers, and the temporary tables that it makes, go when it is closed.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import duckdb

_MEMORY_LIMIT = "512MB"
# What conditions mean must not depend on the machine, and no statement loads code or sees our variables.
_SETTINGS_SQL = (
    "SET GLOBAL TimeZone = 'UTC'",
    "SET GLOBAL autoinstall_known_extensions = false",
    "SET GLOBAL autoload_known_extensions = false",
    "SET GLOBAL python_enable_replacements = false",
    "SET GLOBAL preserve_insertion_order = false",
    # It would hold what a damaged file said beyond the file's mending, and memory between writes.
    "SET GLOBAL enable_external_file_cache = false",
    "SET GLOBAL lock_configuration = true",
)


def connect(*, filters_scans_by_keys: bool = True) -> duckdb.DuckDBPyConnection:
    """Return a connection, to be closed after use; all of a process share 512 MB and two temporary folders.

    `filters_scans_by_keys=False` is for joins on UUIDs: DuckDB hands the keys of a join to the scan of the
    other side as a filter, and where that is Arrow's it cannot do so with UUIDs.
    """
    return _instance(os.getpid(), filters_scans_by_keys).cursor()


@contextmanager
def isolated(*, reads_files: bool = True) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open an instance of its own, for statements that people write: it goes with what they leave in it.

    Without `reads_files` a statement sees nothing but what is registered.
    """
    with tempfile.TemporaryDirectory(prefix="dwh-") as folder, duckdb.connect() as instance:
        _set_up(instance, folder, "" if reads_files else "SET GLOBAL enable_external_access = false")
        yield instance


@cache
def _instance(_process: int, filters_scans_by_keys: bool) -> duckdb.DuckDBPyConnection:
    """Start an instance; a forked process cannot use its parent's."""
    instance = duckdb.connect()
    without_filters_sql = "SET GLOBAL disabled_optimizers = 'join_filter_pushdown'"
    _set_up(instance, _spill_folder().name, "" if filters_scans_by_keys else without_filters_sql)
    return instance


def _set_up(instance: duckdb.DuckDBPyConnection, folder: str, setting_sql: str) -> None:
    """Set what no statement can change any more."""
    instance.execute("SET GLOBAL memory_limit = ?", [_MEMORY_LIMIT])
    instance.execute("SET GLOBAL temp_directory = ?", [folder])
    for sql in (setting_sql, *_SETTINGS_SQL):
        instance.execute(sql)


_folders: list[tempfile.TemporaryDirectory[str]] = []


def _spill_folder() -> tempfile.TemporaryDirectory[str]:
    """Make a folder that is deleted when the process ends."""
    _folders.append(tempfile.TemporaryDirectory(prefix="dwh-", ignore_cleanup_errors=True))
    return _folders[-1]
