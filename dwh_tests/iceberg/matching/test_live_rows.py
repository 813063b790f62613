"""What DuckDB reads of data files is what other readers see of them."""

from decimal import Decimal
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.schema import Schema
from pyiceberg.types import (
    DecimalType,
    IcebergType,
    ListType,
    LongType,
    MapType,
    NestedField,
    StringType,
    StructType,
)

from dwh_assets.iceberg.matching.live_rows import live_rows

_MAP = MapType(14, StringType(), 15, DecimalType(5, 1))


@pytest.mark.parametrize(
    ("nested", "value"),
    [
        (StructType(NestedField(11, "by key", _MAP, required=False)), {"by key": [("k", Decimal("1.5"))]}),
        (StructType(NestedField(11, "größe", LongType(), required=False)), {"größe": 7}),
        (
            ListType(10, StructType(NestedField(11, "2nd", LongType(), required=False))),
            [{"2nd": 7}, {"2nd": None}],
        ),
        (MapType(12, StringType(), 13, StructType(NestedField(11, "a-b", LongType()))), [("k", {"a-b": 1})]),
        (StructType(NestedField(11, "plain_1", LongType(), required=False)), {"plain_1": 7}),
    ],
    ids=["map in struct", "letters", "digit first", "struct in map", "plain"],
)
def test_fields_inside_columns_are_found_under_any_name(
    tmp_path: Path, nested: IcebergType, value: object
) -> None:
    """Iceberg's writers, PyIceberg among them, change such names in the file: by key is by_x20key there."""
    catalog = SqlCatalog("lake", uri=f"sqlite:///{tmp_path}/c.db", warehouse=tmp_path.as_uri())
    catalog.create_namespace("sales")
    schema = Schema(
        NestedField(1, "id", LongType(), required=False), NestedField(2, "Value", nested, required=False)
    )
    table = catalog.create_table("sales.odd", schema)
    table.append(pa.Table.from_pylist([{"id": 1, "Value": value}], schema=table.schema().as_arrow()))

    with duckdb.connect() as connection:
        rows = live_rows(connection, table, list(table.scan().plan_files()), table.schema())
        found = connection.execute(rows.sql, rows.parameters).to_arrow_table()

    expected = table.scan().to_arrow()
    assert found.column("Value").to_pylist() == expected.column("Value").to_pylist()
    assert expected.column("Value").to_pylist() == [value]
