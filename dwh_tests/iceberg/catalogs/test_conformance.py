"""What every catalog and every store has to keep when `IcebergWriter` writes: one suite for all of them.

A new catalog is one more entry of `PLACES`. Rows are read back through PyIceberg's own scan and, where files
are local, through DuckDB's `iceberg` extension.
"""

from __future__ import annotations

import datetime as dt
import socket
import time
import traceback
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import IO, Any, cast
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow.fs import FileSelector
from pyiceberg.catalog import Catalog
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.table import Table
from pyiceberg.types import LongType

from dwh_assets.config import IcebergWriterConfig
from dwh_assets.errors import DwhError, UnavailableError
from dwh_assets.iceberg.doctor.examination import CHECKS
from dwh_assets.iceberg.matching.live_rows import local_file
from dwh_assets.iceberg.results import WriteResult
from dwh_assets.iceberg.write import IcebergWriter
from dwh_tests.iceberg.conftest import Row, duckdb_rows, multiset
from dwh_tests.servers.fixtures import CATALOGS, STORES
from dwh_tests.servers.moto import MotoServer
from dwh_tests.servers.object_store import FILE_IOS, ObjectStore
from dwh_tests.servers.process import Server

SERVED = [*CATALOGS, "hadoop-s3", *(f"{store}-{file_io}" for store in STORES for file_io in FILE_IOS)]
PLACES = ["sqlite", "hadoop", *(pytest.param(name, marks=pytest.mark.server) for name in SERVED)]
ROWS = pa.schema([("id", pa.int64()), ("region", pa.string()), ("amount", pa.decimal128(12, 2))])
# What does not depend on the catalog is proved on local files, which DuckDB reads itself, and on one store of
# each kind, whose files are streamed through PyIceberg's FileIO.
READERS = [
    "sqlite",
    *(pytest.param(n, marks=pytest.mark.server) for n in ("s3-pyarrow", "gcs-fsspec", "adls-fsspec")),
]
each_reader = pytest.mark.parametrize("properties", READERS, indirect=True)
SECRET = "a-secret-that-is-not-shown"


# --- Places ---


@dataclass(frozen=True)
class Place:
    """A catalog and the store of its tables; each test has a namespace of its own there."""

    properties: dict[str, str]
    table_name: str

    def writer(self, **declared: Any) -> IcebergWriter:
        """A writer with a catalog that it opened itself, as another process would have."""
        kind, rest = self.properties["type"], {k: v for k, v in self.properties.items() if k != "type"}
        config: dict[str, Any] = {"catalog": kind, "catalog_config": rest, "table": self.table_name}
        return IcebergWriter(IcebergWriterConfig(**config | declared))

    def write(self, data: Any, *, where: str | None = None, **declared: Any) -> WriteResult:
        return self.writer(**declared).write(data, where=where)

    @property
    def catalog(self) -> Catalog:
        return self.writer().catalog

    @property
    def table(self) -> Table:
        return self.catalog.load_table(self.table_name)

    def rows(self, snapshot_id: int | None = None) -> list[Row]:
        """The rows as PyIceberg reads them; where DuckDB can read them too, it has to agree."""
        table = self.table
        found: list[Row] = table.scan(snapshot_id=snapshot_id).to_arrow().to_pylist()
        if local_file(table.metadata_location):
            others = duckdb_rows(table.metadata_location, snapshot_id).to_pylist()
            assert multiset(others) == multiset(found)
        return found


