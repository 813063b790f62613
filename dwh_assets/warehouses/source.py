"""One Iceberg table at one snapshot, as a replica needs it: identity, columns, and rows as a stream."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain

import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.schema import Schema
from pyiceberg.table import DataScan, FileScanTask, Table
from pyiceberg.table.snapshots import Snapshot

from dwh_assets.errors import ConfigurationError, NotFoundError
from dwh_assets.iceberg.arrow.types import align, arrow_schema
from dwh_assets.iceberg.faults import explained, readable
from dwh_assets.iceberg.files.reading import live_batches
from dwh_assets.iceberg.planning import planned_files
from dwh_assets.iceberg.scan import scan, schema_at
from dwh_assets.iceberg.versions import logical_snapshot_id

# PyIceberg decodes every file it is given at once, so it is given only so many at a time.
_STREAM_BYTES = 32 << 20


@dataclass(frozen=True)
class Source:
    """A table at a snapshot. `snapshot` is None for a table that has none yet: it has columns but no rows."""

    table: Table
    snapshot: Snapshot | None
    scan: DataScan

    @property
    def name(self) -> str:
        """`namespace.table` in the lake."""
        return ".".join(self.table.name())

    @property
    def table_uuid(self) -> str:
        """Tells the table from a later one of the same name."""
        return str(self.table.metadata.table_uuid)

    @property
    def snapshot_id(self) -> int | None:
        """The snapshot's id."""
        return self.snapshot.snapshot_id if self.snapshot else None

    @property
    def logical_snapshot_id(self) -> int | None:
        """The newest snapshot that changed rows, from this one backwards."""
        return logical_snapshot_id(self.table.metadata, self.snapshot) if self.snapshot else None

    @property
    def schema(self) -> Schema:
        """The columns: the table's now when this is its current snapshot, otherwise the snapshot's own."""
        return self.scan.projection()

    def field_ids_until(self, snapshot_id: int | None) -> set[int]:
        """Return the columns that files of a snapshot may hold, those among them that were dropped since.

        Of a snapshot that is not kept: all that the kept ones may hold.
        """
        last = None if snapshot_id is None else self.table.snapshot_by_id(snapshot_id)
        return {
            field.field_id
            for snapshot in self.table.snapshots()
            if last is None or (snapshot.sequence_number or 0) <= (last.sequence_number or 0)
            for field in schema_at(self.table, snapshot.snapshot_id).fields
        }

    def streams(self) -> Iterator[pa.RecordBatchReader]:
        """Yield the rows as streams, each of 32 MiB of files (or one larger file): what is in memory at once.

        PyIceberg's own reader of a whole scan decodes files as fast as it can, however slowly its batches
        are taken, and ends up with the table in memory.
        """
        metadata, io, target = self.table.metadata, self.table.io, arrow_schema(self.schema)
        for tasks in portions(planned_files(self.scan), _STREAM_BYTES):
            found = chain.from_iterable(live_batches(metadata, io, task, self.schema) for task in tasks)
            batches = (align(batch, target, self.name) for batch in found)
            yield pa.RecordBatchReader.from_batches(target, self.faithfully(batches))

    def faithfully(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Pass batches on; what the lake's files or store do wrong names the table and a remedy."""
        with self.reading():
            yield from batches

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Let faults of the lake's files and store leave the block as errors that name the table."""
        catalog = getattr(self.table.catalog, "name", "")
        with explained(self.name, catalog), readable(self.name):
            yield


def open_source(catalog_or_table: Catalog | Table, name: str, snapshot_id: int | None) -> Source:
    """Open table `name` at a snapshot; None means the newest one of `main`.

    Raises `NotFoundError` for a missing table or snapshot, `ConfigurationError` for a table of other name.
    """
    table = _load(catalog_or_table, name)
    current = table.current_snapshot()
    # The table's columns may have changed since the current snapshot was made; reading that snapshot
    # by its id would show the columns of before.
    if snapshot_id is None or (current and current.snapshot_id == snapshot_id):
        return Source(table, current, scan(table))
    return Source(table, table.snapshot_by_id(snapshot_id), scan(table, snapshot_id=snapshot_id))


def _load(catalog_or_table: Catalog | Table, name: str) -> Table:
    if not isinstance(catalog_or_table, Table):
        try:
            return catalog_or_table.load_table(name)
        except NoSuchTableError:
            raise NotFoundError(
                f"There is no table {name} in the catalog {catalog_or_table.name!r}.",
                remedy="Write it first.",
            ) from None
    if ".".join(catalog_or_table.name()) != name:
        raise ConfigurationError(
            f"This is a replica of {name}, but the table given is {'.'.join(catalog_or_table.name())}.",
            remedy="Give the catalog, or that table.",
        )
    return catalog_or_table


def portions(tasks: Iterable[FileScanTask], most_bytes: int) -> Iterator[list[FileScanTask]]:
    """Yield the files in groups of at most so many bytes, or one larger file."""
    portion: list[FileScanTask] = []
    size = 0
    for task in tasks:
        if portion and size + task.file.file_size_in_bytes > most_bytes:
            yield portion
            portion, size = [], 0
        portion.append(task)
        size += task.file.file_size_in_bytes
    if portion:
        yield portion
