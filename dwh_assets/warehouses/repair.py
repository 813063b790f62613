"""What has to be loaded again so that a replica is equal to its table: the rows of the parts that differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from dwh_assets.errors import ConfigurationError
from dwh_assets.iceberg.arrow.types import align, arrow_schema
from dwh_assets.iceberg.compute import connect
from dwh_assets.warehouses.base import Target
from dwh_assets.warehouses.dialect import ReplicaColumn
from dwh_assets.warehouses.parity_report import ParityReport
from dwh_assets.warehouses.session import Session
from dwh_assets.warehouses.sides import LakeSide, ReplicaSide, compared_columns
from dwh_assets.warehouses.source import Source

_BATCH_ROWS = 122_880


@dataclass(frozen=True)
class Repair:
    """Replace the rows of some parts: delete those for which `condition` holds, insert `rows`.

    It holds for the snapshot of the report alone, and belongs into one transaction.
    """

    report: ParityReport
    columns: Sequence[ReplicaColumn]
    source: Source

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of the parts."""
        return tuple(partition.name for partition in self.report.partitions)

    def condition(self, session: Session, target: Target) -> tuple[str, tuple[Any, ...]]:
        """Return the condition under which a row of the replica has to go, and its parameters."""
        return self.report.grouping.condition(ReplicaSide(session, target), self.report.groups)

    def rows(self) -> pa.RecordBatchReader:
        """Stream the table's rows that have to come, in its columns."""
        shown = arrow_schema(self.source.schema)
        return pa.RecordBatchReader.from_batches(shown, self._batches(shown))

    def _batches(self, shown: pa.Schema) -> Iterator[pa.RecordBatch]:
        compared, _ = compared_columns(self.columns, self.source.schema)
        lake = LakeSide(self.source)
        condition_sql, values = self.report.grouping.condition(lake, self.report.groups)
        names_sql = ", ".join(lake.value_sql(column) for column in compared)
        with connect() as connection:
            live = lake.rows(connection, compared)
            found = connection.execute(
                f"SELECT {names_sql} FROM ({live.sql}) AS live WHERE {condition_sql}",
                (*live.parameters, *values),
            )
            for batch in found.to_arrow_reader(_BATCH_ROWS):
                named = batch.rename_columns([column.name for column in compared])
                yield align(named, shown, self.source.name)


def repair(report: ParityReport, columns: Sequence[ReplicaColumn], source: Source) -> Repair:
    """Return what mends the differences of a report, given the columns and the snapshot that it compared.

    Raises `ConfigurationError` where the report names no part of the table that differs: there is nothing
    to mend, or all rows have to be loaded.
    """
    if not report.groups or report.snapshot_id != source.snapshot_id:
        why = "names no part that differs" if not report.groups else f"is of snapshot {report.snapshot_id}"
        raise ConfigurationError(
            f"The report on {report.target} {why}.",
            remedy="Verify it again at the level fingerprint; where no part is named, load all rows.",
        )
    return Repair(report, columns, source)
