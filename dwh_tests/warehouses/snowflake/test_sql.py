"""The SQL that is sent, read by sqlglot's parser of Snowflake: what the emulator does not know above all."""

import pytest
import sqlglot
from pyiceberg.types import DecimalType, IntegerType, ListType, LongType, NestedField, StringType, TimeType
from sqlglot import exp

from dwh_assets.errors import ConfigurationError
from dwh_assets.warehouses.base import Target
from dwh_assets.warehouses.dialect import ReplicaColumn, TypeOptions
from dwh_assets.warehouses.evolution import ColumnStep
from dwh_assets.warehouses.session import Layout, Purpose
from dwh_assets.warehouses.snowflake.dialect import SnowflakeDialect
from dwh_assets.warehouses.snowflake.external import (
    ExternalFiles,
    create_external_sql,
    refresh_external_sql,
)
from dwh_assets.warehouses.snowflake.few_rows import insert_sql
from dwh_assets.warehouses.snowflake.literals import quote_literal
from dwh_assets.warehouses.snowflake.staged_files import copy_sql
from dwh_assets.warehouses.snowflake.statements import query_tag
from dwh_assets.warehouses.snowflake.tables_sql import alter_sql, copy_table_sql, create_sql, supplant_sql

DIALECT = SnowflakeDialect()
HERE = Target("LAKE", "SALES", 'OR"DERS')


def column(
    number: int, name: str, iceberg: object, *, required: bool = False, doc: str = ""
) -> ReplicaColumn:
    field = NestedField(number, name, iceberg, required=required, doc=doc)  # type: ignore[arg-type]
    holding = DIALECT.holding(field.field_type, name, TypeOptions())
    return ReplicaColumn(field, DIALECT.name(name), holding)


COLUMNS = [
    column(1, "id", LongType(), required=True, doc="it's a \\ key"),
    column(2, "Paid at", TimeType()),
    column(3, "tags", ListType(4, StringType(), False)),
]


def parsed(sql: str) -> exp.Expr:
    """A statement that sqlglot understands, not one that it passes on unread."""
    found = sqlglot.parse_one(sql, read="snowflake")
    assert not isinstance(found, exp.Command), sql
    return found


def test_names_are_in_capitals_where_that_spares_the_quotes() -> None:
    assert [
        DIALECT.name(name) for name in ("id", "Amount_2$", "paid at", "größe", "2nd", 'a"b', "select")
    ] == [
        "ID",
        "AMOUNT_2$",
        "paid at",
        "größe",
        "2nd",
        'a"b',
        "SELECT",
    ]


@pytest.mark.parametrize(
    ("into", "target"),
    [
        ("sales.orders", Target("", "SALES", "ORDERS")),
        ("Lake.sales.orders", Target("LAKE", "SALES", "ORDERS")),
        ('"Lake".sales."my.""table"', Target("Lake", "SALES", 'my."table')),
    ],
)
def test_into_is_folded_as_snowflake_folds_it(into: str, target: Target) -> None:
    assert DIALECT.target(into) == target
    assert DIALECT.state_table(target) == target._replace(name="_DWH_REPLICAS")


@pytest.mark.parametrize("into", ["orders", "a.b.c.d", "", "a..b", "s." + "x" * 256])
def test_an_into_that_says_no_place_is_refused(into: str) -> None:
    with pytest.raises(ConfigurationError, match="`into` is"):
        DIALECT.target(into)


def test_a_literal_cannot_be_left() -> None:
    for text in ("plain", "it's", "\\", "\\'", "'; DROP TABLE t; --", "a\\\\'b"):
        (found,) = parsed(f"SELECT {quote_literal(text)}").expressions
        assert (found.is_string, found.name) == (True, text)


def test_create_table() -> None:
    layout = Layout(cluster_by=("id", "Paid at"), partition_by="Paid at")
    sql = create_sql(DIALECT, HERE, COLUMNS, layout, "refuse")
    assert sql == (
        'CREATE TABLE "LAKE"."SALES"."OR""DERS" ("ID" NUMBER(19, 0) NOT NULL'
        ' COMMENT \'it\\\'s a \\\\ key\', "Paid at" TIME(6), "TAGS" VARIANT)'
        ' CLUSTER BY ("Paid at", "ID")'
    )
    found = parsed(sql)
    assert [one.name for one in found.find_all(exp.ColumnDef)] == ["ID", "Paid at", "TAGS"]
    assert found.find(exp.NotNullColumnConstraint)
    assert create_sql(DIALECT, HERE, COLUMNS, Layout(), "replace").startswith("CREATE OR REPLACE TABLE ")
    assert create_sql(DIALECT, HERE, COLUMNS, Layout(), "keep").startswith("CREATE TABLE IF NOT EXISTS ")


