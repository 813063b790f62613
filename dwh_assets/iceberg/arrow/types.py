"""Between Arrow and Iceberg: which Arrow types a table can hold, and how batches get there.

Arrow producers disagree on how to say the same thing (views, dictionaries, nanoseconds, other
time zones, unsigned integers). `writable_type` gives the one form that Iceberg and Parquet
understand; `align` brings a batch into a table's columns by name, value by value or not at all, and
`align_by_id` does so with a data file's columns, which keep their ids when names change.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.io.pyarrow import schema_to_pyarrow
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
    TimestampType,
    TimestamptzType,
    TimeType,
    UUIDType,
)

from dwh_assets.errors import DataError, SchemaError, UnsupportedError
from dwh_assets.iceberg.faults import first_line

MAX_DECIMAL_PRECISION = 38
# Where Parquet's Arrow schema keeps a field's id.
FIELD_ID = b"PARQUET:field_id"


def writable_type(arrow: pa.DataType, column: str) -> pa.DataType:
    """Return the Arrow type in which Iceberg can hold values of `arrow`.

    Raises `UnsupportedError` that names the column where Iceberg has no such type.
    """
    if isinstance(arrow, pa.BaseExtensionType):
        return arrow if arrow.extension_name == "arrow.uuid" else writable_type(arrow.storage_type, column)
    if pa.types.is_dictionary(arrow) or pa.types.is_run_end_encoded(arrow):
        return writable_type(arrow.value_type, column)
    if pa.types.is_nested(arrow):
        return _writable_nested(arrow, column)
    return _writable_primitive(arrow, column)


def _writable_nested(arrow: pa.DataType, column: str) -> pa.DataType:
    if pa.types.is_struct(arrow):
        return _writable_struct(arrow, column)
    if pa.types.is_map(arrow):
        return pa.map_(
            writable_type(arrow.key_type, f"{column}.key"),
            arrow.item_field.with_type(writable_type(arrow.item_type, f"{column}.value")),
        )
    if hasattr(arrow, "value_field"):
        element = arrow.value_field
        return pa.list_(element.with_type(writable_type(element.type, f"{column}.element")))
    raise _unsupported(arrow, column)


def _writable_struct(arrow: pa.StructType, column: str) -> pa.DataType:
    if not arrow.num_fields:
        raise _unsupported(arrow, column)
    require_distinct([field.name for field in arrow], f"Column {column!r}")
    return pa.struct([f.with_type(writable_type(f.type, f"{column}.{f.name}")) for f in arrow])


def require_distinct(names: list[str], where: str) -> None:
    """Raise `SchemaError` when a column's name stands twice: nobody could say which one is meant."""
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise SchemaError(
            f"{where}: the data have several columns named {twice[0]!r}.",
            remedy="Rename or drop all but one.",
        )


def _writable_primitive(arrow: pa.DataType, column: str) -> pa.DataType:
    is_a = pa.types
    if is_a.is_boolean(arrow) or is_a.is_null(arrow):
        return arrow
    if is_a.is_integer(arrow):
        return pa.int32() if arrow.bit_width < 32 or arrow == pa.int32() else pa.int64()
    if is_a.is_floating(arrow):
        return pa.float64() if arrow == pa.float64() else pa.float32()
    if is_a.is_decimal(arrow):
        return _writable_decimal(arrow, column)
    found = _writable_moment(arrow) or _writable_bytes(arrow)
    if found is None:
        raise _unsupported(arrow, column)
    return found


def _writable_moment(arrow: pa.DataType) -> pa.DataType | None:
    if pa.types.is_timestamp(arrow):
        return pa.timestamp("us", "UTC" if arrow.tz else None)
    if pa.types.is_date(arrow):
        return pa.date32()
    return pa.time64("us") if pa.types.is_time(arrow) else None


def _writable_bytes(arrow: pa.DataType) -> pa.DataType | None:
    is_a = pa.types
    if is_a.is_string(arrow) or is_a.is_large_string(arrow) or is_a.is_string_view(arrow):
        return pa.large_string()
    if is_a.is_fixed_size_binary(arrow):
        return arrow
    if is_a.is_binary(arrow) or is_a.is_large_binary(arrow) or is_a.is_binary_view(arrow):
        return pa.large_binary()
    return None


