"""Reading: filters as SQL means them, versions as they were, every file whoever wrote it."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.expressions import AlwaysTrue, BooleanExpression, EqualTo, Reference
from pyiceberg.expressions.literals import literal
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.table.snapshots import Operation
from pyiceberg.typedef import Record
from pyiceberg.types import LongType, StringType

from dwh_assets.errors import ConfigurationError, NotFoundError, UnsupportedError
from dwh_assets.iceberg import scan as scan_module
from dwh_assets.iceberg.commit import commit
from dwh_assets.iceberg.files import reading
from dwh_assets.iceberg.filters import filter_expression
from dwh_assets.iceberg.scan import max_value, read, scan
from dwh_assets.iceberg.snapshot import Change
from dwh_tests.iceberg.conftest import Lake, Row, local, multiset

NAN = float("nan")
ROWS = pa.table(
    {
        "i": [1, 2, 3, None, 5, 6],
        "s": ["apple", "bee", None, "ant", "a.b", ""],
        "f": [1.0, NAN, None, -0.0, math.inf, -2.5],
        "b": [True, False, None, True, False, True],
        "d": pa.array([dt.date(2020, 1, 1), dt.date(1969, 12, 31), None, dt.date(2020, 2, 1), None, None]),
        "t": pa.array([0, -1, None, 10**15, 5, 6], pa.timestamp("us", "UTC")),
        "n": [{"x": 1}, {"x": None}, None, {"x": 4}, {"x": 1}, {"x": 6}],
    }
)
Predicate = Callable[[Row], bool]


def known(column: str, compare: Callable[[Any], bool]) -> Predicate:
    """True only where there is a value: SQL's three-valued logic at the top of a WHERE."""
    return lambda row: row[column] is not None and compare(row[column])


# Each filter beside what it means; the second time the table is partitioned by the column.
FILTERS: list[tuple[str, str, Predicate]] = [
    ("i = 1", "i", known("i", lambda v: v == 1)),
    ("i != 1", "i", known("i", lambda v: v != 1)),
    ("i < 3", "i", known("i", lambda v: v < 3)),
    ("i in (1, 5)", "i", known("i", lambda v: v in (1, 5))),
    ("i not in (1, 5)", "i", known("i", lambda v: v not in (1, 5))),
    ("not (i in (1, 5))", "i", known("i", lambda v: v not in (1, 5))),
    ("not (i = 1 or i = 2)", "i", known("i", lambda v: v not in (1, 2))),
    ("i is null", "i", lambda row: row["i"] is None),
    ("not (i is null)", "i", lambda row: row["i"] is not None),
    ("i = 1 or s = 'ant'", "i", lambda row: row["i"] == 1 or row["s"] == "ant"),
    ("i != 1 and s != 'bee'", "s", lambda r: r["i"] not in (1, None) and r["s"] not in ("bee", None)),
    ("s like 'a%'", "s", known("s", lambda v: v.startswith("a"))),
    ("s not like 'a%'", "s", known("s", lambda v: not v.startswith("a"))),
    ("s = ''", "s", known("s", lambda v: v == "")),
    ("f > 0", "f", known("f", lambda v: v > 0)),
    ("f <= 1.5", "f", known("f", lambda v: v <= 1.5)),
    ("f = 0", "f", known("f", lambda v: v == 0)),
    ("f != 1.0", "f", known("f", lambda v: v != 1)),
    ("f is nan", "f", known("f", lambda v: v != v)),
    ("f is not nan", "f", known("f", lambda v: v == v)),
    ("b = true", "b", known("b", lambda v: v)),
    ("b != true", "b", known("b", lambda v: not v)),
    ("d >= '2020-01-01'", "d", known("d", lambda v: v >= dt.date(2020, 1, 1))),
    ("d != '2020-01-01'", "d", known("d", lambda v: v != dt.date(2020, 1, 1))),
    ("t < '1970-01-01T00:00:00+00:00'", "t", known("t", lambda v: v.timestamp() < 0)),
    ("n.x = 1", "n.x", known("n", lambda v: v["x"] == 1)),
    ("n.x != 1", "n.x", known("n", lambda v: v["x"] not in (1, None))),
    ("n.x is null", "n.x", lambda row: row["n"] is None or row["n"]["x"] is None),
]


