"""How a command ends that cannot do what was asked: a line what happened, a line what to do, an exit code.

0: done. 1: it cannot be done, and repeating does not help. 2: the command was called wrongly. 3: something
was busy or out of reach; try again. 4: nobody knows whether the change landed; look before trying again.
130: interrupted.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import typer

from dwh_assets.errors import CommitUnknownError, DwhError, TransientError

FAILED, WRONG_USAGE, TRY_AGAIN, UNKNOWN = 1, 2, 3, 4
# The class itself is private to the parser that this version of typer is built on.
UsageError: type[Any] = typer.BadParameter.__mro__[1]
_TRACEBACK = "DWH_TRACEBACK"


@contextmanager
def told(as_json: bool, subject: str, secrets: Callable[[], Mapping[str, Any]]) -> Iterator[None]:
    """Let every error leave the block as two lines on stderr, or a JSON object, and its exit code.

    `subject` is the table that faults of the store are told of. `secrets` returns the catalog's properties,
    as far as they are known by then: none of them is shown.
    """
    try:
        yield
    except (typer.Exit, typer.Abort, UsageError, BrokenPipeError):
        raise
    except Exception as error:
        if os.environ.get(_TRACEBACK):
            traceback.print_exc()
        found = _explained(error, subject)
        message, remedy = (_hidden(text, secrets()) for text in _said(found))
        tell(type(found).__name__, message, remedy, _exit_code(found), as_json=as_json)
        raise typer.Exit(_exit_code(found)) from None


def tell(kind: str, message: str, remedy: str, code: int, *, as_json: bool) -> None:
    """Print an error to stderr."""
    if as_json:
        error = {"type": kind, "message": message, "remedy": remedy, "exit_code": code}
        print(json.dumps({"error": error}, ensure_ascii=False), file=sys.stderr)
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True, highlight=False)
    console.print(Text.assemble(("error: ", "bold red"), _one_line(message)), soft_wrap=True)
    if remedy:
        console.print(Text(f"    -> {_one_line(remedy)}"), soft_wrap=True)


def _explained(error: Exception, subject: str) -> Exception:
    """Return the error in our own words, where it is a fault of the catalog or the store."""
    from dwh_assets.iceberg.faults import explained

    try:
        with explained(subject, "dwh"):
            raise error
    except Exception as known:
        return known


def _said(error: Exception) -> tuple[str, str]:
    if isinstance(error, DwhError):
        return error.message, error.remedy
    from dwh_assets.iceberg.faults import first_line

    return (
        f"This should not happen: {type(error).__name__}: {first_line(error)}.",
        f"Please report it, with what {_TRACEBACK}=1 in the environment makes it print.",
    )


def _exit_code(error: Exception) -> int:
    if isinstance(error, CommitUnknownError):
        return UNKNOWN
    return TRY_AGAIN if isinstance(error, TransientError) else FAILED


def _hidden(text: str, secrets: Mapping[str, Any]) -> str:
    from dwh_assets.iceberg.doctor.redaction import without_secrets

    return without_secrets(text, secrets)


def _one_line(text: str) -> str:
    return " ".join(text.split())
