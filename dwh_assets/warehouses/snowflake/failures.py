"""What Snowflake's connector raises, in this library's words: what may go away by itself, what needs whom."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from snowflake.connector import errors

from dwh_assets.errors import (
    ConfigurationError,
    ConflictError,
    DataError,
    DwhError,
    NotFoundError,
    TerminalError,
    UnavailableError,
)

# Another transaction holds the lock, and too many wait for it.
_WAITERS = 625
_LOCKED = re.compile(r"deadlock|lock\b.*\btime.?out|timed out.*\block|has not yet been released", re.I | re.S)
_CANCELLED = {604, 630}  # by hand or by STATEMENT_TIMEOUT_IN_SECONDS
_NOT_THERE = {2003, 2043}
_NO_RIGHTS = 3001
_NO_RIGHTS_STATE = "42501"
_NOWHERE = {606, 90105, 90106}  # no warehouse, no database, no schema
_BAD_LOGIN = re.compile(r"incorrect username|password|authenticat|token is invalid|not allowed", re.I)
_BAD_DATA = re.compile(r"22\d\d\d")
_SILENT = (
    errors.OperationalError,
    errors.InterfaceError,
    errors.InternalServerError,
    errors.ServiceUnavailableError,
    errors.GatewayTimeoutError,
    errors.BadGatewayError,
    errors.RequestTimeoutError,
    errors.RequestExceedMaxRetryError,
    errors.TooManyRequests,
    errors.OtherHTTPRetryableError,
)
_LONGEST = 500


@contextmanager
def explained(doing: str) -> Iterator[None]:
    """Raise what the connector raises inside the block as an error of this library; `doing` says at what."""
    try:
        yield
    except errors.Error as error:
        raise explanation(error, doing) from error


def explanation(error: errors.Error, doing: str) -> DwhError:
    """Return an error that says what happened and what to do about it."""
    said = f"{doing}: {_said(error)}"
    number, state = error.errno or 0, error.sqlstate or ""
    if number == _WAITERS or _LOCKED.search(error.msg or ""):
        return ConflictError(said, remedy="Another transaction was faster: repeat the call.")
    if number == _NO_RIGHTS or state == _NO_RIGHTS_STATE:
        return ConfigurationError(
            said, remedy="Grant the role what docs/snowflake.md lists, or connect with another role."
        )
    if number in _NOT_THERE:
        return NotFoundError(said, remedy="Check the name, and that the role may see it.")
    if number in _NOWHERE:
        return ConfigurationError(said, remedy="Name warehouse, database and schema for the connection.")
    if isinstance(error, errors.ForbiddenError | errors.BadRequest) or _is_login(error):
        return ConfigurationError(said, remedy="Check account, user, role and the means of logging in.")
    if number in _CANCELLED or isinstance(error, _SILENT):
        return UnavailableError(said, remedy="Repeat the call; should it stay so, check account and network.")
    if _BAD_DATA.fullmatch(state):
        return DataError(said, remedy="Mend the value in the lake's table, or leave the column out.")
    return TerminalError(said, remedy="See the statement in Snowflake's query history.")


def is_syntax_error(error: BaseException | None) -> bool:
    """Tell whether the server could not read the statement."""
    return isinstance(error, errors.ProgrammingError) and error.errno == 1003


def is_about_a_view(error: BaseException | None) -> bool:
    """Tell whether a statement about tables met a view."""
    return isinstance(error, errors.ProgrammingError) and bool(
        re.search(r"of type '?view", error.msg or "", re.I)
    )


def _is_login(error: errors.Error) -> bool:
    return isinstance(error, errors.DatabaseError) and (
        error.errno == 250001 and bool(_BAD_LOGIN.search(error.msg or ""))
    )


def _said(error: errors.Error) -> str:
    """Return the text, which begins with a number, on one line. Values are bound, so no secret is in it."""
    text = " ".join((error.msg or str(error)).split())
    return f"Snowflake answered {text[:_LONGEST].rstrip('.')}."
