"""Names, limits and statements, checked by sqlglot's parser where only the real service runs them."""

from collections.abc import Sequence

import pytest
import sqlglot
from pyiceberg.types import (
    BinaryType,
    DateType,
    DecimalType,
    DoubleType,
    IcebergType,
    ListType,
    LongType,
    MapType,
    NestedField,
    StringType,
    StructType,
    TimestampNanoType,
    TimestampType,
    TimestamptzType,
    TimeType,
    UUIDType,
)
from sqlglot import exp

from dwh_assets.errors import ConfigurationError, UnsupportedError
from dwh_assets.warehouses.base import Target
from dwh_assets.warehouses.bigquery.definitions import (
    alter_table_sql,
    create_table_sql,
    external_table_sql,
    quote_text,
)
from dwh_assets.warehouses.bigquery.queries import bind, job_labels
from dwh_assets.warehouses.dialect import TypeOptions
from dwh_assets.warehouses.evolution import ColumnStep
from dwh_assets.warehouses.session import Layout, Purpose
from dwh_tests.warehouses.bigquery.columns import DIALECT, ID, ITEM, ORDERS, column_of, columns_of

TARGET = Target("my-project", "sales", "orders")
STAGING = Target("my-project", "sales", "_dwh_staging_orders_rows_1")


def parse(sql: str) -> exp.Expr:
    """The one statement that the text is, as BigQuery's grammar has it."""
    (statement,) = sqlglot.parse(sql, dialect="bigquery")
    assert statement is not None
    assert not isinstance(statement, exp.Command), "sqlglot did not understand it"
    return statement


@pytest.mark.parametrize(
    ("into", "target"),
    [
        ("sales.orders", Target("", "sales", "orders")),
        ("my-project.sales.orders", Target("my-project", "sales", "orders")),
        ('"example.com:shop".sales."big orders"', Target("example.com:shop", "sales", "big orders")),
    ],
)
def test_target_has_two_parts_or_three(into: str, target: Target) -> None:
    assert DIALECT.target(into) == target


@pytest.mark.parametrize(
    "into",
    [
        "orders",
        "a.b.c.d",
        "sales.`orders`",
        "sales.or\\ders",
        "sa-les.orders",
        'sales."a.b"',
        "sales.x;y",
        "",
    ],
)
def test_target_that_bigquery_does_not_take_is_refused(into: str) -> None:
    with pytest.raises(ConfigurationError):
        DIALECT.target(into)


@pytest.mark.parametrize("name", ["id", "Größe", "a b", "a-b", "select", "x" * 300, "a%b&c=d+e:f'g<h>i#j|k"])
def test_name_of_a_column_is_kept(name: str) -> None:
    assert DIALECT.name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "a.b",
        "a`b",
        "a\\b",
        'a"b',
        "a;b",
        "a(b",
        "a\nb",
        "_TABLE_x",
        "_Partitiontime",
        "_file_",
        "x" * 301,
        "",
    ],
)
def test_name_of_a_column_that_bigquery_does_not_take_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="BigQuery"):
        DIALECT.name(name)


@pytest.mark.parametrize("name", ["a`b", "a\\", "a\nb", ""])
def test_quote_refuses_what_would_end_the_name(name: str) -> None:
    with pytest.raises(ConfigurationError):
        DIALECT.quote(name)


@pytest.mark.parametrize("text", ["it's", "a\\", "\\' OR 1=1 --", 'say "x"', "line\nend\r", "日本語"])
def test_text_is_quoted_such_that_it_reads_back(text: str) -> None:
    literal = parse(f"SELECT {quote_text(text)}").find(exp.Literal)
    assert literal is not None
    assert literal.this == text


def test_state_is_in_the_dataset_of_the_target() -> None:
    assert DIALECT.state_table(TARGET) == Target("my-project", "sales", "_dwh_replicas")


@pytest.mark.parametrize(
    ("iceberg", "declared"),
    [
        (DecimalType(38, 9), "NUMERIC"),
        (DecimalType(29, 0), "NUMERIC"),
        (DecimalType(30, 0), "BIGNUMERIC"),
        (DecimalType(10, 10), "BIGNUMERIC"),
        (DecimalType(38, 38), "BIGNUMERIC"),
        (TimestampType(), "DATETIME"),
        (TimestamptzType(), "TIMESTAMP"),
        (TimeType(), "TIME"),
        (UUIDType(), "STRING"),
        (BinaryType(), "BYTES"),
        (DoubleType(), "FLOAT64"),
        (ListType(2, StringType(), element_required=False), "JSON"),
    ],
)
def test_types_are_those_that_hold_all_values(iceberg: IcebergType, declared: str) -> None:
    holding = column_of(iceberg).holding
    assert (holding.sql_type, holding.lost) == (declared, "")


