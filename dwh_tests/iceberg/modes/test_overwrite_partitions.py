"""Overwriting the partitions that the data fall into, against a model that decides row by row."""

from __future__ import annotations

import datetime as dt
import math
import uuid
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyiceberg.transforms import parse_transform
from pyiceberg.types import LongType, StringType

from dwh_assets.config import IcebergWriterConfig
from dwh_assets.errors import DataError
from dwh_assets.iceberg.results import WriteResult
from dwh_tests.iceberg.conftest import Lake, Row, multiset

COLUMNS = pa.schema(
    [
        ("n", pa.int64()),
        ("k", pa.int64()),
        ("p", pa.string()),
        ("t", pa.timestamp("us", "UTC")),
        ("d", pa.date32()),
        ("f", pa.float64()),
        ("c", pa.decimal128(6, 2)),
        ("u", pa.uuid()),
        ("b", pa.binary()),
        ("s", pa.struct([("x", pa.int64())])),
    ]
)
DYNAMIC: dict[str, Any] = {"write_mode": "overwrite", "overwrite": "partitions"}
Spec = list[dict[str, str]]


def moment(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC)


def row(n: int, k: int | None, p: str | None, t: str | None, **more: Any) -> Row:
    at = moment(t) if t else None
    return {"n": n, "k": k, "p": p, "t": at, "d": at.date() if at else None, **more}


BASE = [
    row(1, 1, "apple", "2024-01-01T00:00", f=1.5, c=Decimal("1.25"), b=b"\x00\x01\x02", s={"x": 1}),
    row(2, 2, "apricot", "2024-01-01T23:59", f=math.nan, c=Decimal("-1.25"), b=b"\x00\x01\x03", s={"x": 2}),
    row(3, None, None, None, f=None, s=None),
    row(4, 11, "banana", "2023-12-31T23:59", f=-0.0, c=Decimal("99.99"), b=b"\xff", s={"x": None}),
    row(5, -7, "", "1969-12-31T22:30", f=0.0, c=Decimal("0.00"), b=b"", s={"x": 1}),
    row(6, 11, "éclair", "2024-02-01T01:10", f=math.inf, c=Decimal("1.30"), s={"x": 7}),
    row(7, 12, "apple", None, f=1.5, s={"x": 7}),
]
for given_row in BASE:
    key = given_row["k"]
    given_row["u"] = None if key is None else uuid.UUID(int=abs(key)).bytes
ARRIVING = [BASE[0], BASE[3]]


def bucket(column: str, count: int, iceberg: Any) -> Callable[[Row], Any]:
    """PyIceberg's own arithmetic, which the writer does not use."""
    of = parse_transform(f"bucket[{count}]").transform(iceberg)
    return lambda row: None if row[column] is None else of(row[column])


def of(column: str, function: Callable[[Any], Any] = lambda value: value) -> Callable[[Row], Any]:
    return lambda row: None if row.get(column) is None else function(row[column])


def exactly(value: float) -> Any:
    return "NaN" if math.isnan(value) else value


