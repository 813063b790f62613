"""A DuckDB database, or MotherDuck, that holds replicas."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

import duckdb

from dwh_assets.errors import ConfigurationError
from dwh_assets.warehouses.base import Mode, Target
from dwh_assets.warehouses.dialect import in_lake
from dwh_assets.warehouses.duckdb.connection import ConnectionFactory, DuckDBConnections
from dwh_assets.warehouses.duckdb.dialect import DuckDBDialect
from dwh_assets.warehouses.duckdb.earlier_records import upgrade_records
from dwh_assets.warehouses.duckdb.faults import explained
from dwh_assets.warehouses.duckdb.session import DuckDBSession
from dwh_assets.warehouses.options import ReplicaOptions
from dwh_assets.warehouses.replica import Replica, as_recorded
from dwh_assets.warehouses.session import Purpose
from dwh_assets.warehouses.state import Records


class DuckDBWarehouse:
    """A DuckDB database that holds replicas.

    `database` is a file (made, with its folders, by the first sync), or a function without arguments that
    returns a context manager with a connection, which is closed after each use. `config` are DuckDB's
    settings for a file; all connections that a process holds to one file must agree on them. A file that
    somebody else holds is waited for, `wait_seconds` at most.
    """

    dialect: DuckDBDialect = DuckDBDialect()

    def __init__(
        self,
        database: str | PathLike[str] | ConnectionFactory,
        *,
        config: Mapping[str, Any] | None = None,
        wait_seconds: float = 60.0,
    ) -> None:
        opened = database if callable(database) else _file(database)
        self.wait_seconds = wait_seconds
        self._connections = DuckDBConnections(opened, config or {}, wait_seconds)

    def connect(self, *, read_only: bool = False) -> AbstractContextManager[duckdb.DuckDBPyConnection]:
        """Return a context manager with a connection, which it closes whatever happens.

        Raises `UnavailableError` that names the file and its holder when it is not free in time.
        """
        return self._connections.open(read_only=read_only)

    @contextmanager
    def open(self, purpose: Purpose, *, read_only: bool = False) -> Iterator[DuckDBSession]:
        """Yield a session, and close its connection whatever happens.

        What DuckDB refuses meanwhile is raised as a `DwhError` that names the purpose's table.
        """
        with self._connections.open(read_only=read_only) as connection, explained(purpose.table):
            if not read_only:
                upgrade_records(connection)
            yield DuckDBSession(connection, type(self.dialect))

    def replica(
        self,
        table: str,
        into: str | None = None,
        mode: Mode = "copy",
        options: ReplicaOptions | None = None,
    ) -> Replica:
        """Return the replica of the lake's `table` in `into`: schema.table, the last dot parts them.

        Without `into` it has the name that the table has in the lake; without a dot it is in `main`.
        Raises `ConfigurationError` for what is no name.
        """
        target = self.dialect.target(into or in_lake(table))
        return Replica(self, table, target, mode, options or ReplicaOptions())

    def replicas(self) -> list[Replica]:
        """Return every replica that was loaded into the database; raises what `connect` raises."""
        with self.open(Purpose("", None), read_only=True) as session:
            found = Records(session, Target("", "main", "")).all()
            return [as_recorded(self, target, state) for target, state in found if state.synced_at]


def _file(database: str | PathLike[str]) -> Path:
    if str(database).startswith(":memory:"):
        raise ConfigurationError(
            "A database in memory is gone when its connection closes, and a replica with it.",
            remedy="Give a file, or a function that yields a cursor of a connection that stays open.",
        )
    return Path(database)