MAP = MapType(2, StringType(), 3, LongType(), value_required=False)
STRUCT = StructType(NestedField(2, "x", DecimalType(40 - 2, 0)), NestedField(3, "m", MAP, required=True))


@pytest.mark.parametrize(
    ("iceberg", "declared", "loses"),
    [
        (ListType(2, UUIDType(), element_required=False), "ARRAY<STRING>", True),
        (MAP, "ARRAY<STRUCT<`key` STRING, `value` INT64>>", True),
        (STRUCT, "STRUCT<`x` BIGNUMERIC, `m` ARRAY<STRUCT<`key` STRING, `value` INT64>>>", False),
    ],
)
def test_native_nested_types_say_what_is_lost(iceberg: IcebergType, declared: str, loses: bool) -> None:
    holding = column_of(iceberg, TypeOptions(nested="native")).holding
    assert holding.sql_type == declared
    assert bool(holding.lost) is loses
    parse(f"CREATE TABLE `t` (`value` {holding.sql_type})")


def test_array_of_arrays_is_refused_with_the_column() -> None:
    nested = ListType(2, ListType(3, LongType(), element_required=False), element_required=False)
    with pytest.raises(UnsupportedError, match=r"sales\.orders: column value\.element.*json"):
        column_of(nested, TypeOptions(nested="native"))


def test_nanoseconds_are_refused_until_somebody_chooses() -> None:
    with pytest.raises(UnsupportedError, match=r"sales\.orders: column value.*truncate, or text"):
        column_of(TimestampNanoType())
    assert column_of(TimestampNanoType(), TypeOptions(nanoseconds="text")).holding.sql_type == "STRING"
    truncated = column_of(TimestampNanoType(), TypeOptions(nanoseconds="truncate")).holding
    assert (truncated.sql_type, bool(truncated.lost)) == ("DATETIME", True)


def test_more_columns_than_bigquery_has_are_refused() -> None:
    fields = [NestedField(n, f"c{n}", LongType(), required=False) for n in range(1, 10_002)]
    with pytest.raises(UnsupportedError, match="10,001 columns"):
        columns_of(*fields)


@pytest.mark.parametrize("field", [ID, ITEM, NestedField(3, "l", ListType(4, LongType()), required=True)])
def test_correlated_delete_has_one_equality_of_both_sides(field: NestedField) -> None:
    same_sql = DIALECT.same_sql("`_dwh_0`", "`x`", field)
    where = parse(f"DELETE FROM `t` WHERE EXISTS (SELECT 1 FROM `s` WHERE {same_sql})").find(exp.Exists)
    assert where is not None
    condition = where.this.args["where"].this
    # What BigQuery joins by hash: one side of each table, and neither OR nor IS NOT DISTINCT FROM.
    assert isinstance(condition, exp.EQ)
    assert {column.name for column in condition.left.find_all(exp.Column)} == {"_dwh_0"}
    assert {column.name for column in condition.right.find_all(exp.Column)} == {"x"}


def test_staging_table_expires_and_a_replica_does_not() -> None:
    staging = create_table_sql(STAGING, ORDERS, Layout(), existing="replace", expires=True)
    replica = create_table_sql(TARGET, ORDERS, Layout(), existing="refuse", expires=False)
    assert staging == (
        "CREATE OR REPLACE TABLE `my-project`.`sales`.`_dwh_staging_orders_rows_1`"
        " (`id` INT64 NOT NULL, `item` STRING)"
        " OPTIONS (expiration_timestamp = TIMESTAMP_ADD(CURRENT_TIMESTAMP(), INTERVAL 24 HOUR))"
    )
    assert replica == "CREATE TABLE `my-project`.`sales`.`orders` (`id` INT64 NOT NULL, `item` STRING)"
    parse(staging)
    parse(replica)


DAY = NestedField(3, "day", DateType(), required=False, doc="it's the day\nof \\ sale")
AT = NestedField(4, "at", TimestamptzType(), required=False)
LOCAL = NestedField(5, "local", TimestampType(), required=False)


