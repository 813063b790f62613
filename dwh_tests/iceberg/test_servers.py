"""The test servers themselves, by PyIceberg alone: what fails here is no fault of the code under test."""

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.catalog import Catalog, load_catalog
from pyiceberg.table import Table

from dwh_tests.servers.moto import MotoServer
from dwh_tests.servers.object_store import ObjectStore

pytestmark = pytest.mark.server

SCHEMA = pa.schema([("id", pa.int64()), ("text", pa.string())])


def test_catalog_keeps_what_it_is_told(each_catalog: dict[str, str]) -> None:
    _prove(each_catalog)


def test_store_keeps_what_it_is_told(each_store_catalog: dict[str, str]) -> None:
    _prove(each_store_catalog)


def test_tables_lie_on_the_store(each_store: ObjectStore) -> None:
    table = _new_table(load_catalog("test", **each_store.catalog_properties))
    table.append(_rows(0, 3))
    files = [task.file.file_path for task in table.scan().plan_files()]
    assert len(files) == 1
    assert all(path.startswith(f"{each_store.root}/") for path in [table.location(), *files])


@pytest.mark.parametrize("write", ["put", "multipart"])
def test_s3_lets_one_of_racing_writers_win(moto_server: MotoServer, write: str) -> None:
    """What a catalog without a server stands on: a version is written once."""
    client = moto_server.client("s3")
    writers = 8

    def race(key: str) -> int:
        barrier = threading.Barrier(writers)
        with ThreadPoolExecutor(writers) as pool:
            tries = [
                pool.submit(_written_first, client, moto_server.bucket, key, barrier, write)
                for _ in range(writers)
            ]
            return sum(attempt.result() for attempt in tries)

    name = uuid.uuid4().hex
    assert [race(f"race/{name}/{number}") for number in range(10)] == [1] * 10


def test_s3_replaces_only_what_was_read(moto_server: MotoServer) -> None:
    client, where = moto_server.client("s3"), {"Bucket": moto_server.bucket, "Key": uuid.uuid4().hex}
    first = client.put_object(**where, Body=b"1")["ETag"]
    client.put_object(**where, Body=b"2", IfMatch=first)
    with pytest.raises(client.exceptions.ClientError, match="PreconditionFailed"):
        client.put_object(**where, Body=b"3", IfMatch=first)
    assert client.get_object(**where)["Body"].read() == b"2"


def test_glue_refuses_an_update_of_another_version(moto_server: MotoServer) -> None:
    """What keeps a commit from being lost."""
    glue, database = moto_server.client("glue"), f"proof_{uuid.uuid4().hex[:8]}"
    glue.create_database(DatabaseInput={"Name": database})
    glue.create_table(DatabaseName=database, TableInput={"Name": "rows"})
    seen = glue.get_table(DatabaseName=database, Name="rows")["Table"]["VersionId"]
    update = {
        "DatabaseName": database,
        "TableInput": {"Name": "rows", "Description": "first"},
        "VersionId": seen,
    }
    glue.update_table(**update)
    with pytest.raises(glue.exceptions.ConcurrentModificationException):
        glue.update_table(**update | {"TableInput": {"Name": "rows", "Description": "second"}})
    assert glue.get_table(DatabaseName=database, Name="rows")["Table"]["Description"] == "first"


def _prove(properties: dict[str, str]) -> None:
    catalog = load_catalog("test", **properties)
    table = _new_table(catalog)

    table.append(_rows(0, 3))
    table = catalog.load_table(table.name())
    assert _ids(table) == [0, 1, 2]

    tagged = table.current_snapshot()
    assert tagged is not None
    table.manage_snapshots().create_tag(tagged.snapshot_id, "first").commit()
    assert catalog.load_table(table.name()).refs()["first"].snapshot_id == tagged.snapshot_id

    _append_at_once(properties, table.name(), [_rows(10, 15), _rows(20, 25)])
    table = catalog.load_table(table.name())
    assert _ids(table) == [0, 1, 2, *range(10, 15), *range(20, 25)]
    assert _ids(table, tagged.snapshot_id) == [0, 1, 2]

    catalog.drop_table(table.name())
    assert not catalog.table_exists(table.name())


def _append_at_once(properties: dict[str, str], name: tuple[str, ...], data: list[pa.Table]) -> None:
    """Append from clients of their own that have all seen the same state of the table."""
    barrier = threading.Barrier(len(data))

    def append(rows: pa.Table) -> None:
        table = load_catalog("test", **properties).load_table(name)
        barrier.wait(timeout=60)
        table.append(rows)

    with ThreadPoolExecutor(len(data)) as pool:
        list(pool.map(append, data))


def _written_first(client: Any, bucket: str, key: str, barrier: threading.Barrier, write: str) -> bool:
    where = {"Bucket": bucket, "Key": key}
    completion: dict[str, Any] = {}
    if write == "multipart":
        upload = client.create_multipart_upload(**where)["UploadId"]
        part = client.upload_part(**where, UploadId=upload, PartNumber=1, Body=b"1")
        parts = [{"ETag": part["ETag"], "PartNumber": 1}]
        completion = {"UploadId": upload, "MultipartUpload": {"Parts": parts}}
    barrier.wait(timeout=60)
    try:
        if completion:
            client.complete_multipart_upload(**where, **completion, IfNoneMatch="*")
        else:
            client.put_object(**where, Body=b"1", IfNoneMatch="*")
    except client.exceptions.ClientError as error:
        if error.response["Error"]["Code"] in ("PreconditionFailed", "ConditionalRequestConflict"):
            return False
        raise
    return True


def _new_table(catalog: Catalog) -> Table:
    namespace = f"proof_{uuid.uuid4().hex[:8]}"
    catalog.create_namespace(namespace)
    return catalog.create_table((namespace, "rows"), SCHEMA)


def _rows(start: int, stop: int) -> pa.Table:
    return pa.table({"id": range(start, stop), "text": [str(n) for n in range(start, stop)]}, schema=SCHEMA)


def _ids(table: Table, snapshot_id: int | None = None) -> list[int]:
    return sorted(table.scan(snapshot_id=snapshot_id).to_arrow()["id"].to_pylist())
