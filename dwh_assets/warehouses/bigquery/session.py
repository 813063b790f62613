"""One client of BigQuery, as `Session` asks for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal
from uuid import uuid4

import pyarrow as pa
from google.api_core import exceptions as api
from google.cloud import bigquery

from dwh_assets.errors import ConfigurationError, UnsupportedError
from dwh_assets.warehouses.arriving import Arriving
from dwh_assets.warehouses.base import Target
from dwh_assets.warehouses.bigquery.definitions import (
    alter_table_sql,
    create_table_sql,
    external_table_sql,
    qualify,
)
from dwh_assets.warehouses.bigquery.dialect import BigQueryDialect
from dwh_assets.warehouses.bigquery.faults import explained
from dwh_assets.warehouses.bigquery.loads import ParquetLoads
from dwh_assets.warehouses.bigquery.names import quote
from dwh_assets.warehouses.bigquery.queries import Queries
from dwh_assets.warehouses.bigquery.stream_writes import write_rows
from dwh_assets.warehouses.dialect import ReplicaColumn
from dwh_assets.warehouses.evolution import ColumnStep
from dwh_assets.warehouses.session import Layout, Purpose, Session, encoded
from dwh_assets.warehouses.source import Source

if TYPE_CHECKING:
    from google.cloud.bigquery_storage_v1 import BigQueryReadClient, BigQueryWriteClient

_STAGING = "_dwh_staging_"
_STAGING_LIFE = timedelta(hours=24)
_LONGEST_BASE = 200
# A load job takes seconds whatever it loads, and is one of 1,500 a day; it costs nothing, which a stream
# beyond the month's free terabytes does.
_FEW_BYTES = 8 << 20
_STREAM_QUEUE = 2


class BigQuerySession(Session):
    """One client of BigQuery. Tables cannot be made or changed inside its transactions.

    With a `read_client` results come by the Storage Read API, without by pages of REST; with a
    `write_client` few rows go by the Storage Write API, without by a load job.
    """

    dialect: BigQueryDialect

    def __init__(
        self,
        client: bigquery.Client,
        dialect: BigQueryDialect,
        purpose: Purpose,
        *,
        read_client: BigQueryReadClient | None = None,
        write_client: BigQueryWriteClient | None = None,
    ) -> None:
        self.dialect = dialect
        self._client = client
        self._queries = Queries(client, purpose)
        self._read_client = read_client
        self._write_client = write_client
        self._token = uuid4().hex
        self._loads = 0

    @property
    def statements(self) -> int:  # type: ignore[override]
        """How many jobs were sent."""
        return self._queries.count + self._loads

    def execute(self, sql: str, *parameters: Any) -> int:
        """Run one statement with bound parameters; return how many rows it changed, else 0."""
        job, _ = self._queries.run(sql, parameters)
        return job.num_dml_affected_rows or 0

    def fetch(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Run a query that returns few rows."""
        _, rows = self._queries.run(sql, parameters)
        with explained("A result could not be read"):
            return [tuple(row.values()) for row in rows]

    def stream(self, sql: str, *parameters: Any) -> pa.RecordBatchReader:
        """Run a query and stream its rows in Arrow form, a page or a block of the Read API at a time."""
        job, rows = self._queries.run(sql, parameters)
        batches = self._batches(rows)
        first = next(batches, None)
        if first is None:
            with explained("A result could not be read"):
                return job.result().to_arrow(create_bqstorage_client=False).to_reader()
        return pa.RecordBatchReader.from_batches(first.schema, chain([first], batches))

    def _batches(self, rows: Any) -> Iterator[pa.RecordBatch]:
        with explained("A result could not be read"):
            yield from rows.to_arrow_iterable(
                bqstorage_client=self._read_client, max_queue_size=_STREAM_QUEUE
            )

    def transaction(self) -> AbstractContextManager[None]:
        """Commit what the block did, or undo it when the block raises.

        A session of BigQuery's holds its statements together. Two that change the same table conflict.
        """
        return self._queries.transaction()

    def describe(self, target: Target) -> list[str] | None:
        """Return the names of the columns of a table or view, in order; None when there is none."""
        table = self._found(target)
        return None if table is None else [field.name for field in table.schema]

    def ensure_schema(self, target: Target) -> None:
        """Make the dataset that the target is in, unless it is there.

        It is made where the client is at home (its `location`), else in the US.
        """
        reference = self._reference(target)
        dataset = bigquery.DatasetReference(reference.project, reference.dataset_id)
        with explained(f"The dataset {dataset.dataset_id} could not be made"):
            try:
                found = self._client.get_dataset(dataset)
            except api.NotFound:
                found = self._client.create_dataset(bigquery.Dataset(dataset), exists_ok=True)
        self._at(found.location)

    def create_table(
        self,
        target: Target,
        columns: Sequence[ReplicaColumn],
        layout: Layout,
        *,
        existing: Literal["refuse", "replace", "keep"] = "refuse",
    ) -> None:
        """Make an empty table, partitioned and clustered, with descriptions of its columns.

        A staging table vanishes after a day. Raises `ConfigurationError` for a layout that BigQuery lacks.
        """
        self._queries.run(
            create_table_sql(target, columns, layout, existing=existing, expires=_is_staging(target))
        )

    def alter_table(self, target: Target, step: ColumnStep) -> None:
        """Change one column, unless it is so already."""
        table = self._found(target)
        modes = {field.name: field.mode for field in table.schema} if table else {}
        done = (step.kind == "rename" and step.name not in modes) or (
            step.kind == "relax" and modes.get(step.name) != "REQUIRED"
        )
        if not done:
            self._queries.run(alter_table_sql(target, step))

    def insert(self, target: Target, columns: Sequence[ReplicaColumn], rows: pa.RecordBatchReader) -> None:
        """Add rows to a staging table: few of them by a stream where there is a client for it."""
        few, rest = _up_to(rows, _FEW_BYTES)
        if rest is None and self._write_client and not any(_is_nested(c) for c in columns):
            self._write(target, columns, few)
        else:
            self._send(target, columns, chain(few, rest or ()))

    def load(
        self, target: Target, columns: Sequence[ReplicaColumn], source: Source, arriving: Arriving
    ) -> None:
        """Add all rows of a table at a snapshot, as few large files.

        Never by a stream: a table that is put in another's place has to have its rows in its storage.
        """
        self._send(
            target,
            columns,
            chain.from_iterable(arriving.counted(encoded(reader, columns)) for reader in source.streams()),
        )

    def state_tables(self) -> list[Target]:
        """Return every table of records (`_dwh_replicas`) in the client's project."""
        with explained("The datasets could not be listed"):
            names = [dataset.dataset_id for dataset in self._client.list_datasets()]
        tables = [self.dialect.state_table(Target("", name, "")) for name in names]
        return [table for table in tables if self._found(table)]

    def staging(self, target: Target, label: str) -> Target:
        """Return a table in the target's dataset that no other session uses."""
        base = target.name if _is_staging(target) else _STAGING + target.name[:_LONGEST_BASE]
        return target.beside(f"{base}_{label}_{self._token}")

    def supplant(self, target: Target, staging: Target) -> None:
        """Put a clone of the staging table in the target's place.

        A clone copies no bytes, and keeps types, partitioning and clustering. The staging table's end is
        taken off first: a replica must not inherit it.
        """
        staged = self._table(staging)
        with explained(f"{staging} could not be kept"):
            staged.expires = None
            self._client.update_table(staged, ["expires"])
        self._queries.run(f"CREATE OR REPLACE TABLE {qualify(target)} CLONE {qualify(staging)}")

    def require_files(self) -> None:
        """BigQuery opens them by itself where they are on Google Cloud Storage."""

    def show_files(self, target: Target, metadata_location: str, snapshot_id: int | None) -> None:
        """Make an external table over the files, in place of the one that is there."""
        if snapshot_id is not None:
            raise UnsupportedError(
                f"{target}: BigQuery shows the newest snapshot of a metadata file, and no other.",
                remedy="Use mode: copy for a replica of an older version.",
            )
        self.execute(external_table_sql(target, metadata_location))

    def drop_table(self, target: Target) -> None:
        """Drop a table or view, unless there is none."""
        with explained(f"{target} could not be dropped"):
            self._client.delete_table(self._reference(target), not_found_ok=True)

    def sweep(self, target: Target) -> None:
        """Drop staging tables of this target that are older than a day: those that no longer expire."""
        reference = self._reference(target)
        dataset = bigquery.DatasetReference(reference.project, reference.dataset_id)
        prefix = f"{_STAGING}{target.name[:_LONGEST_BASE]}_"
        with explained(f"The tables of {dataset.dataset_id} could not be swept"):
            for found in self._client.list_tables(dataset):
                old = found.created and found.created < datetime.now(UTC) - _STAGING_LIFE
                if old and found.table_id.startswith(prefix):
                    self._client.delete_table(found.reference, not_found_ok=True)

    # --- Sending rows ---

    def _write(
        self, target: Target, columns: Sequence[ReplicaColumn], batches: Sequence[pa.RecordBatch]
    ) -> None:
        if not batches:
            return
        assert self._write_client is not None  # noqa: S101 - asked for by who calls
        self._loads += 1
        write_rows(
            self._write_client,
            self._reference(target).path.lstrip("/"),
            pa.Table.from_batches(batches).cast(_sent_schema(columns)),
        )

    def _send(
        self, target: Target, columns: Sequence[ReplicaColumn], batches: Iterator[pa.RecordBatch]
    ) -> None:
        """Load rows; JSON, which no Parquet file can hold, goes through a table that has it as text."""
        first = next(batches, None)
        if first is None:
            return
        batches = chain([first], batches)
        if not any(column.holding.staged_sql for column in columns):
            self._load(target, columns, batches)
            return
        texts = self.staging(target, "text")
        self.create_table(texts, [_as_text(column) for column in columns], Layout(), existing="replace")
        try:
            self._load(texts, columns, batches)
            self._queries.run(_parse_sql(texts, target, columns))
        finally:
            self.drop_table(texts)

    def _load(
        self, target: Target, columns: Sequence[ReplicaColumn], batches: Iterator[pa.RecordBatch]
    ) -> None:
        limits = self.dialect.capabilities
        loads = ParquetLoads(
            self._client,
            self._table(target),
            f"dwh_load_{self._token}_{self._loads}",
            self._queries.labels,
            file_bytes=limits.file_bytes,
            parallel=limits.parallel_files,
        )
        try:
            loads.load(_sent_schema(columns), batches)
        finally:
            self._loads += loads.jobs

    # --- Finding tables ---

    def _reference(self, target: Target) -> bigquery.TableReference:
        project = target.database or self._client.project
        return bigquery.DatasetReference(project, target.schema).table(target.name)

    def _found(self, target: Target) -> bigquery.Table | None:
        with explained(f"{target} could not be looked at"):
            try:
                table = self._client.get_table(self._reference(target))
            except api.NotFound:
                return None
        self._at(table.location)
        return table

    def _table(self, target: Target) -> bigquery.Table:
        found = self._found(target)
        if found is None:
            raise ConfigurationError(
                f"The table {target} is gone.", remedy="Repeat the sync; let nobody drop its tables."
            )
        return found

    def _at(self, location: str | None) -> None:
        """Remember where the datasets are: a transaction has to begin there, and names no table."""
        self._queries.location = location or self._queries.location