@pytest.mark.parametrize(
    ("column", "grain", "clause"),
    [
        ("day", None, "PARTITION BY `day`"),
        ("DAY", "month", "PARTITION BY DATE_TRUNC(`day`, MONTH)"),
        ("at", None, "PARTITION BY TIMESTAMP_TRUNC(`at`, DAY)"),
        ("at", "hour", "PARTITION BY TIMESTAMP_TRUNC(`at`, HOUR)"),
        ("local", "year", "PARTITION BY DATETIME_TRUNC(`local`, YEAR)"),
    ],
)
def test_layout_partitions_and_clusters(column: str, grain: str | None, clause: str) -> None:
    layout = Layout(partition_by=column, partition_grain=grain, cluster_by=("item", "id"))
    sql = create_table_sql(
        TARGET, columns_of(ID, ITEM, DAY, AT, LOCAL), layout, existing="keep", expires=False
    )
    assert sql.endswith(f" {clause} CLUSTER BY `item`, `id`")
    assert sql.startswith("CREATE TABLE IF NOT EXISTS ")
    parse(sql)


@pytest.mark.parametrize(
    ("layout", "said"),
    [
        (Layout(partition_by="item"), "item, which is STRING"),
        (Layout(partition_by="day", partition_grain="hour"), "hour of day"),
        (Layout(partition_by="day", partition_grain="week"), "week of day"),
        (Layout(partition_by="when"), "'when'"),
        (Layout(cluster_by=("id", "item", "day", "at", "local")), "5 columns"),
        (Layout(cluster_by=("size",)), "size, which is FLOAT64"),
    ],
)
def test_layout_that_bigquery_does_not_have_is_refused(layout: Layout, said: str) -> None:
    columns = columns_of(ID, ITEM, DAY, AT, LOCAL, NestedField(6, "size", DoubleType(), required=False))
    with pytest.raises(ConfigurationError, match=said):
        create_table_sql(TARGET, columns, layout, existing="keep", expires=False)


@pytest.mark.parametrize(
    ("step", "change"),
    [
        (ColumnStep("add", "item", ORDERS[1]), "ADD COLUMN IF NOT EXISTS `item` STRING"),
        (ColumnStep("rename", "thing", ORDERS[1]), "RENAME COLUMN `thing` TO `item`"),
        (ColumnStep("widen", "id", ORDERS[0]), "ALTER COLUMN `id` SET DATA TYPE INT64"),
        (ColumnStep("relax", "id", ORDERS[0]), "ALTER COLUMN `id` DROP NOT NULL"),
        (ColumnStep("drop", "id"), "DROP COLUMN IF EXISTS `id`"),
    ],
)
def test_steps_alter_one_column(step: ColumnStep, change: str) -> None:
    sql = alter_table_sql(TARGET, step)
    assert sql == f"ALTER TABLE `my-project`.`sales`.`orders` {change}"
    parse(sql)


@pytest.mark.parametrize("connection", [None, "my-project.eu.lake"])
def test_external_table_reads_a_metadata_file(connection: str | None) -> None:
    location = "gs://lake/sales/orders/metadata/00007-abc.metadata.json"
    sql = external_table_sql(TARGET, location, connection)
    with_connection = f" WITH CONNECTION `{connection}`" if connection else ""
    assert sql == (
        f"CREATE OR REPLACE EXTERNAL TABLE `my-project`.`sales`.`orders`{with_connection}"
        f" OPTIONS (format = 'ICEBERG', uris = ['{location}'])"
    )
    if connection is None:  # sqlglot does not know WITH CONNECTION here
        assert isinstance(parse(sql), exp.Create)


def test_external_table_off_google_cloud_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"s3://lake.*gs://"):
        external_table_sql(TARGET, "s3://lake/metadata/1.json")


@pytest.mark.parametrize(
    ("sql", "values", "bound", "left"),
    [
        ("SELECT ?", [None], "SELECT NULL", []),
        ("SELECT ?, ?, ?", [1, None, "x"], "SELECT ?, NULL, ?", [1, "x"]),
        ("SELECT '?', \"?\", `?`, 'it\\'s ?', ?", [None], "SELECT '?', \"?\", `?`, 'it\\'s ?', NULL", []),
    ],
)
def test_null_is_written_and_other_values_are_bound(
    sql: str, values: Sequence[object], bound: str, left: Sequence[object]
) -> None:
    statement, parameters = bind(sql, values)
    assert statement == bound
    assert [parameter.value for parameter in parameters] == left


def test_value_of_no_known_type_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="object"):
        bind("SELECT ?", [object()])


def test_labels_are_such_as_bigquery_takes() -> None:
    purpose = Purpose("Sales.Orders of " + "x" * 99, "RUN-1")
    labels = job_labels(purpose)
    assert labels["dwh_table"] == ("sales_orders_of_" + "x" * 99)[:63]
    assert labels["dwh_run"] == "run-1"
    assert "dwh_run" not in job_labels(Purpose("t", None))
