"""The shipped lakehouse rolled back by its job: three levels of tables, partitions, replicas in any state."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pyarrow as pa
import pytest
from dagster_duckdb import DuckDBResource
from pyiceberg.table import DataScan

from dwh_assets.definitions import defs
from dwh_assets.orchestration.replica_io import DuckDBReplicaIOManager
from dwh_tests.orchestration.house import RolledBack, key
from dwh_tests.orchestration.lake import QUIET, RANGE_END, RANGE_START, Lake

TABLES = ["nyc.airlines", "nyc.weather", "nyc.flights", "nyc.carrier_delays"]
WORST = "nyc.worst_carriers"
# The mart is computed from these; one month of flights is enough to be a partition.
FIRST_MONTH, LAST_MONTH = "2013-01-01", "2013-02-01"
pytestmark = pytest.mark.slow


@dg.asset(
    key=key(WORST),
    ins={"delays": dg.AssetIn(key("nyc.carrier_delays"))},
    io_manager_key="iceberg_io_manager",
    metadata={"write_mode": "overwrite"},
    automation_condition=dg.AutomationCondition.eager(),
)
def worst_carriers(delays: pa.Table) -> pa.Table:
    """A third level over the shipped mart: carriers by their mean delay in bad weather."""
    return delays.group_by("carrier").aggregate([("mean_delay_bad_weather", "mean")])


@dg.asset(
    key=key(WORST, "second"),
    ins={"table": dg.AssetIn(key=key(WORST), dagster_type=DataScan)},
    metadata={"table": WORST, "into": WORST},
    io_manager_key="second_replica_io_manager",
    automation_condition=dg.AutomationCondition.eager(),
)
def second_replica(table: DataScan) -> DataScan:
    """A replica in another DuckDB file than the shipped ones."""
    return table


@dataclass
class House(RolledBack):
    """The shipped definitions on a lake of their own, with one more level and one more warehouse."""

    def __post_init__(self) -> None:
        def manager(database: Path) -> DuckDBReplicaIOManager:
            resource = DuckDBResource(database=str(database))
            return DuckDBReplicaIOManager(
                iceberg=self.lake.iceberg, ledger=self.lake.ledger, duckdb=resource, wait_seconds=2
            )

        self.lake.resources["duckdb_replica_io_manager"] = manager(self.first)
        self.lake.resources["second_replica_io_manager"] = manager(self.second)
        wanted = {key(table) for table in TABLES} | {key("nyc.carrier_delays", "duckdb")}
        wanted.add(key("nyc.weather", "duckdb"))
        shipped = [a for a in defs().assets or [] if isinstance(a, dg.AssetsDefinition) and a.keys & wanted]
        self.assets = [*shipped, worst_carriers, second_replica]
        self.definitions = dg.Definitions(assets=self.assets, resources=self.lake.resources)

    @property
    def first(self) -> Path:
        return self.lake.folder / "first.duckdb"

    @property
    def second(self) -> Path:
        return self.lake.folder / "second.duckdb"

    def run(self, *keys: dg.AssetKey, **tags: str) -> None:
        result = dg.materialize(
            self.assets,
            selection=dg.AssetSelection.assets(*keys),
            instance=self.lake.instance,
            resources=self.lake.resources,
            tags=tags or None,
            run_config=QUIET,
        )
        assert result.success

    def compute(self) -> dict[str, str]:
        """Compute the mart and what comes of it; return the snapshot of each table."""
        self.run(key("nyc.carrier_delays"), key(WORST))
        return self.heads()

    def heads(self) -> dict[str, str]:
        return {t: str(self.lake.metadata(t)["current-snapshot-id"]) for t in [*TABLES, WORST]}


def held(database: Path, table: str) -> set[tuple[Any, ...]]:
    with duckdb.connect(str(database), read_only=True) as connection:
        return set(connection.execute(f"SELECT * FROM {table}").fetchall())


def held_column(database: Path, table: str, column: str) -> list[float]:
    with duckdb.connect(str(database), read_only=True) as connection:
        rows = connection.execute(f"SELECT {column} FROM {table} WHERE {column} IS NOT NULL").fetchall()
    return [row[0] for row in rows]


@contextmanager
def held_by_another_process(database: Path) -> Iterator[None]:
    script = (
        "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('open', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", script, str(database)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        yield
        process.kill()


def test_the_lakehouse_goes_back_as_one_and_comes_forward_as_one(lake: Lake) -> None:
    house = House(lake)
    house.run(key("nyc.airlines"), key("nyc.weather"))
    for month in (FIRST_MONTH, LAST_MONTH):
        house.run(key("nyc.flights"), **{RANGE_START: month, RANGE_END: month})
    house.compute()
    house.run(key("nyc.carrier_delays", "duckdb"))  # will be behind: the mart is computed once more
    before = house.compute()
    house.run(key(WORST, "second"))
    rows = {table: house.lake.rows(table) for table in (WORST, "nyc.carrier_delays", "nyc.weather")}
    first_worst = held(house.second, WORST)

    # The weather's correction arrives, and what is computed from it.
    house.run(key("nyc.weather"))
    after = house.compute()
    assert {t for t in before if before[t] != after[t]} == {"nyc.weather", "nyc.carrier_delays", WORST}
    assert house.lake.rows("nyc.weather") != rows["nyc.weather"]
    house.run(key("nyc.weather", "duckdb"))  # will be ahead
    house.run(key(WORST, "second"))  # will be down
    house.tick()
    house.tick()

    with held_by_another_process(house.second):
        house.roll_back(dry_run=False, table="nyc.weather", to=before["nyc.weather"], expect_success=False)
    assert house.heads() == before
    assert {table: house.lake.rows(table) for table in rows} == rows
    for table in ("nyc.weather", "nyc.carrier_delays"):
        assert len(held(house.first, table)) == len(rows[table])
        assert house.version(key(table, "duckdb")) == before[table]
    winds = held_column(house.first, "nyc.weather", "wind_speed")
    assert max(winds) > 1000, "the wind that the correction had taken back"
    for table in ("nyc.weather", "nyc.carrier_delays", WORST):
        assert house.version(key(table)) == before[table]
    assert house.tick() <= {f"second/{WORST.replace('.', '/')}"}, "the one that was down, and nothing else"

    ledger = house.lake.resources["ledger"].ledger
    (operation,) = ledger.operations("rollback")
    assert operation.open_items == ("replica second/nyc/worst_carriers",)
    house.roll_back(dry_run=False, resume=operation.id)
    assert held(house.second, WORST) == first_worst
    assert [house.tick(), house.tick()] == [set(), set()]

    house.roll_back(dry_run=False, undo=operation.id)
    assert house.heads() == after
    assert house.version(key(WORST, "second")) == after[WORST]
    assert [house.tick(), house.tick()] == [set(), set()]


def test_partitions_that_go_back_report_the_version_of_the_table(lake: Lake) -> None:
    house = House(lake)
    lake.instance.wipe_assets([key("nyc.flights")])
    for month in (FIRST_MONTH, LAST_MONTH, FIRST_MONTH):
        house.run(key("nyc.flights"), **{RANGE_START: month, RANGE_END: month})
    snapshots = [str(snapshot["snapshot-id"]) for snapshot in lake.snapshots("nyc.flights")]
    house.roll_back(dry_run=False, table="nyc.flights", to=snapshots[1])
    assert house.lake.metadata("nyc.flights")["current-snapshot-id"] == int(snapshots[1])
    events = {
        partition: lake.instance.get_latest_data_version_record(key("nyc.flights"), partition_key=partition)
        for partition in (FIRST_MONTH, LAST_MONTH)
    }
    found = {
        partition: (record.asset_materialization.tags or {})["dagster/data_version"]  # type: ignore[union-attr]
        for partition, record in events.items()
    }
    assert found == {FIRST_MONTH: snapshots[1], LAST_MONTH: snapshots[1]}
