"""Every type and every odd name arrives in DuckDB as it is in the table."""

import math
import uuid
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.io.pyarrow import schema_to_pyarrow
from pyiceberg.schema import Schema
from pyiceberg.table import Table
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

from dwh_assets.errors import SchemaError
from dwh_assets.warehouses.duckdb.warehouse import DuckDBWarehouse
from dwh_tests.independent import iceberg_rows
from dwh_tests.warehouses.lake import query

ID = uuid.UUID("f79c3e09-677c-4bbd-a479-3f349cb785e7")
INSTANT = datetime(2013, 3, 10, 7, 30, 0, 123456, tzinfo=UTC)
NESTED = StructType(
    NestedField(101, "Tags", ListType(102, StringType(), element_required=False), required=False),
    NestedField(103, "by key", MapType(104, StringType(), 105, DecimalType(38, 10)), required=False),
    NestedField(106, "inner", StructType(NestedField(107, "u", UUIDType(), required=False)), required=False),
)
NESTED_VALUE = {"Tags": ["a", None], "by key": [("k", Decimal("1.5"))], "inner": {"u": ID.bytes}}

# Iceberg type, DuckDB's name for it, values as Arrow takes them, and as DuckDB gives them back.
TYPES: dict[str, tuple[IcebergType, str, list[Any], list[Any] | None]] = {
    "boolean": (BooleanType(), "BOOLEAN", [True, False], None),
    "int": (IntegerType(), "INTEGER", [-(2**31), 2**31 - 1], None),
    "long": (LongType(), "BIGINT", [-(2**63), 2**63 - 1], None),
    "float": (FloatType(), "FLOAT", [math.nan, -math.inf], None),
    "double": (DoubleType(), "DOUBLE", [5e-324, math.nan], None),
    "decimal": (DecimalType(9, 2), "DECIMAL(9,2)", [Decimal("-1234567.89"), Decimal("0.01")], None),
    "decimal38": (
        DecimalType(38, 6),
        "DECIMAL(38,6)",
        [Decimal("9" * 32 + ".999999"), Decimal("0.000000")],
        None,
    ),
    "date": (DateType(), "DATE", [date(1, 1, 1), date(9999, 12, 31)], None),
    "time": (TimeType(), "TIME", [time(0, 0), time(23, 59, 59, 999999)], None),
    "timestamp": (
        TimestampType(),
        "TIMESTAMP",
        [datetime(1677, 1, 1), datetime(2300, 1, 1, 0, 0, 0, 1)],  # noqa: DTZ001
        None,
    ),
    "timestamptz": (
        TimestamptzType(),
        "TIMESTAMP WITH TIME ZONE",
        [INSTANT, INSTANT.replace(year=1969)],
        None,
    ),
    "string": (StringType(), "VARCHAR", ["", "naïve ☃ 🦆 'x' \\ \n\0"], None),
    "uuid": (UUIDType(), "UUID", [ID.bytes, uuid.UUID(int=0).bytes], [ID, uuid.UUID(int=0)]),
    "fixed": (FixedType(3), "BLOB", [b"\0\xff\x80", b"abc"], None),
    "binary": (BinaryType(), "BLOB", [b"", b"\0\xff"], None),
    "list": (ListType(98, IntegerType(), element_required=True), "INTEGER[]", [[1, 2], []], None),
    "map": (
        MapType(96, IntegerType(), 97, DoubleType()),
        "MAP(INTEGER, DOUBLE)",
        [[(1, 0.5)], []],
        [{1: 0.5}, {}],
    ),
    "struct": (
        NESTED,
        'STRUCT(Tags VARCHAR[], "by key" MAP(VARCHAR, DECIMAL(38,10)), "inner" STRUCT(u UUID))',
        [NESTED_VALUE, {"Tags": None, "by key": [], "inner": None}],
        [
            {"Tags": ["a", None], "by key": {"k": Decimal("1.5")}, "inner": {"u": ID}},
            {"Tags": None, "by key": {}, "inner": None},
        ],
    ),
}
COLUMN_TYPES = "SELECT column_name, data_type, is_nullable FROM duckdb_columns() WHERE table_name = ?"


