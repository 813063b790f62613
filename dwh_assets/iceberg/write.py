"""Write Arrow data to an Iceberg table: one write is one snapshot.

    writer = IcebergWriter(IcebergWriterConfig(
        catalog="sql", catalog_config={"uri": "sqlite:///cat.db", "warehouse": "file:///lake"},
        table="sales.orders"))
    result = writer.write(arrow_table)

The way through: source -> columns decided and aligned -> laid out by partition -> Parquet files ->
one commit that carries the schema change, the files and the summary together.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from typing import Any, ClassVar

import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.expressions import AlwaysTrue, And, BooleanExpression
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table
from pyiceberg.table.refs import MAIN_BRANCH
from pyiceberg.table.snapshots import Operation

from dwh_assets.config import IcebergWriterConfig
from dwh_assets.errors import (
    CommitUnknownError,
    ConfigurationError,
    ConflictError,
    DataError,
    DwhError,
)
from dwh_assets.iceberg.arrow.sources import as_reader, in_memory
from dwh_assets.iceberg.arrow.types import align, shown_values
from dwh_assets.iceberg.capabilities import CAPABILITIES, Capabilities
from dwh_assets.iceberg.catalogs.load import load_catalog
from dwh_assets.iceberg.commit import Committed, commit, with_first_snapshot
from dwh_assets.iceberg.declaration import Shape, create_table, decide_shape, drop_unused, find_table
from dwh_assets.iceberg.doctor.check import Check
from dwh_assets.iceberg.doctor.examination import examine_table
from dwh_assets.iceberg.faults import damaged_metadata, explained, own_errors, readable
from dwh_assets.iceberg.files.data_files import FileTarget
from dwh_assets.iceberg.files.layout import write_batches
from dwh_assets.iceberg.files.partition_set import PartitionSet
from dwh_assets.iceberg.filters import filter_expression, matches
from dwh_assets.iceberg.keys import key_property
from dwh_assets.iceberg.matching.source_rows import SourceRows
from dwh_assets.iceberg.modes.merge import Merge
from dwh_assets.iceberg.modes.merge_clauses import (
    compile_clauses,
    with_condition_columns,
    without_condition_columns,
)
from dwh_assets.iceberg.modes.overwrite import Overwrite
from dwh_assets.iceberg.modes.plan import Append, Mode, Planned
from dwh_assets.iceberg.modes.upsert import Upsert
from dwh_assets.iceberg.results import IDEMPOTENCY_KEY, WriteResult, result_of, written_before
from dwh_assets.iceberg.row_counts import TOTAL_ROWS, total_rows
from dwh_assets.iceberg.schema_evolution import declare
from dwh_assets.iceberg.snapshot import Change
from dwh_assets.iceberg.stream import (
    STREAM_PREFIX,
    MicroBatches,
    Source,
    StreamPosition,
    StreamResult,
    stream_offset,
    stream_offsets,
)
from dwh_assets.iceberg.versions import at_branch, branch_start

_log = logging.getLogger(__name__)


# Takes what landed on a branch, or wants it again on main as it now is.
Accept = Callable[[WriteResult], bool]


class IcebergWriter:
    """Writes one table as its configuration says. Safe to use from many processes at once.

    A branch that it makes is kept for `branch_lifetime` from its newest commit on; None is for ever.
    """

    capabilities: ClassVar[Capabilities] = CAPABILITIES

    def __init__(
        self,
        config: IcebergWriterConfig,
        *,
        catalog: Catalog | None = None,
        branch_lifetime: timedelta | None = None,
    ) -> None:
        self.config = config
        self.branch_lifetime = branch_lifetime
        self._catalog = catalog

    @property
    def catalog(self) -> Catalog:
        """The table's catalog, opened at its first use: a doctor has to come to one that does not answer."""
        if self._catalog is None:
            try:
                self._catalog = load_catalog(self.config.resolved_catalog())
            except DwhError as error:
                raise type(error)(f"{self.config.table}: {error.message}", remedy=error.remedy) from None
        return self._catalog

    def doctor(self, data: Any = None, *, probe: bool = True) -> list[Check]:
        """Check the catalog, the store and the declared table; say what is wrong and what to do.

        Returns one `Check` for each of `capabilities.doctor_checks`, in that order, and never raises. The
        table is not changed: permissions are proved on a probe table that is dropped again, with a small file
        and with a commit that changes nothing. Without `probe` nothing is written, and those are skipped.
        `data` (rows, or a `pyarrow.Schema`) are compared with the table's columns, and not written.
        """
        return examine_table(self.config, lambda: self.catalog, data, probe=probe)

    def write(
        self,
        data: Any,
        *,
        where: str | BooleanExpression | None = None,
        summary: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
    ) -> WriteResult:
        """Write `data` (see `sources.as_reader` for what may be given) as one snapshot.

        In overwrite mode the rows that match `where` (default: all) are replaced by the data, which must
        match it themselves; no other row is touched. It narrows what `overwrite` and `overwrite_where` of
        the configuration say. `summary` entries are kept in the snapshot's summary.
        A repeat with the same `idempotency_key` writes nothing and returns what the first write did.
        A write that changes nothing makes no snapshot, except for a table that has none yet.

        Raises `SchemaError`, `DataError` and `ConfigurationError` before anything has changed,
        `ConflictError` when other commits were always faster, and `CommitUnknownError`; `UnavailableError`,
        `ConfigurationError`, `NotFoundError` and `DamagedError` for faults of the catalog, store or files.
        """
        return self._once(data, where, summary, idempotency_key)

    def write_accepted(
        self,
        data: Any,
        accept: Accept,
        *,
        where: str | BooleanExpression | None = None,
        summary: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
    ) -> WriteResult:
        """Write as `write` does, to a branch of its own that begins where main is, until `accept` takes it.

        `accept` is given what landed. Where it returns False it has dropped the branch, because main has
        moved: the same data are matched and planned again on main as it now is, the branch begins anew.
        What it raises leaves the branch as it is. A key that main has already is a write that was done.
        A table that is made for this gets a snapshot without rows first, since a branch has to begin
        somewhere; if nothing is accepted, it goes again, unless somebody else has anything of it by then.
        """
        return self._once(data, where, summary, idempotency_key, accept)

    def _once(
        self,
        data: Any,
        where: str | BooleanExpression | None,
        summary: Mapping[str, str] | None,
        idempotency_key: str | None,
        accept: Accept | None = None,
    ) -> WriteResult:
        if where is not None and self.config.write_mode != "overwrite":
            raise ConfigurationError(
                f"{self.config.table}: a filter needs write_mode overwrite, not {self.config.write_mode}.",
                remedy="Leave out where, or set write_mode: overwrite.",
            )
        _require_free_entries(self.config.table, summary or {})
        key = idempotency_key or self.config.idempotency_key
        existing = find_table(self.catalog, self.config.table)
        if existing is not None and key is not None:
            first = written_before(existing, self.config.branch, key)
            if first is not None:
                return first
        return self._write(
            existing,
            as_reader(data),
            held=in_memory(data),
            where=where,
            summary=summary,
            key=key,
            accept=accept,
        )

    def write_stream(
        self,
        source: Source,
        stream: str,
        *,
        commit_rows: int | None = None,
        commit_seconds: float | None = None,
        summary: Mapping[str, str] | None = None,
    ) -> StreamResult:
        """Feed the table from a stream of Arrow batches, in micro-batches of so many rows or seconds.

        `source` holds the stream's rows from its beginning (those that the table has are skipped), or is a
        function that takes the offset, in rows, to begin at. Each micro-batch is one snapshot and is written
        exactly once: after a crash, call it again. Without `commit_rows` and `commit_seconds` all is one
        snapshot; where the columns change, a new one begins. Memory is bounded, whatever the stream's length.

        Raises what `write` raises; `ConflictError` when another writer feeds the same stream,
        `ConfigurationError` for an overwrite: each micro-batch would replace the one before.
        """
        if self.config.write_mode == "overwrite":
            raise ConfigurationError(
                f"{self.config.table}: a stream cannot be written with write_mode overwrite.",
                remedy="Use append, upsert or merge.",
            )
        table = find_table(self.catalog, self.config.table)
        offset = began = stream_offset(table, stream, self.config.branch)
        written = result_of(table, table.metadata.snapshot_by_name(self.config.branch)) if table else None
        commits = 0
        for reader in MicroBatches(source, offset, commit_rows, commit_seconds):
            position = StreamPosition(stream, offset)
            result = self._write(table, reader, summary=summary, position=position)
            written = written.then(result) if written and commits else result
            commits += 1
            table = find_table(self.catalog, self.config.table)
            offset = stream_offset(table, stream, self.config.branch)
        return StreamResult(stream, offset, offset - began, commits, written)

    def _write(
        self,
        table: Table | None,
        reader: pa.RecordBatchReader,
        *,
        held: bool = False,
        where: str | BooleanExpression | None = None,
        summary: Mapping[str, str] | None = None,
        key: str | None = None,
        position: StreamPosition | None = None,
        accept: Accept | None = None,
    ) -> WriteResult:
        marked = {**(summary or {}), **({IDEMPOTENCY_KEY: key} if key else {})}
        with explained(self.config.table, self.catalog.name):
            target = table or self._create(reader.schema)
            try:
                return _Write(self, target, reader, where, marked, position, held=held, accept=accept).run()
            except CommitUnknownError:
                raise
            except Exception:
                if table is None:
                    drop_unused(self.catalog, target, self.config.branch)
                raise

    def _create(self, arrow: pa.Schema) -> Table:
        """Create the table for the data; a merge that cannot be is refused before."""
        name = self.config.table
        columns = without_condition_columns(arrow, self.config, name)
        if self.config.merge is not None:
            schema = declare(columns, self.config.columns, self.config.key_columns, name)
            compile_clauses(self.config, schema, arrow, name)
        return create_table(self.catalog, name, self.config, columns)


