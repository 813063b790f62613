"""What a declared expression may say: DuckDB itself tells what it means, and a list what is refused."""

from __future__ import annotations

from typing import Any

import duckdb
import pyarrow as pa
import pytest
from pyiceberg.types import LongType, NestedField, StringType, StructType

from dwh_assets.errors import ConfigurationError
from dwh_assets.iceberg.modes.merge_conditions import Column, Scope, assignable, compile_expression

ADDRESS = StructType(NestedField(8, "city", StringType()), NestedField(9, "Zip Code", LongType()))
SOURCE = {
    "id": Column('source."column_1"', LongType()),
    "Name": Column('source."column_2"', StringType()),
    "at": Column('source."column_3"', None),
    "place": Column('source."column_4"', ADDRESS),
}
TARGET = {
    "id": Column('target."column_1"', LongType()),
    "v": Column('target."column_5"', LongType()),
    "V": Column('target."column_6"', LongType()),
    "source": Column('target."column_7"', LongType()),
}
SCOPE = Scope("shop.orders: merge clause 1, if", {"source": SOURCE, "target": TARGET})

EXPRESSIONS = """
abs(-1) | sign(-2) | round(1.234, 2) | round(2.5) | ceil(1.2) | floor(-1.2) | trunc(1.7) | sqrt(4)
pow(2, 3) | 2 ** 3 | 2 ^ 3 | 7 // 2 | -7 // 2 | 7 % 3 | mod(-7, 3) | 7 / 2 | 1 - 2 - 3 | 1 - (2 - 3)
-(-1) | - 2 ** 2 | exp(1) | ln(2) | isnan('nan'::DOUBLE) | isinf(1::DOUBLE) | greatest(1, 2, NULL)
least(1, 2) | lower('AÜ') | upper('a') | trim(' a ') | ltrim('..a', '.') | rtrim('a..', '.')
length('äb') | len('ab') | substring('abc', 2, 1) | substr('abc', 2) | left('abc', 1) | right('abc', -1)
reverse('ab') | concat('a', NULL, 'b') | concat_ws('-', 'a', NULL, 'b') | 'a' || 'b' | 'a' || NULL
replace('abc', 'b', 'x') | starts_with('ab', 'a') | ends_with('ab', 'b') | contains('ab', 'b')
strpos('ab', 'b') | instr('ab', 'b') | regexp_matches('ab', '^a') | regexp_replace('aab', 'a', 'x')
regexp_replace('aab', 'a', 'x', 'g') | md5('a') | sha256('a') | hex('a') | strip_accents('é')
year(DATE '2024-02-03') | month(DATE '2024-02-03') | day(DATE '2024-02-03')
last_day(DATE '2024-02-03') | extract(hour FROM TIMESTAMP '2024-01-01 05:00:00')
date_trunc('month', TIMESTAMP '2024-02-03 04:05:06')
date_diff('day', DATE '2024-01-01', DATE '2024-01-05') | strftime(DATE '2024-01-02', '%Y/%m')
DATE '2024-01-31' + INTERVAL 1 MONTH | TIMESTAMP '2024-01-01 00:00:00' - INTERVAL '2' HOUR
epoch_us(TIMESTAMP '2024-01-01') | TIMESTAMPTZ '2024-01-01 00:00:00+02' | CAST('2024-01-01' AS DATE)
TRY_CAST('x' AS INTEGER) | 1::DECIMAL(10, 2) | '12'::BIGINT | 1.5::FLOAT | 'abc'::VARCHAR | 'abc'::BLOB
TRUE | NULL | NOT NULL | 1e3 | 9223372036854775807 | 'it''s' | 1 IS NOT DISTINCT FROM NULL
1 IS DISTINCT FROM 2 | NULL IS NULL | 1 IS NOT NULL | 1 IN (1, 2) | 1 NOT IN (1, NULL)
5 BETWEEN 1 AND 6 | 5 NOT BETWEEN 1 AND 6 | 'abc' LIKE 'a%' | 'a%' LIKE 'a!%' ESCAPE '!'
'ABC' ILIKE 'a%' | 'a' NOT LIKE 'b' | CASE 1 WHEN 1 THEN 2 ELSE 3 END | CASE WHEN FALSE THEN 2 END
if(TRUE, 1, 2) | coalesce(NULL, 1) | ifnull(NULL, 3) | nullif(1, 1) | TRUE OR FALSE AND FALSE
(TRUE OR FALSE) AND FALSE | NOT TRUE = FALSE | 1 < 2 AND 2 <= 2 AND 1 <> 2 AND 1 != 2
"""


def _expressions() -> list[str]:
    return [part.strip() for line in EXPRESSIONS.strip().splitlines() for part in line.split(" | ")]


@pytest.fixture(scope="module")
def connection() -> Any:
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        yield connection


@pytest.mark.parametrize("text", _expressions())
def test_what_is_allowed_means_what_duckdb_says(connection: duckdb.DuckDBPyConnection, text: str) -> None:
    compiled = compile_expression(text, SCOPE)
    ours, theirs = (connection.execute(f"SELECT {sql} AS x").to_arrow_table() for sql in (compiled.sql, text))
    assert ours.equals(theirs)