@pytest.fixture(scope="module")
def lakes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Lake]:
    """The same rows, unpartitioned and partitioned by each column."""
    found = {}
    for column in ["", *{column for _, column, _ in FILTERS}]:
        found[column] = Lake(tmp_path_factory.mktemp("filters"))
        spec = [{"field": column}] if column else []
        found[column].write(ROWS.slice(0, 4), partition_spec=spec)
        found[column].write(ROWS.slice(4), partition_spec=spec)
    return found


@pytest.mark.parametrize(("where", "column", "predicate"), FILTERS, ids=[where for where, _, _ in FILTERS])
def test_a_filter_finds_the_rows_for_which_it_is_true(
    lakes: dict[str, Lake], where: str, column: str, predicate: Predicate
) -> None:
    expected = multiset(row for row in ROWS.to_pylist() if predicate(row))
    for lake in (lakes[""], lakes[column]):
        assert multiset(read(scan(lake.table, where=where)).read_all().to_pylist()) == expected


@pytest.mark.parametrize(
    ("where", "word"),
    [
        ("nope = 1", "nope"),
        ("I = 1", "I"),
        ("i = 'x'", "x into a long"),
        ("i ===", "i ==="),
        ("", "''"),
        ("d = 'yesterday'", "yesterday"),
        ("t = '2020-01-01'", "2020-01-01"),
        (EqualTo(term=Reference("nope"), value=literal(1)), "nope"),
    ],
    ids=str,
)
def test_a_filter_that_cannot_be_built_is_never_no_filter(
    lakes: dict[str, Lake], where: str | BooleanExpression, word: str
) -> None:
    with pytest.raises(ConfigurationError, match=word) as raised:
        scan(lakes[""].table, where=where)
    assert "shop.orders" in str(raised.value)
    assert "n.x" in raised.value.remedy


def test_no_filter_means_every_row(lakes: dict[str, Lake]) -> None:
    table = lakes[""].table
    assert filter_expression(table.schema(), None, "t") == AlwaysTrue()
    assert multiset(read(scan(table)).read_all().to_pylist()) == multiset(ROWS.to_pylist())


def test_columns_are_selected(lakes: dict[str, Lake]) -> None:
    table = lakes[""].table
    found = read(scan(table, columns=["s", "n.x"], where="i = 1")).read_all()
    assert found.to_pylist() == [{"s": "apple", "n": {"x": 1}}]
    with pytest.raises(NotFoundError, match=r"no column 'nope'.*It has .*n.x"):
        scan(table, columns=["i", "nope"])
    with pytest.raises(NotFoundError, match="no snapshot 5"):
        scan(table, snapshot_id=5)


def test_a_limit_is_kept(lakes: dict[str, Lake]) -> None:
    for limit in (0, 1, 4, 5, 6, 99):
        found = read(scan(lakes[""].table).update(limit=limit)).read_all()
        assert found.num_rows == min(limit, 6)


@pytest.mark.parametrize("column", ["i", "s", "d", "t"])
def test_the_greatest_value(lakes: dict[str, Lake], column: str) -> None:
    assert max_value(lakes[""].table, column) == max(v for v in ROWS[column].to_pylist() if v is not None)


def test_the_greatest_value_of_nothing(lake: Lake) -> None:
    lake.write(pa.table({"v": pa.array([], pa.int64())}))
    assert max_value(lake.table, "v") is None
    lake.write(pa.table({"v": pa.array([None], pa.int64())}))
    assert max_value(lake.table, "v") is None
    with pytest.raises(NotFoundError, match="'nope'"):
        max_value(lake.table, "nope")


def everything(lake: Lake) -> list[Row]:
    """All rows through our reader, which must be those that DuckDB sees."""
    found: list[Row] = read(scan(lake.table)).read_all().to_pylist()
    assert multiset(found) == multiset(lake.rows())
    return sorted(found, key=repr)


