"""Where rows go: partitions, sorted files of the target size, bounded memory, nothing left on failure."""

from __future__ import annotations

import datetime as dt
import math
import os
import uuid
from collections import Counter, defaultdict
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyiceberg.expressions import (
    BooleanExpression,
    EqualTo,
    IsNaN,
    IsNull,
    Reference,
)
from pyiceberg.transforms import parse_transform

from dwh_assets.errors import ConfigurationError, DataError, UnavailableError, UnsupportedError
from dwh_assets.iceberg.files import layout
from dwh_assets.iceberg.files.data_files import OpenDataFile
from dwh_tests.iceberg.conftest import Lake, duckdb_rows, file_rows, local, multiset

MOMENTS = [-1, 0, -86_400_000_000 - 1, 31_622_400_000_000, None, 1_700_000_000_000_000]
NAN = float("nan")
COLUMNS: dict[str, pa.Array] = {
    "flag": pa.array([True, False, None, True, False, True]),
    "int": pa.array([-7, 3, None, 7, -1, 0], pa.int32()),
    "long": pa.array([-(2**40), 34, None, 7, -1, 34]),
    "float": pa.array([-1.5, NAN, None, -0.0, 0.0, NAN], pa.float32()),
    "double": pa.array([-1.5, NAN, None, -0.0, 0.0, math.inf]),
    "decimal": pa.array(
        [Decimal(v) if v else None for v in ("-10.65", "14.20", None, "0.00", "-0.01", "1.23")],
        pa.decimal128(9, 2),
    ),
    "wide": pa.array(
        [Decimal(-(10**30)), Decimal(10**30), None, Decimal(0), Decimal(-1), Decimal(7)], pa.decimal128(38, 0)
    ),
    "day": pa.array([-1, 0, -366, 400, None, 17501], pa.date32()),
    "clock": pa.array([81_068_000_000, 0, None, 1, 2, 3], pa.time64("us")),
    "moment": pa.array(MOMENTS, pa.timestamp("us")),
    "instant": pa.array(MOMENTS, pa.timestamp("us", "Europe/Berlin")),
    "text": pa.array(["iceberg", "", "日本語テキスト", None, "a/b=c %é", "icecream"]),
    "bytes": pa.array([b"\x00\xff", b"", None, b"abcdef", b"abczzz", b"\xff"]),
    "fixed": pa.array([b"abc", b"\x00\xff\x01", None, b"abc", b"xyz", b"abd"], pa.binary(3)),
    "uuid": pa.array(
        [uuid.UUID(int=i << 120).bytes if i else None for i in (1, 255, 0, 1, 7, 128)], pa.uuid()
    ),
}
TIMES = ["year", "month", "day", "hour"]
WHOLE = ["identity", "void"]
HASHED = [*WHOLE, "bucket[4]", "bucket[1000]"]
TRANSFORMS: dict[str, list[str]] = {
    "flag": WHOLE,
    "int": [*HASHED, "truncate[3]"],
    "long": [*HASHED, "truncate[10]"],
    "float": WHOLE,
    "double": WHOLE,
    "decimal": [*HASHED, "truncate[50]"],
    "wide": [*HASHED, "truncate[1000]"],
    "day": [*HASHED, *TIMES[:3]],
    "clock": HASHED,
    "moment": [*HASHED, *TIMES],
    "instant": [*HASHED, *TIMES],
    "text": [*HASHED, "truncate[3]"],
    "bytes": [*HASHED, "truncate[3]"],
    "fixed": HASHED,
    "uuid": HASHED,
}
# A decimal, a fixed or a uuid may stand in a spec once.
CASES = [
    (column, chosen)
    for column, transforms in TRANSFORMS.items()
    for chosen in (
        [one for one in transforms if not one.startswith(("truncate", "void"))],
        *([one] for one in transforms if one.startswith(("truncate", "void"))),
    )
]
# "Appendix B: 32-bit Hash Requirements" of the Iceberg table specification.
SPEC_HASHES: list[tuple[pa.Array, int]] = [
    (pa.array([34], pa.int32()), 2017239379),
    (pa.array([34]), 2017239379),
    (pa.array([Decimal("14.20")]), -500754589),
    (pa.array([dt.date(2017, 11, 16)]), -653330422),
    (pa.array([81_068_000_000], pa.time64("us")), -662762989),
    (pa.array([1_510_871_468_000_000], pa.timestamp("us")), -2047944441),
    (pa.array([1_510_871_468_000_000], pa.timestamp("us", "UTC")), -2047944441),
    (pa.array(["iceberg"]), 1210000089),
    (pa.array([uuid.UUID("f79c3e09-677c-4bbd-a479-3f349cb785e7").bytes], pa.uuid()), 1488055340),
    (pa.array([b"\x00\x01\x02\x03"]), -188683207),
    (pa.array([b"\x00\x01\x02\x03"], pa.binary(4)), -188683207),
]


