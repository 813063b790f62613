"""Catalogs that stop, buckets that vanish, files that are damaged: each is told, nothing is lost or doubled.

The catalogs are real servers of these tests alone, ended at the worst moment and started again.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from dwh_assets.config import IcebergWriterConfig
from dwh_assets.errors import CommitUnknownError, DamagedError, DwhError, NotFoundError, UnavailableError
from dwh_assets.iceberg.catalogs.load import load_catalog
from dwh_assets.iceberg.write import IcebergWriter
from dwh_tests.faults.test_bad_input import MODES
from dwh_tests.iceberg.conftest import Lake, local
from dwh_tests.servers.fixtures import usable
from dwh_tests.servers.iceberg_rest import IcebergRestServer
from dwh_tests.servers.moto import MotoServer
from dwh_tests.servers.object_store import FILE_IOS
from dwh_tests.servers.postgres import PostgresServer

TABLE = "shop.orders"
each_mode = pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.replace(" ", "-"))


def rows(*ids: int) -> pa.Table:
    return pa.table({"id": pa.array(ids, pa.int64()), "text": [f"t{i}" for i in ids]})


def after(mode: str, old: list[int], new: list[int]) -> list[int]:
    """The keys of the table after new rows were written to old ones."""
    return sorted({"append": [*old, *new], "overwrite": new}.get(mode, {*old, *new}))


def writer(properties: dict[str, str], **declared: Any) -> IcebergWriter:
    rest = {key: value for key, value in properties.items() if key != "type"}
    config: dict[str, Any] = {"catalog": properties["type"], "catalog_config": rest, "table": TABLE}
    return IcebergWriter(IcebergWriterConfig(**config, **declared))


def seen(properties: dict[str, str]) -> tuple[str, list[int]]:
    """Where the table stands, and its keys, as PyIceberg alone reads them."""
    table = load_catalog(properties).load_table(TABLE)
    return table.metadata_location, sorted(table.scan().to_arrow()["id"].to_pylist())


def require_told(error: DwhError) -> None:
    assert TABLE in error.message
    assert error.remedy


# --- Catalogs that stop ---

Stoppable = IcebergRestServer | PostgresServer


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(server, marks=pytest.mark.server, id=server.name)
        for server in (IcebergRestServer, PostgresServer)
    ],
)
def catalog_server(request: pytest.FixtureRequest) -> Iterator[Stoppable]:
    """A catalog of these tests alone, since they end it."""
    with usable(request.param)() as server:
        yield server


@pytest.fixture
def catalog(catalog_server: Stoppable) -> dict[str, str]:
    """Its properties; it holds one table of three rows."""
    properties: dict[str, str] = catalog_server.catalog_properties
    writer(properties, write_mode="overwrite").write(rows(1, 2, 3))
    return properties


def test_a_catalog_that_is_away_is_named_with_the_table(
    catalog_server: Stoppable, catalog: dict[str, str]
) -> None:
    before = seen(catalog)
    opened = writer(catalog)
    catalog_server.crash()
    try:
        with pytest.raises(UnavailableError, match="does not answer") as raised:
            opened.write(rows(4))
    finally:
        catalog_server.start_again()
    require_told(raised.value)
    assert seen(catalog) == before
    opened.write(rows(4))
    assert seen(catalog)[1] == [1, 2, 3, 4]


@pytest.mark.parametrize("mode", ["append", "overwrite", "upsert"])
def test_a_catalog_that_stops_before_the_commit_leaves_it_unknown_and_the_table_as_it_was(
    catalog_server: Stoppable, catalog: dict[str, str], mode: str
) -> None:
    """The request may have been on its way, so the files stay; a repeat by the same key lands once."""
    before = seen(catalog)
    opened = writer(catalog, idempotency_key=f"{mode} once", **MODES[mode])

    def stopping() -> Iterator[pa.RecordBatch]:
        yield from rows(1, 7).to_batches()
        catalog_server.crash()

    try:
        with pytest.raises(CommitUnknownError, match="the catalog did not answer") as raised:
            opened.write(stopping())
    finally:
        catalog_server.start_again()
    require_told(raised.value)
    assert seen(catalog) == before
    for repeated in (False, True):
        assert opened.write(rows(1, 7)).repeated == repeated
        assert seen(catalog)[1] == after(mode, [1, 2, 3], [1, 7])


# --- Buckets that vanish ---


class Bucket:
    """A bucket of its own on S3, with a SQLite catalog for the tables in it; it can go and come back."""

    def __init__(self, store: MotoServer, folder: Path, file_io: str) -> None:
        self.name = f"b{uuid.uuid4().hex[:12]}"
        self._client = store.client("s3")
        self._client.create_bucket(Bucket=self.name)
        self._saved: dict[str, bytes] = {}
        self.properties = {
            **store.sql_catalog_properties(file_io),
            "uri": f"sqlite:///{folder / 'catalog.db'}",
            "warehouse": f"s3://{self.name}/lake",
        }

    def objects(self) -> set[str]:
        found = self._client.list_objects_v2(Bucket=self.name).get("Contents", [])
        return {one["Key"] for one in found}

    def vanish(self) -> None:
        for key in self.objects():
            self._saved[key] = self._client.get_object(Bucket=self.name, Key=key)["Body"].read()
            self._client.delete_object(Bucket=self.name, Key=key)
        self._client.delete_bucket(Bucket=self.name)

    def come_back(self) -> None:
        self._client.create_bucket(Bucket=self.name)
        for key, content in self._saved.items():
            self._client.put_object(Bucket=self.name, Key=key, Body=content)


@pytest.fixture(params=FILE_IOS)
def bucket(request: pytest.FixtureRequest, moto_server: MotoServer, tmp_path: Path) -> Bucket:
    """A bucket that holds a table of three rows in two files."""
    made = Bucket(moto_server, tmp_path, request.param)
    writer(made.properties).write(rows(1, 2))
    writer(made.properties).write(rows(3))
    return made


@pytest.mark.server
@each_mode
@pytest.mark.parametrize("when", ["before the write", "during the write"], ids=lambda when: when.split()[0])
def test_a_bucket_that_vanishes_is_told_and_back_again_holds_the_table(
    bucket: Bucket, mode: str, when: str
) -> None:
    before, files = seen(bucket.properties), bucket.objects()
    opened = writer(bucket.properties, **MODES[mode])
    if when == "before the write":
        bucket.vanish()

    def data() -> Iterator[pa.RecordBatch]:
        yield from rows(1, 7).to_batches()
        if when == "during the write":
            bucket.vanish()

    with pytest.raises(NotFoundError, match="is gone") as raised:
        opened.write(data())
    require_told(raised.value)
    bucket.come_back()
    assert (seen(bucket.properties), bucket.objects()) == (before, files)
    opened.write(rows(1, 7))
    assert seen(bucket.properties)[1] == after(mode, [1, 2, 3], [1, 7])


@pytest.mark.server
def test_a_bucket_that_vanishes_in_a_stream_keeps_what_was_committed(bucket: Bucket) -> None:
    def stream(vanishing: bool) -> Iterator[pa.RecordBatch]:
        for number in range(4, 10):
            if vanishing and number == 7:
                bucket.vanish()
            yield from rows(number).to_batches()

    opened = writer(bucket.properties)
    with pytest.raises(NotFoundError, match="is gone") as raised:
        opened.write_stream(stream(True), "orders", commit_rows=2)
    require_told(raised.value)
    bucket.come_back()
    assert seen(bucket.properties)[1] == [1, 2, 3, 4, 5]
    assert opened.write_stream(stream(False), "orders", commit_rows=2).rows == 4
    assert seen(bucket.properties)[1] == list(range(1, 10))


# --- Files that are damaged or gone ---


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def garbled(content: bytes) -> bytes:
    return b"junk" * (len(content) // 4)


def emptied(content: bytes) -> bytes:
    return b""


def newest(lake: Lake, suffix: str) -> Path:
    """The newest file of a kind that the table stands on."""
    table = lake.table
    snapshot = table.current_snapshot()
    assert snapshot is not None
    if suffix == "metadata":
        return Path(local(table.metadata_location))
    if suffix == "manifest list":
        return Path(local(snapshot.manifest_list))
    manifest = snapshot.manifests(table.io)[0]
    if suffix == "manifest":
        return Path(local(manifest.manifest_path))
    return Path(local(manifest.fetch_manifest_entry(table.io)[0].data_file.file_path))


# Who needs which file: an append does not look at the manifests and data of others.
NEEDED = {
    "metadata": tuple(MODES),
    "manifest list": tuple(MODES),
    "manifest": ("overwrite", "upsert", "upsert by copies", "merge"),
    "data": ("upsert", "upsert by copies", "merge"),
}


@pytest.mark.parametrize("damage", [None, cut, garbled, emptied], ids=["gone", "cut", "garbled", "emptied"])
@pytest.mark.parametrize(
    ("kind", "mode"),
    [(kind, mode) for kind, modes in NEEDED.items() for mode in modes],
    ids=lambda part: part.replace(" ", "-"),
)
def test_a_damaged_file_is_named_and_nothing_changes(
    tmp_path: Path, kind: str, mode: str, damage: Callable[[bytes], bytes] | None
) -> None:
    lake = Lake(tmp_path, TABLE)
    lake.write(rows(1, 2))
    lake.write(rows(1, 3))
    path = newest(lake, kind)
    content = path.read_bytes()
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage(content))
    files = lake.on_disk()
    with pytest.raises(NotFoundError if damage is None else DamagedError) as raised:
        lake.write(rows(1, 7), **MODES[mode])
    require_told(raised.value)
    assert (path.name if kind != "metadata" or damage is None else "metadata") in raised.value.message
    assert lake.on_disk() == files
    path.write_bytes(content)
    lake.write(rows(1, 7), **MODES[mode])
    expected = {"append": [1, 1, 1, 2, 3, 7], "overwrite": [1, 7]}.get(mode)
    assert lake.column("id") == (expected or ([1, 1, 2, 3, 7] if mode == "merge" else [1, 2, 3, 7]))
