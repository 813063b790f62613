"""What several commands take: a table, a point in time, a lifetime, names of columns."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated

import typer

_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_LIFETIME = re.compile(rf"(\d+)([{''.join(_UNITS)}])")

POINT = (
    "A snapshot id, tag, branch, ISO date or time (UTC unless it says otherwise), or 'N versions ago'. "
    "Left out, what main shows now."
)


def table_named(text: str) -> str:
    """Return the name of a table; refuse one without its namespace."""
    if "." not in text or not all(part.strip() for part in text.split(".")):
        raise typer.BadParameter(f"{text!r} must be namespace.table.")
    return text


def lifetime_of(text: str) -> timedelta:
    """Return the time that `90m`, `12h`, `30d` or `2w` is."""
    found = _LIFETIME.fullmatch(text)
    if found is None:
        raise typer.BadParameter(f"{text!r} is no lifetime; write 90m, 12h, 30d or 2w.")
    try:
        return timedelta(**{_UNITS[found[2]]: int(found[1])})
    except OverflowError:
        raise typer.BadParameter(
            f"{text!r} is longer than anything is kept; leave it out for ever."
        ) from None


def names_of(text: str | None) -> list[str]:
    """Return the names in `a,b,c`."""
    return [name.strip() for name in (text or "").split(",") if name.strip()]


TableArgument = Annotated[
    str, typer.Argument(metavar="TABLE", help="namespace.table", parser=table_named, show_default=False)
]
PointArgument = Annotated[str | None, typer.Argument(metavar="[POINT]", help=POINT)]
AtOption = Annotated[str | None, typer.Option("--at", metavar="POINT", help=POINT)]
LifetimeOption = Annotated[
    timedelta | None,
    typer.Option(
        parser=lifetime_of, metavar="30d", help="Keep it so long from now (m, h, d, w). Left out, for ever."
    ),
]
YesOption = Annotated[bool, typer.Option("--yes/--dry-run", help="Do it, or only show what it would do.")]
AllowUnpublishedOption = Annotated[
    bool,
    typer.Option(
        "--allow-unpublished",
        help="Even if main is not known to have shown it: its rows may have failed an audit.",
    ),
]
AllowLostOption = Annotated[
    bool,
    typer.Option("--allow-lost", help="Even if main has gone another way since; a tag keeps its commits."),
]
