"""What every test may ask for, and the order in which files are run."""

import pytest

pytest_plugins = [
    "dwh_tests.servers.fixtures",
    "dwh_tests.orchestration.fixtures",
    "dwh_tests.versioning.fixtures",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that have slow tests: a worker left with one at the end keeps all waiting."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
