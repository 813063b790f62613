"""Upserts against plain dictionaries: what matches, what differs, what is left alone, and what is refused."""

from __future__ import annotations

import math
import subprocess
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.manifest import DataFileContent
from pyiceberg.schema import Schema
from pyiceberg.table.update import AssertRefSnapshotId
from pyiceberg.transforms import IdentityTransform
from pyiceberg.types import DoubleType, LongType, NestedField, StringType

from dwh_assets.errors import ConfigurationError, DataError, SchemaError, UnsupportedError
from dwh_assets.iceberg import scan
from dwh_assets.iceberg.commit import commit
from dwh_assets.iceberg.matching import source_rows
from dwh_assets.iceberg.modes import upsert
from dwh_assets.iceberg.results import WriteResult
from dwh_assets.iceberg.snapshot import Change
from dwh_tests.iceberg.conftest import Lake, Row, multiset

UPSERT: dict[str, Any] = {"write_mode": "upsert", "key_columns": ["id"]}


def rows_of(data: pa.Table) -> list[Row]:
    found: list[Row] = data.to_pylist()
    return found


def upserted(before: list[Row], rows: list[Row], *keys: str) -> list[Row]:
    """The rows afterwards, as a dictionary by key has them."""

    def key(row: Row) -> tuple[Any, ...]:
        return tuple("NaN" if isinstance(row[k], float) and math.isnan(row[k]) else row[k] for k in keys)

    columns = {name for row in [*before, *rows] for name in row}
    by_key = {key(row): {name: row.get(name) for name in columns} for row in [*before, *rows]}
    return list(by_key.values())


def counts(result: WriteResult) -> tuple[int, int, int]:
    return result.rows_inserted, result.rows_updated, result.rows_unchanged


def people(*rows: tuple[int | None, str | None]) -> pa.Table:
    ids, names = zip(*rows, strict=True)
    return pa.table({"id": pa.array(ids, pa.int64()), "name": pa.array(names, pa.string())})


# --- Keys ---


def test_a_null_key_is_an_error_that_names_the_column(lake: Lake) -> None:
    lake.write(people((1, "a")))
    with pytest.raises(DataError, match=r"shop\.orders: key column 'id' is null in 2 rows"):
        lake.write(people((None, "b"), (None, "c"), (1, "d")), **UPSERT)
    assert lake.rows() == [{"id": 1, "name": "a"}]
    assert not lake.orphans()


def test_a_null_key_matches_a_null(lake: Lake) -> None:
    lake.write(people((None, "a"), *((n, "x") for n in range(100, 200))))
    result = lake.write(people((None, "b"), (1, "c")), **UPSERT, null_keys="match")
    assert counts(result) == (1, 1, 0)
    assert lake.column("name") == sorted(["b", "c", *["x"] * 100])


def test_a_null_matches_in_one_of_two_key_columns(lake: Lake) -> None:
    before = pa.table({"a": [1, 1, None], "b": ["x", None, "x"], "v": [1, 2, 3]})
    lake.write(before)
    rows = pa.table({"a": [1, None, None], "b": [None, "x", None], "v": [20, 30, 40]})
    result = lake.write(rows, write_mode="upsert", key_columns=["a", "b"], null_keys="match")
    assert counts(result) == (1, 2, 0)
    assert multiset(lake.rows()) == multiset(upserted(rows_of(before), rows_of(rows), "a", "b"))


def test_repeated_keys_are_an_error_that_shows_some(lake: Lake) -> None:
    with pytest.raises(DataError, match=r"2 rows of the data repeat a key: id = 7 3 times"):
        lake.write(people((7, "a"), (7, "b"), (7, "c"), (8, "d")), **UPSERT)


def test_repeated_null_keys_are_repeated_keys(lake: Lake) -> None:
    lake.write(people((1, "a")))
    with pytest.raises(DataError, match="id = None 2 times"):
        lake.write(people((None, "a"), (None, "b")), **UPSERT, null_keys="match")


