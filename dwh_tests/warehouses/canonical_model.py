"""The canonical form of `dwh_assets/warehouses/canonical.py`, in plain Python: what every dialect has to say.

Values are those of PyArrow's `to_pylist`; moments may also be integers, which count the type's own unit,
for those beyond Python's years.
"""

import hashlib
import math
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
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
    StringType,
    StructType,
    TimestampNanoType,
    TimestampType,
    TimestamptzNanoType,
    TimestamptzType,
    TimeType,
    UUIDType,
)

Hash = tuple[int, int, int, int, int]


def text(iceberg: IcebergType, value: Any) -> str | None:
    """The canonical text of a value; None for null."""
    if value is None:
        return None
    plain = _plain(iceberg, value)
    escaped = isinstance(iceberg, StringType) or not iceberg.is_primitive
    return plain.replace("\\", "\\\\").replace("|", "\\|") if escaped else plain


def row_text(types: Sequence[IcebergType], values: Sequence[Any]) -> str:
    texts = (text(iceberg, value) for iceberg, value in zip(types, values, strict=True))
    return "|".join("\\N" if one is None else one for one in texts)


def limbs(canonical: str) -> tuple[int, int, int, int]:
    """The MD5 of a text as four integers."""
    digits = hashlib.md5(canonical.encode()).hexdigest()
    first, second, third, fourth = (int(digits[i : i + 8], 16) for i in range(0, 32, 8))
    return first, second, third, fourth


def hash_of(texts: Iterable[str]) -> Hash:
    """Count and sums over a multiset of texts."""
    sums = [0] * 5
    for one in texts:
        sums = [a + b for a, b in zip(sums, (1, *limbs(one)), strict=True)]
    return sums[0], sums[1], sums[2], sums[3], sums[4]


def rows_hash(types: Sequence[IcebergType], rows: Iterable[Sequence[Any]]) -> Hash:
    return hash_of(row_text(types, row) for row in rows)


def column_hash(iceberg: IcebergType, values: Iterable[Any]) -> Hash:
    """Of the values that are not null."""
    return hash_of(one for one in (text(iceberg, value) for value in values) if one is not None)


def _plain(iceberg: IcebergType, value: Any) -> str:
    match iceberg:
        case BooleanType():
            return "t" if value else "f"
        case IntegerType() | LongType():
            return str(value)
        case DecimalType():
            return _decimal(value)
        case FloatType() | DoubleType():
            return _float(value)
        case StringType():
            return str(value)
        case UUIDType():
            return str(value if isinstance(value, UUID) else UUID(bytes=value))
        case FixedType() | BinaryType():
            return bytes(value).hex()
        case StructType() | ListType() | MapType():
            return _nested(iceberg, value)
    return str(_since_epoch(iceberg, value))


def _decimal(value: Decimal) -> str:
    digits = format(value, "f")
    if "." in digits:
        digits = digits.rstrip("0").removesuffix(".")
    return "0" if digits == "-0" else digits


def _float(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Inf" if value > 0 else "-Inf"
    if value == 0:
        return "0"
    fraction, exponent = math.frexp(abs(value))  # 0.5 <= fraction < 1
    return f"{'-' if value < 0 else ''}{int(math.ldexp(fraction, 53))}p{exponent - 1}"


def _since_epoch(iceberg: IcebergType, value: Any) -> int:
    if isinstance(value, int):
        return value
    microsecond = timedelta(microseconds=1)
    match iceberg:
        case DateType():
            return int((value - date(1970, 1, 1)).days)
        case TimeType():
            seconds = (value.hour * 60 + value.minute) * 60 + value.second
            return int(seconds * 1_000_000 + value.microsecond)
        case TimestampType():
            return int((value - datetime(1970, 1, 1)) // microsecond)  # noqa: DTZ001
        case TimestamptzType():
            return int((value - datetime(1970, 1, 1, tzinfo=UTC)) // microsecond)
        case TimestampNanoType() | TimestamptzNanoType():
            return int(value.value)  # a pandas Timestamp
    raise AssertionError(iceberg)


def _nested(iceberg: IcebergType, value: Any) -> str:
    match iceberg:
        case StructType():
            items = (_item(field.field_type, value[field.name]) for field in iceberg.fields)
            return f"({','.join(items)})"
        case ListType():
            return f"[{','.join(_item(iceberg.element_type, element) for element in value)}]"
        case MapType():
            entries = dict(value).items()
            pairs = [f"{_item(iceberg.key_type, k)}:{_item(iceberg.value_type, v)}" for k, v in entries]
            return f"{{{','.join(sorted(pairs, key=str.encode))}}}"
    raise AssertionError(iceberg)


def _item(iceberg: IcebergType, value: Any) -> str:
    if value is None:
        return "-"
    return '"' + _plain(iceberg, value).replace('"', '""') + '"'
