"""Columns that come, go, move and change in the table do so in the replica, with the rows or without."""

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.schema import Schema
from pyiceberg.table.update.schema import UpdateSchema
from pyiceberg.types import DoubleType, FloatType, IntegerType, LongType, NestedField, StringType

from dwh_assets.errors import DwhError, NotFoundError
from dwh_assets.warehouses.options import ReplicaOptions
from dwh_tests.iceberg.conftest import Lake
from dwh_tests.warehouses.conformance.expected import lake_rows, replica_rows, require_same, unsigned
from dwh_tests.warehouses.conformance.places import TABLE, Place

SCHEMA = Schema(
    NestedField(1, "id", LongType(), required=True),
    NestedField(2, "a", StringType(), required=False),
    NestedField(3, "b", StringType(), required=False),
    NestedField(4, "n", IntegerType(), required=False),
    NestedField(5, "must", StringType(), required=True),
    NestedField(6, "ratio", FloatType(), required=False),
    identifier_field_ids=[1],
)
VALUES: dict[type, Any] = {LongType: 2**40, IntegerType: 7, FloatType: 0.5, DoubleType: 0.1, StringType: "é'"}
Change = Callable[[UpdateSchema], Any]


def made(lake: Lake) -> Lake:
    lake.catalog.create_namespace("shop")
    lake.catalog.create_table(TABLE, SCHEMA)
    for number in range(3):
        append(lake, number)
    return lake


def append(lake: Lake, number: int) -> None:
    """A row with a value in every column there is."""
    table = lake.table
    values = {field.name: VALUES[type(field.field_type)] for field in table.schema().fields} | {"id": number}
    table.append(pa.Table.from_pylist([values], table.schema().as_arrow()))


def change(lake: Lake, *changes: Change) -> None:
    """Each is a change of its own to the table: one cannot take a name that another gives free."""
    for one in changes:
        with lake.table.update_schema(allow_incompatible_changes=True) as update:
            one(update)


STEPS: list[tuple[str, str, list[Change]]] = [
    ("add", "incremental", [lambda c: c.add_column("new", DoubleType())]),
    ("rename", "incremental", [lambda c: c.rename_column("new", "Größe")]),
    ("chain", "incremental", [lambda c: c.rename_column("b", "c"), lambda c: c.rename_column("a", "b")]),
    (
        "swap",
        "full",
        [
            lambda c: c.rename_column("b", "x"),
            lambda c: c.rename_column("c", "b"),
            lambda c: c.rename_column("x", "c"),
        ],
    ),
    ("widen", "", [lambda c: c.update_column("n", LongType()).update_column("ratio", DoubleType())]),
    ("optional", "incremental", [lambda c: c.make_column_optional("must")]),
    ("reorder", "", [lambda c: c.move_first("ratio").move_after("id", "must")]),
    ("drop", "incremental", [lambda c: c.delete_column("c")]),
    (
        "drop and add",
        "incremental",
        [lambda c: c.delete_column("n"), lambda c: c.add_column("n", StringType())],
    ),
]


@pytest.mark.parametrize("with_rows", [True, False], ids=["with rows", "alone"])
def test_columns_follow_the_table(place: Place, lake: Lake, with_rows: bool) -> None:
    made(lake)
    replica = place.replica()
    replica.sync(lake.catalog)
    for number, (name, method, changes) in enumerate(STEPS, 10):
        change(lake, *changes)
        if with_rows:
            append(lake, number)
        result = replica.sync(lake.catalog)
        # Warehouses differ in which types they tell apart, and none has an order of columns that matters.
        assert result.method == method or (not method and result.method != "full"), (name, result.reason)
        require_same(replica, lake, name)
        assert replica.read().schema.names == lake.table.schema().column_names
        assert replica.sync(lake.catalog).method == "none"


def test_dropped_columns_may_be_kept(place: Place, lake: Lake) -> None:
    made(lake)
    replica = place.replica(options=ReplicaOptions(dropped_columns="keep"))
    replica.sync(lake.catalog)
    change(lake, lambda c: c.delete_column("b"), lambda c: c.delete_column("must"))
    append(lake, 10)
    assert replica.sync(lake.catalog).method == "incremental"
    require_same(replica, lake)
    kept = place.ask(f"SELECT id, b, must FROM {place.into} ORDER BY id")
    assert [(int(row[0]), *row[1:]) for row in kept] == [
        *((n, "é'", "é'") for n in range(3)),
        (10, None, None),
    ]
    change(lake, lambda c: c.add_column("b", LongType()))
    result = replica.sync(lake.catalog)
    assert result.method == "full"
    assert "a column b already" in result.reason.lower()
    require_same(replica, lake)


def test_a_table_that_somebody_made_is_filled_and_never_changed(place: Place, lake: Lake) -> None:
    made(lake)
    options = ReplicaOptions(create_table=False)
    with pytest.raises(NotFoundError, match="create_table is false"):
        place.replica(options=options).sync(lake.catalog)
    text, number = ("STRING", "FLOAT64") if "bigquery" in place.name else ("VARCHAR", "DOUBLE")
    whole = {"bigquery": "INT64", "snowflake": "NUMBER(38, 0)"}.get(
        place.name.removeprefix("live-"), "BIGINT"
    )
    place.ask(
        f"CREATE TABLE {place.into} (extra {text}, id {whole}, a {text}, b {text}, n {whole}, must {text},"
        f" ratio {number})"
    )
    replica = place.replica(options=options)
    assert replica.sync(lake.catalog).method == "full"
    append(lake, 10)
    assert replica.sync(lake.catalog).method == "incremental"
    require_same(replica, lake)
    before = lake_rows(lake.table)
    change(lake, lambda c: c.add_column("new", LongType()))
    append(lake, 11)
    with pytest.raises(DwhError, match="create_table is false"):
        replica.sync(lake.catalog)
    assert unsigned(replica_rows(replica)) == unsigned(before)
