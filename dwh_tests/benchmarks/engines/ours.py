"""This project's writer, on a SQLite catalog and local files."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from pyiceberg.catalog import Catalog

from dwh_assets import IcebergWriter, IcebergWriterConfig
from dwh_assets.config import PartitionBy
from dwh_assets.iceberg.catalogs.load import load_catalog
from dwh_tests.benchmarks.data import load
from dwh_tests.benchmarks.engines.lake import (
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


class _Ours(Work):
    """What appends and upserts share."""

    rows: pa.Table

    def writer(self, table: str, **options: Any) -> IcebergWriter:
        config = IcebergWriterConfig(
            catalog="sql",
            catalog_config=dict(catalog_properties(self.job.folder)),
            table=table,
            partition_spec=[PartitionBy(field=self.task.by_day, transform="day")] if self.task.by_day else [],
            **options,
        )
        return IcebergWriter(config)

    def catalog(self) -> Catalog:
        return load_catalog({"kind": "sql", **catalog_properties(self.job.folder)})

    def facts(self) -> Facts:
        return iceberg_facts(self.catalog().load_table(TABLE).metadata_location, self.task)


class Append(_Ours):
    """Append to a new table."""

    def open(self) -> None:
        self.rows = load(self.job.inputs / "base.parquet", views=self.job.options.get("views", False))
        self.subject = self.writer(TABLE)
        drop_if_there(self.subject.catalog)

    def run(self) -> None:
        self.subject.write(self.rows)


class Upsert(_Ours):
    """Upsert into a prepared table."""

    def prepare(self) -> None:
        rows = load(self.job.inputs / "base.parquet")
        for table, part in ((TABLE, rows), (WARM_UP, rows.slice(0, WARM_UP_ROWS))):
            self.writer(table).write(part)
        remember(self.catalog(), self.job.folder)

    def open(self) -> None:
        self.rows = load(self.job.inputs / "source.parquet")
        options = {"write_mode": "upsert", "key_columns": list(self.task.keys), **self.job.options}
        self.subject = self.writer(TABLE, **options)
        restore(self.subject.catalog, self.job.folder)
        self.writer(WARM_UP, **options).write(self.rows.slice(0, WARM_UP_ROWS // 10))

    def run(self) -> None:
        self.subject.write(self.rows)