def by(field: str, transform: str = "identity") -> dict[str, str]:
    return {"field": field, "transform": transform}


def numbered(array: pa.Array) -> pa.Table:
    return pa.table({"row": range(len(array)), "v": array})


def partitions(lake: Lake) -> dict[int, tuple[Any, ...]]:
    """The partition of each row's file, by the row's number."""
    return {
        row: tuple(file.partition[position] for position in range(len(file.partition)))
        for file in lake.data_files()
        for row in file_rows(file)["row"].to_pylist()
    }


def internal(value: Any) -> Any:
    """A value as Iceberg counts it: days, and microseconds."""
    if isinstance(value, dt.datetime):
        epoch = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
        return (value.replace(tzinfo=value.tzinfo or dt.UTC) - epoch) // dt.timedelta(microseconds=1)
    if isinstance(value, dt.date):
        return (value - dt.date(1970, 1, 1)).days
    if isinstance(value, dt.time):
        return ((value.hour * 60 + value.minute) * 60 + value.second) * 10**6 + value.microsecond
    return value


@pytest.mark.parametrize(("column", "transforms"), CASES)
def test_partition_values_are_those_of_pyiceberg(lake: Lake, column: str, transforms: list[str]) -> None:
    array = COLUMNS[column]
    lake.write(numbered(array), partition_spec=[by("v", transform) for transform in transforms])
    iceberg = lake.table.schema().find_type("v")
    of_value = [parse_transform(transform).transform(iceberg) for transform in transforms]
    values = array.to_pylist()
    expected = {row: repr(tuple(of(internal(value)) for of in of_value)) for row, value in enumerate(values)}
    assert {row: repr(value) for row, value in partitions(lake).items()} == expected
    assert len(lake.data_files()) == len(set(expected.values()))
    rows = sorted(lake.rows(), key=lambda row: row["row"])
    known = pa.table({"v": duckdb_type_of(array)})["v"].to_pylist()
    assert [repr(row["v"]) for row in rows] == [repr(value) for value in known]
    for value in values:
        same = [row for row, other in enumerate(values) if repr(other) == repr(value) or other == value]
        where = "v IS NOT DISTINCT FROM ?" if value is not None else "v IS NULL"
        found = duckdb_rows(
            lake.table.metadata_location, where=where, values=[] if value is None else [value]
        )
        assert sorted(found["row"].to_pylist()) == same
        if column != "uuid":  # PyIceberg cannot compare them
            scanned = lake.table.scan(row_filter=equal_to(value)).to_arrow()
            assert sorted(scanned["row"].to_pylist()) == same


def duckdb_type_of(array: pa.Array) -> pa.Array:
    """The array as DuckDB would return it."""
    if isinstance(array, pa.ExtensionArray):
        return pa.array([value and str(value) for value in array.to_pylist()])
    return array.cast(pa.timestamp("us", "UTC")) if str(array.type).startswith("timestamp[us, ") else array


@pytest.mark.parametrize(("array", "hashed"), SPEC_HASHES, ids=lambda v: str(getattr(v, "type", v)))
def test_buckets_are_those_of_the_specification(lake: Lake, array: pa.Array, hashed: int) -> None:
    lake.write(numbered(array), partition_spec=[by("v", "bucket[1000003]")])
    assert partitions(lake) == {0: ((hashed & 0x7FFFFFFF) % 1000003,)}


