"""Put all rows of a table into DuckDB in place of what was there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import duckdb

from dwh_assets.iceberg.sql import qualified, quote_identifier, quote_text
from dwh_assets.warehouses.arriving import Arriving
from dwh_assets.warehouses.duckdb_columns import columns_sql, comments
from dwh_assets.warehouses.duckdb_connection import Transaction
from dwh_assets.warehouses.source import Source


def load(transaction: Transaction, schema: str, name: str, source: Source, arriving: Arriving) -> None:
    """Make `schema.name` a table with the columns and rows of `source`, inside the transaction.

    The table is replaced, not emptied and filled: others in this process read the old one until the commit
    and never wait; a second sync of it fails at once instead of at its end; a new column needs no other
    path; and the file does not keep deleted rows beside the new ones. (DELETE and INSERT take as long.)
    """
    definition_sql = columns_sql(source.schema, source.name)
    table_sql = qualified(schema, name)
    transaction.execute(f"CREATE SCHEMA IF NOT EXISTS {quote_identifier(schema)}")
    transaction.execute(f"CREATE OR REPLACE TABLE {table_sql} ({definition_sql})")
    for column, text in comments(source.schema):
        transaction.execute(f"COMMENT ON COLUMN {table_sql}.{quote_identifier(column)} IS {quote_text(text)}")
    for stream in source.streams():
        transaction.connection.register("_dwh_arriving", arriving.counted(stream))
        _insert(
            transaction, f"INSERT INTO {table_sql} BY NAME SELECT * FROM temp.main._dwh_arriving", arriving
        )


def _insert(transaction: Transaction, insert_sql: str, arriving: Arriving) -> None:
    try:
        transaction.execute(insert_sql)
    except duckdb.Error:
        if arriving.failure:
            raise arriving.failure from None
        raise


@contextmanager
def rows_in_any_order(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Let DuckDB write the rows of an INSERT as they come.

    A load is then twice as fast and holds half as much memory, and its row groups go to the file once:
    in order, those of a parallel insert are written again at the next checkpoint. The setting belongs to
    the database, not to the connection, so it is put back.
    """
    found = connection.execute("SELECT current_setting('preserve_insertion_order')").fetchone()
    connection.execute("SET preserve_insertion_order = false")
    try:
        yield
    finally:
        if found and found[0]:
            connection.execute("SET preserve_insertion_order = true")