def _writable_decimal(arrow: pa.DataType, column: str) -> pa.DataType:
    """Return a decimal as Iceberg and Parquet know it: not a negative scale, nor more of it than digits."""
    scale = max(arrow.scale, 0)
    precision = max(arrow.precision - min(arrow.scale, 0), scale)
    if precision > MAX_DECIMAL_PRECISION:
        raise _unsupported(arrow, column)
    return pa.decimal128(precision, scale)


def _unsupported(arrow: pa.DataType, column: str) -> UnsupportedError:
    return UnsupportedError(
        f"Column {column!r} has type {arrow}, which Iceberg cannot hold.",
        remedy="Convert it before writing, for example to text or to an integer.",
    )


def iceberg_schema(arrow: pa.Schema) -> Schema:
    """Return the Iceberg schema of `iceberg_fields`."""
    return Schema(*iceberg_fields(arrow))


def iceberg_fields(arrow: pa.Schema) -> list[NestedField]:
    """Return the Iceberg fields for Arrow columns, with fresh field ids from 1.

    Raises `UnsupportedError` for a column without a type of its own (all null) or without an Iceberg type.
    """
    ids = count(1)
    top_level = [(next(ids), field) for field in arrow]
    return [_iceberg_field(field, field_id, ids, field.name) for field_id, field in top_level]


def iceberg_type(arrow: pa.DataType, ids: Iterator[int], column: str) -> IcebergType:
    """Return the Iceberg type for an Arrow type; nested fields take their ids from `ids`."""
    arrow = writable_type(arrow, column)
    if pa.types.is_struct(arrow):
        numbered = [(next(ids), field) for field in arrow]
        return StructType(*(_iceberg_field(f, i, ids, f"{column}.{f.name}") for i, f in numbered))
    if pa.types.is_map(arrow):
        key_id, value_id = next(ids), next(ids)
        key = iceberg_type(arrow.key_type, ids, f"{column}.key")
        value = iceberg_type(arrow.item_type, ids, f"{column}.value")
        return MapType(key_id, key, value_id, value, not arrow.item_field.nullable)
    if pa.types.is_list(arrow):
        element_id = next(ids)
        element = iceberg_type(arrow.value_type, ids, f"{column}.element")
        return ListType(element_id, element, not arrow.value_field.nullable)
    return _iceberg_primitive(arrow, column)


def _iceberg_field(field: pa.Field, field_id: int, ids: Iterator[int], column: str) -> NestedField:
    return NestedField(
        field_id, field.name, iceberg_type(field.type, ids, column), required=not field.nullable
    )


def _iceberg_primitive(arrow: pa.DataType, column: str) -> IcebergType:
    if isinstance(arrow, pa.BaseExtensionType):
        return UUIDType()
    if pa.types.is_decimal(arrow):
        return DecimalType(arrow.precision, arrow.scale)
    if pa.types.is_timestamp(arrow):
        return TimestamptzType() if arrow.tz else TimestampType()
    if pa.types.is_fixed_size_binary(arrow):
        return FixedType(arrow.byte_width)
    found = _PRIMITIVES.get(arrow)
    if found is None:
        raise UnsupportedError(
            f"Column {column!r} holds only nulls, so its type is unknown.",
            remedy="Give the data a type, or declare the column's under columns where it is not nested.",
        )
    return found


_PRIMITIVES: dict[pa.DataType, IcebergType] = {
    pa.bool_(): BooleanType(),
    pa.int32(): IntegerType(),
    pa.int64(): LongType(),
    pa.float32(): FloatType(),
    pa.float64(): DoubleType(),
    pa.date32(): DateType(),
    pa.time64("us"): TimeType(),
    pa.large_string(): StringType(),
    pa.large_binary(): BinaryType(),
}


def arrow_schema(schema: Schema) -> pa.Schema:
    """Return the Arrow columns of an Iceberg schema, each field carrying its id as Parquet does."""
    return schema_to_pyarrow(schema, include_field_ids=True)