@pytest.mark.parametrize("in_memory", [1 << 28, 0], ids=["memory", "disk"])
@pytest.mark.parametrize(
    ("which", "order", "kept"),
    [("first", None, "b"), ("last", None, "a"), ("first", "name", "a"), ("last", "name", "c")],
)
def test_of_repeated_keys_one_is_kept(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, which: str, order: str | None, kept: str, in_memory: int
) -> None:
    monkeypatch.setattr(source_rows, "_IN_MEMORY_BYTES", in_memory)
    data = people((1, "b"), (2, "z"), (1, "c"), (1, "a"), (1, None) if order else (1, "a"))
    lake.write(data, **UPSERT, on_duplicate=which, duplicate_order=order)
    assert multiset(lake.rows()) == multiset([{"id": 1, "name": kept}, {"id": 2, "name": "z"}])


@pytest.mark.parametrize("declared", [{"key_columns": ["idd"]}, {"duplicate_order": "idd"}])
def test_an_unknown_column_is_named(lake: Lake, declared: Row) -> None:
    lake.write(people((1, "a")))
    with pytest.raises(ConfigurationError, match="idd"):
        lake.write(people((1, "b")), **{**UPSERT, "on_duplicate": "last", **declared})
    assert lake.column("name") == ["a"]


# --- Values ---

_EAST = timezone(timedelta(hours=5))
TYPED: dict[str, tuple[pa.DataType, list[Any]]] = {
    "text": (pa.string(), ["a", "", "ü'\"\\"]),
    "decimal": (pa.decimal128(38, 9), [Decimal("1.000000001"), Decimal("-9.5"), Decimal(10) ** 28]),
    "moment": (
        pa.timestamp("us"),
        [datetime.fromisoformat(text) for text in ("1969-12-31T23:00", "2024-02-29T01:00", "0001-01-01")],
    ),
    "instant": (
        pa.timestamp("us", "UTC"),
        [
            datetime(2024, 3, 31, 1, tzinfo=UTC),
            datetime(1970, 1, 1, tzinfo=UTC),
            datetime(2300, 1, 1, tzinfo=UTC),
        ],
    ),
    "date": (pa.date32(), [date(1969, 12, 31), date(2024, 2, 29), date(1, 1, 1)]),
    "time": (pa.time64("us"), [time(0), time(23, 59, 59, 999999), time(12)]),
    "binary": (pa.binary(), [b"", b"\x00\xff", b"a"]),
    "fixed": (pa.binary(3), [b"abc", b"\x00\x00\x00", b"\xff\xff\xff"]),
    "uuid": (pa.uuid(), [uuid.UUID(int=n).bytes for n in (0, 1, 2**127)]),
    "boolean": (pa.bool_(), [True, False, None]),
    "double": (pa.float64(), [math.nan, -0.0, math.inf]),
    "float": (pa.float32(), [math.nan, 0.5, -math.inf]),
}


@pytest.mark.parametrize("kind", TYPED)
def test_every_type_is_found_as_a_key_and_recognised_as_a_value(lake: Lake, kind: str) -> None:
    arrow, (first, second, third) = TYPED[kind]

    def table(keys: list[Any], values: list[Any], numbers: list[int]) -> pa.Table:
        return pa.table({"k": pa.array(keys, arrow), "v": pa.array(values, arrow), "n": numbers})

    before = table([first, second], [first, third], [1, 2])
    rows = table([first, second, third], [first, second, third], [1, 2, 3])
    keyed: Row = {"write_mode": "upsert", "key_columns": ["k"], "null_keys": "match"}
    lake.write(before)
    assert counts(lake.write(rows, **keyed)) == (1, 1, 1)
    assert multiset(lake.rows()) == multiset(_as_read(rows, kind))
    assert counts(lake.write(rows, **keyed)) == (0, 0, 3)


