"""Records of replicas as the first release wrote them: brought into the present form, once."""

from __future__ import annotations

import duckdb

_COLUMNS = "SELECT * FROM main._dwh_replicas LIMIT 0"
# These records say nothing of the columns, so they only tell that the table is a replica, and of what: it is
# pending since long ago, and the next sync loads all rows.
_PRESENT = """
    CREATE OR REPLACE TABLE main._dwh_replicas AS
    SELECT schema_name, table_name, 0::BIGINT AS generation, iceberg_table, table_uuid,
        NULL::VARCHAR AS mode, NULL::BIGINT AS snapshot_id, NULL::BIGINT AS logical_snapshot_id,
        NULL::VARCHAR AS schema_json, NULL::VARCHAR AS columns_json, NULL::VARCHAR AS types_json,
        row_count, NULL::BIGINT AS synced_at_us, run_id,
        '1970-01-01T00:00:00+00:00 moving it to this release' AS pending
    FROM main._dwh_replicas
"""


def upgrade_records(connection: duckdb.DuckDBPyConnection) -> None:
    """Bring the table of records into the present form, if the first release made it."""
    try:
        found = connection.execute(_COLUMNS).description
    except duckdb.CatalogException:
        return
    if "generation" not in {column[0] for column in found}:
        connection.execute(_PRESENT)
