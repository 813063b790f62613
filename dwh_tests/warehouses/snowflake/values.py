"""Values of every Iceberg type, at the ends of their ranges, as a table of the lake."""

from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

import pyarrow as pa
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

from dwh_assets.iceberg.arrow.types import align, arrow_schema

INSTANTS = [
    datetime(1, 1, 1, tzinfo=UTC),
    datetime(9999, 12, 31, 23, 59, 59, 999_999, UTC),
    datetime(1969, 12, 31, 23, 59, 59, 999_999, UTC),
    datetime(2024, 3, 31, 2, 30, tzinfo=UTC),
    datetime(1582, 10, 10, tzinfo=UTC),
]
MOMENTS = [instant.replace(tzinfo=None) for instant in INSTANTS]
FLOATS = [0.1, -0.0, float("inf"), float("-inf"), 5e-324, 1.7976931348623157e308, 1e16, -2.5, 1e300, 0.0]
TEXTS = [
    "",
    "a",
    "é",
    "e\u0301",
    "日本語",
    "😀",
    "'",
    "\\",
    "\\N",
    "|",
    " lead",
    "trail ",
    "a\tb\nc",
    "null",
    "0",
]
INJECTION = "'); DROP TABLE t; --"

PRIMITIVES: dict[str, tuple[IcebergType, list[Any]]] = {
    "boolean": (BooleanType(), [True, False]),
    "int": (IntegerType(), [2**31 - 1, -(2**31), 0]),
    "long": (LongType(), [2**63 - 1, -(2**63), 0, -1]),
    # As doubles: to_pylist shows them so.
    "float": (FloatType(), [0.10000000149011612, -0.0, float("inf"), 1.401298464324817e-45]),
    "double": (DoubleType(), FLOATS),
    "decimal(38, 0)": (DecimalType(38, 0), [Decimal(10**18), Decimal(-(10**18)), Decimal(0)]),
    "decimal(20, 4)": (
        DecimalType(20, 4),
        [Decimal("1234567890123456.7891"), Decimal("-0.1000"), Decimal(7)],
    ),
    "decimal(38, 38)": (DecimalType(38, 38), [Decimal("0." + "9" * 38), Decimal("-0.1"), Decimal(0)]),
    "date": (DateType(), [date(1, 1, 1), date(9999, 12, 31), date(1969, 12, 31)]),
    "time": (TimeType(), [time(0), time(23, 59, 59, 999_999), time(1, 2, 3, 4)]),
    "timestamp": (TimestampType(), MOMENTS),
    "timestamptz": (TimestamptzType(), INSTANTS),
    "string": (StringType(), [*TEXTS, INJECTION, "NUL \0 inside"]),
    "uuid": (UUIDType(), [str(UUID(int=2**127 + 5)), str(UUID(int=0))]),
    "fixed": (FixedType(3), [b"\x00\xff\x7f", b"abc"]),
    "binary": (BinaryType(), [b"", b"\x00\xff", b"abc"]),
}
_INNER = StructType(
    NestedField(20, "when é", TimestamptzType(), required=False),
    NestedField(21, 'quote " and $', DoubleType(), required=False),
    NestedField(22, "bytes", BinaryType(), required=False),
    NestedField(23, "exact", DecimalType(38, 10), required=False),
)
NESTED: dict[str, tuple[IcebergType, list[Any]]] = {
    "list": (ListType(30, LongType(), False), [[2**63 - 1, None, -(2**63)], []]),
    "map": (MapType(31, LongType(), 32, StringType(), False), [[(3, "c"), (1, None), (2, INJECTION)], []]),
    "map by text": (MapType(33, StringType(), 34, DoubleType(), False), [[("b", 1e300), ("", None)], []]),
    "struct": (
        _INNER,
        [
            {"when é": one, 'quote " and $': number, "bytes": b"\xff", "exact": Decimal("-1.5000000001")}
            for one, number in zip(INSTANTS, FLOATS, strict=False)
        ]
        + [{"when é": None, 'quote " and $': None, "bytes": None, "exact": None}],
    ),
    "list of maps of structs": (
        ListType(40, MapType(41, StringType(), 42, _INNER, False), False),
        [
            [
                [
                    ("b", {"when é": INSTANTS[0], 'quote " and $': 1e300, "bytes": b"", "exact": None}),
                    ("a", None),
                ]
            ]
        ],
    ),
}
# The emulator holds no more than microseconds.
NANOSECONDS: dict[str, tuple[IcebergType, list[Any]]] = {
    "timestamp_ns": (TimestampNanoType(), MOMENTS[2:4]),
    "timestamptz_ns": (TimestamptzNanoType(), INSTANTS[2:4]),
}
ALL = {**PRIMITIVES, **NESTED, **NANOSECONDS}


def lake_schema(values: dict[str, tuple[IcebergType, list[Any]]] = ALL) -> Schema:
    """A column for each type, named after it."""
    return Schema(
        *(
            NestedField(number, name, iceberg, required=False)
            for number, (name, (iceberg, _)) in enumerate(values.items(), 1)
        )
    )


def lake_rows(values: dict[str, tuple[IcebergType, list[Any]]] = ALL) -> pa.RecordBatch:
    """The values, the shorter columns filled up with nulls; the last row is all null, one is there twice."""
    longest = max(len(column) for _, column in values.values()) + 1
    schema = lake_schema(values)
    target = arrow_schema(schema)
    plain = [pa.large_string() if "uuid" in str(field.type) else field.type for field in target]
    arrays = [
        pa.array([*column, *[None] * (longest - len(column))], arrow)
        for (_, column), arrow in zip(values.values(), plain, strict=True)
    ]
    batch = pa.RecordBatch.from_arrays(arrays, names=target.names)
    twice = pa.Table.from_batches([batch, batch.slice(0, 1)]).combine_chunks().to_batches()[0]
    return align(twice, target, "values")