def _is_staging(target: Target) -> bool:
    return target.name.startswith(_STAGING)


def _is_nested(column: ReplicaColumn) -> bool:
    return not column.field.field_type.is_primitive


def _as_text(column: ReplicaColumn) -> ReplicaColumn:
    if column.holding.staged_sql is None:
        return column
    return replace(column, holding=replace(column.holding, sql_type="STRING", staged_sql=None))


def _parse_sql(source: Target, into: Target, columns: Sequence[ReplicaColumn]) -> str:
    names_sql = ", ".join(quote(column.name) for column in columns)
    values_sql = ", ".join(
        column.holding.staged_sql(quote(column.name)) if column.holding.staged_sql else quote(column.name)
        for column in columns
    )
    return f"INSERT INTO {qualify(into)} ({names_sql}) SELECT {values_sql} FROM {qualify(source)}"


def _sent_schema(columns: Sequence[ReplicaColumn]) -> pa.Schema:
    """Return the columns as files have them; a required one must say so there, too."""
    return pa.schema(
        [
            pa.field(column.name, column.holding.arrow_type, nullable=not column.field.required)
            for column in columns
        ]
    )


def _up_to(
    rows: pa.RecordBatchReader, most_bytes: int
) -> tuple[list[pa.RecordBatch], Iterator[pa.RecordBatch] | None]:
    """Return the first batches, and the others if there are more bytes than that."""
    batches = iter(rows)
    few: list[pa.RecordBatch] = []
    for batch in batches:
        few.append(batch)
        if sum(one.nbytes for one in few) > most_bytes:
            return few, batches
    return [batch for batch in few if batch.num_rows], None
