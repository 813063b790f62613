"""Assets that feed their table from a stream: exactly once, whatever is retried."""

from collections.abc import Iterator
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest

from dwh_tests.orchestration.lake import Lake, failure_text, materializations, step_failure, written_by

TABLE = "shop.events"
STREAM = {"name": "events", "commit_rows": 10}
SCHEMA = pa.schema([("id", pa.int64())])


def batches(first: int, last: int) -> Iterator[pa.RecordBatch]:
    for start in range(first, last, 4):
        yield pa.record_batch([list(range(start, min(start + 4, last)))], schema=SCHEMA)


def ids(lake: Lake) -> list[int]:
    return sorted(row["id"] for row in lake.rows(TABLE))


def test_a_retry_goes_on_after_the_last_commit(lake: Lake) -> None:
    asked: list[int] = []

    def breaking(offset: int) -> Iterator[pa.RecordBatch]:
        asked.append(offset)
        yield from batches(offset, 25 if len(asked) == 1 else 40)
        if len(asked) == 1:
            raise RuntimeError("lost connection")

    feed = written_by(
        lambda _: breaking, table=TABLE, stream=STREAM, retry_policy=dg.RetryPolicy(max_retries=1)
    )
    (event,) = materializations(lake.run(feed), TABLE)
    assert asked == [0, 20]
    assert ids(lake) == list(range(40))
    assert [s["summary"]["dwh.stream.events"] for s in lake.snapshots(TABLE)] == ["10", "20", "30", "40"]
    assert event.metadata["dwh/stream_rows"].value == 20
    assert event.metadata["dagster/row_count"].value == 40


def test_a_run_that_is_started_again_goes_on_after_the_last_commit(lake: Lake) -> None:
    """The stream comes from its beginning each time; what the table has is skipped."""
    until = [25]

    def from_the_beginning(_: dg.AssetExecutionContext) -> pa.RecordBatchReader:
        def broken() -> Iterator[pa.RecordBatch]:
            yield from batches(0, until[0])
            if until[0] < 40:
                raise RuntimeError("lost connection")

        return pa.RecordBatchReader.from_batches(SCHEMA, broken())

    feed = written_by(from_the_beginning, table=TABLE, stream=STREAM)
    lake.run(feed, expect_success=False)
    assert ids(lake) == list(range(20))
    until[0] = 40
    lake.run(feed)
    assert ids(lake) == list(range(40))


def test_each_micro_batch_remembers_its_run(lake: Lake) -> None:
    result = lake.run(written_by(lambda _: lambda offset: batches(offset, 25), table=TABLE, stream=STREAM))
    assert {s["summary"]["dwh.run-id"] for s in lake.snapshots(TABLE)} == {result.run_id}


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({"stream": {"name": "", "commit_rows": 10}}, "stream: name is ''"),
        ({"stream": {"name": "events", "rows": 10}}, "stream: rows is 10"),
        ({"stream": {"name": "events", "commit_rows": 0}}, "stream: commit_rows is 0"),
        ({"stream": STREAM, "write_mode": "overwrite"}, "cannot be written with write_mode overwrite"),
    ],
)
def test_a_wrong_stream_is_refused_before_anything_changes(
    lake: Lake, declared: dict[str, Any], message: str
) -> None:
    result = lake.run(
        written_by(lambda _: list(batches(0, 9)), table=TABLE, **declared), expect_success=False
    )
    assert message in failure_text(result)
    assert TABLE in failure_text(result)
    assert not lake.exists(TABLE)


def test_a_stream_knows_no_partitions(lake: Lake) -> None:
    partitions = dg.StaticPartitionsDefinition(["1"])
    feed = written_by(
        lambda _: list(batches(0, 9)), table=TABLE, stream=STREAM, partitions=partitions, partition_expr="id"
    )
    result = lake.run(feed, partition="1", expect_success=False)
    assert "has partitions and a stream" in failure_text(result)
    assert not lake.exists(TABLE)


def test_what_is_no_batch_is_refused(lake: Lake) -> None:
    result = lake.run(written_by(lambda _: [1, 2], table=TABLE, stream=STREAM), expect_success=False)
    assert "Item 1 of the stream is a int" in failure_text(result)
    assert step_failure(result).user_failure_data.metadata["error"].value == "DataError"
