"""delta-rs: MERGE into a Delta table."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pyarrow as pa

from dwh_tests.benchmarks.data import facts_sql, load, one_row
from dwh_tests.benchmarks.engines.lake import WARM_UP_ROWS
from dwh_tests.benchmarks.extensions import connect
from dwh_tests.benchmarks.model import Facts, Work
from dwh_tests.servers.availability import package


class Merge(Work):
    """`DeltaTable.merge` with update all and insert all."""

    needs = (package("deltalake", "deltalake"),)
    rows: pa.Table

    def prepare(self) -> None:
        from deltalake import write_deltalake

        rows = load(self.job.inputs / "base.parquet")
        self.job.folder.mkdir(parents=True, exist_ok=True)
        write_deltalake(self.job.folder / "prepared", rows)
        write_deltalake(self.job.folder / "warm_up", rows.slice(0, WARM_UP_ROWS))

    def open(self) -> None:
        # A Delta table's paths are relative and its files never change: links make a copy.
        shutil.rmtree(self.job.folder / "subject", ignore_errors=True)
        shutil.copytree(self.job.folder / "prepared", self.job.folder / "subject", copy_function=os.link)
        self.rows = load(self.job.inputs / "source.parquet")
        self._merge(self.job.folder / "warm_up", self.rows.slice(0, WARM_UP_ROWS // 10))

    def run(self) -> None:
        self._merge(self.job.folder / "subject", self.rows)

    def _merge(self, table: Path, rows: pa.Table) -> None:
        from deltalake import DeltaTable

        same_keys = " AND ".join(f"target.{key} = source.{key}" for key in self.task.keys)
        merge = DeltaTable(table).merge(rows, same_keys, source_alias="source", target_alias="target")
        merge.when_matched_update_all().when_not_matched_insert_all().execute()

    def facts(self) -> Facts:
        from deltalake import DeltaTable

        files = ", ".join(f"'{path}'" for path in DeltaTable(self.job.folder / "subject").file_uris())
        with connect() as connection:
            return one_row(connection, facts_sql(self.task, f"read_parquet([{files}])"))