def test_every_type_comes_back_from_disk(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_rows, "_IN_MEMORY_BYTES", 0)
    columns = {kind: pa.array(values, arrow) for kind, (arrow, values) in TYPED.items()}
    before = pa.table({"id": [1, 2, 3], **columns})
    lake.write(before)
    rows = pa.table({"id": [1, 2, 4], **columns})
    assert counts(lake.write(rows, **UPSERT)) == (1, 0, 2)
    assert counts(lake.write(rows, **UPSERT, detect_unchanged=False)) == (0, 3, 0)
    found = rows_of(scan.read(scan.scan(lake.table)).read_all())
    assert multiset(found) == multiset(upserted(rows_of(before), rows_of(rows), "id"))


def _as_read(rows: pa.Table, kind: str) -> list[Row]:
    """DuckDB says a UUID as text."""
    if kind != "uuid":
        return rows_of(rows)
    return [{**row, "k": str(row["k"]), "v": str(row["v"])} for row in rows_of(rows)]


@pytest.mark.parametrize("key", [-0.0, math.nan])
def test_zeros_and_nans_are_one_key(lake: Lake, key: float) -> None:
    lake.write(pa.table({"id": [0.0, math.nan, 5.0], "v": [1, 2, 3]}))
    result = lake.write(pa.table({"id": [key], "v": [9]}), **UPSERT)
    assert counts(result) == (0, 1, 0)
    assert lake.column("v") == ([2, 3, 9] if key == 0 else [1, 3, 9])


def test_an_instant_is_the_same_in_any_zone(lake: Lake) -> None:
    at = datetime(2024, 1, 1, tzinfo=UTC)
    lake.write(pa.table({"id": pa.array([at], pa.timestamp("us", "UTC")), "v": [1]}))
    east = pa.table({"id": pa.array([at.astimezone(_EAST)], pa.timestamp("us", "Asia/Karachi")), "v": [2]})
    assert counts(lake.write(east, **UPSERT)) == (0, 1, 0)
    assert lake.rows() == [{"id": at, "v": 2}]


NESTED = pa.struct(
    [("x", pa.int32()), ("tags", pa.list_(pa.string())), ("m", pa.map_(pa.string(), pa.int64()))]
)


def test_nested_columns_are_compared_whole(lake: Lake) -> None:
    one = {"x": 1, "tags": ["a", None], "m": [("k", 1)]}
    other = {"x": 1, "tags": ["a", "b"], "m": [("k", 1)]}
    lake.write(pa.table({"id": [1, 2, 3], "s": pa.array([one, one, None], NESTED)}))
    result = lake.write(pa.table({"id": [1, 2, 3], "s": pa.array([one, other, None], NESTED)}), **UPSERT)
    assert counts(result) == (0, 1, 2)


OLD = pa.struct([("a", pa.int32()), ("b", pa.string())])
NEW = pa.struct([("a", pa.int64()), ("b", pa.string()), ("c", pa.string())])
ALONE: Any = lambda arrow: arrow  # noqa: E731
WRAPPED: dict[str, tuple[Any, Any]] = {
    "struct": (ALONE, lambda value: value),
    "list": (pa.list_, lambda value: [value, None]),
    "map": (lambda arrow: pa.map_(pa.string(), arrow), lambda value: [("k", value)]),
    "deep": (lambda arrow: pa.struct([("l", pa.list_(arrow))]), lambda value: {"l": [value]}),
}


@pytest.mark.parametrize(
    ("before_the_write", "row_changes"), [(True, "merge-on-read"), (False, "copy-on-write")]
)
@pytest.mark.parametrize("wrapped", WRAPPED)
def test_nested_columns_that_grew_are_compared_with_older_files(
    lake: Lake, wrapped: str, before_the_write: bool, row_changes: str
) -> None:
    arrow, value = WRAPPED[wrapped]

    def table(values: list[Row | None], nested: pa.DataType) -> pa.Table:
        column = [v and value(v) for v in values]
        return pa.table(
            {"id": range(len(values)), "s": pa.array(column, arrow(nested)), "w": ["w"] * len(values)}
        )

    lake.write(
        table([{"a": 1, "b": "x"}, {"a": 1, "b": "x"}, {"a": 1, "b": "x"}, None, {"a": 2, "b": "y"}], OLD)
    )
    if before_the_write:
        lake.write(table([], NEW))
    rows = table(
        [
            {"a": 1, "b": "x", "c": None},
            {"a": 1, "b": "x", "c": "new"},
            {"a": 2**40, "b": "x", "c": None},
            None,
        ],
        NEW,
    )
    assert counts(lake.write(rows, **UPSERT, row_changes=row_changes)) == (0, 2, 2)
    expected = [*rows_of(rows), *rows_of(table([None] * 4 + [{"a": 2, "b": "y", "c": None}], NEW))[4:]]
    assert multiset(rows_of(scan.read(scan.scan(lake.table)).read_all())) == multiset(expected)


