"""One check, its outcome, and how an exception becomes one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from dwh_assets.errors import DwhError

# Worst first. "skipped" says that the check could not be made, or was not asked for, not that all is well.
STATUSES = ("failed", "warning", "skipped", "ok")
Status = Literal["failed", "warning", "skipped", "ok"]


@dataclass(frozen=True)
class Check:
    """One thing that was checked. `remedy` says what to do where it is not ok."""

    name: str
    status: Status
    detail: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.name}: {self.status}: {self.detail} {self.remedy}".strip()


@dataclass(frozen=True)
class Finding:
    """What a check found that is neither plainly well nor an error; it becomes the `Check` of that name."""

    status: Status
    detail: str
    remedy: str = ""


def attempt(name: str, action: Callable[[], str | Finding], remedy: str) -> Check:
    """Run one check; an exception becomes its detail, without the lines that may hold credentials."""
    try:
        outcome = action()
    except Unchecked as reason:
        return Check(name, "skipped", str(reason))
    except DwhError as error:
        return Check(name, "failed", error.message, error.remedy or remedy)
    except Exception as error:
        return Check(name, "failed", described(error), remedy)
    if isinstance(outcome, Finding):
        return Check(name, outcome.status, outcome.detail, outcome.remedy)
    return Check(name, "ok", outcome)


class Unchecked(Exception):
    """Raised by a check that cannot be made; the message says why."""


def described(error: BaseException) -> str:
    """Return an error's type and first line: drivers put connection strings into the later ones."""
    first_line = (str(error).splitlines() or [""])[0]
    return f"{type(error).__name__}: {first_line}".removesuffix(": ")


def worst(checks: list[Check]) -> Status:
    """Return the worst status among checks; ok where there are none."""
    return min((check.status for check in checks), key=STATUSES.index, default="ok")