# What partitions the rows, and the same in plain Python.
SPECS: dict[str, tuple[Spec, list[Callable[[Row], Any]]]] = {
    "identity of text": ([{"field": "p"}], [of("p")]),
    "identity of a moment": ([{"field": "t"}], [of("t")]),
    "identity of a float": ([{"field": "f"}], [of("f", exactly)]),
    "identity of a decimal": ([{"field": "c"}], [of("c")]),
    "identity of a uuid": ([{"field": "u"}], [of("u", bytes)]),
    "identity of bytes": ([{"field": "b"}], [of("b")]),
    "identity of a struct's field": ([{"field": "s.x"}], [of("s", lambda s: s["x"])]),
    "year": ([{"field": "t", "transform": "year"}], [of("t", lambda t: t.year)]),
    "month": ([{"field": "d", "transform": "month"}], [of("d", lambda d: (d.year, d.month))]),
    "day": ([{"field": "t", "transform": "day"}], [of("t", lambda t: t.date())]),
    "hour": ([{"field": "t", "transform": "hour"}], [of("t", lambda t: (t.date(), t.hour))]),
    "bucket": ([{"field": "k", "transform": "bucket[3]"}], [bucket("k", 3, LongType())]),
    "truncate text": ([{"field": "p", "transform": "truncate[2]"}], [of("p", lambda p: p[:2])]),
    "truncate a number": ([{"field": "k", "transform": "truncate[10]"}], [of("k", lambda k: k // 10)]),
    "truncate a decimal": (
        [{"field": "c", "transform": "truncate[10]"}],
        [of("c", lambda c: int(c * 100) // 10)],
    ),
    "truncate bytes": ([{"field": "b", "transform": "truncate[2]"}], [of("b", lambda b: b[:2])]),
    "void": ([{"field": "p", "transform": "void"}], []),
    "several": (
        [{"field": "t", "transform": "month"}, {"field": "p", "transform": "void"}, {"field": "k"}],
        [of("t", lambda t: (t.year, t.month)), of("k")],
    ),
    "none": ([], []),
}


def partition_of(name: str, row: Row) -> tuple[Any, ...]:
    return tuple(value(row) for value in SPECS[name][1])


def table(rows: list[Row]) -> pa.Table:
    return pa.Table.from_pylist(rows, COLUMNS)


def named(rows: list[Row]) -> list[int]:
    return sorted(row["n"] for row in rows)


def overwrite(lake: Lake, rows: list[Row], **declared: Any) -> WriteResult:
    """Overwrite, and see that nothing but what the result says has happened, in one snapshot."""
    before, snapshots = lake.rows(), len(lake.metadata["snapshots"])
    result = lake.write(table(rows), **{**DYNAMIC, **declared})
    found = lake.rows()
    assert lake.orphans() == set()
    assert result.total_rows == len(found) == len(before) - result.rows_deleted + result.rows_inserted
    assert len(lake.metadata["snapshots"]) == snapshots + result.changed
    assert named(lake.table.scan().to_arrow().to_pylist()) == named(found)
    return result


@pytest.mark.parametrize("name", SPECS)
def test_the_partitions_of_the_data_are_replaced_and_all_others_stay(lake: Lake, name: str) -> None:
    lake.write(table(BASE[:4]), partition_spec=SPECS[name][0])
    lake.write(table(BASE[4:]), partition_spec=SPECS[name][0])
    hit = {partition_of(name, row) for row in ARRIVING}
    stays = [row for row in BASE if partition_of(name, row) not in hit]
    arriving = [{**row, "n": row["n"] + 100} for row in ARRIVING]
    result = overwrite(lake, arriving)
    assert named(lake.rows()) == named(stays + arriving)
    assert (result.rows_deleted, result.rows_inserted) == (len(BASE) - len(stays), 2)


@pytest.mark.parametrize("name", [name for name in SPECS if name != "none"])
@pytest.mark.parametrize("before", ["none", "day"])
def test_rows_of_older_specs_are_replaced_too(lake: Lake, name: str, before: str) -> None:
    lake.write(table(BASE[:4]), partition_spec=SPECS[before][0])
    lake.write(table(BASE[4:]), partition_spec=SPECS[before][0])
    hit = {partition_of(name, row) for row in ARRIVING}
    stays = [row for row in BASE if partition_of(name, row) not in hit]
    overwrite(lake, ARRIVING, partition_spec=SPECS[name][0])
    assert named(lake.rows()) == named(stays + ARRIVING)


def test_values_that_stay_are_as_they_were(lake: Lake) -> None:
    lake.write(table(BASE))
    before = {row["n"]: row for row in lake.rows()}
    overwrite(lake, [{**BASE[0], "n": 100}], partition_spec=[{"field": "p"}])
    found = lake.rows()
    assert multiset(row for row in found if row["n"] != 100) == multiset(
        row for n, row in before.items() if n not in (1, 7)
    )


def test_whole_partitions_go_and_others_stay_without_being_read(lake: Lake) -> None:
    lake.write(table(BASE), partition_spec=[{"field": "p"}])
    for path in lake.on_disk(".parquet"):
        Path(path).write_bytes(b"")
    result = lake.write(table([BASE[0]]), **DYNAMIC)
    assert (result.files_removed, result.files_added, result.rows_deleted) == (1, 1, 2)


@pytest.mark.parametrize("transform", ["identity", "truncate[10]"])
def test_files_of_an_older_spec_whose_bounds_lie_elsewhere_are_not_read(lake: Lake, transform: str) -> None:
    for first in (0, 100, 200, 300):
        lake.write(table([row(n, n, None, None) for n in range(first, first + 10)]))
    for file in lake.data_files():
        if int.from_bytes(file.lower_bounds[2], "little") != 200:
            Path(file.file_path.removeprefix("file://")).write_bytes(b"")
    arriving = table([row(1000, 205, None, None)])
    spec = [{"field": "k", "transform": transform}]
    result = lake.write(arriving, **DYNAMIC, partition_spec=spec)
    assert result.rows_deleted == (1 if transform == "identity" else 10)
    assert result.files_removed == 1


def test_bounds_from_before_a_promotion_are_understood(lake: Lake) -> None:
    lake.write(pa.table({"k": pa.array([1, 2], pa.int32())}))
    lake.write(pa.table({"k": pa.array([2**40, 2])}), **DYNAMIC, partition_spec=[{"field": "k"}])
    assert lake.column("k") == [1, 2, 2**40]


def test_empty_data_overwrite_nothing(lake: Lake) -> None:
    for spec in ([{"field": "p"}], []):
        lake.write(table(BASE), write_mode="overwrite", partition_spec=spec)
        before = lake.table.metadata_location
        assert not lake.write(table([]), **DYNAMIC).changed
        assert lake.table.metadata_location == before


def test_a_first_write_makes_the_table(lake: Lake) -> None:
    result = lake.write(table(BASE), **DYNAMIC, partition_spec=[{"field": "p"}])
    assert (result.rows_deleted, result.rows_inserted) == (0, 7)
    assert named(lake.rows()) == [1, 2, 3, 4, 5, 6, 7]


def test_a_stream_of_batches_overwrites_the_partitions_of_all_of_them(lake: Lake) -> None:
    lake.write(table(BASE), partition_spec=[{"field": "p"}])
    batches = (table([{**row, "n": row["n"] + 100}]).to_batches()[0] for row in (BASE[0], BASE[3], BASE[0]))
    result = lake.write(batches, **DYNAMIC)
    assert (result.rows_deleted, result.rows_inserted) == (3, 3)
    assert named(lake.rows()) == [2, 3, 5, 6, 101, 101, 104]


def test_a_filter_narrows_what_is_overwritten(lake: Lake) -> None:
    """Of a partition only the rows that match go; rows of the data that do not match are refused."""
    lake.write(table(BASE), partition_spec=[{"field": "p"}])
    result = lake.write(table([{**BASE[0], "n": 100}]), where="k < 10", **DYNAMIC)
    assert result.rows_deleted == 1
    assert named(lake.rows()) == [2, 3, 4, 5, 6, 7, 100]
    with pytest.raises(DataError, match="outside of what is overwritten"):
        lake.write(table([BASE[6]]), **DYNAMIC, overwrite_where="k < 10")
    result = lake.write(table([{**BASE[0], "n": 101}]), **DYNAMIC, overwrite_where="k < 10")
    assert named(lake.rows()) == [2, 3, 4, 5, 6, 7, 101]


def test_deleted_rows_of_files_that_are_written_again_stay_deleted(lake: Lake) -> None:
    lake.write(table(BASE))
    (file,) = lake.data_files()
    lake.delete_positions({file.file_path: [1, 6]})
    result = overwrite(lake, [{**BASE[0], "n": 100}], partition_spec=[{"field": "p"}])
    assert result.rows_deleted == 1
    assert named(lake.rows()) == [3, 4, 5, 6, 100]


def test_a_retry_plans_anew(lake: Lake) -> None:
    """Another writer adds a row to the partition, and one to another, just before the commit."""
    lake.write(table(BASE), partition_spec=[{"field": "p"}])
    other = Lake(lake.folder)

    class Overtaken(type(lake.catalog)):  # type: ignore[misc]
        interrupted = False

        def commit_table(self, *arguments: Any) -> Any:
            if not Overtaken.interrupted:
                Overtaken.interrupted = True
                other.write(table([{**BASE[0], "n": 50}, {**BASE[3], "n": 51}]))
            return super().commit_table(*arguments)

    catalog = Overtaken("dwh", **lake.properties)
    result = lake.writer(catalog=catalog, **DYNAMIC).write(table([{**BASE[0], "n": 100}]))
    assert (result.attempts, result.rows_deleted) == (2, 3)
    assert named(lake.rows()) == [2, 3, 4, 5, 6, 51, 100]
    assert lake.orphans() == set()


def test_what_is_replaced_is_said_of_overwrites_alone() -> None:
    for declared, name in (
        ({"overwrite": "partitions"}, "overwrite"),
        ({"overwrite_where": "k = 1"}, "where"),
    ):
        with pytest.raises(
            ValueError, match=rf"{name}.* says what write_mode: overwrite replaces, not append"
        ):
            IcebergWriterConfig.model_validate({"table": "shop.orders", **declared})


NAMES = ["none", "identity of text", "bucket", "truncate text", "several", "void"]
STEP = st.tuples(
    st.sampled_from(NAMES),
    st.lists(
        st.tuples(
            st.sampled_from([None, "", "a", "ab", "abc", "b"]),
            st.none() | st.integers(-3, 3),
            st.sampled_from([None, "2024-01-31T23:00", "2024-02-01T00:00"]),
        ),
        max_size=5,
    ),
)


@settings(
    max_examples=10,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(steps=st.lists(STEP, min_size=2, max_size=5))
def test_any_sequence_ends_as_the_model_does(
    tmp_path_factory: pytest.TempPathFactory, steps: list[Any]
) -> None:
    lake = Lake(tmp_path_factory.mktemp("model"))
    lake.write(table([]))
    model: list[Row] = []
    numbers = iter(range(1000))
    for name, values in steps:
        rows = [row(next(numbers), k, p, t) for p, k, t in values]
        # An empty partition_spec means "as it is": here it is always said.
        lake.write(table(rows), **DYNAMIC, partition_spec=SPECS[name][0] or SPECS["void"][0])
        hit = {partition_of(name, new) for new in rows}
        model = [old for old in model if partition_of(name, old) not in hit] + rows
    assert named(lake.rows()) == named(model)
    assert lake.orphans() == set()


def test_the_model_buckets_text_as_the_specification_says() -> None:
    """The specification's own example: the hash of 'iceberg' is 1210000089."""
    assert parse_transform("bucket[1000]").transform(StringType())("iceberg") == 89
