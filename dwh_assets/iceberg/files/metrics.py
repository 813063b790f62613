"""Iceberg's column metrics of a data file, from the footer that Parquet has just written.

PyIceberg computes the same through objects per column and value, a millisecond or more a file; here the
footer's raw values are packed as they are, which matters for writes that make thousands of files.
Formats: "Appendix D: Single-value serialization" of the Iceberg table specification.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow.parquet as pq
from pyiceberg.conversions import from_bytes
from pyiceberg.io.pyarrow import MetricModeTypes, compute_statistics_plan, parquet_path_to_id_mapping
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
    LongType,
    PrimitiveType,
    StringType,
    TimestampType,
    TimestamptzType,
    TimeType,
    UUIDType,
)

Pack = Callable[[Any], bytes]


@dataclass(frozen=True)
class _Column:
    """What is kept of one Parquet column."""

    field_id: int
    counts: bool
    pack: Pack | None
    shorten: int | None
    is_text: bool
    is_decimal: bool

    def comparable(self, raw: Any) -> Any:
        """Return a raw bound so that bounds of several row groups compare as the values do."""
        if self.is_decimal and isinstance(raw, bytes):
            return int.from_bytes(raw, "big", signed=True)
        return raw


class MetricsPlan:
    """Which metrics to keep of which column, worked out once for a write.

    Honours `write.metadata.metrics.*` of the table's properties.
    """

    def __init__(self, schema: Schema, properties: dict[str, str]) -> None:
        modes = compute_statistics_plan(schema, properties)
        self._columns = {
            path: _column(field_id, modes[field_id])
            for path, field_id in parquet_path_to_id_mapping(schema).items()
        }

    def metrics(self, footer: pq.FileMetaData) -> dict[str, Any]:
        """Return the metrics under the names that PyIceberg's `DataFile` gives them."""
        sizes: dict[int, int] = {}
        values: dict[int, int] = {}
        nulls: dict[int, int] = {}
        lower: dict[int, Any] = {}
        upper: dict[int, Any] = {}
        unbounded: set[int] = set()
        offsets = []
        columns = [self._columns[footer.schema.column(i).path] for i in range(footer.num_columns)]
        for group in range(footer.num_row_groups):
            row_group = footer.row_group(group)
            for position, column in enumerate(columns):
                chunk = row_group.column(position)
                if position == 0:
                    offsets.append(chunk.dictionary_page_offset or chunk.data_page_offset)
                _add(sizes, column.field_id, chunk.total_compressed_size)
                if not column.counts:
                    continue
                _add(values, column.field_id, chunk.num_values)
                statistics = chunk.statistics
                if statistics is None or not statistics.has_null_count:
                    unbounded.add(column.field_id)
                    continue
                _add(nulls, column.field_id, statistics.null_count)
                if column.pack is None:
                    continue
                if statistics.has_min_max:
                    low, high = column.comparable(statistics.min_raw), column.comparable(statistics.max_raw)
                    _widen(lower, upper, column.field_id, low, high)
                elif statistics.null_count < chunk.num_values:
                    unbounded.add(column.field_id)
        by_id = {column.field_id: column for column in columns}
        return {
            "record_count": footer.num_rows,
            "column_sizes": sizes,
            "value_counts": values,
            "null_value_counts": nulls,
            "nan_value_counts": {},
            "lower_bounds": _packed(lower, by_id, unbounded, _lower),
            "upper_bounds": _packed(upper, by_id, unbounded, _upper),
            "split_offsets": sorted(offsets),
        }


def _column(field_id: int, collector: Any) -> _Column:
    mode = collector.mode
    bounded = mode.type in (MetricModeTypes.FULL, MetricModeTypes.TRUNCATE)
    text = isinstance(collector.iceberg_type, StringType)
    shortens = mode.type == MetricModeTypes.TRUNCATE and isinstance(
        collector.iceberg_type, StringType | BinaryType
    )
    return _Column(
        field_id=field_id,
        counts=mode.type != MetricModeTypes.NONE,
        pack=_packer(collector.iceberg_type) if bounded else None,
        shorten=mode.length if shortens else None,
        is_text=text,
        is_decimal=isinstance(collector.iceberg_type, DecimalType),
    )


