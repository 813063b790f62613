"""What BigQuery's clients raise, in this library's words: what may be repeated, and what needs a person."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import google.auth.exceptions as auth
import requests
from google.api_core import exceptions as api

from dwh_assets.errors import (
    ConfigurationError,
    ConflictError,
    DwhError,
    NotFoundError,
    TerminalError,
    UnavailableError,
    UnsupportedError,
)
from dwh_assets.iceberg.faults import first_line

# Where nobody said no, and the same call may go through later
TRANSIENT = (
    api.ServerError,
    api.TooManyRequests,
    api.RetryError,
    requests.ConnectionError,
    requests.Timeout,
    auth.TransportError,
)
_ALL = (api.GoogleAPIError, auth.GoogleAuthError, requests.RequestException)
_BUSY = {"rateLimitExceeded", "jobRateLimitExceeded", "backendError", "internalError", "jobBackendError"}
_CONCURRENT = ("concurrent update", "could not serialize access")
_LAYOUT = ("different partitioning spec", "different clustering spec")


@contextmanager
def explained(doing: str) -> Iterator[None]:
    """Raise what the clients raise in the block as `DwhError`; `doing` is what was tried, in words."""
    try:
        yield
    except _ALL as error:
        # Without its cause: that may quote requests, and with them what was sent.
        raise explain(error, doing) from None


def explain(error: Exception, doing: str) -> DwhError:
    """Return the error in this library's words."""
    said = f"{doing}: BigQuery says: {_message(error)}."
    if isinstance(error, auth.GoogleAuthError) and not isinstance(error, auth.TransportError):
        return ConfigurationError(
            f"{doing}: Google does not take the credentials ({type(error).__name__}).",
            remedy="Check the credentials of the connection.",
        )
    if isinstance(error, TRANSIENT) or reason_of(error) in _BUSY:
        return UnavailableError(said, remedy="Repeat the call later.")
    return _by_reason(error, said) or _by_status(error, said)


def reason_of(error: Exception) -> str:
    """Return BigQuery's own word for what is wrong; empty where it gave none."""
    details = getattr(error, "errors", None) or [{}]
    first = details[0]
    return str(first.get("reason", "")) if isinstance(first, dict) else ""


def _by_reason(error: Exception, said: str) -> DwhError | None:
    reason, text = reason_of(error), _message(error).lower()
    if reason == "quotaExceeded":
        return UnavailableError(
            said,
            remedy="A table takes 1,500 load jobs and changes a day, a project 100,000 load jobs: sync less "
            "often, or raise the quota in the Google Cloud console.",
        )
    if reason == "responseTooLarge":
        return UnsupportedError(said, remedy="Read fewer columns or rows: a result has at most 10 GB.")
    if any(words in text for words in _CONCURRENT):
        return ConflictError(
            said,
            remedy="Repeat the call. If it goes on, a sync that was killed may have left a transaction open: "
            "docs/bigquery.md tells how to end it.",
        )
    if any(words in text for words in _LAYOUT):
        return ConfigurationError(
            said, remedy="Drop the replica and sync again: BigQuery changes no table's partitioning."
        )
    return None


def _by_status(error: Exception, said: str) -> DwhError:
    if isinstance(error, api.NotFound):
        return NotFoundError(said, remedy="Check the name, and sync first.")
    if isinstance(error, api.Conflict | api.PreconditionFailed):
        return ConflictError(said, remedy="Repeat the call.")
    if isinstance(error, api.Forbidden | api.Unauthorized):
        return ConfigurationError(said, remedy="Grant what docs/bigquery.md lists under Grants.")
    return TerminalError(said)


def _message(error: Exception) -> str:
    details = getattr(error, "errors", None) or [{}]
    first = details[0]
    message = first.get("message") if isinstance(first, dict) else None
    return str(message).rstrip(".") if message else first_line(error)
