"""The IO manager of replicas in Snowflake. Importing it imports Snowflake's client, which takes seconds."""

import os
from typing import Any

import dagster as dg
from dagster_snowflake import SnowflakeResource

from dwh_assets.orchestration.replica_io import ReplicaIOManager
from dwh_assets.warehouses.environment import SNOWFLAKE_ARGUMENTS, SNOWFLAKE_ENDPOINT, given
from dwh_assets.warehouses.snowflake.external import ExternalFiles
from dwh_assets.warehouses.snowflake.warehouse import SnowflakeWarehouse


class SnowflakeReplicaIOManager(ReplicaIOManager):
    """Replicas in the database of a Snowflake account.

    For replicas with mode external: `external_volume` and `catalog_integration` are the names in Snowflake of
    what reads the lake's files, `base` is the volume's location, such as s3://bucket/lake/.
    """

    snowflake: dg.ResourceDependency[SnowflakeResource]
    external_volume: str | None = None
    catalog_integration: str | None = None
    base: str | None = None

    def warehouse(self) -> SnowflakeWarehouse:
        """Return the account, connected to as Dagster's resource does."""
        files = None
        if self.external_volume and self.catalog_integration and self.base:
            files = ExternalFiles(self.external_volume, self.catalog_integration, self.base)
        return SnowflakeWarehouse(self.snowflake.get_connection, files=files)


def snowflake_resource() -> SnowflakeResource:
    """Return Dagster's resource for the account that the environment names; it shows no value of it."""
    arguments: dict[str, Any] = {
        name: dg.EnvVar(variable) for name, variable in given(SNOWFLAKE_ARGUMENTS).items()
    }
    endpoint = {name: os.environ[variable] for name, variable in given(SNOWFLAKE_ENDPOINT).items()}
    return SnowflakeResource(**arguments, additional_snowflake_connection_args=endpoint or None)
