"""Many rows: written as Parquet, put onto a temporary stage in parallel, and copied by one statement.

Columns have numbers for names in the files (`c0`), so whatever a name holds never is in a path of JSON.
A group of files is put while the next one is written. Files begin small, since many small ones load faster
than few large ones, and grow with what was sent, so that even a large table has not too many.
"""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq

from dwh_assets.errors import UnavailableError
from dwh_assets.iceberg.files.gather import pieces
from dwh_assets.warehouses.base import Target
from dwh_assets.warehouses.dialect import Dialect, ReplicaColumn
from dwh_assets.warehouses.snowflake.literals import quote_literal
from dwh_assets.warehouses.snowflake.statements import Statements

_ROW_GROUP_BYTES = 16 << 20
_LARGEST_FILE_BYTES = 128 << 20
# By so many files of a size the next ones are larger.
_GROWTH = 16
_FORMAT_SQL = "(TYPE = PARQUET USE_LOGICAL_TYPE = TRUE BINARY_AS_TEXT = FALSE)"
_ROWS_LOADED = 3


@dataclass
class StagedLoad:
    """One load into one table, all or nothing; no other one has its `number` on the stage."""

    statements: Statements
    dialect: Dialect
    stage: Target
    number: int
    rows: int = 0

    def run(
        self, target: Target, columns: Sequence[ReplicaColumn], batches: Iterable[pa.RecordBatch]
    ) -> None:
        """Add the rows to the table. Raises what reading them raises, and `UnavailableError`."""
        with TemporaryDirectory(prefix="dwh-snowflake-") as folder, ThreadPoolExecutor(1) as uploader:
            upload: Future[None] | None = None
            for group in self._written(Path(folder), batches):
                if upload:
                    upload.result()
                upload = uploader.submit(self._put, group)
            if upload:
                upload.result()
                self._copy(target, columns)

    def _written(self, folder: Path, batches: Iterable[pa.RecordBatch]) -> Iterator[Path]:
        """Write the rows, and yield folders with as many files as are put at the same time."""
        limits = self.dialect.capabilities
        tables = pieces((pa.Table.from_batches([batch]) for batch in batches), _ROW_GROUP_BYTES)
        sent, more = 0, True
        for number in count():
            group = folder / str(number)
            group.mkdir()
            for place in range(limits.parallel_files):
                file = group / f"{number}-{place}.parquet"
                size = min(max(limits.file_bytes, sent // _GROWTH), _LARGEST_FILE_BYTES)
                rows = _write_file(file, tables, size)
                more = rows > 0
                if not more:
                    break
                self.rows += rows
                sent += file.stat().st_size
            if any(group.iterdir()):
                yield group
            if not more:
                return

    def _put(self, group: Path) -> None:
        source_sql = quote_literal(f"file://{glob.escape(group.as_posix())}/*.parquet")
        at_once = self.dialect.capabilities.parallel_files
        self.statements.run(
            f"PUT {source_sql} {self._place_sql} AUTO_COMPRESS=FALSE PARALLEL={at_once} OVERWRITE=TRUE"
        ).close()
        rmtree(group)

    def _copy(self, target: Target, columns: Sequence[ReplicaColumn]) -> None:
        copied = self.statements.fetch(copy_sql(self.dialect, target, columns, self._place_sql))
        loaded = sum(int(file[_ROWS_LOADED]) for file in copied if len(file) > _ROWS_LOADED)
        if loaded != self.rows:
            raise UnavailableError(
                f"{target}: {self.rows:,} rows were put onto the stage, and {loaded:,} were copied from it.",
                remedy="Repeat the call.",
            )

    @property
    def _place_sql(self) -> str:
        return f"@{self.dialect.qualify(self.stage)}/{self.number}/"


def copy_sql(dialect: Dialect, target: Target, columns: Sequence[ReplicaColumn], place_sql: str) -> str:
    """Return the statement that copies staged files into a table, and removes them from the stage."""
    names_sql = ", ".join(dialect.quote(column.name) for column in columns)
    values_sql = ", ".join(_stored_sql(column, f"$1:c{number}") for number, column in enumerate(columns))
    return (
        f"COPY INTO {dialect.qualify(target)} ({names_sql}) FROM (SELECT {values_sql} FROM {place_sql})"
        f" FILE_FORMAT = {_FORMAT_SQL} PURGE = TRUE"
    )


def _stored_sql(column: ReplicaColumn, value_sql: str) -> str:
    holding = column.holding
    if holding.staged_sql:
        return holding.staged_sql(f"CAST({value_sql} AS VARCHAR)")
    return f"CAST({value_sql} AS {holding.sql_type})"


def _write_file(path: Path, tables: Iterator[pa.Table], file_bytes: int) -> int:
    """Write row groups until the file is large enough; return how many rows there were left to write."""
    table = next(tables, None)
    if table is None:
        return 0
    names = [f"c{number}" for number in range(table.num_columns)]
    rows = 0
    with (
        path.open("wb") as file,
        pq.ParquetWriter(file, table.rename_columns(names).schema, compression="snappy") as writer,
    ):
        while table is not None:
            writer.write_table(table.rename_columns(names), row_group_size=table.num_rows)
            rows += table.num_rows
            table = next(tables, None) if file.tell() < file_bytes else None
    return rows
