"""What a comparison of a replica with its table found, as data, as text for people, and for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from dwh_assets.warehouses.base import Target
from dwh_assets.warehouses.fingerprint import Group
from dwh_assets.warehouses.grouping import Grouping

Level = Literal["count", "fingerprint", "full"]
_SHOWN = 20


@dataclass(frozen=True)
class ColumnDifference:
    """A figure of a column that is not the same on both sides; values as text."""

    column: str
    figure: str
    in_table: str
    in_replica: str


@dataclass(frozen=True)
class PartitionDifference:
    """A part of the table whose rows are not the same on both sides."""

    name: str
    rows_in_table: int
    rows_in_replica: int


@dataclass(frozen=True)
class RowDifference:
    """A row by column, as each side has it; None where it has no such row."""

    in_table: Mapping[str, Any] | None
    in_replica: Mapping[str, Any] | None

    @property
    def kind(self) -> Literal["missing", "extra", "different"]:
        """Whether the replica lacks the row, has it too many, or has other values in it."""
        if self.in_replica is None:
            return "missing"
        return "extra" if self.in_table is None else "different"


@dataclass(frozen=True)
class ParityReport:
    """Whether a replica holds the rows of its table at a snapshot.

    `equal` is what the level can tell: `count` compares numbers of rows, `fingerprint` hashes over all
    columns that have a canonical text, `full` all values. `columns`, `partitions` and `rows` say where they
    differ (`rows` are some of them, and only of a full comparison). `not_compared` gives the reason by
    column; such columns were compared by their count of nulls where that can be told. `bytes` are those of
    the table's files that were read, and of the rows that the warehouse sent; `seconds` is wall time.
    """

    table: str
    target: Target
    warehouse: str
    level: Level
    snapshot_id: int | None
    equal: bool
    rows_in_table: int
    rows_in_replica: int
    columns: tuple[ColumnDifference, ...] = ()
    partitions: tuple[PartitionDifference, ...] = ()
    rows: tuple[RowDifference, ...] = ()
    not_compared: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    bytes: int = 0
    # What `repair` needs to name the rows that have to be loaded again
    grouping: Grouping = field(default=Grouping(()), repr=False)
    groups: tuple[Group, ...] = field(default=(), repr=False)

    def __bool__(self) -> bool:
        """Whether they are equal."""
        return self.equal

    def to_dict(self) -> dict[str, Any]:
        """Return everything in types of JSON; ids are text, since JSON's readers round large numbers."""
        return {
            "table": self.table,
            "target": str(self.target),
            "warehouse": self.warehouse,
            "level": self.level,
            "snapshot_id": None if self.snapshot_id is None else str(self.snapshot_id),
            "equal": self.equal,
            "rows_in_table": self.rows_in_table,
            "rows_in_replica": self.rows_in_replica,
            "columns": [vars(column) for column in self.columns],
            "partitions": [vars(partition) for partition in self.partitions],
            "rows": [
                {"kind": row.kind, "in_table": _shown(row.in_table), "in_replica": _shown(row.in_replica)}
                for row in self.rows
            ],
            "not_compared": dict(self.not_compared),
            "seconds": self.seconds,
            "bytes": self.bytes,
        }

    def to_markdown(self) -> str:
        """Render for people; long lists are cut."""
        replica = _cell(str(self.target))
        verdict = "equal" if self.equal else "**different**"
        parts = [
            f"**{_cell(self.table)}** at snapshot {self.snapshot_id}, {self.warehouse} {replica}: {verdict}",
            f"Compared by {self.level} in {self.seconds:.1f} s",
            f"{self.rows_in_table:,} rows in the table, {self.rows_in_replica:,} in the replica",
            _table(
                ("column", "figure", "table", "replica"),
                [(one.column, one.figure, one.in_table, one.in_replica) for one in self.columns],
            ),
            _table(
                ("partition", "rows in table", "rows in replica"),
                [(one.name, f"{one.rows_in_table:,}", f"{one.rows_in_replica:,}") for one in self.partitions],
            ),
            _table(("row", "table", "replica"), [*map(_row, self.rows)]),
            "\n".join(f"> {_cell(name)}: {_cell(why)}" for name, why in self.not_compared.items()),
        ]
        return "\n\n".join(part for part in parts if part)


def _row(row: RowDifference) -> tuple[str, str, str]:
    sides = (_shown(row.in_table) or {}, _shown(row.in_replica) or {})
    table, replica = (
        ", ".join(f"{name}: {_or_null(value)}" for name, value in side.items()) for side in sides
    )
    return row.kind, table, replica


def _or_null(text: str | None) -> str:
    return "null" if text is None else text


def _shown(values: Mapping[str, Any] | None) -> dict[str, str | None] | None:
    if values is None:
        return None
    return {name: None if value is None else _text(value) for name, value in values.items()}


def _text(value: Any) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    lines = [head, ["---"] * len(head), *rows[:_SHOWN]]
    text = "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)
    return text if len(rows) <= _SHOWN else f"{text}\n\n… and {len(rows) - _SHOWN:,} more"


def _cell(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")
