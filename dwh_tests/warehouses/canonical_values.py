"""Values at the edges of each Iceberg type, as PyArrow takes them: every dialect is tried on them."""

import math
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

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
    TimestampType,
    TimestamptzType,
    TimeType,
    UUIDType,
)

_DOUBLES = [
    *(0.0, -0.0, 1.0, -1.0, 0.1, 0.1 + 0.2, 1e15, 1e16, 1e17, 123456789.125, -2.5, 100.0, math.pi),
    *(1e300, -1e-300, 5e-324, -5e-324, 2.0**-1022, math.nextafter(2.0**-1022, 0), 1.7976931348623157e308),
    *(1e-250, 1e250, 2.0**52, 2.0**53, 4.0, 8.0, math.nextafter(8.0, 0), math.nextafter(1.0, 2), 2.0**1023),
    *(math.nan, math.inf, -math.inf),
]
_FLOATS = [0.0, -0.0, 1.5, -2.5, 2.0**-149, 2.0**-126, 3.4028234663852886e38, 0.10000000149011612]
_STRINGS = [
    *("", "a", "é", "e\u0301", "日本語", "😀", "'", '"', "\\", "|", "\\N", "N", "a|b", "\\|", "\\\\|", "||"),
    *(" lead", "trail ", "tab\tx", "new\nline", "nul\0byte", "NULL", "ÅÄÖ", "-", "0", '"-"', "[,]", "{:}"),
]
_MOMENTS = [
    datetime(1970, 1, 1),  # noqa: DTZ001
    datetime(1969, 12, 31, 23, 59, 59, 999999),  # noqa: DTZ001
    datetime(1, 1, 1),  # noqa: DTZ001
    datetime(9999, 12, 31, 23, 59, 59, 999999),  # noqa: DTZ001
    datetime(2024, 3, 31, 2, 30, 0, 1),  # noqa: DTZ001
]
_INNER = StructType(
    NestedField(21, "text", StringType(), required=False),
    NestedField(22, "o'clock", ListType(23, DoubleType(), element_required=False), required=False),
)

EDGES: dict[str, tuple[IcebergType, list[Any]]] = {
    "boolean": (BooleanType(), [True, False]),
    "int": (IntegerType(), [0, 7, -1, 2**31 - 1, -(2**31)]),
    "long": (LongType(), [0, 10, -100, 2**63 - 1, -(2**63)]),
    "float": (FloatType(), [*_FLOATS, math.nan, math.inf, -math.inf]),
    "double": (DoubleType(), _DOUBLES),
    "decimal(9,0)": (DecimalType(9, 0), [Decimal(0), Decimal(100), Decimal("-999999999")]),
    "decimal(9,2)": (
        DecimalType(9, 2),
        [Decimal(text) for text in ("0.00", "1.00", "-1.00", "1.50", "-0.05", "100.00", "1234567.89")],
    ),
    "decimal(2,2)": (
        DecimalType(2, 2),
        [Decimal(text) for text in ("0.00", "0.50", "-0.50", "-0.05", "0.99")],
    ),
    "decimal(38,10)": (
        DecimalType(38, 10),
        [Decimal(text) for text in ("0E-10", "0.0000000001", "-1.5000000000", "9" * 28 + "." + "9" * 10)],
    ),
    "decimal(38,38)": (DecimalType(38, 38), [Decimal(0), Decimal("0.1"), Decimal("-0." + "9" * 38)]),
    "date": (DateType(), [date(1970, 1, 1), date(1969, 12, 31), date(1, 1, 1), date(9999, 12, 31)]),
    "time": (TimeType(), [time(0), time(23, 59, 59, 999999), time(1, 2, 3), time(0, 0, 0, 1)]),
    "timestamp": (TimestampType(), _MOMENTS),
    "timestamptz": (TimestamptzType(), [moment.replace(tzinfo=UTC) for moment in _MOMENTS]),
    "string": (StringType(), _STRINGS),
    "uuid": (UUIDType(), [UUID(int=0).bytes, UUID(int=2**128 - 1).bytes, UUID(int=0xABCDEF << 80).bytes]),
    "fixed(3)": (FixedType(3), [b"\0\xff\x80", b"abc"]),
    "binary": (BinaryType(), [b"", b"\0", b"\xff\0|\\"]),
    "list of text": (
        ListType(31, StringType(), element_required=False),
        [[], [None], [""], ["-"], ["a", None, 'say "hi"'], ['a","b'], ["|", "\\"]],
    ),
    "list of lists": (
        ListType(32, ListType(33, IntegerType(), element_required=False), element_required=False),
        [[], [[]], [[1, 2], [3]], [[1], [2, 3]], [None], [[None]]],
    ),
    "map": (
        MapType(34, StringType(), 35, DecimalType(5, 2), value_required=False),
        [
            [],
            [("b", Decimal("1.50")), ("a", None)],
            [("é", None), ("z", None), ("😀", None), ("\uffff", None)],
        ],
    ),
    "struct": (
        _INNER,
        [
            {"text": None, "o'clock": None},
            {"text": '","', "o'clock": []},
            {"text": "x|y", "o'clock": [0.1, None, -0.0]},
        ],
    ),
    "list of structs": (
        ListType(
            36, StructType(NestedField(37, "when", TimestamptzType(), required=False)), element_required=False
        ),
        [[{"when": None}, None], [{"when": datetime(2024, 1, 1, tzinfo=UTC)}]],
    ),
}
