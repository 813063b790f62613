"""The hadoop catalog: what it keeps, what it refuses, and who wins when many want one version.

Expected values come from the files themselves (JSON, names) and from DuckDB, which reads a version's file.

Environment: DWH_RACES (how many races, 5 unless told; 40 is the promise), DWH_TEST_HDFS (the address of a
NameNode, e.g. hdfs://127.0.0.1:8020, to include HDFS).
"""

import gzip
import http.client
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.catalog import load_catalog
from pyiceberg.exceptions import (
    CommitFailedException,
    CommitStateUnknownException,
    NamespaceAlreadyExistsError,
    NamespaceNotEmptyError,
    NoSuchNamespaceError,
    NoSuchTableError,
    TableAlreadyExistsError,
)
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.table.sorting import SortField, SortOrder
from pyiceberg.transforms import IdentityTransform
from pyiceberg.types import LongType, NestedField, StringType

from dwh_assets.config import local_path
from dwh_assets.errors import (
    ConfigurationError,
    DataError,
    DwhError,
    NotFoundError,
    UnavailableError,
    UnsupportedError,
)
from dwh_assets.iceberg.catalogs import hadoop_versions
from dwh_assets.iceberg.catalogs.atomic_put import create_exclusively
from dwh_assets.iceberg.catalogs.hadoop import HadoopCatalog
from dwh_assets.iceberg.catalogs.hadoop_versions import serialize
from dwh_assets.iceberg.catalogs.stores.base import Store
from dwh_assets.iceberg.catalogs.stores.local import LocalStore
from dwh_assets.iceberg.catalogs.stores.opening import checked_warehouse, open_store
from dwh_tests.independent import iceberg_rows
from dwh_tests.servers.all_servers import servers_required
from dwh_tests.servers.availability import package

ROOT = Path(__file__).resolve().parents[3]
RACES = int(os.environ.get("DWH_RACES", "5"))
WRITERS = 8
FSSPEC = {"py-io-impl": "pyiceberg.io.fsspec.FsspecFileIO"}
ROWS = pa.schema([("id", pa.int64()), ("name", pa.large_string())])
SERVERS = {"s3": "moto_server", "gcs": "gcs_server", "adls": "azurite_server"}
CLEANED = {"write.metadata.delete-after-commit.enabled": "true", "write.metadata.previous-versions-max": "1"}
PATIENT = {
    "commit.retry.num-retries": "200",
    "commit.retry.min-wait-ms": "5",
    "commit.retry.max-wait-ms": "200",
}
CLIENTS = {"s3": "s3fs", "gcs": "gcsfs", "adls": "adlfs"}
on_a_server = [pytest.param(name, marks=pytest.mark.server) for name in SERVERS]


def rows(*ids: int) -> pa.Table:
    return pa.table({"id": list(ids), "name": [str(i) for i in ids]}, schema=ROWS)


# --- Places ---


def place(name: str, request: pytest.FixtureRequest, folder: Path) -> dict[str, str]:
    """The properties of a catalog with an empty warehouse of its own."""
    if name == "file":
        return {"warehouse": (folder / "lake").as_uri()}
    if name == "hdfs":
        address = os.environ.get("DWH_TEST_HDFS")
        if not address:
            pytest.skip("DWH_TEST_HDFS names no NameNode")
        return {"warehouse": f"{address}/{uuid.uuid4().hex}"}
    need_client(name)
    server = request.getfixturevalue(SERVERS[name])
    return {"warehouse": f"{server.root}/{uuid.uuid4().hex}", **server.storage_properties, **FSSPEC}


def need_client(store: str) -> None:
    """Skip where the client of a store is not installed, or fail where servers are required."""
    client = CLIENTS[store]
    missing = package(client, f"dwh_assets[{store}]")()
    if missing and servers_required():
        pytest.fail(f"{missing} (DWH_REQUIRE_SERVERS is set)", pytrace=False)
    if missing:
        pytest.skip(missing)


