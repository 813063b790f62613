"""What an attack on the writer brought to light, each as the shortest way to it that is known."""

import threading
import uuid
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.table.snapshots import Operation

from dwh_assets.errors import ConfigurationError, DataError
from dwh_assets.iceberg.commit import commit
from dwh_assets.iceberg.files.position_deletes import write_position_deletes
from dwh_assets.iceberg.snapshot import Change
from dwh_tests.iceberg.conftest import Lake

UPSERT = {"write_mode": "upsert", "key_columns": ["k"]}


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path)


class _Late(SqlCatalog):
    """Loses the answer to the first commit, which lands only when the second one is under way."""

    held: tuple[Any, ...] | None = None
    seen = 0

    def commit_table(self, *given: Any) -> Any:
        self.seen += 1
        if self.seen == 1:
            self.held = given
            raise ConnectionError("the answer is lost")
        if self.held is not None:
            first, self.held = self.held, None
            server = SqlCatalog("dwh", **self.properties)
            thread = threading.Thread(target=lambda: server.commit_table(*first))
            thread.start()
            thread.join()
        return super().commit_table(*given)


@pytest.mark.parametrize(
    "mode",
    [
        UPSERT,
        {**UPSERT, "row_changes": "copy-on-write"},
        {
            "write_mode": "merge",
            "key_columns": ["k"],
            "merge": {
                "clauses": [{"when": "matched", "then": "update"}, {"when": "not_matched", "then": "insert"}]
            },
        },
        {"write_mode": "overwrite", "overwrite_where": "k < 3 or k = 50"},
        {"write_mode": "append"},
    ],
    ids=["upsert", "copy-on-write", "merge", "overwrite", "append"],
)
def test_a_commit_that_lands_late_finds_its_files(lake: Lake, mode: dict[str, Any]) -> None:
    lake.write(pa.table({"k": list(range(10)), "v": [0] * 10}))
    data = pa.table({"k": [1, 2, 50], "v": [7, 7, 7]})
    result = lake.writer(catalog=_Late("dwh", **lake.properties), **mode).write(data)
    taken = [0, 1, 2] if mode["write_mode"] == "overwrite" else [1, 2]
    kept = set(range(10)) - (set() if mode["write_mode"] == "append" else set(taken))
    expected = sorted([(k, 0) for k in kept] + [(k, 7) for k in (1, 2, 50)])
    assert sorted((row["k"], row["v"]) for row in lake.rows()) == expected
    assert result.total_rows == len(expected)
    assert len(lake.metadata["snapshots"]) == 2


def test_a_stream_is_remembered_past_the_snapshots_of_other_engines(lake: Lake) -> None:
    batches = [pa.record_batch({"a": [number]}) for number in range(4)]
    lake.writer().write_stream(iter(batches), "events")
    lake.table.append(pa.table({"a": [100]}))
    lake.write(pa.table({"a": [200]}))
    lake.table.maintenance.expire_snapshots().by_ids(
        [s["snapshot-id"] for s in lake.metadata["snapshots"][:-1]]
    ).commit()
    lake.writer().write_stream(iter(batches), "events")
    assert lake.column("a") == [0, 1, 2, 3, 100, 200]


def test_a_stream_goes_on_where_main_was_on_a_branch_that_begins_there(lake: Lake) -> None:
    batches = [pa.record_batch({"a": [number]}) for number in range(5)]
    lake.writer().write_stream(iter(batches[:4]), "events")
    lake.writer(branch="audit").write_stream(iter(batches), "events")
    audit = lake.metadata["refs"]["audit"]["snapshot-id"]
    assert (lake.column("a", audit), lake.column("a")) == ([0, 1, 2, 3, 4], [0, 1, 2, 3])