def align(
    batch: pa.RecordBatch, target: pa.Schema, table: str, *, required: Collection[str] = ()
) -> pa.RecordBatch:
    """Bring a batch into the table's columns: by name, in the table's order, with checked casts.

    A column that the batch lacks becomes null. Raises `DataError` that names table, column and value
    when a value does not survive the cast, or is null in a column that the table, or `required`, says
    has none.
    """
    require_distinct(batch.schema.names, table)
    aligned = _align(batch, target, table, _by_name)
    for name in set(required) & set(target.names):
        _require_values(aligned.column(name), f"{table}: column {name!r}")
    return aligned


def align_by_id(batch: pa.RecordBatch, target: pa.Schema, table: str) -> pa.RecordBatch:
    """Bring a data file's batch into the table's columns: by field id, so that renamed ones are found."""
    return _align(batch, target, table, _by_id)


_Identity = Callable[[pa.Field], str | bytes]


def _by_name(field: pa.Field) -> str:
    name: str = field.name
    return name


def _by_id(field: pa.Field) -> bytes:
    found: bytes = (field.metadata or {}).get(FIELD_ID, b"")
    return found


def _align(batch: pa.RecordBatch, target: pa.Schema, table: str, identity: _Identity) -> pa.RecordBatch:
    positions = {identity(field): position for position, field in enumerate(batch.schema)}
    columns = []
    for field in target:
        where, position = f"{table}: column {field.name!r}", positions.get(identity(field))
        array = pa.nulls(batch.num_rows) if position is None else batch.column(position)
        columns.append(_Cast(identity).field(array, field, where))
    return pa.RecordBatch.from_arrays(columns, schema=target)


def _require_values(array: pa.Array, where: str) -> None:
    if array.null_count:
        raise DataError(
            f"{where} is required, but {array.null_count} of {len(array)} values are null.",
            remedy="Fill the nulls, or declare the column as not required and let the schema evolve.",
        )


@dataclass(frozen=True)
class _Cast:
    """Casts arrays to a table's types; the fields of structs are found by `identity`."""

    identity: _Identity

    def field(self, array: pa.Array, target: pa.Field, where: str) -> pa.Array:
        found = self.to(array, target.type, where)
        if not target.nullable:
            _require_values(found, where)
        return found

    def to(self, array: pa.Array, target: pa.DataType, where: str) -> pa.Array:
        array = _plain(array, target)
        if array.type == target and not pa.types.is_nested(target):
            return array
        if pa.types.is_null(array.type):
            return pa.nulls(len(array), target)
        if pa.types.is_struct(target) and pa.types.is_struct(array.type):
            return self._struct(array, target, where)
        if pa.types.is_map(target) and pa.types.is_map(array.type):
            return self._map(array, target, where)
        if pa.types.is_large_list(target) and hasattr(array.type, "value_field"):
            return self._list(array, target, where)
        return _cast_primitive(array, target, where)

    def _struct(self, array: pa.StructArray, target: pa.StructType, where: str) -> pa.Array:
        positions = {self.identity(field): position for position, field in enumerate(array.type)}
        missing = array.is_null() if array.null_count else None
        children = []
        for field in target:
            position = positions.get(self.identity(field))
            if position is None:
                child = pa.nulls(len(array))
            else:
                # What lies under a missing struct is no value, and need not be one of the target's type.
                child = array.flatten()[position] if field.nullable else array.field(position)
            inner = f"{where}.{field.name}"
            child = self.to(child, field.type, inner)
            if not field.nullable:
                _require_values(child if missing is None else child.filter(pc.invert(missing)), inner)
            children.append(child)
        return pa.StructArray.from_arrays(children, fields=list(target), mask=missing)

    def _list(self, array: pa.Array, target: pa.LargeListType, where: str) -> pa.Array:
        """Rebuild the list from its live values: PyArrow's casts of list views read outside of them."""
        lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
        offsets = np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))
        values = self.field(array.flatten(), target.value_field, f"{where}.element")
        missing = array.is_null() if array.null_count else None
        return pa.LargeListArray.from_arrays(offsets, values, type=target, mask=missing)

    def _map(self, array: pa.MapArray, target: pa.MapType, where: str) -> pa.Array:
        if array.offset:
            array = pa.concat_arrays([array])
        keys = self.field(array.keys, target.key_field, f"{where}.key")
        items = self.field(array.items, target.item_field, f"{where}.value")
        missing = array.is_null() if array.null_count else None
        return pa.MapArray.from_arrays(array.offsets, keys, items, type=target, mask=missing)


