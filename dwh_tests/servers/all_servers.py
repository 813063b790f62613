"""The list of servers, and whether a machine may do without one."""

import os

from dwh_tests.servers.azurite import AzuriteServer
from dwh_tests.servers.fakesnow import FakeSnow
from dwh_tests.servers.gcs import FakeGcsServer
from dwh_tests.servers.hive import HiveMetastore
from dwh_tests.servers.iceberg_rest import IcebergRestServer
from dwh_tests.servers.local_bigquery import LocalBigQuery
from dwh_tests.servers.moto import MotoServer
from dwh_tests.servers.postgres import PostgresServer
from dwh_tests.servers.process import Server

SERVERS: tuple[type[Server], ...] = (
    PostgresServer,
    MotoServer,
    IcebergRestServer,
    HiveMetastore,
    AzuriteServer,
    FakeGcsServer,
    FakeSnow,
    LocalBigQuery,
)


def servers_required() -> bool:
    """Whether a server that cannot run is a failure (`DWH_REQUIRE_SERVERS=1`), or but a reason to skip."""
    return os.environ.get("DWH_REQUIRE_SERVERS", "") not in ("", "0")
