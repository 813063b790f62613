"""Fixtures that run each server once per test process, from its first use to the end.

The top `conftest.py` registers them: `pytest_plugins = ["dwh_tests.servers.fixtures"]`. Tests of one server
share it, so each makes a namespace of its own. With pytest-xdist every worker that asks for a server starts
one.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import NoReturn, TypeVar

import pytest

from dwh_tests.servers.all_servers import servers_required
from dwh_tests.servers.azurite import AzuriteServer
from dwh_tests.servers.downloads import DownloadFailed
from dwh_tests.servers.fakesnow import FakeSnow
from dwh_tests.servers.gcs import FakeGcsServer
from dwh_tests.servers.hive import HiveMetastore
from dwh_tests.servers.iceberg_rest import IcebergRestServer
from dwh_tests.servers.local_bigquery import LocalBigQuery
from dwh_tests.servers.moto import MotoServer
from dwh_tests.servers.object_store import FILE_IOS, ObjectStore
from dwh_tests.servers.postgres import PostgresServer
from dwh_tests.servers.process import Server
from dwh_tests.servers.spark import Spark, SparkFailed

ServerT = TypeVar("ServerT", bound=Server)

# What `each_catalog` goes through, and the fixture that serves it
CATALOGS = {
    "postgres": "postgres_server",
    "rest": "iceberg_rest_server",
    "rest-s3": "iceberg_rest_server_on_s3",
    "glue": "moto_server",
    "hive": "hive_metastore",
}
STORES = {"s3": "moto_server", "gcs": "gcs_server", "adls": "azurite_server"}


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL server."""
    with usable(PostgresServer)() as server:
        yield server


@pytest.fixture(scope="session")
def moto_server() -> Iterator[MotoServer]:
    """S3 and Glue."""
    with usable(MotoServer)() as server:
        yield server


@pytest.fixture(scope="session")
def iceberg_rest_server() -> Iterator[IcebergRestServer]:
    """Iceberg's REST catalog with tables on local files."""
    with usable(IcebergRestServer)() as server:
        yield server


@pytest.fixture(scope="session")
def iceberg_rest_server_on_s3(moto_server: MotoServer) -> Iterator[IcebergRestServer]:
    """Iceberg's REST catalog with tables on S3."""
    with usable(IcebergRestServer)(moto_server) as server:
        yield server


@pytest.fixture(scope="session")
def hive_metastore() -> Iterator[HiveMetastore]:
    """A Hive metastore with tables on local files."""
    with usable(HiveMetastore)() as server:
        yield server


@pytest.fixture(scope="session")
def azurite_server() -> Iterator[AzuriteServer]:
    """Azure Blob Storage."""
    with usable(AzuriteServer)() as server:
        yield server


@pytest.fixture(scope="session")
def gcs_server() -> Iterator[FakeGcsServer]:
    """Google Cloud Storage."""
    with usable(FakeGcsServer)() as server:
        yield server


@pytest.fixture(scope="session")
def fakesnow() -> Iterator[FakeSnow]:
    """Snowflake."""
    with usable(FakeSnow)() as server:
        yield server


@pytest.fixture(scope="session")
def local_bigquery() -> Iterator[LocalBigQuery]:
    """BigQuery."""
    with usable(LocalBigQuery)() as server:
        yield server


@pytest.fixture(scope="session")
def spark() -> Iterator[Spark]:
    """Apache Spark; a test names its own catalog to it."""
    reason = Spark.why_not()
    if reason:
        _unavailable(f"Spark cannot run here: {reason}")
    with ExitStack() as running:
        try:
            session = running.enter_context(Spark())
        except SparkFailed as error:
            _unavailable(str(error))
        yield session


@pytest.fixture(scope="session", params=["sqlite", *CATALOGS])
def each_catalog(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The properties of one catalog after the other: SQLite and all servers of catalogs."""
    if request.param == "sqlite":
        folder = tmp_path_factory.mktemp("sqlite")
        uri = f"sqlite:///{folder / 'catalog.db'}?timeout=60"
        return {"type": "sql", "uri": uri, "warehouse": (folder / "warehouse").as_uri()}
    server: Server = request.getfixturevalue(CATALOGS[request.param])
    return server.catalog_properties


@pytest.fixture(scope="session", params=STORES)
def each_store(request: pytest.FixtureRequest) -> ObjectStore:
    """One object store after the other."""
    store: ObjectStore = request.getfixturevalue(STORES[request.param])
    return store


@pytest.fixture(scope="session", params=FILE_IOS)
def each_store_catalog(request: pytest.FixtureRequest, each_store: ObjectStore) -> dict[str, str]:
    """The properties of a SQLite catalog on each store, read and written by PyArrow, then by fsspec."""
    return each_store.sql_catalog_properties(request.param)


def usable(server: type[ServerT]) -> type[ServerT]:
    """The server, when it can run here; else see `_unavailable`."""
    reason = server.why_not()
    if reason is None and server.download is not None:
        try:
            server.download.fetch()
        except DownloadFailed as error:
            reason = str(error)
    if reason is not None:
        _unavailable(f"{server.name} cannot run here: {reason}")
    return server


def _unavailable(message: str) -> NoReturn:
    """Skip, or fail where servers are required."""
    if servers_required():
        pytest.fail(f"{message} (DWH_REQUIRE_SERVERS is set)", pytrace=False)
    pytest.skip(message)