def test_fields_that_changed_places_and_names_are_told_apart(lake: Lake) -> None:
    one = pa.struct([("a", pa.string()), ("b", pa.string())])
    data = [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]
    lake.write(pa.table({"id": [1, 2], "s": pa.array(data, one)}))
    for old, new in (("s.a", "c"), ("s.b", "a"), ("s.c", "b")):
        with lake.catalog.load_table(lake.name).update_schema() as change:
            change.rename_column(old, new)
    rows = pa.table({"id": [1, 2], "s": pa.array([{"b": "1", "a": "2"}, {"b": "4", "a": "3"}], one)})
    for row_changes in ("merge-on-read", "copy-on-write"):
        assert counts(lake.write(rows.slice(0, 1), **UPSERT, row_changes=row_changes)) == (0, 0, 1)
    assert counts(lake.write(rows.slice(1), **UPSERT, row_changes="copy-on-write")) == (0, 1, 0)
    found = {row["id"]: row["s"] for row in rows_of(lake.table.scan().to_arrow())}
    assert found == {row["id"]: row["s"] for row in rows_of(rows)}


# --- Columns that changed ---


def test_renamed_and_promoted_columns_are_compared_by_identity(lake: Lake) -> None:
    int32, float32 = pa.int32(), pa.float32()
    lake.write(
        pa.table({"key": pa.array([1, 2, 3], int32), "v": pa.array([0.5, 1.5, 2.5], float32), "w": [1, 2, 3]})
    )
    with lake.catalog.load_table(lake.name).update_schema() as change:
        change.rename_column("key", "id")
        change.rename_column("w", "other")
    with lake.catalog.load_table(lake.name).update_schema() as change:
        change.rename_column("other", "key")
        change.update_column("id", LongType())
        change.update_column("v", DoubleType())
    rows = pa.table({"id": [1, 2, 2**40], "v": [0.5, 9.0, 1.0], "key": [1, 2, 4]})
    assert counts(lake.write(rows, **UPSERT)) == (1, 1, 1)
    expected = [*rows_of(rows), {"id": 3, "v": 2.5, "key": 3}]
    assert multiset(lake.rows()) == multiset(expected)


def test_keys_are_widened_and_matched_in_one_write(lake: Lake) -> None:
    lake.write(pa.table({"id": pa.array([1, 2], pa.int32()), "d": pa.array([1, 2], pa.decimal128(5, 2))}))
    rows = pa.table({"id": pa.array([2, 2**40]), "d": pa.array([2, 10**6], pa.decimal128(9, 2))})
    assert counts(lake.write(rows, **UPSERT)) == (1, 0, 1)
    assert lake.column("id") == [1, 2, 2**40]


def test_a_new_column_counts_as_changed_where_it_has_a_value(lake: Lake) -> None:
    lake.write(people((1, "a"), (2, "b"), (3, "c")))
    rows = people((1, "a"), (2, "b")).append_column("new", pa.array([None, "x"], pa.string()))
    assert counts(lake.write(rows, **UPSERT)) == (0, 1, 1)
    assert multiset(lake.rows()) == multiset(upserted(rows_of(people((3, "c"))), rows_of(rows), "id"))


