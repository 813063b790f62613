"""Decide what a write means for a table's columns: same, evolve, or refuse.

Columns are matched by name and keep their field ids. Nothing is dropped, and no value is read in
another sense than it was written in; what would do either is refused with the column, both types
and the remedy. The rules are Iceberg's own ("Schema Evolution" in the table specification).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import count

import pyarrow as pa
from pyiceberg.schema import Schema
from pyiceberg.types import (
    DateType,
    DecimalType,
    DoubleType,
    FloatType,
    IcebergType,
    IntegerType,
    ListType,
    LongType,
    MapType,
    NestedField,
    PrimitiveType,
    StringType,
    StructType,
    TimestampType,
    TimestamptzType,
    TimeType,
    UUIDType,
)

from dwh_assets.config import ColumnDeclaration, SchemaEvolution
from dwh_assets.errors import ConfigurationError, SchemaError
from dwh_assets.iceberg.arrow.types import iceberg_fields, iceberg_type, require_distinct, writable_type


@dataclass(frozen=True)
class SchemaDecision:
    """The schema that the table has after the write, and what changed, one sentence a change."""

    schema: Schema
    changes: tuple[str, ...] = ()


def declare(arrow: pa.Schema, columns: dict[str, ColumnDeclaration], keys: list[str], table: str) -> Schema:
    """Return the schema of a new table: the data's columns, overruled by what is declared.

    Key columns become required and Iceberg's identifier fields.
    Raises `ConfigurationError` when a declared column or key is not among the data's.
    """
    if not arrow.names:
        raise SchemaError(f"{table}: the data have no columns.", remedy="Give data with at least one column.")
    require_distinct(arrow.names, table)
    for name in [*columns, *keys]:
        if name not in arrow.names:
            raise ConfigurationError(
                f"{table}: column {name!r} is declared, but the data have only {', '.join(arrow.names)}.",
                remedy="Correct the declaration, or add the column to the data.",
            )
    undeclared = pa.schema(
        [pa.field(f.name, pa.bool_()) if _declared_type(columns.get(f.name)) else f for f in arrow]
    )
    fields = [_declare_field(field, columns, keys) for field in iceberg_fields(undeclared)]
    for field, given in zip(fields, arrow, strict=True):
        if not pa.types.is_null(given.type):
            _require_same_sense(field.field_type, given.type, f"{table}: column {field.name!r}")
    identifiers = [field.field_id for field in fields if field.name in keys]
    return _schema(fields, identifiers, table)


def _schema(fields: Iterable[NestedField], identifiers: list[int], table: str) -> Schema:
    """Return the schema; refuse one with ambiguous paths: a column `a.b` beside the field b of `a`."""
    try:
        return Schema(*fields, identifier_field_ids=identifiers)
    except ValueError as error:
        raise SchemaError(f"{table}: {error}.", remedy="Rename one of the two columns.") from None


def _declare_field(field: NestedField, columns: dict[str, ColumnDeclaration], keys: list[str]) -> NestedField:
    declared = columns.get(field.name, ColumnDeclaration())
    silent = "required" not in declared.model_fields_set
    return NestedField(
        field.field_id,
        field.name,
        _declared_type(declared) or field.field_type,
        required=field.name in keys or (field.required if silent else declared.required),
        doc=declared.description,
    )


def _declared_type(declared: ColumnDeclaration | None) -> IcebergType | None:
    if declared is None or declared.type is None:
        return None
    try:
        return NestedField(1, "x", declared.type, required=False).field_type
    except ValueError as error:
        raise ConfigurationError(
            f"{declared.type!r} is not an Iceberg type.",
            remedy="Write for example int, long, double, decimal(10, 2), string, date or timestamptz.",
        ) from error


def decide(
    current: Schema,
    incoming: pa.Schema,
    evolution: SchemaEvolution,
    table: str,
    *,
    last_column_id: int,
    declared: dict[str, ColumnDeclaration] | None = None,
    elsewhere: Schema | None = None,
) -> SchemaDecision:
    """Compare the data's columns with the table's and return the schema after the write.

    A column that is new here, and that main has already (`elsewhere`), is main's: it has its id and type.
    Raises `SchemaError` for every difference that `evolution` does not allow.
    """
    require_distinct(incoming.names, table)
    comparison = _Comparison(evolution, table, count(last_column_id + 1), declared or {}, elsewhere)
    fields = comparison.struct(list(current.fields), list(incoming), prefix="")
    fields = [comparison.described(field) for field in fields]
    if not comparison.changes:
        return SchemaDecision(current)
    schema = _schema(fields, current.identifier_field_ids, table)
    return SchemaDecision(schema, tuple(comparison.changes))


def relaxable(
    schema: Schema,
    incoming: pa.Schema,
    evolution: SchemaEvolution,
    *,
    declared: dict[str, ColumnDeclaration],
    keys: Collection[str],
) -> dict[int, tuple[str, ...]]:
    """Return id and path of each required column that a null in the data may make optional.

    None where evolution is off; never a key, what the declaration says is required, or a column of which
    the data themselves say that it has no nulls. Fields of structs count as columns; what is inside of a
    list or map stays as it is.
    """
    if not evolution.enabled:
        return {}
    identifiers = schema.identifier_field_names()
    fixed = {*identifiers, *keys, *(name for name, column in declared.items() if column.required)}
    nullable = set(_nullable_paths(incoming, ()))
    return {
        field.field_id: path
        for path, field in _columns(schema.fields, ())
        if field.required and path in nullable and not _leads_to(path, fixed)
    }


def with_optional(schema: Schema, columns: Collection[int]) -> Schema:
    """Return the schema in which these columns, by id, may be null."""
    fields = _optional(schema.fields, columns)
    return Schema(*fields, schema_id=schema.schema_id, identifier_field_ids=schema.identifier_field_ids)


def _columns(
    fields: Iterable[NestedField], parent: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], NestedField]]:
    """Yield the columns and the fields of their structs, each with its path."""
    for field in fields:
        path = (*parent, field.name)
        yield path, field
        if isinstance(field.field_type, StructType):
            yield from _columns(field.field_type.fields, path)


def _nullable_paths(fields: Iterable[pa.Field], parent: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for field in fields:
        path = (*parent, field.name)
        if field.nullable:
            yield path
        if pa.types.is_struct(field.type):
            yield from _nullable_paths(field.type, path)


def _leads_to(path: tuple[str, ...], columns: Collection[str]) -> bool:
    """Tell whether one of the columns is this one, or a field somewhere inside of it."""
    name = ".".join(path)
    return any(column == name or column.startswith(f"{name}.") for column in columns)


def _optional(fields: Iterable[NestedField], columns: Collection[int]) -> Iterator[NestedField]:
    for field in fields:
        inner = field.field_type
        if isinstance(inner, StructType):
            inner = StructType(*_optional(inner.fields, columns))
        required = field.required and field.field_id not in columns
        yield field.model_copy(update={"required": required, "field_type": inner})


class _Comparison:
    """One walk over both schemas; collects the changes and refuses what is not allowed."""

    def __init__(
        self,
        evolution: SchemaEvolution,
        table: str,
        ids: Iterator[int],
        declared: dict[str, ColumnDeclaration],
        elsewhere: Schema | None = None,
    ) -> None:
        self.elsewhere = {field.name: field for field in elsewhere.fields} if elsewhere else {}
        self.evolution = evolution
        self.table = table
        self.ids = ids
        self.declared = declared
        self.changes: list[str] = []

    def struct(self, current: list[NestedField], incoming: list[pa.Field], prefix: str) -> list[NestedField]:
        by_name = {field.name: field for field in incoming}
        known = {field.name for field in current}
        new = [field for field in incoming if field.name not in known]
        self._require_more_than_case(known, new, prefix)
        kept = [self._existing(field, by_name.get(field.name), prefix) for field in current]
        return kept + [self._added(field, prefix) for field in new]

    def described(self, field: NestedField) -> NestedField:
        """Return the column with the description that is declared for it."""
        declared = self.declared.get(field.name)
        if declared is None or declared.description is None or declared.description == field.doc:
            return field
        self.changes.append(f"described {field.name}")
        return field.model_copy(update={"doc": declared.description})

    def _require_more_than_case(self, known: set[str], new: list[pa.Field], prefix: str) -> None:
        """Most engines that read the table do not tell `Id` from `id`."""
        folded = {name.casefold(): name for name in known}
        for field in new:
            if field.name.casefold() in folded:
                raise SchemaError(
                    f"{self.table}: column {prefix + field.name!r} differs only in upper and lower case from "
                    f"the table's {prefix + folded[field.name.casefold()]!r}.",
                    remedy="Rename it in the data.",
                )

    def _existing(self, field: NestedField, incoming: pa.Field | None, prefix: str) -> NestedField:
        path = prefix + field.name
        if incoming is None:
            self._missing(field, path)
            return field
        declared = _declared_type(self.declared.get(path))
        if declared is not None:
            new_type = self._primitive(field.field_type, declared, path, "declaration has")
        else:
            new_type = self._type(field.field_type, incoming.type, path)
        if not pa.types.is_null(incoming.type):
            _require_same_sense(new_type, incoming.type, f"{self.table}: column {path!r}")
        return field if new_type == field.field_type else field.model_copy(update={"field_type": new_type})

    def _missing(self, field: NestedField, path: str) -> None:
        if field.required or not self.evolution.enabled or self.evolution.mode == "strict":
            enable = "" if self.evolution.enabled else "enabled: true and "
            remedy = (
                "Add it to the data; it is required."
                if field.required
                else f"Add it to the data (nulls will do), or set schema_evolution {enable}mode: permissive."
            )
            raise SchemaError(
                f"{self.table}: column {path!r} ({field.field_type}) is missing in the data.", remedy=remedy
            )

    def _added(self, field: pa.Field, prefix: str) -> NestedField:
        path = prefix + field.name
        if not prefix and path in self.elsewhere:
            self._require_enabled(f"column {path!r} is new on this branch", "Drop it from the data")
            adopted = self.elsewhere[path].model_copy(update={"required": False})
            self.changes.append(f"added {path} {adopted.field_type}, as main has it")
            return self._existing(adopted, field, prefix)
        new_type = _declared_type(self.declared.get(path)) or iceberg_type(field.type, self.ids, path)
        self._require_enabled(f"column {path!r} ({new_type}) is new", "Drop it from the data")
        self.changes.append(f"added {path} {new_type}")
        if not pa.types.is_null(field.type):
            _require_same_sense(new_type, field.type, f"{self.table}: column {path!r}")
        return NestedField(next(self.ids), field.name, new_type, required=False)

    def _type(self, current: IcebergType, incoming: pa.DataType, path: str) -> IcebergType:
        incoming = writable_type(incoming, path)
        if pa.types.is_null(incoming):
            return current
        if isinstance(current, StructType) and pa.types.is_struct(incoming):
            return StructType(*self.struct(list(current.fields), list(incoming), f"{path}."))
        if isinstance(current, ListType) and pa.types.is_list(incoming):
            element = self._type(current.element_type, incoming.value_type, f"{path}.element")
            return ListType(current.element_id, element, current.element_required)
        if isinstance(current, MapType) and pa.types.is_map(incoming):
            self._require_same_key(current.key_type, incoming.key_type, f"{path}.key")
            value = self._type(current.value_type, incoming.item_type, f"{path}.value")
            return MapType(current.key_id, current.key_type, current.value_id, value, current.value_required)
        return self._primitive(current, iceberg_type(incoming, count(1), path), path)

    def _require_same_key(self, current: IcebergType, incoming: pa.DataType, path: str) -> None:
        """The key of a map is what its entries are told apart by: Iceberg never lets it evolve."""
        try:
            _Comparison(SchemaEvolution(enabled=False), self.table, count(1), {})._type(
                current, incoming, path
            )
        except SchemaError as error:
            raise SchemaError(
                error.message, remedy="Convert the data: the keys of a map never change."
            ) from None

    def _primitive(
        self, current: IcebergType, incoming: IcebergType, path: str, whose: str = "data have"
    ) -> IcebergType:
        if current == incoming or _widens(incoming, current):
            return current
        wider = _wider(current, incoming)
        if wider is not None:
            self._require_enabled(f"column {path!r} is {current}, the {whose} {incoming}", "Convert the data")
            self.changes.append(f"widened {path} from {current} to {wider}")
            return wider
        if self._may_cast(current, incoming):
            return current
        raise SchemaError(
            f"{self.table}: column {path!r} is {current}, but the {whose} {incoming}.",
            remedy=_remedy(current, incoming),
        )

    def _may_cast(self, current: IcebergType, incoming: IcebergType) -> bool:
        both = isinstance(current, PrimitiveType) and isinstance(incoming, PrimitiveType)
        permissive = self.evolution.enabled and self.evolution.mode == "permissive"
        return both and permissive and not _reinterprets(current, incoming)

    def _require_enabled(self, what: str, remedy: str) -> None:
        if not self.evolution.enabled:
            raise SchemaError(
                f"{self.table}: {what}.", remedy=f"{remedy}, or set schema_evolution enabled: true."
            )


def _wider(current: IcebergType, incoming: IcebergType) -> IcebergType | None:
    """Return the type that Iceberg allows `current` to be promoted to and that holds `incoming`, if any."""
    if isinstance(current, IntegerType) and isinstance(incoming, LongType):
        return incoming
    if isinstance(current, FloatType) and isinstance(incoming, DoubleType):
        return incoming
    if (
        isinstance(current, DecimalType)
        and isinstance(incoming, DecimalType)
        and current.scale == incoming.scale
    ):
        return DecimalType(max(current.precision, incoming.precision), current.scale)
    return None


def _widens(incoming: IcebergType, current: IcebergType) -> bool:
    """Tell whether every value of `incoming` is a value of `current`, unchanged."""
    if isinstance(incoming, IntegerType) and isinstance(current, LongType):
        return True
    if isinstance(incoming, FloatType) and isinstance(current, DoubleType):
        return True
    if isinstance(incoming, DecimalType) and isinstance(current, DecimalType):
        whole_digits = current.precision - current.scale >= incoming.precision - incoming.scale
        return whole_digits and current.scale >= incoming.scale
    return False


def _require_same_sense(column: IcebergType, arrow: pa.DataType, where: str) -> None:
    """Refuse data that a cast to the column's type would read in another sense than they were written in."""
    incoming = iceberg_type(arrow, count(1), where) if isinstance(column, PrimitiveType) else column
    if _reinterprets(column, incoming):
        raise SchemaError(
            f"{where} is {column}, but the data have {incoming}.", remedy=_remedy(column, incoming)
        )


