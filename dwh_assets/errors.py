"""Every error this library raises on purpose.

Two branches decide what a caller may do: a `TransientError` can go away by itself, so the
same call is worth repeating; a `TerminalError` needs a person. `CommitUnknownError` belongs to
neither: the change may have landed, and only reading the table again can tell (the distinction
is PyIceberg's; see `pyiceberg.exceptions.CommitStateUnknownException`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class DwhError(Exception):
    """What happened, to which thing, and what to do next.

    `message` names the table, column and value concerned; `remedy` is one instruction.
    """

    def __init__(self, message: str, *, remedy: str = "") -> None:
        self.message = message
        self.remedy = remedy
        super().__init__(f"{message} {remedy}".strip())


class TerminalError(DwhError):
    """Repeating the call cannot help: configuration, schema or data have to change."""


class TransientError(DwhError):
    """Repeating the call may help: something was busy, slow or out of reach."""


class ConfigurationError(TerminalError):
    """A declaration, a setting or an argument is wrong."""


class SchemaError(TerminalError):
    """The data's columns do not fit the table's, and the allowed evolution cannot mend it."""


class DataError(TerminalError):
    """A value in the data cannot be written as it is: overflow, duplicate key, null key."""


class UnsupportedError(TerminalError):
    """A true limit of the format, the catalog or the warehouse, met before anything changed."""


class NotFoundError(TerminalError):
    """The table, snapshot, tag or namespace that was asked for is not there."""


class DamagedError(TerminalError):
    """A file of a table cannot be read: cut short, overwritten, or never what it should be."""


class ConflictError(TransientError):
    """Another commit got in the way and this one could not be reconciled with it."""


class DivergedError(TerminalError):
    """A branch does not go on from where main is, so main cannot just take it over."""


class AuditFailedError(TerminalError):
    """Audits found rows that must not be published: main is as it was, the write waits on a branch.

    `branch` is that branch, "" where it went with a table that was only made for the write; `results` are
    those of all audits, each with a sample of the rows that failed.
    """

    def __init__(self, message: str, *, remedy: str, branch: str, results: Sequence[Any]) -> None:
        super().__init__(message, remedy=remedy)
        self.branch = branch
        self.results = tuple(results)


class UnavailableError(TransientError):
    """A catalog, store, warehouse or file could not be reached or is held by somebody else."""


class CommitUnknownError(DwhError):
    """Nobody knows whether the commit landed: look at the table before trying again."""