def arrow_table(schema: Schema, columns: dict[str, list[Any]]) -> pa.Table:
    """Values as an Arrow table of the Iceberg columns; Arrow builds no uuid inside a struct by itself."""
    target = schema_to_pyarrow(schema, include_field_ids=False)
    storage = pa.schema([pa.field(f.name, _storage(f.type), f.nullable) for f in target])
    rows = pa.table({f.name: pa.array(columns[f.name], f.type) for f in storage}, schema=storage)
    return rows.cast(target)


def _storage(arrow: pa.DataType) -> pa.DataType:
    if pa.types.is_struct(arrow):
        return pa.struct([f.with_type(_storage(f.type)) for f in arrow])
    return getattr(arrow, "storage_type", arrow)


@pytest.mark.parametrize("kind", TYPES)
def test_each_type_arrives_with_its_nulls(catalog: SqlCatalog, tmp_path: Path, kind: str) -> None:
    iceberg, duckdb_type, values, expected = TYPES[kind]
    schema = Schema(
        NestedField(1, "n", IntegerType(), required=True), NestedField(2, "Value", iceberg, required=False)
    )
    table = catalog.create_table("sales.typed", schema)
    table.append(arrow_table(table.schema(), {"n": [0, 1, 2], "Value": [*values, None]}))

    DuckDBWarehouse(tmp_path / "w.duckdb").replica("sales.typed").sync(catalog)

    found = query(tmp_path / "w.duckdb", "SELECT * FROM sales.typed ORDER BY n")
    assert nan_as_text(found) == nan_as_text([*enumerate([*(expected or values), None])])
    assert query(tmp_path / "w.duckdb", COLUMN_TYPES, "typed") == [
        ("n", "INTEGER", False),
        ("Value", duckdb_type, True),
    ]
    independent = sorted(iceberg_rows(table.metadata_location).to_pylist(), key=lambda row: row["n"])
    replica = DuckDBWarehouse(tmp_path / "w.duckdb").replica("sales.typed").read().read_all()
    held = sorted(replica.to_pylist(), key=lambda row: row["n"])
    assert plain_uuids(held) == plain_uuids(independent)


def plain_uuids(rows: list[dict[str, Any]]) -> str:
    """Values as text; the independent reader shows a UUID as the string that it is written as."""
    return repr(rows).replace("UUID('", "'").replace("')", "'")


def nan_as_text(rows: list[tuple[int, Any]]) -> list[tuple[int, Any]]:
    return [(n, "nan" if isinstance(value, float) and math.isnan(value) else value) for n, value in rows]


ODD_NAMES = [
    "select",
    'say "hi"',
    "a.b",
    "x'); DROP TABLE _dwh_replicas; --",
    "É",
    "é",
    " ",
    "rowid",
]


def test_columns_of_any_name_arrive(catalog: SqlCatalog, tmp_path: Path) -> None:
    schema = Schema(
        *(NestedField(i, name, LongType(), required=False) for i, name in enumerate(ODD_NAMES, 1))
    )
    table = catalog.create_table("sales.odd", schema)
    table.append(pa.table({name: [i] for i, name in enumerate(ODD_NAMES)}))
    replica = DuckDBWarehouse(tmp_path / "w.duckdb").replica("sales.odd")

    replica.sync(catalog)

    expected = {name: i for i, name in enumerate(ODD_NAMES)}
    assert replica.read().read_all().to_pylist() == [expected]
    for name, value in expected.items():
        assert replica.read([name], {name: value}).read_all().to_pylist() == [{name: value}]
        assert replica.read([name], {name: -1}).read_all().num_rows == 0


