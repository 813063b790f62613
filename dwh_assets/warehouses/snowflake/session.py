"""One connection to Snowflake, as `Session` asks for it."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from itertools import chain, count
from typing import Any

import pyarrow as pa
from snowflake.connector import SnowflakeConnection

from dwh_assets.errors import (
    CommitUnknownError,
    ConflictError,
    DwhError,
    NotFoundError,
    TerminalError,
    UnavailableError,
    UnsupportedError,
)
from dwh_assets.warehouses.base import Target
from dwh_assets.warehouses.dialect import ReplicaColumn
from dwh_assets.warehouses.evolution import ColumnStep
from dwh_assets.warehouses.session import Layout, Purpose, Session
from dwh_assets.warehouses.snowflake.dialect import SnowflakeDialect
from dwh_assets.warehouses.snowflake.external import (
    ExternalFiles,
    create_external_sql,
    refresh_external_sql,
)
from dwh_assets.warehouses.snowflake.failures import is_about_a_view, is_syntax_error
from dwh_assets.warehouses.snowflake.few_rows import insert_rows
from dwh_assets.warehouses.snowflake.staged_files import StagedLoad
from dwh_assets.warehouses.snowflake.statements import Statements
from dwh_assets.warehouses.snowflake.tables_sql import (
    Existing,
    alter_sql,
    copy_table_sql,
    create_sql,
    supplant_sql,
)

_LOG = logging.getLogger(__name__)

# More bytes than these are many rows, however few they are.
_FEW_ROWS_BYTES = 4 << 20
_STAGING = "_DWH_STAGING_"
_MOMENT = "%Y%m%d%H%M%S"
_LEFT_BEHIND = timedelta(hours=24)


class SnowflakeSession(Session):
    """A connection to Snowflake. Tables cannot be made or changed inside a transaction: that would end it.

    Fewer rows than `insert_below` are inserted by plain statements, which need no stage.
    """

    def __init__(
        self,
        connection: SnowflakeConnection,
        dialect: SnowflakeDialect,
        purpose: Purpose,
        insert_below: int,
        files: ExternalFiles | None = None,
    ) -> None:
        self.dialect = dialect
        self._sent = Statements(connection, purpose)
        self._insert_below = insert_below
        self._files = files
        self._in_transaction = False
        self._failed = False
        self._token = f"{datetime.now(UTC):{_MOMENT}}_{secrets.token_hex(4).upper()}"
        self._stages: dict[Target, Target] = {}
        self._loads = count()

    @property
    def statements(self) -> int:  # type: ignore[override]
        """How many statements were sent."""
        return self._sent.sent

    # --- Statements ---

    def execute(self, sql: str, *parameters: Any) -> int:
        """Run one statement with bound parameters; return how many rows it changed, else 0."""
        with self._noticing_failure():
            return self._sent.change(sql, *parameters)

    def fetch(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Run a query that returns few rows."""
        with self._noticing_failure():
            return self._sent.fetch(sql, *parameters)

    def stream(self, sql: str, *parameters: Any) -> pa.RecordBatchReader:
        """Run a query and stream its rows in Arrow form, in the chunks that the server makes."""
        with self._noticing_failure():
            return self._sent.stream(sql, *parameters)

    # --- Transactions ---

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit what the block did, or undo it when the block raises.

        A block that hides the failure of one of its statements is undone as well, with a `TerminalError`.
        Raises `CommitUnknownError` when the server fell silent over the commit, and `ConflictError` when it
        did so before: all of the transaction can be done again.
        """
        self._sent.change("BEGIN")
        self._in_transaction, self._failed = True, False
        try:
            yield
            self._commit()
        except BaseException as error:
            # What went wrong first is what matters; a connection that is gone has lost its changes.
            with suppress(DwhError):
                self._sent.change("ROLLBACK")
            if isinstance(error, UnavailableError):
                # Where the service would wait for a lock, emulators answer with an internal error.
                raise ConflictError(
                    f"The transaction was undone. {error.message}", remedy="Repeat the call."
                ) from error
            raise
        finally:
            self._in_transaction = False

    def _commit(self) -> None:
        if self._failed:
            raise TerminalError(
                "A statement of the transaction failed, so nothing of it was committed.",
                remedy="See the failure that was reported before.",
            )
        try:
            self._sent.change("COMMIT")
        except UnavailableError as error:
            raise CommitUnknownError(
                f"Nobody knows whether the transaction was committed. {error.message}",
                remedy="Repeat the call: it looks at the record of the replica first.",
            ) from error

    @contextmanager
    def _noticing_failure(self) -> Iterator[None]:
        try:
            yield
        except DwhError:
            self._failed = True
            raise

    def _define(self, sql: str) -> None:
        """Run a statement that ends a transaction, and must not."""
        if self._in_transaction:
            raise TerminalError(
                f"In a transaction, Snowflake would commit what was done so far at: {sql[:100]}",
                remedy="Make and change tables before the transaction.",
            )
        self._sent.change(sql)

    # --- Tables ---

    def describe(self, target: Target) -> list[str] | None:
        """Return the names of the columns of a table or view, in order; None when there is none."""
        try:
            return [row[0] for row in self._sent.fetch(f"DESCRIBE TABLE {self.dialect.qualify(target)}")]
        except NotFoundError:
            return None

    def ensure_schema(self, target: Target) -> None:
        """Make the schema that the target is in, unless it is there."""
        place_sql = self._information_sql(target, "SCHEMATA")
        # Asked first: who may not make schemas may not do so IF NOT EXISTS either.
        if not self.fetch(f"SELECT 1 FROM {place_sql} WHERE SCHEMA_NAME = ?", target.schema):
            schema = target._replace(name="")
            self._define(f"CREATE SCHEMA IF NOT EXISTS {self.dialect.qualify(schema)}")

    def create_table(
        self,
        target: Target,
        columns: Sequence[ReplicaColumn],
        layout: Layout,
        *,
        existing: Existing = "refuse",
    ) -> None:
        """Make an empty table, clustered as the layout says, with descriptions of its columns."""
        self._define(create_sql(self.dialect, target, columns, layout, existing))

    def alter_table(self, target: Target, step: ColumnStep) -> None:
        """Change one column."""
        if step.kind == "rename" and step.name not in (self.describe(target) or ()):
            return
        self._define(alter_sql(self.dialect, target, step))

    def require_files(self) -> None:
        """See to it that Snowflake was told where the lake's files are."""
        if self._files is None:
            super().require_files()

    def show_files(self, target: Target, metadata_location: str, snapshot_id: int | None) -> None:
        """Make an Iceberg table over the files, or refresh the one that is there."""
        if self._files is None or snapshot_id is not None:
            raise UnsupportedError(
                f"{target}: Snowflake shows the newest snapshot of a metadata file, and no other.",
                remedy="Use mode: copy for a replica of an older version.",
            )
        shown_sql = refresh_external_sql if self.describe(target) is not None else create_external_sql
        self.execute(shown_sql(self.dialect, target, self._files, metadata_location))

    def drop_table(self, target: Target) -> None:
        """Drop a table or view, unless there is none."""
        try:
            self._define(f"DROP TABLE IF EXISTS {self.dialect.qualify(target)}")
        except DwhError as error:
            if not is_about_a_view(error.__cause__):
                raise
            self._define(f"DROP VIEW IF EXISTS {self.dialect.qualify(target)}")

    def supplant(self, target: Target, staging: Target) -> None:
        """Make the target what the staging table is, in one step that readers do not notice."""
        try:
            self._define(supplant_sql(self.dialect, target, staging))
        except DwhError as error:
            if not is_syntax_error(error.__cause__):
                raise
            self._define(copy_table_sql(self.dialect, target, staging))

    def state_tables(self) -> list[Target]:
        """Return every table of records in the connection's database."""
        here = Target("", "", "")
        name = self.dialect.state_table(here).name
        place_sql = self._information_sql(here, "TABLES")
        rows = self.fetch(f"SELECT TABLE_SCHEMA FROM {place_sql} WHERE TABLE_NAME = ? ORDER BY 1", name)
        return [Target("", schema, name) for (schema,) in rows]

    # --- Rows ---

    def insert(self, target: Target, columns: Sequence[ReplicaColumn], rows: pa.RecordBatchReader) -> None:
        """Add rows, by name: a few by statements, many by files on a stage."""
        first, rest = self._first(rows)
        if rest is None:
            with self._noticing_failure():
                insert_rows(self._sent.change, self.dialect, target, columns, first)
        else:
            load = StagedLoad(self._sent, self.dialect, self._stage(target), next(self._loads))
            load.run(target, columns, chain(first, rest))

    def _first(self, rows: pa.RecordBatchReader) -> tuple[list[pa.RecordBatch], pa.RecordBatchReader | None]:
        """Return batches as far as they are few rows, and where there are more, the rest."""
        first: list[pa.RecordBatch] = []
        number = size = 0
        for batch in rows:
            first.append(batch)
            number += batch.num_rows
            size += batch.nbytes
            if number >= self._insert_below or size > _FEW_ROWS_BYTES:
                return first, rows
        return first, None

    def _stage(self, target: Target) -> Target:
        """Return the stage for the target's schema; it is this session's own, and goes with it."""
        place = target.beside("")
        if place not in self._stages:
            stage = target.beside(f"_DWH_STAGE_{self._token}")
            self._define(f"CREATE TEMPORARY STAGE {self.dialect.qualify(stage)}")
            self._stages[place] = stage
        return self._stages[place]

    def staging(self, target: Target, label: str) -> Target:
        """Return a table beside the target; its name holds when it was made, by which session."""
        return target.beside(f"{_STAGING}{self._token}_{label.upper()}")

    def sweep(self, target: Target) -> None:
        """Drop the staging tables of a day ago in the target's schema. Stages end with their sessions.

        A table that cannot be dropped is but logged: the sync before it has done its work.
        """
        place_sql = self._information_sql(target, "TABLES")
        sql = f"SELECT TABLE_NAME FROM {place_sql} WHERE TABLE_SCHEMA = ? AND STARTSWITH(TABLE_NAME, ?)"
        try:
            for (name,) in self.fetch(sql, target.schema, _STAGING):
                if _is_left_behind(name):
                    self.drop_table(target.beside(name))
        except DwhError as error:
            _LOG.warning("staging tables beside %s are left behind: %s", target, error)

    def _information_sql(self, target: Target, view: str) -> str:
        """Return a view of the information schema, of the target's database."""
        return self.dialect.qualify(Target(target.database, "INFORMATION_SCHEMA", view))


def _is_left_behind(name: str) -> bool:
    try:
        made = datetime.strptime(name.removeprefix(_STAGING).partition("_")[0], _MOMENT).replace(tzinfo=UTC)
    except ValueError:
        return False
    return datetime.now(UTC) - made > _LEFT_BEHIND
