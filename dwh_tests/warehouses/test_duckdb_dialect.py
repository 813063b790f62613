"""DuckDB's dialect: every type there and back, and the canonical text as the plain model says it."""

import math
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from decimal import Context, Decimal
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyiceberg.io.pyarrow import schema_to_pyarrow
from pyiceberg.schema import Schema
from pyiceberg.types import (
    DecimalType,
    DoubleType,
    IcebergType,
    ListType,
    LongType,
    NestedField,
    StringType,
    StructType,
    TimestampNanoType,
    TimestamptzNanoType,
    TimestamptzType,
)

from dwh_assets.errors import ConfigurationError, SchemaError, UnsupportedError
from dwh_assets.iceberg.arrow.types import align
from dwh_assets.warehouses.base import Target
from dwh_assets.warehouses.dialect import TypeOptions
from dwh_assets.warehouses.duckdb.dialect import DuckDBDialect
from dwh_tests.warehouses import canonical_model as model
from dwh_tests.warehouses.canonical_values import EDGES

DIALECT = DuckDBDialect()
WIDE = Context(prec=40)


@pytest.fixture
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    # A zone far from Greenwich: the text of an instant must not depend on it.
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'Asia/Kathmandu'")
        yield connection


def arrow_column(iceberg: IcebergType, values: list[Any]) -> pa.Array:
    schema = Schema(NestedField(1, "v", iceberg, required=False))
    target = schema_to_pyarrow(schema, include_field_ids=False).field(0).type
    return pa.array(values, getattr(target, "storage_type", target)).cast(target)


def load(connection: duckdb.DuckDBPyConnection, iceberg: IcebergType, values: list[Any]) -> str | None:
    """Put values into a table of the dialect's own type; return the SQL of their text."""
    holding = DIALECT.holding(iceberg, "t: column v", TypeOptions())
    array = arrow_column(iceberg, values)
    assert holding.arrow_type == array.type
    rows = pa.table({"n": pa.array(range(len(values))), "v": array})
    connection.register("arriving", rows)
    connection.execute(f"CREATE OR REPLACE TABLE t (n BIGINT, v {holding.sql_type})")
    connection.execute("INSERT INTO t SELECT n, v FROM arriving")
    return DIALECT.canonical_sql(iceberg, holding, "v")


def texts(connection: duckdb.DuckDBPyConnection, text_sql: str | None) -> list[str | None]:
    return [text for (text,) in connection.execute(f"SELECT {text_sql} FROM t ORDER BY n").fetchall()]


@pytest.mark.parametrize("kind", EDGES)
def test_the_canonical_text_is_the_models(connection: duckdb.DuckDBPyConnection, kind: str) -> None:
    iceberg, values = EDGES[kind]
    text_sql = load(connection, iceberg, [*values, None])
    assert texts(connection, text_sql) == [model.text(iceberg, value) for value in [*values, None]]


@pytest.mark.parametrize("kind", EDGES)
def test_a_value_comes_back_as_it_went(connection: duckdb.DuckDBPyConnection, kind: str) -> None:
    iceberg, values = EDGES[kind]
    load(connection, iceberg, [*values, None])
    connection.execute("SET TimeZone = 'UTC'")
    found = connection.execute("SELECT v FROM t ORDER BY n").to_arrow_table()
    sent = arrow_column(iceberg, [*values, None])
    target = pa.schema([pa.field("v", sent.type)])
    returned = align(found.combine_chunks().to_batches()[0], target, "t").column("v")
    assert repr(returned.to_pylist()) == repr(sent.to_pylist())


@settings(deadline=None, max_examples=40)
@given(st.lists(st.floats(), min_size=1))
def test_each_double_has_a_text_of_its_own(values: list[float]) -> None:
    with duckdb.connect() as connection:
        text_sql = load(connection, DoubleType(), values)
        found = texts(connection, text_sql)
    assert found == [model.text(DoubleType(), value) for value in values]
    for text, value in zip(found, values, strict=True):
        assert text is not None
        if math.isfinite(value) and value:
            mantissa, exponent = text.split("p")
            assert math.ldexp(int(mantissa), int(exponent) - 52) == value


DECIMALS = st.integers(1, 38).flatmap(
    lambda digits: st.tuples(
        st.just(digits), st.integers(0, digits), st.integers(1 - 10**digits, 10**digits - 1)
    )
)


@settings(deadline=None, max_examples=40)
@given(DECIMALS)
def test_decimals_of_any_scale_have_the_models_text(drawn: tuple[int, int, int]) -> None:
    digits, scale, unscaled = drawn
    iceberg = DecimalType(digits, scale)
    values = [
        Decimal(n).scaleb(-scale, WIDE)
        for n in (unscaled, unscaled - unscaled % (10 if unscaled > 0 else -10), 0)
    ]
    with duckdb.connect() as connection:
        text_sql = load(connection, iceberg, values)
        assert texts(connection, text_sql) == [model.text(iceberg, value) for value in values]