@pytest.mark.parametrize(
    ("table", "into", "schema", "name"),
    [
        ("sales.select", None, "sales", "select"),
        ('sales."; DROP TABLE _dwh_replicas; --', None, "sales", '"; DROP TABLE _dwh_replicas; --'),
        ("sales.orders", '"a""b".c; DROP SCHEMA x; --', 'a"b', "c; DROP SCHEMA x; --"),
        ("sales.orders", "Größe ☃.x'y", "Größe ☃", "x'y"),
        ("sales.orders", '"with.dots"."in.both"', "with.dots", "in.both"),
        ("sales.orders", "only_a_table", "main", "only_a_table"),
    ],
)
def test_tables_of_any_name_arrive(
    catalog: SqlCatalog, tmp_path: Path, table: str, into: str | None, schema: str, name: str
) -> None:
    catalog.create_table(table, pa.schema([("id", pa.int64())])).append(pa.table({"id": [7]}))
    warehouse = DuckDBWarehouse(tmp_path / "w.duckdb")
    replica = warehouse.replica(table, into=into)

    replica.sync(catalog)

    names = "SELECT schema_name, table_name FROM duckdb_tables() WHERE table_name <> '_dwh_replicas'"
    assert query(tmp_path / "w.duckdb", names) == [(schema, name)]
    assert replica.read().read_all().to_pylist() == [{"id": 7}]
    state = replica.state()
    assert state is not None
    assert state.table == table
    replica.drop()
    assert query(tmp_path / "w.duckdb", names) == []
    assert replica.snapshot_id is None


def test_a_schema_may_be_called_as_the_file_is(catalog: SqlCatalog, orders: Table, tmp_path: Path) -> None:
    replica = DuckDBWarehouse(tmp_path / "sales.duckdb").replica("sales.orders")
    assert replica.sync(catalog).method == "full"
    orders.append(pa.table({"id": [4], "item": ["ink"]}))
    assert replica.sync(catalog).method == "incremental"
    assert replica.count() == replica.read().read_all().num_rows == 4


def test_a_name_of_our_own_is_refused(catalog: SqlCatalog, tmp_path: Path) -> None:
    catalog.create_table("sales.odd", pa.schema([("_DWH_valid_from", pa.int64())]))
    with pytest.raises(SchemaError, match=r"sales\.odd: column '_DWH_valid_from'"):
        DuckDBWarehouse(tmp_path / "w.duckdb").replica("sales.odd").sync(catalog)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ([NestedField(1, "Id", LongType()), NestedField(2, "ID", LongType())], "columns 'Id' and 'ID'"),
        (
            [
                NestedField(
                    1, "s", StructType(NestedField(2, "a", LongType()), NestedField(3, "A", LongType()))
                )
            ],
            "column s: fields 'a' and 'A'",
        ),
    ],
)
def test_names_that_differ_in_case_alone_are_refused(
    catalog: SqlCatalog, tmp_path: Path, fields: list[NestedField], named: str
) -> None:
    catalog.create_table("sales.clash", Schema(*fields))
    with pytest.raises(SchemaError, match=f"sales.clash: {named}"):
        DuckDBWarehouse(tmp_path / "w.duckdb").replica("sales.clash").sync(catalog)
    assert query(tmp_path / "w.duckdb", "SELECT * FROM duckdb_tables()") == []


def test_descriptions_and_required_columns_arrive(catalog: SqlCatalog, tmp_path: Path) -> None:
    doc = "the order's number; 'quoted' \"twice\" \\ ☃\n-- not a comment"
    schema = Schema(
        NestedField(1, "id", LongType(), required=True, doc=doc),
        NestedField(2, "note", StringType(), required=False),
    )
    catalog.create_table("sales.described", schema)
    DuckDBWarehouse(tmp_path / "w.duckdb").replica("sales.described").sync(catalog)
    columns = "SELECT column_name, comment, is_nullable FROM duckdb_columns() WHERE table_name = 'described'"
    assert query(tmp_path / "w.duckdb", columns) == [("id", doc, False), ("note", None, True)]
