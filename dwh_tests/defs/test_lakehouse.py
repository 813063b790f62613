"""The shipped lakehouse, made by processes that are killed, started again and run side by side."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pyarrow as pa
import pytest

from dwh_assets.orchestration.runs import apply_pool_limits
from dwh_tests.defs import nyc
from dwh_tests.independent import iceberg_rows

ROOT = Path(__file__).resolve().parents[2]
FLIGHTS_POOL = "iceberg/nyc.flights"
SNAPSHOTS_OF = ("flights", "weather", "airlines", "departures")
pytestmark = pytest.mark.slow
MONTHS = [*(f"2013-{month:02}" for month in range(1, 13)), "2014-01"]


@dataclass(frozen=True)
class Shipped:
    """A DAGSTER_HOME as the repository ships it, and a lakehouse beside it."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "DAGSTER_HOME": str(self.folder / "home"),
            "DAGSTER_DISABLE_TELEMETRY": "yes",
            "DWH_WAREHOUSE": str(self.folder / "lakehouse"),
            "DWH_DUCKDB_PATH": str(self.folder / "lakehouse" / "replicas.duckdb"),
        }

    def start(self, *command: str) -> "subprocess.Popen[str]":
        """Start a Python process in the folder."""
        return subprocess.Popen(
            [sys.executable, *command],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def demo(self) -> str:
        """Run the demo to its end; return what it said."""
        process = self.start("-m", "dwh_assets.orchestration.demo")
        said, _ = process.communicate(timeout=240)
        assert process.returncode == 0, said
        return said

    def instance(self) -> dg.DagsterInstance:
        return dg.DagsterInstance.from_config(str(self.folder / "home"))

    def metadata_location(self, table: str) -> str:
        query = (
            "SELECT metadata_location FROM iceberg_tables WHERE table_namespace = 'nyc' AND table_name = ?"
        )
        with sqlite3.connect(self.folder / "lakehouse" / "catalog.db") as connection:
            ((location,),) = connection.execute(query, (table,))
        return str(location)

    def rows(self, table: str) -> pa.Table:
        return _rows(self.metadata_location(table))

    def snapshots(self, table: str) -> list[dict[str, Any]]:
        path = Path(self.metadata_location(table).removeprefix("file://"))
        found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["snapshots"]
        return found


@cache
def _rows(metadata_location: str) -> pa.Table:
    return iceberg_rows(metadata_location)


def shipped(folder: Path) -> Shipped:
    (folder / "home").mkdir()
    shutil.copy(ROOT / "dagster_home" / "dagster.yaml", folder / "home")
    return Shipped(folder)


@dataclass(frozen=True)
class Twice:
    """The demo was killed while it wrote the flights, then run again, then once more."""

    place: Shipped
    said_before_it_was_killed: str
    after_the_kill: list[dg.DagsterRun]
    said_again: str
    snapshots_again: dict[str, list[dict[str, Any]]]
    said_once_more: str


@pytest.fixture(scope="module")
def twice(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Twice]:
    place = shipped(tmp_path_factory.mktemp("demo"))
    with place.instance() as instance:
        said = _killed_half_way(place, instance)
        runs = list(instance.get_runs())
        again = place.demo()
        snapshots = {table: place.snapshots(table) for table in SNAPSHOTS_OF}
        once_more = place.demo()
        yield Twice(place, said, runs, again, snapshots, once_more)


def _killed_half_way(place: Shipped, instance: dg.DagsterInstance) -> str:
    """Kill the demo while it holds the pool of the flights."""
    process = place.start("-m", "dwh_assets.orchestration.demo")
    deadline = time.monotonic() + 120
    try:
        while not instance.event_log_storage.get_concurrency_info(FLIGHTS_POOL).active_slot_count:
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        process.kill()
        said, _ = process.communicate()
    return said


def test_a_killed_demo_leaves_a_run_that_still_holds_its_pool(twice: Twice) -> None:
    """What the second one has to deal with; without that it would wait for ever."""
    (unfinished,) = [run for run in twice.after_the_kill if not run.is_finished]
    assert unfinished.status == dg.DagsterRunStatus.STARTED
    assert "13 partitions in one commit" in twice.said_before_it_was_killed


def test_the_next_demo_says_so_and_ends_what_was_left(twice: Twice) -> None:
    (unfinished,) = [run.run_id for run in twice.after_the_kill if not run.is_finished]
    assert f"Run {unfinished[:8]} was killed earlier" in twice.said_again
    assert "was killed earlier" not in twice.said_once_more
    with twice.place.instance() as instance:
        statuses = Counter(run.status for run in instance.get_runs())
    assert statuses.pop(dg.DagsterRunStatus.FAILURE) == 1
    assert set(statuses) == {dg.DagsterRunStatus.SUCCESS}


def test_every_check_passes_and_is_shown(twice: Twice) -> None:
    for said in (twice.said_again, twice.said_once_more):
        assert said.count("2 of 2") == 7, "tables: their keys, and the doctor"
        assert said.count("1 of 1") == 7, "replicas: as many rows"
        assert "failed" not in said.replace("marked as failed", "")


@pytest.mark.parametrize("table", ["airlines", "airports", "planes"])
def test_small_tables_hold_every_line_of_their_file(twice: Twice, table: str) -> None:
    columns = list(nyc.lines(table)[0])
    found = twice.place.rows(table).select(columns).to_pylist()
    assert _comparable(row.values() for row in found) == _comparable(nyc.pairs(table, *columns))


def _comparable(rows: Any) -> Counter[tuple[Any, ...]]:
    """Numbers as numbers, wherever they come from."""

    def value(given: Any) -> Any:
        try:
            return None if given is None else float(given)
        except ValueError:
            return given

    return Counter(tuple(map(value, row)) for row in rows)


def test_every_flight_lies_in_its_month_of_utc(twice: Twice) -> None:
    found = _by_month(twice.place.rows("flights"))
    assert found == nyc.flights_by_month()
    assert (found.total(), len(found), found["2014-01"]) == (336_776, 13, 88)


def _by_month(rows: pa.Table) -> Counter[str]:
    """Count rows by the month in UTC; `time_hour` repeats, so each hour is written as text once."""
    hours = Counter(rows["time_hour"].cast(pa.int64()).to_pylist())
    months: Counter[str] = Counter()
    for microseconds, times in hours.items():
        months[datetime.fromtimestamp(microseconds / 1e6, UTC).strftime("%Y-%m")] += times
    return months


def test_flights_are_those_of_the_file(twice: Twice) -> None:
    columns = [
        "carrier",
        "flight",
        "tailnum",
        "origin",
        "dest",
        "dep_time",
        "dep_delay",
        "arr_delay",
        "distance",
    ]
    found = twice.place.rows("flights").select(columns).to_pylist()
    assert _comparable(row.values() for row in found) == _comparable(nyc.pairs("flights", *columns))


def test_weather_is_that_of_the_file_but_for_the_wind_that_cannot_be(twice: Twice) -> None:
    columns = ["origin", "hour", "temp", "wind_speed", "wind_gust", "precip", "pressure", "visib"]
    found = twice.place.rows("weather").select(columns).to_pylist()
    expected = list(nyc.pairs("weather", *columns))
    (wrong,) = [row for row in expected if row[3] and float(row[3]) > 320]
    assert (wrong[0], wrong[1]) == ("EWR", "3")
    expected[expected.index(wrong)] = (*wrong[:3], None, *wrong[4:])
    assert len(found) == 26_115
    assert _comparable(row.values() for row in found) == _comparable(expected)


def test_the_run_after_the_first_brings_the_correction_alone(twice: Twice) -> None:
    """Two days of hours come once more, and only the row that differs is written."""
    first, second = twice.place.snapshots("weather")
    assert len(twice.snapshots_again["weather"]) == 2
    assert (first["summary"]["added-records"], second["summary"]["added-records"]) == ("26115", "1")
    assert second["summary"]["dwh.rows-updated"] == "1"
    assert int(second["summary"]["dwh.rows-unchanged"]) == 3 * 48
    as_published = iceberg_rows(twice.place.metadata_location("weather"), first["snapshot-id"])
    assert max(wind for wind in as_published["wind_speed"].to_pylist() if wind) > 1000
    assert "upsert: 0 rows in, 1 updated, 0 out, 26,115 now" in twice.said_again
    assert "iceberg/nyc/weather: Nothing to write" in twice.said_once_more
    assert "duckdb/nyc/weather: Already at snapshot" in twice.said_once_more


def test_departures_come_once_in_commits_of_a_hundred_thousand(twice: Twice) -> None:
    snapshots = twice.place.snapshots("departures")
    assert [s["summary"]["added-records"] for s in snapshots] == ["100000", "100000", "100000", "28521"]
    assert [s["summary"]["dwh.stream.departures"] for s in snapshots][-1] == "328521"
    assert twice.snapshots_again["departures"] == snapshots, "nothing happened since: no commit"
    assert "iceberg/nyc/departures: Nothing to write" in twice.said_once_more


def test_departures_are_the_flights_that_left_in_the_order_in_which_they_did(twice: Twice) -> None:
    expected = nyc.departures()
    columns = ["departed_at", "carrier", "flight", "origin"]
    rows = twice.place.rows("departures").select(columns)
    moments = (rows["departed_at"].cast(pa.int64()).to_numpy() // 1_000_000).tolist()
    found = sorted(zip(moments, *(rows[name].to_pylist() for name in columns[1:]), strict=True))
    assert found == expected
    first = iceberg_rows(
        twice.place.metadata_location("departures"), twice.place.snapshots("departures")[0]["snapshot-id"]
    )
    newest = max(first["departed_at"].cast(pa.int64()).to_pylist()) // 1_000_000
    assert (first.num_rows, newest) == (100_000, expected[99_999][0])


def test_delays_are_what_plain_python_counts(twice: Twice) -> None:
    names = {line["carrier"]: line["name"] for line in nyc.lines("airlines")}
    found = {
        (row["carrier"], row["month"].strftime("%Y-%m")): row
        for row in twice.place.rows("carrier_delays").to_pylist()
    }
    expected = nyc.delays()
    assert found.keys() == expected.keys()
    for (carrier, month), (flights, cancelled, bad, good) in expected.items():
        row = found[carrier, month]
        assert (row["airline"], row["flights"], row["cancelled"]) == (names[carrier], flights, cancelled)
        everything = bad + good
        for name, value in {
            "mean_departure_delay": nyc.mean(everything),
            "p90_departure_delay": nyc.quantile(everything, 0.9) if everything else None,
            "mean_delay_bad_weather": nyc.mean(bad),
            "mean_delay_good_weather": nyc.mean(good),
        }.items():
            assert row[name] == (value if value is None else pytest.approx(value, rel=1e-9)), (name, row)
    assert sum(flights for flights, *_ in expected.values()) == 336_776


@pytest.mark.parametrize("table", [*SNAPSHOTS_OF, "airports", "planes", "carrier_delays"])
def test_each_replica_holds_the_rows_of_its_table(twice: Twice, table: str) -> None:
    database = twice.place.environment["DWH_DUCKDB_PATH"]
    with duckdb.connect(database, read_only=True) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        replica = connection.table(f"nyc.{table}").to_arrow_table()
    in_lake = twice.place.rows(table)
    assert replica.num_rows == in_lake.num_rows
    with duckdb.connect() as connection:
        connection.register("replica", replica)
        connection.register("in_lake", in_lake.select(replica.column_names))
        left = connection.sql(
            "(FROM replica EXCEPT ALL FROM in_lake) UNION ALL (FROM in_lake EXCEPT ALL FROM replica)"
        )
        assert left.fetchall() == []


def test_all_partitions_of_a_run_are_one_commit(twice: Twice) -> None:
    """The killed run may have landed its commit or not; what came after it is one snapshot each."""
    before, after = len(twice.snapshots_again["flights"]), len(twice.place.snapshots("flights"))
    assert before in (1, 2)
    assert after == before + 1
    newest = twice.place.snapshots("flights")[-1]["summary"]
    assert newest["operation"] == "overwrite"
    assert newest["added-data-files"] == newest["deleted-data-files"] == "13"
    assert newest["dwh.partition-key"].split(",") == [f"{month}-01" for month in MONTHS]


def test_each_snapshot_names_the_versions_that_it_was_computed_from(twice: Twice) -> None:
    summary = twice.place.snapshots("carrier_delays")[-1]["summary"]
    for table in ("flights", "weather", "airlines"):
        newest = twice.place.snapshots(table)[-1]["snapshot-id"]
        assert summary[f"dwh.input.nyc.{table}"] == str(newest)


# --- Side by side ---

# The shipped declaration alone: all of `defs()` takes seconds longer to load.
WRITER = """
import sys
from pathlib import Path
import dagster as dg
import dwh_assets.defs
from dwh_assets.orchestration.iceberg_io import IcebergIOManager
from dwh_assets.orchestration.resources import IcebergCatalogResource

package = Path(dwh_assets.defs.__file__).parents[1]
declared = dg.ComponentTree.for_project(package).build_defs(package / "defs" / "nyc")
iceberg = IcebergCatalogResource()
(flights,) = [a for a in declared.assets if dg.AssetKey(["iceberg", "nyc", "flights"]) in a.keys]
with dg.DagsterInstance.get() as instance:
    for month in sys.argv[1:]:
        dg.materialize(
            [flights],
            instance=instance,
            partition_key=month + "-01",
            resources={"iceberg": iceberg, "iceberg_io_manager": IcebergIOManager(iceberg=iceberg)},
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        )
"""


def test_four_processes_that_write_different_months_lose_and_double_nothing(tmp_path: Path) -> None:
    from dwh_assets.definitions import defs

    place = shipped(tmp_path)
    with place.instance() as instance:
        assert apply_pool_limits(instance, defs()) == {FLIGHTS_POOL: 4}
    writers = [place.start("-c", WRITER, *MONTHS[number::4]) for number in range(4)]
    said = [writer.communicate(timeout=240)[0] for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0, 0, 0], "\n".join(said)
    assert "locked" not in "".join(said)

    assert _by_month(place.rows("flights")) == nyc.flights_by_month()
    snapshots = place.snapshots("flights")
    assert len(snapshots) == 13
    assert sorted(snapshot["summary"]["dwh.partition-key"] for snapshot in snapshots) == [
        f"{m}-01" for m in MONTHS
    ]
    with place.instance() as instance:
        began, ended = zip(*((r.start_time, r.end_time) for r in instance.get_run_records()), strict=True)
    assert _overlap(began, ended), "they were at work at the same time"


def _overlap(began: tuple[float | None, ...], ended: tuple[float | None, ...]) -> bool:
    moments = [(moment, 1) for moment in began if moment] + [(moment, -1) for moment in ended if moment]
    running = most = 0
    for _, change in sorted(moments):
        running += change
        most = max(most, running)
    return most > 1


def test_a_moment_is_written_as_it_was_read() -> None:
    """The model above reads months from text; this is the same month."""
    first = nyc.lines("flights")[0]["time_hour"]
    assert datetime.fromisoformat(first).astimezone(UTC).strftime("%Y-%m") == first[:7]