def equal_to(value: Any, name: str = "v") -> BooleanExpression:
    term = Reference(name)
    if value is None:
        return IsNull(term=term)
    if value != value:
        return IsNaN(term=term)
    moment = isinstance(value, dt.date | dt.time)
    return EqualTo(term=term, value=value.isoformat() if moment else value)


@pytest.mark.parametrize(
    ("spec", "names"),
    [
        ([by("i", "bucket[2]"), by("i", "bucket[4]"), by("i")], ["i_bucket", "i_bucket_4", "i"]),
        ([by("s", "truncate[1]"), by("s", "truncate[2]")], ["s_trunc", "s_trunc_2"]),
        ([by("t", one) for one in TIMES], ["t_year", "t_month", "t_day", "t_hour"]),
        ([by("t", "day"), by("taken", "day")], ["t_day", "taken_day_2"]),
        ([by("i", "void"), by("s")], ["i_null", "s"]),
        ([by("place.zip"), by("place.zip", "truncate[1]")], ["place.zip", "place.zip_trunc"]),
    ],
)
def test_several_fields_and_their_names(lake: Lake, spec: list[dict[str, str]], names: list[str]) -> None:
    moments = pa.array([1, 2, None, 10**15], pa.timestamp("us"))
    rows = pa.table(
        {
            "i": [1, 2, 3, None],
            "s": ["abc", "abd", "x", None],
            "t": moments,
            "taken": moments,
            "taken_day": [1, 2, 3, 4],
            "place": [{"zip": "10115"}, None, {"zip": None}, {"zip": "80331"}],
        }
    )
    lake.write(rows, partition_spec=spec)
    assert [field.name for field in lake.table.spec().fields] == names
    assert multiset(lake.rows()) == multiset(rows.to_pylist())


@pytest.mark.parametrize(
    ("spec", "word"),
    [
        ([by("nope")], "'nope'"),
        ([by("flag", "bucket[4]")], "boolean"),
        ([by("text", "day")], "string"),
        ([by("tags")], "'tags'"),
        ([by("tags.element")], "'tags.element'"),
        ([by("pairs.value")], "'pairs.value'"),
        ([by("text"), by("text")], "twice"),
        ([by("price"), by("price", "truncate[10]")], r"decimal\(9, 2\)"),
        ([by("price"), by("tax")], r"decimal\(9, 2\)"),
    ],
)
@pytest.mark.parametrize("new", [True, False], ids=["new table", "known table"])
def test_what_cannot_partition_is_refused(
    lake: Lake, spec: list[dict[str, str]], word: str, new: bool
) -> None:
    money = COLUMNS["decimal"][:1]
    pairs = pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64()))
    rows = pa.table(
        {"flag": [True], "text": ["x"], "tags": [["a"]], "pairs": pairs, "price": money, "tax": money}
    )
    if not new:
        lake.write(rows)
    with pytest.raises((ConfigurationError, UnsupportedError), match=word):
        lake.write(rows, partition_spec=spec)
    assert lake.catalog.table_exists(lake.name) is not new


def test_partitioning_evolves_and_old_files_stay_readable(lake: Lake) -> None:
    def rows(start: int) -> pa.Table:
        return pa.table({"i": range(start, start + 9), "s": list("abcabcabc")})

    specs = [
        [],
        [by("i", "bucket[2]")],
        [by("i", "bucket[4]")],
        [by("s"), by("i", "bucket[2]")],
        [by("i", "bucket[2]")],
    ]
    for number, spec in enumerate(specs):
        lake.write(rows(10 * number), partition_spec=spec)
    lake.write(rows(90))
    metadata = lake.metadata
    named = [
        [(f["field-id"], f["name"], f["transform"]) for f in s["fields"]] for s in metadata["partition-specs"]
    ]
    assert named == [
        [],
        [(1000, "i_bucket", "bucket[2]")],
        [(1001, "i_bucket_4", "bucket[4]")],
        [(1002, "s", "identity"), (1000, "i_bucket", "bucket[2]")],
    ]
    assert (metadata["default-spec-id"], metadata["last-partition-id"]) == (1, 1002)
    assert Counter(file.spec_id for file in lake.data_files()) == {0: 1, 1: 6, 2: 4, 3: 6}
    assert lake.column("i") == sorted(i for n in [0, 1, 2, 3, 4, 9] for i in range(10 * n, 10 * n + 9))
    replaced = lake.write(pa.table({"i": [100], "s": ["a"]}), write_mode="overwrite", where="s = 'a'")
    assert replaced.rows_deleted == 18
    assert Counter(row["s"] for row in lake.rows()) == {"a": 1, "b": 18, "c": 18}


