"""Bring back the rows of a filter as they were at an older version, as one new snapshot on `main`."""

from __future__ import annotations

from pyiceberg.catalog import Catalog
from pyiceberg.expressions import BooleanExpression
from pyiceberg.table import Table

from dwh_assets.config import IcebergWriterConfig
from dwh_assets.iceberg.results import WriteResult
from dwh_assets.iceberg.scan import read, scan
from dwh_assets.iceberg.write import IcebergWriter
from dwh_assets.versioning.catalog_tables import CatalogTables
from dwh_assets.versioning.provenance import RESTORED_FROM

RESTORED_WHERE = "dwh.restored-where"
_LONGEST_FILTER = 400


def restore(
    catalog: Catalog, table: str, to: int, where: str | BooleanExpression | None = None
) -> WriteResult:
    """Replace the rows that match `where` by those that matched it at snapshot `to`; no other row changes.

    `where` is an Iceberg filter over the table's columns as they are now, such as `"region = 'eu'"` or the
    bounds of a partition; None restores every row. It is one new snapshot, an overwrite of that filter: rows
    of it that arrive while this runs are replaced as well, and stay in the snapshot before. The older rows
    are read in the columns of now: one that was added since is null in them, one that was dropped since does
    not come back (a `rollback` brings columns back, too). Memory is bounded, whatever comes back.

    Raises `NotFoundError` when table or snapshot are not there, `ConfigurationError` for a filter that cannot
    be understood, and what `IcebergWriter.write` raises.
    """
    history, wanted = CatalogTables(catalog).require_version(table, to)
    rows = read(scan(_with_columns_of_now(history.table, wanted), where=where))
    writer = IcebergWriter(IcebergWriterConfig(table=table, write_mode="overwrite"), catalog=catalog)
    told = {RESTORED_WHERE: str(where)[:_LONGEST_FILTER]} if where is not None else {}
    return writer.write(rows, where=where, summary={RESTORED_FROM: str(wanted), **told})


def _with_columns_of_now(table: Table, snapshot_id: int) -> Table:
    """Return the table as if it had stood at the snapshot all the time, whatever became of its columns."""
    metadata = table.metadata.model_copy(update={"current_snapshot_id": snapshot_id})
    return Table(table.name(), metadata, table.metadata_location, table.io, table.catalog, table.config)
