"""The environment of commands that start without `dagster dev`, which reads `.env` by itself."""

from __future__ import annotations

import os
from pathlib import Path

import dagster as dg
import dotenv

from dwh_assets.errors import ConfigurationError


def load_dotenv() -> None:
    """Read `.env` of the current folder; variables that are already set win."""
    dotenv.load_dotenv(Path(".env").absolute())


def local_instance() -> dg.DagsterInstance:
    """Return the instance at DAGSTER_HOME.

    Raises `ConfigurationError` when it is not set: an instance for one process would forget the runs.
    """
    if not os.environ.get("DAGSTER_HOME"):
        raise ConfigurationError(
            "DAGSTER_HOME is not set.", remedy="Use make, or set it to the absolute path of dagster_home."
        )
    return dg.DagsterInstance.get()