@pytest.mark.parametrize(("null_keys", "expected"), [("error", (2, 0, 0)), ("match", (1, 1, 0))])
def test_a_new_column_may_be_a_key(lake: Lake, null_keys: str, expected: tuple[int, int, int]) -> None:
    lake.write(pa.table({"id": [1], "v": ["a"]}))
    part = [1, 2] if null_keys == "error" else [None, 2]
    rows = pa.table({"id": [1, 1], "v": ["b", "c"], "part": pa.array(part, pa.int64())})
    result = lake.write(rows, write_mode="upsert", key_columns=["id", "part"], null_keys=null_keys)
    assert counts(result) == expected


def test_a_name_in_other_letter_case_is_another_name(lake: Lake) -> None:
    lake.write(people((1, "a")))
    with pytest.raises(SchemaError, match="differs only in upper and lower case"):
        lake.write(people((1, "b")).rename_columns(["ID", "name"]), write_mode="upsert", key_columns=["ID"])


def test_columns_that_differ_in_case_alone_are_two_columns(lake: Lake) -> None:
    catalog = lake.catalog
    catalog.create_namespace("shop")
    columns = [
        NestedField(n, name, StringType(), required=False) for n, name in enumerate(["id", "Id", "ID"], 1)
    ]
    catalog.create_table(lake.name, Schema(*columns))
    lake.write(pa.table({"id": ["1", "2"], "Id": ["a", "b"], "ID": ["c", "d"]}))
    rows = pa.table({"id": ["1", "2"], "Id": ["a", "b"], "ID": ["c", "x"]})
    assert counts(lake.write(rows, write_mode="upsert", key_columns=["id", "Id"])) == (0, 1, 1)
    assert multiset(rows_of(lake.table.scan().to_arrow())) == multiset(rows_of(rows))


NAMES = ["_file", "_position", "_row", "source", "target", "filename", "column_1", "_FILE", "a.b"]


@pytest.mark.parametrize("name", [*NAMES, 'it\'s "x"', "größe 価格", "select"])
def test_no_name_of_a_column_is_taken_for_another(lake: Lake, name: str) -> None:
    def table(keys: list[int], values: list[str]) -> pa.Table:
        return pa.table({name: keys, f"{name}!": values})

    keyed: Row = {"write_mode": "upsert", "key_columns": [name]}
    lake.write(table([1, 2, 3], ["a", "b", "c"]))
    assert counts(lake.write(table([2, 3, 4], ["b", "x", "y"]), **keyed)) == (1, 1, 1)
    result = lake.write(table([4, 1], ["y", "z"]), **keyed, row_changes="copy-on-write")
    assert counts(result) == (0, 1, 1)
    found = lake.table.scan().to_arrow().to_pydict()
    assert sorted(zip(*found.values(), strict=True)) == [(1, "z"), (2, "b"), (3, "x"), (4, "y")]


def test_a_required_column_refuses_null(lake: Lake) -> None:
    lake.write(people((1, "a")), **UPSERT, columns={"name": {"required": True}})
    with pytest.raises(DataError, match="column 'name' is required"):
        lake.write(people((1, None)), **UPSERT, columns={"name": {"required": True}})
    assert counts(lake.write(people((1, "b")), **UPSERT)) == (0, 1, 0)


# --- Files ---


def test_a_table_without_data_takes_every_row(lake: Lake) -> None:
    empty = people((1, "a")).slice(0, 0)
    lake.write(empty, **UPSERT)
    assert counts(lake.write(people((1, "a"), (2, "b")), **UPSERT)) == (2, 0, 0)
    before = lake.metadata["current-snapshot-id"]
    assert not lake.write(empty, **UPSERT).changed
    assert lake.metadata["current-snapshot-id"] == before


def test_rows_that_are_deleted_are_not_matched_again(lake: Lake) -> None:
    lake.write(people(*((n, "a") for n in range(10))))
    for number, value in enumerate("bcd"):
        result = lake.write(people((number, value), (9, value)), **UPSERT)
        assert counts(result) == (0, 2, 0)
    named = {0: "b", 1: "c", 2: "d", 9: "d"}
    assert multiset(lake.rows()) == multiset({"id": n, "name": named.get(n, "a")} for n in range(10))