@pytest.mark.parametrize("kind", [pa.int32(), pa.int64()], ids=str)
def test_the_least_integer_is_found_in_its_truncated_partition(lake: Lake, kind: pa.DataType) -> None:
    least = int(np.iinfo(kind.to_pandas_dtype()).min)
    data = pa.table({"k": pa.array([least], kind), "v": [1]})
    for _ in range(2):
        lake.write(data, **UPSERT, partition_spec=[{"field": "k", "transform": "truncate[7]"}])
    assert lake.column("k") == [least]


def test_partitions_that_wrap_around_are_overwritten(lake: Lake) -> None:
    data = pa.table({"k": pa.array([-(2**31)], pa.int32()), "v": [1]})
    lake.write(data)
    spec = [{"field": "k", "transform": "truncate[7]"}]
    lake.write(data, write_mode="overwrite", overwrite="partitions", partition_spec=spec)
    assert len(lake.rows()) == 1


def test_rows_that_two_delete_files_name_are_counted_once(lake: Lake) -> None:
    lake.write(pa.table({"k": list(range(10))}))
    for positions in ([1, 2], [2, 3]):
        (task,) = lake.table.scan().plan_files()
        deletes = tuple(write_position_deletes(lake.table, [(task.file, np.array(positions))]))
        change = Change(Operation.OVERWRITE, added_deletes=deletes)
        commit(lake.catalog, lake.table, partial(lambda change, _: change, change))
    result = lake.write(pa.table({"k": [10]}))
    assert result.total_rows == len(lake.rows()) == 8


def test_uuids_are_keys_and_partitions_at_once(lake: Lake) -> None:
    keys = [uuid.UUID(int=number) for number in (1, 2)]
    data = pa.table({"k": pa.array([key.bytes for key in keys], pa.binary(16)).cast(pa.uuid()), "v": [1, 2]})
    spec = [{"field": "k"}]
    lake.write(data, **UPSERT, partition_spec=spec)
    result = lake.write(data, **UPSERT, partition_spec=spec)
    assert result.rows_unchanged == 2
    assert len(lake.rows()) == 2


def test_days_beyond_those_of_python_are_keys_and_partitions(lake: Lake) -> None:
    far = pa.array([3_000_000, 3_000_001], pa.int32()).cast(pa.date32())
    data = pa.table({"k": far, "v": [1, 2]})
    spec = [{"field": "k", "transform": "day"}]
    lake.write(data, **UPSERT, partition_spec=spec)
    result = lake.write(data, **UPSERT, partition_spec=spec)
    assert result.rows_unchanged == 2
    with pytest.raises(DataError, match="repeat a key"):
        lake.write(pa.concat_tables([data, data]), **UPSERT, partition_spec=spec)


@pytest.mark.parametrize("key", ["operation", "added-records", "total-data-files"])
def test_entries_that_iceberg_keeps_itself_are_refused(lake: Lake, key: str) -> None:
    with pytest.raises(ConfigurationError, match=f"'{key}' is Iceberg's own"):
        lake.writer().write(pa.table({"k": [1]}), summary={key: "x"})
    assert not lake.catalog.list_namespaces()


def test_the_two_zeros_are_a_partition_each(lake: Lake) -> None:
    result = lake.write(pa.table({"p": [0.0, -0.0] * 150 + [1.0]}), partition_spec=[{"field": "p"}])
    assert result.files_written == 3
    assert len(lake.rows()) == 301


def test_bounds_name_no_text_that_is_not_in_the_file(lake: Lake) -> None:
    text = ["b", "c", None] * 100 + ["a"] * 100 + [None] * 100
    parts = [1] * 300 + [2] * 100 + [3] * 100
    lake.write(pa.table({"p": parts, "s": text}), partition_spec=[{"field": "p"}])
    found = {}
    for task in lake.table.scan().plan_files():
        low, high = (bounds.get(2) for bounds in (task.file.lower_bounds, task.file.upper_bounds))
        found[task.file.partition[0]] = (low, high)
    assert found == {1: (b"b", b"c"), 2: (b"a", b"a"), 3: (None, None)}
