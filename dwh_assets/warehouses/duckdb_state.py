"""`main._dwh_replicas`: which version each replica in a DuckDB database holds, written with its rows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from dwh_assets.warehouses.base import ReplicaState
from dwh_assets.warehouses.duckdb_connection import Transaction

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_CREATE = """
    CREATE TABLE IF NOT EXISTS main._dwh_replicas (
        schema_name VARCHAR NOT NULL,
        table_name VARCHAR NOT NULL,
        iceberg_table VARCHAR NOT NULL,
        table_uuid VARCHAR NOT NULL,
        snapshot_id BIGINT,
        logical_snapshot_id BIGINT,
        schema_id INTEGER NOT NULL,
        row_count BIGINT NOT NULL,
        synced_at TIMESTAMP WITH TIME ZONE NOT NULL,
        run_id VARCHAR
    )
"""
# Names are compared as DuckDB compares identifiers: NYC.Flights is nyc.flights.
_READ = """
    SELECT iceberg_table, table_uuid, snapshot_id, logical_snapshot_id, schema_id, row_count,
        epoch_us(synced_at), run_id
    FROM main._dwh_replicas WHERE lower(schema_name) = lower(?) AND lower(table_name) = lower(?)
"""
_LIST = "SELECT schema_name, table_name, iceberg_table FROM main._dwh_replicas ORDER BY ALL"
_DELETE = """
    DELETE FROM main._dwh_replicas WHERE lower(schema_name) = lower(?) AND lower(table_name) = lower(?)
"""
_INSERT = "INSERT INTO main._dwh_replicas VALUES (?, ?, ?, ?, ?, ?, ?, ?, make_timestamptz(?), ?)"
_EXISTS = """
    SELECT count(*) FROM information_schema.tables
    WHERE table_catalog = current_database()
        AND lower(table_schema) = lower(?) AND lower(table_name) = lower(?)
"""


def exists(transaction: Transaction, schema: str, table: str) -> bool:
    """Tell whether a table or view of that name is in the database."""
    found = transaction.execute(_EXISTS, schema, table).fetchone()
    return bool(found and found[0])


def read_state(transaction: Transaction, schema: str, table: str) -> ReplicaState | None:
    """Return what is recorded about the replica `schema.table`; None when it is no replica."""
    if not exists(transaction, "main", "_dwh_replicas"):
        return None
    row = transaction.execute(_READ, schema, table).fetchone()
    if row is None:
        return None
    lake_table, table_uuid, snapshot_id, logical_id, schema_id, rows, microseconds, run_id = row
    synced_at = _EPOCH + timedelta(microseconds=microseconds)
    return ReplicaState(lake_table, table_uuid, snapshot_id, logical_id, schema_id, rows, synced_at, run_id)


def read_targets(transaction: Transaction) -> list[tuple[str, str, str]]:
    """Return the schema and the name of every replica, and the lake's table that it copies."""
    if not exists(transaction, "main", "_dwh_replicas"):
        return []
    return transaction.execute(_LIST).fetchall()


def write_state(transaction: Transaction, schema: str, table: str, state: ReplicaState) -> None:
    """Record what the replica holds, in place of what was recorded before."""
    transaction.execute(_CREATE)
    delete_state(transaction, schema, table)
    transaction.execute(
        _INSERT,
        schema,
        table,
        state.table,
        state.table_uuid,
        state.snapshot_id,
        state.logical_snapshot_id,
        state.schema_id,
        state.rows,
        (state.synced_at - _EPOCH) // timedelta(microseconds=1),
        state.run_id,
    )


def delete_state(transaction: Transaction, schema: str, table: str) -> None:
    """Forget the replica."""
    transaction.execute(_DELETE, schema, table)
