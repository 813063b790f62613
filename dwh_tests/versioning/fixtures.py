"""A lake whose tables are computed from each other, for each test one of its own."""

from pathlib import Path

import pytest

from dwh_tests.versioning.graph import GraphLake


@pytest.fixture
def graph(tmp_path: Path) -> GraphLake:
    """An empty one."""
    return GraphLake(tmp_path)
