"""Open a DuckDB database that others may hold: wait with a message, then say who holds it; always close it.

One process at a time may write a DuckDB file, and while it does, no other may even read it. Inside one
process, connections to a file must agree on their settings.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from dwh_assets.errors import ConfigurationError, NotFoundError
from dwh_assets.iceberg.faults import first_line
from dwh_assets.warehouses.patience import Patience

ConnectionFactory = Callable[[], AbstractContextManager[duckdb.DuckDBPyConnection]]

_LOCKED = re.compile(
    r"Could not set lock on file|being used by another process|already open|already attached"
)
_FILE = re.compile(r'file "(?P<file>[^"]+)"')
_HOLDER = re.compile(r"(?P<program>[^\s/\\]+) \(PID (?P<pid>\d+)\)")


@dataclass(frozen=True)
class DuckDBConnections:
    """Opens connections to one database: a path with settings, or whatever a factory yields."""

    database: Path | ConnectionFactory
    config: Mapping[str, Any]
    wait_seconds: float

    @contextmanager
    def open(self, *, read_only: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
        """Yield a connection, and close it whatever happens.

        Raises `UnavailableError` that names the file and its holder if it is not free in `wait_seconds`,
        `NotFoundError` for reading a file that does not exist, `ConfigurationError` for one that cannot be
        opened at all.
        """
        with ExitStack() as stack:
            yield self._enter(stack, read_only)

    def _enter(self, stack: ExitStack, read_only: bool) -> duckdb.DuckDBPyConnection:
        patience = Patience(self.wait_seconds)
        while True:
            try:
                return self._attempt(stack, read_only)
            except (duckdb.IOException, duckdb.ConnectionException, duckdb.BinderException) as error:
                patience.wait(self._name(error), self._holder(error))

    def _attempt(self, stack: ExitStack, read_only: bool) -> duckdb.DuckDBPyConnection:
        if isinstance(self.database, Path):
            connection = self._connect(self.database, read_only)
        else:
            connection = stack.enter_context(self.database())
        # A factory is not trusted to close: Dagster's leaves the connection open after a failure.
        stack.callback(connection.close)
        return connection

    def _connect(self, path: Path, read_only: bool) -> duckdb.DuckDBPyConnection:
        if not read_only:
            path.parent.mkdir(parents=True, exist_ok=True)
        elif not path.exists():
            raise NotFoundError(f"There is no DuckDB file {path}.", remedy="Sync a replica into it first.")
        try:
            return duckdb.connect(path, read_only=read_only, config=dict(self.config))
        except duckdb.ConnectionException:
            if not read_only:
                raise
            # This process has it open for writing, which a second connection may share but not narrow.
            return duckdb.connect(path, config=dict(self.config))

    def _name(self, error: Exception) -> str:
        found = _FILE.search(str(error))
        if isinstance(self.database, Path):
            return f"the DuckDB file {self.database}"
        return f"the DuckDB file {found['file']}" if found else "the DuckDB database"

    def _holder(self, error: Exception) -> str:
        if isinstance(error, duckdb.ConnectionException) and "different configuration" in str(error):
            return f"this process (PID {os.getpid()}), read-only or with other settings"
        if not _LOCKED.search(str(error)):
            raise ConfigurationError(
                f"{self._name(error)} cannot be opened: {first_line(error)}.",
                remedy="Check its path, its permissions, and that it is a DuckDB database.",
            ) from error
        found = _HOLDER.search(str(error))
        return f"PID {found['pid']} ({found['program']})" if found else "another process"
