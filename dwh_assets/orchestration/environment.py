"""The Dagster instance of commands that start without `dagster dev`."""

from __future__ import annotations

import os

import dagster as dg

from dwh_assets.errors import ConfigurationError


def local_instance() -> dg.DagsterInstance:
    """Return the instance at DAGSTER_HOME.

    Raises `ConfigurationError` when it is not set: an instance for one process would forget the runs.
    """
    if not os.environ.get("DAGSTER_HOME"):
        raise ConfigurationError(
            "DAGSTER_HOME is not set.", remedy="Use make, or set it to the absolute path of dagster_home."
        )
    return dg.DagsterInstance.get()
