"""Streams: micro-batches, exactly once, resumable, in bounded memory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from pyiceberg.table import Table

from dwh_assets import IcebergWriter, IcebergWriterConfig
from dwh_assets.errors import ConfigurationError, ConflictError
from dwh_assets.iceberg.stream import stream_offset
from dwh_tests.independent import iceberg_rows

SCHEMA = pa.schema([("id", pa.int64()), ("part", pa.int64())])


def writer(folder: Path, **config: object) -> IcebergWriter:
    return IcebergWriter(
        IcebergWriterConfig.model_validate(
            {
                "catalog_config": {"uri": f"sqlite:///{folder}/catalog.db", "warehouse": folder.as_uri()},
                "table": "lake.events",
                **config,
            }
        )
    )


def batches(first: int, last: int, size: int = 10) -> Iterator[pa.RecordBatch]:
    for start in range(first, last, size):
        ids = list(range(start, min(start + size, last)))
        yield pa.record_batch([ids, [i % 3 for i in ids]], schema=SCHEMA)


def ids(table: Table) -> list[int]:
    return sorted(iceberg_rows(table.refresh().metadata_location)["id"].to_pylist())


def test_a_stream_is_cut_into_commits_of_the_asked_size(tmp_path: Path) -> None:
    feeder = writer(tmp_path, partition_spec=[{"field": "part"}])
    result = feeder.write_stream(batches(0, 95), "events", commit_rows=25)
    table = feeder.catalog.load_table("lake.events")
    added = [snapshot.summary["added-records"] for snapshot in table.snapshots() if snapshot.summary]
    assert (result.rows, result.commits, result.offset) == (95, 4, 95)
    assert added == ["25", "25", "25", "20"]
    assert ids(table) == list(range(95))


def test_time_ends_a_micro_batch_too(tmp_path: Path) -> None:
    result = writer(tmp_path).write_stream(batches(0, 30), "events", commit_seconds=0.0)
    assert result.commits == 3


def test_without_limits_all_is_one_snapshot(tmp_path: Path) -> None:
    assert writer(tmp_path).write_stream(batches(0, 30), "events").commits == 1


def test_what_was_written_is_skipped_when_the_stream_is_given_again(tmp_path: Path) -> None:
    feeder = writer(tmp_path)
    feeder.write_stream(batches(0, 34), "events", commit_rows=10)
    again = feeder.write_stream(batches(0, 50, size=7), "events", commit_rows=10)
    assert (again.rows, again.offset) == (16, 50)
    assert ids(feeder.catalog.load_table("lake.events")) == list(range(50))


def test_a_function_is_asked_to_begin_at_the_offset(tmp_path: Path) -> None:
    feeder = writer(tmp_path)
    feeder.write_stream(batches(0, 20), "events")
    asked: list[int] = []

    def source(offset: int) -> Iterator[pa.RecordBatch]:
        asked.append(offset)
        return batches(offset, 40)

    feeder.write_stream(source, "events")
    assert asked == [20]
    assert ids(feeder.catalog.load_table("lake.events")) == list(range(40))


def test_other_writes_carry_the_offset_forward(tmp_path: Path) -> None:
    feeder = writer(tmp_path)
    feeder.write_stream(batches(0, 20), "events")
    feeder.write(pa.Table.from_batches(batches(100, 110)))
    head = feeder.catalog.load_table("lake.events").current_snapshot()
    assert head is not None
    assert head.summary is not None
    assert head.summary["dwh.stream.events"] == "20"


def test_a_rollback_takes_the_offset_back(tmp_path: Path) -> None:
    feeder = writer(tmp_path)
    feeder.write_stream(batches(0, 20), "events", commit_rows=10)
    table = feeder.catalog.load_table("lake.events")
    table.manage_snapshots().rollback_to_snapshot(table.snapshots()[0].snapshot_id).commit()
    feeder.write_stream(batches(0, 20), "events", commit_rows=10)
    assert ids(table) == list(range(20))


def test_two_writers_of_one_stream_are_told_apart(tmp_path: Path) -> None:
    feeder, other = writer(tmp_path), writer(tmp_path)
    feeder.write_stream(batches(0, 10), "events")

    def source(offset: int) -> Iterator[pa.RecordBatch]:
        yield from batches(offset, offset + 10)
        other.write_stream(batches(0, 20), "events")

    with pytest.raises(ConflictError, match=r"lake\.events: stream 'events' stands at row 20, not 10"):
        feeder.write_stream(source, "events")
    assert ids(feeder.catalog.load_table("lake.events")) == list(range(20))


def test_an_upsert_stream_keeps_one_row_a_key(tmp_path: Path) -> None:
    feeder = writer(tmp_path, write_mode="upsert", key_columns=["part"])
    feeder.write_stream(batches(0, 30, size=3), "events", commit_rows=3)
    rows = iceberg_rows(feeder.catalog.load_table("lake.events").metadata_location)
    assert sorted(rows["id"].to_pylist()) == [27, 28, 29]


def test_the_offset_moves_on_where_an_upsert_changes_nothing(tmp_path: Path) -> None:
    feeder = writer(tmp_path, write_mode="upsert", key_columns=["id"])
    feeder.write_stream([*batches(0, 10), *batches(0, 10), *batches(10, 20)], "events", commit_rows=10)
    table = feeder.catalog.load_table("lake.events")
    assert stream_offset(table, "events", "main") == 30
    assert ids(table) == list(range(20))


def test_a_killed_stream_goes_on_where_it_was(tmp_path: Path) -> None:
    """Killed from outside while commits come and go, it ends with every row once."""
    script = textwrap.dedent(f"""
        from pathlib import Path
        from dwh_tests.iceberg.test_stream import batches, writer
        writer(Path({str(tmp_path)!r})).write_stream(batches(0, 400, size=5), "events", commit_rows=10)
    """)
    feeder = writer(tmp_path)
    feeder.write_stream(batches(0, 10, size=5), "events", commit_rows=10)
    table = feeder.catalog.load_table("lake.events")
    process = subprocess.Popen([sys.executable, "-c", script], env={**os.environ})
    try:
        while stream_offset(table.refresh(), "events", "main") < 50 and process.poll() is None:
            pass
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert 50 <= stream_offset(table.refresh(), "events", "main") < 400
    feeder.write_stream(batches(0, 400, size=5), "events", commit_rows=100)
    assert ids(table) == list(range(400))


def test_a_stream_may_get_new_columns_on_its_way(tmp_path: Path) -> None:
    """Where the columns change a new micro-batch begins, and evolves the table."""
    wider = SCHEMA.append(pa.field("new", pa.string()))
    more = [pa.record_batch([[n], [n % 3], [str(n)]], schema=wider) for n in (20, 21)]
    feeder = writer(tmp_path)
    result = feeder.write_stream([*batches(0, 20), *more], "events", commit_rows=100)
    assert (result.rows, result.commits, result.offset) == (22, 2, 22)
    rows = iceberg_rows(feeder.catalog.load_table("lake.events").metadata_location).to_pylist()
    assert {row["id"]: row["new"] for row in rows} == {**dict.fromkeys(range(20)), 20: "20", 21: "21"}


def test_what_a_stream_did_is_told_of_all_its_commits(tmp_path: Path) -> None:
    feeder = writer(tmp_path, write_mode="upsert", key_columns=["part"])
    nothing = feeder.write_stream([], "events")
    assert (nothing.commits, nothing.written) == (0, None)
    fed = feeder.write_stream(batches(0, 30, size=3), "events", commit_rows=3)
    assert fed.written is not None
    assert (fed.written.rows_inserted, fed.written.rows_updated, fed.written.rows_written) == (3, 27, 30)
    assert (fed.written.parent_snapshot_id, fed.written.operation) == (None, "overwrite")
    assert (fed.written.total_rows, fed.written.snapshot_id) == (3, fed.snapshot_id)
    again = feeder.write_stream(batches(0, 30, size=3), "events")
    assert again.written is not None
    assert (again.commits, again.written.changed, again.written.total_rows) == (0, False, 3)
    assert again.snapshot_id == fed.snapshot_id


@pytest.mark.parametrize("source", ["table", "reader", "function of tables"])
def test_a_stream_is_anything_that_holds_rows(tmp_path: Path, source: str) -> None:
    feeder = writer(tmp_path)
    table = pa.Table.from_batches(batches(0, 30))
    sources = {"table": table, "reader": table.to_reader(7), "function of tables": table.slice}
    assert feeder.write_stream(sources[source], "events", commit_rows=20).commits == 2
    assert ids(feeder.catalog.load_table("lake.events")) == list(range(30))


def test_a_stream_that_overwrites_is_refused(tmp_path: Path) -> None:
    feeder = writer(tmp_path, write_mode="overwrite")
    with pytest.raises(ConfigurationError, match=r"lake\.events: a stream cannot be written"):
        feeder.write_stream(batches(0, 10), "events")
    assert not feeder.catalog.table_exists("lake.events")
