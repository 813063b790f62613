"""Parquet files without a table format: the floor that appends stand on."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dwh_tests.benchmarks.data import facts_sql, load, one_row
from dwh_tests.benchmarks.extensions import connect
from dwh_tests.benchmarks.model import Facts, Work
from dwh_tests.servers.availability import package


class FilesWork(Work):
    """Work that leaves Parquet files in a folder."""

    @property
    def output(self) -> Path:
        """The folder for the files."""
        return self.job.folder / "files"

    def empty_output(self) -> None:
        """Make the folder, and make it empty."""
        shutil.rmtree(self.output, ignore_errors=True)
        self.output.mkdir(parents=True)

    def facts(self) -> Facts:
        with connect() as connection:
            return one_row(connection, facts_sql(self.task, f"'{self.output}/**/*.parquet'"))


class PyArrowHalves(FilesWork):
    """`pyarrow.parquet.write_table` of two halves on two threads."""

    rows: pa.Table

    def open(self) -> None:
        self.rows = load(self.job.inputs / "base.parquet")
        self.empty_output()

    def run(self) -> None:
        half = -(-self.rows.num_rows // 2)
        with ThreadPoolExecutor(2) as pool:
            parts = [pool.submit(self._write, number, half) for number in range(2)]
        for part in parts:
            part.result()

    def _write(self, number: int, size: int) -> None:
        part = self.rows.slice(number * size, size)
        pq.write_table(part, self.output / f"{number}.parquet", compression="zstd")


class Polars(FilesWork):
    """`polars.DataFrame.write_parquet`, at the level of zstd that PyArrow takes."""

    needs = (package("polars", "polars"),)
    frame: Any

    def open(self) -> None:
        import polars as pl

        self.frame = pl.from_arrow(load(self.job.inputs / "base.parquet"))
        self.empty_output()

    def run(self) -> None:
        self.frame.write_parquet(self.output / "all.parquet", compression="zstd", compression_level=1)
