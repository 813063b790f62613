"""What a declaration means for a table: make it, or how schema, spec, sort order and properties change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import chain, count

import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.partitioning import PARTITION_FIELD_ID_START, PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.refs import MAIN_BRANCH
from pyiceberg.table.sorting import NullOrder, SortDirection, SortField, SortOrder
from pyiceberg.transforms import IdentityTransform, Transform, parse_transform
from pyiceberg.types import DecimalType, FixedType, UUIDType

from dwh_assets.config import IcebergWriterConfig, PartitionBy, TableLayout
from dwh_assets.errors import ConfigurationError, UnsupportedError
from dwh_assets.iceberg.catalogs.load import ensure_namespace
from dwh_assets.iceberg.commit import is_beginning, noted_metadata
from dwh_assets.iceberg.faults import explained, readable
from dwh_assets.iceberg.modes.merge_clauses import without_condition_columns
from dwh_assets.iceberg.pending import branch_view
from dwh_assets.iceberg.schema_evolution import decide, declare, relaxable, with_optional
from dwh_assets.iceberg.snapshot import MetadataFiles, discard_metadata


@dataclass(frozen=True)
class Shape:
    """Schema, spec and sort order that a table has after a write, and what of them is new."""

    schema: Schema
    spec: PartitionSpec
    sort_order: SortOrder
    changes: tuple[str, ...] = ()
    # Required columns by id, with their paths, that become optional if the data turn out to hold nulls.
    relaxable: Mapping[int, tuple[str, ...]] = field(default_factory=dict)

    @property
    def file_schema(self) -> Schema:
        """The columns as data files have them: files are written before all of the data are seen."""
        return with_optional(self.schema, self.relaxable)

    def relaxed(self, nulls: Collection[int]) -> Shape:
        """Return the shape for data that hold nulls in these columns, by id."""
        found = {field_id: path for field_id, path in self.relaxable.items() if field_id in nulls}
        changes = (*self.changes, *(f"made {'.'.join(path)} optional" for path in found.values()))
        return replace(self, schema=with_optional(self.schema, found), changes=changes)

    def same_files(self, other: Shape) -> bool:
        """Tell whether data files written for the other shape fit this one as they are."""
        same_columns = other.file_schema.as_struct() == self.file_schema.as_struct()
        return same_columns and self.spec == other.spec and self.sort_order == other.sort_order


def find_table(catalog: Catalog, name: str) -> Table | None:
    """Load a table, or return None where there is none.

    Raises `UnavailableError` when the catalog or store does not answer, `NotFoundError` and `DamagedError`
    when the table's metadata are gone or cannot be read.
    """
    try:
        with explained(name, catalog.name), readable(name, lambda: "its metadata file"):
            return catalog.load_table(name)
    except NoSuchTableError:
        return None


def create_table(catalog: Catalog, name: str, layout: TableLayout, arrow: pa.Schema) -> Table:
    """Create an empty table for the data's columns as declared, and its namespace where missing."""
    shape = new_shape(layout, arrow, name)
    identifier = tuple(name.split("."))
    ensure_namespace(catalog, identifier[:-1])
    written: MetadataFiles = []
    try:
        with noted_metadata(catalog, written):
            return catalog.create_table(
                identifier,
                shape.schema,
                partition_spec=shape.spec,
                sort_order=shape.sort_order,
                properties={"format-version": str(layout.format_version), **layout.table_properties},
            )
    except Exception as error:
        # Another writer may have been first, or our own request twice: catalogs report that in many ways.
        found = find_table(catalog, name)
        if found is not None or isinstance(error, OSError):
            discard_metadata(written, keep=found.metadata_location if found else None)
        if found is None:
            raise
        return found


def new_shape(layout: TableLayout, arrow: pa.Schema, name: str) -> Shape:
    """Return the shape that a table which is made for these data gets.

    Raises `SchemaError`, `ConfigurationError` or `UnsupportedError` for what cannot be.
    """
    schema = declare(arrow, layout.columns, layout.key_columns, name)
    spec = _spec(layout, schema, name)
    _require_readable_manifests(spec, schema, name)
    return Shape(schema, spec, _sort_order(layout, schema, name, order_id=1))