def test_unchanged_rows_leave_files_alone(lake: Lake) -> None:
    lake.write(people((1, "a"), (2, "b")))
    files = lake.on_disk()
    result = lake.write(people((1, "a"), (2, "b")), **UPSERT)
    assert not result.changed
    assert counts(result) == (0, 0, 2)
    assert lake.on_disk() == files


def test_detection_can_be_turned_off(lake: Lake) -> None:
    lake.write(people((1, "a"), (2, "b")))
    assert counts(lake.write(people((1, "a")), **UPSERT, detect_unchanged=False)) == (0, 1, 0)
    assert multiset(lake.rows()) == multiset([{"id": 1, "name": "a"}, {"id": 2, "name": "b"}])


@pytest.mark.parametrize(("hit", "rewritten"), [(5, 0), (6, 1)])
def test_a_file_that_loses_most_rows_is_written_again(lake: Lake, hit: int, rewritten: int) -> None:
    lake.write(people(*((n, "a") for n in range(10))))
    result = lake.write(people(*((n, "b") for n in range(hit))), **UPSERT)
    assert (result.files_removed, result.delete_files_added) == (rewritten, 1 - rewritten)
    assert lake.column("name") == ["a"] * (10 - hit) + ["b"] * hit
    assert not lake.orphans()


def test_copy_on_write_makes_no_delete_files_and_honours_earlier_ones(lake: Lake) -> None:
    lake.write(people(*((n, "a") for n in range(10))))
    lake.write(people((0, "b"), (7, "b")), **UPSERT)
    result = lake.write(people((7, "c"), (8, "c")), **UPSERT, row_changes="copy-on-write")
    assert result.delete_files_added == 0
    expected = {0: "b", 7: "c", 8: "c"}
    assert multiset(lake.rows()) == multiset({"id": n, "name": expected.get(n, "a")} for n in range(10))
    left = [file for task in lake.table.scan().plan_files() for file in task.delete_files]
    assert left == []


def test_a_share_of_none_is_copy_on_write(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upsert, "REWRITE_SHARE", 0.0)
    lake.write(people(*((n, "a") for n in range(10))))
    result = lake.write(people((1, "b")), **UPSERT)
    assert (result.files_removed, result.delete_files_added) == (1, 0)
    assert lake.column("id") == list(range(10))


@pytest.mark.parametrize("row_changes", ["merge-on-read", "copy-on-write"])
def test_files_of_older_partition_specs_are_matched(lake: Lake, row_changes: str) -> None:
    before = pa.table({"id": range(6), "day": [1, 1, 2, 2, 3, 3], "v": ["a"] * 6})
    lake.write(before, partition_spec=[{"field": "day"}])
    with lake.catalog.load_table(lake.name).update_spec() as spec:
        spec.remove_field("day")
        spec.add_field("v", IdentityTransform(), "by_v")
    rows = pa.table({"id": [1, 2, 9], "day": [1, 7, 9], "v": ["b", "b", "c"]})
    result = lake.write(rows, **UPSERT, row_changes=row_changes)
    assert counts(result) == (1, 2, 0)
    assert multiset(lake.rows()) == multiset(upserted(rows_of(before), rows_of(rows), "id"))


def test_a_row_moves_to_another_partition(lake: Lake) -> None:
    partitioned: Row = {"partition_spec": [{"field": "name", "transform": "truncate[1]"}]}
    lake.write(people((1, "ab"), (2, "ac"), (3, None)), **UPSERT, **partitioned)
    lake.write(people((1, "zz"), (3, "a")), **UPSERT, **partitioned)
    assert multiset(lake.rows()) == multiset(
        [{"id": 1, "name": "zz"}, {"id": 2, "name": "ac"}, {"id": 3, "name": "a"}]
    )


def test_a_source_larger_than_memory_is_spilled(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_rows, "_IN_MEMORY_BYTES", 1000)
    before = pa.table({"id": range(5000), "v": ["a"] * 5000})
    lake.write(before)
    rows = pa.table({"id": range(2500, 7500), "v": ["a"] * 1000 + ["ü"] * 4000})
    result = lake.write(pa.Table.to_reader(rows, max_chunksize=500), **UPSERT)
    assert counts(result) == (2500, 1500, 1000)
    assert multiset(lake.rows()) == multiset(upserted(rows_of(before), rows_of(rows), "id"))


