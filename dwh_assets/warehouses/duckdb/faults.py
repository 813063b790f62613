"""What DuckDB refuses, as errors that name the replicated table and say what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import duckdb

from dwh_assets.errors import ConfigurationError, ConflictError, DataError, DwhError, UnavailableError
from dwh_assets.iceberg.faults import first_line


@contextmanager
def explained(table: str) -> Iterator[None]:
    """Let DuckDB's own errors leave the block as a `DwhError`."""
    try:
        yield
    except duckdb.Error as error:
        raise _explanation(error, table) from error


def is_conflict(error: BaseException) -> bool:
    """Tell whether another transaction in this process was faster."""
    return isinstance(error, duckdb.TransactionException) and "conflict" in str(error).lower()


def _explanation(error: duckdb.Error, table: str) -> DwhError:
    what = f"The replica of {table}: DuckDB says {first_line(error)!r}."
    if is_conflict(error):
        return ConflictError(what, remedy="Repeat the call.")
    if isinstance(error, duckdb.IOException | duckdb.OutOfMemoryException):
        return UnavailableError(what, remedy="See to its disk and memory, and repeat the call.")
    if isinstance(error, duckdb.DataError | duckdb.IntegrityError):
        return DataError(what, remedy="Compare the value, and the type or constraint that it meets.")
    return ConfigurationError(what, remedy="Check the columns that the options and the call name.")
