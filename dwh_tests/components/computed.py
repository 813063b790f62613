"""Functions that the tables of these tests are computed by."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow as pa
from pyiceberg.table import Table

from dwh_assets.orchestration.partitions import PartitionSlice

if TYPE_CHECKING:
    from decimal import Decimal

NOT_A_FUNCTION = 5
# What `arriving` returns and `events` yields; tests put it there.
ARRIVING: list[dict[str, Any]] = []


def orders() -> pa.Table:
    """Three orders."""
    return pa.table({"id": [1, 2, 3], "place": ["eu", "us", None]})


def arriving() -> pa.Table:
    """The rows that a test has put there."""
    return pa.Table.from_pylist(ARRIVING)


def yielding() -> Iterator[pa.RecordBatch]:
    """The same rows, one batch each."""
    yield from arriving().to_batches(max_chunksize=1)


def events(offset: int) -> Iterator[pa.RecordBatch]:
    """The rows from one on, in batches of two."""
    yield from arriving().slice(offset).to_batches(max_chunksize=2)


def by_place(partition: PartitionSlice) -> pa.Table:
    """One order in each place of the run."""
    return pa.table({"id": list(range(len(partition.keys))), "place": list(partition.keys)})


def growing(previous: Table | None) -> pa.Table:
    """One order more than the table has."""
    return pa.table({"id": [previous.scan().count() if previous else 0], "place": ["eu"]})


def report(orders: pl.LazyFrame, prices: pa.Table) -> pl.LazyFrame:
    """The orders, and how many prices there are."""
    return orders.with_columns(pl.lit(prices.num_rows).alias("prices"))


def with_an_annotation_of_the_type_checker(orders: Decimal) -> pa.Table:
    """Its annotation cannot be read while it runs."""
    raise NotImplementedError


def with_an_option(orders: pa.Table, limit: int = 2) -> pa.Table:
    """The first orders."""
    return orders.slice(0, limit)


def with_any_arguments(*orders: pa.Table, **more: pa.Table) -> pa.Table:
    """Nobody knows what it takes."""
    raise NotImplementedError


def of_one_window(partition: PartitionSlice) -> pa.Table:
    """Rows of a window of time."""
    return pa.table({"at": [partition.window.start]})