@pytest.mark.parametrize(
    "text",
    [
        "(SELECT 1)", "SELECT 1", "EXISTS (SELECT 1)", "id IN (SELECT 1)", "id = ANY (SELECT 1)",
        "id IN (FROM x)", "read_text('/etc/passwd')", "read_csv('x') = 1",
        "source.id = (FROM '/etc/passwd')", "getenv('HOME')", "current_setting('home_directory')",
        "nextval('x')", "getvariable('x')", "random() < 0.5", "uuid()", "count(*)", "sum(source.id)",
        "row_number() OVER ()", "lag(source.id) OVER (ORDER BY 1)", "unnest([1])",
        "list_transform([1], x -> x)", "[1, 2]", "{'a': 1}", "source.id::JSON", "source.id::my_type",
        "source.id::ENUM('a')", "'{}'->>'a'", "source.*", "*", "$1", "?", "source.id AS x",
        "1; DROP TABLE x", "DROP TABLE source", "COPY source TO 'x'", "ATTACH 'x'", "INSTALL httpfs",
        "LOAD 'x'", "PRAGMA version", "SET x = 1", "CALL x()", "x'00", "", " ", "source.id =", "(" * 5000,
        "1 +" * 5000 + "1", "-- nothing", "source.Name COLLATE nocase",
        "source.Name::VARCHAR COLLATE nocase", "version()", "repeat('x', 1000000000)", "source.id.lower()",
        "sleep(1)", "query('x')", "COLUMNS('x')", "error('x')", "lambda x: x", "VALUES (1)",
    ],
)  # fmt: skip
def test_what_sees_more_than_its_columns_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"shop\.orders: merge clause 1, if") as raised:
        compile_expression(text, SCOPE)
    assert raised.value.remedy


@pytest.mark.parametrize(
    ("text", "sql"),
    [
        ("source.id = target.id", 'source."column_1" = target."column_1"'),
        ("SOURCE.ID > Target.v", 'source."column_1" > target."column_5"'),
        ('target."V" = target.v', 'target."column_6" = target."column_5"'),
        ("name = 'x'", "source.\"column_2\" = 'x'"),
        ("target.source = 1", 'target."column_7" = 1'),
        ("source.place.city = 'x'", 'source."column_4"."city" = \'x\''),
        ('place."Zip Code" = 1', 'source."column_4"."Zip Code" = 1'),
        ("at IS NULL /* ; */ -- x", 'source."column_3" IS NULL'),
    ],
)
def test_names_become_the_internal_ones(text: str, sql: str) -> None:
    assert compile_expression(text, SCOPE).sql == sql


@pytest.mark.parametrize(
    ("text", "problem", "remedy"),
    [
        ("id = 1", "column 'id' is ambiguous: source.id or target.id", "Write which"),
        ("nope = 1", "no column 'nope' in source or target", "source has id, Name, at, place"),
        ("source.v = 1", "no column 'v' in source", "source has"),
        ('source."name" = 1', "no column 'name' in source", "source has"),
        ("other.id = 1", "no column 'other'", "Correct it"),
        ("source.id.x = 1", "source.id has no field 'x'", "not a struct"),
        ("source.place.town = 1", "source.place has no field 'town'", "It has city, Zip Code"),
        ("source.a.b.c.d = 1", "goes too deep", "three levels"),
    ],
)
def test_wrong_names_are_told(text: str, problem: str, remedy: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        compile_expression(text, SCOPE)
    assert problem in raised.value.message
    assert remedy in raised.value.remedy


def test_only_rows_that_are_there_may_be_named() -> None:
    scope = Scope("t: merge clause 2", {"source": SOURCE})
    assert compile_expression("id = 1", scope).reads == {"source": {"id"}, "target": frozenset()}
    with pytest.raises(ConfigurationError, match="there is no row of target here"):
        compile_expression("target.id = 1", scope)


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("source.id = target.v", [("id", "v")]),
        ("(target.v = source.id) AND (source.at = target.id AND source.id > 1)", [("id", "v"), ("at", "id")]),
        ("source.id = target.id OR source.at = 1", []),
        ("NOT (source.id = target.id)", []),
        ("source.id + 1 = target.id", []),
        ("target.id = target.v", []),
        ("source.place.city = target.v", []),
    ],
)
def test_equalities_that_always_hold_are_found(text: str, pairs: list[tuple[str, str]]) -> None:
    assert list(compile_expression(text, SCOPE).equalities) == pairs


@pytest.mark.parametrize(
    ("found", "wanted", "fits"),
    [
        ("INTEGER", "BIGINT", True), ("HUGEINT", "INTEGER", True), ("INTEGER", "DECIMAL(10,2)", True),
        ("DECIMAL(11,2)", "DECIMAL(10,2)", True), ("DECIMAL(10,3)", "DECIMAL(10,2)", False),
        ("DECIMAL(2,1)", "DOUBLE", True), ("DOUBLE", "DECIMAL(2,1)", False), ("DOUBLE", "BIGINT", False),
        ("DATE", "TIMESTAMP", True), ("TIMESTAMP", "DATE", False),
        ("TIMESTAMP", "TIMESTAMP WITH TIME ZONE", False), ("VARCHAR", "DATE", False),
        ("BIGINT", "VARCHAR", False), ("NULL", "UUID", True), ("BOOLEAN", "BOOLEAN", True),
    ],
)  # fmt: skip
def test_only_values_that_stay_what_they_are_are_assigned(found: str, wanted: str, fits: bool) -> None:
    assert assignable(found, wanted) is fits


def test_duckdb_names_types_as_we_expect() -> None:
    """`assignable` reads DuckDB's own names of types."""
    columns = {"d": pa.array([1], pa.decimal128(10, 2)), "f": pa.array([1.0], pa.float32())}
    with duckdb.connect() as connection:
        connection.register("t", pa.table(columns))
        described = connection.execute(
            "DESCRIBE SELECT d, d + d AS e, f - 0.0 AS f, 1 AS i FROM t"
        ).fetchall()
    assert [row[1] for row in described] == ["DECIMAL(10,2)", "DECIMAL(11,2)", "FLOAT", "INTEGER"]
