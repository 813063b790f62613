"""A running emulator of BigQuery, a dataset for each test, and Google's own clients."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any
from uuid import uuid4

import pytest
from google.cloud import bigquery

from dwh_assets.warehouses.bigquery.session import BigQuerySession
from dwh_assets.warehouses.bigquery.warehouse import BigQueryWarehouse
from dwh_assets.warehouses.session import Purpose
from dwh_tests.servers.all_servers import servers_required
from dwh_tests.servers.local_bigquery import LocalBigQuery

PURPOSE = Purpose("sales.orders", "Run-1")


@pytest.fixture
def client(local_bigquery: LocalBigQuery) -> Iterator[bigquery.Client]:
    """The independent reader: nothing of this library is in it."""
    with local_bigquery.client() as client:
        yield client


@pytest.fixture
def dataset(client: bigquery.Client) -> Iterator[str]:
    """The name of an empty dataset."""
    name = f"d_{uuid4().hex[:10]}"
    client.create_dataset(name)
    yield name
    client.delete_dataset(name, delete_contents=True, not_found_ok=True)


@pytest.fixture
def warehouse(local_bigquery: LocalBigQuery) -> BigQueryWarehouse:
    """By REST alone."""
    return BigQueryWarehouse(local_bigquery.client)


@pytest.fixture
def streaming_warehouse(local_bigquery: LocalBigQuery) -> BigQueryWarehouse:
    """With the storage APIs over gRPC."""
    if not servers_required():
        pytest.importorskip("google.cloud.bigquery_storage", reason="dwh_assets[bigquery] is not installed")
    return BigQueryWarehouse(
        local_bigquery.client,
        read_client=local_bigquery.read_client,
        write_client=local_bigquery.write_client,
    )


@pytest.fixture
def session(warehouse: BigQueryWarehouse) -> Iterator[BigQuerySession]:
    with warehouse.open(PURPOSE) as session:
        yield session


def rows(client: bigquery.Client, sql: str) -> list[tuple[Any, ...]]:
    """What Google's client reads, in no order."""
    return sorted((tuple(row.values()) for row in client.query_and_wait(sql)), key=repr)


def opened(warehouse: BigQueryWarehouse) -> AbstractContextManager[BigQuerySession]:
    return warehouse.open(PURPOSE)