@settings(deadline=None, max_examples=40)
@given(st.lists(st.text(), min_size=1))
def test_texts_of_any_characters_are_told_apart(values: list[str]) -> None:
    with duckdb.connect() as connection:
        text_sql = load(connection, StringType(), values)
        assert texts(connection, text_sql) == [model.text(StringType(), value) for value in values]


def test_the_hash_is_that_of_md5_in_four_integers(connection: duckdb.DuckDBPyConnection) -> None:
    canonical = ["", "a", "\\N|", "ø" * 1000, *(str(random.Random(7).random()) for _ in range(100))]
    connection.register("arriving", pa.table({"n": range(len(canonical)), "v": canonical}))
    limbs_sql = ", ".join(DIALECT.limbs_sql("v"))
    found = connection.execute(f"SELECT {limbs_sql} FROM arriving ORDER BY n").fetchall()
    assert found == [model.limbs(text) for text in canonical]


def test_nanoseconds_without_a_zone_are_held(connection: duckdb.DuckDBPyConnection) -> None:
    text_sql = load(connection, TimestampNanoType(), [1, -1, 1_700_000_000_123_456_789])
    assert texts(connection, text_sql) == ["1", "-1", "1700000000123456789"]


@pytest.mark.parametrize(
    ("option", "sql_type", "lost"),
    [("truncate", "TIMESTAMP WITH TIME ZONE", True), ("text", "VARCHAR", False)],
)
def test_instants_in_nanoseconds_are_held_as_the_option_says(
    connection: duckdb.DuckDBPyConnection, option: Any, sql_type: str, lost: bool
) -> None:
    holding = DIALECT.holding(TimestamptzNanoType(), "t: column v", TypeOptions(nanoseconds=option))
    assert holding.sql_type == sql_type
    assert bool(holding.lost) is lost
    assert holding.encode is not None
    assert DIALECT.canonical_sql(TimestamptzNanoType(), holding, "v") is None
    moments = pa.array([-1, 1_700_000_000_123_456_789, None], pa.timestamp("ns", "UTC"))
    sent = pa.table({"v": holding.encode(moments).cast(holding.arrow_type)})
    connection.register("arriving", sent)
    connection.execute(f"CREATE TABLE t (v {sql_type})")
    connection.execute("INSERT INTO t SELECT v FROM arriving")
    connection.execute("SET TimeZone = 'UTC'")
    found = connection.execute("FROM t").to_arrow_table().combine_chunks().to_batches()[0]
    returned = align(found, pa.schema([("v", moments.type)]), "t").column("v")
    kept = [-1000, 1_700_000_000_123_456_000, None] if lost else [-1, 1_700_000_000_123_456_789, None]
    assert returned.cast(pa.int64()).to_pylist() == kept


def test_instants_in_nanoseconds_are_refused_without_the_option() -> None:
    with pytest.raises(UnsupportedError, match="column v is timestamptz_ns"):
        DIALECT.holding(TimestamptzNanoType(), "lake.t: column v", TypeOptions())


def test_fields_that_differ_in_case_alone_are_refused_however_deep() -> None:
    struct = StructType(NestedField(2, "a", LongType()), NestedField(3, "A", LongType()))
    with pytest.raises(SchemaError, match=r"lake\.t: column v\.element: fields 'a' and 'A'"):
        DIALECT.holding(ListType(4, struct), "lake.t: column v", TypeOptions())


@pytest.mark.parametrize(
    ("into", "expected"),
    [
        ("orders", Target("", "main", "orders")),
        ("sales.orders", Target("", "sales", "orders")),
        ('sales."a.b"', Target("", "sales", "a.b")),
        ('"say ""hi"""."x"', Target("", 'say "hi"', "x")),
    ],
)
def test_where_a_replica_is(into: str, expected: Target) -> None:
    assert DIALECT.target(into) == expected
    assert DIALECT.state_table(expected) == Target("", "main", "_dwh_replicas")


@pytest.mark.parametrize("into", ["", ".", "a.", "a.b.c", 'a."b'])
def test_what_is_no_name_of_a_table_is_refused(into: str) -> None:
    with pytest.raises(ConfigurationError, match="`into`"):
        DIALECT.target(into)


def test_an_instant_has_one_text_in_every_time_zone(connection: duckdb.DuckDBPyConnection) -> None:
    moment = datetime(2024, 3, 10, 7, 30, tzinfo=UTC)
    zones = [moment.astimezone(timezone(timedelta(hours=hours))) for hours in (-8, 0, 5.5)]
    holding = DIALECT.holding(TimestamptzType(), "t", TypeOptions())
    connection.execute("CREATE TABLE t (v TIMESTAMP WITH TIME ZONE)")
    for zone in zones:
        connection.execute("INSERT INTO t VALUES (?)", [zone])
    text_sql = DIALECT.canonical_sql(TimestamptzType(), holding, "v")
    assert connection.execute(f"SELECT DISTINCT {text_sql} FROM t").fetchall() == [("1710055800000000",)]