ORDERS = [("asc", "first"), ("asc", "last"), ("desc", "first"), ("desc", "last")]


def in_order(values: list[Any], direction: str, nulls: str) -> list[Any]:
    """Iceberg's order: NaN is greater than every number, -0.0 may lie beside 0.0."""
    known = [value for value in values if value is not None]
    known.sort(
        key=lambda value: (value != value, 0 if value != value else value), reverse=direction == "desc"
    )
    missing = [None] * (len(values) - len(known))
    return missing + known if nulls == "first" else known + missing


@pytest.mark.parametrize(
    ("column", "direction", "nulls"),
    [(name, *order) for name in COLUMNS for order in (ORDERS if name == "double" else ORDERS[::3])],
)
def test_files_are_sorted(lake: Lake, column: str, direction: str, nulls: str) -> None:
    order = [{"field": "v", "direction": direction, "nulls": nulls}]
    lake.write(numbered(COLUMNS[column]), sort_order=order)
    (file,) = lake.data_files()
    expected = in_order(COLUMNS[column].to_pylist(), direction, nulls)
    assert [str(v) for v in file_rows(file)["v"].to_pylist()] == [str(v) for v in expected] or file_rows(
        file
    )["v"].to_pylist() == expected
    (recorded,) = lake.metadata["sort-orders"]
    assert file.sort_order_id == recorded["order-id"] == lake.metadata["default-sort-order-id"] == 1
    assert [(f["direction"], f["null-order"]) for f in recorded["fields"]] == [(direction, f"nulls-{nulls}")]


def test_ties_are_broken_by_the_next_field_in_every_partition(lake: Lake) -> None:
    order = [{"field": "a", "direction": "desc", "nulls": "last"}, {"field": "place.zip"}]
    rows = pa.table(
        {
            "a": [1, None, 2, 1, None, 2, 1, 1],
            "place": [{"zip": z} for z in "zyxwvuts"],
            "p": list("aabbaabb"),
        }
    )
    lake.write(rows, sort_order=order, partition_spec=[by("p")])
    found = {
        file.partition[0]: [(r["a"], r["place"]["zip"]) for r in file_rows(file).to_pylist()]
        for file in lake.data_files()
    }
    assert found == {
        "a": [(2, "u"), (1, "z"), (None, "v"), (None, "y")],
        "b": [(2, "x"), (1, "s"), (1, "t"), (1, "w")],
    }


def test_sort_orders_evolve(lake: Lake) -> None:
    up, down = [{"field": "v"}], [{"field": "v", "direction": "desc", "nulls": "last"}]
    for order in ([], up, down, up, []):
        lake.write(pa.table({"v": [2, 1, 3]}), sort_order=order)
    metadata = lake.metadata
    assert [order["order-id"] for order in metadata["sort-orders"]] == [0, 1, 2]
    assert metadata["default-sort-order-id"] == 1
    assert Counter((f.sort_order_id, *file_rows(f)["v"].to_pylist()) for f in lake.data_files()) == {
        (None, 2, 1, 3): 1,
        (1, 1, 2, 3): 3,
        (2, 3, 2, 1): 1,
    }


