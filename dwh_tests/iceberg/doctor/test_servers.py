"""Servers that misbehave as real ones do: they lose tags, refuse, tell the wrong time or repeat secrets."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator
from email.message import Message
from email.utils import formatdate
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.catalog import load_catalog as load_pyiceberg_catalog

from dwh_assets.config import IcebergWriterConfig
from dwh_assets.iceberg.doctor.check import Check
from dwh_assets.iceberg.doctor.probes import PREFIX
from dwh_assets.iceberg.write import IcebergWriter
from dwh_tests.iceberg.doctor.test_credentials import YESTERDAY, web_token
from dwh_tests.iceberg.doctor.test_examination import found, says
from dwh_tests.servers.iceberg_rest import IcebergRestServer
from dwh_tests.servers.moto import MotoServer
from dwh_tests.servers.postgres import PostgresServer
from dwh_tests.servers.proxy import Answer, Request, proxy

pytestmark = pytest.mark.server

HOUR = 3600


@pytest.fixture
def table(iceberg_rest_server: IcebergRestServer) -> Iterator[str]:
    """A table in the REST catalog; after the test, whatever else is in its namespace is a failure."""
    name = f"shop_{uuid.uuid4().hex[:10]}.orders"
    writer(iceberg_rest_server.uri, name).write(pa.table({"id": [1, 2]}))
    before = direct(iceberg_rest_server).load_table(name)
    yield name
    after = direct(iceberg_rest_server).load_table(name)
    assert (after.metadata_location, after.metadata) == (before.metadata_location, before.metadata)
    assert direct(iceberg_rest_server).list_tables(name.partition(".")[0]) == [tuple(name.split("."))]


def writer(uri: str, table: str, kind: str = "rest", **properties: str) -> IcebergWriter:
    config = {"catalog": kind, "catalog_config": {"uri": uri, **properties}, "table": table}
    return IcebergWriter(IcebergWriterConfig.model_validate(config))


def direct(server: IcebergRestServer) -> Catalog:
    """The catalog itself, with nothing in between."""
    return load_pyiceberg_catalog("direct", **server.catalog_properties)


def doctored(uri: str, table: str, **properties: str) -> dict[str, Check]:
    return found(writer(uri, table, **properties).doctor())


def refuse(method: str, *words: str) -> Callable[[Request], Answer | None]:
    """Answer 403 to requests of a method whose path has all the words."""

    def answer(request: Request) -> Answer | None:
        if request.method != method or any(word not in request.path for word in words):
            return None
        error = {"message": f"no {method} for you", "type": "ForbiddenException", "code": 403}
        return 403, json.dumps({"error": error}).encode()

    return answer


# --- Tags ---


def without_tags(request: Request) -> None:
    """Take the making of tags out of a commit, which is answered as if nothing were amiss."""
    if request.method == "POST" and "/tables/" in request.path:
        asked: dict[str, Any] = json.loads(request.body)
        asked["updates"] = [update for update in asked["updates"] if update.get("type") != "tag"]
        request.body = json.dumps(asked).encode()


def test_a_catalog_that_loses_tags_is_found(iceberg_rest_server: IcebergRestServer, table: str) -> None:
    with proxy(iceberg_rest_server.port, request=without_tags) as uri:
        checks = doctored(uri, table)
    says(checks["refs_kept"], "failed", "lost", "snapshot id")
    assert {name for name, check in checks.items() if check.status != "ok"} == {"refs_kept"}


# --- Permissions ---


def test_a_catalog_that_refuses_new_tables_is_found(
    iceberg_rest_server: IcebergRestServer, table: str
) -> None:
    with proxy(iceberg_rest_server.port, request=refuse_creation) as uri:
        checks = doctored(uri, table)
    says(checks["permissions"], "failed", "no POST for you", "create")
    assert checks["refs_kept"].status == "skipped"
    assert checks["table_exists"].status == "ok"


def refuse_creation(request: Request) -> Answer | None:
    return refuse("POST")(request) if request.path.endswith("/tables") else None


@pytest.mark.parametrize("which", [f"/tables/{PREFIX}", "/tables/orders"])
def test_a_catalog_that_refuses_commits_is_found(
    iceberg_rest_server: IcebergRestServer, table: str, which: str
) -> None:
    with proxy(iceberg_rest_server.port, request=refuse("POST", which)) as uri:
        checks = doctored(uri, table)
    says(checks["permissions"], "failed", "no POST for you", "change")


def test_a_probe_table_that_cannot_be_dropped_is_named(
    iceberg_rest_server: IcebergRestServer, table: str
) -> None:
    with proxy(iceberg_rest_server.port, request=refuse("DELETE", "/tables/")) as uri:
        checks = doctored(uri, table)
    namespace = table.partition(".")[0]
    (left,) = [name for name in direct(iceberg_rest_server).list_tables(namespace) if name[1] != "orders"]
    says(checks["permissions"], "failed", ".".join(left), "no DELETE for you", "Drop it by hand")
    direct(iceberg_rest_server).purge_table(left)


def test_a_catalog_that_does_not_purge_is_no_matter(
    iceberg_rest_server: IcebergRestServer, table: str
) -> None:
    with proxy(iceberg_rest_server.port, request=refuse("DELETE", "purgeRequested=True")) as uri:
        checks = doctored(uri, table)
    assert {check.status for check in checks.values()} == {"ok"}
    namespace = iceberg_rest_server.folder / "warehouse" / table.partition(".")[0]
    folders = list(namespace.glob(f"{PREFIX}*"))
    assert len(folders) == 1
    # The server is a Java program, which keeps checksums beside local files.
    assert {path.suffix for folder in folders for path in folder.rglob("*.*")} <= {".crc"}


# --- Clocks ---


@pytest.mark.parametrize(("seconds", "told"), [(HOUR, "ahead"), (-HOUR, "behind")])
def test_a_catalog_with_another_time_is_found(
    iceberg_rest_server: IcebergRestServer, table: str, seconds: int, told: str
) -> None:
    def shift(headers: Message) -> None:
        headers.replace_header("Date", formatdate(time.time() + seconds, usegmt=True))

    with proxy(iceberg_rest_server.port, headers=shift) as uri:
        checks = doctored(uri, table)
    says(checks["clock"], "warning", "the catalog's", told, "NTP")
    assert {check.status for name, check in checks.items() if name != "clock"} == {"ok"}


def test_a_catalog_that_tells_no_time_leaves_the_store_to_be_asked(
    iceberg_rest_server: IcebergRestServer, table: str
) -> None:
    def silence(headers: Message) -> None:
        del headers["Date"]

    with proxy(iceberg_rest_server.port, headers=silence) as uri:
        check = doctored(uri, table)["clock"]
    says(check, "ok", "the store's")
    assert "the catalog's" not in check.detail


def test_a_store_with_another_time_is_found(moto_server: MotoServer, tmp_path: Any) -> None:
    def shift(headers: Message) -> None:
        if "Last-Modified" in headers:
            headers.replace_header("Last-Modified", formatdate(time.time() - HOUR, usegmt=True))

    with proxy(moto_server.port, headers=shift) as endpoint:
        storage = {**moto_server.storage_properties, "s3.endpoint": endpoint}
        warehouse = f"{moto_server.root}/{uuid.uuid4().hex}"
        checks = found(
            writer(f"sqlite:///{tmp_path}/c.db", "a.b", "sql", warehouse=warehouse, **storage).doctor()
        )
    says(checks["permissions"], "ok")
    says(checks["clock"], "warning", "the store's", "behind")


def test_the_time_of_a_database_server_is_asked(postgres_server: PostgresServer) -> None:
    warehouse = postgres_server.catalog_properties["warehouse"]
    checks = found(writer(postgres_server.uri, "a.b", "sql", warehouse=warehouse).doctor())
    says(checks["clock"], "ok", "the store's and the catalog's")


# --- Credentials ---


def test_an_expired_token_is_found_where_the_catalog_refuses_it(
    iceberg_rest_server: IcebergRestServer, table: str
) -> None:
    token = web_token(YESTERDAY)

    def unauthorized(request: Request) -> Answer:
        said = f"{request.headers['Authorization']} has expired"
        error = {"message": said, "type": "NotAuthorizedException", "code": 401}
        return 401, json.dumps({"error": error}).encode()

    with proxy(iceberg_rest_server.port, request=unauthorized) as uri:
        checks = doctored(uri, table, token=token)
    says(checks["catalog_connection"], "failed", "has expired")
    says(checks["credentials_expiry"], "failed", "token expired", "Get a new token")
    assert token not in str(checks)


def test_a_secret_that_a_catalog_repeats_is_hidden(
    iceberg_rest_server: IcebergRestServer, table: str
) -> None:
    def repeat(request: Request) -> Answer | None:
        if not request.path.endswith("/tables"):
            return None
        said = f"{request.headers['Authorization']} may not"
        return 403, json.dumps({"error": {"message": said, "type": "X", "code": 403}}).encode()

    with proxy(iceberg_rest_server.port, request=repeat) as uri:
        checks = doctored(uri, table, token="a-very-secret-token")
    says(checks["permissions"], "failed", "may not")
    assert "a-very-secret-token" not in str(checks)
