"""What is told of columns, partitioning, order and properties."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
from pyiceberg.schema import Schema
from pyiceberg.transforms import DayTransform
from pyiceberg.types import (
    DecimalType,
    DoubleType,
    FloatType,
    IcebergType,
    IntegerType,
    ListType,
    LongType,
    NestedField,
    StringType,
    StructType,
)

from dwh_assets.iceberg.diff.compare import compare
from dwh_assets.iceberg.diff.table_changes import schema_changes
from dwh_tests.iceberg.conftest import Lake, local
from dwh_tests.iceberg.diff.test_compare import append, orders


def column(id_: int, name: str, type_: IcebergType, *, required: bool = False, doc: str = "") -> NestedField:
    return NestedField(id_, name, type_, required=required, doc=doc or None)


def told(before: Schema, after: Schema) -> set[str]:
    return {str(change) for change in schema_changes(before, after)}


ID, NAME, PRICE = (
    column(1, "id", IntegerType()),
    column(2, "name", StringType()),
    column(3, "price", FloatType()),
)


def test_columns_that_came_went_and_became_others() -> None:
    before = Schema(ID, NAME, PRICE)
    after = Schema(
        column(1, "id", LongType(), required=True),
        column(3, "total", DoubleType(), doc="in euros"),
        column(4, "name", StringType()),
    )
    assert told(before, after) == {
        "added name (string)",
        "dropped name (string)",
        "promoted id: int -> long",
        "nullability id: optional -> required",
        "renamed total: price -> total",
        "promoted total: float -> double",
        "doc total: None -> in euros",
    }
    assert told(before, before) == set()
    assert {(change.kind, change.field_id) for change in schema_changes(before, after)} >= {
        ("added", 4),
        ("dropped", 2),
        ("renamed", 3),
    }


def test_columns_that_moved_are_as_few_as_can_be() -> None:
    assert told(Schema(ID, NAME, PRICE), Schema(PRICE, ID, NAME)) == {"moved price"}
    new = column(9, "new", StringType())
    assert told(Schema(ID, NAME, PRICE), Schema(new, ID, NAME, PRICE)) == {"added new (string)"}


def test_fields_inside_of_columns() -> None:
    def items(*fields: NestedField) -> Schema:
        return Schema(ID, column(2, "items", ListType(5, StructType(*fields), element_required=False)))

    before = items(column(6, "sku", StringType()), column(7, "count", DecimalType(4, 0)))
    after = items(
        column(7, "number", DecimalType(9, 0)),
        column(6, "sku", StringType()),
        column(8, "size", StructType(column(9, "width", LongType()))),
    )
    assert told(before, after) == {
        "added items.element.size (struct<9: width: optional long>)",
        "renamed items.element.number: count -> number",
        "promoted items.element.number: decimal(4, 0) -> decimal(9, 0)",
        "moved items.element.number",
    }


def test_columns_that_identify_rows() -> None:
    key = column(1, "id", IntegerType(), required=True)
    assert told(Schema(key, NAME), Schema(key, NAME, identifier_field_ids=[1])) == {
        "identifier id: does not -> identifies rows"
    }


def test_partitioning_order_and_properties_as_the_commits_left_them(lake: Lake) -> None:
    days = pa.array([0, 86_400_000_000], pa.timestamp("us"))
    rows = pa.table({"id": [1, 2], "at": days})
    first = append(
        lake, rows, partition_spec=[{"field": "id"}], table_properties={"owner": "ann", "gone": "soon"}
    )
    second = append(lake, rows)
    with lake.table.update_spec() as spec:
        spec.remove_field("id")
        spec.add_field("at", DayTransform(), "day")
    with lake.table.transaction() as change:
        change.set_properties({"owner": "bob", "new": "yes"})
        change.remove_properties("gone")
    third = append(lake, rows, sort_order=[{"field": "at", "direction": "desc"}])

    with compare(lake.table, first, second) as diff:
        assert diff.partition_spec_changes == diff.sort_order_changes == diff.property_changes == ()
        assert diff.notes == ()
    with compare(lake.table, second, third) as diff:
        partitioning, order = diff.partition_spec_changes, diff.sort_order_changes
        assert [str(change) for change in partitioning] == ["added day(at)", "dropped id"]
        assert [str(change) for change in order] == ["changed order: none -> at desc nulls-first"]
        assert {str(change) for change in diff.property_changes} >= {
            "changed owner: ann -> bob",
            "added new (yes)",
            "dropped gone (soon)",
        }


def test_what_cannot_be_known_is_said(lake: Lake) -> None:
    first = append(lake, orders(range(3)))
    second = append(lake, orders(range(3)))
    third = append(lake, orders(range(3)))
    table = lake.table
    for entry in table.metadata.metadata_log[:-1]:
        Path(local(entry.metadata_file)).unlink()
    with compare(table, first, third) as diff:
        assert diff.partition_spec_changes == ()
        assert any("no longer kept" in note for note in diff.notes)
    with compare(table, second, third) as diff:
        assert diff.notes == ()


def test_the_columns_are_those_of_the_versions(lake: Lake) -> None:
    first = append(lake, orders(range(3)))
    second = append(lake, orders(range(3), code="x"), schema_evolution={"enabled": True})
    append(lake, orders(range(3), code="x", later=1), schema_evolution={"enabled": True})
    with compare(lake.table, first, second) as diff:
        assert [str(change) for change in diff.schema_changes] == ["added code (string)"]
    with compare(lake.table, second, first) as diff:
        assert [str(change) for change in diff.schema_changes] == ["dropped code (string)"]
    with compare(lake.table, None, second) as diff:
        assert diff.schema_changes == ()
