"""What is built on dialect and session for all warehouses, over Snowflake: parity and history."""

from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.table import Table

from dwh_assets.iceberg.arrow.types import align, arrow_schema
from dwh_assets.warehouses.base import Mode
from dwh_assets.warehouses.columns import replica_columns
from dwh_assets.warehouses.dialect import TypeOptions
from dwh_assets.warehouses.parity import verify
from dwh_assets.warehouses.parity_report import Level, ParityReport
from dwh_assets.warehouses.replica import Replica
from dwh_assets.warehouses.snowflake.warehouse import SnowflakeWarehouse
from dwh_assets.warehouses.source import open_source
from dwh_tests.warehouses.snowflake.conftest import Connect, new_session
from dwh_tests.warehouses.snowflake.values import NESTED, PRIMITIVES, lake_rows, lake_schema

# The emulator holds no nanoseconds.
VALUES = {**PRIMITIVES, **NESTED}


@pytest.fixture
def values(catalog: SqlCatalog) -> Table:
    table = catalog.create_table("sales.values", lake_schema(VALUES))
    rows = align(lake_rows(VALUES), arrow_schema(table.schema()), "sales.values")
    table.append(pa.Table.from_batches([rows]))
    return table


def compared(warehouse: SnowflakeWarehouse, replica: Replica, table: Table, level: Level) -> ParityReport:
    source = open_source(table, replica.table, None)
    with new_session(warehouse) as session:
        columns = replica_columns(source.schema, session.dialect, TypeOptions(), replica.table)
        return verify(session, replica.target, columns, source, level)


@pytest.mark.parametrize("level", ["count", "fingerprint", "full"])
def test_a_copy_of_every_type_equals_its_table(
    values: Table, warehouse: SnowflakeWarehouse, level: Level
) -> None:
    replica = warehouse.replica("sales.values")
    replica.sync(values)
    report = compared(warehouse, replica, values, level)
    assert report.equal
    assert report.rows_in_table == report.rows_in_replica == lake_rows(VALUES).num_rows
    assert set(report.not_compared) == (set(NESTED) if level == "fingerprint" else set())


@pytest.mark.parametrize("level", ["fingerprint", "full"])
@pytest.mark.parametrize(
    ("column", "change"),
    [
        ("DOUBLE", '"DOUBLE" = "DOUBLE" + 1'),
        ("DATE", '"DATE" = DATEADD(\'day\', 1, "DATE")'),
        ("STRING", '"STRING" = NULL'),
        ("LONG", '"LONG" = 7'),
    ],
)
def test_a_value_that_was_changed_is_found(
    values: Table, warehouse: SnowflakeWarehouse, connect: Connect, level: Level, column: str, change: str
) -> None:
    replica = warehouse.replica("sales.values")
    replica.sync(values)
    with connect() as connection:
        connection.cursor().execute(f'UPDATE SALES."VALUES" SET {change} WHERE "INT" = 2147483647')
    report = compared(warehouse, replica, values, level)
    assert not report.equal
    if level == "fingerprint":
        assert {difference.column for difference in report.columns} == {column.lower()}


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("merge_into", [("ink", 2, False), ("ink", 3, True), ("pen", 1, False), ("pen", 5, True)]),
        ("append_only", [("ink", None, "delete"), ("ink", 2, "insert"), ("ink", 3, "insert")]),
    ],
)
def test_history_is_kept(
    catalog: SqlCatalog, warehouse: SnowflakeWarehouse, connect: Connect, mode: Mode, expected: list[Any]
) -> None:
    schema = pa.schema([pa.field("item", pa.string(), nullable=False), ("price", pa.int64())])
    table = catalog.create_table("sales.prices", schema)
    with table.update_schema() as update:
        update.set_identifier_fields("item")
    replica = warehouse.replica("sales.prices", "history.prices", mode)

    def put(*rows: tuple[str, int]) -> None:
        table.upsert(
            pa.Table.from_pylist([dict(zip(schema.names, row, strict=True)) for row in rows], schema)
        )
        replica.sync(table)

    put(("pen", 1), ("ink", 2))
    put(("pen", 5))
    table.delete("item = 'ink'")
    replica.sync(table)
    put(("ink", 3))
    shown = "_dwh_valid_to IS NULL" if mode == "merge_into" else "_dwh_change_type"
    with connect() as connection:
        cursor = connection.cursor().execute(f"SELECT item, price, {shown} FROM history.prices")
        assert cursor
        found = [tuple(row) for row in cursor.fetchall()]
    assert sorted(map(str, found))[: len(expected)] == sorted(map(str, expected))
