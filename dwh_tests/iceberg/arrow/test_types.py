"""Every Arrow type goes into a table and comes out with the same values, or is refused by name."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dwh_assets.errors import DataError, DwhError, SchemaError, UnsupportedError
from dwh_assets.iceberg.arrow.types import align, arrow_schema, iceberg_schema, writable_type
from dwh_assets.iceberg.scan import read, scan
from dwh_tests.iceberg.conftest import Lake

ROWS = 6
A_STRUCT = pa.struct([("a", pa.int8()), ("b", pa.string_view())])


def six(values: list[Any], arrow: pa.DataType) -> pa.Array:
    """Six values, in turn, with nulls; the first is cut off later, so that every array is a slice."""
    return pa.array(([*values, None] * ROWS)[:ROWS], arrow)


def dictionary(values: pa.Array) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array([0, 1, None, 1, 0, 0], pa.uint8()), values)


def list_view(arrow: type[Any], values: pa.Array) -> pa.Array:
    """Views that overlap, go backwards and leave a gap."""
    mask = pa.array([False, False, True, False, False, False])
    return arrow.from_arrays([4, 2, 0, 0, 0, 5], [2, 3, 1, 0, 3, 1], values, mask=mask)


def extension(arrow: pa.BaseExtensionType, values: list[Any]) -> pa.Array:
    return pa.ExtensionArray.from_storage(arrow, six(values, arrow.storage_type))


INTEGERS: list[tuple[pa.DataType, str]] = [
    (pa.int8(), "int"),
    (pa.int16(), "int"),
    (pa.int32(), "int"),
    (pa.int64(), "long"),
    (pa.uint8(), "int"),
    (pa.uint16(), "int"),
    (pa.uint32(), "long"),
    (pa.uint64(), "long"),
]


def integers(arrow: pa.DataType) -> pa.Array:
    signed = str(arrow)[0] == "i"
    top = 2 ** (arrow.bit_width - 1) - 1 if signed or arrow == pa.uint64() else 2**arrow.bit_width - 1
    return six([-top - 1 if signed else 0, top, 7], arrow)


MOMENTS = [(unit, zone) for unit in ("s", "ms", "us") for zone in (None, "UTC", "Europe/Berlin", "+05:30")]
TYPES: dict[str, tuple[pa.Array, str]] = {
    "bool": (six([True, False], pa.bool_()), "boolean"),
    **{str(arrow): (integers(arrow), name) for arrow, name in INTEGERS},
    "float16": (six([1.5, -0.25], pa.float16()), "float"),
    "float32": (six([1.5, float("inf"), -0.0], pa.float32()), "float"),
    "float64": (six([0.1, float("-inf"), 1e300], pa.float64()), "double"),
    "decimal32": (six([Decimal("-1.25")], pa.decimal32(5, 2)), "decimal(5, 2)"),
    "decimal64": (six([Decimal("1.25")], pa.decimal64(10, 2)), "decimal(10, 2)"),
    "decimal128": (six([Decimal("9" * 36 + ".99")], pa.decimal128(38, 2)), "decimal(38, 2)"),
    "decimal256": (six([Decimal("1.25")], pa.decimal256(38, 2)), "decimal(38, 2)"),
    "decimal of hundreds": (six([Decimal("1200")], pa.decimal128(5, -2)), "decimal(7, 0)"),
    **{
        f"timestamp {unit} {zone}": (
            six([-1, 10**8], pa.timestamp(unit, zone)),
            "timestamptz" if zone else "timestamp",
        )
        for unit, zone in MOMENTS
    },
    "timestamp ns": (six([-1000, 10**15], pa.timestamp("ns")), "timestamp"),
    "timestamp ns zoned": (six([-1000, 10**15], pa.timestamp("ns", "America/New_York")), "timestamptz"),
    "date32": (six([-1, 0, 20000], pa.date32()), "date"),
    "date64": (six([-86_400_000, 86_400_000], pa.date64()), "date"),
    "time32 s": (six([0, 86_399], pa.time32("s")), "time"),
    "time32 ms": (six([1], pa.time32("ms")), "time"),
    "time64 us": (six([86_399_999_999], pa.time64("us")), "time"),
    "time64 ns": (six([1000], pa.time64("ns")), "time"),
    "string": (six(["", "zß水🍌"], pa.string()), "string"),
    "large_string": (six(["a"], pa.large_string()), "string"),
    "string_view": (six(["a", "longer than the twelve bytes of a view"], pa.string_view()), "string"),
    "binary": (six([b"", b"\x00\xff"], pa.binary()), "binary"),
    "large_binary": (six([b"a"], pa.large_binary()), "binary"),
    "binary_view": (six([b"a", b"longer than the twelve bytes of a view"], pa.binary_view()), "binary"),
    "fixed": (six([b"abc"], pa.binary(3)), "fixed[3]"),
    "dictionary": (dictionary(pa.array(["a", None])), "string"),
    "dictionary of views": (dictionary(pa.array(["a", "b"], pa.string_view())), "string"),
    "dictionary of small": (dictionary(pa.array([5, 6], pa.int16())), "int"),
    "dictionary of moments": (dictionary(pa.array([5000, 6000], pa.timestamp("ns", "UTC"))), "timestamptz"),
    "dictionary of structs": (dictionary(pa.array([{"x": 1}, {"x": None}])), "struct<"),
    "run-end encoded": (pc.run_end_encode(pa.array([1, 1, None, None, 2, 2])), "long"),
    "json": (extension(pa.json_(), ['{"a": 1}']), "string"),
    "bool8": (extension(pa.bool8(), [1, 0]), "int"),
    "list": (six([[1, None], [], [2]], pa.list_(pa.int32())), "list<int>"),
    "large_list": (six([[1, None], []], pa.large_list(pa.uint16())), "list<int>"),
    "fixed_size_list": (six([[1, 2], [None, 4]], pa.list_(pa.int64(), 2)), "list<long>"),
    "list_view": (list_view(pa.ListViewArray, pa.array([1, 2, 3, None, 5, 6], pa.int32())), "list<int>"),
    "large_list_view": (list_view(pa.LargeListViewArray, pa.array(list("abcdef"))), "list<string>"),
    "list of views": (six([["a", None], []], pa.list_(pa.string_view())), "list<string>"),
    "list of dictionaries": (
        pa.ListArray.from_arrays([0, 2, 2, 3, 3, 3, 3], pa.array(["a", None, "b"]).dictionary_encode()),
        "list<string>",
    ),
    "list of lists": (six([[[1], None], [], [[], [None]]], pa.list_(pa.list_(pa.int8()))), "list<list<int>>"),
    "list of structs": (
        six([[{"a": 1}, None], [], [{"a": None}]], pa.list_(pa.struct([("a", pa.uint32())]))),
        "list<struct<",
    ),
    "struct": (six([{"a": 1, "b": "x"}, {"a": None, "b": None}], A_STRUCT), "struct<"),
    "struct over hidden values": (
        pa.StructArray.from_arrays(
            [pa.array(range(ROWS), pa.int8())], ["a"], mask=pa.array([False, True] * 3)
        ),
        "struct<",
    ),
    "map": (six([[("a", 1), ("b", None)], []], pa.map_(pa.string(), pa.int8())), "map<string, int>"),
    "map of views": (six([[("a", 1)], []], pa.map_(pa.string_view(), pa.uint8())), "map<string, int>"),
    "map of structs": (
        six(
            [[("a", {"k": [1, 2]}), ("b", None)], []],
            pa.map_(pa.string(), pa.struct([("k", pa.list_(pa.int16()))])),
        ),
        "map<string, struct<",
    ),
}
UUIDS = [uuid.UUID(int=2**127 + 5), uuid.UUID(int=0)]


@pytest.fixture(scope="module")
def written(module_lake: Lake) -> Lake:
    """All columns in one table, from slices, with an empty batch in between."""
    table = pa.table({name: array for name, (array, _) in TYPES.items()}).combine_chunks().slice(1)
    table = table.append_column("uuid", extension(pa.uuid(), [one.bytes for one in UUIDS]).slice(1))
    batches = [*table.slice(0, 2).to_batches(), *table.slice(0, 0).to_batches(), *table.slice(2).to_batches()]
    module_lake.write(pa.RecordBatchReader.from_batches(table.schema, batches))
    return module_lake


def same_instants(value: Any) -> Any:
    """Moments in UTC, so that zones do not matter."""
    if isinstance(value, dt.datetime) and value.tzinfo:
        return value.astimezone(dt.UTC)
    if isinstance(value, list):
        return [same_instants(one) for one in value]
    return value


@pytest.mark.parametrize("name", TYPES)
def test_values_come_back(written: Lake, name: str) -> None:
    array, iceberg = TYPES[name]
    expected = same_instants(array.slice(1).to_pylist())
    assert str(written.table.schema().find_type(name)).startswith(iceberg)
    assert same_instants([row[name] for row in written.rows()]) == expected
    assert same_instants(column(written, name)) == expected


def test_uuids_come_back(written: Lake) -> None:
    expected = [UUIDS[1], None, UUIDS[0], UUIDS[1], None]
    assert column(written, "uuid") == expected
    assert [row["uuid"] and uuid.UUID(row["uuid"]) for row in written.rows()] == expected


def column(lake: Lake, name: str) -> list[Any]:
    """A column through our own reader."""
    values: list[Any] = read(scan(lake.table, columns=[name])).read_all()[name].to_pylist()
    return values


REFUSED: dict[str, tuple[Callable[[], pa.Array], type[DwhError], list[str]]] = {
    "duration": (lambda: pa.array([1], pa.duration("us")), UnsupportedError, ["'v'", "duration[us]"]),
    "interval": (
        lambda: pa.array([(1, 2, 3)], pa.month_day_nano_interval()),
        UnsupportedError,
        ["'v'", "interval"],
    ),
    "wide decimal": (lambda: pa.array([Decimal(1)], pa.decimal256(39, 0)), UnsupportedError, ["'v'", "39"]),
    "decimal that grows too wide": (
        lambda: pa.array([Decimal(1000)], pa.decimal128(37, -3)),
        UnsupportedError,
        ["'v'", "-3"],
    ),
    "union": (
        lambda: pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([1])]),
        UnsupportedError,
        ["'v'", "union"],
    ),
    "only nulls": (lambda: pa.nulls(1), UnsupportedError, ["'v'", "only nulls", "type"]),
    "only nulls inside": (
        lambda: pa.array([{"x": [None]}]),
        UnsupportedError,
        ["'v.x.element'", "only nulls"],
    ),
    "struct without fields": (lambda: pa.array([{}], pa.struct([])), UnsupportedError, ["'v'", "struct<>"]),
    "struct with one name twice": (
        lambda: pa.StructArray.from_arrays([pa.array([1]), pa.array([2])], ["x", "x"]),
        SchemaError,
        ["'v'", "'x'"],
    ),
    "unsigned overflow": (
        lambda: pa.array([2**63], pa.uint64()),
        DataError,
        ["'v'", "uint64", "9223372036854775808"],
    ),
    "nanoseconds": (
        lambda: pa.array([1001], pa.timestamp("ns")),
        DataError,
        ["'v'", "timestamp[ns]", "1001"],
    ),
    "nanoseconds of a day": (lambda: pa.array([1], pa.time64("ns")), DataError, ["'v'", "time64[ns]"]),
    "years beyond": (lambda: pa.array([2**55], pa.timestamp("s")), DataError, ["'v'", str(2**55)]),
    "part of a day": (lambda: pa.array([1], pa.date64()), DataError, ["'v'", "date64"]),
    "deep inside": (
        lambda: pa.array([[{"x": 2**63}]], pa.list_(pa.struct([("x", pa.uint64())]))),
        DataError,
        ["'v'.element.x", str(2**63)],
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_table_can_hold_is_refused_by_name(lake: Lake, name: str) -> None:
    make, error, words = REFUSED[name]
    with pytest.raises(error) as raised:
        lake.write(pa.table({"ok": [1], "v": make()}))
    assert [word for word in words if word not in str(raised.value)] == []
    assert lake.on_disk(".parquet") == set()


@pytest.mark.parametrize("arrow", [pa.null(), pa.list_(pa.null()), pa.struct([("x", pa.null())])])
def test_nulls_without_a_type_fit_any_column(arrow: pa.DataType) -> None:
    kinds = {"null": pa.string(), "list": pa.list_(pa.int64()), "struct": pa.struct([("x", pa.date32())])}
    target = kinds[str(arrow).split("<")[0]]
    schema = arrow_schema(iceberg_schema(pa.schema([("v", target)])))
    values: list[Any] = [None, [None] if pa.types.is_list(target) else None]
    batch = pa.record_batch({"v": pa.array(values, arrow)})
    assert align(batch, schema, "t").column(0).to_pylist() == values


def required(inner: pa.DataType) -> pa.Field:
    return pa.field("x", inner, nullable=False)


@pytest.mark.parametrize(
    ("arrow", "value", "where"),
    [
        (pa.struct([required(pa.int64())]), {"x": None}, "'v'.x"),
        (pa.list_(required(pa.int64())), [1, None], "'v'.element"),
        (pa.map_(pa.string(), required(pa.int64())), [("a", None)], "'v'.value"),
    ],
    ids=["struct", "list", "map"],
)
def test_nulls_where_none_may_be_are_refused_inside(arrow: pa.DataType, value: Any, where: str) -> None:
    schema = arrow_schema(iceberg_schema(pa.schema([("v", arrow)])))
    optional = pa.types.is_struct(arrow) and pa.struct([("x", pa.int64())])
    batch = pa.record_batch({"v": pa.array([value, None], optional or arrow)})
    with pytest.raises(DataError, match=f"column {where} is required, but 1 of"):
        align(batch, schema, "t")


def test_nulls_of_a_missing_struct_are_not_its_fields(lake: Lake) -> None:
    arrow = pa.struct([required(pa.int64())])
    lake.write(pa.table({"v": pa.array([{"x": 1}, None], arrow)}))
    assert lake.rows() == [{"v": {"x": 1}}, {"v": None}]


def test_a_value_outside_of_a_slice_does_not_matter() -> None:
    array = pa.array([[2**63], [1], None], pa.list_(pa.uint64())).slice(1)
    schema = arrow_schema(iceberg_schema(pa.schema([("v", array.type)])))
    assert align(pa.record_batch({"v": array}), schema, "t").column(0).to_pylist() == [[1], None]


@pytest.mark.parametrize(
    ("values", "target", "words"),
    [
        (pa.array([1.5, 0.1]), "float", ["1 of 2", "0.1"]),
        (pa.array([1.25, 1.239]), "decimal(5, 2)", ["1 of 2", "1.239"]),
        (pa.array([Decimal("12345678901234567.89")]), "double", ["1 of 1", "12345678901234567.89"]),
        (pa.array([2**53 + 1]), "double", ["9007199254740993"]),
        (pa.array([1.5]), "int", ["1.5"]),
        (pa.array([1.0, None, float("nan")]), "long", ["nan"]),
        (pa.array([0, 1, 5]), "boolean", ["1 of 3", "5"]),
        (pa.array([86_400_000_001], pa.timestamp("us")), "date", ["1 of 1", "0, 0, 0, 1"]),
        (pa.array(["1", "x"]), "int", ["'x'"]),
        (pa.array(["1e999"]), "double", ["1e999"]),
        (pa.array(["1.239"]), "decimal(5, 2)", ["decimal128(5, 2)"]),
        (pa.array(["2020-01-01 00:00:00"]), "timestamptz", ["2020-01-01 00:00:00", "zone"]),
        (pa.array(["2020-01-01T00:00:00+02:00"]), "timestamp", ["2020-01-01T00:00:00+02:00"]),
        (pa.array(["5"]), "uuid", ["badly formed"]),
        (pa.array([b"\xff"]), "string", ["string"]),
    ],
)
def test_a_declared_type_never_changes_a_value(
    lake: Lake, values: pa.Array, target: str, words: list[str]
) -> None:
    with pytest.raises(DataError) as raised:
        lake.write(pa.table({"v": values}), columns={"v": {"type": target}})
    assert [word for word in [*words, "'v'"] if word not in str(raised.value)] == []


@pytest.mark.parametrize(
    ("values", "target", "expected"),
    [
        (pa.array([1.5, None]), "float", [1.5, None]),
        (pa.array([float("nan")]), "float", ["nan"]),
        (pa.array([1.25, None]), "decimal(5, 2)", [Decimal("1.25"), None]),
        (pa.array([3.0, None]), "int", [3, None]),
        (pa.array([0, 1]), "boolean", [False, True]),
        (pa.array([86_400_000_000], pa.timestamp("us")), "date", [dt.date(1970, 1, 2)]),
        (pa.array(["007"]), "int", [7]),
        (pa.array(["inf", "0.1"]), "double", [0.1, float("inf")]),
        (pa.array(["2020-01-01T02:00:00+02:00"]), "timestamptz", [dt.datetime(2020, 1, 1, tzinfo=dt.UTC)]),
        (pa.array([str(UUIDS[0]), None]), "uuid", [str(UUIDS[0]), None]),
        (pa.array([5]), "string", ["5"]),
        (pa.array([dt.date(2020, 1, 1)]), "string", ["2020-01-01"]),
    ],
)
def test_a_declared_type_keeps_values_that_fit(
    lake: Lake, values: pa.Array, target: str, expected: list[Any]
) -> None:
    lake.write(pa.table({"v": values}), columns={"v": {"type": target}})
    found = ["nan" if value != value else value for value in lake.column("v")]
    assert found == expected
    assert str(lake.table.schema().find_type("v")) == target


def test_no_rows_and_no_columns(lake: Lake) -> None:
    result = lake.write(pa.table({"v": pa.array([], pa.string_view())}))
    assert (result.rows_written, result.files_added, lake.rows()) == (0, 0, [])
    with pytest.raises(SchemaError, match="no columns"):
        Lake(lake.folder, "shop.nothing").write(pa.table({}))


def nested(depth: int) -> st.SearchStrategy[tuple[pa.DataType, st.SearchStrategy[Any]]]:
    """A type, and a strategy for its values, nulls at every level."""
    flat = st.sampled_from([(pa.int16(), st.integers(-9, 9)), (pa.string_view(), st.text("aé", max_size=14))])
    if not depth:
        return flat
    inner = nested(depth - 1)
    lists = inner.map(lambda t: (pa.list_(t[0]), st.lists(st.none() | t[1], max_size=3)))
    structs = st.tuples(inner, inner).map(
        lambda two: (
            pa.struct([("p", two[0][0]), ("q", two[1][0])]),
            st.fixed_dictionaries({"p": st.none() | two[0][1], "q": st.none() | two[1][1]}),
        )
    )
    maps = inner.map(
        lambda t: (
            pa.map_(pa.string(), t[0]),
            st.dictionaries(st.text("xyz", max_size=2), st.none() | t[1], max_size=3).map(
                lambda entries: list(entries.items())
            ),
        )
    )
    return st.one_of(lists, structs, maps)


@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_nested_values_come_back(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    arrow, values = data.draw(nested(3))
    rows = data.draw(st.lists(st.none() | values, min_size=1, max_size=6))
    lake = Lake(tmp_path_factory.mktemp("nested"))
    skip = data.draw(st.integers(0, len(rows) - 1))
    table = pa.table({"v": pa.array(rows, arrow)}).slice(skip)
    lake.write(table)
    expected = table["v"].to_pylist()
    assert [row["v"] for row in lake.rows()] == expected
    assert column(lake, "v") == expected


@pytest.mark.parametrize(
    "arrow", [pa.list_view(pa.int8()), pa.map_(pa.string_view(), pa.uint8()), pa.float16()]
)
def test_writable_types_are_stable(arrow: pa.DataType) -> None:
    once = writable_type(arrow, "v")
    assert writable_type(once, "v") == once
