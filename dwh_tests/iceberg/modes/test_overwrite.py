"""What an overwrite takes away and what it keeps, against a model of plain rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyiceberg.expressions import AlwaysFalse, AlwaysTrue

from dwh_assets.errors import ConfigurationError, DataError
from dwh_assets.iceberg.results import WriteResult
from dwh_tests.iceberg.conftest import Lake, Row, multiset

STRUCTS = pa.list_(pa.struct([("x", pa.int64())]))
COLUMNS = pa.schema([("k", pa.int64()), ("p", pa.string()), ("f", pa.float64()), ("l", STRUCTS)])
BASE: list[Row] = [
    {"k": 1, "p": "a", "f": 1.0, "l": None},
    {"k": 2, "p": "a", "f": float("nan"), "l": []},
    {"k": 3, "p": None, "f": None, "l": [{"x": 1}, None]},
    {"k": None, "p": "b", "f": -0.0, "l": [{"x": None}]},
    {"k": 5, "p": "b", "f": 2.5, "l": None},
    {"k": 6, "p": "c", "f": 2.5, "l": None},
]
SPECS: dict[str, list[dict[str, str]]] = {
    "whole": [],
    "by p": [{"field": "p"}],
    "by bucket of k": [{"field": "k", "transform": "bucket[4]"}],
    "by part of p, and f": [{"field": "p", "transform": "truncate[1]"}, {"field": "f"}],
}
FILTERS: dict[str, Any] = {
    "p = 'a'": lambda row: row["p"] == "a",
    "p != 'a'": lambda row: row["p"] not in ("a", None),
    "p not in ('a', 'b')": lambda row: row["p"] not in ("a", "b", None),
    "p is null": lambda row: row["p"] is None,
    "k >= 2": lambda row: (row["k"] or 0) >= 2,
    "not (k < 5)": lambda row: (row["k"] or 0) >= 5,
    "p = 'b' and k = 5": lambda row: row["k"] == 5,
    "p = 'a' or f > 2": lambda row: row["p"] == "a" or (row["f"] or 0) > 2,
    "f is nan": lambda row: row["f"] != row["f"],
    "f != 2.5": lambda row: row["f"] not in (2.5, None),
    "f = 0": lambda row: row["f"] == 0,
    "k = 99": lambda row: False,
}


def rows(*given: Row) -> pa.Table:
    return pa.Table.from_pylist(list(given), COLUMNS)


def overwrite(lake: Lake, where: Any, *given: Row) -> WriteResult:
    """Overwrite, and see that nothing but what the result says has happened."""
    before = multiset(lake.rows())
    result = lake.write(rows(*given), where=where, write_mode="overwrite")
    found = lake.rows()
    assert lake.orphans() == set()
    assert result.total_rows == len(found)
    assert sum(before.values()) - result.rows_deleted + result.rows_inserted == len(found)
    assert result.total_files == len(lake.data_files())
    return result


CASES = [(name, where) for name in ("whole", "by p") for where in FILTERS] + [
    (name, where) for name in list(SPECS)[2:] for where in ("p != 'a'", "k >= 2", "p = 'a' or f > 2", "f = 0")
]


@pytest.mark.parametrize(("name", "where"), CASES)
def test_rows_that_match_go_and_all_others_stay_as_they_are(lake: Lake, name: str, where: str) -> None:
    spec = SPECS[name]
    lake.write(rows(*BASE[:4]), partition_spec=spec)
    lake.write(rows(*BASE[4:]), partition_spec=spec)
    gone = [row for row in BASE if FILTERS[where](row)]
    result = overwrite(lake, where)
    assert multiset(lake.rows()) == multiset(row for row in BASE if not FILTERS[where](row))
    assert (result.rows_deleted, result.rows_inserted, result.changed) == (len(gone), 0, bool(gone))


def test_whole_partitions_go_without_being_read(lake: Lake) -> None:
    lake.write(rows(*BASE), partition_spec=SPECS["by p"])
    kept = {file.file_path for file in lake.data_files() if file.partition[0] != "a"}
    for path in lake.on_disk(".parquet"):
        if "p=a" in path:
            Path(path).write_bytes(b"")
    data = rows({**BASE[0], "k": 7})
    result = lake.write(data, where="p = 'a'", write_mode="overwrite")
    assert (result.files_removed, result.files_added, result.rows_deleted) == (1, 1, 2)
    assert kept < {file.file_path for file in lake.data_files()}


def test_only_files_that_lose_rows_are_written_again(lake: Lake) -> None:
    for row in BASE:
        lake.write(rows(row))
    before = {file.file_path for file in lake.data_files()}
    result = overwrite(lake, "k = 5 or k = 99", {**BASE[4], "p": "z"})
    assert (result.files_removed, result.files_added) == (1, 1)
    assert len(before & {file.file_path for file in lake.data_files()}) == 5


def test_the_whole_table_and_nothing(lake: Lake) -> None:
    lake.write(rows(*BASE))
    assert overwrite(lake, None, BASE[0]).rows_deleted == 6
    assert overwrite(lake, AlwaysFalse()).operation == "none"
    assert overwrite(lake, AlwaysTrue()).rows_deleted == 1
    assert lake.rows() == []
    again = overwrite(lake, AlwaysTrue())
    assert (again.changed, again.total_rows) == (False, 0)


@pytest.mark.parametrize("where", ["p = 'a'", "p != 'b'", "p is null", "f > 0", "f is nan"])
def test_rows_that_would_not_be_replaced_are_refused(lake: Lake, where: str) -> None:
    lake.write(rows(*BASE))
    before, files = lake.table.metadata_location, lake.on_disk()
    outside = next(row for row in BASE if not {**FILTERS, "p != 'b'": lambda r: r["p"] in ("a", "c"),
                                               "f > 0": lambda r: (r["f"] or 0) > 0}[where](row))  # fmt: skip
    with pytest.raises(DataError, match=r"shop.orders: 1 rows lie outside.*'k':|'p':"):
        lake.write(rows(outside), where=where, write_mode="overwrite")
    assert (lake.table.metadata_location, lake.on_disk()) == (before, files)


@pytest.mark.parametrize("where", ["nope = 1", "k = 'x'", "k ==="])
def test_a_wrong_filter_replaces_nothing(lake: Lake, where: str) -> None:
    lake.write(rows(*BASE))
    before = lake.table.metadata_location
    with pytest.raises(ConfigurationError, match="filter"):
        lake.write(rows(BASE[0]), where=where, write_mode="overwrite")
    assert lake.table.metadata_location == before


def test_a_filter_may_speak_of_a_column_that_the_data_bring(lake: Lake) -> None:
    lake.write(pa.table({"k": [1, 2]}))
    first = lake.write(pa.table({"k": [3], "new": ["x"]}), where="new = 'x'", write_mode="overwrite")
    assert (first.rows_deleted, first.schema_changes) == (0, ("added new string",))
    again = lake.write(pa.table({"k": [4], "new": ["x"]}), where="new = 'x'", write_mode="overwrite")
    assert again.rows_deleted == 1
    other = Lake(lake.folder, "shop.other")
    other.write(pa.table({"k": [1, 2]}))
    nulls = pa.table({"k": [9], "new": pa.array([None], pa.string())})
    assert other.write(nulls, where="new is null", write_mode="overwrite").rows_deleted == 2
    assert other.rows() == [{"k": 9, "new": None}]


def test_rows_that_stay_get_the_new_columns_and_layout(lake: Lake) -> None:
    lake.write(pa.table({"k": pa.array([2, 1, 3], pa.int32()), "p": ["a", "b", "a"]}))
    lake.write(
        pa.table({"k": [2**40], "p": ["a"], "new": [1.5]}),
        where=f"k = 3 or k = {2**40}",
        write_mode="overwrite",
        partition_spec=[{"field": "p"}],
        sort_order=[{"field": "k"}],
    )
    assert multiset(lake.rows()) == multiset(
        [
            {"k": 2, "p": "a", "new": None},
            {"k": 1, "p": "b", "new": None},
            {"k": 2**40, "p": "a", "new": 1.5},
        ]
    )
    assert {(file.spec_id, file.sort_order_id) for file in lake.data_files()} == {(1, 1)}


DELETES: dict[str, bool] = {"one delete file": True, "one a data file": False}


@pytest.fixture(params=list(DELETES.values()), ids=list(DELETES))
def deleted(request: pytest.FixtureRequest, lake: Lake) -> Lake:
    """Two files of ten rows, of which the first and the sixth are deleted by position."""
    for start in (0, 10):
        lake.write(pa.table({"v": range(start, start + 10)}))
    wanted = {file.file_path: [0, 5] for file in lake.data_files()}
    lake.delete_positions(*([wanted] if request.param else [{path: gone} for path, gone in wanted.items()]))
    assert lake.column("v") == [v for v in range(20) if v % 10 not in (0, 5)]
    return lake


def check(lake: Lake, result: WriteResult, expected: list[int]) -> None:
    """The rows are right for two readers, and for the counts of the snapshot."""
    assert lake.column("v") == sorted(expected)
    assert sorted(lake.table.scan().to_arrow()["v"].to_pylist()) == sorted(expected)
    assert result.total_rows == len(expected)
    assert lake.orphans() == set()


def test_deleted_rows_do_not_come_back(deleted: Lake) -> None:
    left = deleted.column("v")
    result = deleted.write(pa.table({"v": [7]}), where="v = 7", write_mode="overwrite")
    assert result.rows_deleted == 1
    check(deleted, result, left)
    assert int(deleted.summary["total-position-deletes"]) == 2
    result = deleted.write(pa.table({"v": [16, 16]}), where="v >= 16", write_mode="overwrite")
    assert result.rows_deleted == 4
    check(deleted, result, [v for v in left if v < 16] + [16, 16])
    assert int(deleted.summary["total-delete-files"]) == 0


def test_delete_files_go_with_their_last_data_file(deleted: Lake) -> None:
    result = deleted.write(pa.table({"v": [100]}), write_mode="overwrite")
    assert (result.rows_deleted, result.files_removed) == (16, 2)
    check(deleted, result, [100])
    totals = {key: value for key, value in deleted.summary.items() if key.startswith("total-")}
    assert (totals["total-delete-files"], totals["total-position-deletes"]) == ("0", "0")
    manifests = deleted.table.current_snapshot().manifests(deleted.table.io)  # type: ignore[union-attr]
    live = [m for m in manifests if m.content == 1 and (m.has_added_files() or m.has_existing_files())]
    assert live == []


def test_deletes_of_other_partitions_stay(lake: Lake) -> None:
    table = pa.table({"p": ["a"] * 4 + ["b"] * 4, "v": range(8)})
    lake.write(table, partition_spec=[{"field": "p"}])
    lake.delete_positions(*({file.file_path: [1]} for file in lake.data_files()))
    result = lake.write(table.slice(0, 1), where="p = 'a'", write_mode="overwrite")
    assert (result.rows_deleted, result.total_rows) == (3, 4)
    assert lake.column("v") == [0, 4, 6, 7]
    assert lake.summary["total-position-deletes"] == "1"


STEP = st.tuples(
    st.sampled_from(["append", "overwrite", "delete positions"]),
    st.sampled_from(["p = 'a'", "p != 'a'", "k < 3", "p = 'b' and k > 1", "k is null", None]),
    st.lists(st.tuples(st.sampled_from([None, "a", "b"]), st.none() | st.integers(0, 5)), max_size=4),
)
MODEL: dict[str | None, Any] = {
    "p = 'a'": lambda p, k: p == "a",
    "p != 'a'": lambda p, k: p not in ("a", None),
    "k < 3": lambda p, k: k is not None and k < 3,
    "p = 'b' and k > 1": lambda p, k: p == "b" and k is not None and k > 1,
    "k is null": lambda p, k: k is None,
    None: lambda p, k: True,
}


@settings(
    max_examples=8,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(spec=st.sampled_from([[], [{"field": "p"}]]), steps=st.lists(STEP, min_size=2, max_size=5))
def test_any_sequence_ends_as_the_model_does(
    tmp_path_factory: pytest.TempPathFactory, spec: list[dict[str, str]], steps: list[Any]
) -> None:
    lake = Lake(tmp_path_factory.mktemp("model"))
    schema = pa.schema([("p", pa.string()), ("k", pa.int64())])
    lake.write(schema.empty_table(), partition_spec=spec)
    model: list[tuple[Any, Any]] = []
    for kind, where, given_rows in steps:
        matches = MODEL[where]
        data = [row for row in given_rows if kind == "append" or matches(*row)]
        table = pa.Table.from_pylist([{"p": p, "k": k} for p, k in data], schema)
        if kind == "append":
            lake.write(table)
            model += data
        elif kind == "overwrite":
            lake.write(table, where=where, write_mode="overwrite")
            model = [row for row in model if not matches(*row)] + data
        elif lake.data_files():
            file = lake.data_files()[0]
            lake.delete_positions({file.file_path: [0]})
            model = [(row["p"], row["k"]) for row in lake.rows()]
    assert multiset(lake.rows()) == multiset({"p": p, "k": k} for p, k in model)
    assert len(model) == int(lake.summary["total-records"]) - int(lake.summary["total-position-deletes"])
    assert lake.orphans() == set()
