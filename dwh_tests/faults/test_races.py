"""Processes that write one table at the same time: nothing is lost, nothing is doubled, nobody is bothered.

Every snapshot says which batch it holds, so what the table must hold is replayed from the snapshots in the
order in which they landed. Environment: DWH_RACE_SECONDS (how long, 4 unless told), DWH_RACE_WRITERS (how
many processes, 4 unless told).
"""

from __future__ import annotations

import multiprocessing
import os
import random
import time
import traceback
import uuid
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot

from dwh_assets.config import IcebergWriterConfig
from dwh_assets.iceberg.catalogs.load import load_catalog
from dwh_assets.iceberg.results import WriteResult
from dwh_assets.iceberg.write import IcebergWriter
from dwh_tests.servers.process import Server

SECONDS = float(os.environ.get("DWH_RACE_SECONDS", "4"))
WRITERS = int(os.environ.get("DWH_RACE_WRITERS", "4"))
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
        uri = f"sqlite:///{tmp_path / 'catalog.db'}"
        return {"type": "sql", "uri": uri, "warehouse": (tmp_path / "lake").as_uri()}
    server: Server = request.getfixturevalue(SERVERS[request.param])
    return server.catalog_properties


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


def keep_writing(config: IcebergWriterConfig, writer: int, seconds: float) -> Report:
    """Write again and again from the moment when all are there."""
    made: dict[int, int] = {}
    attempts = 0
    try:
        _given["barrier"].wait(120)
        deadline = time.monotonic() + seconds
        catalog = None
        while not made or time.monotonic() < deadline:
            # The first one opens the catalog, too, at the same time as the others do.
            catalog = catalog or IcebergWriter(config).catalog
            result = write_once(config, catalog, writer, len(made))
            made[result.snapshot_id or 0] = len(made)
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


def race(pool: ProcessPoolExecutor, config: IcebergWriterConfig, seconds: float) -> list[Future[Report]]:
    """Let every process write: none is given two turns, since each waits for all the others."""
    return [pool.submit(keep_writing, config, writer, seconds) for writer in range(WRITERS)]


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


def noted(snapshot: Snapshot) -> tuple[int, int]:
    assert snapshot.summary is not None
    entries = snapshot.summary.additional_properties
    return int(entries[WRITER]), int(entries[NUMBER])


def contents(table: Table, snapshot: Snapshot) -> list[tuple[int, str]]:
    rows = table.scan(snapshot_id=snapshot.snapshot_id).to_arrow().to_pylist()
    return sorted((row["id"], row["text"]) for row in rows)


def require_replay(table: Table, snapshots: list[Snapshot]) -> None:
    """See that some of the snapshots, and the last, hold what all batches up to them leave behind."""
    step = max(1, len(snapshots) // 10)
    looked_at = {snapshot.snapshot_id for snapshot in [*snapshots[::step], snapshots[-1]]}
    rows: dict[int, str] = {}
    for snapshot in snapshots:
        rows |= {row["id"]: row["text"] for row in batch_of(*noted(snapshot))}
        if snapshot.snapshot_id in looked_at:
            assert contents(table, snapshot) == sorted(rows.items())


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
    there = {(snapshot.snapshot_id, *noted(snapshot)) for snapshot in snapshots}
    assert told == {entry for entry in there if entry[1] >= 0}
    assert len({entry[1:] for entry in there}) == len(snapshots)


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


@pytest.mark.parametrize("row_changes", ["merge-on-read", "copy-on-write"])
def test_processes_that_upsert_the_same_keys_leave_each_once(
    pool: ProcessPoolExecutor, properties: dict[str, str], name: str, row_changes: str
) -> None:
    config = declared(
        properties,
        name,
        write_mode="upsert",
        key_columns=["id"],
        row_changes=row_changes,
        table_properties={"commit.retry.num-retries": "100", "commit.retry.max-wait-ms": "100"},
    )
    IcebergWriter(config).write(SCHEMA.empty_table(), summary={WRITER: "-1", NUMBER: "0"})
    append_by_pyiceberg(properties, name, 1)
    futures = race(pool, config, SECONDS)
    number = 2
    while not all(future.done() for future in futures):
        append_by_pyiceberg(properties, name, number)
        number += 1
        time.sleep(0.5)
    reports = [future.result() for future in futures]
    table = load_catalog(properties).load_table(name)
    snapshots = landed(table)
    # The empty table has a snapshot, too, which holds nothing of what its note says.
    require_no_loss(reports, snapshots)
    require_replay(table, snapshots[1:])
    assert sum(report.attempts for report in reports) > sum(len(report.snapshots) for report in reports)


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
