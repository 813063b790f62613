"""A catalog and a table of its own for each test, and ways to look at them without the code under test."""

from __future__ import annotations

import gzip
import json
import uuid
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Operation

from dwh_assets.config import IcebergWriterConfig
from dwh_assets.iceberg.catalogs.load import load_catalog
from dwh_assets.iceberg.commit import commit
from dwh_assets.iceberg.results import WriteResult
from dwh_assets.iceberg.snapshot import Change
from dwh_assets.iceberg.write import IcebergWriter
from dwh_tests.independent import iceberg_rows

Row = dict[str, Any]
duckdb_rows = iceberg_rows
TABLE = "shop.orders"
# Field ids of position-delete files, from the table specification.
PATH_ID, POSITION_ID = 2147483546, 2147483545
DELETE_SCHEMA = pa.schema(
    [
        pa.field("file_path", pa.string(), nullable=False, metadata={"PARQUET:field_id": str(PATH_ID)}),
        pa.field("pos", pa.int64(), nullable=False, metadata={"PARQUET:field_id": str(POSITION_ID)}),
    ]
)


@dataclass
class Lake:
    """A SQLite catalog and local files in a folder; every method speaks of one table."""

    folder: Path
    name: str = TABLE

    @property
    def properties(self) -> dict[str, str]:
        return {"uri": f"sqlite:///{self.folder}/catalog.db", "warehouse": f"file://{self.folder}/lake"}

    @cached_property
    def catalog(self) -> Catalog:
        return load_catalog({"kind": "sql", **self.properties})

    def writer(self, *, catalog: Catalog | None = None, **declared: Any) -> IcebergWriter:
        config = IcebergWriterConfig(table=self.name, **declared)
        return IcebergWriter(config, catalog=catalog or self.catalog)

    def write(self, data: Any, *, where: Any = None, **declared: Any) -> WriteResult:
        return self.writer(**declared).write(data, where=where)

    @property
    def table(self) -> Table:
        return SqlCatalog("dwh", **self.properties).load_table(self.name)

    @property
    def metadata(self) -> Row:
        location = self.table.metadata_location
        content = Path(local(location)).read_bytes()
        found: Row = json.loads(gzip.decompress(content) if ".gz." in location else content)
        return found

    @property
    def summary(self) -> dict[str, str]:
        """The current snapshot's summary, as its JSON says."""
        current = self.metadata["current-snapshot-id"]
        return next(dict(s["summary"]) for s in self.metadata["snapshots"] if s["snapshot-id"] == current)

    def rows(self, snapshot_id: int | None = None) -> list[Row]:
        """The table's rows as DuckDB reads them, in no order."""
        found: list[Row] = duckdb_rows(self.table.metadata_location, snapshot_id).to_pylist()
        return found

    def column(self, name: str, snapshot_id: int | None = None) -> list[Any]:
        """The values of a column that can be sorted, in order, nulls last."""
        values = [row[name] for row in self.rows(snapshot_id)]
        return sorted(values, key=lambda value: (value is None, value if value is not None else 0))

    def data_files(self) -> list[DataFile]:
        return [task.file for task in self.table.scan().plan_files()]

    def on_disk(self, suffix: str = "") -> set[str]:
        """Every file of the warehouse whose name ends so."""
        return {str(path) for path in (self.folder / "lake").rglob(f"*{suffix}") if path.is_file()}

    def orphans(self) -> set[str]:
        """Data, delete, manifest and metadata files that the table does not know."""
        table = self.table
        known = {local(entry.metadata_file) for entry in table.metadata.metadata_log}
        known.add(local(table.metadata_location))
        for snapshot in table.metadata.snapshots:
            known.add(local(snapshot.manifest_list))
            for manifest in snapshot.manifests(table.io):
                known.add(local(manifest.manifest_path))
                entries = manifest.fetch_manifest_entry(table.io, discard_deleted=False)
                known |= {local(entry.data_file.file_path) for entry in entries}
        return (self.on_disk(".parquet") | self.on_disk(".avro") | self.on_disk(".metadata.json")) - known

    def delete_positions(self, *groups: dict[str, list[int]]) -> None:
        """Commit position deletes by hand: one delete file a group, of positions by data file."""
        table = self.table
        deletes = tuple(_position_deletes(table, group) for group in groups)
        commit(self.catalog, table, lambda _: Change(Operation.DELETE, added_deletes=deletes))


def _position_deletes(table: Table, group: dict[str, list[int]]) -> DataFile:
    pairs = sorted((path, position) for path, positions in group.items() for position in positions)
    paths, positions = zip(*pairs, strict=True)
    location = f"{table.location()}/data/{uuid.uuid4()}-deletes.parquet"
    columns = [pa.array(paths), pa.array(positions, pa.int64())]
    pq.write_table(pa.table(columns, schema=DELETE_SCHEMA), local(location))
    targets = [task.file for task in table.scan().plan_files() if task.file.file_path in group]
    file = DataFile.from_args(
        content=DataFileContent.POSITION_DELETES,
        file_path=location,
        file_format=FileFormat.PARQUET,
        partition=targets[0].partition,
        record_count=len(pairs),
        file_size_in_bytes=Path(local(location)).stat().st_size,
        lower_bounds={PATH_ID: paths[0].encode()},
        upper_bounds={PATH_ID: paths[-1].encode()},
    )
    file.spec_id = targets[0].spec_id
    return file


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """An empty lake."""
    return Lake(tmp_path)


@pytest.fixture(scope="module")
def module_lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """A lake that the tests of a module share."""
    return Lake(tmp_path_factory.mktemp("lake"))


def local(location: str) -> str:
    """The path of a location on this machine."""
    return location.removeprefix("file://")


def file_rows(file: DataFile) -> pa.Table:
    """The rows of one data file in their order, as Parquet has them."""
    return pq.read_table(local(file.file_path), partitioning=None)


def multiset(rows: Iterable[Row]) -> Counter[str]:
    """Rows without their order; NaN equals NaN."""
    return Counter(repr(sorted(row.items())) for row in rows)
