"""What a materialization tells the Dagster UI about a table, a write and a replica."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg
from pyiceberg.schema import Schema
from pyiceberg.table import Table

from dwh_assets.iceberg.results import WriteResult
from dwh_assets.iceberg.stream import StreamResult
from dwh_assets.versioning.replicas import Lag
from dwh_assets.warehouses.base import ReplicaState, SyncResult


def write_metadata(
    result: WriteResult, table: Table, write_mode: str, partitions: str | None = None
) -> dict[str, Any]:
    """Describe a write: version, mode, operation, rows, files, bytes, columns and a readable summary.

    The operation is the snapshot's: an upsert that only inserts is an append to Iceberg.
    """
    return {
        **version_metadata(result.snapshot_id, result.parent_snapshot_id),
        "dwh/logical_snapshot_id": version_text(result.logical_snapshot_id),
        "dwh/write_mode": write_mode,
        "dwh/operation": result.operation,
        "dwh/rows_added": result.rows_inserted,
        "dwh/rows_updated": result.rows_updated,
        "dwh/rows_removed": result.rows_deleted,
        "dwh/rows_unchanged": result.rows_unchanged,
        "dwh/files_added": result.files_added,
        "dwh/files_removed": result.files_removed,
        "dwh/bytes_added": result.bytes_added,
        "dwh/bytes_removed": result.bytes_removed,
        "dwh/total_bytes": result.total_bytes,
        "dwh/commit_attempts": result.attempts,
        "dwh/seconds": round(result.seconds, 3),
        "dwh/summary": dg.MetadataValue.md(write_summary(result, write_mode, partitions)),
        "dagster/row_count": result.total_rows,
        **table_metadata(table),
    }


def past_metadata(as_of: str | None, read: Sequence[str]) -> dict[str, Any]:
    """Say of a run that has read the past which point in time, and which versions of its inputs."""
    return {
        **({"dwh/as_of": as_of} if as_of is not None else {}),
        **({"dwh/read": dg.MetadataValue.md("\n".join(f"- {one}" for one in read))} if read else {}),
    }


def aside_metadata(metadata: Mapping[str, Any], branch: str, declared_branch: str) -> dict[str, Any]:
    """Describe a write to another branch than the table's own: what readers see of it has not changed."""
    told = metadata["dwh/summary"].value
    summary = f"Written to branch `{branch}`; `{declared_branch}` stays as it is. {told}"
    kept = {key: value for key, value in metadata.items() if key != "dagster/row_count"}
    return {**kept, "dwh/branch": branch, "dwh/summary": dg.MetadataValue.md(summary)}


def stream_metadata(fed: StreamResult) -> dict[str, Any]:
    """Describe what a run took from a stream, and the row that the next run begins at."""
    return {
        "dwh/stream": fed.stream,
        "dwh/stream_offset": fed.offset,
        "dwh/stream_rows": fed.rows,
        "dwh/commits": fed.commits,
    }


def table_metadata(table: Table) -> dict[str, Any]:
    """Describe a table's identity and columns under the keys that Dagster itself understands."""
    return {
        "dagster/table_name": ".".join(table.name()),
        "dagster/uri": table.location(),
        "dagster/column_schema": column_schema(table.schema()),
    }


def version_metadata(snapshot_id: int | None, parent_id: int | None) -> dict[str, Any]:
    """Snapshot ids as text: as numbers they lose their last digits in browsers."""
    return {"dwh/snapshot_id": version_text(snapshot_id), "dwh/parent_snapshot_id": version_text(parent_id)}


def column_schema(schema: Schema, tags: Mapping[str, Mapping[str, str]] | None = None) -> dg.TableSchema:
    """Describe columns with their Iceberg types, docs and constraints."""
    identifiers = set(schema.identifier_field_ids)
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                name=field.name,
                type=str(field.field_type),
                description=field.doc,
                constraints=dg.TableColumnConstraints(
                    nullable=not field.required,
                    unique=identifiers == {field.field_id},
                    other=["part of the key"]
                    if field.field_id in identifiers and len(identifiers) > 1
                    else [],
                ),
                tags=(tags or {}).get(field.name),
            )
            for field in schema.fields
        ]
    )