class _Write:
    """One run of `IcebergWriter.write`: decide the shape, then plan and commit until it holds."""

    def __init__(
        self,
        writer: IcebergWriter,
        table: Table,
        reader: pa.RecordBatchReader,
        where: str | BooleanExpression | None,
        summary: dict[str, str],
        position: StreamPosition | None,
        *,
        held: bool,
        accept: Accept | None,
    ) -> None:
        self._started = time.monotonic()
        self._config = writer.config
        self._catalog = writer.catalog
        self._branch_lifetime = writer.branch_lifetime
        self._name = writer.config.table
        self._table = table
        self._seen = at_branch(table, self._config.branch)
        self._incoming = without_condition_columns(reader.schema, self._config, self._name)
        self._summary = summary
        self._position = position
        self._shape = decide_shape(table.metadata, self._config, self._incoming, self._name)
        self._clauses = compile_clauses(self._config, self._shape.schema, reader.schema, self._name)
        self._where = And(
            filter_expression(self._shape.schema, self._config.overwrite_where, self._name),
            filter_expression(self._shape.schema, where, self._name),
        )
        self._target = self._file_target()
        self._required = [name for name, column in self._config.columns.items() if column.required]
        self._rows = 0
        self._reader = reader
        self._held = held
        self._accept = accept
        self._landed: int | None = None
        self._used: tuple[DataFile, ...] = ()
        self._planned = Planned()
        self._planned_shape = self._shape

    def run(self) -> WriteResult:
        with ExitStack() as resources:
            mode = self._mode(resources)
            try:
                with readable(self._name, lambda: damaged_metadata(self._table)):
                    committed = self._commit(mode)
                    while committed and self._accept and not self._accept(self._result(committed)):
                        committed = self._commit(mode)
            except CommitUnknownError:
                raise
            except Exception:  # no interrupt: the catalog may be at work then, and the commit still land
                mode.discard(self._used if self._is_kept() else ())
                raise
            mode.discard(self._used)
        result = self._result(committed)
        _log.info("iceberg.write.complete %s", _event(result), extra={"event": _event(result)})
        return result

    def _is_kept(self) -> bool:
        """Tell whether the table has the snapshot that was not accepted; what cannot be seen, it may have."""
        if self._landed is None:
            return False
        try:
            return self._table.refresh().snapshot_by_id(self._landed) is not None
        except Exception:
            return True

    def _commit(self, mode: Mode) -> Committed | None:
        self._landed, self._used = None, ()
        if self._accept is not None:
            self._table = with_first_snapshot(self._catalog, self._table.refresh())
        committed = commit(
            self._catalog, self._table, lambda table: self._plan(mode, table), branch=self._config.branch
        )
        if committed is not None:
            self._landed = committed.snapshot.snapshot_id
            self._used = committed.change.added + committed.change.added_deletes
        return committed

    def _mode(self, resources: ExitStack) -> Mode:
        """Take in the data; return what plans this write on a version of the table."""
        schema = with_condition_columns(self._target.arrow_schema, self._reader.schema, self._config)
        aligned = pa.RecordBatchReader.from_batches(schema, self._aligned(schema))
        if self._config.write_mode in ("upsert", "merge"):
            source = resources.enter_context(SourceRows(aligned, self._config, self._name))
            if self._config.write_mode == "upsert":
                return Upsert(source, self._target, self._config)
            return Merge(source, self._target, self._config, self._clauses, self._name)
        files = write_batches(self._target, aligned, held=self._held)
        if self._config.write_mode == "append":
            return Append(self._target, files)
        return Overwrite(self._target, files, self._where, self._partitions(files))

    def _partitions(self, files: Sequence[DataFile]) -> PartitionSet | None:
        """Return the partitions that the data fell into, where just these are to be overwritten."""
        if self._config.overwrite == "table":
            return None
        return PartitionSet(self._target.spec, self._target.schema, (file.partition for file in files))

    def _file_target(self) -> FileTarget:
        properties = {**self._seen.metadata.properties, **self._config.table_properties}
        return FileTarget(
            io=self._table.io,
            locations=self._seen.location_provider(),
            schema=self._shape.file_schema,
            watched=self._shape.relaxable,
            spec=self._shape.spec,
            sort_order=self._shape.sort_order,
            properties=properties,
            file_size=self._config.target_file_size_bytes,
        )

    def _aligned(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """Stream the data in the table's columns; each batch is checked before it goes on."""
        for batch in own_errors(self._reader):
            rows = align(batch, schema, self._name, required=self._required)
            self._require_inside(rows)
            self._rows += rows.num_rows
            yield rows

    def _require_inside(self, rows: pa.RecordBatch) -> None:
        """Refuse rows that the overwrite would not replace: a second run would write them twice."""
        if self._where == AlwaysTrue():
            return
        outside = pa.Table.from_batches([rows]).filter(~matches(self._shape.schema, self._where))
        if outside.num_rows:
            first = {name: shown_values(outside[name].slice(0, 1))[0] for name in outside.column_names}
            sample = {name: value for name, value in first.items() if value is not None}
            raise DataError(
                f"{self._name}: {outside.num_rows} rows lie outside of what is overwritten ({self._where}); "
                f"the first is {sample}.",
                remedy="Give only rows of that partition or filter.",
            )

    def _plan(self, mode: Mode, table: Table) -> Change | None:
        if self._position:
            self._position.require(table, self._config.branch)
        if self._earlier_attempt(table):
            return None
        if self._accept and self._config.branch in table.metadata.refs:
            raise ConflictError(
                f"{self._name}: branch {self._config.branch!r} was made by somebody else during this write.",
                remedy="Run the write again.",
            )
        shape = self._shape_on(table)
        seen = at_branch(table, self._config.branch)
        planned = self._planned = mode.plan(seen, self._config.branch)
        shape = self._planned_shape = shape.relaxed(self._target.nulls)
        declared = self._config.table_properties
        differs = any(seen.metadata.properties.get(key) != value for key, value in declared.items())
        # A stream's offset moves on even where its rows change nothing.
        moves = planned.changes_files or shape.changes or differs or self._position
        # A branch of its own is not made for nothing; one that is asked for is.
        name = MAIN_BRANCH if self._accept else self._config.branch
        if not moves and table.metadata.snapshot_by_name(name) is not None:
            return None
        takes_away = planned.removed or planned.added_deletes
        return Change(
            operation=Operation.OVERWRITE if takes_away else Operation.APPEND,
            added=planned.added,
            removed=planned.removed,
            added_deletes=planned.added_deletes,
            schema=shape.schema if shape.schema != seen.schema() else None,
            spec=shape.spec,
            sort_order=shape.sort_order,
            properties={**key_property(shape.schema, self._config.key_columns), **declared},
            summary={
                **self._streams(table),
                **self._summary,
                **planned.summary(),
                **self._total_rows(table, planned),
            },
            branch_lifetime=self._branch_lifetime,
        )

    def _total_rows(self, table: Table, planned: Planned) -> dict[str, str]:
        before = total_rows(table, branch_start(table.metadata, self._config.branch))
        if before is None:
            return {}
        return {TOTAL_ROWS: str(before + planned.net_rows)}

    def _earlier_attempt(self, table: Table) -> WriteResult | None:
        """Another attempt at this very write may land while this one is under way."""
        key = self._summary.get(IDEMPOTENCY_KEY)
        return written_before(table, self._config.branch, key) if key else None

    def _streams(self, table: Table) -> dict[str, str]:
        """Carry the offsets of all streams forward, so that the head always tells them."""
        offsets = stream_offsets(table, self._config.branch)
        if self._position:
            offsets[STREAM_PREFIX + self._position.stream] = str(self._position.offset + self._rows)
        return offsets

    def _shape_on(self, table: Table) -> Shape:
        """Decide again on the newest table; the files that are written must fit what comes out."""
        shape = decide_shape(table.metadata, self._config, self._incoming, self._name)
        if not shape.same_files(self._shape):
            raise ConflictError(
                f"{self._name}: another commit changed its columns, partitioning or order during this write.",
                remedy="Run the write again.",
            )
        return shape

    def _result(self, committed: Committed | None) -> WriteResult:
        if committed is None and (earlier := self._earlier_attempt(self._table)):
            return earlier
        if committed is None:
            unchanged = self._planned.rows_unchanged
            head = branch_start(self._table.metadata, self._config.branch)
            return replace(result_of(self._table, head), rows_unchanged=unchanged)
        return replace(
            result_of(committed.table, committed.snapshot, made=True),
            schema_changes=self._planned_shape.changes,
            attempts=committed.attempts,
            seconds=time.monotonic() - self._started,
        )


def _require_free_entries(table: str, summary: Mapping[str, str]) -> None:
    """Refuse entries of a snapshot's summary that Iceberg keeps itself."""
    reserved = ("added-", "deleted-", "removed-", "total-", "changed-partition", "partition")
    taken = [key for key in summary if key == "operation" or key.startswith(reserved)]
    if taken:
        raise ConfigurationError(
            f"{table}: the summary entry {taken[0]!r} is Iceberg's own.", remedy="Give it another name."
        )


def _event(result: WriteResult) -> dict[str, Any]:
    return {
        "table": result.table,
        "rows_written": result.rows_written,
        "files_written": result.files_written,
        "snapshot_id": result.snapshot_id,
        "manifest_list": result.manifest_list,
    }
