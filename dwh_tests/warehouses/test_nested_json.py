"""That JSON text holds nested values to the last bit, in a form that any reader of JSON understands."""

import json
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.schema import Schema
from pyiceberg.types import (
    BinaryType,
    BooleanType,
    DateType,
    DecimalType,
    DoubleType,
    FloatType,
    IcebergType,
    ListType,
    LongType,
    MapType,
    NestedField,
    StringType,
    StructType,
    TimestampNanoType,
    TimestamptzType,
    TimeType,
    UUIDType,
)

from dwh_assets.iceberg.arrow.types import arrow_schema
from dwh_assets.warehouses.nested_json import from_json, to_json


def of(iceberg: IcebergType, values: list[Any]) -> pa.Array:
    return pa.array(values, arrow_schema(Schema(NestedField(1, "v", iceberg, required=False))).field(0).type)


@pytest.mark.parametrize(
    ("element", "value", "text"),
    [
        (BooleanType(), True, "true"),
        (LongType(), -(2**63), "-9223372036854775808"),
        (DecimalType(38, 10), Decimal("1.5"), "1.5000000000"),
        (DoubleType(), 0.1, "0.1"),
        (DoubleType(), 1e16, '"1e+16"'),
        (DoubleType(), -0.0, '"-0.0"'),
        (DoubleType(), float("-inf"), '"-inf"'),
        (FloatType(), 0.10000000149011612, "0.10000000149011612"),
        (DateType(), date(1, 1, 1), '"0001-01-01"'),
        (TimeType(), time(1, 2, 3, 4), '"01:02:03.000004"'),
        (TimestamptzType(), datetime(1, 1, 1, tzinfo=UTC), '"0001-01-01 00:00:00.000000Z"'),
        (StringType(), 'é" \\ \0', r'"é\" \\ \u0000"'),
        (BinaryType(), b"\x00\xff", '"00ff"'),
        (LongType(), None, "null"),
    ],
)
def test_each_type_has_its_form(element: IcebergType, value: Any, text: str) -> None:
    values = of(ListType(2, element, False), [[value], None, []])
    texts = to_json(values)
    assert texts.to_pylist() == [f"[{text}]", None, "[]"]
    assert str(from_json(texts, ListType(2, element, False))) == str(values)


def test_moments_beyond_what_python_knows_stay_exact() -> None:
    nested = ListType(2, TimestampNanoType(), False)
    values = of(nested, [[]]).cast(pa.large_list(pa.timestamp("ns")))
    values = pa.LargeListArray.from_arrays(
        [0, 2], pa.array([1, -(2**62)], pa.int64()).cast(pa.timestamp("ns")), type=values.type
    )
    assert to_json(values).to_pylist() == [
        '["1970-01-01 00:00:00.000000001","1823-11-12 00:06:21.572612096"]'
    ]
    assert from_json(to_json(values), nested).equals(
        values.cast(of(nested, []).type)  # the name of the element is the lake's
    )


def test_structs_and_maps_are_plain_json() -> None:
    nested = StructType(
        NestedField(2, 'a "b"', MapType(3, LongType(), 4, UUIDType(), False), required=False),
        NestedField(5, "c", LongType(), required=True),
    )
    texts = pa.array(
        [
            r'{"a \"b\"":[{"key":2,"value":"00000000-0000-0000-0000-000000000001"}],"c":3}',
            None,
        ]
    )
    values = from_json(texts, nested)
    assert list(map(json.loads, to_json(values).to_pylist()[:1])) == [json.loads(texts[0].as_py())]
    assert to_json(values)[1].as_py() is None
    assert from_json(to_json(values), nested).equals(values)


def test_maps_by_text_may_be_objects() -> None:
    nested = MapType(2, StringType(), 3, LongType(), False)
    values = of(nested, [[("b", 1), ("a", None)], []])
    texts = to_json(values, maps_as_objects=True)
    assert texts.to_pylist() == ['{"b":1,"a":null}', "{}"]
    assert from_json(texts, nested).equals(values)