def test_an_upsert_on_a_branch_leaves_main_alone(lake: Lake) -> None:
    main = lake.write(people((1, "a"), (2, "b"))).snapshot_id
    first = lake.write(people((2, "c"), (3, "d")), **UPSERT, branch="audit")
    second = lake.write(people((3, "e"), (4, "f")), **UPSERT, branch="audit")
    assert [counts(first), counts(second)] == [(1, 1, 0), (1, 1, 0)]
    assert lake.metadata["current-snapshot-id"] == main
    assert multiset(lake.rows(second.snapshot_id)) == multiset(
        rows_of(people((1, "a"), (2, "c"), (3, "e"), (4, "f")))
    )
    assert multiset(lake.rows()) == multiset(rows_of(people((1, "a"), (2, "b"))))


def test_equality_deletes_are_refused_with_the_fix(lake: Lake) -> None:
    lake.write(people((1, "a"), (2, "b")))
    table = lake.catalog.load_table(lake.name)
    _add_equality_delete(lake, people((1, "a")).select(["id"]))
    for declared in (UPSERT, {**UPSERT, "row_changes": "copy-on-write"}):
        with pytest.raises(UnsupportedError, match="rewrite_data_files"):
            lake.write(people((1, "b")), **declared)
    assert table.refresh().metadata.current_snapshot_id == lake.metadata["current-snapshot-id"]


def _add_equality_delete(lake: Lake, keys: pa.Table) -> None:
    """Commit what Flink writes: rows that are gone by value."""
    from copy import copy

    table = lake.catalog.load_table(lake.name)
    path = f"{table.location()}/data/equality-deletes.parquet"
    pq.write_table(keys, path.removeprefix("file://"))
    file = copy(lake.data_files()[0])
    for position, value in ((0, DataFileContent.EQUALITY_DELETES), (1, path), (4, len(keys)), (14, [1])):
        file[position] = value
    found = lake.summary
    change = Change(table.current_snapshot().summary.operation, added_deletes=(file,), summary={})  # type: ignore[union-attr]
    commit(lake.catalog, table, lambda _: change)
    assert lake.summary != found


# --- Races ---


class _Overtaken:
    """A catalog in which somebody else commits just before our first commit."""

    def __init__(self, lake: Lake, other: pa.Table, monkeypatch: pytest.MonkeyPatch) -> None:
        self.times = 0
        real = lake.catalog.commit_table

        def commit_table(table: Any, requirements: Any, updates: Any) -> Any:
            if not self.times and any(isinstance(r, AssertRefSnapshotId) for r in requirements):
                self.times += 1
                Lake(lake.folder).write(other, **UPSERT)
            return real(table, requirements, updates)

        monkeypatch.setattr(lake.catalog, "commit_table", commit_table)


