"""Processes that write one table at the same time: nothing is lost, nothing is doubled, nobody is bothered.

Every snapshot says which batch it holds, so what the table must hold is replayed from the snapshots in the
order in which they landed. Environment: DWH_RACE_SECONDS (how long, 1 unless told), DWH_RACE_WRITERS (how
many processes, 8 unless told).
"""

from __future__ import annotations

import multiprocessing
import os
import random
import time
import traceback
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Operation, Snapshot

from dwh_assets.config import IcebergWriterConfig
from dwh_assets.iceberg.catalogs.load import load_catalog
from dwh_assets.iceberg.results import WriteResult
from dwh_assets.iceberg.write import IcebergWriter
from dwh_tests.independent import iceberg_rows
from dwh_tests.servers.process import Server
from dwh_tests.servers.spark import Spark, SparkFailed

SECONDS = float(os.environ.get("DWH_RACE_SECONDS", "1"))
WRITERS = int(os.environ.get("DWH_RACE_WRITERS", "8"))
# Between the turns of other engines.
PAUSE = 0.5
KEYS = 24
BATCH = 6
WRITER, NUMBER = "test.writer", "test.number"
SCHEMA = pa.schema([pa.field("id", pa.int64(), nullable=False), pa.field("text", pa.string())])
SERVERS = {"postgres": "postgres_server", "rest": "iceberg_rest_server"}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(int(300 + 10 * SECONDS))]


