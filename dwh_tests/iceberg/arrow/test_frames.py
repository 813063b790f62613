"""A planned read arrives as the type that was asked for, with the same rows in each."""

from __future__ import annotations

import datetime as dt
import gc
from decimal import Decimal
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from pyiceberg.table import DataScan

from dwh_assets.errors import ConfigurationError
from dwh_assets.iceberg.arrow.frames import read_as
from dwh_assets.iceberg.scan import scan
from dwh_tests.iceberg.conftest import Lake

NOON = dt.datetime(2013, 1, 1, 12, tzinfo=dt.UTC)
ROWS = pa.table(
    {
        "id": pa.array(range(20)),
        "at": pa.array([NOON, None] * 10, pa.timestamp("us", "UTC")),
        "day": pa.array([dt.date(2013, 1, 1), None] * 10),
        "price": pa.array([Decimal("1.50"), None] * 10),
        "tags": pa.array([None, [], [{"x": 1}], [None]] * 5, pa.list_(pa.struct([("x", pa.int64())]))),
        "place": pa.array([{"lat": 1.5, "lon": 2.5}, None] * 10),
    }
)
ANNOTATIONS = [
    pa.Table,
    pa.RecordBatchReader,
    pd.DataFrame,
    pl.DataFrame,
    pl.LazyFrame,
    duckdb.DuckDBPyRelation,
    DataScan,
]


@pytest.fixture(scope="module")
def lake(module_lake: Lake) -> Lake:
    module_lake.write(ROWS.slice(0, 8))
    module_lake.write(ROWS.slice(8))
    return module_lake


def as_arrow(frame: Any) -> pa.Table:
    """The rows of any of them, by the library's own export."""
    if isinstance(frame, pa.RecordBatchReader):
        return frame.read_all()
    if isinstance(frame, pl.LazyFrame):
        return frame.collect().to_arrow()
    if isinstance(frame, pl.DataFrame):
        return frame.to_arrow()
    if isinstance(frame, duckdb.DuckDBPyRelation):
        return frame.to_arrow_table()
    if isinstance(frame, pd.DataFrame):
        return pa.Table.from_pandas(frame, preserve_index=False)
    return frame.to_arrow() if isinstance(frame, DataScan) else frame


@pytest.mark.parametrize(
    "annotation", ANNOTATIONS[:-1], ids=lambda a: f"{a.__module__.split('.')[0]}.{a.__name__}"
)
def test_every_value_arrives(lake: Lake, annotation: Any) -> None:
    frame = read_as(scan(lake.table), annotation)
    assert isinstance(frame, annotation)
    found = as_arrow(frame)
    for name in ROWS.column_names:
        values = found[name].to_pylist()
        if annotation is pd.DataFrame and name == "day":
            values = [value and value.date() for value in values]
        assert values == ROWS[name].to_pylist(), name


@pytest.mark.parametrize(
    "annotation", ANNOTATIONS, ids=lambda a: f"{a.__module__.split('.')[0]}.{a.__name__}"
)
def test_a_table_without_rows_still_has_columns(lake: Lake, annotation: Any) -> None:
    found = as_arrow(read_as(scan(lake.table, where="id < 0"), annotation))
    assert (found.column_names, found.num_rows) == (ROWS.column_names, 0)


@pytest.mark.parametrize("annotation", [None, Any, type(None)])
def test_without_an_annotation_it_is_an_arrow_table(lake: Lake, annotation: Any) -> None:
    assert isinstance(read_as(scan(lake.table), annotation), pa.Table)


@pytest.mark.parametrize("annotation", [dict, "DataFrame", pl.Series, list[int]])
def test_other_types_are_refused_with_what_there_is(lake: Lake, annotation: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"pyarrow.Table.*polars.LazyFrame"):
        read_as(scan(lake.table), annotation)


def lazy(lake: Lake, **wanted: Any) -> pl.LazyFrame:
    frame: pl.LazyFrame = read_as(scan(lake.table, **wanted), pl.LazyFrame)
    return frame


EAGER = pl.DataFrame(pl.from_arrow(ROWS))


@pytest.mark.parametrize(
    "query",
    [
        lambda frame: frame.select("price", "id"),
        lambda frame: frame.filter(pl.col("id") > 17).select("day"),
        lambda frame: frame.filter(pl.col("id") >= 7).head(3).select("id"),
        lambda frame: frame.head(12).filter(pl.col("id") % 2 == 1).select("id"),
        lambda frame: frame.tail(2).select("id", "at"),
        lambda frame: frame.slice(9, 3).select("id"),
        lambda frame: frame.select(pl.len()),
        lambda frame: frame.filter(pl.col("price").is_null()).select(pl.col("id").sum()),
        lambda frame: frame.select(pl.col("place").struct.field("lat")),
    ],
)
def test_lazy_frames_push_work_down_and_change_no_answer(lake: Lake, query: Any) -> None:
    assert query(lazy(lake)).collect().equals(query(EAGER.lazy()).collect())


def test_a_lazy_frame_can_be_collected_twice_and_joined_with_itself(lake: Lake) -> None:
    frame = lazy(lake).select("id")
    assert frame.join(frame, on="id").collect().height == frame.collect().height == 20


def test_columns_of_structs_are_selected(lake: Lake) -> None:
    planned = scan(lake.table, columns=["place.lat", "id"])
    expected = [{"id": 0, "place": {"lat": 1.5}}, {"id": 1, "place": None}]
    assert read_as(planned, pa.Table).slice(0, 2).to_pylist() == expected
    assert read_as(planned, pl.LazyFrame).select("place").head(1).collect().to_dicts() == [
        {"place": {"lat": 1.5}}
    ]


def test_a_relation_outlives_its_reader(lake: Lake) -> None:
    relation = read_as(scan(lake.table), duckdb.DuckDBPyRelation)
    gc.collect()
    assert relation.aggregate("sum(id)").fetchone() == (190,)


def test_a_scan_is_given_as_it_is(lake: Lake) -> None:
    planned = scan(lake.table, where="id = 3")
    assert read_as(planned, DataScan) is planned