@pytest.mark.parametrize(
    ("step", "change"),
    [
        (ColumnStep("add", "TAGS", COLUMNS[2]), 'ADD COLUMN IF NOT EXISTS "TAGS" VARIANT'),
        (ColumnStep("drop", "Paid at"), 'DROP COLUMN IF EXISTS "Paid at"'),
        (ColumnStep("rename", "NO", COLUMNS[0]), 'RENAME COLUMN "NO" TO "ID"'),
        (ColumnStep("widen", "ID", COLUMNS[0]), 'ALTER COLUMN "ID" SET DATA TYPE NUMBER(19, 0)'),
        (ColumnStep("relax", "ID", COLUMNS[0]), 'ALTER COLUMN "ID" DROP NOT NULL'),
    ],
)
def test_alter_table(step: ColumnStep, change: str) -> None:
    sql = alter_sql(DIALECT, HERE, step)
    assert sql == f'ALTER TABLE "LAKE"."SALES"."OR""DERS" {change}'
    parsed(sql)


def test_supplant_keeps_the_grants_and_copies_no_rows() -> None:
    staging = HERE.beside("_DWH_STAGING_1")
    sql = supplant_sql(DIALECT, HERE, staging)
    assert sql == (
        'CREATE OR REPLACE TABLE "LAKE"."SALES"."OR""DERS" CLONE "LAKE"."SALES"."_DWH_STAGING_1" COPY GRANTS'
    )
    # sqlglot knows COPY GRANTS, though not behind CLONE, where the service wants it.
    found = parsed(sql.removesuffix(" COPY GRANTS"))
    clone = found.find(exp.Clone)
    assert found.args["replace"]
    assert clone
    assert clone.this.name == "_DWH_STAGING_1"
    assert parsed(copy_table_sql(DIALECT, HERE, staging)).find(exp.CopyGrantsProperty)


def test_copy_from_a_stage() -> None:
    sql = copy_sql(DIALECT, HERE, COLUMNS, '@"LAKE"."SALES"."_DWH_STAGE_1"/7/')
    assert sql == (
        'COPY INTO "LAKE"."SALES"."OR""DERS" ("ID", "Paid at", "TAGS") FROM'
        " (SELECT CAST($1:c0 AS NUMBER(19, 0)), CAST($1:c1 AS TIME(6)),"
        ' PARSE_JSON(CAST($1:c2 AS VARCHAR)) FROM @"LAKE"."SALES"."_DWH_STAGE_1"/7/)'
        " FILE_FORMAT = (TYPE = PARQUET USE_LOGICAL_TYPE = TRUE BINARY_AS_TEXT = FALSE) PURGE = TRUE"
    )
    assert isinstance(parsed(sql), exp.Copy)


def test_insert_of_a_few_rows_has_one_parameter() -> None:
    columns = [*COLUMNS, column(9, "price", DecimalType(10, 2)), column(10, "n", IntegerType())]
    found = parsed(insert_sql(DIALECT, HERE, columns))
    assert isinstance(found, exp.Insert)
    assert len(list(found.find_all(exp.Placeholder))) == 1


FILES = ExternalFiles("LAKE_VOLUME", "LAKE_FILES", "s3://bucket/lake")
METADATA = "s3://bucket/lake/sales/orders/metadata/00007-a'b.metadata.json"


def test_external_table_is_made_and_shown_another_file() -> None:
    assert create_external_sql(DIALECT, HERE, FILES, METADATA) == (
        'CREATE OR REPLACE ICEBERG TABLE "LAKE"."SALES"."OR""DERS"'
        " EXTERNAL_VOLUME = 'LAKE_VOLUME' CATALOG = 'LAKE_FILES'"
        " METADATA_FILE_PATH = 'sales/orders/metadata/00007-a\\'b.metadata.json'"
    )
    assert refresh_external_sql(DIALECT, HERE, FILES, METADATA) == (
        'ALTER ICEBERG TABLE "LAKE"."SALES"."OR""DERS"'
        " REFRESH 'sales/orders/metadata/00007-a\\'b.metadata.json'"
    )
    with pytest.raises(ConfigurationError, match="is not below s3://bucket/lake/"):
        create_external_sql(DIALECT, HERE, FILES, "s3://bucket/lakeside/v1.metadata.json")


def test_query_tag_says_table_and_run() -> None:
    said = '{"application": "dwh_assets", "table": "sales.orders", "run": "r-1"}'
    assert query_tag(Purpose("sales.orders", "r-1")) == said
    assert (
        query_tag(Purpose("sales.orders", None)) == '{"application": "dwh_assets", "table": "sales.orders"}'
    )
    assert len(query_tag(Purpose("x" * 5000, None))) == 2000
