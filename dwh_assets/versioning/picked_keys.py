"""Keys that main has got meanwhile: a branch that appends them, too, could not see them."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
from pyiceberg.manifest import DataFile
from pyiceberg.schema import Schema
from pyiceberg.table import FileScanTask, Table
from pyiceberg.table.snapshots import Snapshot

from dwh_assets.errors import DivergedError
from dwh_assets.iceberg import compute
from dwh_assets.iceberg.arrow.types import shown_values
from dwh_assets.iceberg.diff.compare import compare
from dwh_assets.iceberg.diff.route import parting
from dwh_assets.iceberg.keys import known_keys
from dwh_assets.iceberg.names import name_of
from dwh_assets.iceberg.scan import read, scan, schema_at
from dwh_assets.iceberg.sql import quote_identifier

_SHOWN = 5


def require_new_keys(table: Table, snapshot: Snapshot, files: Sequence[DataFile]) -> None:
    """Refuse files that a snapshot appends where main has got rows of their keys since the two parted.

    Only of a table whose key is known. Raises `DivergedError` with some of the keys.
    """
    head = table.metadata.current_snapshot_id
    assert head is not None  # noqa: S101 - a table with a branch has a main branch
    parted_at = parting(table, head, snapshot.snapshot_id)
    schemas = schema_at(table, head), schema_at(table, snapshot.snapshot_id)
    keys = known_keys(table.metadata, *schemas)
    if not keys or parted_at == head:
        return
    picked_keys = _of(schemas[1], keys, schemas[0])
    planned = scan(table, columns=picked_keys, snapshot_id=snapshot.snapshot_id)
    picked = read(planned, [FileScanTask(file) for file in files])
    with compare(table, parted_at, head) as meanwhile:
        found, sample = _in_both(keys, meanwhile.came(keys), picked_keys, picked)
    if found:
        raise DivergedError(
            f"{name_of(table)}: main has got rows of {found:,} keys meanwhile that snapshot "
            f"{snapshot.snapshot_id} appends, too: {_told(sample)}{', …' if found > _SHOWN else ''}.",
            remedy="Write these rows again on main as an upsert, or leave them out.",
        )


def _in_both(
    keys: Sequence[str], rows: pa.RecordBatchReader, other_keys: Sequence[str], others: pa.RecordBatchReader
) -> tuple[int, pa.Table]:
    """Count the keys that two streams share, and show some of them."""
    with compute.isolated(reads_files=False) as connection:
        for name, columns, arriving in (("_some", keys, rows), ("_others", other_keys, others)):
            columns_sql = ", ".join(map(quote_identifier, columns))
            connection.register("_arriving", arriving)
            connection.execute(
                f"CREATE TABLE {quote_identifier(name)} AS SELECT DISTINCT {columns_sql} FROM _arriving"
            )
        connection.execute("CREATE TABLE _both AS FROM _some INTERSECT FROM _others")
        (count,) = connection.execute("SELECT count(*) FROM _both").fetchone() or (0,)
        return count, connection.execute("FROM _both ORDER BY ALL LIMIT ?", [_SHOWN]).to_arrow_table()


def _of(schema: Schema, keys: Sequence[str], named_in: Schema) -> list[str]:
    """Return what the columns are called in a schema."""
    names = {field.field_id: field.name for field in schema.fields}
    return [names[named_in.find_field(key).field_id] for key in keys]


def _told(keys: pa.Table) -> str:
    rows = zip(*map(shown_values, keys.columns), strict=True)
    named = (zip(keys.column_names, row, strict=True) for row in rows)
    return ", ".join(f"({', '.join(f'{name}={value!r}' for name, value in pairs)})" for pairs in named)
