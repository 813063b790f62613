"""A table copied into a DuckDB file: whole, by what changed, or not at all because nothing did."""

from __future__ import annotations

import shutil
from pathlib import Path

import duckdb
from pyiceberg.table import Table

from dwh_assets import DuckDBWarehouse
from dwh_assets.iceberg.matching.live_rows import local_file
from dwh_assets.warehouses.base import SyncResult
from dwh_assets.warehouses.replica import Replica
from dwh_tests.benchmarks.data import facts_sql, load, one_row
from dwh_tests.benchmarks.engines import comparing, ours
from dwh_tests.benchmarks.engines.lake import TABLE, WARM_UP, WARM_UP_ROWS
from dwh_tests.benchmarks.extensions import connect
from dwh_tests.benchmarks.model import Facts
from dwh_tests.iceberg.diff.compaction import compact

_COPY = "main.copy"


def _emptied(file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    for old in file.parent.glob(f"{file.name}*"):
        old.unlink()
    return file


class _Load(ours.Append):
    """What full loads share: an Iceberg table of one snapshot, and an empty database file."""

    subject_table: Table

    @property
    def database(self) -> Path:
        """The file with the copy."""
        return self.job.folder / "copy.duckdb"

    def prepare(self) -> None:
        rows = load(self.job.inputs / "base.parquet")
        self.writer(TABLE).write(rows)
        self.writer(WARM_UP).write(rows.slice(0, WARM_UP_ROWS))

    def open(self) -> None:
        self.subject_table = self.catalog().load_table(TABLE)
        _emptied(self.database)

    def facts(self) -> Facts:
        with duckdb.connect(self.database) as connection:
            return one_row(connection, facts_sql(self.task, _COPY))


class Load(_Load):
    """The first sync of a replica."""

    def open(self) -> None:
        super().open()
        warm_up = DuckDBWarehouse(_emptied(self.job.folder / "warm_up.duckdb"))
        warm_up.replica(WARM_UP, into=_COPY).sync(self.catalog())

    def run(self) -> None:
        DuckDBWarehouse(self.database).replica(TABLE, into=_COPY).sync(self.subject_table)


class CreateTableAs(_Load):
    """`CREATE TABLE AS` from the table's own Parquet files: the floor."""

    def open(self) -> None:
        super().open()
        tasks = self.subject_table.scan().plan_files()
        self.files = [local_file(task.file.file_path) for task in tasks]

    def run(self) -> None:
        with duckdb.connect(self.database) as connection:
            connection.execute(f"CREATE TABLE {_COPY} AS SELECT * FROM read_parquet(?)", [self.files])


class FromPandas(_Load):
    """The table as a pandas frame, inserted: how such copies are mostly made."""

    def run(self) -> None:
        frame = self.subject_table.scan().to_pandas()
        with duckdb.connect(self.database) as connection:
            # From the default of 1,000 rows it takes prices for smaller decimals than they are.
            connection.execute("SET pandas_analyze_sample = 10000000")
            connection.register("frame", frame)
            connection.execute(f"CREATE TABLE {_COPY} AS SELECT * FROM frame")


class Follow(comparing.Ours):
    """A replica of the version before is brought to the one after; or, `anew`, loaded from nothing."""

    result: SyncResult

    @property
    def database(self) -> Path:
        """The file with the replica."""
        return self.job.folder / "copy.duckdb"

    @property
    def before(self) -> Path:
        """The file with the replica as it was before the change."""
        return self.job.folder / "before.duckdb"

    def prepare(self) -> None:
        super().prepare()
        catalog = self.writer(TABLE).catalog
        for table, file in ((TABLE, self.before), (WARM_UP, self._warm_up)):
            first = catalog.load_table(table).metadata.snapshots[0].snapshot_id
            self._replica(_emptied(file), table).sync(catalog, first)

    def open(self) -> None:
        self.subject = self.writer(TABLE).catalog.load_table(TABLE)
        _emptied(self.database)
        if not self.job.options.get("anew"):
            shutil.copy(self.before, self.database)
        warm_up = _emptied(self.job.folder / "warm.duckdb")
        shutil.copy(self._warm_up, warm_up)
        self._replica(warm_up, WARM_UP).sync(self.writer(WARM_UP).catalog)

    def run(self) -> None:
        self.result = self._replica(self.database, TABLE).sync(self.subject)

    def facts(self) -> Facts:
        """How the replica differs from the version before, by a full outer join."""
        keys = ", ".join(self.task.keys)
        with connect() as connection:
            connection.execute(f"ATTACH '{self.database}' AS held (READ_ONLY)")
            sides = (
                f"(SELECT {keys}, hash(t) AS row FROM '{self.job.inputs / 'base.parquet'}' AS t) AS old",
                f"(SELECT {keys}, hash(t) AS row FROM held.{_COPY} AS t) AS new",
            )
            return one_row(
                connection,
                "SELECT count(*) FILTER (WHERE old.row IS NULL) AS added,"
                " count(*) FILTER (WHERE new.row IS NULL) AS removed,"
                " count(*) FILTER (WHERE old.row <> new.row) AS modified"
                f" FROM {sides[0]} FULL JOIN {sides[1]} USING ({keys})",
            )

    def figures(self) -> dict[str, float]:
        return {"rows sent": float(self.result.rows_inserted + self.result.rows_updated)}

    def close(self) -> None:
        """Nothing is open."""

    @property
    def _warm_up(self) -> Path:
        return self.job.folder / "warm_up.duckdb"

    def _replica(self, file: Path, table: str) -> Replica:
        return DuckDBWarehouse(file).replica(table, into=_COPY)


class Stay(Load):
    """A replica that has all rows already; with `compacted`, the table was compacted since."""

    result: SyncResult

    def prepare(self) -> None:
        super().prepare()
        catalog = self.catalog()
        DuckDBWarehouse(_emptied(self.database)).replica(TABLE, into=_COPY).sync(catalog)
        if self.job.options.get("compacted"):
            compact(catalog, TABLE)
        shutil.copy(self.database, self.database.with_suffix(".before"))

    def open(self) -> None:
        super().open()
        shutil.copy(self.database.with_suffix(".before"), self.database)

    def run(self) -> None:
        self.result = DuckDBWarehouse(self.database).replica(TABLE, into=_COPY).sync(self.subject_table)

    def figures(self) -> dict[str, float]:
        return {"bytes read": float(self.result.bytes)}
