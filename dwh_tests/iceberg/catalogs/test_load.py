"""Catalogs open ready for many processes, and say plainly when they cannot."""

from __future__ import annotations

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pydantic import ValidationError
from pyiceberg.catalog.sql import SqlCatalog
from sqlalchemy.engine import make_url

from dwh_assets.config import CatalogConfig, IcebergWriterConfig, local_path
from dwh_assets.errors import ConfigurationError, DwhError, UnavailableError
from dwh_assets.iceberg.catalogs.load import ensure_namespace, load_catalog
from dwh_assets.iceberg.write import IcebergWriter
from dwh_tests.iceberg.conftest import Lake, duckdb_rows
from dwh_tests.servers.postgres import PostgresServer

OK: list[Any] = [
    lambda lake: CatalogConfig.model_validate({"kind": "sql", **lake.properties}),
    lambda lake: {"kind": "sql", **lake.properties},
    lambda lake: {"type": "sql", **lake.properties},
]


@pytest.mark.parametrize("given", OK, ids=["config", "kind", "type"])
def test_a_catalog_opens(lake: Lake, given: Any) -> None:
    assert load_catalog(given(lake)).list_namespaces() == []


def test_a_catalog_that_pyiceberg_knows_opens_by_name(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in {"type": "sql", **lake.properties}.items():
        monkeypatch.setenv(f"PYICEBERG_CATALOG__SHOP__{key.upper()}", value)
    from pyiceberg import catalog as pyiceberg_catalog
    from pyiceberg.utils.config import Config

    monkeypatch.setattr(pyiceberg_catalog, "_ENV_CONFIG", Config())
    assert load_catalog("shop").name == "shop"


def test_sqlite_is_made_ready_for_many_writers(lake: Lake) -> None:
    catalog = lake.catalog
    assert isinstance(catalog, SqlCatalog)
    with sqlite3.connect(lake.folder / "catalog.db") as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert catalog.engine.url.query["timeout"] == "60"


def test_a_new_database_can_be_opened_by_many_at_once(tmp_path: Path) -> None:
    writers = 6
    barrier = threading.Barrier(writers)

    def open_next(number: int) -> None:
        barrier.wait(timeout=60)
        properties = Lake(tmp_path / str(number)).properties
        ensure_namespace(load_catalog({"kind": "sql", **properties}), ("a", "b"))

    with ThreadPoolExecutor(writers) as pool:
        for number in range(6):
            assert list(pool.map(open_next, [number] * writers)) == [None] * writers


def test_a_database_that_is_busy_is_waited_for(lake: Lake) -> None:
    """SQLite itself does not wait when it switches to a write-ahead log."""
    busy = sqlite3.connect(lake.folder / "catalog.db", check_same_thread=False)
    busy.execute("CREATE TABLE other (v INTEGER)")
    busy.execute("BEGIN EXCLUSIVE")
    release = threading.Timer(0.3, busy.rollback)
    release.start()
    assert lake.catalog.list_namespaces() == []
    release.join()
    busy.close()


def test_what_the_uri_asks_for_besides_is_kept(lake: Lake) -> None:
    properties = {**lake.properties, "uri": f"{lake.properties['uri']}?check_same_thread=false"}
    catalog = load_catalog({"kind": "sql", **properties})
    assert isinstance(catalog, SqlCatalog)
    assert catalog.engine.url.query["check_same_thread"] == "false"


@pytest.mark.server
@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg2"])
def test_postgres_is_opened_with_the_driver_that_the_extra_installs(
    postgres_server: PostgresServer, scheme: str
) -> None:
    _, _, rest = postgres_server.uri.partition("://")
    properties = {**postgres_server.catalog_properties, "uri": f"{scheme}://{rest}"}
    catalog = load_catalog(properties)
    assert isinstance(catalog, SqlCatalog)
    assert catalog.engine.dialect.driver == "psycopg2"
    catalog.create_namespace(f"by_{scheme.replace('+', '_')}")
    assert (f"by_{scheme.replace('+', '_')}",) in catalog.list_namespaces()


def test_another_driver_that_is_asked_for_is_not_replaced() -> None:
    # With psycopg2 it would be a server that does not answer.
    with pytest.raises(ConfigurationError, match="installed"):
        load_catalog({"kind": "sql", "uri": "postgresql+pg8000://u@127.0.0.1:1/x", "warehouse": "x"})


def test_a_catalog_in_memory_is_left_as_it_is(tmp_path: Path) -> None:
    catalog = load_catalog({"kind": "sql", "uri": "sqlite:///:memory:", "warehouse": str(tmp_path)})
    assert catalog.list_namespaces() == []


BAD: dict[str, tuple[Any, type[DwhError], str]] = {
    "no kind": ({"uri": "x"}, ConfigurationError, "kind is missing"),
    "another kind": ({"kind": "nope"}, ConfigurationError, "'nope'"),
    "no uri": ({"kind": "sql"}, ConfigurationError, "uri"),
    "no url": ({"kind": "sql", "uri": "gibberish"}, ConfigurationError, "URL"),
    "no driver": ({"kind": "sql", "uri": "oracle://u:sekret@h/x"}, ConfigurationError, "installed"),
    "no such name": ("nosuch", ConfigurationError, "nosuch"),
    "no such variable": ({"kind": "sql", "uri": "${DWH_NOT_SET}"}, ConfigurationError, "DWH_NOT_SET"),
    "no folder": (
        {"kind": "sql", "uri": "sqlite:////proc/nowhere/c.db"},
        UnavailableError,
        "does not answer",
    ),
    "no server": (
        {"kind": "sql", "uri": "postgresql+psycopg2://u:sekret@127.0.0.1:1/x"},
        UnavailableError,
        "refused",
    ),
    "no rest server": ({"kind": "rest", "uri": "http://127.0.0.1:1"}, UnavailableError, "does not answer"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_catalog_that_cannot_be_opened_says_why(name: str) -> None:
    given, error, word = BAD[name]
    with pytest.raises(error, match=word) as raised:
        load_catalog(given)
    assert "sekret" not in str(raised.value)
    assert raised.value.remedy


def test_a_file_that_is_no_database_and_a_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no database " * 100)
    with pytest.raises(ConfigurationError, match="not a database"):
        load_catalog({"kind": "sql", "uri": f"sqlite:///{tmp_path}/text", "warehouse": str(tmp_path)})
    with pytest.raises(UnavailableError, match="unable to open"):
        load_catalog({"kind": "sql", "uri": f"sqlite:///{tmp_path}", "warehouse": str(tmp_path)})


def test_namespaces_are_made_with_those_above_them(lake: Lake) -> None:
    deep = Lake(lake.folder, "a.b.c.orders")
    deep.write(pa.table({"v": [1]}))
    assert deep.rows() == [{"v": 1}]
    assert ("a",) in lake.catalog.list_namespaces()
    ensure_namespace(lake.catalog, ("a", "b"))


def test_a_namespace_that_another_makes_meanwhile_is_fine(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = SqlCatalog("dwh", **lake.properties)
    exists = SqlCatalog.namespace_exists

    def late(self: SqlCatalog, namespace: Any) -> bool:
        known = exists(self, namespace)
        if self is not other and not known:
            other.create_namespace(namespace)
            return False
        return known

    monkeypatch.setattr(SqlCatalog, "namespace_exists", late)
    ensure_namespace(lake.catalog, ("shop",))
    assert exists(other, "shop")


@pytest.mark.parametrize("folder", ["plain", "with space", "ümläut", "100% #1?", "a+b&c=d"])
def test_the_default_lakehouse_is_where_it_is_said_to_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    home = tmp_path / folder
    home.mkdir()
    for name in ("DWH_WAREHOUSE", "DWH_CATALOG_URI", "DWH_CATALOG_TYPE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(home)
    config = CatalogConfig.from_environment()
    writer = IcebergWriter(IcebergWriterConfig(catalog=config, table="shop.orders"))
    writer.write(pa.table({"v": [1]}), where=None)
    assert [path.name for path in tmp_path.iterdir()] == [folder]
    assert sorted(path.name for path in (home / "lakehouse").iterdir() if "-" not in path.name) == [
        "catalog.db",
        "shop",
    ]
    table = writer.catalog.load_table("shop.orders")
    assert table.scan().to_arrow()["v"].to_pylist() == [1]
    if "?" not in folder:
        assert duckdb_rows(table.metadata_location)["v"].to_pylist() == [1]


def test_the_environment_chooses_catalog_and_warehouse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DWH_WAREHOUSE", "s3://lake")
    monkeypatch.setenv("DWH_CATALOG_TYPE", "rest")
    monkeypatch.setenv("DWH_CATALOG_URI", "http://catalog")
    config = CatalogConfig.from_environment()
    assert (config.kind, config.uri, config.warehouse) == ("rest", "http://catalog", "s3://lake")
    monkeypatch.setenv("DWH_CATALOG_TYPE", "sql")
    monkeypatch.delenv("DWH_CATALOG_URI")
    with pytest.raises(ConfigurationError, match="s3://lake"):
        CatalogConfig.from_environment()
    monkeypatch.setenv("DWH_CATALOG_TYPE", "nessie")
    with pytest.raises(ConfigurationError, match=r"'nessie'.*hadoop"):
        CatalogConfig.from_environment()


@pytest.mark.parametrize(
    ("location", "path"),
    [("file:///a/b", "/a/b"), ("file:/a/b", "/a/b"), ("/a b", "/a b"), ("file:///a b%20c", "/a b%20c")],
)
def test_local_paths(location: str, path: str) -> None:
    assert local_path(location) == Path(path)


def test_secrets_are_resolved_late_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {
        "kind": "sql",
        "uri": "postgresql://u:${DWH_SECRET}@h/x",
        "properties": {"s3.secret": "${DWH_SECRET}"},
    }
    config = CatalogConfig.model_validate(given)
    with pytest.raises(ConfigurationError, match="DWH_SECRET"):
        config.resolved_properties()
    monkeypatch.setenv("DWH_SECRET", "sekret")
    assert config.resolved_properties() == {"uri": "postgresql://u:sekret@h/x", "s3.secret": "sekret"}
    assert "sekret" not in f"{config!r}{config}"
    writer = IcebergWriterConfig(
        table="a.b", catalog="rest", catalog_config={"uri": "http://x", "token": "sekret", "name": "n"}
    )
    resolved = writer.resolved_catalog()
    assert (resolved.name, resolved.uri, resolved.properties) == ("n", "http://x", {"token": "sekret"})
    assert "sekret" not in f"{resolved!r}"


def test_a_catalog_is_given_once() -> None:
    with pytest.raises(ValidationError, match="catalog_config"):
        IcebergWriterConfig(table="a.b", catalog=CatalogConfig(), catalog_config={"uri": "x"})


def test_paths_of_sqlite_are_read_as_sqlalchemy_does(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/deep/er/catalog.db"
    load_catalog({"kind": "sql", "uri": uri, "warehouse": str(tmp_path)})
    assert Path(make_url(uri).database or "").is_file()
