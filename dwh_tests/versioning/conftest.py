"""A lake of its own for each test."""

from pathlib import Path

import pytest

from dwh_tests.versioning.lake import Lake


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """An empty lake; a lake of Dagster runs is another fixture."""
    return Lake(tmp_path)