@pytest.fixture(scope="session", params=PLACES)
def properties(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The properties of one catalog after the other, and of a SQLite catalog on one store after the other."""
    name: str = request.param
    if name in ("sqlite", "hadoop"):
        folder = tmp_path_factory.mktemp(name)
        kind = {"type": "sql", "uri": f"sqlite:///{folder / 'catalog.db'}"}
        return {
            **(kind if name == "sqlite" else {"type": "hadoop"}),
            "warehouse": (folder / "lake").as_uri(),
        }
    if name in CATALOGS:
        server: Server = request.getfixturevalue(CATALOGS[name])
        return server.catalog_properties
    store_name, _, file_io = name.partition("-")
    if store_name == "hadoop":
        moto: MotoServer = request.getfixturevalue("moto_server")
        return {"type": "hadoop", "warehouse": f"{moto.root}/{uuid.uuid4().hex}", **moto.storage_properties}
    store: ObjectStore = request.getfixturevalue(STORES[store_name])
    return store.sql_catalog_properties(file_io)


@pytest.fixture
def place(properties: dict[str, str]) -> Place:
    """One place after the other, without namespace or table."""
    return Place(properties, f"shop_{uuid.uuid4().hex[:10]}.orders")


def orders(*rows: tuple[int, str, int]) -> pa.Table:
    """Rows of id, region and a whole amount."""
    columns = [list(column) for column in zip(*rows, strict=True)] or [[], [], []]
    columns[2] = [Decimal(amount).quantize(Decimal("0.01")) for amount in columns[2]]
    return pa.table(dict(zip(ROWS.names, columns, strict=True)), schema=ROWS)


def seen(rows: Iterable[Row]) -> list[tuple[Any, ...]]:
    """Rows of `orders` in order; a column more comes along."""
    return sorted(tuple(int(v) if isinstance(v, Decimal) else v for v in row.values()) for row in rows)


def interrupted(rows: pa.Table, meanwhile: Any) -> Iterator[pa.RecordBatch]:
    """The rows, but while they are read, and so after the table was loaded, something else happens."""
    yield rows.slice(0, 1).to_batches()[0]
    meanwhile()
    yield from rows.slice(1).to_batches()


# --- Every mode ---


def test_append_creates_what_is_missing_and_adds_one_snapshot_each(place: Place) -> None:
    namespace = place.table_name.partition(".")[0]
    assert not place.catalog.namespace_exists(namespace)
    first = place.write(orders((1, "north", 10), (2, "south", 20)))
    second = place.write(orders((3, "north", 30)))
    assert place.catalog.namespace_exists(namespace)
    assert (first.rows_written, first.operation, first.total_rows) == (2, "append", 2)
    assert (second.parent_snapshot_id, second.total_rows, second.files_added) == (first.snapshot_id, 3, 1)
    assert [s.snapshot_id for s in place.table.snapshots()] == [first.snapshot_id, second.snapshot_id]
    assert seen(place.rows()) == [(1, "north", 10), (2, "south", 20), (3, "north", 30)]
    assert seen(place.rows(first.snapshot_id)) == [(1, "north", 10), (2, "south", 20)]


def test_overwrite_replaces_what_the_filter_matches_and_nothing_else(place: Place) -> None:
    place.write(orders((1, "north", 10), (2, "south", 20), (3, "south", 30)))
    result = place.write(orders((9, "south", 90)), where="region = 'south'", write_mode="overwrite")
    assert (result.rows_deleted, result.rows_inserted, result.total_rows) == (2, 1, 2)
    assert seen(place.rows()) == [(1, "north", 10), (9, "south", 90)]
    assert len(place.table.snapshots()) == 2


def test_overwrite_takes_out_a_whole_partition_without_reading_it(place: Place) -> None:
    layout: dict[str, Any] = {"partition_spec": [{"field": "region"}]}
    place.write(orders((1, "north", 10), (2, "south", 20)), **layout)
    before = {task.file.file_path for task in place.table.scan("region = 'north'").plan_files()}
    place.write(orders((9, "south", 90)), where="region = 'south'", write_mode="overwrite", **layout)
    after = {task.file.file_path for task in place.table.scan("region = 'north'").plan_files()}
    assert before == after
    assert seen(place.rows()) == [(1, "north", 10), (9, "south", 90)]


def test_upsert_marks_what_differs_and_leaves_equal_rows_alone(place: Place) -> None:
    upsert: dict[str, Any] = {"write_mode": "upsert", "key_columns": ["id"]}
    first = place.write(orders(*((n, "north", n) for n in range(1, 9))), **upsert)
    second = place.write(orders((2, "south", 2), (3, "north", 3), (10, "north", 100)), **upsert)
    assert (second.rows_updated, second.rows_unchanged, second.rows_inserted) == (1, 1, 1)
    assert (second.files_removed, second.delete_files_added, second.total_rows) == (0, 1, 9)
    expected = {n: ("north", n) for n in range(1, 9)} | {2: ("south", 2), 10: ("north", 100)}
    assert seen(place.rows()) == [(n, *expected[n]) for n in sorted(expected)]

    # A row that was marked before is not hit again, and its file gets a second delete file.
    place.write(orders((2, "west", 2), (4, "west", 4)), **upsert)
    expected |= {2: ("west", 2), 4: ("west", 4)}
    assert seen(place.rows()) == [(n, *expected[n]) for n in sorted(expected)]
    assert seen(place.rows(first.snapshot_id)) == [(n, "north", n) for n in range(1, 9)]
    assert not place.write(orders((2, "west", 2)), **upsert).changed


def test_upsert_writes_a_file_again_that_loses_most_of_its_rows(place: Place) -> None:
    upsert: dict[str, Any] = {"write_mode": "upsert", "key_columns": ["id"]}
    place.write(orders(*((n, "north", n) for n in range(1, 6))), **upsert)
    place.write(orders((1, "south", 1)), **upsert)
    result = place.write(orders(*((n, "west", n) for n in (2, 3, 4))), **upsert)
    assert (result.files_removed, result.delete_files_added, result.total_rows) == (1, 0, 5)
    # The delete file of before went with the file that it spoke of.
    assert not [task for task in place.table.scan().plan_files() if task.delete_files]
    assert seen(place.rows()) == [
        (1, "south", 1), (2, "west", 2), (3, "west", 3), (4, "west", 4), (5, "north", 5),
    ]  # fmt: skip


# --- Tables that change their shape ---


def test_columns_and_their_data_arrive_in_one_commit(place: Place) -> None:
    place.write(pa.table({"id": pa.array([1], pa.int32()), "note": ["a"]}))
    versions = len(place.table.metadata.metadata_log)
    wider = pa.table({"id": pa.array([2**40], pa.int64()), "note": ["b"], "extra": [1.5]})
    result = place.write(wider)
    table = place.table
    current = table.current_snapshot()
    assert current is not None
    assert len(table.metadata.metadata_log) == versions + 1
    assert (current.schema_id, current.snapshot_id) == (table.schema().schema_id, result.snapshot_id)
    assert table.schema().find_type("id") == LongType()
    rows = sorted(place.rows(), key=lambda row: row["id"])
    assert rows == [{"id": 1, "note": "a", "extra": None}, {"id": 2**40, "note": "b", "extra": 1.5}]


def test_upsert_matches_what_was_written_under_earlier_columns(place: Place) -> None:
    upsert: dict[str, Any] = {"write_mode": "upsert", "key_columns": ["id"]}
    ids = pa.array(range(1, 6), pa.int32())
    place.write(pa.table({"id": ids, "name": list("abcde")}), **upsert)
    with place.table.update_schema() as change:
        change.rename_column("name", "title")
    data = pa.table({"id": pa.array([1, 2, 7], pa.int64()), "title": ["a", "B", "g"], "n": [None, None, 7]})
    result = place.write(data, **upsert)
    assert (result.rows_unchanged, result.rows_updated, result.rows_inserted) == (1, 1, 1)
    titles = {1: "a", 2: "B", 3: "c", 4: "d", 5: "e", 7: "g"}
    assert sorted(tuple(row.values()) for row in place.rows()) == [
        (n, title, 7 if n == 7 else None) for n, title in titles.items()
    ]


def test_upsert_matches_files_of_every_earlier_partitioning(place: Place) -> None:
    upsert: dict[str, Any] = {"write_mode": "upsert", "key_columns": ["id"]}
    everything = {n: ("north" if n % 2 else "south", n) for n in range(1, 13)}
    place.write(orders(*((n, *row) for n, row in everything.items())), **upsert)
    specs: list[list[dict[str, str]]] = [
        [{"field": "region"}],
        [{"field": "id", "transform": "bucket[4]"}],
        [{"field": "region"}, {"field": "id", "transform": "truncate[10]"}],
    ]
    for number, spec in enumerate(specs):
        changed = {n: ("east", 100 * number + n) for n in (1 + number, 5, 20 + number)}
        everything |= changed
        result = place.write(
            orders(*((n, *row) for n, row in changed.items())), partition_spec=spec, **upsert
        )
        assert (result.rows_updated, result.rows_inserted) == (2, 1)
        assert len(place.table.specs()) == number + 2
        assert seen(place.rows()) == [(n, *everything[n]) for n in sorted(everything)]
    deletes = [file for task in place.table.scan().plan_files() for file in task.delete_files]
    assert deletes
    specs_by_file = {task.file.spec_id for task in place.table.scan().plan_files() if task.delete_files}
    assert {file.spec_id for file in deletes} == specs_by_file


# --- Repeats, races, branches ---


def test_a_repeat_with_the_same_key_writes_nothing(place: Place) -> None:
    place.write(orders((0, "north", 0)))
    first = place.write(orders((1, "north", 10)), idempotency_key="monday")
    place.write(orders((2, "north", 20)))
    repeat = place.write(orders((1, "north", 10)), idempotency_key="monday")
    assert repeat.repeated
    assert (repeat.snapshot_id, repeat.rows_written) == (first.snapshot_id, 1)
    assert [row["id"] for row in place.rows()].count(1) == 1
    assert len(place.table.snapshots()) == 3


def test_two_writers_who_meet_both_land_and_double_no_key(place: Place) -> None:
    upsert: dict[str, Any] = {"write_mode": "upsert", "key_columns": ["id"]}
    place.write(orders(*((n, "north", n) for n in range(1, 7))), **upsert)

    def meanwhile() -> None:
        place.write(orders((2, "other", 2), (8, "other", 8), (9, "other", 9)), **upsert)

    mine = orders((2, "mine", 2), (3, "mine", 3), (8, "mine", 8))
    result = place.write(interrupted(mine, meanwhile), **upsert)
    assert result.attempts == 2
    # What the other one inserted is an update by the time that this write lands.
    assert (result.rows_updated, result.rows_inserted, result.total_rows) == (3, 0, 8)
    texts = {1: "north", 2: "mine", 3: "mine", 4: "north", 5: "north", 6: "north", 8: "mine", 9: "other"}
    assert seen(place.rows()) == [(n, text, n) for n, text in texts.items()]
    assert len(place.table.snapshots()) == 3


def test_an_overwrite_also_replaces_what_was_appended_meanwhile(place: Place) -> None:
    place.write(orders((1, "north", 1), (2, "south", 2)))
    rows = orders((7, "south", 7), (8, "south", 8))
    result = place.write(
        interrupted(rows, lambda: place.write(orders((3, "south", 3), (4, "north", 4)))),
        where="region = 'south'",
        write_mode="overwrite",
    )
    assert (result.attempts, result.rows_deleted) == (2, 2)
    assert seen(place.rows()) == [(1, "north", 1), (4, "north", 4), (7, "south", 7), (8, "south", 8)]


def test_a_branch_moves_without_main(place: Place) -> None:
    upsert: dict[str, Any] = {"write_mode": "upsert", "key_columns": ["id"]}
    first = place.write(orders(*((n, "north", n) for n in range(1, 5))), **upsert)
    audit = place.write(orders((1, "audit", 1), (9, "audit", 9)), branch="audit", **upsert)
    again = place.write(orders((9, "audit", 90)), branch="audit", **upsert)
    refs = place.table.refs()
    assert (refs["main"].snapshot_id, refs["audit"].snapshot_id) == (first.snapshot_id, again.snapshot_id)
    assert (audit.parent_snapshot_id, again.parent_snapshot_id) == (first.snapshot_id, audit.snapshot_id)
    unchanged = [(n, "north", n) for n in range(1, 5)]
    assert seen(place.rows()) == unchanged
    assert seen(place.rows(again.snapshot_id)) == [(1, "audit", 1), *unchanged[1:], (9, "audit", 90)]


# --- Files of a store are streamed: the same rows, at the same positions ---


@each_reader
def test_positions_hold_across_the_batches_of_a_long_file(place: Place) -> None:
    count = 300_000
    upsert: dict[str, Any] = {"write_mode": "upsert", "key_columns": ["id"]}
    groups: dict[str, Any] = {"table_properties": {"write.parquet.row-group-limit": "70000"}}
    ids = pa.array(range(count), pa.int64())
    place.write(pa.table({"id": ids, "n": pa.array([0] * count, pa.int64())}), **groups)
    hit = [0, 69_999, 70_000, 122_879, 122_880, 131_071, 131_072, 262_144, count - 1]
    place.write(pa.table({"id": pa.array(hit, pa.int64()), "n": pa.array(hit, pa.int64())}), **upsert)
    # The second time the rows that were marked are passed over.
    again = hit[2:5]
    place.write(pa.table({"id": again, "n": [-n for n in again]}), **upsert)
    found = place.table.scan().to_arrow()
    expected = dict.fromkeys(hit, 0) | {n: n for n in hit} | {n: -n for n in again}
    changed = {row["id"]: row["n"] for row in found.filter(pa.compute.field("n") != 0).to_pylist()}
    assert found.num_rows == count == pa.compute.count_distinct(found["id"]).as_py()
    assert changed == {n: value for n, value in expected.items() if value}


def typed(*numbers: int, text: str = "t") -> pa.Table:
    """Rows of every kind of type; every third one has nothing but its key."""
    inner = pa.struct([("x", pa.int32()), ("y", pa.string())])
    schema = pa.schema(
        [
            ("id", pa.int64()),
            ("text", pa.string()),
            ("flag", pa.bool_()),
            ("ratio", pa.float64()),
            ("price", pa.decimal128(20, 4)),
            ("day", pa.date32()),
            ("clock", pa.time64("us")),
            ("local", pa.timestamp("us")),
            ("instant", pa.timestamp("us", "UTC")),
            ("raw", pa.binary()),
            ("code", pa.binary(4)),
            ("key", pa.uuid()),
            ("point", inner),
            ("points", pa.list_(inner)),
            ("numbers", pa.list_(pa.int64())),
            ("labels", pa.map_(pa.string(), pa.int64())),
        ]
    )
    moment = dt.datetime.fromisoformat("2024-03-31T01:30:15.123456")

    def row(n: int) -> Row:
        return {
            "id": n,
            "text": f"{text}{n}",
            "flag": n % 2 == 0,
            "ratio": float("nan") if n % 5 == 0 else n / 3,
            "price": Decimal(n).scaleb(-4),
            "day": moment.date() + dt.timedelta(n),
            "clock": moment.time(),
            "local": moment + dt.timedelta(hours=n),
            "instant": (moment + dt.timedelta(hours=n)).replace(tzinfo=dt.UTC),
            "raw": bytes([0, n % 256, 255]),
            "code": n.to_bytes(4, "big"),
            "key": uuid.UUID(int=n).bytes,
            "point": {"x": n, "y": None},
            "points": [] if n % 2 else [{"x": None, "y": "p"}, None],
            "numbers": [n, None],
            "labels": [("a", n), ("b", None)],
        }

    rows = [{"id": n} if n % 3 == 0 else row(n) for n in numbers]
    return pa.Table.from_pylist(rows, schema=schema)


@each_reader
def test_rows_of_every_type_are_told_from_changed_ones(place: Place) -> None:
    upsert: dict[str, Any] = {"write_mode": "upsert", "key_columns": ["id"]}
    place.write(typed(*range(1, 13)), **upsert)
    assert not place.write(typed(*range(1, 13)), **upsert).changed
    result = place.write(pa.concat_tables([typed(1, 2, 3), typed(4, 5, text="u")]), **upsert)
    assert (result.rows_unchanged, result.rows_updated, result.rows_inserted) == (3, 2, 0)


@each_reader
@pytest.mark.parametrize("key", ["day", "instant", "raw", "key", "price", "text"])
def test_keys_of_every_type_find_their_row(place: Place, key: str) -> None:
    upsert: dict[str, Any] = {"write_mode": "upsert", "key_columns": [key]}
    numbers = [1, 2, 4, 5, 7, 8, 10, 11]
    columns = ["id", key]
    place.write(typed(*numbers).select(columns), **upsert)
    moved = typed(4, 13).select(columns).set_column(0, "id", pa.array([400, 1300], pa.int64()))
    result = place.write(moved, **upsert)
    assert (result.rows_updated, result.rows_inserted, result.delete_files_added) == (1, 1, 1)
    found = place.table.scan().to_arrow()["id"].to_pylist()
    assert sorted(found) == [1, 2, 5, 7, 8, 10, 11, 400, 1300]


@each_reader
def test_copy_on_write_keeps_every_value_of_the_other_rows(place: Place) -> None:
    """Nulls in nested columns too, which PyIceberg's reader loses: the files themselves are looked at."""
    upsert: dict[str, Any] = {"write_mode": "upsert", "key_columns": ["id"]}
    place.write(typed(*range(1, 10)), **upsert)
    before = multiset(row for row in in_files(place.table) if row["id"] != 2)
    place.write(typed(2, text="u"), row_changes="copy-on-write", **upsert)
    assert multiset(row for row in in_files(place.table) if row["id"] != 2) == before
    assert [row["text"] for row in in_files(place.table) if row["id"] == 2] == ["u2"]


@each_reader
@pytest.mark.parametrize(
    ("path", "new_path"),
    [(("point", "x"), "point.xx"), (("points", "element", "x"), "points.element.xx"), (("point",), "spot")],
)
@pytest.mark.parametrize("row_changes", ["merge-on-read", "copy-on-write"])
def test_renamed_fields_of_structs_keep_their_values(
    place: Place, path: tuple[str, ...], new_path: str, row_changes: str
) -> None:
    upsert: dict[str, Any] = {"write_mode": "upsert", "key_columns": ["id"], "row_changes": row_changes}
    columns = ["id", "point", "points"]
    # None without a value: PyIceberg, which is asked here, reads a null list of structs as an empty one.
    place.write(typed(1, 2, 4, 5, 7, 8, 10, 11).select(columns), **upsert)
    with place.table.update_schema() as change:
        change.rename_column(path, new_path.rpartition(".")[2])
    before = place.rows()
    table = place.table.scan().to_arrow()
    equal = table.filter(pa.compute.field("id") == 4)
    moved = table.filter(pa.compute.field("id") == 5)
    moved = moved.set_column(0, table.schema.field("id"), pa.array([2], pa.int64()))
    result = place.write(pa.concat_tables([equal, moved]), **upsert)
    assert (result.rows_unchanged, result.rows_updated, result.rows_inserted) == (1, 1, 0)
    expected = [row for row in before if row["id"] != 2] + moved.to_pylist()
    assert multiset(place.rows()) == multiset(expected)


def in_files(table: Table) -> list[Row]:
    """Every row of the live data files, as Parquet has them; not for tables with delete files."""
    rows: list[Row] = []
    for task in table.scan().plan_files():
        assert not task.delete_files
        with table.io.new_input(task.file.file_path).open() as stream:
            rows += pq.ParquetFile(cast("IO[bytes]", stream)).read().to_pylist()
    return rows


# --- The doctor ---


def test_the_doctor_finds_all_well_changes_nothing_and_leaves_nothing(place: Place) -> None:
    place.write(orders((1, "north", 10)))
    before = place.table
    checks = place.writer().doctor(orders((2, "south", 20)))
    assert {check.name: check.status for check in checks} == dict.fromkeys(CHECKS, "ok"), checks
    after = place.table
    assert (after.metadata_location, after.metadata) == (before.metadata_location, before.metadata)
    namespace = place.table_name.partition(".")[0]
    assert [name for *_, name in place.catalog.list_tables(namespace)] == ["orders"]
    assert left_by_the_doctor(after) == []


def test_the_doctor_of_a_table_that_is_not_there_makes_neither_it_nor_its_namespace(place: Place) -> None:
    checks = {check.name: check.status for check in place.writer().doctor()}
    assert {name for name, status in checks.items() if status != "ok"} == {
        "namespace_exists", "table_exists", "schema_compatible",
    }  # fmt: skip
    names = [".".join(name) for name in place.catalog.list_namespaces()]
    assert [name for name in names if "dwh_doctor" in name or name in place.table_name] == []


def left_by_the_doctor(table: Table) -> list[str]:
    """What lies in or beside the table's folder and has a name of the doctor's."""
    parent = table.location().rstrip("/").rpartition("/")[0]
    if isinstance(table.io, PyArrowFileIO):
        scheme, netloc, path = table.io.parse_location(parent)
        files = table.io.fs_by_scheme(scheme, netloc)
        names = [info.path for info in files.get_file_info(FileSelector(path, recursive=True))]
    else:
        store = fsspec_filesystem(table)
        store.invalidate_cache()
        names = store.find(parent, withdirs=True)
    assert any("orders" in name for name in names), "it looks in the wrong place"
    return [name for name in names if "dwh_doctor" in name]


def fsspec_filesystem(table: Table) -> Any:
    """The file system of a table that is read and written through fsspec."""
    uri = urlsplit(table.location())
    return cast("Any", table.io).get_fs(uri.scheme, uri.hostname)


# --- Catalogs that do not answer ---


def unreachable(kind: str, port: int) -> dict[str, str]:
    """The properties of a catalog where nobody listens."""
    address = f"127.0.0.1:{port}"
    access = {"region": "us-east-1", "access-key-id": "ann", "secret-access-key": SECRET}
    store = {f"s3.{key}": value for key, value in access.items()} | {"s3.endpoint": f"http://{address}"}
    return {
        "sql": {"uri": f"postgresql+psycopg2://ann:{SECRET}@{address}/db", "warehouse": "s3://none/lake"},
        "rest": {"uri": f"http://{address}", "token": SECRET},
        "hive": {"uri": f"thrift://ann:{SECRET}@{address}"},
        "glue": {
            "warehouse": "s3://none/lake",
            "glue.endpoint": f"http://{address}",
            **{f"glue.{key}": value for key, value in access.items()},
        },
        "hadoop": {"warehouse": "s3://none/lake", **store},
    }[kind]


@pytest.mark.parametrize("kind", ["sql", "rest", "hive", "glue", "hadoop"])
def test_a_catalog_that_does_not_answer_is_named_without_its_secrets(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # botocore tries for a minute and a half, most of which it sleeps.
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with socket.socket() as reserved:
        # Bound but never listening: a connection is refused, and nobody else takes the port.
        reserved.bind(("127.0.0.1", 0))
        properties = unreachable(kind, reserved.getsockname()[1])
        config: dict[str, Any] = {"catalog": kind, "catalog_config": properties, "table": "shop.orders"}
        started = time.monotonic()
        with pytest.raises(DwhError) as caught:
            IcebergWriter(IcebergWriterConfig(**config)).write(orders((1, "north", 1)))
    assert isinstance(caught.value, UnavailableError)
    assert caught.value.remedy
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert time.monotonic() - started < 60


@pytest.mark.parametrize("kind", ["sql", "rest", "glue", "hadoop"])
def test_a_declaration_shows_no_secret_of_its_catalog(kind: str) -> None:
    config: dict[str, Any] = {"catalog": kind, "catalog_config": unreachable(kind, 1), "table": "a.b"}
    declared = IcebergWriterConfig(**config)
    assert SECRET not in f"{declared!r} {declared} {declared.resolved_catalog()!r}"


# --- What a result says ---


@each_reader
def test_total_rows_counts_no_delete_file_that_marks_nothing(place: Place) -> None:
    """Other engines write a data file again and leave the delete file that spoke of it."""
    upsert: dict[str, Any] = {"write_mode": "upsert", "key_columns": ["id"]}
    place.write(orders(*((n, "north", n) for n in range(1, 9))), **upsert)
    marked = place.write(orders((2, "south", 2)), **upsert)
    assert (marked.delete_files_added, marked.total_rows) == (1, 8)
    place.table.delete("id = 8")
    result = place.write(orders((9, "north", 9)))
    assert result.total_rows == len(place.rows()) == 8