def _reinterprets(current: IcebergType, incoming: IcebergType) -> bool:
    """Tell whether a cast would change what a value means.

    A clock time without a zone is not an instant, and a moment is not a number. Text can say them all.
    """
    ours, theirs = _sense(current), _sense(incoming)
    if ours == theirs or theirs == "text":
        return False
    return ours != "text" or theirs == "uuid"


def _sense(iceberg_type: IcebergType) -> str:
    for sense, types in _SENSES.items():
        if isinstance(iceberg_type, types):
            return sense
    return "other"


_SENSES: dict[str, tuple[type[IcebergType], ...]] = {
    "instant": (TimestamptzType,),
    "moment": (TimestampType, DateType),
    "time": (TimeType,),
    "uuid": (UUIDType,),
    "text": (StringType,),
}


def _remedy(current: IcebergType, incoming: IcebergType) -> str:
    if {_sense(current), _sense(incoming)} == {"instant", "moment"}:
        return "State the time zone: a timestamp without one is not an instant; convert the data first."
    if _reinterprets(current, incoming):
        return "Convert the data first, so that it is plain what the values mean."
    if current.is_primitive and incoming.is_primitive:
        return (
            "Convert the data, or set schema_evolution mode: permissive to cast where every value survives."
        )
    return "Convert the data to the table's type."