def test_columns_are_found_by_id(lake: Lake) -> None:
    ints = pa.struct([("x", pa.int32()), ("y", pa.string())])
    lake.write(
        pa.table({"a": pa.array([1], pa.int32()), "b": ["old"], "n": pa.array([{"x": 1, "y": "q"}], ints)})
    )
    with lake.table.update_schema() as change:
        change.rename_column("a", "c").update_column("a", LongType())
        change.delete_column("b").rename_column("n.x", "z")
    with lake.table.update_schema() as change:
        change.add_column("b", StringType()).add_column(("n", "x"), LongType()).move_first("b")
    longs = pa.struct([("z", pa.int32()), ("y", pa.string()), ("x", pa.int64())])
    lake.write(pa.table({"b": ["new"], "c": [2**40], "n": pa.array([{"z": 2, "y": None, "x": 3}], longs)}))
    assert everything(lake) == [
        {"b": "new", "c": 2**40, "n": {"z": 2, "y": None, "x": 3}},
        {"b": None, "c": 1, "n": {"z": 1, "y": "q", "x": None}},
    ]
    assert set(read(scan(lake.table, columns=["b"])).read_all()["b"].to_pylist()) == {None, "new"}


def test_a_version_is_read_with_the_columns_that_it_had(lake: Lake) -> None:
    first = lake.write(pa.table({"a": [1, 2], "gone": ["x", "y"]})).snapshot_id
    with lake.table.update_schema() as change:
        change.rename_column("a", "c").delete_column("gone")
    second = lake.write(pa.table({"c": [3], "new": [True]})).snapshot_id
    table = lake.table
    assert read(scan(table, snapshot_id=first)).read_all().to_pylist() == lake.rows(first)
    assert read(scan(table, snapshot_id=first, columns=["gone"], where="a = 2")).read_all().to_pylist() == [
        {"gone": "y"}
    ]
    assert read(scan(table, snapshot_id=second, where="c = 1")).read_all().to_pylist() == [
        {"c": 1, "new": None}
    ]
    with pytest.raises(ConfigurationError, match="'c = 1'"):
        scan(table, snapshot_id=first, where="c = 1")
    with pytest.raises(NotFoundError, match="'gone'"):
        scan(table, columns=["gone"])


def test_nested_values_that_are_missing_stay_so(lake: Lake) -> None:
    structs = pa.struct([("x", pa.int64())])
    rows = pa.table(
        {
            "k": range(4),
            "l": pa.array([None, [], [None], [{"x": None}]], pa.list_(structs)),
            "m": pa.array([None, [], [("a", None)], [("a", {"x": 1})]], pa.map_(pa.string(), structs)),
            "o": pa.array(
                [None, {"l": None}, {"l": []}, {"l": [{"x": 1}]}], pa.struct([("l", pa.list_(structs))])
            ),
        }
    )
    lake.write(rows)
    assert everything(lake) == rows.to_pylist()


@pytest.mark.parametrize("together", [True, False], ids=["one delete file", "one a data file"])
def test_deleted_rows_are_gone(lake: Lake, together: bool) -> None:
    lake.write(pa.table({"v": range(10)}))
    lake.write(pa.table({"v": range(10, 20)}))
    wanted = {file.file_path: [0, 5, 9] for file in lake.data_files()}
    lake.delete_positions(*([wanted] if together else [{path: rows} for path, rows in wanted.items()]))
    left = [v for v in range(20) if v % 10 not in (0, 5, 9)]
    assert sorted(row["v"] for row in everything(lake)) == left
    found = read(scan(lake.table, where="v > 8")).read_all()["v"].to_pylist()
    assert sorted(found) == [v for v in left if v > 8]


def test_equality_deletes_are_refused_with_the_remedy(lake: Lake) -> None:
    lake.write(pa.table({"v": [1]}))
    table = lake.table
    location = f"{table.location()}/data/equal.parquet"
    pq.write_table(pa.table({"v": [1]}), local(location))
    file = DataFile.from_args(
        content=DataFileContent.EQUALITY_DELETES,
        file_path=location,
        file_format=FileFormat.PARQUET,
        partition=Record(),
        record_count=1,
        file_size_in_bytes=1,
        equality_ids=[1],
    )
    file.spec_id = 0
    commit(lake.catalog, table, lambda _: Change(Operation.DELETE, added_deletes=(file,)))
    with pytest.raises(UnsupportedError, match=r"equality deletes.*rewrite"):
        read(scan(lake.table))
    lake.write(pa.table({"v": [2]}))
    with pytest.raises(UnsupportedError, match="equality deletes"):
        lake.write(pa.table({"v": [3]}), write_mode="overwrite")


