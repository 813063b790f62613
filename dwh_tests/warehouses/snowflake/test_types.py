"""That values of every type come back from Snowflake as they went there, and are hashed as everywhere.

What the emulator cannot show: nanoseconds (it keeps microseconds), how the service's own VARIANT writes
numbers, its reading of texts as floats, and its logarithm (which the canonical text of a float mends by one).
"""

from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.types import DoubleType, IcebergType, UnknownType

from dwh_assets.errors import UnsupportedError
from dwh_assets.warehouses.base import Target
from dwh_assets.warehouses.columns import decoded, fetched_sql, replica_columns
from dwh_assets.warehouses.dialect import ReplicaColumn, TypeOptions
from dwh_assets.warehouses.session import Layout, encoded
from dwh_assets.warehouses.snowflake.dialect import SnowflakeDialect
from dwh_assets.warehouses.snowflake.session import SnowflakeSession
from dwh_assets.warehouses.snowflake.warehouse import SnowflakeWarehouse
from dwh_tests.warehouses import canonical_model
from dwh_tests.warehouses.snowflake.conftest import Connect, new_session
from dwh_tests.warehouses.snowflake.values import ALL, NESTED, PRIMITIVES, lake_rows, lake_schema

DIALECT = SnowflakeDialect()
TARGET = Target("", "PUBLIC", "VALUES")


def columns_of(types: TypeOptions = TypeOptions(), values: Any = ALL) -> tuple[ReplicaColumn, ...]:  # noqa: B008
    return replica_columns(lake_schema(values), DIALECT, types, "lake.values")


def fill(session: SnowflakeSession, columns: tuple[ReplicaColumn, ...], rows: pa.RecordBatch) -> None:
    session.create_table(TARGET, columns, Layout())
    session.insert(TARGET, columns, encoded(pa.RecordBatchReader.from_batches(rows.schema, [rows]), columns))


def read(session: SnowflakeSession, columns: tuple[ReplicaColumn, ...]) -> pa.Table:
    values_sql = ", ".join(fetched_sql(DIALECT, column) for column in columns)
    rows = session.stream(f"SELECT {values_sql} FROM {DIALECT.qualify(TARGET)}")
    return decoded(rows, columns, "lake.values").read_all()


def multiset(rows: pa.Table) -> list[str]:
    """Rows in an order of their own, each as Arrow prints it: that tells -0.0 and knows every moment."""
    texts = [[str(value) for value in column.combine_chunks()] for column in rows.columns]
    return sorted(map(str, zip(*texts, strict=True)))


@pytest.mark.parametrize("insert_below", [0, 1000], ids=["by files", "by statements"])
@pytest.mark.parametrize("nested", [None, "json", "native"])
def test_values_come_back_as_they_went(connect: Connect, insert_below: int, nested: Any) -> None:
    columns, rows = columns_of(TypeOptions(nested=nested)), lake_rows()
    with new_session(SnowflakeWarehouse(connect, insert_below=insert_below)) as session:
        fill(session, columns, rows)
        found = read(session, columns)
    assert found.schema.equals(rows.schema)
    assert multiset(found) == multiset(pa.Table.from_batches([rows]))


def test_nothing_is_lost_unless_it_is_said() -> None:
    assert {column.field.name: column.holding.lost for column in columns_of() if column.holding.lost} == {}
    native = columns_of(TypeOptions(nested="native"), NESTED)
    assert {c.field.name: (c.holding.sql_type, c.holding.lost) for c in native} == {
        "list": ("ARRAY", ""),
        "map": ("ARRAY", ""),
        "map by text": ("OBJECT", "the order of a map's keys"),
        "struct": ("OBJECT", ""),
        "list of maps of structs": ("ARRAY", "the order of a map's keys"),
    }


def test_a_type_without_values_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedError, match=r"lake\.t: column x is unknown"):
        DIALECT.holding(UnknownType(), "lake.t: column x", TypeOptions())


def test_canonical_texts_are_those_of_the_model(session: SnowflakeSession) -> None:
    columns, rows = columns_of(values=PRIMITIVES), lake_rows(PRIMITIVES)
    fill(session, columns, rows)
    for column, values in zip(columns, rows.columns, strict=True):
        iceberg = column.field.field_type
        text_sql = canonical_sql(column)
        found = session.fetch(f"SELECT {text_sql} FROM {DIALECT.qualify(TARGET)}")
        expected = [canonical_model.text(iceberg, value) for value in values.to_pylist()]
        assert sorted(map(str, (text for (text,) in found))) == sorted(map(str, expected)), column.field.name


def test_floats_have_the_text_of_the_model(session: SnowflakeSession) -> None:
    """At powers of two and beside them, where a logarithm is off; the smallest, the largest, NaN."""
    powers = [2.0**e for e in (-1074, -1022, -1021, -300, -1, 0, 1, 52, 53, 300, 1023)]
    floats = [
        *powers,
        *(x * (1 + 2**-52) for x in powers if x > 1e-300),
        *(x * (1 - 2**-53) for x in powers if x > 1e-300),
        *(-0.1, 1 / 3, 1e22, 123456789.125, float("nan"), 5e-324, 1.7976931348623157e308),
    ]
    values: dict[str, tuple[IcebergType, list[Any]]] = {"f": (DoubleType(), floats)}
    columns = columns_of(values=values)
    fill(session, columns, lake_rows(values))
    text_sql = canonical_sql(columns[0])
    found = session.fetch(f'SELECT "F", {text_sql} FROM {DIALECT.qualify(TARGET)} WHERE "F" IS NOT NULL')
    expected = [(value, canonical_model.text(DoubleType(), value)) for value in [*floats, floats[0]]]
    assert sorted(map(str, found)) == sorted(map(str, expected))


def test_hash_of_rows_is_that_of_the_model(session: SnowflakeSession) -> None:
    columns, rows = columns_of(values=PRIMITIVES), lake_rows(PRIMITIVES)
    fill(session, columns, rows)
    texts_sql = " || '|' || ".join(rf"COALESCE({canonical_sql(column)}, '\\N')" for column in columns)
    sums_sql = ", ".join(f"SUM({limb_sql})" for limb_sql in DIALECT.limbs_sql("T"))
    found = session.fetch(
        f"SELECT COUNT(*), {sums_sql} FROM (SELECT {texts_sql} AS T FROM {DIALECT.qualify(TARGET)}) AS r"
    )
    types = [column.field.field_type for column in columns]
    values = zip(*(column.to_pylist() for column in rows.columns), strict=True)
    assert found == [canonical_model.rows_hash(types, values)]


def test_what_is_in_a_variant_has_no_canonical_text() -> None:
    assert [DIALECT.canonical_sql(c.field.field_type, c.holding, "x") for c in columns_of(values=NESTED)] == [
        None
    ] * len(NESTED)


def canonical_sql(column: ReplicaColumn) -> str:
    sql = DIALECT.canonical_sql(column.field.field_type, column.holding, DIALECT.quote(column.name))
    assert sql is not None
    return sql
