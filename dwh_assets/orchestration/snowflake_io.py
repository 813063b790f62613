"""The IO manager of replicas in Snowflake. Importing it imports Snowflake's client, which takes seconds."""

import os
from typing import Any

import dagster as dg
from dagster_snowflake import SnowflakeResource

from dwh_assets.orchestration.replica_io import ReplicaIOManager
from dwh_assets.warehouses.environment import SNOWFLAKE_ARGUMENTS, SNOWFLAKE_ENDPOINT, given
from dwh_assets.warehouses.snowflake.warehouse import SnowflakeWarehouse


class SnowflakeReplicaIOManager(ReplicaIOManager):
    """Replicas in the database of a Snowflake account."""

    snowflake: dg.ResourceDependency[SnowflakeResource]

    def warehouse(self) -> SnowflakeWarehouse:
        """Return the account, connected to as Dagster's resource does."""
        return SnowflakeWarehouse(self.snowflake.get_connection)


def snowflake_resource() -> SnowflakeResource:
    """Return Dagster's resource for the account that the environment names; it shows no value of it."""
    arguments: dict[str, Any] = {
        name: dg.EnvVar(variable) for name, variable in given(SNOWFLAKE_ARGUMENTS).items()
    }
    endpoint = {name: os.environ[variable] for name, variable in given(SNOWFLAKE_ENDPOINT).items()}
    return SnowflakeResource(**arguments, additional_snowflake_connection_args=endpoint or None)
