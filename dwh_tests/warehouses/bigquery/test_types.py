"""Every Iceberg type into BigQuery and back, and its canonical text there."""

import math
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa
import pytest
from google.cloud import bigquery
from pyiceberg.schema import Schema
from pyiceberg.types import (
    BinaryType,
    BooleanType,
    DateType,
    DecimalType,
    DoubleType,
    FixedType,
    FloatType,
    IcebergType,
    IntegerType,
    ListType,
    LongType,
    MapType,
    NestedField,
    StringType,
    StructType,
    TimestampNanoType,
    TimestampType,
    TimestamptzNanoType,
    TimestamptzType,
    TimeType,
    UUIDType,
)

from dwh_assets.errors import DataError
from dwh_assets.iceberg.arrow.types import arrow_schema
from dwh_assets.warehouses.base import Target
from dwh_assets.warehouses.bigquery.session import BigQuerySession
from dwh_assets.warehouses.bigquery.warehouse import BigQueryWarehouse
from dwh_assets.warehouses.columns import decoded
from dwh_assets.warehouses.dialect import ReplicaColumn, TypeOptions
from dwh_assets.warehouses.session import Layout, encoded
from dwh_tests.warehouses.bigquery.columns import DIALECT, column_of
from dwh_tests.warehouses.bigquery.conftest import opened
from dwh_tests.warehouses.canonical_model import limbs, text

pytestmark = pytest.mark.server

A_UUID = UUID("00112233-4455-6677-8899-aabbccddeeff")
TEXTS = [
    "",
    "a",
    "é",
    "e\u0301",
    "日本語",
    "😀",
    "'",
    "\\",
    "|",
    "NULL",
    "\\N",
    " lead",
    "tab\tx",
    "nl\nx",
    '"',
]
FLOATS = [0.1, 0.0, 1e300, -1e-300, 1.0, 5e-324, 1.7976931348623157e308, -2.5, 2.0**52, 2.0**-1022, 1e17]
SINGLES = np.array([0.1, 1.5, -2.5, 1e-45, 3.4e38], np.float32).tolist()
SPECIAL = [math.inf, -math.inf, math.nan]
INSTANTS = [
    datetime(1, 1, 1, tzinfo=UTC),
    datetime(1969, 12, 31, 23, 59, 59, 999_999, UTC),
    datetime(1970, 1, 1, tzinfo=UTC),
    datetime(2024, 3, 31, 2, 30, 0, 1, UTC),
    datetime(9999, 12, 31, 23, 59, 59, 999_999, UTC),
]
MOMENTS = [instant.replace(tzinfo=None) for instant in INSTANTS]
VALUES: list[tuple[IcebergType, list[Any]]] = [
    (BooleanType(), [True, False]),
    (IntegerType(), [0, -1, 2**31 - 1, -(2**31)]),
    (LongType(), [0, -1, 2**63 - 1, -(2**63)]),
    (FloatType(), [*SINGLES, *SPECIAL]),
    (DoubleType(), [*FLOATS, *SPECIAL]),
    (DecimalType(9, 2), [Decimal("0.00"), Decimal("-1234567.89"), Decimal("100.10")]),
    (DecimalType(38, 9), [Decimal("-" + "9" * 29 + "." + "9" * 9), Decimal("0.000000001")]),
    (DecimalType(18, 0), [Decimal("999999999999999999"), Decimal(0), Decimal(10)]),
    # More cannot be proved: the emulator's BIGNUMERIC has 20 digits before the point and 18 behind it.
    (DecimalType(38, 18), [Decimal("-" + "9" * 20 + "." + "9" * 18), Decimal("1.000000000000000010")]),
    (DateType(), [date(1, 1, 1), date(1969, 12, 31), date(1970, 1, 1), date(9999, 12, 31)]),
    (TimeType(), [time(0), time(23, 59, 59, 999_999), time(12, 30, 0, 1)]),
    (TimestampType(), MOMENTS),
    (TimestamptzType(), INSTANTS),
    (StringType(), TEXTS),
    (UUIDType(), [A_UUID.bytes]),
    (FixedType(3), [b"\x00\xff\x10", b"abc"]),
    (BinaryType(), [b"", b"\x00\xff", b"abc"]),
]
NAMES = [str(iceberg) for iceberg, _ in VALUES]