def drop_unused(catalog: Catalog, table: Table, branch: str = MAIN_BRANCH) -> None:
    """Drop a table that was made for a write that failed, unless somebody else has anything of it by now.

    A table with the columns of wrong data would refuse the right ones. What the write itself has left on a
    branch of its own goes with it.
    """
    with suppress(Exception):
        found = catalog.load_table(table.name())
        if found.metadata.table_uuid == table.metadata.table_uuid and not _is_held(found.metadata, branch):
            catalog.purge_table(table.name())


def _is_held(metadata: TableMetadata, branch: str) -> bool:
    main = metadata.current_snapshot()
    begun = main is None or is_beginning(main)
    return not begun or bool(metadata.refs.keys() - {MAIN_BRANCH, branch})


def decide_shape(metadata: TableMetadata, layout: TableLayout, arrow: pa.Schema, name: str) -> Shape:
    """Return the shape that the table has to have for these data under this declaration.

    On another branch than main it is decided against that branch's. A declaration without partition_spec or
    sort_order leaves the table's as it is. Raises `SchemaError` or `ConfigurationError` for what is not
    allowed, `UnsupportedError` for what a branch cannot have by itself.
    """
    seen = branch_view(metadata, layout.branch)
    decision = decide(
        seen.schema(),
        arrow,
        layout.schema_evolution,
        name,
        last_column_id=metadata.last_column_id,
        declared=layout.columns,
        elsewhere=metadata.schema(),
    )
    spec = _evolved_spec(seen, layout, decision.schema, name)
    _require_readable_manifests(spec, decision.schema, name)
    order = _evolved_order(seen, layout, decision.schema, name)
    if layout.branch != MAIN_BRANCH:
        _require_on_main(metadata.schema(), decision.schema, (*spec.fields, *order.fields), name)
    changes = [*decision.changes]
    if spec.spec_id != seen.default_spec_id:
        changes.append(f"partitioned by {_spec_text(spec, decision.schema)}")
    if order.order_id != seen.default_sort_order_id:
        changes.append("changed the sort order")
    may_relax = relaxable(
        decision.schema, arrow, layout.schema_evolution, declared=layout.columns, keys=layout.key_columns
    )
    return Shape(decision.schema, spec, order, tuple(changes), may_relax)


def schema_after_write(catalog: Catalog, config: IcebergWriterConfig, arrow: pa.Schema) -> Schema:
    """Return the columns that the table has after a write of such data, before anything has changed.

    Raises what `decide_shape` raises.
    """
    columns = without_condition_columns(arrow, config, config.table)
    table = find_table(catalog, config.table)
    if table is None:
        return declare(columns, config.columns, config.key_columns, config.table)
    return decide_shape(table.metadata, config, columns, config.table).schema


def _require_on_main(
    main: Schema, branch: Schema, fields: Iterable[PartitionField | SortField], table: str
) -> None:
    """Refuse a spec or order of columns that main has not got: readers of main could not make sense of it."""
    for used in fields:
        try:
            main.find_field(used.source_id)
        except ValueError:
            column = branch.find_column_name(used.source_id)
            raise UnsupportedError(
                f"{table}: column {column!r} is new on this branch, which can be neither partitioned nor "
                "sorted by it: specs and orders belong to the table, and its columns do not have it yet.",
                remedy="Publish the column first; declare partition_spec or sort_order with the next write.",
            ) from None


def _evolved_spec(metadata: TableMetadata, layout: TableLayout, schema: Schema, table: str) -> PartitionSpec:
    if not layout.partition_spec:
        return metadata.spec()
    earlier = [metadata.spec(), *metadata.partition_specs]
    wanted = _spec(layout, schema, table, earlier=earlier, last_id=metadata.last_partition_id)
    for spec in earlier:
        if [_meaning(f) for f in spec.fields] == [_meaning(f) for f in wanted.fields]:
            return spec
    return PartitionSpec(*wanted.fields, spec_id=max(spec.spec_id for spec in earlier) + 1)


def _spec(
    layout: TableLayout,
    schema: Schema,
    table: str,
    *,
    earlier: Sequence[PartitionSpec] = (),
    last_id: int | None = None,
) -> PartitionSpec:
    """Return the declared spec; a field that an earlier spec had keeps its id and name."""
    known = {_meaning(field): field for spec in earlier for field in spec.fields}
    ids = count(max(last_id or 0, PARTITION_FIELD_ID_START - 1) + 1)
    taken = {field.name for field in known.values()}
    fields: list[PartitionField] = []
    for by in layout.partition_spec:
        source_id, transform = _source_id(schema, by.field, table), _transform(by, schema, table)
        field = known.get((source_id, str(transform))) or PartitionField(
            source_id, next(ids), transform, _partition_name(by, schema, taken)
        )
        if _meaning(field) in map(_meaning, fields):
            raise ConfigurationError(
                f"{table}: {by.transform} of {by.field!r} stands twice in partition_spec.",
                remedy="Keep one of the two.",
            )
        taken.add(field.name)
        fields.append(field)
    return PartitionSpec(*fields)


