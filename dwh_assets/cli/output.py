"""What a command prints: JSON, or tables and lines that stay whole wherever they go.

In a pipe nothing is coloured, broken or shortened, so that `grep` and `awk` find what they look for.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from rich.console import Console

_GAP = "  "


class Part(Protocol):
    """Something that can be printed for a person."""

    def print(self, console: Console) -> None:
        """Print it."""
        ...


class Output:
    """Where the outcome of a command goes, and in which form."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json

    def show(self, outcome: Any, *parts: Part) -> None:
        """Print the outcome as JSON where that was asked for, else the parts that tell it to a person."""
        if self.as_json:
            print(json.dumps(outcome, indent=2, ensure_ascii=False, allow_nan=False))
            return
        for part in parts:
            part.print(self.console)

    @cached_property
    def console(self) -> Console:
        """The terminal, or the pipe."""
        from rich.console import Console

        return Console(highlight=False, markup=False, emoji=False)


@dataclass(frozen=True)
class Line:
    """One line of text, which the terminal breaks where it ends; `style` is one of rich."""

    text: str
    style: str = ""

    def print(self, console: Console) -> None:
        """Print it."""
        console.print(printable(self.text), style=self.style or None, soft_wrap=True)


@dataclass(frozen=True)
class Facts:
    """Names and values, one pair a line; pairs without a value are left out."""

    pairs: Sequence[tuple[str, str]]

    def print(self, console: Console) -> None:
        """Print them."""
        known = [(name, value) for name, value in self.pairs if value]
        width = max((len(name) for name, _ in known), default=0)
        for name, value in known:
            console.print(f"{name:<{width}}{_GAP}{printable(value)}", soft_wrap=True)


@dataclass(frozen=True)
class Column:
    """A column of a table: `right` is for numbers, `short` how much of an id will do where room is short."""

    name: str
    right: bool = False
    short: int | None = None


@dataclass(frozen=True)
class Table:
    """Rows of text under their names; columns that are empty everywhere are left out, unless told to keep.

    Where a terminal is too narrow, ids that may be are shortened; if that does not help, each row is told as
    names and values. In a pipe it is as wide as it is.
    """

    columns: Sequence[Column]
    rows: Iterable[Sequence[str]]
    keep_empty: bool = False

    def print(self, console: Console) -> None:
        """Print it."""
        rows = [[printable(cell) for cell in row] for row in self.rows]
        shown = [i for i in range(len(self.columns)) if self.keep_empty or any(row[i] for row in rows)]
        columns, whole = [self.columns[i] for i in shown], [[row[i] for i in shown] for row in rows]
        for lines in (_grid(columns, whole), _grid(columns, _shortened(columns, whole))):
            if not console.is_terminal or _width(lines) <= console.width:
                _print_grid(console, lines)
                return
        for row in whole:
            Facts([(column.name, cell) for column, cell in zip(columns, row, strict=True)]).print(console)
            console.print()


def _grid(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> list[str]:
    from rich.cells import cell_len, set_cell_size

    lines = [[column.name for column in columns], *rows]
    widths = [max(cell_len(line[i]) for line in lines) for i in range(len(columns))]

    def aligned(cell: str, width: int, column: Column) -> str:
        return " " * (width - cell_len(cell)) + cell if column.right else set_cell_size(cell, width)

    return [_GAP.join(map(aligned, line, widths, columns)).rstrip() for line in lines]


def _shortened(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> list[list[str]]:
    return [[cell[: column.short] for cell, column in zip(row, columns, strict=True)] for row in rows]


def _width(lines: Sequence[str]) -> int:
    from rich.cells import cell_len

    return max(map(cell_len, lines))


def _print_grid(console: Console, lines: Sequence[str]) -> None:
    header, *rows = lines
    console.print(header, style="bold", soft_wrap=True)
    for row in rows:
        console.print(row, soft_wrap=True)


def printable(text: str) -> str:
    """Return text without what a terminal would obey: data and names come from anybody."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def moment(at: datetime | None) -> str:
    """Write a moment as people and POINTs read it: in UTC, to the millisecond that Iceberg keeps."""
    return "" if at is None else at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def iso(at: datetime | None) -> str | None:
    """Write a moment for JSON: ISO, in UTC."""
    return None if at is None else at.astimezone(UTC).isoformat()


def number(value: int | None) -> str:
    """Write a count; nothing where it is not known."""
    return "" if value is None else f"{value:,}"
