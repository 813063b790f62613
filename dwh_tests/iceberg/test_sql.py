import duckdb
import pytest

from dwh_assets.errors import ConfigurationError
from dwh_assets.iceberg.sql import qualified, quote_identifier, quote_text

ODD = ['say "hi"', "select", "a.b", "x'); DROP TABLE t; --", " ", "é\u202e☃", "`tick`", "%s {} ?", "a\nb\\"]


@pytest.mark.parametrize("name", ODD)
def test_a_quoted_name_is_taken_as_it_is(name: str) -> None:
    with duckdb.connect() as connection:
        connection.execute(f"CREATE SCHEMA {quote_identifier(name)}")
        connection.execute(f"CREATE TABLE {qualified(name, name)} ({quote_identifier(name)} INTEGER)")
        found = connection.execute(
            "SELECT schema_name, table_name, column_name FROM duckdb_columns() WHERE NOT internal"
        ).fetchall()
    assert found == [(name, name, name)]


@pytest.mark.parametrize("text", [*ODD, "", "it's", "''"])
def test_a_quoted_text_is_taken_as_it_is(text: str) -> None:
    assert duckdb.execute(f"SELECT {quote_text(text)}").fetchall() == [(text,)]


def test_another_quotation_mark_is_doubled_alike() -> None:
    assert quote_identifier("a`b", "`") == "`a``b`"


@pytest.mark.parametrize("name", ["", "a\0b"])
def test_what_cannot_be_a_name_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot be a name"):
        quote_identifier(name)
