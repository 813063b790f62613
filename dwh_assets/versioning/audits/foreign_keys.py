"""Foreign keys: changed rows whose key is not in another table."""

from __future__ import annotations

import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.types import DecimalType, DoubleType, FloatType, IcebergType, IntegerType, LongType

from dwh_assets.errors import ConfigurationError, NotFoundError
from dwh_assets.iceberg import compute
from dwh_assets.iceberg.declaration import find_table
from dwh_assets.iceberg.scan import read, scan
from dwh_assets.iceberg.sql import qualified, quote_identifier
from dwh_assets.versioning.audits.candidate import SAMPLE_ROWS, AuditResult, Candidate, require_columns
from dwh_assets.versioning.audits.declarations import ForeignKey
from dwh_assets.versioning.history import recorded_inputs

# Types whose values are compared as numbers of one kind
_ALIKE = ((IntegerType, LongType), (FloatType, DoubleType), (DecimalType,))


def require_sound(audit: ForeignKey, schema: Schema, catalog: Catalog, table: str) -> None:
    """Refuse a reference to what is not there, or to columns of another type.

    Raises `NotFoundError` for the table, `ConfigurationError` for its columns.
    """
    parent = schema if audit.table == table else _parent(audit, catalog, table).schema()
    require_columns(parent, audit.referenced, audit.table, f"{audit.label} of {table}")
    for column, referenced in zip(audit.columns, audit.referenced, strict=True):
        ours, theirs = schema.find_type(column), parent.find_type(referenced)
        if not _comparable(ours, theirs):
            raise ConfigurationError(
                f"{table}: audit {audit.label} compares column {column!r} ({ours}) with {referenced!r} of "
                f"{audit.table} ({theirs}).",
                remedy="Refer to a column of the same type.",
            )


def _comparable(one: IcebergType, other: IcebergType) -> bool:
    alike = any(isinstance(one, kinds) and isinstance(other, kinds) for kinds in _ALIKE)
    return one == other or alike


def _parent(audit: ForeignKey, catalog: Catalog, table: str) -> Table:
    found = find_table(catalog, audit.table)
    if found is None:
        raise NotFoundError(
            f"{table}: audit {audit.label} refers to {audit.table}, which does not exist.",
            remedy="Correct the name, or write that table first.",
        )
    return found


def result_of(audit: ForeignKey, candidate: Candidate) -> AuditResult:
    """Return which changed rows refer to nothing; those with a null in the key are meant to."""
    names_sql = [quote_identifier(column) for column in audit.columns]
    keys_sql = ", ".join(names_sql)
    complete_sql = " AND ".join(f"{name_sql} IS NOT NULL" for name_sql in names_sql)
    pairs = zip(audit.columns, audit.referenced, strict=True)
    equal_sql = " AND ".join(f"{qualified('_keys', a)} = {qualified('_parent', b)}" for a, b in pairs)
    parent, snapshot_id = _referenced(audit, candidate)
    with compute.isolated() as connection:
        connection.register("_rows", candidate.changed(audit.columns))
        connection.execute(
            f"CREATE TABLE _keys AS SELECT {keys_sql}, count(*) AS _times"
            f" FROM _rows WHERE {complete_sql} GROUP BY ALL"
        )
        connection.register("_parent", parent)
        connection.execute(f"CREATE TABLE _orphans AS SELECT * FROM _keys ANTI JOIN _parent ON {equal_sql}")
        counted = connection.execute("SELECT count(*), coalesce(sum(_times), 0)::BIGINT FROM _orphans")
        keys, failing = counted.fetchone() or (0, 0)
        sample = connection.execute(
            f"SELECT * FROM _orphans ORDER BY _times DESC, {keys_sql} LIMIT ?", [SAMPLE_ROWS]
        ).to_arrow_table()
    where = f"{audit.table} at snapshot {snapshot_id}" if snapshot_id else f"{audit.table}, which is empty"
    detail = f"{audit.described} {failing:,} changed rows have {keys:,} keys that are not in {where}."
    return AuditResult.of(audit.label, failing, sample if failing else pa.table({}), detail)


def _referenced(audit: ForeignKey, candidate: Candidate) -> tuple[pa.RecordBatchReader, int | None]:
    """Stream the keys that may be referred to, and say at which snapshot."""
    if audit.table == candidate.name:
        return candidate.new(audit.referenced), candidate.after
    parent = _parent(audit, candidate.table.catalog, candidate.name)
    snapshot_id = _snapshot_read(audit, candidate, parent) or parent.metadata.current_snapshot_id
    planned = scan(parent, columns=audit.referenced, snapshot_id=snapshot_id)
    return read(planned), snapshot_id


def _snapshot_read(audit: ForeignKey, candidate: Candidate, parent: Table) -> int | None:
    """Return the newest snapshot of the other table that the write was computed from, if known and kept."""
    head = candidate.table.snapshot_by_id(candidate.after)
    entries = head.summary.additional_properties if head and head.summary else {}
    recorded = recorded_inputs(entries).get(audit.table, ())
    kept = filter(None, map(parent.snapshot_by_id, recorded))
    newest = max(kept, key=lambda snapshot: snapshot.timestamp_ms, default=None)
    return newest.snapshot_id if newest else None