@pytest.fixture(params=["sqlite", *(pytest.param(name, marks=pytest.mark.server) for name in SERVERS)])
def properties(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """The catalogs that races are held on."""
    if request.param == "sqlite":
        return on_sqlite(tmp_path)
    server: Server = request.getfixturevalue(SERVERS[request.param])
    return server.catalog_properties


def on_sqlite(folder: Path) -> dict[str, str]:
    """A catalog under a name of its own, since Spark knows each name once."""
    uri, name = f"sqlite:///{folder / 'catalog.db'}", f"race_{uuid.uuid4().hex[:10]}"
    return {"type": "sql", "name": name, "uri": uri, "warehouse": (folder / "lake").as_uri()}


@pytest.fixture
def name() -> str:
    """A table that does not exist yet, in a namespace that does not either."""
    return f"race_{uuid.uuid4().hex[:10]}.rows"


# --- What a process does ---


@dataclass(frozen=True)
class Report:
    """What one process has to say: the snapshots that it was told it made, or what went wrong."""

    snapshots: dict[int, int]
    attempts: int = 0
    error: str = ""


# What a process is given when it starts: a barrier cannot be handed over later.
_given: dict[str, Any] = {}


def _prepare(barrier: Any) -> None:
    _given["barrier"] = barrier


def batch(writer: int, number: int) -> list[dict[str, Any]]:
    """The rows of one write; who knows its two numbers knows them."""
    keys = random.Random(f"{writer}/{number}").sample(range(KEYS), BATCH)
    return [{"id": key, "text": f"{writer}/{number}/{key}"} for key in keys]


def write_once(config: IcebergWriterConfig, catalog: Catalog | None, writer: int, number: int) -> WriteResult:
    data = pa.Table.from_pylist(batch(writer, number), schema=SCHEMA)
    note = {WRITER: str(writer), NUMBER: str(number)}
    return IcebergWriter(config, catalog=catalog).write(data, summary=note)


def keep_writing(config: IcebergWriterConfig, writer: int, seconds: float, first: int) -> Report:
    """Write again and again from the moment when all are there, batches from the number `first` on."""
    made: dict[int, int] = {}
    attempts = 0
    try:
        _given["barrier"].wait(120)
        deadline = time.monotonic() + seconds
        catalog = None
        while not made or time.monotonic() < deadline:
            # The first one opens the catalog, too, at the same time as the others do.
            catalog = catalog or IcebergWriter(config).catalog
            result = write_once(config, catalog, writer, first + len(made))
            made[result.snapshot_id or 0] = first + len(made)
            attempts += result.attempts
    except BaseException:
        return Report(made, attempts, traceback.format_exc())
    return Report(made, attempts)


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPoolExecutor]:
    """Processes of their own, never forked: threads of Arrow and DuckDB do not survive that."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(WRITERS)
    with ProcessPoolExecutor(
        WRITERS, mp_context=context, initializer=_prepare, initargs=(barrier,)
    ) as processes:
        yield processes


def race(
    pool: ProcessPoolExecutor, config: IcebergWriterConfig, seconds: float, first: int = 0
) -> list[Future[Report]]:
    """Let every process write: none is given two turns, since each waits for all the others."""
    return [pool.submit(keep_writing, config, writer, seconds, first) for writer in range(WRITERS)]


def race_beside(
    pool: ProcessPoolExecutor,
    config: IcebergWriterConfig,
    seconds: float,
    others: Callable[[], None],
    first: int = 0,
) -> list[Report]:
    """Hold a race, and let others do their part again and again until it is over."""
    futures = race(pool, config, seconds, first)
    while not all(future.done() for future in futures):
        others()
        time.sleep(PAUSE)
    return [future.result() for future in futures]


def declared(properties: dict[str, str], name: str, **layout: Any) -> IcebergWriterConfig:
    rest = {key: value for key, value in properties.items() if key != "type"}
    config: dict[str, Any] = {"catalog": properties["type"], "catalog_config": rest, "table": name}
    return IcebergWriterConfig(**config, **layout)


# --- What must have become of it ---


def landed(table: Table) -> list[Snapshot]:
    """The snapshots of main in the order in which they landed."""
    found: list[Snapshot] = []
    snapshot = table.current_snapshot()
    while snapshot is not None:
        found.append(snapshot)
        parent = snapshot.parent_snapshot_id
        snapshot = table.snapshot_by_id(parent) if parent is not None else None
    return found[::-1]


def noted(snapshot: Snapshot) -> tuple[int, int] | None:
    """Which batch a snapshot brought; None for a compaction."""
    assert snapshot.summary is not None
    if snapshot.summary.operation == Operation.REPLACE:
        return None
    entries = snapshot.summary.additional_properties
    return int(entries[WRITER]), int(entries[NUMBER])


def contents(table: Table, snapshot: Snapshot) -> list[tuple[int, str]]:
    """The rows of a snapshot as PyIceberg reads them."""
    rows = table.scan(snapshot_id=snapshot.snapshot_id).to_arrow().to_pylist()
    return sorted((row["id"], row["text"]) for row in rows)


def require_replay(table: Table, snapshots: list[Snapshot]) -> None:
    """See that some of the snapshots, and the last, hold what all batches up to them leave behind."""
    step = max(1, len(snapshots) // 10)
    looked_at = {snapshot.snapshot_id for snapshot in [*snapshots[::step], snapshots[-1]]}
    rows: dict[int, str] = {}
    for snapshot in snapshots:
        came = noted(snapshot)
        rows |= {row["id"]: row["text"] for row in batch_of(*came)} if came else {}
        if came is None or snapshot.snapshot_id in looked_at:
            assert contents(table, snapshot) == sorted(rows.items())
    independent = iceberg_rows(table.metadata_location).to_pylist()
    assert sorted((row["id"], row["text"]) for row in independent) == sorted(rows.items())


def batch_of(writer: int, number: int) -> list[dict[str, Any]]:
    return batch(writer, number) if writer >= 0 else appended(number)


def require_no_loss(reports: list[Report], snapshots: list[Snapshot]) -> None:
    """See that nobody was told of an error, and that what each was told of is there, once."""
    errors = [report.error for report in reports if report.error]
    assert not errors, "\n".join(errors)
    told = {
        (snapshot_id, writer, number)
        for writer, report in enumerate(reports)
        for snapshot_id, number in report.snapshots.items()
    }
    there = [(s.snapshot_id, *came) for s in snapshots if (came := noted(s)) is not None]
    assert told == {entry for entry in there if entry[1] >= 0}
    assert len({entry[1:] for entry in there}) == len(there)


def say(config: IcebergWriterConfig, reports: list[Report], snapshots: list[Snapshot]) -> None:
    """Tell how the race went, to who asks with `-s`."""
    made, attempts = sum(len(r.snapshots) for r in reports), sum(r.attempts for r in reports)
    others = [came for s in snapshots if (came := noted(s)) is None or came[0] < 0]
    compactions = others.count(None)
    print(
        f"\n{config.catalog} {config.row_changes}: {made} upserts by {WRITERS} processes "
        f"in {attempts} attempts, {compactions} compactions, {len(others) - compactions} appends"
    )


# --- Somebody else in between ---


def appended(number: int) -> list[dict[str, Any]]:
    """What PyIceberg appends: keys that nobody else has, since an append looks for none."""
    return [{"id": 1000 + number, "text": f"appended {number}"}]


def append_by_pyiceberg(properties: dict[str, str], name: str, number: int) -> None:
    """Append, and again where PyIceberg gives up against the others."""
    note = {WRITER: "-1", NUMBER: str(number)}
    rows = pa.Table.from_pylist(appended(number), schema=SCHEMA)
    for _ in range(50):
        table = load_catalog(properties).load_table(name)
        try:
            table.append(rows, snapshot_properties=note)
            return
        except CommitFailedException:
            time.sleep(0.05)
    pytest.fail("PyIceberg's append never landed")


class Appender:
    """PyIceberg, which appends a row now and then."""

    def __init__(self, properties: dict[str, str], name: str) -> None:
        self._properties, self._name, self._number = properties, name, 0

    def __call__(self) -> None:
        self._number += 1
        append_by_pyiceberg(self._properties, self._name, self._number)


def upserting(properties: dict[str, str], name: str, row_changes: str) -> IcebergWriterConfig:
    """Make an empty table; return how it is written in a race."""
    config = declared(
        properties,
        name,
        write_mode="upsert",
        key_columns=["id"],
        row_changes=row_changes,
        table_properties={"commit.retry.num-retries": "100", "commit.retry.max-wait-ms": "100"},
    )
    IcebergWriter(config).write(SCHEMA.empty_table(), summary={WRITER: "-1", NUMBER: "0"})
    return config


def require_model(properties: dict[str, str], name: str, config: Any, reports: list[Report]) -> None:
    """See that the table holds what its snapshots say, and that writers were in each other's way."""
    table = load_catalog(properties).load_table(name)
    snapshots = landed(table)
    say(config, reports, snapshots)
    # The empty table has a snapshot, too, which holds nothing of what its note says.
    require_no_loss(reports, snapshots)
    require_replay(table, snapshots[1:])
    assert sum(report.attempts for report in reports) > sum(len(report.snapshots) for report in reports)


