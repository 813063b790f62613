"""Rows into a table by load jobs: a few large Parquet files, written to disk one after the other."""

from __future__ import annotations

import tempfile
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
from google.api_core import exceptions as api
from google.cloud import bigquery

from dwh_assets.warehouses.bigquery.faults import TRANSIENT, explained

_ROW_GROUP_BYTES = 32 << 20
_PAUSES = (1.0, 4.0, 16.0)


@dataclass
class ParquetLoads:
    """Sends rows into one table. Up to `parallel` jobs run at a time, each with its file still on disk.

    `name` is no other load's. The jobs' ids are made of it and of the file's number, so a job that is sent
    again, because the answer to it was lost, is found there instead of doubled.
    """

    client: bigquery.Client
    table: bigquery.Table
    name: str
    labels: dict[str, str]
    file_bytes: int
    parallel: int
    jobs: int = 0
    _running: deque[tuple[Any, BinaryIO]] = field(default_factory=deque)

    def load(self, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
        """Add the rows, and return when they are there. Raises `DwhError`."""
        try:
            for file in _files(schema, batches, self.file_bytes):
                if len(self._running) >= self.parallel:
                    self._finish()
                self._begin(file)
            while self._running:
                self._finish()
        finally:
            for _, file in self._running:
                file.close()
            self._running.clear()

    def _begin(self, file: BinaryIO) -> None:
        self._running.append((self._send(file, f"{self.name}_{self.jobs}"), file))
        self.jobs += 1

    def _finish(self) -> None:
        """Wait for the oldest job; one that failed by no fault of the rows is sent again under a new id."""
        job, file = self._running.popleft()
        with file, explained(f"Rows could not be loaded into {self.table.full_table_id}"):
            for pause in _PAUSES:
                try:
                    job.result()
                    return
                except TRANSIENT:
                    time.sleep(pause)
                    if job.state == "DONE" and job.error_result:
                        job = self._send(file, f"{job.job_id}_again")
            job.result()

    def _send(self, file: BinaryIO, job_id: str) -> Any:
        with explained(f"Rows could not be sent to {self.table.full_table_id}"):
            for pause in _PAUSES:
                try:
                    return self._send_once(file, job_id)
                except TRANSIENT:
                    time.sleep(pause)
            return self._send_once(file, job_id)

    def _send_once(self, file: BinaryIO, job_id: str) -> Any:
        size = file.seek(0, 2)
        try:
            return self.client.load_table_from_file(
                file,
                self.table.reference,
                rewind=True,
                size=size,
                job_id=job_id,
                location=self.table.location,
                job_config=self._config(),
            )
        except api.Conflict:
            return self.client.get_job(job_id, location=self.table.location)

    def _config(self) -> bigquery.LoadJobConfig:
        lists = bigquery.ParquetOptions()  # type: ignore[no-untyped-call]
        lists.enable_list_inference = True
        return bigquery.LoadJobConfig(
            source_format=bigquery.SourceFormat.PARQUET,
            write_disposition=bigquery.WriteDisposition.WRITE_APPEND,
            create_disposition=bigquery.CreateDisposition.CREATE_NEVER,
            # Otherwise names beyond letters and digits would be changed.
            column_name_character_map="STRICT",
            parquet_options=lists,
            labels=self.labels,
        )


def _files(schema: pa.Schema, batches: Iterable[pa.RecordBatch], most_bytes: int) -> Iterator[BinaryIO]:
    """Yield Parquet files of about so many bytes; none where there are no rows."""
    groups = _row_groups(schema, batches)
    for first in groups:
        # Without a name: it is gone with this process, whatever becomes of it.
        file: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115 - whoever takes it closes it
        with pq.ParquetWriter(file, schema, compression="zstd") as writer:
            writer.write_table(first)
            while file.tell() < most_bytes and (more := next(groups, None)) is not None:
                writer.write_table(more)
        yield file


def _row_groups(schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    waiting: list[pa.RecordBatch] = []
    for batch in batches:
        if batch.num_rows:
            waiting.append(batch)
        if sum(one.nbytes for one in waiting) >= _ROW_GROUP_BYTES:
            yield pa.Table.from_batches(waiting).cast(schema)
            waiting = []
    if waiting:
        yield pa.Table.from_batches(waiting).cast(schema)
