"""Which steps lead from the columns of a replica to those of its table, and where only a reload does."""

import pyarrow as pa
import pytest
from pyiceberg.types import IcebergType, IntegerType, ListType, LongType, NestedField, StructType

from dwh_assets.warehouses.dialect import Holding, ReplicaColumn
from dwh_assets.warehouses.evolution import CannotFollow, column_steps, held_columns


def column(field_id: int, name: str, iceberg: IcebergType) -> ReplicaColumn:
    """A column that is held as JSON, whatever its type is."""
    return ReplicaColumn(
        NestedField(field_id, name, iceberg, required=False), name, Holding("JSON", pa.large_string())
    )


def struct(name: str, iceberg: IcebergType) -> StructType:
    return StructType(NestedField(2, name, iceberg, required=False))


BEFORE = ListType(9, struct("a", IntegerType()), element_required=False)


@pytest.mark.parametrize("inner", [struct("b", IntegerType()), struct("a", LongType())])
def test_what_changes_inside_of_json_cannot_be_followed(inner: StructType) -> None:
    held = held_columns([column(1, "value", BEFORE)])
    after = ListType(9, inner, element_required=False)
    with pytest.raises(CannotFollow, match="inside of the column value"):
        column_steps(held, [(1, BEFORE)], [column(1, "value", after)], keep_dropped=False)
    assert column_steps(held, [(1, BEFORE)], [column(1, "value", BEFORE)], keep_dropped=False) == []


def test_renames_wait_for_a_name_that_differs_in_case_alone() -> None:
    held = held_columns([column(1, "a", LongType()), column(2, "b", LongType())])
    wanted = [column(1, "B", LongType()), column(2, "c", LongType())]
    types = [(1, LongType()), (2, LongType())]

    steps = column_steps(held, types, wanted, keep_dropped=False, fold=str.lower)

    assert [(step.name, step.column and step.column.name) for step in steps] == [("b", "c"), ("a", "B")]