LIST = ListType(2, StringType(), element_required=False)
LISTS = ListType(2, ListType(3, LongType(), element_required=False), element_required=False)
MAP = MapType(2, IntegerType(), 3, DoubleType(), value_required=False)
LEAVES = StructType(
    *(NestedField(100 + n, f"f{n}", iceberg, required=False) for n, (iceberg, _) in enumerate(VALUES))
)
NESTED: list[tuple[IcebergType, list[Any]]] = [
    (LIST, [["a", None, "|"], []]),
    (MAP, [[(2, 0.5), (1, None)], [], [(0, math.inf), (3, 5e-324), (4, 0.1)]]),
    (
        ListType(2, ListType(3, LongType(), element_required=False), element_required=False),
        [[[2**63 - 1, None], None, []]],
    ),
    (LEAVES, [{f"f{n}": values[i % len(values)] for n, (_, values) in enumerate(VALUES)} for i in range(4)]),
    (LEAVES, [dict.fromkeys(field.name for field in LEAVES.fields)]),
    (
        StructType(NestedField(2, "Größe", LIST, required=False), NestedField(9, "m", MAP, required=False)),
        [{"Größe": None, "m": None}, {"Größe": ["x"], "m": [(1, None)]}],
    ),
]


def array_of(iceberg: IcebergType, values: list[Any]) -> pa.Array:
    """An array of the lake, UUIDs inside of others included."""
    field = arrow_schema(Schema(NestedField(1, "value", iceberg, required=False))).field(0)
    if "uuid" not in str(field.type) or isinstance(iceberg, UUIDType):
        return pa.array(values, field.type)
    assert isinstance(iceberg, StructType)
    children = [array_of(f.field_type, [value and value[f.name] for value in values]) for f in iceberg.fields]
    missing = pa.array([value is None for value in values])
    return pa.StructArray.from_arrays(children, fields=list(field.type), mask=missing)


def stored(
    session: BigQuerySession, dataset: str, column: ReplicaColumn, array: pa.Array
) -> tuple[Target, pa.Table]:
    """Put an array into a staging table; return where it is, and the rows as a replica shows them."""
    target = session.staging(Target("", dataset, "types"), "rows")
    session.create_table(target, [column], Layout(), existing="replace")
    lake = pa.table([array], schema=arrow_schema(Schema(column.field)))
    session.insert(target, [column], encoded(lake.to_reader(), [column]))
    read = session.stream(f"SELECT {DIALECT.quote(column.name)} FROM {DIALECT.qualify(target)}")
    return target, decoded(read, [column], "types").read_all()


def in_any_order(values: list[Any]) -> list[str]:
    return sorted(map(repr, values))


@pytest.mark.parametrize(("iceberg", "values"), VALUES, ids=NAMES)
def test_primitive_comes_back_as_it_was(
    session: BigQuerySession, dataset: str, iceberg: IcebergType, values: list[Any]
) -> None:
    array = array_of(iceberg, [*values, None])
    column = column_of(iceberg)
    _, found = stored(session, dataset, column, array)
    assert found.schema.field(0).type == array.type
    assert in_any_order(found["value"].to_pylist()) == in_any_order(array.to_pylist())


@pytest.mark.parametrize(("iceberg", "values"), VALUES, ids=NAMES)
def test_primitive_comes_back_over_the_storage_apis(
    streaming_warehouse: BigQueryWarehouse, dataset: str, iceberg: IcebergType, values: list[Any]
) -> None:
    array = array_of(iceberg, [*values, None])
    with opened(streaming_warehouse) as session:
        _, found = stored(session, dataset, column_of(iceberg), array)
    assert found.schema.field(0).type == array.type
    assert in_any_order(found["value"].to_pylist()) == in_any_order(array.to_pylist())


@pytest.mark.parametrize(("iceberg", "values"), NESTED, ids=range(len(NESTED)))
def test_nested_comes_back_as_it_was(
    session: BigQuerySession, dataset: str, iceberg: IcebergType, values: list[Any]
) -> None:
    array = array_of(iceberg, [*values, None])
    column = column_of(iceberg)
    assert column.holding.lost == ""
    _, found = stored(session, dataset, column, array)
    assert found.schema.field(0).type == array.type
    assert in_any_order(found["value"].to_pylist()) == in_any_order(array.to_pylist())


