"""Nested values as BigQuery's own STRUCT and ARRAY, with what that loses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.types import IcebergType, ListType, MapType, NestedField, StructType

from dwh_assets.errors import DataError, UnsupportedError
from dwh_assets.warehouses.bigquery.names import column_name, quote
from dwh_assets.warehouses.dialect import Holding

_ToHolding = Callable[[IcebergType, str], Holding]
_LOST = "a list or map that is null comes back empty"


def native_holding(iceberg: IcebergType, where: str, primitive: _ToHolding) -> Holding:
    """Return how a nested type is held natively; `primitive` says it of what is inside.

    A map is an ARRAY of STRUCT<key, value>. Raises `UnsupportedError` for a list in a list, which BigQuery
    does not have, `ConfigurationError` for a name that it does not take.
    """
    held = _Native(primitive).holding(iceberg, where)
    return replace(held, lost=_lost(iceberg, held, required=False))


@dataclass(frozen=True)
class _Native:
    primitive: _ToHolding

    def holding(self, iceberg: IcebergType, where: str) -> Holding:
        if isinstance(iceberg, StructType):
            return self._struct(iceberg, where)
        if isinstance(iceberg, ListType):
            return self._list(iceberg, where)
        if isinstance(iceberg, MapType):
            return self._map(iceberg, where)
        return self.primitive(iceberg, where)

    def _struct(self, struct: StructType, where: str) -> Holding:
        names = [column_name(field.name) for field in struct.fields]
        held = [self.holding(field.field_type, f"{where}.{field.name}") for field in struct.fields]
        fields_sql = ", ".join(f"{quote(name)} {one.sql_type}" for name, one in zip(names, held, strict=True))
        lost = [
            _lost(field.field_type, one, required=field.required)
            for field, one in zip(struct.fields, held, strict=True)
        ]

        def encode(array: pa.Array) -> pa.Array:
            children = zip(held, array.flatten(), strict=True)
            return _rebuilt(array, names, [_encoded(one, child) for one, child in children])

        def decode(array: pa.Array) -> pa.Array:
            children = zip(held, array.flatten(), strict=True)
            return _rebuilt(array, names, [_decoded(one, child) for one, child in children])

        arrow = pa.struct([(name, one.arrow_type) for name, one in zip(names, held, strict=True)])
        return Holding(f"STRUCT<{fields_sql}>", arrow, encode, decode, lost="; ".join(filter(None, lost)))

    def _list(self, listed: ListType, where: str) -> Holding:
        element = self._element(listed.element_type, f"{where}.element")

        def encode(array: pa.Array) -> pa.Array:
            _require_elements(array, where)
            return _list_of(array, _encoded(element, array.flatten()))

        def decode(array: pa.Array) -> pa.Array:
            return _list_of(array, _decoded(element, array.flatten()))

        arrow = pa.list_(element.arrow_type)
        return Holding(f"ARRAY<{element.sql_type}>", arrow, encode, decode, lost=element.lost)

    def _map(self, mapping: MapType, where: str) -> Holding:
        entry = StructType(
            NestedField(mapping.key_id, "key", mapping.key_type, required=True),
            NestedField(mapping.value_id, "value", mapping.value_type, required=mapping.value_required),
        )
        held = self._element(entry, where)

        def encode(array: pa.Array) -> pa.Array:
            entries = pa.StructArray.from_arrays([array.keys, array.items], names=["key", "value"])
            lists = pa.ListArray.from_arrays(array.offsets, entries, mask=_missing(array))
            return _list_of(lists, _encoded(held, lists.flatten()))

        def decode(array: pa.Array) -> pa.Array:
            entries = _decoded(held, array.flatten())
            return pa.MapArray.from_arrays(_offsets(array), entries.field(0), entries.field(1))

        return Holding(f"ARRAY<{held.sql_type}>", pa.list_(held.arrow_type), encode, decode, lost=held.lost)

    def _element(self, iceberg: IcebergType, where: str) -> Holding:
        if isinstance(iceberg, ListType | MapType):
            raise UnsupportedError(
                f"{where} is {iceberg}, and BigQuery has no array of arrays.",
                remedy="Set nested to json, which keeps all of it.",
            )
        return self.holding(iceberg, where)


def _lost(iceberg: IcebergType, held: Holding, *, required: bool) -> str:
    """Return what a field's values lose: a null list is one of them unless there can be none."""
    lists = isinstance(iceberg, ListType | MapType) and not required
    return "; ".join(filter(None, [_LOST if lists else "", held.lost]))


def _encoded(held: Holding, array: pa.Array) -> pa.Array:
    return (held.encode(array) if held.encode else array).cast(held.arrow_type)


def _decoded(held: Holding, array: pa.Array) -> pa.Array:
    return held.decode(array) if held.decode else array


def _rebuilt(array: pa.StructArray, names: list[str], children: list[pa.Array]) -> pa.StructArray:
    return pa.StructArray.from_arrays(children, names=names, mask=_missing(array))


def _missing(array: pa.Array) -> pa.Array | None:
    return array.is_null() if array.null_count else None


def _offsets(array: pa.Array) -> pa.Array:
    lengths = pc.fill_null(pc.list_value_length(array), 0).cast(pa.int32())
    return pa.concat_arrays([pa.array([0], pa.int32()), pc.cumulative_sum(lengths)])


def _list_of(array: pa.Array, elements: pa.Array) -> pa.ListArray:
    """Return lists as long as those of `array`, with other elements; what is null becomes empty."""
    return pa.ListArray.from_arrays(_offsets(array), elements)


def _require_elements(array: pa.Array, where: str) -> None:
    missing = array.flatten().null_count
    if missing:
        raise DataError(
            f"{where} has {missing} null elements, and an array in BigQuery has none.",
            remedy="Set nested to json, which keeps them.",
        )
