"""A database of its own for each test in the emulator, and the warehouse that connects to it."""

import secrets
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial

import pytest
from snowflake.connector import SnowflakeConnection

from dwh_assets.warehouses.session import Purpose
from dwh_assets.warehouses.snowflake.session import SnowflakeSession
from dwh_assets.warehouses.snowflake.warehouse import SnowflakeWarehouse
from dwh_tests.servers.fakesnow import FakeSnow

Connect = Callable[[], AbstractContextManager[SnowflakeConnection]]


@pytest.fixture
def database() -> str:
    return f"DB_{secrets.token_hex(4)}".upper()


@pytest.fixture
def connect(fakesnow: FakeSnow, database: str) -> Connect:
    """Connections to a database that no other test has; internal errors are repeated for two seconds."""
    return partial(fakesnow.connect, database, network_timeout=2)


@pytest.fixture
def warehouse(connect: Connect) -> SnowflakeWarehouse:
    return SnowflakeWarehouse(connect)


@pytest.fixture
def session(warehouse: SnowflakeWarehouse) -> Iterator[SnowflakeSession]:
    with new_session(warehouse) as session:
        yield session


def new_session(warehouse: SnowflakeWarehouse) -> AbstractContextManager[SnowflakeSession]:
    return warehouse.open(Purpose("sales.orders", "run-1"))