def test_json_is_json_to_others(session: BigQuerySession, client: bigquery.Client, dataset: str) -> None:
    column = column_of(LIST)
    target, _ = stored(session, dataset, column, array_of(LIST, [["a", None, "x|'\\"]]))
    table = client.get_table(f"{dataset}.{target.name}")
    assert [(field.name, field.field_type) for field in table.schema] == [("value", "JSON")]
    sql = f"SELECT JSON_VALUE(value[2]) FROM `{dataset}`.`{target.name}`"
    assert [row[0] for row in client.query_and_wait(sql)] == ["x|'\\"]


NATIVE: list[tuple[IcebergType, list[Any], list[Any]]] = [
    (LIST, [["a", "b"], [], None], [["a", "b"], [], []]),
    (MAP, [[(2, 0.5), (1, None)], None], [[(2, 0.5), (1, None)], []]),
    (
        StructType(
            NestedField(2, "u", UUIDType(), required=False),
            NestedField(3, "d", DecimalType(9, 2), required=False),
            NestedField(4, "x", FixedType(2), required=False),
            NestedField(5, "l", ListType(6, TimestampType()), required=False),
        ),
        [{"u": A_UUID.bytes, "d": Decimal("1.50"), "x": b"ab", "l": [MOMENTS[3]]}, None],
        [{"u": A_UUID, "d": Decimal("1.50"), "x": b"ab", "l": [MOMENTS[3]]}, None],
    ),
]


@pytest.mark.parametrize(("iceberg", "values", "expected"), NATIVE, ids=["list", "map", "struct"])
def test_native_nested_comes_back_but_for_what_is_lost(
    session: BigQuerySession, dataset: str, iceberg: IcebergType, values: list[Any], expected: list[Any]
) -> None:
    column = column_of(iceberg, TypeOptions(nested="native"))
    array = array_of(iceberg, values)
    _, found = stored(session, dataset, column, array)
    assert found.schema.field(0).type == array.type
    assert in_any_order(found["value"].to_pylist()) == in_any_order(expected)


def test_null_element_is_refused_where_arrays_have_none(session: BigQuerySession, dataset: str) -> None:
    column = column_of(LIST, TypeOptions(nested="native"))
    with pytest.raises(DataError, match=r"sales\.orders: column value has 1 null elements.*nested to json"):
        stored(session, dataset, column, array_of(LIST, [["a", None]]))


@pytest.mark.parametrize("iceberg", [TimestampNanoType(), TimestamptzNanoType()], ids=str)
def test_nanoseconds_as_text_come_back(session: BigQuerySession, dataset: str, iceberg: IcebergType) -> None:
    column = column_of(iceberg, TypeOptions(nanoseconds="text"))
    array = pa.array([1, -1, 1_700_000_000_123_456_789, None], pa.int64()).cast(
        array_of(iceberg, [None]).type
    )
    _, found = stored(session, dataset, column, array)
    assert set(found["value"].cast(pa.int64()).to_pylist()) == {1, -1, 1_700_000_000_123_456_789, None}


def test_nanoseconds_are_cut_to_the_microsecond_before(session: BigQuerySession, dataset: str) -> None:
    column = column_of(TimestampNanoType(), TypeOptions(nanoseconds="truncate"))
    array = pa.array([1_999, -1], pa.timestamp("ns"))
    _, found = stored(session, dataset, column, array)
    assert set(found["value"].cast(pa.int64()).to_pylist()) == {1_000, -1_000}


@pytest.mark.parametrize(("iceberg", "values"), VALUES, ids=NAMES)
def test_canonical_text_and_hash_are_those_of_plain_python(
    session: BigQuerySession, dataset: str, iceberg: IcebergType, values: list[Any]
) -> None:
    column = column_of(iceberg)
    target, _ = stored(session, dataset, column, array_of(iceberg, [*values, None]))
    text_sql = DIALECT.canonical_sql(iceberg, column.holding, "`value`")
    assert text_sql is not None
    limbs_sql = ", ".join(DIALECT.limbs_sql(text_sql))
    found = session.fetch(f"SELECT {text_sql}, {limbs_sql} FROM {DIALECT.qualify(target)}")
    expected = [text(iceberg, value) for value in values]
    hashed = [(one, *limbs(one)) for one in expected if one is not None]
    assert in_any_order(found) == in_any_order([*hashed, (None,) * 5])


def test_what_is_nested_or_cut_short_has_no_canonical_text() -> None:
    assert DIALECT.canonical_sql(LIST, column_of(LIST).holding, "`value`") is None
    cut = column_of(TimestampNanoType(), TypeOptions(nanoseconds="truncate")).holding
    assert DIALECT.canonical_sql(TimestampNanoType(), cut, "`value`") is None
