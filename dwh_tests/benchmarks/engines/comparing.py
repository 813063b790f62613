"""Two versions of a table compared: by this project, and by DuckDB's full outer join of all rows of both."""

from __future__ import annotations

from typing import Any

import numpy as np
from pyiceberg.table import Table

from dwh_assets import IcebergWriter, IcebergWriterConfig
from dwh_assets.iceberg.diff.compare import compare
from dwh_assets.iceberg.diff.version_diff import VersionDiff
from dwh_tests.benchmarks.data import load, one_row
from dwh_tests.benchmarks.engines.generated import BATCH_ROWS, Generated, batches, made
from dwh_tests.benchmarks.engines.lake import TABLE, WARM_UP, WARM_UP_ROWS, catalog_properties
from dwh_tests.benchmarks.extensions import connect
from dwh_tests.benchmarks.model import Facts, Work
from dwh_tests.iceberg.diff.compaction import compact

# As many rows as DuckDB and Spark's default page limits lead to; the default of a million reads more bytes.
_ROW_GROUP = {"write.parquet.row-group-limit": "122880"}


class Ours(Work):
    """`compare` and all row images, on a table that was upserted into; or compacted before that as well."""

    subject: Table
    found: VersionDiff
    images: int

    def writer(self, table: str, **options: Any) -> IcebergWriter:
        settings: dict[str, Any] = {
            "catalog": "sql",
            "catalog_config": catalog_properties(self.job.folder),
            "table": table,
            "sort_order": [{"field": "l_shipdate"}],
            "table_properties": _ROW_GROUP,
            **options,
        }
        return IcebergWriter(IcebergWriterConfig.model_validate(settings))

    def prepare(self) -> None:
        rows, source = (load(self.job.inputs / f"{name}.parquet") for name in ("base", "source"))
        upsert = {"write_mode": "upsert", "key_columns": list(self.task.keys)}
        for table, before, after in (
            (TABLE, rows, source),
            (WARM_UP, rows.slice(0, WARM_UP_ROWS), rows.slice(0, 10)),
        ):
            writer = self.writer(table, **upsert, detect_unchanged=False)
            self.writer(table).write(before)
            if self.job.options.get("compacted"):
                compact(writer.catalog, table)
            writer.write(after)

    def open(self) -> None:
        catalog = self.writer(TABLE).catalog
        self._compare(catalog.load_table(WARM_UP))
        self.subject = catalog.load_table(TABLE)

    def run(self) -> None:
        self._compare(self.subject)

    def _compare(self, table: Table) -> None:
        snapshots = table.metadata.snapshots
        first, last = snapshots[0].snapshot_id, snapshots[-1].snapshot_id
        self.found = compare(table, first, last, keys=self.task.keys)
        self.images = sum(batch.num_rows for batch in self.found.changes())

    def facts(self) -> Facts:
        return _counted(self.found, self.images)

    def figures(self) -> dict[str, float]:
        table_bytes = sum(task.file.file_size_in_bytes for task in self.subject.scan().plan_files())
        return {"% of the table's bytes": 100 * self.found.bytes_read / table_bytes}

    def close(self) -> None:
        self.found.close()


class FullOuterJoin(Work):
    """Both versions as Parquet files, joined on the key, with a hash of each row: counts and no images."""

    found: Facts

    def open(self) -> None:
        self.connection = connect()
        before, after = (f"'{self.job.inputs / name}.parquet'" for name in ("base", "after"))
        keys = ", ".join(self.task.keys)
        hashed = "(SELECT {keys}, hash({name}) AS row FROM {file} AS {name})"
        sides = [
            hashed.format(keys=keys, name=name, file=file) for name, file in (("old", before), ("new", after))
        ]
        self.query = (
            "SELECT count(*) FILTER (WHERE old.row IS NULL) AS added,"
            " count(*) FILTER (WHERE new.row IS NULL) AS removed,"
            " count(*) FILTER (WHERE old.row <> new.row) AS modified"
            f" FROM {sides[0]} AS old FULL JOIN {sides[1]} AS new USING ({keys})"
        )

    def run(self) -> None:
        self.found = one_row(self.connection, self.query)

    def facts(self) -> Facts:
        return self.found

    def close(self) -> None:
        self.connection.close()


class Everywhere(Generated):
    """Two versions of which every row differs from the other's, larger than memory should ever hold."""

    def prepare(self) -> None:
        self.writer(TABLE).write(batches(self.table_rows))
        other = (
            made(2 * np.arange(start, min(self.table_rows, start + BATCH_ROWS)), start + 1)
            for start in range(0, self.table_rows, BATCH_ROWS)
        )
        self.writer(TABLE, write_mode="overwrite").write(other)

    def open(self) -> None:
        self.table = self.writer(TABLE).catalog.load_table(TABLE)

    def run(self) -> None:
        first, last = (snapshot.snapshot_id for snapshot in self.table.metadata.snapshots)
        with compare(self.table, first, last, keys=["id"]) as found:
            images = sum(batch.num_rows for batch in found.changes())
            self.found = _counted(found, images)

    def facts(self) -> Facts:
        return self.found

    def expected(self) -> Facts:
        return {"added": "0", "removed": "0", "modified": str(self.table_rows)}


def _counted(found: VersionDiff, images: int) -> Facts:
    counts = {"added": found.rows_added, "removed": found.rows_removed, "modified": found.rows_modified}
    assert images == sum(counts.values()) + found.rows_modified
    return {name: str(count) for name, count in counts.items()}