@pytest.fixture(params=["file", *on_a_server, "hdfs"])
def anywhere(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """Every kind of store that commits atomically."""
    return place(request.param, request, tmp_path)


@pytest.fixture(params=["file", *on_a_server])
def with_data(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """The stores to which PyIceberg writes data without more installed."""
    return place(request.param, request, tmp_path)


@pytest.fixture
def local(tmp_path: Path) -> HadoopCatalog:
    catalog = HadoopCatalog("lake", warehouse=str(tmp_path / "lake"))
    catalog.create_namespace("shop")
    return catalog


@pytest.fixture
def orders(local: HadoopCatalog) -> Table:
    """A table on local files with versions 1 to 4 and the rows 1, 2, 3."""
    table = local.create_table("shop.orders", ROWS)
    for number in (1, 2, 3):
        table.append(rows(number))
    return table


# --- Independent readers ---


def metadata_folder(table: Table) -> Path:
    return local_path(table.metadata_location).parent


def versions_in(folder: Path) -> list[int]:
    found = (re.fullmatch(r"v(\d+)\..*", path.name) for path in folder.iterdir())
    return sorted(int(match[1]) for match in found if match)


def hint_in(folder: Path) -> str:
    return (folder / "version-hint.text").read_text()


def ids_by_duckdb(metadata_location: str) -> list[int]:
    return sorted(iceberg_rows(metadata_location)["id"].to_pylist())


def snapshots_in(content: bytes) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(content).get("snapshots", [])
    return found


# --- The life of tables and namespaces ---


def test_tables_and_namespaces_live_and_die(anywhere: dict[str, str]) -> None:
    catalog = HadoopCatalog("lake", **anywhere)
    assert catalog.list_namespaces() == []
    catalog.create_namespace("shop")
    catalog.create_namespace(("shop", "eu"))
    assert catalog.list_namespaces() == [("shop",)]
    assert catalog.list_namespaces("shop") == [("shop", "eu")]
    assert catalog.list_tables("shop") == []
    with pytest.raises(NamespaceAlreadyExistsError):
        catalog.create_namespace("shop")
    catalog.create_namespace_if_not_exists("shop")

    table = catalog.create_table("shop.eu.orders", ROWS, properties={"owner": "ann"})
    where = f"{catalog.warehouse}/shop/eu/orders"
    assert (table.location(), table.metadata_location) == (where, f"{where}/metadata/v1.metadata.json")
    assert catalog.load_namespace_properties("shop.eu") == {"location": f"{catalog.warehouse}/shop/eu"}
    assert catalog.list_tables(("shop", "eu")) == [("shop", "eu", "orders")]
    assert catalog.list_namespaces("shop.eu") == []
    with pytest.raises(TableAlreadyExistsError):
        catalog.create_table("shop.eu.orders", ROWS)

    table.transaction().set_properties(owner="bob").commit_transaction()
    with table.update_schema() as change:
        change.add_column("note", StringType())
    seen = HadoopCatalog("other name", **anywhere).load_table("shop.eu.orders")
    assert seen.metadata_location == f"{where}/metadata/v3.metadata.json"
    assert seen.properties["owner"] == "bob"
    assert seen.schema().column_names == ["id", "name", "note"]
    store = open_store(catalog.warehouse, anywhere)
    written = json.loads(store.read(f"{where}/metadata/v3.metadata.json"))
    assert [field["name"] for field in written["schemas"][1]["fields"]] == ["id", "name", "note"]
    assert [entry["metadata-file"] for entry in written["metadata-log"]] == [
        f"{where}/metadata/v{number}.metadata.json" for number in (1, 2)
    ]
    assert store.read(f"{where}/metadata/version-hint.text") == b"3"

    with pytest.raises(NamespaceNotEmptyError):
        catalog.drop_namespace("shop.eu")
    catalog.drop_table("shop.eu.orders")
    assert not catalog.table_exists("shop.eu.orders")
    assert catalog.list_tables("shop.eu") == []
    with pytest.raises(NoSuchTableError):
        catalog.drop_table("shop.eu.orders")
    with pytest.raises(NoSuchTableError):
        table.transaction().set_properties(owner="eve").commit_transaction()
    catalog.drop_namespace("shop.eu")
    catalog.drop_namespace("shop")
    assert catalog.list_namespaces() == []
    assert store.names(catalog.warehouse) == [], "the proof of the store leaves nothing behind"


def test_rows_are_written_and_read(with_data: dict[str, str]) -> None:
    catalog = HadoopCatalog("lake", **with_data)
    catalog.create_namespace("shop")
    table = catalog.create_table("shop.orders", ROWS)
    table.append(rows(1, 2))
    table.append(rows(3))
    table.delete("id = 2")
    tagged = table.snapshots()[0].snapshot_id
    table.manage_snapshots().create_tag(tagged, "first").commit()
    again = catalog.load_table("shop.orders")
    assert sorted(again.scan().to_arrow()["id"].to_pylist()) == [1, 3]
    assert again.scan(snapshot_id=again.refs()["first"].snapshot_id).to_arrow()["id"].to_pylist() == [1, 2]
    if with_data["warehouse"].startswith("file:"):
        assert ids_by_duckdb(again.metadata_location) == [1, 3]
    catalog.purge_table("shop.orders")
    assert not catalog.table_exists("shop.orders")


def test_a_table_is_created_with_its_first_rows_or_not_at_all(local: HadoopCatalog) -> None:
    with local.create_table_transaction("shop.orders", ROWS, properties={"owner": "ann"}) as creation:
        creation.append(rows(1, 2))
        assert not local.table_exists("shop.orders")
    table = local.load_table("shop.orders")
    assert versions_in(metadata_folder(table)) == [1]
    assert (table.properties["owner"], ids_by_duckdb(table.metadata_location)) == ("ann", [1, 2])

    late = local.create_table_transaction("shop.late", ROWS)
    late.append(rows(3))
    local.create_table("shop.late", ROWS).append(rows(4))
    with pytest.raises(CommitFailedException):
        late.commit_transaction()
    assert ids_by_duckdb(local.load_table("shop.late").metadata_location) == [4]
    with pytest.raises(TableAlreadyExistsError):
        local.create_table_transaction("shop.orders", ROWS)


def test_partitions_sort_order_and_format_version_are_kept(local: HadoopCatalog) -> None:
    schema = Schema(NestedField(7, "id", LongType(), required=True), NestedField(9, "name", StringType()))
    table = local.create_table(
        "shop.orders",
        schema,
        partition_spec=PartitionSpec(PartitionField(9, 1000, IdentityTransform(), "name")),
        sort_order=SortOrder(SortField(7, IdentityTransform())),
        properties={"format-version": "1", "owner": "ann"},
    )
    written = json.loads(local_path(table.metadata_location).read_bytes())
    assert written["format-version"] == 1
    assert written["properties"] == {"owner": "ann"}
    assert [field["source-id"] for field in written["partition-specs"][0]["fields"]] == [2]
    assert [field["source-id"] for field in written["sort-orders"][0]["fields"]] == [1]


def test_dropping_removes_the_directory_and_purging_what_lies_elsewhere(
    local: HadoopCatalog, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    for name in ("dropped", "purged", "kept"):
        properties = {
            "write.data.path": f"{elsewhere.as_uri()}/{name}",
            "gc.enabled": str(name != "kept").lower(),
        }
        local.create_table(f"shop.{name}", ROWS, properties=properties).append(rows(1))
    folder = tmp_path / "lake" / "shop"
    local.drop_table("shop.dropped")
    local.purge_table("shop.purged")
    local.purge_table("shop.kept")
    assert list(folder.iterdir()) == []
    left = {path.parent.name for path in elsewhere.rglob("*.parquet")}
    assert left == {"dropped", "kept"}


def test_a_reader_of_a_table_that_is_being_dropped_never_sees_an_older_version(
    local: HadoopCatalog, orders: Table, monkeypatch
) -> None:
    seen = []
    honest = LocalStore.remove

    def remove(store: LocalStore, location: str) -> None:
        honest(store, location)
        found = local.load_table("shop.orders") if local.table_exists("shop.orders") else None
        seen.append(found.metadata_location.rpartition("/")[2] if found else None)

    monkeypatch.setattr(LocalStore, "remove", remove)
    local.drop_table("shop.orders")
    assert seen == ["v4.metadata.json"] * 4 + [None]


def test_a_table_of_another_catalog_is_taken_over_in_its_place(tmp_path: Path) -> None:
    warehouse = (tmp_path / "lake").as_uri()
    sql = load_catalog("lake", type="sql", uri=f"sqlite:///{tmp_path}/cat.db", warehouse=warehouse)
    sql.create_namespace("shop")
    theirs = sql.create_table("shop.orders", ROWS)
    theirs.append(rows(1, 2))
    catalog = HadoopCatalog("lake", warehouse=warehouse)
    assert not catalog.table_exists("shop.orders")
    assert catalog.list_namespaces("shop") == [], "a table that is not ours is still no namespace"
    with pytest.raises(UnsupportedError, match=r"shop\.copy has to lie at"):
        catalog.register_table("shop.copy", theirs.metadata_location)
    with pytest.raises(UnsupportedError, match="overwrite"):
        catalog.register_table("shop.orders", theirs.metadata_location, overwrite=True)
    with pytest.raises(NotFoundError):
        catalog.register_table("shop.orders", f"{warehouse}/shop/orders/metadata/nowhere.metadata.json")

    table = catalog.register_table("shop.orders", theirs.metadata_location)
    table.append(rows(3))
    assert catalog.list_tables("shop") == [("shop", "orders")]
    assert ids_by_duckdb(catalog.load_table("shop.orders").metadata_location) == [1, 2, 3]
    with pytest.raises(TableAlreadyExistsError):
        catalog.register_table("shop.orders", theirs.metadata_location)


def test_pyiceberg_loads_it_by_name(tmp_path: Path) -> None:
    name = f"{HadoopCatalog.__module__}.{HadoopCatalog.__qualname__}"
    catalog = load_catalog("lake", **{"py-catalog-impl": name, "warehouse": (tmp_path / "lake").as_uri()})
    catalog.create_namespace("shop")
    catalog.create_table("shop.orders", ROWS).append(rows(1))
    assert ids_by_duckdb(catalog.load_table("shop.orders").metadata_location) == [1]


# --- Which version is current ---


@pytest.mark.parametrize(
    "hint",
    [None, b"", b"4", b"4\n", b"1", b"2", b"99", b"-1", b"0", b"four", b"\xff\x00\xff", b"9" * 400, b"4 4"],
    ids=repr,
)
def test_the_hint_is_only_a_hint(local: HadoopCatalog, orders: Table, hint: bytes | None) -> None:
    folder = metadata_folder(orders)
    (folder / "version-hint.text").unlink()
    if hint is not None:
        (folder / "version-hint.text").write_bytes(hint)
    table = local.load_table("shop.orders")
    assert table.metadata_location.endswith("/v4.metadata.json")
    assert local.list_tables("shop") == [("shop", "orders")]
    table.append(rows(4))
    assert versions_in(folder) == [1, 2, 3, 4, 5]
    assert ids_by_duckdb(local.load_table("shop.orders").metadata_location) == [1, 2, 3, 4]


def test_a_hint_far_behind_costs_one_listing(local: HadoopCatalog, orders: Table, monkeypatch) -> None:
    folder = metadata_folder(orders)
    for number in range(5, 200):
        (folder / f"v{number}.metadata.json").write_bytes((folder / "v4.metadata.json").read_bytes())
    (folder / "version-hint.text").write_text("2")
    looks = count()
    honest = LocalStore.existing
    monkeypatch.setattr(LocalStore, "existing", lambda *given: (next(looks), honest(*given))[1])
    assert local.load_table("shop.orders").metadata_location.endswith("/v199.metadata.json")
    assert next(looks) < 30


def test_a_hint_to_a_version_that_was_cleaned_up_leads_to_the_newest(local: HadoopCatalog) -> None:
    table = local.create_table("shop.orders", ROWS, properties=CLEANED)
    for number in range(1, 6):
        table.append(rows(number))
    folder = metadata_folder(table)
    assert versions_in(folder) == [5, 6]
    (folder / "version-hint.text").write_text("2")
    assert ids_by_duckdb(local.load_table("shop.orders").metadata_location) == [1, 2, 3, 4, 5]


def test_the_hint_never_goes_back(local: HadoopCatalog, orders: Table) -> None:
    folder = metadata_folder(orders)
    (folder / "version-hint.text").write_text("7")
    orders.append(rows(4))
    assert hint_in(folder) == "7", "somebody else knows more"


@pytest.mark.parametrize("name", ["v4.gz.metadata.json", "v4.metadata.json.gz"])
def test_compressed_metadata_is_read(local: HadoopCatalog, orders: Table, name: str) -> None:
    folder = metadata_folder(orders)
    plain = folder / "v4.metadata.json"
    (folder / name).write_bytes(gzip.compress(plain.read_bytes()))
    plain.unlink()
    (folder / name.replace("v4", "v3")).write_bytes(b"of the plain file beside it, none is read")
    for hint in ("4", "3", "2", ""):
        (folder / "version-hint.text").write_text(hint)
        assert local.load_table("shop.orders").metadata_location.endswith(name)
    local.load_table("shop.orders").append(rows(4))
    assert ids_by_duckdb(local.load_table("shop.orders").metadata_location) == [1, 2, 3, 4]


def test_damaged_metadata_is_named(local: HadoopCatalog, orders: Table) -> None:
    (metadata_folder(orders) / "v4.metadata.json").write_text('{"format-version": 2, "loc')
    with pytest.raises(DataError, match=r"v4\.metadata\.json is not the metadata of a table"):
        local.load_table("shop.orders")


def test_checksums_of_hadoop_s_local_files_do_not_outlive_the_hint(
    local: HadoopCatalog, orders: Table
) -> None:
    checksum = metadata_folder(orders) / ".version-hint.text.crc"
    checksum.write_bytes(b"crc of another content")
    orders.append(rows(4))
    assert not checksum.exists()


# --- What is refused, by name and before anything is written ---


UNFIT = [
    "..",
    ".",
    "",
    " ",
    "a/b",
    "../x",
    "/etc",
    "a\\b",
    ".hidden",
    "a\x00b",
    "a\nb",
    "a*",
    "a?",
    "[a]",
    "{a}",
]
UNFIT += ["a#b", "a%2e", "a:b", "a ", " a", '"a"']


@pytest.mark.parametrize("name", UNFIT, ids=repr)
def test_a_name_that_is_no_directory_is_refused(local: HadoopCatalog, tmp_path: Path, name: str) -> None:
    before = sorted(tmp_path.rglob("*"))
    for attempt in (
        lambda: local.create_namespace((name,)),
        lambda: local.create_namespace(("shop", name)),
        lambda: local.drop_namespace((name,)),
        lambda: local.list_tables((name,)),
        lambda: local.list_namespaces((name,)),
        lambda: local.namespace_exists((name,)),
        lambda: local.create_table(("shop", name), ROWS),
        lambda: local.create_table((name, "orders"), ROWS),
        lambda: local.load_table(("shop", name)),
        lambda: local.table_exists(("shop", name)),
        lambda: local.drop_table(("shop", name)),
        lambda: local.purge_table((name, "orders")),
    ):
        with pytest.raises(ConfigurationError, match="cannot be the name of a directory"):
            attempt()
    assert sorted(tmp_path.rglob("*")) == before


def test_a_table_needs_a_namespace_that_is_there(local: HadoopCatalog) -> None:
    with pytest.raises(ConfigurationError, match=r"namespace\.table"):
        local.create_table("orders", ROWS)
    with pytest.raises(NoSuchNamespaceError):
        local.create_table("nowhere.orders", ROWS)
    for missing in (
        local.list_tables,
        local.list_namespaces,
        local.drop_namespace,
        local.load_namespace_properties,
    ):
        with pytest.raises(NoSuchNamespaceError):
            missing("nowhere")
    with pytest.raises(NoSuchTableError):
        local.load_table("shop.nothing")


def test_tables_and_namespaces_do_not_lie_in_each_other(local: HadoopCatalog, orders: Table) -> None:
    with pytest.raises(ConfigurationError, match=r"inside the table shop\.orders"):
        local.create_namespace("shop.orders.eu")
    with pytest.raises(NoSuchNamespaceError):
        local.create_table("shop.orders.eu", ROWS)
    local.create_namespace("shop.eu")
    local.create_table("shop.eu.orders", ROWS)
    with pytest.raises(NamespaceAlreadyExistsError):
        local.create_table("shop.eu", ROWS)


def test_what_a_directory_cannot_do_is_unsupported(
    local: HadoopCatalog, orders: Table, tmp_path: Path
) -> None:
    before = sorted(tmp_path.rglob("*"))
    attempts: dict[str, Callable[[], Any]] = {
        "cannot be renamed": lambda: local.rename_table("shop.orders", "shop.sales"),
        "has to lie at": lambda: local.create_table("shop.other", ROWS, location=f"{tmp_path.as_uri()}/x"),
        "in its own directory": lambda: local.create_table(
            "shop.other", ROWS, properties={"write.metadata.path": f"{tmp_path.as_uri()}/x"}
        ),
        "keeps its metadata": lambda: (
            orders.transaction()
            .set_properties({"write.metadata.path": f"{tmp_path.as_uri()}/x"})
            .commit_transaction()
        ),
        "cannot have properties": lambda: local.create_namespace("eu", {"owner": "ann"}),
        "Namespace shop": lambda: local.update_namespace_properties("shop", updates={"owner": "ann"}),
        "shop.v: a hadoop catalog has no views": lambda: local.load_view("shop.v"),
        "no views": lambda: local.drop_view("shop.v"),
    }
    for message, attempt in attempts.items():
        with pytest.raises(UnsupportedError, match=re.escape(message)):
            attempt()
    assert not local.view_exists("shop.v")
    assert local.list_views("shop") == []
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("scheme", ["oss", "hf", "http", "ftp", "memory", "wasb", "viewfs"])
def test_a_store_without_a_condition_is_refused_by_name(scheme: str) -> None:
    with pytest.raises(UnsupportedError, match=f"cannot commit atomically on {scheme}://"):
        HadoopCatalog("lake", warehouse=f"{scheme}://bucket/lake")


@pytest.mark.parametrize(
    "warehouse",
    [
        "",
        "s3://key:hunter2@bucket/lake",
        "abfss://c@a.dfs.core.windows.net/lake?sig=hunter2",
        "s3://b/l#hunter2",
        "file://host/lake",
        "s3://bucket/*",
    ],
)
def test_a_malformed_warehouse_is_refused_without_repeating_secrets(warehouse: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        HadoopCatalog("lake", warehouse=warehouse)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("warehouse", "module", "extra"),
    [
        ("s3://b/lake", "s3fs", "s3"),
        ("gs://b/lake", "gcsfs", "gcs"),
        ("abfss://c@a.dfs.core.windows.net/lake", "adlfs", "adls"),
        ("hdfs://n:8020/lake", "hdfs_native.fsspec", "hdfs"),
    ],
)
def test_a_client_that_is_not_installed_is_named(
    monkeypatch, warehouse: str, module: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigurationError, match=re.escape(f"dwh_assets[{extra}]")):
        HadoopCatalog("lake", warehouse=warehouse)


def test_a_file_system_without_hard_links_is_refused(tmp_path: Path, monkeypatch) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    catalog = HadoopCatalog("lake", warehouse=str(tmp_path / "lake"))
    with pytest.raises(UnsupportedError, match="without hard links"):
        catalog.create_namespace("shop")
    assert list((tmp_path / "lake").iterdir()) == []


def test_a_full_disk_leaves_the_table_as_it_was(local: HadoopCatalog, orders: Table, monkeypatch) -> None:
    before = sorted(metadata_folder(orders).iterdir())

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UnavailableError, match="No space left"):
        orders.transaction().set_properties(owner="ann").commit_transaction()
    assert sorted(metadata_folder(orders).iterdir()) == before


# --- When the answer is lost ---


class FlakyStore(LocalStore):
    """Local files whose answer to a creation is lost, before or after the file is there."""

    def __init__(self, warehouse: Path, *, lands: bool, readable: bool = True) -> None:
        super().__init__(warehouse.as_uri(), {"s3.secret-access-key": "hunter2"})
        self.lands, self.readable = lands, readable

    def create(self, location: str, content: bytes) -> None:
        if self.lands:
            super().create(location, content)
        raise TimeoutError("Read timeout; secret=hunter2, hunter2 and AccountKey=abc==;")

    def read(self, location: str) -> bytes:
        if not self.readable:
            raise UnavailableError("still out of reach")
        return super().read(location)


def test_a_lost_answer_is_looked_up(tmp_path: Path) -> None:
    location = (tmp_path / "v2.metadata.json").as_uri()
    with pytest.raises(CommitStateUnknownException) as caught:
        create_exclusively(FlakyStore(tmp_path, lands=False), location, b"mine")
    shown = "".join(traceback.format_exception(caught.value))
    assert "Read timeout" in shown
    assert "hunter2" not in shown
    assert "abc" not in shown

    create_exclusively(FlakyStore(tmp_path, lands=True), location, b"mine")
    create_exclusively(FlakyStore(tmp_path, lands=False), location, b"mine")
    with pytest.raises(CommitFailedException, match="somebody else"):
        create_exclusively(FlakyStore(tmp_path, lands=False), location, b"other")
    with pytest.raises(CommitStateUnknownException):
        create_exclusively(FlakyStore(tmp_path, lands=True, readable=False), location, b"mine")
    with pytest.raises(CommitStateUnknownException):
        create_exclusively(FlakyStore(tmp_path, lands=False, readable=False), location, b"mine")


def test_no_two_attempts_write_the_same_bytes(orders: Table) -> None:
    """Else both of two writers that make one change in one millisecond would find "their" version there."""
    first, second = (serialize(orders.metadata) for _ in range(2))
    assert first != second
    assert json.loads(first) == json.loads(second)


class Interference(ThreadingHTTPServer):
    """Between an S3 client and its server: hands requests on, except for what a test breaks."""

    def __init__(self, endpoint: str) -> None:
        self.upstream = endpoint.removeprefix("http://")
        self.ignore_conditions = False
        # "one answer" to the creation of a version, or that one and "all after it"
        self.lose = ""
        self.dead = False
        super().__init__(("127.0.0.1", 0), _Interfering)
        self.endpoint = f"http://127.0.0.1:{self.server_port}"


class _Interfering(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Interference

    def _hand_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.server.dead:
            self.close_connection = True
            return
        creates = "If-None-Match" in self.headers and self.path.endswith(".metadata.json")
        if self.server.ignore_conditions:
            del self.headers["If-None-Match"]
        connection = http.client.HTTPConnection(self.server.upstream)
        connection.request(self.command, self.path, body, dict(self.headers))
        answer = connection.getresponse()
        content = answer.read()
        if creates and self.server.lose:
            self.server.dead = self.server.lose == "all after it"
            self.server.lose = ""
            self.close_connection = True
            return
        self._answer(answer, content)

    def _answer(self, answer: http.client.HTTPResponse, content: bytes) -> None:
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in {"transfer-encoding", "connection", "content-length"}:
                self.send_header(name, value)
        length = answer.getheader("Content-Length", "0") if self.command == "HEAD" else str(len(content))
        self.send_header("Content-Length", length)
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _hand_on  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing."""


@pytest.fixture
def interference(request: pytest.FixtureRequest) -> Iterator[tuple[Interference, dict[str, str]]]:
    """A catalog's properties that lead through a server which can be told to misbehave."""
    need_client("s3")
    moto_server = request.getfixturevalue("moto_server")
    server = Interference(moto_server.endpoint)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    warehouse = f"{moto_server.root}/{uuid.uuid4().hex}"
    through = {**moto_server.storage_properties, "s3.endpoint": server.endpoint, **FSSPEC}
    yield server, {"warehouse": warehouse, **through}
    server.shutdown()
    server.server_close()


@pytest.mark.server
def test_a_store_that_ignores_the_condition_is_refused(
    interference: tuple[Interference, dict[str, str]],
) -> None:
    server, properties = interference
    server.ignore_conditions = True
    catalog = HadoopCatalog("lake", **properties)
    for attempt in (catalog.prove_atomic_commits, lambda: catalog.create_namespace("shop")):
        with pytest.raises(UnsupportedError, match="ignores the condition"):
            attempt()
    assert catalog.list_namespaces() == []


@pytest.mark.server
def test_an_answer_lost_on_the_way_from_s3_is_looked_up(
    interference: tuple[Interference, dict[str, str]],
) -> None:
    server, properties = interference
    catalog = HadoopCatalog("lake", **properties)
    catalog.create_namespace("shop")
    table = catalog.create_table("shop.orders", ROWS)
    server.lose = "one answer"
    table.append(rows(1))
    assert not server.lose
    table = catalog.load_table("shop.orders")
    assert table.metadata_location.endswith("/v2.metadata.json")
    assert table.scan().to_arrow()["id"].to_pylist() == [1]


@pytest.mark.server
def test_a_store_that_dies_during_a_commit_leaves_it_unknown(
    interference: tuple[Interference, dict[str, str]], monkeypatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    server, properties = interference
    catalog = HadoopCatalog("lake", **properties)
    catalog.create_namespace("shop")
    table = catalog.create_table("shop.orders", ROWS)
    server.lose = "all after it"
    with pytest.raises(CommitStateUnknownException, match=r"v2\.metadata\.json may or may not"):
        table.append(rows(1))
    assert server.dead
    server.dead = False
    assert catalog.load_table("shop.orders").scan().to_arrow()["id"].to_pylist() == [1]


@pytest.mark.server
def test_credentials_never_show_in_errors(request: pytest.FixtureRequest) -> None:
    need_client("s3")
    moto_server = request.getfixturevalue("moto_server")
    properties = {**moto_server.storage_properties, "s3.secret-access-key": "hunter2secret"}
    gone = HadoopCatalog("lake", warehouse="s3://no-such-bucket/lake", **properties)
    for attempt in (
        gone.list_namespaces,
        lambda: gone.create_namespace("shop"),
        lambda: gone.load_table("a.b"),
    ):
        with pytest.raises((NotFoundError, UnavailableError)) as caught:
            attempt()
        assert "no-such-bucket" in str(caught.value)
        assert "hunter2" not in "".join(traceback.format_exception(caught.value))
    properties |= {"s3.endpoint": "http://127.0.0.1:9", "s3.connect-timeout": "0.2"}
    away = HadoopCatalog("lake", warehouse="s3://bucket/lake", **properties)
    with pytest.raises(DwhError) as caught_away:
        away.list_namespaces()
    assert "hunter2" not in "".join(traceback.format_exception(caught_away.value))


# --- A version that is free because its time is long past ---


@contextmanager
def first_asleep(monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[], None]) -> Iterator[None]:
    """The first commit falls asleep between reading the table and writing its version."""
    slept: list[str] = []

    def sleeper(store: Store, location: str, content: bytes) -> None:
        if not slept:
            slept.append(location)
            meanwhile()
        create_exclusively(store, location, content)

    with monkeypatch.context() as patch:
        patch.setattr(hadoop_versions, "create_exclusively", sleeper)
        yield
    assert slept


def test_a_sleeper_who_wins_a_version_of_the_past_does_not_lose_its_rows(
    local: HadoopCatalog, monkeypatch
) -> None:
    table = local.create_table("shop.orders", ROWS, properties=CLEANED)
    table.append(rows(1))

    def others() -> None:
        theirs = local.load_table("shop.orders")
        for number in (2, 3, 4):
            theirs.append(rows(number))

    with first_asleep(monkeypatch, others):
        table.append(rows(5))
    current = local.load_table("shop.orders")
    assert ids_by_duckdb(current.metadata_location) == [1, 2, 3, 4, 5]
    assert versions_in(metadata_folder(table)) == [5, 6], "the version written in vain is gone"


def test_a_sleeper_without_a_snapshot_does_not_claim_to_have_won(local: HadoopCatalog, monkeypatch) -> None:
    table = local.create_table("shop.orders", ROWS, properties=CLEANED)

    def others() -> None:
        theirs = local.load_table("shop.orders")
        for number in (2, 3, 4):
            theirs.append(rows(number))

    with first_asleep(monkeypatch, others), pytest.raises(CommitStateUnknownException, match="came and went"):
        table.transaction().set_properties(owner="ann").commit_transaction()
    assert "owner" not in local.load_table("shop.orders").properties


def test_a_sleeper_overtaken_the_ordinary_way_is_part_of_history(local: HadoopCatalog, monkeypatch) -> None:
    table = local.create_table("shop.orders", ROWS)

    def overtaken(store: Store, location: str, content: bytes) -> None:
        create_exclusively(store, location, content)
        monkeypatch.undo()
        theirs = local.load_table("shop.orders")
        for number in (2, 3, 4):
            theirs.append(rows(number))

    monkeypatch.setattr(hadoop_versions, "create_exclusively", overtaken)
    table.append(rows(1))
    assert ids_by_duckdb(local.load_table("shop.orders").metadata_location) == [1, 2, 3, 4]
    assert hint_in(metadata_folder(table)) == "5"


def test_a_commit_to_a_table_dropped_meanwhile_leaves_nothing(local: HadoopCatalog, monkeypatch) -> None:
    for again in (False, True):
        table = local.create_table("shop.orders", ROWS)
        table.append(rows(1))

        def drop(again: bool = again) -> None:
            local.drop_table("shop.orders")
            local.create_namespace_if_not_exists("shop")
            if again:
                local.create_table("shop.orders", ROWS)

        with first_asleep(monkeypatch, drop), pytest.raises((CommitFailedException, NoSuchTableError)):
            table.transaction().set_properties(owner="ann").commit_transaction()
        assert local.table_exists("shop.orders") is again
    assert versions_in(metadata_folder(local.load_table("shop.orders"))) == [1]


# --- Killed, and raced ---


def worker() -> None:
    """A process that does what it is told, one JSON line each way, at the moment it is told."""
    held: dict[str, Any] = {}
    for line in sys.stdin:
        order = json.loads(line)
        while time.time() < order["at"]:
            pass
        try:
            _obey(held, order)
            outcome = "done"
        except Exception as error:
            outcome = type(error).__name__
        print(json.dumps(outcome), flush=True)


def _obey(held: dict[str, Any], order: dict[str, Any]) -> None:
    match order["do"]:
        case "go to":
            held["store"] = open_store(checked_warehouse(order["place"]["warehouse"]), order["place"])
            held["catalog"] = HadoopCatalog("lake", **order["place"])
            held["catalog"].list_namespaces()
        case "create":
            create_exclusively(held["store"], order["location"], (order["text"] * order["times"]).encode())
        case "load":
            held["table"] = held["catalog"].load_table(order["table"])
        case "append":
            for number in order["ids"]:
                held["table"].append(rows(number))
        case "die before the hint":
            LocalStore.replace = lambda *given: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[method-assign]
            held["table"].append(rows(*order["ids"]))
        case "die before the link":
            Path.hardlink_to = lambda *given: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[method-assign]
            held["table"].append(rows(*order["ids"]))


class Worker:
    """One writer in a process of its own, started afresh: nothing is forked."""

    def __init__(self) -> None:
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", str(Path(__file__))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path.rstrip(os.pathsep)},
        )

    def tell(self, at: float = 0.0, **order: Any) -> None:
        assert self.process.stdin
        self.process.stdin.write(json.dumps({"at": at, **order}) + "\n")
        self.process.stdin.flush()

    def outcome(self) -> str | None:
        """What came of the order; None from the dead."""
        assert self.process.stdout
        line = self.process.stdout.readline()
        return json.loads(line) if line else None

    def stop(self) -> None:
        self.process.kill()
        self.process.communicate()


@contextmanager
def workers(number: int) -> Iterator[list[Worker]]:
    crew = [Worker() for _ in range(number)]
    try:
        yield crew
    finally:
        for each in crew:
            each.stop()


@pytest.fixture(scope="module")
def crew() -> Iterator[list[Worker]]:
    """Eight writer processes that go from test to test."""
    with workers(WRITERS) as started:
        yield started


def all_at_once(crew: list[Worker], orders: list[dict[str, Any]]) -> list[str | None]:
    """Give each worker its order for the same moment; return the outcomes."""
    at = time.time() + 0.02
    for each, order in zip(crew, orders, strict=True):
        each.tell(at, **order)
    return [each.outcome() for each in crew]


def everybody(crew: list[Worker], **order: Any) -> None:
    assert all_at_once(crew, [order] * len(crew)) == ["done"] * len(crew)


@pytest.mark.parametrize("moment", ["link", "hint"])
def test_a_writer_killed_during_a_commit_leaves_a_whole_table(
    local: HadoopCatalog, orders: Table, moment: str
) -> None:
    with workers(1) as (victim,):
        everybody([victim], do="go to", place={"warehouse": local.warehouse})
        everybody([victim], do="load", table="shop.orders")
        victim.tell(do=f"die before the {moment}", ids=[4])
        assert victim.outcome() is None
        assert victim.process.wait() == -signal.SIGKILL
    landed = moment == "hint"
    folder = metadata_folder(orders)
    assert (versions_in(folder)[-1], hint_in(folder)) == (5 if landed else 4, "4")
    survivors = [1, 2, 3, 4] if landed else [1, 2, 3]
    assert ids_by_duckdb(local.load_table("shop.orders").metadata_location) == survivors
    local.load_table("shop.orders").append(rows(5))
    assert ids_by_duckdb(local.load_table("shop.orders").metadata_location) == [*survivors, 5]
    assert hint_in(folder) == str(versions_in(folder)[-1])


@pytest.mark.timeout(900)
def test_of_eight_writers_of_one_version_one_wins(anywhere: dict[str, str], crew: list[Worker]) -> None:
    """Of every race exactly one writer wins, and the version is the winner's to the last byte."""
    store = open_store(checked_warehouse(anywhere["warehouse"]), anywhere)
    folder = f"{store.warehouse}/races"
    store.prepare_directory(folder)
    everybody(crew, do="go to", place=anywhere)
    # Local races are cheap, and a gap between looking and writing is too small for five of them to hit.
    races = max(RACES, 40) if folder.startswith("file:") else RACES
    for race in range(races):
        location = f"{folder}/v{race}.metadata.json"
        texts = [(f"{race} {i}\n", random.randrange(1, 50_000)) for i in range(WRITERS)]
        orders = [{"do": "create", "location": location, "text": text, "times": n} for text, n in texts]
        outcomes = all_at_once(crew, orders)
        assert sorted(map(str, outcomes)) == ["CommitFailedException"] * (WRITERS - 1) + ["done"]
        text, times = texts[outcomes.index("done")]
        assert store.read(location) == (text * times).encode()
    assert sorted(store.names(folder)) == sorted(f"v{race}.metadata.json" for race in range(races))


@pytest.mark.timeout(900)
def test_of_eight_commits_on_one_version_one_wins(with_data: dict[str, str], crew: list[Worker]) -> None:
    """All hold the same version and commit without a second try: one lands, seven know that they did not."""
    catalog = HadoopCatalog("lake", **with_data)
    catalog.create_namespace("shop")
    catalog.create_table("shop.orders", ROWS, properties={"commit.retry.num-retries": "0"})
    everybody(crew, do="go to", place=with_data)
    won = []
    for race in range(RACES):
        everybody(crew, do="load", table="shop.orders")
        ids = [race * WRITERS + i for i in range(WRITERS)]
        outcomes = all_at_once(crew, [{"do": "append", "ids": [i]} for i in ids])
        assert sorted(map(str, outcomes)) == ["CommitFailedException"] * (WRITERS - 1) + ["done"]
        won.append(ids[outcomes.index("done")])
    table = catalog.load_table("shop.orders")
    assert table.metadata_location.endswith(f"/v{RACES + 1}.metadata.json")
    assert_holds(table, won)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("cleaning", [{}, CLEANED], ids=["keeping versions", "cleaning versions up"])
def test_concurrent_appends_lose_nothing(
    with_data: dict[str, str], crew: list[Worker], cleaning: dict[str, str]
) -> None:
    catalog = HadoopCatalog("lake", **with_data)
    catalog.create_namespace("shop")
    catalog.create_table("shop.orders", ROWS, properties={**PATIENT, **cleaning})
    everybody(crew, do="go to", place=with_data)
    everybody(crew, do="load", table="shop.orders")
    each = max(2, RACES // 4)
    shares = [[i * each + k for k in range(each)] for i in range(WRITERS)]
    outcomes = all_at_once(crew, [{"do": "append", "ids": share} for share in shares])
    assert outcomes == ["done"] * WRITERS
    assert_holds(catalog.load_table("shop.orders"), [number for share in shares for number in share])


def assert_holds(table: Table, ids: list[int]) -> None:
    """The table has these rows, each from a snapshot of its own, one upon the other."""
    content = table.io.new_input(table.metadata_location).open().read()
    snapshots = snapshots_in(content)
    assert [s["parent-snapshot-id"] for s in snapshots[1:]] == [s["snapshot-id"] for s in snapshots[:-1]]
    assert snapshots[-1]["summary"]["total-records"] == str(len(ids)) == str(len(snapshots))
    if table.metadata_location.startswith("file:"):
        assert ids_by_duckdb(table.metadata_location) == sorted(ids)
    else:
        assert sorted(table.scan().to_arrow()["id"].to_pylist()) == sorted(ids)


if __name__ == "__main__":
    worker()
