"""Processes that publish to one table at the same time: what was not audited on top of main is never on main.

Each write appends ids of which some collide with other processes'. Every head that main ever had must pass
the audits, as DuckDB reads it; each write was either published once or refused for a reason.
"""

from __future__ import annotations

import multiprocessing
import random
import traceback
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from dwh_assets.config import IcebergWriterConfig
from dwh_assets.errors import AuditFailedError, ConflictError
from dwh_assets.iceberg.write import IcebergWriter
from dwh_assets.versioning.publishing import write_audited
from dwh_tests.iceberg.conftest import Lake, duckdb_rows

PUBLISHERS = 3
WRITES = 4
NAME = "race.rows"
AUDITS: list[dict[str, Any]] = [
    {"kind": "unique", "columns": ["id"]},
    {"kind": "sql", "name": "none_negative", "query": "SELECT id FROM changed WHERE id < 0"},
]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
_given: dict[str, Any] = {}


def _prepare(barrier: Any) -> None:
    _given["barrier"] = barrier


@dataclass
class Report:
    """Keys of the writes of one process by what became of them."""

    published: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    overtaken: list[str] = field(default_factory=list)
    attempts: int = 0
    error: str = ""


def rows_of(publisher: int, number: int) -> list[int]:
    """Ids of one write: now and then one that is wrong in itself, or that another process brings, too."""
    rng = random.Random(f"{publisher}/{number}")
    shared = [number] if rng.random() < 0.5 else []
    wrong = [-1 - publisher] if rng.random() < 0.2 else []
    return [*shared, *wrong, 1000 * (publisher + 1) + number]


def publish_all(folder: Path, publisher: int) -> Report:
    """Publish one write after the other; every second one is also tried a second time under its key."""
    report = Report()
    lake = Lake(folder, NAME)
    try:
        _given["barrier"].wait(120)
        for number in range(WRITES):
            key = f"{publisher}/{number}"
            writer = IcebergWriter(
                IcebergWriterConfig(table=NAME, catalog="sql", catalog_config=dict(lake.properties))
            )
            data = pa.table({"id": pa.array(rows_of(publisher, number), pa.int64())})
            for _ in range(1 + number % 2):
                _publish(writer, data, key, report)
    except BaseException:
        report.error = traceback.format_exc()
    return report


def _publish(writer: IcebergWriter, data: pa.Table, key: str, report: Report) -> None:
    try:
        done = write_audited(writer, data, AUDITS, idempotency_key=key, attempts=30)
    except AuditFailedError:
        report.refused.append(key)
    except ConflictError:
        report.overtaken.append(key)
    else:
        report.attempts += done.attempts
        if not done.written.repeated:
            report.published.append(key)


def test_what_is_on_main_was_audited_on_top_of_what_was_there(tmp_path: Path) -> None:
    lake = Lake(tmp_path, NAME)
    lake.write(pa.table({"id": pa.array([0], pa.int64())}))
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(PUBLISHERS)
    with ProcessPoolExecutor(
        PUBLISHERS, mp_context=context, initializer=_prepare, initargs=(barrier,)
    ) as pool:
        reports = [f.result() for f in [pool.submit(publish_all, tmp_path, n) for n in range(PUBLISHERS)]]
    assert not [report.error for report in reports if report.error], "\n".join(r.error for r in reports)
    heads = [entry["snapshot-id"] for entry in lake.metadata["snapshot-log"]]
    summaries = {s["snapshot-id"]: s["summary"] for s in lake.metadata["snapshots"]}
    expected = [0]
    for head in heads[1:]:
        expected += rows_of(*map(int, summaries[head]["dwh.idempotency-key"].split("/")))
        found = duckdb_rows(lake.table.metadata_location, head)["id"].to_pylist()
        assert sorted(found) == sorted(expected)
        assert max(Counter(found).values()) == 1, "each id was audited to be one"
        assert min(found) >= 0
    published = [key for report in reports for key in report.published]
    assert sorted(summaries[head]["dwh.idempotency-key"] for head in heads[1:]) == sorted(published)
    refused = {key for report in reports for key in report.refused}
    overtaken = {key for report in reports for key in report.overtaken}
    every = {f"{publisher}/{number}" for publisher in range(PUBLISHERS) for number in range(WRITES)}
    assert set(published) | refused | overtaken == every
    assert all(min(rows_of(*map(int, key.split("/")))) >= 0 for key in published)
    assert not {key for key in published if min(rows_of(*map(int, key.split("/")))) < 0}
    left = {name for name in lake.metadata["refs"] if name != "main"}
    kept = {lake.metadata["refs"][name].get("max-ref-age-ms") for name in left}
    assert None not in kept, "only branches of failed audits are left"
