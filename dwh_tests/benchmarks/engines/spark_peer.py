"""Spark with Iceberg's runtime, in its own `hadoop` catalog on local files."""

from __future__ import annotations

from typing import Any

from dwh_tests.benchmarks.engines.lake import NAMESPACE, TABLE
from dwh_tests.benchmarks.extensions import iceberg_facts
from dwh_tests.benchmarks.model import Facts, Unavailable, Work
from dwh_tests.servers.availability import java, package

# The version of Spark is part of the name, and has to be that of pyspark.
RUNTIME = "org.apache.iceberg:iceberg-spark-runtime-4.1_2.13:1.11.0"
_MERGE_ON_READ = ", ".join(
    f"'write.{action}.mode' = 'merge-on-read'" for action in ("delete", "update", "merge")
)


class _Spark(Work):
    """What CREATE TABLE AS and MERGE INTO share."""

    needs = (java(), package("pyspark", "dwh_assets[spark]"))
    forks = True
    session: Any

    def connect(self) -> None:
        from pyspark.sql import SparkSession

        settings = {
            "spark.jars.packages": RUNTIME,
            "spark.sql.extensions": "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions",
            "spark.sql.catalog.lake": "org.apache.iceberg.spark.SparkCatalog",
            "spark.sql.catalog.lake.type": "hadoop",
            "spark.sql.catalog.lake.warehouse": (self.job.folder / "lake").as_uri(),
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.driver.host": "127.0.0.1",
            "spark.driver.memory": "4g",
            "spark.sql.session.timeZone": "UTC",
            "spark.sql.shuffle.partitions": "4",
            "spark.ui.enabled": "false",
        }
        builder = SparkSession.builder.master("local[2]").appName("dwh_tests.benchmarks")
        for key, value in settings.items():
            builder = builder.config(key, value)
        self.job.folder.mkdir(parents=True, exist_ok=True)
        try:
            self.session = builder.getOrCreate()
        except Exception as error:
            first_line = str(error).strip().partition("\n")[0]
            raise Unavailable(f"Spark did not start with {RUNTIME}: {first_line}") from error
        self.session.sparkContext.setLogLevel("ERROR")
        self.session.sql(f"CREATE NAMESPACE IF NOT EXISTS lake.{NAMESPACE}")

    def view(self, name: str) -> None:
        """Show an input to SQL. Spark reads it from its file: it has no cheaper way to take Arrow data in."""
        path = str(self.job.inputs / f"{name}.parquet")
        self.session.read.parquet(path).createOrReplaceTempView(name)

    def facts(self) -> Facts:
        folder = self.job.folder.joinpath("lake", *TABLE.split("."), "metadata")
        version = (folder / "version-hint.text").read_text().strip()
        return iceberg_facts(str(folder / f"v{version}.metadata.json"), self.task)

    def close(self) -> None:
        self.session.stop()


class CreateTableAs(_Spark):
    """CREATE TABLE AS, after the same with a few rows."""

    def open(self) -> None:
        self.connect()
        self.view("base")
        self._create(f"{NAMESPACE}.warm_up", "SELECT * FROM base LIMIT 1000")
        self.session.sql(f"DROP TABLE IF EXISTS lake.{TABLE} PURGE")

    def run(self) -> None:
        self._create(TABLE, "SELECT * FROM base")

    def _create(self, table: str, query: str) -> None:
        by_day = self.task.by_day
        partitioned = f"PARTITIONED BY (days({by_day}))" if by_day else ""
        # Only a table of format 2 compares with ours, and DuckDB reads no newer one written by Spark.
        self.session.sql(f"DROP TABLE IF EXISTS lake.{table} PURGE")
        self.session.sql(
            f"CREATE TABLE lake.{table} USING iceberg {partitioned}"
            f" TBLPROPERTIES ('format-version' = '2') AS {query}"
        )


class Changelog(_Spark):
    """`create_changelog_view` with update images, of a copy-on-write table: it takes no other."""

    found: Facts

    def prepare(self) -> None:
        self.connect()
        self.view("base")
        self.view("source")
        self.session.sql(
            f"CREATE TABLE lake.{TABLE} USING iceberg TBLPROPERTIES ('format-version' = '2')"
            " AS SELECT * FROM base"
        )
        same_keys = " AND ".join(f"target.{key} = source.{key}" for key in self.task.keys)
        self.session.sql(
            f"MERGE INTO lake.{TABLE} AS target USING source ON {same_keys} WHEN MATCHED THEN UPDATE SET *"
        )
        self.session.stop()

    def open(self) -> None:
        self.connect()
        history = self.session.sql(f"SELECT snapshot_id FROM lake.{TABLE}.snapshots ORDER BY committed_at")
        self.ids = [row[0] for row in history.collect()]

    def run(self) -> None:
        keys = ", ".join(f"'{key}'" for key in self.task.keys)
        self.session.sql(
            f"CALL lake.system.create_changelog_view(table => '{TABLE}', changelog_view => 'changes',"
            f" options => map('start-snapshot-id', '{self.ids[0]}', 'end-snapshot-id', '{self.ids[-1]}'),"
            f" compute_updates => true, identifier_columns => array({keys}))"
        )
        counted = self.session.table("changes").toPandas()["_change_type"].value_counts()
        self.found = {
            name: str(counted.get(kind, 0))
            for name, kind in (("added", "INSERT"), ("removed", "DELETE"), ("modified", "UPDATE_AFTER"))
        }

    def facts(self) -> Facts:
        return self.found


class Merge(_Spark):
    """Merge-on-read MERGE INTO, after the very same merge: the Java machine is warm."""

    def prepare(self) -> None:
        self.connect()
        self.view("base")
        self.session.sql(
            f"CREATE TABLE lake.{TABLE} USING iceberg"
            f" TBLPROPERTIES ('format-version' = '2', {_MERGE_ON_READ}) AS SELECT * FROM base"
        )
        self.session.stop()

    def open(self) -> None:
        self.connect()
        self.view("source")
        self.session.sql("CACHE TABLE source")
        self._put_back()
        self.run()
        self._put_back()

    def _put_back(self) -> None:
        history = self.session.sql(f"SELECT snapshot_id FROM lake.{TABLE}.snapshots ORDER BY committed_at")
        first = history.first()[0]
        self.session.sql(f"CALL lake.system.rollback_to_snapshot('{TABLE}', {first})")

    def run(self) -> None:
        same_keys = " AND ".join(f"target.{key} = source.{key}" for key in self.task.keys)
        self.session.sql(
            f"MERGE INTO lake.{TABLE} AS target USING source ON {same_keys}"
            " WHEN MATCHED THEN UPDATE SET * WHEN NOT MATCHED THEN INSERT *"
        )