def test_who_is_overtaken_matches_again(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    lake.write(people((1, "a"), (2, "b"), (3, "c"), (4, "d"), (5, "e")))
    _Overtaken(lake, people((2, "other"), (3, "other"), (9, "other")), monkeypatch)
    result = lake.write(people((2, "other"), (3, "mine"), (9, "mine"), (10, "mine")), **UPSERT)
    assert result.attempts == 2
    assert counts(result) == (1, 2, 1)
    expected = [(1, "a"), (2, "other"), (3, "mine"), (4, "d"), (5, "e"), (9, "mine"), (10, "mine")]
    assert multiset(lake.rows()) == multiset(rows_of(people(*expected)))
    assert not lake.orphans()


def test_a_write_that_fails_leaves_no_files(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    lake.write(people((1, "a"), (2, "b"), (3, "c")))
    files = lake.on_disk(".parquet")

    def refuse(*_: Any) -> None:
        raise CommitFailedException("no")

    monkeypatch.setattr(lake.catalog, "commit_table", refuse)
    monkeypatch.setattr(
        "dwh_assets.iceberg.write.commit", lambda *args, **more: commit(*args, **more, retry_seconds=0)
    )
    with pytest.raises(Exception, match="overtaken"):
        lake.write(people((1, "x"), (4, "y")), **UPSERT)
    assert lake.on_disk(".parquet") == files


def test_threads_that_race_leave_one_row_a_key(lake: Lake) -> None:
    lake.write(people(*((n, "start") for n in range(20))))

    def run(writer: int) -> None:
        mine = Lake(lake.folder)
        for turn in range(2):
            mine.write(people(*((n, f"{writer}-{turn}") for n in range(10 + writer, 25 + writer))), **UPSERT)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(run, range(3)))
    assert lake.column("id") == list(range(27))
    last = {row["id"]: row["name"] for row in lake.rows()}
    assert last[10] == "0-1"
    assert last[26] == "2-1"
    assert set(last.values()) <= {"start", "0-1", "1-1", "2-1"}


_RACE = """
import sys
from pathlib import Path
import pyarrow as pa
from dwh_tests.iceberg.conftest import Lake

lake, name = Lake(Path(sys.argv[1])), sys.argv[2]
for turn in range(3):
    data = pa.table({"id": list(range(30)), "name": [f"{name}-{turn}"] * 30})
    lake.write(data, write_mode="upsert", key_columns=["id"])
"""


def test_processes_that_race_leave_one_row_a_key(lake: Lake) -> None:
    lake.write(people((0, "start"), (99, "start")))
    root = Path(__file__).parents[3]
    racing = [
        subprocess.Popen([sys.executable, "-c", _RACE, str(lake.folder), name], cwd=root)
        for name in ("a", "b")
    ]
    assert [process.wait(120) for process in racing] == [0, 0]
    assert lake.column("id") == [*range(30), 99]
    names = {row["name"] for row in lake.rows() if row["id"] < 30}
    assert names in ({"a-2"}, {"b-2"})


@pytest.mark.parametrize("mode", ["merge-on-read", "copy-on-write"])
def test_a_column_may_be_named_like_duckdbs_own(lake: Lake, mode: str) -> None:
    lake.write(pa.table({"id": [1, 2, 3], "File_Row_Number": [7, 8, 9]}))
    result = lake.write(pa.table({"id": [1, 2], "File_Row_Number": [7, 0]}), **UPSERT, row_changes=mode)
    assert counts(result) == (0, 1, 1)


def test_files_without_field_ids_are_matched_by_name(lake: Lake, tmp_path: Path) -> None:
    lake.write(people((1, "a")))
    foreign = tmp_path / "foreign.parquet"
    pq.write_table(people((5, "x"), (6, "y")), foreign)
    lake.catalog.load_table(lake.name).add_files([foreign.as_uri()])
    assert counts(lake.write(people((5, "x"), (6, "z"), (7, "n")), **UPSERT)) == (1, 1, 1)
    assert lake.table.scan().to_arrow().num_rows == 4


def test_a_folder_may_be_named_like_a_pattern(tmp_path: Path) -> None:
    folder = tmp_path / "a[b]*c"
    folder.mkdir()
    lake = Lake(folder)
    lake.write(people((1, "a"), (2, "b"), (3, "b")))
    assert counts(lake.write(people((1, "a"), (2, "c")), **UPSERT)) == (0, 1, 1)


def test_a_subfield_dropped_and_added_again_is_a_new_one(lake: Lake) -> None:
    both = pa.struct([("a", pa.string()), ("b", pa.string())])
    lake.write(pa.table({"id": [1, 2], "s": pa.array([{"a": "1", "b": "2"}] * 2, both)}))
    with lake.catalog.load_table(lake.name).update_schema(allow_incompatible_changes=True) as update:
        update.delete_column("s.b")
    result = lake.write(pa.table({"id": [1], "s": pa.array([{"a": "1", "b": "2"}], both)}), **UPSERT)
    assert counts(result) == (0, 1, 0)
