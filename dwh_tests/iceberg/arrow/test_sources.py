"""Whatever holds rows becomes one stream of Arrow batches; whatever does not is refused by name."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from dwh_assets.errors import DataError
from dwh_assets.iceberg.arrow.sources import as_reader
from dwh_tests.iceberg.conftest import Lake

ROWS = {"a": [1, 2, 3], "b": ["x", None, "z"]}
ARROW = pa.table(ROWS)
BATCH = ARROW.to_batches()[0]
PANDAS = pd.DataFrame(ROWS)
POLARS = pl.DataFrame(ROWS)
SOURCES: dict[str, Callable[[], Any]] = {
    "table": lambda: ARROW,
    "batch": lambda: BATCH,
    "reader": lambda: ARROW.to_reader(1),
    "dataset": lambda: ds.dataset(ARROW),
    "generator": lambda: (batch for batch in ARROW.to_batches(1)),
    "list": lambda: ARROW.to_batches(2),
    "chain of tables": lambda: itertools.chain([ARROW.slice(0, 1)], [ARROW.slice(1)]),
    "other order": lambda: [BATCH.slice(0, 2), BATCH.slice(2).select(["b", "a"])],
    "pandas": lambda: PANDAS,
    "pandas with an index": lambda: PANDAS.set_index(pd.Index([7, 8, 9], name="index")),
    "polars": lambda: POLARS,
    "polars lazy": lambda: POLARS.lazy().filter(pl.col("a") > 0),
    "duckdb": lambda: duckdb.connect().sql("VALUES (1, 'x'), (2, NULL), (3, 'z')").project("col0 a, col1 b"),
    "capsule": type("Foreign", (), {"__arrow_c_stream__": ARROW.__arrow_c_stream__}),
}


@pytest.mark.parametrize("name", SOURCES)
def test_rows_are_read(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert as_reader(SOURCES[name]()).read_all().to_pydict() == ROWS


@pytest.mark.parametrize(
    "empty", [ARROW.slice(0, 0), BATCH.slice(0, 0), PANDAS.head(0), POLARS.clear(), POLARS.clear().lazy()]
)
def test_no_rows_still_have_columns(empty: Any) -> None:
    reader = as_reader(empty)
    assert (reader.schema.names, reader.read_all().num_rows) == (["a", "b"], 0)


@pytest.mark.parametrize(
    ("thing", "word"),
    [
        (None, "NoneType"),
        ("a.parquet", "str"),
        (b"", "bytes"),
        (5, "int"),
        ({"a": [1]}, "dict"),
        ([{"a": 1}], "dict"),
        ([], "NoneType"),
        (PANDAS["a"], "Series"),
        (PANDAS.groupby("a"), "DataFrameGroupBy"),
        (POLARS["a"], "Series"),
        (pa.array([1]), "Int64Scalar"),
        (pa.chunked_array([[1]]), "ChunkedArray"),
        (pd.DataFrame({"a": [1, "x"]}), "column a"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "Duplicate"),
    ],
)
def test_what_is_no_table_is_refused(thing: Any, word: str) -> None:
    with pytest.raises(DataError, match=word):
        as_reader(thing)


@pytest.mark.parametrize(
    ("second", "word"),
    [
        (ARROW.append_column("c", pa.array([1, 2, 3])), "c int64"),
        (ARROW.select(["a"]), "rows of a int64,"),
        (pa.table({"a": ["1"], "b": ["x"]}), "a string"),
        ({"a": 1}, "a dict"),
    ],
    ids=["more columns", "fewer columns", "other type", "no batch"],
)
def test_a_later_batch_with_other_columns_is_refused(lake: Lake, second: Any, word: str) -> None:
    with pytest.raises(DataError, match=f"Item 2 .*{word}"):
        lake.write(iter([ARROW, second]))
    assert lake.on_disk(".parquet") == set()


def test_batches_are_taken_one_by_one() -> None:
    taken = []

    def batches() -> Iterator[pa.RecordBatch]:
        for number in range(5):
            taken.append(number)
            yield BATCH

    reader = as_reader(batches())
    assert taken == [0]
    reader.read_next_batch()
    reader.read_next_batch()
    assert len(taken) == 2


def test_a_scan_of_another_table_keeps_null_lists(lake: Lake) -> None:
    arrow = pa.list_(pa.struct([("x", pa.int64())]))
    lake.write(pa.table({"v": pa.array([None, [], [{"x": 1}]], arrow)}))
    copy = Lake(lake.folder, "shop.copy")
    copy.write(lake.table.scan())
    assert copy.rows() == [{"v": None}, {"v": []}, {"v": [{"x": 1}]}]