def _meaning(field: PartitionField) -> tuple[int, str]:
    return field.source_id, str(field.transform)


def _evolved_order(metadata: TableMetadata, layout: TableLayout, schema: Schema, table: str) -> SortOrder:
    current = metadata.sort_order_by_id(metadata.default_sort_order_id) or SortOrder(order_id=0)
    if not layout.sort_order:
        return current
    wanted = _sort_order(layout, schema, table, order_id=0)
    for order in [current, *metadata.sort_orders]:
        if order.fields == wanted.fields:
            return order
    return wanted.model_copy(update={"order_id": max(o.order_id for o in metadata.sort_orders) + 1})


def _sort_order(layout: TableLayout, schema: Schema, table: str, *, order_id: int) -> SortOrder:
    fields = [
        SortField(
            source_id=_source_id(schema, by.field, table),
            transform=IdentityTransform(),
            direction=SortDirection(by.direction),
            null_order=NullOrder(f"nulls-{by.nulls}"),
        )
        for by in layout.sort_order
    ]
    return SortOrder(*fields, order_id=order_id) if fields else SortOrder(order_id=0)


def _source_id(schema: Schema, column: str, table: str) -> int:
    try:
        field = schema.find_field(column)
    except ValueError:
        raise ConfigurationError(
            f"{table}: there is no column {column!r} to partition or sort by.",
            remedy=f"The columns are {', '.join(schema.column_names)}.",
        ) from None
    if not field.field_type.is_primitive or not _has_one_value_a_row(schema, field.field_id):
        raise ConfigurationError(
            f"{table}: {column!r} ({field.field_type}) can be neither partitioned nor sorted by.",
            remedy="Name a column, or a field of a struct, that holds one plain value in each row.",
        )
    return field.field_id


def _has_one_value_a_row(schema: Schema, field_id: int) -> bool:
    """Tell a column or a struct's field from the elements of a list or map."""
    try:
        schema.accessor_for_field(field_id)
    except ValueError:
        return False
    return True


def _transform(by: PartitionBy, schema: Schema, table: str) -> Transform[object, object]:
    transform: Transform[object, object] = parse_transform(by.transform)
    source = schema.find_field(by.field).field_type
    if not transform.can_transform(source):
        raise ConfigurationError(
            f"{table}: {by.transform} cannot be applied to column {by.field!r} of type {source}.",
            remedy="Use a transform that fits the type, for example identity, or bucket[16].",
        )
    return transform


def _require_readable_manifests(spec: PartitionSpec, schema: Schema, table: str) -> None:
    """Refuse what PyIceberg writes as Avro that other engines refuse: a fixed type that is defined twice."""
    types = [field.field_type for field in spec.partition_type(schema).fields]
    fixed = [str(one) for one in types if isinstance(one, DecimalType | UUIDType | FixedType)]
    twice = [one for one, times in Counter(fixed).items() if times > 1]
    if twice:
        raise UnsupportedError(
            f"{table}: two partition values are {twice[0]}, and no other engine could read the table.",
            remedy="Partition by one of the two, or by a bucket of the other.",
        )


_SHORT = {"truncate": "trunc", "void": "null"}


def _partition_name(by: PartitionBy, schema: Schema, taken: set[str]) -> str:
    """Name the partition field as Spark does: the column for identity, else column_transform.

    Where that is taken by a column or another field, the transform's number follows: id_bucket_16.
    """
    if by.transform == "identity" and by.field not in taken:
        return by.field
    kind, _, number = by.transform.removesuffix("]").partition("[")
    plain = f"{by.field}_{_SHORT.get(kind, kind)}"
    numbered = (f"{plain}_{n}" for n in chain([number] if number else [], count(2)))
    taken = taken | set(schema.column_names)
    return next(name for name in chain([plain], numbered) if name not in taken)


def _spec_text(spec: PartitionSpec, schema: Schema) -> str:
    parts = [f"{f.transform}({schema.find_column_name(f.source_id)})" for f in spec.fields]
    return ", ".join(parts) or "nothing"
