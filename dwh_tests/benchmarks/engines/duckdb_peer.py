"""DuckDB without Iceberg: COPY to Parquet, MERGE INTO a table of its own."""

from __future__ import annotations

import shutil
from typing import Any

from dwh_tests.benchmarks.data import facts_sql, load, one_row
from dwh_tests.benchmarks.engines.files import FilesWork
from dwh_tests.benchmarks.engines.lake import WARM_UP_ROWS
from dwh_tests.benchmarks.extensions import connect
from dwh_tests.benchmarks.model import Facts, Work


class Copy(FilesWork):
    """COPY an Arrow table, by day with PARTITION_BY."""

    connection: Any

    def open(self) -> None:
        self.connection = connect()
        self.connection.execute("SET preserve_insertion_order = false")
        self.connection.register("input", load(self.job.inputs / "base.parquet"))
        self.empty_output()

    def run(self) -> None:
        options = "FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1"
        target = self.output
        if self.task.by_day:
            options += f", PARTITION_BY ({self.task.by_day}), WRITE_PARTITION_COLUMNS true, OVERWRITE"
        else:
            target = target / "all.parquet"
        self.connection.execute(f"COPY (FROM input) TO '{target}' ({options})")

    def close(self) -> None:
        self.connection.close()


class Merge(Work):
    """MERGE INTO a native table in a database file."""

    connection: Any

    def prepare(self) -> None:
        self.job.folder.mkdir(parents=True, exist_ok=True)
        with connect() as connection:
            connection.execute(f"ATTACH '{self.job.folder / 'prepared.duckdb'}' AS lake")
            base = f"'{self.job.inputs / 'base.parquet'}'"
            connection.execute(f"CREATE TABLE lake.subject AS FROM {base}")
            connection.execute(f"CREATE TABLE lake.warm_up AS FROM {base} LIMIT {WARM_UP_ROWS}")

    def open(self) -> None:
        subject = self.job.folder / "subject.duckdb"
        shutil.copyfile(self.job.folder / "prepared.duckdb", subject)
        self.connection = connect()
        self.connection.execute(f"ATTACH '{subject}' AS lake")
        rows = load(self.job.inputs / "source.parquet")
        self.connection.register("few", rows.slice(0, WARM_UP_ROWS // 10))
        self.connection.execute(merge_sql("lake.warm_up", "few", self.task.keys))
        self.connection.register("source", rows)

    def run(self) -> None:
        self.connection.execute(merge_sql("lake.subject", "source", self.task.keys))

    def facts(self) -> Facts:
        return one_row(self.connection, facts_sql(self.task, "lake.subject"))

    def close(self) -> None:
        self.connection.close()


def merge_sql(target: str, source: str, keys: tuple[str, ...]) -> str:
    """An upsert of all columns, in DuckDB's SQL."""
    using = ", ".join(keys)
    return (
        f"MERGE INTO {target} USING {source} USING ({using})"
        " WHEN MATCHED THEN UPDATE WHEN NOT MATCHED THEN INSERT"
    )
