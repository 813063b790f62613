"""The IO manager of replicas in BigQuery. Importing it imports Google's client, which takes time."""

import dagster as dg
from dagster_gcp import BigQueryResource

from dwh_assets.orchestration.replica_io import ReplicaIOManager
from dwh_assets.warehouses.bigquery.warehouse import BigQueryWarehouse
from dwh_assets.warehouses.environment import (
    BIGQUERY_LOCATION,
    BIGQUERY_PROJECT,
    bigquery_storage_clients,
    given,
)


class BigQueryReplicaIOManager(ReplicaIOManager):
    """Replicas in the datasets of a project in BigQuery."""

    bigquery: dg.ResourceDependency[BigQueryResource]

    def warehouse(self) -> BigQueryWarehouse:
        """Return the project, connected to as Dagster's resource does."""
        return BigQueryWarehouse(self.bigquery.get_client, **bigquery_storage_clients())


def bigquery_resource() -> BigQueryResource:
    """Return Dagster's resource for the project that the environment names.

    Who may use it Google's client finds out: from GOOGLE_APPLICATION_CREDENTIALS, or where it runs.
    """
    variables = given({"project": BIGQUERY_PROJECT, "location": BIGQUERY_LOCATION})
    return BigQueryResource(**{name: dg.EnvVar(variable) for name, variable in variables.items()})