def _packer(iceberg_type: PrimitiveType) -> Pack | None:
    if isinstance(iceberg_type, DecimalType):
        return _pack_decimal
    if isinstance(iceberg_type, StringType | BinaryType | FixedType | UUIDType):
        return bytes
    return next((pack for kinds, pack in _FIXED_WIDTH if isinstance(iceberg_type, kinds)), None)


def _pack_decimal(unscaled: int) -> bytes:
    """Big-endian two's complement in as few bytes as hold it."""
    magnitude = unscaled if unscaled >= 0 else ~unscaled
    return unscaled.to_bytes(magnitude.bit_length() // 8 + 1, "big", signed=True)


_FIXED_WIDTH: list[tuple[tuple[type, ...], Pack]] = [
    ((BooleanType,), struct.Struct("<?").pack),
    ((IntegerType, DateType), struct.Struct("<i").pack),
    ((LongType, TimeType, TimestampType, TimestamptzType), struct.Struct("<q").pack),
    ((FloatType,), struct.Struct("<f").pack),
    ((DoubleType,), struct.Struct("<d").pack),
]


def _add(counts: dict[int, int], field_id: int, number: int) -> None:
    counts[field_id] = counts.get(field_id, 0) + number


def _widen(lower: dict[int, Any], upper: dict[int, Any], field_id: int, low: Any, high: Any) -> None:
    if field_id not in lower:
        lower[field_id], upper[field_id] = low, high
        return
    lower[field_id] = min(lower[field_id], low)
    upper[field_id] = max(upper[field_id], high)


def _packed(
    bounds: dict[int, Any],
    columns: dict[int, _Column],
    unbounded: set[int],
    shorten: Callable[[bytes, _Column], bytes | None],
) -> dict[int, bytes]:
    found = {}
    for field_id, raw in bounds.items():
        column = columns[field_id]
        if column.pack is None or field_id in unbounded:
            continue
        value = column.pack(raw) if column.shorten is None else shorten(bytes(raw), column)
        if value is not None:
            found[field_id] = value
    return found


def _lower(value: bytes, column: _Column) -> bytes:
    """Cut a lower bound; text at a character, never inside one."""
    length = column.shorten or len(value)
    if not column.is_text:
        return value[:length]
    return value.decode("utf-8", "replace")[:length].encode()


def _upper(value: bytes, column: _Column) -> bytes | None:
    """Cut an upper bound so that it stays one: the last character becomes the next; None if there is none."""
    length = column.shorten or len(value)
    if column.is_text:
        text = value.decode("utf-8", "replace")
        return value if len(text) <= length else _next_text(text[:length])
    return value if len(value) <= length else _next_bytes(value[:length])


def _next_bytes(value: bytes) -> bytes | None:
    stripped = value.rstrip(b"\xff")
    return stripped[:-1] + bytes([stripped[-1] + 1]) if stripped else None


def _next_text(text: str) -> bytes | None:
    for position in range(len(text) - 1, -1, -1):
        following = ord(text[position]) + 1
        if 0xD800 <= following <= 0xDFFF:  # no character: these halves belong to UTF-16
            following = 0xE000
        if following <= 0x10FFFF:
            return (text[:position] + chr(following)).encode()
    return None


def bound_value(source: IcebergType, bound: bytes) -> Any:
    """Read a bound of a column; a file from before a promotion holds four bytes where the type has eight."""
    assert isinstance(source, PrimitiveType)  # noqa: S101 - nothing else has bounds
    return from_bytes(IntegerType() if isinstance(source, LongType) and len(bound) == 4 else source, bound)
