"""Four processes on one SQLite catalog: no commit is lost, no row doubled, no database said to be locked."""

from __future__ import annotations

import multiprocessing
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa

from dwh_tests.iceberg.conftest import Lake

WRITERS = 4
APPENDS = 10


def rows(writer: int, kind: str, *values: int) -> pa.Table:
    return pa.table({"writer": [writer] * len(values), "kind": [kind] * len(values), "v": list(values)})


def write(folder: Path, number: int, start: Any, errors: Any) -> None:
    """One process: it opens the new catalog, appends ten times, and overwrites its own partition."""
    lake = Lake(folder)
    start.wait(timeout=60)
    try:
        for turn in range(APPENDS):
            lake.write(rows(number, "append", turn), partition_spec=[{"field": "writer"}, {"field": "kind"}])
            if turn % 2:
                where = f"writer = {number} and kind = 'overwrite'"
                lake.write(rows(number, "overwrite", turn, -turn), where=where, write_mode="overwrite")
    except BaseException as error:
        errors.put(f"writer {number}: {type(error).__name__}: {error}")


def test_every_commit_lands_once(lake: Lake) -> None:
    spawn = multiprocessing.get_context("spawn")
    start, errors = spawn.Barrier(WRITERS), spawn.Queue()
    arguments = [(lake.folder, number, start, errors) for number in range(WRITERS)]
    writers = [spawn.Process(target=write, args=given) for given in arguments]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [errors.get() for _ in range(WRITERS) if not errors.empty()] == []
    assert [writer.exitcode for writer in writers] == [0] * WRITERS
    last = APPENDS - 1
    assert Counter((row["writer"], row["kind"], row["v"]) for row in lake.rows()) == Counter(
        [(number, "append", turn) for number in range(WRITERS) for turn in range(APPENDS)]
        + [(number, "overwrite", v) for number in range(WRITERS) for v in (last, -last)]
    )
    snapshots = lake.metadata["snapshots"]
    assert len(snapshots) == WRITERS * APPENDS * 3 // 2
    parents = [snapshot.get("parent-snapshot-id") for snapshot in snapshots]
    assert parents == [None, *(snapshot["snapshot-id"] for snapshot in snapshots[:-1])]
    assert int(lake.summary["total-records"]) == WRITERS * (APPENDS + 2)
    assert lake.orphans() == set()
