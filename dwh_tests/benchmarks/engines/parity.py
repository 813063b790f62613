"""A replica in DuckDB proved equal to its table: by this project, and by downloading both and comparing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa

from dwh_assets import DuckDBWarehouse, IcebergWriter, IcebergWriterConfig
from dwh_assets.warehouses.columns import replica_columns
from dwh_assets.warehouses.dialect import TypeOptions
from dwh_assets.warehouses.parity import verify
from dwh_assets.warehouses.session import Purpose
from dwh_assets.warehouses.source import open_source
from dwh_tests.benchmarks.data import load
from dwh_tests.benchmarks.engines.lake import TABLE, WARM_UP, WARM_UP_ROWS, catalog_properties
from dwh_tests.benchmarks.model import Facts, Work

if TYPE_CHECKING:
    from pyiceberg.table import Table

_KEYS = ["l_orderkey", "l_linenumber"]


class _Compared(Work):
    """A table and its replica, loaded from it."""

    equal: bool

    @property
    def warehouse(self) -> DuckDBWarehouse:
        return DuckDBWarehouse(self.job.folder / "warehouse.duckdb")

    def lake_table(self, name: str) -> Table:
        return self.writer(name).catalog.load_table(name)

    def writer(self, name: str) -> IcebergWriter:
        catalog: dict[str, Any] = {**catalog_properties(self.job.folder)}
        return IcebergWriter(IcebergWriterConfig(catalog="sql", catalog_config=catalog, table=name))

    def prepare(self) -> None:
        rows = load(self.job.inputs / "base.parquet")
        for name, own in ((TABLE, rows), (WARM_UP, rows.slice(0, WARM_UP_ROWS))):
            writer = self.writer(name)
            writer.write(own)
            self.warehouse.replica(name).sync(writer.catalog)

    def open(self) -> None:
        self.equal = self.compare(WARM_UP)

    def run(self) -> None:
        self.equal = self.compare(TABLE)

    def compare(self, name: str) -> bool:
        raise NotImplementedError

    def facts(self) -> Facts:
        return {"equal": str(self.equal)}

    def expected(self) -> Facts:
        return {"equal": "True"}


class Verify(_Compared):
    """`verify` at the level of fingerprints."""

    def compare(self, name: str) -> bool:
        warehouse = self.warehouse
        with warehouse.open(Purpose(name, None), read_only=True) as session:
            source = open_source(self.lake_table(name), name, None)
            columns = replica_columns(source.schema, session.dialect, TypeOptions(), name)
            target = session.dialect.target(name)
            level: Any = self.job.options.get("level", "fingerprint")
            return verify(session, target, columns, source, level, keys=_KEYS).equal


class _Downloads(_Compared):
    """Both sides fetched as Arrow."""

    def download(self, name: str) -> tuple[pa.Table, pa.Table]:
        replica = self.warehouse.replica(name).read().read_all()
        return self.lake_table(name).scan().to_arrow(), replica


class ExceptAll(_Downloads):
    """DuckDB subtracts each side from the other, duplicates counted."""

    def compare(self, name: str) -> bool:
        table, replica = self.download(name)
        with duckdb.connect() as connection:
            connection.register("lake_rows", table)
            connection.register("replica_rows", replica)
            left = [
                connection.execute(f"SELECT count(*) FROM (FROM {one} EXCEPT ALL FROM {other})").fetchone()
                for one, other in (("lake_rows", "replica_rows"), ("replica_rows", "lake_rows"))
            ]
        return left == [(0,), (0,)]


class SortedArrow(_Downloads):
    """PyArrow sorts both by their key and compares columns."""

    def compare(self, name: str) -> bool:
        table, replica = (side.sort_by([(key, "ascending") for key in _KEYS]) for side in self.download(name))
        return bool(table.equals(replica.cast(table.schema)))


class PandasMerge(_Downloads):
    """Pandas joins both on all columns, and looks for rows of one side only."""

    def compare(self, name: str) -> bool:
        table, replica = (side.to_pandas() for side in self.download(name))
        merged = table.merge(replica, how="outer", indicator=True)
        return len(merged) == len(table) and bool((merged["_merge"] == "both").all())
