"""DuckDB's Iceberg extension, through Iceberg's REST server: the strongest peer."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any

from dwh_tests.benchmarks.data import load
from dwh_tests.benchmarks.engines.duckdb_peer import merge_sql
from dwh_tests.benchmarks.engines.lake import NAMESPACE, TABLE, WARM_UP, WARM_UP_ROWS, remember, restore
from dwh_tests.benchmarks.extensions import connect, iceberg_facts, missing
from dwh_tests.benchmarks.model import Facts, Work

_EXTENSIONS = ("avro", "httpfs", "iceberg")


class _DuckDBIceberg(Work):
    """What CREATE TABLE AS and MERGE INTO share."""

    needs = tuple(partial(missing, name) for name in _EXTENSIONS)
    needs_rest = True
    connection: Any

    def connect(self) -> None:
        self.connection = connect(*_EXTENSIONS)
        attach = (
            f"ATTACH '' AS lake (TYPE iceberg, ENDPOINT '{self.job.rest_uri}', AUTHORIZATION_TYPE 'none')"
        )
        self.connection.execute(attach)
        self.connection.execute(f"CREATE SCHEMA IF NOT EXISTS lake.{NAMESPACE}")
        self.connection.execute("SET preserve_insertion_order = false")

    def catalog(self) -> Any:
        from pyiceberg.catalog import load_catalog

        return load_catalog("bench", type="rest", uri=self.job.rest_uri)

    def create(self, table: str, input_sql: str) -> None:
        by_day = self.task.by_day
        partitioned = f" PARTITIONED BY (day({by_day}))" if by_day else ""
        self.connection.execute(f"CREATE TABLE lake.{table}{partitioned} AS {input_sql}")

    def make_room(self, table: str) -> None:
        """Drop the table. On local files the extension makes no folders, so they are made for it."""
        catalog = self.catalog()
        if catalog.table_exists(table):
            catalog.drop_table(table)
        folder = (self.job.rest_warehouse or Path()).joinpath(*table.split("."))
        shutil.rmtree(folder, ignore_errors=True)
        for name in ("data", "metadata"):
            (folder / name).mkdir(parents=True)

    def facts(self) -> Facts:
        return iceberg_facts(self.catalog().load_table(TABLE).metadata_location, self.task)

    def close(self) -> None:
        self.connection.close()


class CreateTableAs(_DuckDBIceberg):
    """CREATE TABLE AS from an Arrow table."""

    def open(self) -> None:
        self.connect()
        self.make_room(TABLE)
        self.connection.register("input", load(self.job.inputs / "base.parquet"))

    def run(self) -> None:
        self.create(TABLE, "FROM input")


class Merge(_DuckDBIceberg):
    """MERGE INTO a table that the extension made itself; it marks rows by position deletes."""

    def prepare(self) -> None:
        self.job.folder.mkdir(parents=True, exist_ok=True)
        self.connect()
        base = f"FROM '{self.job.inputs / 'base.parquet'}'"
        for table, input_sql in ((TABLE, base), (WARM_UP, f"{base} LIMIT {WARM_UP_ROWS}")):
            self.make_room(table)
            self.create(table, input_sql)
        remember(self.catalog(), self.job.folder)

    def open(self) -> None:
        restore(self.catalog(), self.job.folder)
        self.connect()
        rows = load(self.job.inputs / "source.parquet")
        self.connection.register("few", rows.slice(0, WARM_UP_ROWS // 10))
        self.connection.execute(merge_sql(f"lake.{WARM_UP}", "few", self.task.keys))
        self.connection.register("source", rows)

    def run(self) -> None:
        self.connection.execute(merge_sql(f"lake.{TABLE}", "source", self.task.keys))