@pytest.fixture
def small_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks, buffers and open files so small that a few thousand rows make them overflow often."""
    monkeypatch.setattr(layout, "CHUNK_BYTES", 4 << 10)
    monkeypatch.setattr(layout, "PLAIN_CHUNK_BYTES", 4 << 10)
    monkeypatch.setattr(layout, "HELD_BYTES", 32 << 10)
    monkeypatch.setattr(layout, "PIECE_BYTES", 1 << 10)
    monkeypatch.setattr(layout, "MAX_OPEN_FILES", 3)
    writer = layout.TableFilesWriter.__init__
    monkeypatch.setattr(
        layout.TableFilesWriter,
        "__init__",
        lambda self, target, held=False: writer(self, target, buffer_bytes=16 << 10, held=held),
    )


ROW = st.tuples(st.sampled_from([None, *"abcdefgh"]), st.none() | st.integers(-50, 50), st.text(max_size=30))
LAYOUTS = [
    ([], []),
    ([by("p")], []),
    ([], [{"field": "k"}]),
    ([by("p"), by("k", "truncate[10]")], [{"field": "k"}]),
]


@pytest.mark.parametrize(("spec", "order"), LAYOUTS)
@settings(
    max_examples=6,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(rows=st.lists(ROW, min_size=1, max_size=60), times=st.integers(1, 30), size=st.integers(1, 400))
def test_no_row_is_lost_or_misplaced_under_pressure(
    tmp_path_factory: pytest.TempPathFactory,
    small_buffers: None,
    spec: list[dict[str, str]],
    order: list[dict[str, str]],
    rows: list[tuple[Any, ...]],
    times: int,
    size: int,
) -> None:
    lake = Lake(tmp_path_factory.mktemp("pressure"))
    columns = [list(column) for column in zip(*rows * times, strict=True)]
    table = pa.table(columns, schema=pa.schema([("p", pa.string()), ("k", pa.int64()), ("t", pa.string())]))
    lake.write(table.to_reader(size), partition_spec=spec, sort_order=order)
    assert multiset(lake.rows()) == multiset(table.to_pylist())
    for file in lake.data_files():
        found = file_rows(file)
        if spec:
            assert set(found["p"].to_pylist()) == {file.partition[0]}
        if order:
            assert found["k"].to_pylist() == in_order(found["k"].to_pylist(), "asc", "first")


@pytest.mark.parametrize("order", [[], [{"field": "n"}]], ids=["unsorted", "sorted"])
@pytest.mark.parametrize("spec", [[], [by("p")]], ids=["whole", "partitioned"])
@pytest.mark.parametrize("compressible", [True, False])
def test_files_have_the_target_size(
    lake: Lake, spec: list[dict[str, str]], order: list[dict[str, str]], compressible: bool
) -> None:
    rows, size = 12_000, 1 << 20
    text = (
        [os.urandom(250).hex() for _ in range(rows)]
        if compressible
        else [os.urandom(500) for _ in range(rows)]
    )
    table = pa.table({"p": ["a", "b"] * (rows // 2), "n": range(rows, 0, -1), "t": text})
    lake.write(table.to_reader(1000), partition_spec=spec, sort_order=order, target_file_size_bytes=size)
    sizes: defaultdict[Any, list[int]] = defaultdict(list)
    for file in lake.data_files():
        sizes[tuple(file.partition[i] for i in range(len(file.partition)))].append(file.file_size_in_bytes)
        assert file.file_size_in_bytes == Path(local(file.file_path)).stat().st_size
        if order:
            numbers = file_rows(file)["n"].to_pylist()
            assert numbers == sorted(numbers)
    for found in sizes.values():
        *full, last = sorted(found, reverse=True)
        assert full
        assert all(0.9 * size <= one <= 1.2 * size for one in full)
        assert last <= 1.2 * size
    assert lake.column("n") == list(range(1, rows + 1))


def test_many_partitions_cost_one_file_each(lake: Lake) -> None:
    keys = 300
    table = pa.table({"k": [n % keys for n in range(3000)], "v": range(3000)})
    lake.write(table.to_reader(500), partition_spec=[by("k")])
    files = lake.data_files()
    assert sorted(file.partition[0] for file in files) == list(range(keys))
    assert {file.record_count for file in files} == {10}
    assert lake.column("v") == list(range(3000))


def test_rows_keep_their_order_inside_a_file(lake: Lake) -> None:
    table = pa.table({"p": ["a", "b", "a", "c"] * 500, "v": range(2000)})
    lake.write(table, partition_spec=[by("p")])
    for file in lake.data_files():
        values = file_rows(file)["v"].to_pylist()
        assert values == sorted(values)


BREAKS: dict[str, Any] = {
    "whole": {},
    "partitioned": {"partition_spec": [by("a", "bucket[8]")]},
    "sorted": {"sort_order": [{"field": "a"}]},
}


@pytest.mark.parametrize("declared", BREAKS.values(), ids=BREAKS)
@pytest.mark.parametrize("reason", ["the reader", "a later value", "the disk"])
def test_failure_half_way_leaves_no_file(
    lake: Lake, small_buffers: None, monkeypatch: pytest.MonkeyPatch, declared: dict[str, Any], reason: str
) -> None:
    lake.write(pa.table({"a": [1]}), **declared)
    before, location = lake.on_disk(), lake.table.metadata_location

    def batches() -> Any:
        for start in range(0, 20_000, 500):
            yield pa.record_batch({"a": range(start, start + 500)})
        if reason == "the reader":
            raise RuntimeError("gone")
        yield pa.record_batch({"a": ["x"]}) if reason == "a later value" else pa.record_batch({"a": [1]})

    if reason == "the disk":
        write, written = OpenDataFile.write, []

        def full(self: OpenDataFile, rows: pa.Table) -> None:
            written.append(rows.num_rows)
            if sum(written) > 9000:
                raise OSError(28, "No space left on device")
            write(self, rows)

        monkeypatch.setattr(OpenDataFile, "write", full)
    expected: dict[str, type[Exception]] = {
        "the reader": RuntimeError,
        "a later value": DataError,
        "the disk": UnavailableError,
    }
    with pytest.raises(expected[reason]):
        lake.write(batches(), **declared)
    assert (lake.on_disk(), lake.table.metadata_location) == (before, location)


def test_bounds_hold_over_several_row_groups(lake: Lake) -> None:
    """Signed numbers that Parquet keeps as bytes are where comparing goes wrong."""
    values: dict[str, pa.Array] = {
        "wide": pa.array(
            [Decimal(5), Decimal(10**30), Decimal(-7), Decimal(-(10**30)), Decimal(0), Decimal(-1)],
            pa.decimal128(38, 0),
        ),
        "small": pa.array(
            [Decimal(5), Decimal(300), Decimal(-7), Decimal(-300), Decimal(0), Decimal(-1)],
            pa.decimal128(9, 0),
        ),
        "text": pa.array(["é" * 20, "a" * 20, "\uffff" * 17, "\U0010ffff" * 20, "", "z"]),
        "bytes": pa.array([b"\xff" * 20, b"\x00" * 20, b"", b"\x7f", b"\x80", b"\xfe" * 17]),
        "uuid": COLUMNS["uuid"],
        "day": COLUMNS["day"],
        "double": COLUMNS["double"],
    }
    table = pa.table({"row": range(6), **values})
    lake.write(table, table_properties={"write.parquet.row-group-limit": "2"})
    assert pq.ParquetFile(local(lake.data_files()[0].file_path)).num_row_groups == 3
    for name, array in values.items():
        for row, value in enumerate(array.to_pylist()):
            if value is None or value != value:
                continue
            for comparison in ("=", ">=", "<="):
                where = f'"{name}" {comparison} ?'
                found = duckdb_rows(lake.table.metadata_location, where=where, values=[value])
                assert row in found["row"].to_pylist(), (value, where)
            assert [task.file for task in lake.table.scan(row_filter=equal_to(value, name)).plan_files()]


def test_counts_of_nulls_are_those_of_the_data(lake: Lake) -> None:
    table = pa.table({"row": range(6), **COLUMNS})
    lake.write(table)
    (file,) = lake.data_files()
    for field in lake.table.schema().fields:
        assert file.value_counts[field.field_id] == 6
        assert file.null_value_counts[field.field_id] == table[field.name].null_count
    assert file.record_count == 6


def test_metrics_of_the_table_are_kept_as_it_asks(lake: Lake) -> None:
    properties = {
        "write.metadata.metrics.default": "counts",
        "write.metadata.metrics.column.bounded": "full",
        "write.metadata.metrics.column.cut": "truncate(2)",
        "write.metadata.metrics.column.silent": "none",
    }
    lake.write(
        pa.table({"counted": ["x"], "bounded": ["abcdef"], "cut": ["abcdef"], "silent": ["x"]}),
        table_properties=properties,
    )
    (file,) = lake.data_files()
    assert file.lower_bounds == {2: b"abcdef", 3: b"ab"}
    assert file.upper_bounds == {2: b"abcdef", 3: b"ac"}
    assert set(file.value_counts) == {1, 2, 3}
