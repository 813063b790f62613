"""Our writer on rows that are made on the fly: larger than memory, and the same in every run."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dwh_assets import IcebergWriter, IcebergWriterConfig
from dwh_tests.benchmarks.data import one_row
from dwh_tests.benchmarks.engines.lake import (
    TABLE,
    WARM_UP,
    WARM_UP_ROWS,
    catalog_properties,
    drop_if_there,
    remember,
    restore,
)
from dwh_tests.benchmarks.extensions import connect
from dwh_tests.benchmarks.model import Facts, Work

SCHEMA = pa.schema(
    [
        ("id", pa.int64()),
        ("part", pa.int32()),
        ("amount", pa.float64()),
        ("at", pa.timestamp("us")),
        ("note", pa.string()),
    ]
)
BATCH_ROWS = 122_880
_TOY_SHARE = 200
_SOURCE_ROWS = 1_000
_NOTES = pa.array([f"note {number} " + "x" * (number % 23) for number in range(997)])


def batches(rows: int, partitions: int = 1) -> Iterator[pa.RecordBatch]:
    """Make rows with even ids in order, each in a partition drawn at random: every batch hits all of them."""
    for start in range(0, rows, BATCH_ROWS):
        yield made(2 * np.arange(start, min(rows, start + BATCH_ROWS)), start, partitions)


def made(ids: npt.NDArray[np.int64], seed: int, partitions: int = 1) -> pa.RecordBatch:
    """Make one row for each id."""
    random = np.random.default_rng(seed)
    columns = [
        pa.array(ids),
        pa.array(random.integers(0, partitions, len(ids), np.int32)),
        pa.array(random.random(len(ids))),
        pa.array(1_700_000_000_000_000 + ids).cast(pa.timestamp("us")),
        _NOTES.take(pa.array(random.integers(0, len(_NOTES), len(ids)))),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


class Generated(Work):
    """What streams and upserts share."""

    subject: IcebergWriter

    @property
    def table_rows(self) -> int:
        rows = int(self.job.options["rows"])
        return rows if self.job.size == "full" else rows // _TOY_SHARE

    def writer(self, table: str, **options: object) -> IcebergWriter:
        settings = {
            "catalog": "sql",
            "catalog_config": catalog_properties(self.job.folder),
            "table": table,
            **options,
        }
        return IcebergWriter(IcebergWriterConfig.model_validate(settings))

    def facts(self) -> Facts:
        location = self.subject.catalog.load_table(TABLE).metadata_location.removeprefix("file://")
        with connect("avro", "iceberg") as connection:
            counted = f"SELECT count(*) AS rows, sum(id) AS id FROM iceberg_scan('{location}')"
            return one_row(connection, counted)


class Stream(Generated):
    """Append batches into partitions, more than memory should ever hold."""

    def open(self) -> None:
        self.subject = self.writer(TABLE, partition_spec=[{"field": "part", "transform": "identity"}])
        drop_if_there(self.subject.catalog)

    def run(self) -> None:
        self.subject.write(batches(self.table_rows, int(self.job.options["partitions"])))

    def expected(self) -> Facts:
        rows = self.table_rows
        return {"rows": str(rows), "id": str(rows * (rows - 1))}


class UpsertRange(Generated):
    """Upsert a thousand rows, half new, with keys of the middle 1% of the table or of all of it."""

    rows: pa.RecordBatch

    def prepare(self) -> None:
        self.writer(WARM_UP).write(batches(WARM_UP_ROWS))
        subject = self.writer(TABLE)
        subject.write(batches(self.table_rows))
        remember(subject.catalog, self.job.folder)

    def _ids(self) -> npt.NDArray[np.int64]:
        """Draw as many old ids (even) as new ones (odd)."""
        rows = self.table_rows
        low, high = (0, rows) if self.job.options["scattered"] else (rows // 2, rows // 2 + rows // 100)
        wanted = min(_SOURCE_ROWS // 2, high - low)
        numbers = low + np.random.default_rng(0).choice(high - low, wanted, replace=False)
        return np.concatenate([2 * numbers, 2 * numbers + 1])

    def open(self) -> None:
        self.rows = made(self._ids(), 1)
        options = {"write_mode": "upsert", "key_columns": ["id"]}
        self.subject = self.writer(TABLE, **options)
        restore(self.subject.catalog, self.job.folder)
        self.writer(WARM_UP, **options).write(self.rows.slice(0, WARM_UP_ROWS // 10))

    def run(self) -> None:
        self.subject.write(self.rows)

    def expected(self) -> Facts:
        rows, new = self.table_rows, self._ids()[len(self._ids()) // 2 :]
        total = rows * (rows - 1) + int(new.sum())
        return {"rows": str(rows + len(new)), "id": str(total)}
