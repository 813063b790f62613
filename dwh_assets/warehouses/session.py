"""What a warehouse is asked to do over one connection: what differs in more than words of SQL."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from dwh_assets.errors import UnsupportedError
from dwh_assets.warehouses.arriving import Arriving
from dwh_assets.warehouses.base import Target
from dwh_assets.warehouses.dialect import Dialect, ReplicaColumn
from dwh_assets.warehouses.evolution import ColumnStep
from dwh_assets.warehouses.source import Source


@dataclass(frozen=True)
class Purpose:
    """What the statements of a session are for; warehouses show it beside what they cost."""

    table: str
    run_id: str | None


@dataclass(frozen=True)
class Layout:
    """How a replica's rows are arranged, as far as the warehouse can: declared, or taken from the table."""

    cluster_by: tuple[str, ...] = ()
    partition_by: str | None = None  # a column of time, by day or month: see `partition_grain`
    partition_grain: str | None = None
    indexes: tuple[tuple[str, ...], ...] = ()


class Session(ABC):
    """One connection. Not safe for threads. Every method raises a `DwhError` that says what to do.

    `statements` counts what was sent. A failure that may go away by itself is an `UnavailableError`, one
    that comes from another transaction a `ConflictError`; both leave everything as it was.
    """

    dialect: Dialect
    statements: int = 0

    @abstractmethod
    def execute(self, sql: str, *parameters: Any) -> int:
        """Run one statement with bound parameters; return how many rows it changed, else 0."""

    @abstractmethod
    def fetch(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Run a query that returns few rows."""

    @abstractmethod
    def stream(self, sql: str, *parameters: Any) -> pa.RecordBatchReader:
        """Run a query and stream its rows in Arrow form; the session stays open until they are read."""

    @abstractmethod
    def transaction(self) -> AbstractContextManager[None]:
        """Commit what the block did, or undo it when the block raises."""

    @abstractmethod
    def describe(self, target: Target) -> list[str] | None:
        """Return the names of the columns of a table or view, in order; None when there is none."""

    @abstractmethod
    def ensure_schema(self, target: Target) -> None:
        """Make the schema (dataset) that the target is in, unless it is there."""

    @abstractmethod
    def create_table(
        self,
        target: Target,
        columns: Sequence[ReplicaColumn],
        layout: Layout,
        *,
        existing: Literal["refuse", "replace", "keep"] = "refuse",
    ) -> None:
        """Make an empty table; `existing` says what becomes of one that is there."""

    @abstractmethod
    def alter_table(self, target: Target, step: ColumnStep) -> None:
        """Change one column, unless it is so already: `describe` tells. May be repeated."""

    @abstractmethod
    def insert(self, target: Target, columns: Sequence[ReplicaColumn], rows: pa.RecordBatchReader) -> None:
        """Add rows to a table, each batch in the `arrow_type`s of the columns, by name.

        Other columns of the table stay null. Used inside a transaction by warehouses with transactional
        DDL, and into staging tables by the others: there it may do it in as many loads as is fast.
        """

    def load(
        self, target: Target, columns: Sequence[ReplicaColumn], source: Source, arriving: Arriving
    ) -> None:
        """Add all rows of a table at a snapshot. A warehouse that can open the files itself does."""
        for reader in source.streams():
            with arriving.failures():
                self.insert(target, columns, arriving.counted(encoded(reader, columns)))

    @abstractmethod
    def state_tables(self) -> list[Target]:
        """Return every table of records (`_dwh_replicas`) that the connection can see."""

    @abstractmethod
    def staging(self, target: Target, label: str) -> Target:
        """Return where rows on their way to the target are put; `label` tells one attempt from another."""

    @abstractmethod
    def supplant(self, target: Target, staging: Target) -> None:
        """Make the target what the staging table is, in one step that readers do not notice.

        Only called where DDL is not transactional. May be repeated. The staging table may be used up.
        """

    def require_files(self) -> None:
        """See to it that this connection can read the lake's own files. Raises `UnsupportedError`."""
        raise UnsupportedError(
            f"{self.dialect.capabilities.warehouse} is not set up to read the lake's own files.",
            remedy="Use mode: copy, or see the warehouse's page in docs/ for what external needs.",
        )

    def show_files(self, target: Target, metadata_location: str, snapshot_id: int | None) -> None:
        """Make the target show an Iceberg table's files; `snapshot_id` is None for the newest snapshot.

        In one step that readers do not notice; may be repeated. Raises `UnsupportedError` for a snapshot
        where the warehouse shows the newest only.
        """
        self.require_files()

    @abstractmethod
    def drop_table(self, target: Target) -> None:
        """Drop a table or view, unless there is none."""

    def sweep(self, target: Target) -> None:
        """Remove what syncs of this target that died left behind (stages, staging tables), if it is old."""
        return


def encoded(rows: pa.RecordBatchReader, columns: Sequence[ReplicaColumn]) -> pa.RecordBatchReader:
    """Return rows of the lake, in its column order, in the form in which they travel to the warehouse."""
    shown = pa.schema([pa.field(column.name, column.holding.arrow_type) for column in columns])

    def batches() -> Any:
        for batch in rows:
            arrays = [
                (column.holding.encode(array) if column.holding.encode else array).cast(
                    column.holding.arrow_type
                )
                for array, column in zip(batch.columns, columns, strict=True)
            ]
            yield pa.RecordBatch.from_arrays(arrays, schema=shown)

    return pa.RecordBatchReader.from_batches(shown, batches())