def test_files_without_ids_are_read_by_the_name_mapping(lake: Lake) -> None:
    lake.write(pa.table({"a": [1], "n": [{"x": 1}], "l": [[1]]}))
    foreign = lake.folder / "lake" / "foreign.parquet"
    pq.write_table(pa.table({"l": [[2, None], None], "n": [{"x": 2}, None], "a": [2, 3]}), foreign)
    lake.table.add_files([str(foreign)])
    assert sorted(read(scan(lake.table)).read_all().to_pylist(), key=repr) == [
        {"a": 1, "n": {"x": 1}, "l": [1]},
        {"a": 2, "n": {"x": 2}, "l": [2, None]},
        {"a": 3, "n": None, "l": None},
    ]


def test_a_column_that_only_the_partition_knows(lake: Lake) -> None:
    """Tables that came from Hive keep such columns in the path alone."""
    spec = [{"field": name} for name in ("day", "s", "at")]
    day, at = dt.date(2020, 1, 1), dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    lake.write(pa.table({"v": [1], "day": [day], "s": ["x"], "at": pa.array([at])}), partition_spec=spec)
    table = lake.table
    location = f"{table.location()}/data/hive.parquet"
    field = pa.field("v", pa.int64(), metadata={"PARQUET:field_id": "1"})
    pq.write_table(pa.table([[2, 3]], schema=pa.schema([field])), local(location))
    file = DataFile.from_args(
        content=DataFileContent.DATA,
        file_path=location,
        file_format=FileFormat.PARQUET,
        partition=Record(18262, "x", None),
        record_count=2,
        file_size_in_bytes=Path(local(location)).stat().st_size,
    )
    file.spec_id = 0
    commit(lake.catalog, table, lambda _: Change(Operation.APPEND, added=(file,)))
    hive = [{"v": v, "day": day, "s": "x", "at": None} for v in (2, 3)]
    assert everything(lake)[1:] == hive
    assert read(scan(lake.table, where="s = 'x' and v > 2", columns=["day"])).read_all().to_pylist() == [
        {"day": day}
    ]


def test_small_files_are_read_ahead_but_not_all_of_them(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    lake.write(pa.table({"k": range(40)}), partition_spec=[{"field": "k"}])
    opened: list[str] = []
    live = reading.live_batches

    def counted(*given: Any, **options: Any) -> Iterator[pa.RecordBatch]:
        opened.append("one")
        return live(*given, **options)

    monkeypatch.setattr(scan_module, "live_batches", counted)
    reader = read(scan(lake.table))
    reader.read_next_batch()
    assert 1 <= len(opened) < 15
    assert reader.read_all().num_rows == 39
    assert len(opened) == 40


def test_large_files_are_streamed(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan_module, "_SMALL_FILE_BYTES", 0)
    monkeypatch.setattr(reading, "_BATCH_ROWS", 100)
    lake.write(pa.table({"v": range(1000)}))
    batches = list(read(scan(lake.table)))
    assert [batch.num_rows for batch in batches] == [100] * 10
    assert pa.Table.from_batches(batches)["v"].to_pylist() == list(range(1000))


def test_a_reader_that_is_given_up_stops_reading(lake: Lake) -> None:
    lake.write(pa.table({"k": range(40)}), partition_spec=[{"field": "k"}])
    reader = read(scan(lake.table))
    assert reader.read_next_batch().num_rows == 1
    del reader


def test_uuids_are_no_filter_but_their_absence_is(lake: Lake) -> None:
    lake.write(pa.table({"v": pa.array([bytes(16), None], pa.uuid()), "k": [1, 2]}))
    assert read(scan(lake.table, where="v is null")).read_all()["k"].to_pylist() == [2]
    with pytest.raises(ConfigurationError, match="filter"):
        scan(lake.table, where="v = '00000000-0000-0000-0000-000000000000'")


def test_a_dot_in_a_name_can_be_filtered_by(lake: Lake) -> None:
    lake.write(pa.table({"a.b": [1, 2, None], "c": [{"b": 1}, {"b": 2}, None]}))
    assert read(scan(lake.table, where="a.b = 2")).read_all().to_pylist() == [{"a.b": 2, "c": {"b": 2}}]
