"""Faults from outside, in our own words: a silent catalog, a full disk, a file or bucket that is gone.

The libraries below each have errors of their own for the same trouble, and none of them names the table or
what to do next. What the data's own reader raises is left as it is.
"""

from __future__ import annotations

import errno
import sqlite3
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import duckdb
import pyarrow as pa
from pydantic import ValidationError as ModelError
from pyiceberg.exceptions import ForbiddenError, ServerError, ServiceUnavailableError, UnauthorizedError
from pyiceberg.exceptions import ValidationError as MetadataError
from pyiceberg.table import Table
from requests.exceptions import RequestException
from sqlalchemy.exc import DBAPIError, OperationalError

from dwh_assets.errors import ConfigurationError, DamagedError, DwhError, NotFoundError, UnavailableError

# What readers of JSON, Avro and Parquet make of bytes that are cut short or were never theirs
_DAMAGE = (
    ModelError,
    MetadataError,
    UnicodeDecodeError,
    EOFError,
    SystemError,
    IndexError,
    KeyError,
    AssertionError,
    MemoryError,
    OverflowError,
    struct.error,
    zlib.error,
    pa.ArrowInvalid,
    duckdb.InvalidInputException,
)
# Errors of optional packages (Thrift, botocore) are known by name.
_SILENT_NAMES = {"TTransportException", "HTTPClientError", "EndpointConnectionError"}
_SILENT = (
    OperationalError,
    sqlite3.OperationalError,
    RequestException,
    ConnectionError,
    TimeoutError,
    ServerError,
    ServiceUnavailableError,
)
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_DENIED = {errno.EROFS, errno.EACCES, errno.EPERM}
_FULL_TEXTS = ("SQLITE_FULL", "No space left on device", "File too large")
_DENIED_TEXTS = ("SQLITE_READONLY", "ACCESS_DENIED", "AccessDenied", "Permission denied", "Read-only file")
_GONE_TEXTS = ("NO_SUCH_BUCKET", "NO_SUCH_KEY", "NoSuchBucket", "No files found that match")

T = TypeVar("T")


class SourceFailed(Exception):
    """The reader of the data failed: `error` is the caller's own."""

    def __init__(self, error: Exception) -> None:
        super().__init__(f"{type(error).__name__}: {error}")
        self.error = error


def own_errors(data: Iterable[T]) -> Iterator[T]:
    """Hand data on; mark what they raise, so that it is not taken for a fault of the table's store."""
    items = iter(data)
    while True:
        try:
            item = next(items)
        except StopIteration:
            return
        except Exception as error:
            raise SourceFailed(error) from error
        yield item


@contextmanager
def explained(table: str, catalog: str) -> Iterator[None]:
    """Let faults of the catalog and the store leave the block as errors that name the table and a remedy.

    Raises `UnavailableError` for what may go away by itself, `ConfigurationError` where writing is not
    allowed, `NotFoundError` for files or buckets that are gone. The original is not attached: drivers put
    connection strings into it.
    """
    try:
        yield
    except DwhError:
        raise
    except SourceFailed as failed:
        raise failed.error from None
    except Exception as error:
        told = _explanation(error, table, catalog)
        if told is None:
            raise
        raise told from None


def _explanation(error: Exception, table: str, catalog: str) -> DwhError | None:
    said = first_line(error)
    if is_full(error):
        return UnavailableError(
            f"{table}: there is no room left to write: {said}.",
            remedy="Free space (temporary files count, too) or raise the quota, then try again.",
        )
    if is_denied(error):
        return ConfigurationError(
            f"{table}: its location may not be written, or read: {said}.",
            remedy="Grant access to the table's location and to the catalog, then try again.",
        )
    if isinstance(error, FileNotFoundError) or _says(error, _GONE_TEXTS):
        return NotFoundError(
            f"{table}: a file or bucket that it needs is gone: {said}.",
            remedy="Bring it back from a backup, or roll the table back to a version that does without it.",
        )
    if is_silence(error):
        return UnavailableError(
            f"{table}: catalog {catalog!r} does not answer: {said}.",
            remedy="Check its uri, and that it is running and reachable; then try again.",
        )
    if isinstance(error, OSError | duckdb.IOException):
        return UnavailableError(
            f"{table}: its store does not answer: {said}.",
            remedy="Check that it is running and reachable, then try again.",
        )
    return None


def is_full(error: Exception) -> bool:
    """Tell whether there was no room to write."""
    return getattr(error, "errno", None) in _FULL or _says(error, _FULL_TEXTS)


def is_denied(error: Exception) -> bool:
    """Tell whether writing, or reading, was not allowed."""
    forbidden = isinstance(error, ForbiddenError | UnauthorizedError)
    return forbidden or getattr(error, "errno", None) in _DENIED or _says(error, _DENIED_TEXTS)


def is_silence(error: Exception) -> bool:
    """Tell whether a catalog did not answer."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return isinstance(error, _SILENT) or lost_connection(error) or bool(names & _SILENT_NAMES)


def lost_connection(error: Exception) -> bool:
    """Tell whether a database went away in the middle of a statement."""
    return isinstance(error, DBAPIError) and error.connection_invalidated


def _says(error: Exception, texts: Iterable[str]) -> bool:
    """Look for a text in an error of a kind that carries no number."""
    if not isinstance(error, OSError | duckdb.Error | OperationalError):
        return False
    driver = getattr(error, "orig", error)
    said = f"{getattr(driver, 'sqlite_errorname', '')} {driver}"
    return any(text in said for text in texts)


@contextmanager
def readable(table: str, damaged_file: Callable[[], str | None] = lambda: None) -> Iterator[None]:
    """Let what readers make of a damaged file leave the block as `DamagedError`.

    `damaged_file` is asked afterwards which file it is, where the error does not tell.
    """
    try:
        yield
    except DwhError:
        raise
    except _DAMAGE as error:
        where = damaged_file()
        raise DamagedError(
            f"{table}: {where or 'one of its files'} cannot be read: {type(error).__name__}: "
            f"{first_line(error)}.",
            remedy="Bring it back from a backup, or roll the table back to a version that does without it.",
        ) from error


def damaged_metadata(table: Table) -> str | None:
    """Return the manifest list or manifest of the newest version that cannot be read, if there is one."""
    path = table.metadata_location
    try:
        for snapshot in filter(None, [table.current_snapshot()]):
            path = snapshot.manifest_list
            for manifest in snapshot.manifests(table.io):
                path = manifest.manifest_path
                manifest.fetch_manifest_entry(table.io)
    except Exception:
        return path
    return None


def first_line(error: Exception) -> str:
    """Return what an error says, without the later lines: drivers put connection strings there."""
    lines = str(getattr(error, "orig", error)).splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
