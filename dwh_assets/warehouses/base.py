"""What a sync says about itself, and what a warehouse remembers about a replica."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Literal, NamedTuple

from pyiceberg.schema import Schema

if TYPE_CHECKING:
    from dwh_assets.warehouses.dialect import TypeOptions

# copy: the rows are the table's. external: the warehouse reads the table's own files.
# merge_into: rows that went or changed stay, closed (a slowly changing dimension of type 2).
# append_only: every change is a row of its own, and nothing is ever updated.
Mode = Literal["copy", "external", "merge_into", "append_only"]
# Whoever replaces all rows of such a replica loses what only it knows.
HISTORY_MODES: tuple[Mode, ...] = ("merge_into", "append_only")
Method = Literal["none", "incremental", "full", "repointed"]


class HeldColumn(NamedTuple):
    """A column of a replica as its record remembers it: the lake's field, and how the warehouse holds it."""

    field_id: int
    name: str
    sql_type: str
    required: bool


class Target(NamedTuple):
    """Where a replica is, under the names that the warehouse itself shows: database, schema, table.

    `database` is empty for the one that a connection is at. BigQuery says project and dataset instead.
    """

    database: str
    schema: str
    name: str

    @property
    def parts(self) -> tuple[str, ...]:
        """The names that are given, outermost first."""
        return tuple(part for part in self if part)

    def beside(self, name: str) -> Target:
        """Return a table in the same schema."""
        return self._replace(name=name)

    def __str__(self) -> str:
        return ".".join(self.parts)


@dataclass(frozen=True)
class SyncResult:
    """What one sync did.

    `method` is `none` when nothing had to be done, `incremental` when only the changes were applied, `full`
    when all rows were loaded, `repointed` when a warehouse that reads the files itself was shown other ones;
    `reason` says why.
    `from_snapshot` and `to_snapshot` are what the replica held before and holds now; None is a table
    without any snapshot, or no replica. A full load counts the rows of before as deleted. `bytes` is the
    size of what was sent in Arrow form, `seconds` includes waiting for others.
    """

    mode: Mode
    method: Method
    reason: str
    from_snapshot: int | None
    to_snapshot: int | None
    rows_inserted: int
    rows_updated: int
    rows_deleted: int
    bytes: int
    statements: int
    seconds: float


@dataclass(frozen=True)
class ReplicaState:
    """The version of a table that a replica holds, as recorded in the warehouse with the rows.

    `table` is the name in the lake and `table_uuid` tells it from a later table of that name.
    The snapshot ids are None for a table that had no snapshot yet. `schema` are the table's columns as the
    replica holds them, and `columns` under which names and types the warehouse has them, by the choices in
    `types`. `generation` counts the record's changes: whoever wants to change it says which one was seen,
    so of two syncs at once one finds that it came too late.

    `pending` is empty, or what a sync had begun that this warehouse cannot do in one transaction: until that
    or the next sync finishes it, nothing is claimed about the rows. `synced_at` is None before the first
    sync has come to its end.
    """

    table: str
    table_uuid: str
    mode: Mode
    snapshot_id: int | None
    logical_snapshot_id: int | None
    schema: Schema
    columns: tuple[HeldColumn, ...]
    types: TypeOptions
    rows: int
    synced_at: datetime | None
    run_id: str | None
    generation: int = 0
    pending: str = ""

    @property
    def schema_id(self) -> int:
        """The id of the columns in the table's metadata."""
        return self.schema.schema_id
