"""That Google's and Dagster's own clients reach the emulator, and that its environment can be made."""

import sys

import pytest
from dagster_gcp import BigQueryResource

from dwh_tests.servers.local_bigquery import LocalBigQuery
from dwh_tests.servers.python_environment import python

pytestmark = pytest.mark.server


def test_dagsters_resource_connects_unchanged(
    local_bigquery: LocalBigQuery, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in local_bigquery.client_environment.items():
        monkeypatch.setenv(name, value)
    resource = BigQueryResource(
        project=local_bigquery.project, gcp_credentials=local_bigquery.gcp_credentials
    )
    with resource.get_client() as client:
        assert [row[0] for row in client.query_and_wait("SELECT 40 + 2")] == [42]


def test_server_is_reached_without_credentials(local_bigquery: LocalBigQuery) -> None:
    with local_bigquery.client() as client:
        assert [row[0] for row in client.query_and_wait("SELECT 'x'")] == ["x"]


def test_python_of_a_version_is_found_or_missed_in_words() -> None:
    assert python(*sys.version_info[:2])() is None
    missing = python(4, 0)()
    assert missing is not None
    assert missing.startswith("there is no Python 4.0 or newer")