def _plain(array: pa.Array, target: pa.DataType) -> pa.Array:
    """Undo encodings: an array that says the same in the way that PyArrow can cast from."""
    arrow = array.type
    if isinstance(arrow, pa.BaseExtensionType) and arrow != target:
        return _plain(array.storage, target)
    if pa.types.is_dictionary(arrow):
        values = _plain(array.dictionary, target)
        return _plain(values.take(array.indices), target)
    if pa.types.is_run_end_encoded(arrow):
        return _plain(pc.run_end_decode(array), target)
    if pa.types.is_string_view(arrow):
        return array.cast(pa.large_string())
    if pa.types.is_binary_view(arrow):
        return array.cast(pa.large_binary())
    return array


def _cast_primitive(array: pa.Array, target: pa.DataType, where: str) -> pa.Array:
    try:
        if isinstance(target, pa.BaseExtensionType):
            return _as_uuid(array).cast(target)
        cast = pc.cast(array, target, safe=True)
        _require_survival(array, cast)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as error:
        raise DataError(
            f"{where} of type {array.type} does not fit {target}: {first_line(error)}.",
            remedy="Mend the value, or widen the column's type.",
        ) from None
    return cast


def _as_uuid(array: pa.Array) -> pa.Array:
    """Return the sixteen bytes of each UUID; DuckDB, pandas and polars say them as text."""
    if not pa.types.is_large_string(array.type) and not pa.types.is_string(array.type):
        return array.cast(pa.binary(16))
    values = [None if text is None else UUID(text).bytes for text in array.to_pylist()]
    return pa.array(values, pa.binary(16))


def _require_survival(before: pa.Array, after: pa.Array) -> None:
    """Raise `ValueError` for values that PyArrow's safe cast rounds or cuts without a word."""
    lost = _lost(before, after)
    count = 0 if lost is None else pc.sum(lost).as_py()
    if count:
        example = before.filter(lost)[0].as_py()
        raise ValueError(f"{count} of {len(before)} values would change, the first is {example!r}")


def _lost(before: pa.Array, after: pa.Array) -> pa.Array | None:
    """Return which values are not the same after the cast; None where PyArrow itself refuses such."""
    is_a, source, target = pa.types, before.type, after.type
    if is_a.is_string(source) or is_a.is_large_string(source):
        if not is_a.is_floating(target):
            return None
        too_large = pc.is_inf(after)
        return pc.and_(too_large, pc.invert(pc.match_substring(before, "inf", ignore_case=True)))
    if not _rounds(source, target):
        return None
    lost = pc.not_equal(pc.cast(after, source, safe=False), before)
    return pc.and_(lost, pc.invert(pc.is_nan(before))) if is_a.is_floating(source) else lost


def _rounds(source: pa.DataType, target: pa.DataType) -> bool:
    is_a = pa.types
    if is_a.is_floating(source):
        narrower = is_a.is_floating(target) and source.bit_width > target.bit_width
        return bool(narrower or is_a.is_decimal(target) or is_a.is_boolean(target))
    if is_a.is_decimal(source):
        return bool(is_a.is_floating(target))
    if is_a.is_integer(source):
        return bool(is_a.is_boolean(target))
    return bool(is_a.is_timestamp(source) and is_a.is_date(target))


def shown_values(column: pa.Array | pa.ChunkedArray) -> list[Any]:
    """Return values to be shown in a message; moments that Python does not know come as text."""
    try:
        return list(column.to_pylist())
    except (OverflowError, ValueError):
        return list(column.cast(pa.string()).to_pylist())