def replica_metadata(result: SyncResult, into: str, held: ReplicaState, behind: Lag) -> dict[str, Any]:
    """Describe a sync: the snapshot that the replica holds, how it came there, how far the table is ahead."""
    source = dg.AssetKey(["iceberg", *held.table.split(".")])
    return {
        **version_metadata(result.to_snapshot, result.from_snapshot),
        **_lag_metadata(behind),
        "dwh/mode": result.mode,
        "dwh/operation": result.method,
        "dwh/reason": result.reason,
        "dwh/rows_added": result.rows_inserted,
        "dwh/rows_updated": result.rows_updated,
        "dwh/rows_removed": result.rows_deleted,
        "dwh/bytes_added": result.bytes,
        "dwh/statements": result.statements,
        "dwh/seconds": round(result.seconds, 3),
        "dwh/summary": dg.MetadataValue.md(_sync_summary(result)),
        "dagster/row_count": held.rows,
        "dagster/table_name": into,
        "dagster/column_schema": column_schema(held.schema),
        "dagster/column_lineage": replica_lineage(source, held.schema),
    }


def _lag_metadata(behind: Lag) -> dict[str, Any]:
    """What nobody can tell is left out, for the UI plots these numbers."""
    minutes = None if behind.time is None else round(behind.time.total_seconds() / 60, 3)
    found = {"dwh/lag_versions": behind.versions, "dwh/lag_minutes": minutes}
    return {name: value for name, value in found.items() if value is not None}


def _sync_summary(result: SyncResult) -> str:
    to = f"snapshot `{result.to_snapshot}`"
    size = human_bytes(result.bytes)
    match result.method:
        case "none":
            return f"Already at {to}: {result.reason}."
        case "repointed":
            return f"Reads the files of {to}: {result.reason}."
        case "full":
            return f"Loaded {result.rows_inserted:,} rows ({size}) of {to}: {result.reason}."
    return (
        f"{result.rows_inserted:,} rows in, {result.rows_updated:,} updated, {result.rows_deleted:,} out "
        f"({size}), now at {to}: {result.reason}."
    )


def replica_lineage(source: dg.AssetKey, schema: Schema) -> dg.TableColumnLineage:
    """Every column of a replica comes from the column of the same name."""
    return dg.TableColumnLineage(
        {
            name: [dg.TableColumnDep(asset_key=source, column_name=name)]
            for name in (field.name for field in schema.fields)
        }
    )


def write_summary(result: WriteResult, write_mode: str, partitions: str | None) -> str:
    """Say in one or two sentences what a write did."""
    where = f" partition {partitions}" if partitions else ""
    if result.repeated:
        return f"Already written{where} as snapshot `{result.snapshot_id}` by an earlier attempt."
    if not result.changed:
        return f"Nothing to write{where}; the table stays at snapshot `{result.snapshot_id}`."
    changes = f" Columns: {'; '.join(result.schema_changes)}." if result.schema_changes else ""
    updated = f"{result.rows_updated:,} updated, " if result.rows_updated else ""
    return (
        f"**{write_mode}**{where}: {result.rows_inserted:,} rows in, {updated}{result.rows_deleted:,} out, "
        f"{result.total_rows:,} now. {_files(result.files_added)} ({human_bytes(result.bytes_added)}) added, "
        f"{result.files_removed} removed. Snapshot `{result.snapshot_id}`.{changes}"
    )


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count:,} files"


def human_bytes(count: int) -> str:
    """Write a number of bytes with a unit."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def version_text(number: int | None) -> str:
    """Write a snapshot id."""
    return "none" if number is None else str(number)
