"""A Snowflake account that holds replicas."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

from snowflake.connector import SnowflakeConnection

from dwh_assets.warehouses.base import Mode
from dwh_assets.warehouses.dialect import in_lake
from dwh_assets.warehouses.options import ReplicaOptions
from dwh_assets.warehouses.replica import Replica
from dwh_assets.warehouses.session import Purpose
from dwh_assets.warehouses.snowflake.dialect import SnowflakeDialect
from dwh_assets.warehouses.snowflake.external import ExternalFiles
from dwh_assets.warehouses.snowflake.failures import explained
from dwh_assets.warehouses.snowflake.session import SnowflakeSession
from dwh_assets.warehouses.state import Records

ConnectionFactory = Callable[[], AbstractContextManager[SnowflakeConnection]]


class SnowflakeWarehouse:
    """A Snowflake account that holds replicas.

    `connect` is a function without arguments that returns a context manager with a connection of Snowflake's
    own connector, such as `SnowflakeResource(…).get_connection` of Dagster. Fewer rows than `insert_below`
    are inserted by plain statements, more are put onto a temporary stage as files and copied from there.
    Another sync of the same replica is waited for, `wait_seconds` at most. `files` says where Snowflake finds
    the lake's own files, for replicas with mode external.
    """

    dialect = SnowflakeDialect()

    def __init__(
        self,
        connect: ConnectionFactory,
        *,
        insert_below: int = 100_000,
        wait_seconds: float = 60.0,
        files: ExternalFiles | None = None,
    ) -> None:
        self.wait_seconds = wait_seconds
        self._connect = connect
        self._insert_below = insert_below
        self._files = files

    @contextmanager
    def connect(self) -> Iterator[SnowflakeConnection]:
        """Yield a connection that commits each statement by itself, and close it whatever happens.

        Raises `UnavailableError` when Snowflake is out of reach, `ConfigurationError` for a wrong login.
        """
        with ExitStack() as last, ExitStack() as stack:
            with explained("Snowflake"):
                connection = stack.enter_context(self._connect())
                # A factory is not trusted to close: Dagster's leaves the connection open after a failure.
                last.callback(connection.close)
                connection.autocommit(True)
            yield connection

    @contextmanager
    def open(self, purpose: Purpose, *, read_only: bool = False) -> Iterator[SnowflakeSession]:
        """Yield a session, and close its connection whatever happens."""
        with self.connect() as connection:
            yield SnowflakeSession(connection, self.dialect, purpose, self._insert_below, self._files)

    def replica(
        self,
        table: str,
        into: str | None = None,
        mode: Mode = "copy",
        options: ReplicaOptions | None = None,
    ) -> Replica:
        """Return the replica of the lake's `table` in `into`: schema.table, or database.schema.table.

        Parts are in capitals as Snowflake has them unless they stand in double quotes. Without `into` it has
        the name that the table has in the lake. Raises `ConfigurationError` for what is no such name.
        """
        target = self.dialect.target(into or in_lake(table))
        return Replica(self, table, target, mode, options or ReplicaOptions())

    def replicas(self) -> list[Replica]:
        """Return every replica that was loaded into the connection's database."""
        with self.open(Purpose("", None), read_only=True) as session:
            found = [held for place in session.state_tables() for held in Records(session, place).all()]
            return [
                Replica(self, state.table, target, state.mode) for target, state in found if state.synced_at
            ]
