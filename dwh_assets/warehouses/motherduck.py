"""MotherDuck: DuckDB as a service. All but the connection is DuckDB's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import duckdb

from dwh_assets.errors import ConfigurationError, UnavailableError
from dwh_assets.iceberg.faults import first_line
from dwh_assets.warehouses.duckdb.dialect import DuckDBDialect
from dwh_assets.warehouses.duckdb.warehouse import DuckDBWarehouse

_TOKEN = "motherduck_token"  # noqa: S105 - the name of the variable, and of DuckDB's setting


class MotherDuckDialect(DuckDBDialect):
    """DuckDB's SQL, under another name."""

    capabilities = replace(DuckDBDialect.capabilities, warehouse="motherduck")


class MotherDuckWarehouse(DuckDBWarehouse):
    """A database in MotherDuck that holds replicas.

    The token comes from the environment, `motherduck_token` or `MOTHERDUCK_TOKEN`, and from nowhere else.
    """

    dialect = MotherDuckDialect()

    def __init__(self, database: str = "my_db", *, wait_seconds: float = 60.0) -> None:
        self._database = database.removeprefix("md:")
        super().__init__(self._connected, wait_seconds=wait_seconds)

    @contextmanager
    def _connected(self) -> Iterator[duckdb.DuckDBPyConnection]:
        token = os.environ.get(_TOKEN) or os.environ.get(_TOKEN.upper())
        if not token:
            raise ConfigurationError(
                f"There is no token for MotherDuck's database {self._database}.",
                remedy=f"Put it into the environment variable {_TOKEN}.",
            )
        try:
            connection = duckdb.connect(f"md:{self._database}", config={_TOKEN: token})
        except duckdb.Error as error:
            said = first_line(error).replace(token, "***")
            raise UnavailableError(
                f"MotherDuck's database {self._database} cannot be reached: {said}.",
                remedy="Check the token, the name of the database, and that DuckDB has its extension "
                "motherduck (INSTALL motherduck).",
            ) from None
        try:
            yield connection
        finally:
            connection.close()
