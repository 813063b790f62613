"""PyIceberg's own append and upsert, on a SQLite catalog and local files."""

from __future__ import annotations

import pyarrow as pa
from pyiceberg.catalog import Catalog, load_catalog
from pyiceberg.table import Table
from pyiceberg.transforms import DayTransform

from dwh_tests.benchmarks.data import load
from dwh_tests.benchmarks.engines.lake import (
    NAMESPACE,
    TABLE,
    WARM_UP,
    WARM_UP_ROWS,
    catalog_properties,
    drop_if_there,
    remember,
    restore,
)
from dwh_tests.benchmarks.extensions import iceberg_facts
from dwh_tests.benchmarks.model import Facts, Work


class _PyIceberg(Work):
    """What appends and upserts share."""

    rows: pa.Table
    catalog: Catalog

    def connect(self) -> Catalog:
        catalog = load_catalog("bench", type="sql", **catalog_properties(self.job.folder))
        catalog.create_namespace_if_not_exists(NAMESPACE)
        return catalog

    def create(self, name: str, schema: pa.Schema) -> Table:
        table = self.catalog.create_table(name, schema)
        if self.task.by_day:
            with table.update_spec() as spec:
                spec.add_field(self.task.by_day, DayTransform())
        return table

    def facts(self) -> Facts:
        return iceberg_facts(self.catalog.load_table(TABLE).metadata_location, self.task)


class Append(_PyIceberg):
    """Append to a new table."""

    def open(self) -> None:
        self.rows = load(self.job.inputs / "base.parquet")
        self.catalog = self.connect()
        drop_if_there(self.catalog)

    def run(self) -> None:
        self.create(TABLE, self.rows.schema).append(self.rows)


class Upsert(_PyIceberg):
    """`Table.upsert`, which compares rows and leaves equal ones alone."""

    def prepare(self) -> None:
        rows = load(self.job.inputs / "base.parquet")
        self.catalog = self.connect()
        for table, part in ((TABLE, rows), (WARM_UP, rows.slice(0, WARM_UP_ROWS))):
            self.create(table, part.schema).append(part)
        remember(self.catalog, self.job.folder)

    def open(self) -> None:
        self.rows = load(self.job.inputs / "source.parquet")
        self.catalog = self.connect()
        restore(self.catalog, self.job.folder)
        self._upsert(WARM_UP, self.rows.slice(0, WARM_UP_ROWS // 10))

    def run(self) -> None:
        self._upsert(TABLE, self.rows)

    def _upsert(self, table: str, rows: pa.Table) -> None:
        self.catalog.load_table(table).upsert(rows, join_cols=list(self.task.keys))
