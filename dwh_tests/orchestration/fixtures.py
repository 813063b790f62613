"""The lake of a test, and one Dagster instance for all tests of a process."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from dwh_tests.orchestration.lake import Lake


@pytest.fixture(scope="session")
def dagster_instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.DagsterInstance]:
    """A real instance: SQLite files in a folder of its own.

    One file for the events of all runs: making one for each run takes longer than most of the runs.
    """
    events = {
        "module": "dagster._core.storage.event_log",
        "class": "ConsolidatedSqliteEventLogStorage",
        "config": {"base_dir": str(tmp_path_factory.mktemp("events"))},
    }
    with dg.instance_for_test(overrides={"event_log_storage": events}) as instance:
        yield instance


@pytest.fixture
def lake(tmp_path: Path, dagster_instance: dg.DagsterInstance) -> Lake:
    """An empty lake."""
    return Lake(tmp_path, dagster_instance)
