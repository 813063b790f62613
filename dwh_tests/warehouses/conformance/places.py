"""Where the suite runs: each warehouse with a schema of its own for each test, and a client of its vendor's.

Beside the emulators these are the real services, when their credentials are in the environment.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import duckdb

from dwh_assets.warehouses.base import Mode
from dwh_assets.warehouses.duckdb.warehouse import DuckDBWarehouse
from dwh_assets.warehouses.options import ReplicaOptions
from dwh_assets.warehouses.replica import Replica, Sessions
from dwh_tests.servers.fakesnow import FakeSnow

if TYPE_CHECKING:
    from google.cloud import bigquery
    from snowflake.connector import SnowflakeConnection

TABLE = "shop.orders"
Rows = list[tuple[Any, ...]]


class Warehouse(Sessions, Protocol):
    """What all warehouses offer."""

    def replica(
        self,
        table: str,
        into: str | None = None,
        mode: Mode = "copy",
        options: ReplicaOptions | None = None,
    ) -> Replica:
        """Return a replica."""
        ...

    def replicas(self) -> list[Replica]:
        """Return every replica that was loaded."""
        ...


@dataclass(frozen=True)
class Place:
    """A warehouse, and a schema in it that no other test uses.

    `connect` makes a warehouse with connections of its own; `ask` runs one statement by the vendor's client,
    as a person would: nothing of this library is in it.
    """

    name: str
    schema: str
    connect: Callable[[], Warehouse]
    ask: Callable[[str], Rows]

    @property
    def into(self) -> str:
        """Where the suite's table goes, as a person writes it."""
        return f"{self.schema}.orders"

    def replica(
        self,
        mode: Mode = "copy",
        options: ReplicaOptions | None = None,
        *,
        table: str = TABLE,
        into: str = "",
    ) -> Replica:
        """A replica over connections of its own."""
        return self.connect().replica(table, into or self.into, mode, options)


@contextmanager
def duckdb_place(database: Path) -> Iterator[Place]:
    """A file."""

    def ask(sql: str) -> Rows:
        with duckdb.connect(database) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            return connection.execute(sql).fetchall()

    ask("CREATE SCHEMA conformance")
    yield Place("duckdb", "conformance", lambda: DuckDBWarehouse(database), ask)


@contextmanager
def fakesnow_place(server: FakeSnow) -> Iterator[Place]:
    """A database of its own; internal errors are repeated for two seconds."""
    database = f"DB_{secrets.token_hex(4)}".upper()
    with snowflake_place("snowflake", partial(server.connect, database, network_timeout=2)) as place:
        yield place


@contextmanager
def snowflake_place(
    name: str, connect: Callable[[], AbstractContextManager[SnowflakeConnection]]
) -> Iterator[Place]:
    """A schema in the database that the connection is at."""
    from dwh_assets.warehouses.snowflake.warehouse import SnowflakeWarehouse

    def ask(sql: str) -> Rows:
        with connect() as connection, connection.cursor() as cursor:
            return [tuple(row) for row in cursor.execute(sql).fetchall()]  # type: ignore[union-attr]

    schema = f"CONFORMANCE_{secrets.token_hex(4)}".upper()
    ask(f"CREATE SCHEMA {schema}")
    yield Place(name, schema, lambda: SnowflakeWarehouse(connect), ask)
    ask(f"DROP SCHEMA {schema} CASCADE")


@contextmanager
def bigquery_place(
    name: str, connect: Callable[[], AbstractContextManager[bigquery.Client]]
) -> Iterator[Place]:
    """A dataset."""
    from dwh_assets.warehouses.bigquery.warehouse import BigQueryWarehouse

    def ask(sql: str) -> Rows:
        with connect() as client:
            return [tuple(row.values()) for row in client.query_and_wait(sql)]

    dataset = f"conformance_{secrets.token_hex(5)}"
    with connect() as client:
        client.create_dataset(dataset)
        yield Place(name, dataset, lambda: BigQueryWarehouse(connect), ask)
        client.delete_dataset(dataset, delete_contents=True, not_found_ok=True)


@contextmanager
def motherduck_place() -> Iterator[Place]:
    """A schema in the database that DWH_MOTHERDUCK_DATABASE names."""
    from dwh_assets.warehouses.motherduck import MotherDuckWarehouse

    database = os.environ.get("DWH_MOTHERDUCK_DATABASE", "my_db")
    schema = f"conformance_{secrets.token_hex(4)}"

    def ask(sql: str) -> Rows:
        with duckdb.connect(f"md:{database}") as connection:
            return connection.execute(sql).fetchall()

    ask(f"CREATE SCHEMA {schema}")
    yield Place("live-motherduck", schema, lambda: MotherDuckWarehouse(database), ask)
    with suppress(duckdb.Error):
        ask(f"DROP SCHEMA {schema} CASCADE")


@contextmanager
def live_snowflake_place() -> Iterator[Place]:
    """The account that SNOWFLAKE_* name."""
    import snowflake.connector

    options = ("account", "user", "password", "database", "warehouse", "role", "private_key_file")
    given = {name: os.environ.get(f"SNOWFLAKE_{name.upper()}") for name in options}
    login: dict[str, Any] = {name: value for name, value in given.items() if value}
    with snowflake_place("live-snowflake", lambda: snowflake.connector.connect(**login)) as place:
        yield place


@contextmanager
def live_bigquery_place() -> Iterator[Place]:
    """The project that GOOGLE_CLOUD_PROJECT names, by the application's own credentials."""
    from google.cloud import bigquery

    project, location = os.environ["GOOGLE_CLOUD_PROJECT"], os.environ.get("BIGQUERY_LOCATION")
    with bigquery_place("live-bigquery", lambda: bigquery.Client(project, location=location)) as place:
        yield place


# The real services: what makes a place there, and the variables without which it cannot be tried.
LIVE: dict[str, tuple[Callable[[], AbstractContextManager[Place]], tuple[str, ...]]] = {
    "live-motherduck": (motherduck_place, ("motherduck_token",)),
    "live-snowflake": (live_snowflake_place, ("SNOWFLAKE_ACCOUNT", "SNOWFLAKE_USER", "SNOWFLAKE_DATABASE")),
    "live-bigquery": (
        live_bigquery_place,
        ("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_CLOUD_PROJECT"),
    ),
}
