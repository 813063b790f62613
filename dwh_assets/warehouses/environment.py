"""The warehouses that the environment names, and the variables by which it does.

A warehouse that costs money is never guessed from credentials that lie around: each has a variable of ours
that says where replicas go, and without it there is no such warehouse.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol, TypedDict

from dwh_assets.config import duckdb_path
from dwh_assets.warehouses.base import Mode
from dwh_assets.warehouses.options import ReplicaOptions
from dwh_assets.warehouses.replica import Replica

MOTHERDUCK_DATABASE = "DWH_MOTHERDUCK_DATABASE"
SNOWFLAKE_DATABASE = "DWH_SNOWFLAKE_DATABASE"
BIGQUERY_PROJECT = "DWH_BIGQUERY_PROJECT"
BIGQUERY_LOCATION = "DWH_BIGQUERY_LOCATION"

_SECRETS = ("MOTHERDUCK_TOKEN", "motherduck_token", "SNOWFLAKE_PASSWORD", "SNOWFLAKE_PRIVATE_KEY_PASSPHRASE")

# What Dagster's resource of Snowflake is given, and the variable that other tools read it from.
SNOWFLAKE_ARGUMENTS: Mapping[str, str] = {
    "account": "SNOWFLAKE_ACCOUNT",
    "user": "SNOWFLAKE_USER",
    "password": "SNOWFLAKE_PASSWORD",
    "private_key_path": "SNOWFLAKE_PRIVATE_KEY_PATH",
    "private_key_password": "SNOWFLAKE_PRIVATE_KEY_PASSPHRASE",
    "authenticator": "SNOWFLAKE_AUTHENTICATOR",
    "role": "SNOWFLAKE_ROLE",
    "warehouse": "SNOWFLAKE_WAREHOUSE",
    "database": SNOWFLAKE_DATABASE,
    "schema": "SNOWFLAKE_SCHEMA",
}
# Where Snowflake answers, if it is not the account that says so.
SNOWFLAKE_ENDPOINT: Mapping[str, str] = {
    "host": "SNOWFLAKE_HOST",
    "port": "SNOWFLAKE_PORT",
    "protocol": "SNOWFLAKE_PROTOCOL",
}


# Under which names the connector itself takes them, where these differ.
_CONNECTOR_NAMES = {"private_key_path": "private_key_file", "private_key_password": "private_key_file_pwd"}


class Warehouse(Protocol):
    """What holds replicas."""

    def replica(
        self,
        table: str,
        into: str | None = None,
        mode: Mode = "copy",
        options: ReplicaOptions | None = None,
    ) -> Replica:
        """Return the replica of the lake's `table` in `into`; nothing is connected to yet."""
        ...

    def replicas(self) -> list[Replica]:
        """Return every replica that was loaded."""
        ...


def named_warehouses(wait_seconds: float) -> dict[str, Warehouse]:
    """Return the warehouses that the environment names, by kind; nothing is connected to yet.

    The DuckDB file is among them once it is there; it is waited for `wait_seconds` at most, should somebody
    else hold it. Only the clients of what is named are imported.
    """
    found: dict[str, Warehouse] = {}
    if Path(duckdb_path()).exists():
        from dwh_assets.warehouses.duckdb.warehouse import DuckDBWarehouse

        found["duckdb"] = DuckDBWarehouse(duckdb_path(), wait_seconds=wait_seconds)
    if os.environ.get(MOTHERDUCK_DATABASE):
        from dwh_assets.warehouses.motherduck import MotherDuckWarehouse

        found["motherduck"] = MotherDuckWarehouse(os.environ[MOTHERDUCK_DATABASE])
    if os.environ.get(SNOWFLAKE_DATABASE):
        found["snowflake"] = _snowflake()
    if os.environ.get(BIGQUERY_PROJECT):
        found["bigquery"] = _bigquery()
    return found


def _snowflake() -> Warehouse:
    from snowflake import connector

    from dwh_assets.warehouses.snowflake.warehouse import SnowflakeWarehouse

    variables = given({**SNOWFLAKE_ARGUMENTS, **SNOWFLAKE_ENDPOINT})
    arguments = {_CONNECTOR_NAMES.get(name, name): os.environ[found] for name, found in variables.items()}
    return SnowflakeWarehouse(lambda: connector.connect(**arguments))


def _bigquery() -> Warehouse:
    from google.cloud import bigquery

    from dwh_assets.warehouses.bigquery.warehouse import BigQueryWarehouse

    project, location = os.environ[BIGQUERY_PROJECT], os.environ.get(BIGQUERY_LOCATION) or None
    return BigQueryWarehouse(
        lambda: bigquery.Client(project=project, location=location), **bigquery_storage_clients()
    )


class StorageClients(TypedDict, total=False):
    """What makes the clients of BigQuery's storage interfaces."""

    read_client: Callable[[], AbstractContextManager[Any]]
    write_client: Callable[[], AbstractContextManager[Any]]


def bigquery_storage_clients() -> StorageClients:
    """Return the clients of BigQuery's storage interfaces, where they are installed (`dwh_assets[bigquery]`).

    An emulator that BIGQUERY_EMULATOR_HOST names answers to the other interface alone.
    """
    if os.environ.get("BIGQUERY_EMULATOR_HOST"):
        return {}
    try:
        from google.cloud import bigquery_storage_v1
    except ImportError:
        return {}
    return {
        "read_client": bigquery_storage_v1.BigQueryReadClient,
        "write_client": bigquery_storage_v1.BigQueryWriteClient,
    }


def given(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the arguments whose variables are set, and the variables."""
    return {argument: name for argument, name in variables.items() if os.environ.get(name)}


def secrets() -> dict[str, str]:
    """Return the variables whose values are not to be shown."""
    return {name: os.environ[name] for name in _SECRETS if os.environ.get(name)}