def test_processes_that_upsert_the_same_keys_leave_each_once(
    pool: ProcessPoolExecutor, properties: dict[str, str], name: str
) -> None:
    hold_race(pool, properties, name, "merge-on-read")


@pytest.mark.parametrize("properties", ["sqlite"], indirect=True)
def test_processes_that_write_files_again_leave_each_key_once(
    pool: ProcessPoolExecutor, properties: dict[str, str], name: str
) -> None:
    """What is planned against the newest version does not depend on the catalog that keeps it."""
    hold_race(pool, properties, name, "copy-on-write")


def hold_race(pool: ProcessPoolExecutor, properties: dict[str, str], name: str, row_changes: str) -> None:
    """Let processes upsert and PyIceberg append, and hold what comes of it against the model."""
    config, appender = upserting(properties, name, row_changes), Appender(properties, name)
    appender()
    require_model(properties, name, config, race_beside(pool, config, SECONDS, appender))


def spark_catalog(properties: dict[str, str], name: str) -> dict[str, str]:
    """What Spark is told of a catalog of ours."""
    if properties["type"] == "rest":
        return {"type": "rest", "uri": properties["uri"]}
    jdbc = properties["uri"].replace("sqlite:///", "jdbc:sqlite:")
    return {
        "type": "jdbc",
        "uri": f"{jdbc}?busy_timeout=60000",
        "jdbc.schema-version": "V1",
        "warehouse": properties["warehouse"],
    }


# Java reaches no PostgreSQL that listens on a Unix socket alone.
@pytest.mark.interop
@pytest.mark.parametrize(
    "properties", ["sqlite", pytest.param("rest", marks=pytest.mark.server)], indirect=True
)
def test_compactions_by_spark_in_between_change_no_row(
    pool: ProcessPoolExecutor, properties: dict[str, str], name: str, spark: Spark
) -> None:
    """Spark gives up where deletes concern files that it rewrites; in a pause of the race it need not."""
    config, appender = upserting(properties, name, "merge-on-read"), Appender(properties, name)
    known = properties.get("name", f"race_{uuid.uuid4().hex[:10]}")
    spark.use(known, **spark_catalog(properties, name))
    options = "map('rewrite-all', 'true', 'partial-progress.enabled', 'false')"
    compaction = f"CALL {known}.system.rewrite_data_files(table => '{name}', options => {options})"

    def others() -> None:
        appender()
        with suppress(SparkFailed):
            spark.sql(compaction)

    appender()
    reports = race_beside(pool, config, SECONDS / 2, others)
    assert spark.sql(compaction)[0]["rewritten_data_files_count"] > 0
    most = max(len(report.snapshots) for report in reports)
    later = race_beside(pool, config, SECONDS / 2, others, first=most)
    merged = [
        Report(one.snapshots | two.snapshots, one.attempts + two.attempts, one.error or two.error)
        for one, two in zip(reports, later, strict=True)
    ]
    require_model(properties, name, config, merged)


def test_processes_that_find_nothing_create_it_once_and_all_land(
    pool: ProcessPoolExecutor, properties: dict[str, str], name: str
) -> None:
    config = declared(properties, name, write_mode="upsert", key_columns=["id"])
    reports = [future.result() for future in race(pool, config, 0)]
    table = load_catalog(properties).load_table(name)
    snapshots = landed(table)
    require_no_loss(reports, snapshots)
    require_replay(table, snapshots)
    assert len(snapshots) == WRITERS
