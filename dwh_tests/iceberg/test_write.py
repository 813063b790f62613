"""One write is one snapshot: its result, its summary, its repeats, and what it never touches."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest
from pydantic import ValidationError
from pyiceberg.expressions import AlwaysTrue

from dwh_assets.errors import ConfigurationError, DataError, DwhError, SchemaError
from dwh_tests.iceberg.conftest import Lake, duckdb_rows, file_rows, local, multiset

SCHEMA = pa.schema([("id", pa.int64()), ("name", pa.string_view()), ("price", pa.float64())])


def rows(*ids: int) -> pa.Table:
    return pa.table(
        {"id": list(ids), "name": [f"n{i}" for i in ids], "price": [i / 2 for i in ids]}, schema=SCHEMA
    )


def snapshots(lake: Lake) -> list[dict[str, Any]]:
    return list(lake.metadata["snapshots"])


def test_append_is_one_snapshot_that_the_result_describes(lake: Lake) -> None:
    first, second = lake.write(rows(1, 2)), lake.write(rows(3))
    assert [s["snapshot-id"] for s in snapshots(lake)] == [first.snapshot_id, second.snapshot_id]
    assert multiset(lake.rows()) == multiset(rows(1, 2, 3).to_pylist())
    (file,) = [file for file in lake.data_files() if file_rows(file)["id"].to_pylist() == [3]]
    assert (second.table, second.operation, second.table_location) == (
        lake.name,
        "append",
        lake.metadata["location"],
    )
    assert (second.parent_snapshot_id, second.logical_snapshot_id) == (first.snapshot_id, second.snapshot_id)
    assert (second.rows_written, second.rows_inserted, second.rows_updated, second.rows_deleted) == (
        1,
        1,
        0,
        0,
    )
    assert (second.files_added, second.files_written, second.files_removed, second.bytes_removed) == (
        1,
        1,
        0,
        0,
    )
    assert second.bytes_added == file.file_size_in_bytes
    assert (second.total_rows, second.total_files) == (3, 2)
    assert second.total_bytes == first.bytes_added + second.bytes_added
    assert second.manifest_list == snapshots(lake)[-1]["manifest-list"]
    assert (second.changed, second.attempts, second.repeated) == (True, 1, False)
    assert second.seconds > 0


def test_overwrite_is_one_snapshot_that_the_result_describes(lake: Lake) -> None:
    spec = [{"field": "id", "transform": "truncate[10]"}]
    first = lake.write(rows(1, 2, 11, 21), partition_spec=spec)
    second = lake.write(rows(12), where="id >= 2 and id < 20", write_mode="overwrite")
    assert len(snapshots(lake)) == 2
    assert multiset(lake.rows()) == multiset(rows(1, 12, 21).to_pylist())
    assert (second.operation, second.rows_inserted, second.rows_deleted) == ("overwrite", 1, 2)
    assert (second.files_added, second.files_removed) == (2, 2)
    assert (second.total_rows, second.total_files) == (3, 3)
    assert second.bytes_removed < first.bytes_added
    assert second.total_bytes == sum(file.file_size_in_bytes for file in lake.data_files())


def test_totals_of_the_summary_are_what_is_there(lake: Lake) -> None:
    spec = [{"field": "id", "transform": "bucket[3]"}]
    for write in (
        {"data": rows(*range(20))},
        {"data": rows(*range(20, 30))},
        {"data": rows(3, 4), "where": "id < 5", "write_mode": "overwrite"},
        {"data": rows(), "where": "id = 25", "write_mode": "overwrite"},
    ):
        lake.write(write.pop("data"), partition_spec=spec, **write)
        files, summary = lake.data_files(), lake.summary
        assert int(summary["total-records"]) == len(lake.rows()) == sum(file.record_count for file in files)
        assert int(summary["total-data-files"]) == len(files)
        assert int(summary["total-files-size"]) == sum(file.file_size_in_bytes for file in files)
        assert (summary["total-delete-files"], summary["total-position-deletes"]) == ("0", "0")


def test_every_version_stays_readable(lake: Lake) -> None:
    ids = [lake.write(rows(n), write_mode="overwrite" if n == 2 else "append").snapshot_id for n in range(4)]
    expected = [[0], [0, 1], [2], [2, 3]]
    assert [lake.column("id", snapshot) for snapshot in ids] == expected


def test_no_rows(lake: Lake) -> None:
    first = lake.write(rows())
    assert (first.changed, first.operation, first.total_rows, first.files_added) == (True, "append", 0, 0)
    second = lake.write(rows())
    assert (second.changed, second.operation, second.snapshot_id) == (False, "none", first.snapshot_id)
    lake.write(rows(1, 2))
    emptied = lake.write(rows(), write_mode="overwrite")
    assert (emptied.rows_deleted, emptied.total_rows, lake.rows()) == (2, 0, [])
    assert len(snapshots(lake)) == 3


def test_schema_layout_properties_and_data_are_one_commit(lake: Lake) -> None:
    lake.write(rows(1))
    before = lake.metadata
    result = lake.write(
        rows(2).append_column("new", pa.array([True])),
        partition_spec=[{"field": "id", "transform": "bucket[2]"}],
        sort_order=[{"field": "name"}],
        table_properties={"owner": "shop"},
    )
    after = lake.metadata
    assert result.schema_changes == (
        "added new boolean",
        "partitioned by bucket[2](id)",
        "changed the sort order",
    )
    assert len(after["snapshots"]) == len(before["snapshots"]) + 1
    assert len(after["metadata-log"]) == len(before["metadata-log"]) + 1
    assert after["properties"]["owner"] == "shop"


@pytest.mark.parametrize(
    "declared",
    [
        {"table_properties": {"owner": "shop"}},
        {"partition_spec": [{"field": "id"}]},
        {"sort_order": [{"field": "id"}]},
        {"columns": {"id": {"description": "d"}}},
    ],
    ids=lambda declared: next(iter(declared)),
)
def test_a_declaration_alone_is_a_change_and_then_none(lake: Lake, declared: dict[str, Any]) -> None:
    lake.write(rows(1))
    assert lake.write(rows(), **declared).changed
    assert not lake.write(rows(), **declared).changed
    assert not lake.write(rows()).changed
    assert lake.column("id") == [1]


def test_properties_of_others_survive(lake: Lake) -> None:
    lake.write(rows(1), table_properties={"mine": "1", "write.parquet.compression-codec": "snappy"})
    lake.table.transaction().set_properties({"theirs": "t", "mine": "by hand"}).commit_transaction()
    lake.write(rows(2))
    assert lake.metadata["properties"]["mine"] == "by hand"
    lake.write(rows(3), table_properties={"mine": "2"})
    properties = lake.metadata["properties"]
    assert (properties["mine"], properties["theirs"]) == ("2", "t")
    assert properties["write.parquet.compression-codec"] == "snappy"


def test_old_metadata_files_go_where_the_table_says_so(lake: Lake) -> None:
    properties = {
        "write.metadata.delete-after-commit.enabled": "true",
        "write.metadata.previous-versions-max": "2",
    }
    for number in range(6):
        lake.write(rows(number), table_properties=properties)
    kept = {local(entry["metadata-file"]) for entry in lake.metadata["metadata-log"]}
    assert lake.on_disk(".metadata.json") == kept | {local(lake.table.metadata_location)}
    assert len(kept) == 2


def test_summary_entries_are_kept_beside_the_counts(lake: Lake) -> None:
    lake.writer().write(rows(1), summary={"dwh.run-id": "r1"}, idempotency_key="k1")
    summary = lake.summary
    assert (summary["dwh.run-id"], summary["dwh.idempotency-key"], summary["added-records"]) == (
        "r1",
        "k1",
        "1",
    )


def test_a_repeat_is_recognised_and_returns_the_first_result(lake: Lake) -> None:
    writer = lake.writer(idempotency_key="load 7")
    first = writer.write(rows(1, 2))
    lake.write(rows(3))
    again = writer.write(rows(1, 2))
    same = [name for name in vars(first) if name not in ("attempts", "repeated", "seconds", "schema_changes")]
    assert {name: getattr(again, name) for name in same} == {name: getattr(first, name) for name in same}
    assert (again.repeated, again.changed) == (True, False)
    assert lake.column("id") == [1, 2, 3]
    other = lake.writer().write(rows(1), idempotency_key="load 8")
    assert (other.repeated, lake.column("id")) == (False, [1, 1, 2, 3])


def test_a_repeat_does_not_look_at_the_data(lake: Lake) -> None:
    writer = lake.writer(idempotency_key="k")
    writer.write(rows(1))

    taken = iter(rows(1).to_batches())
    assert writer.write(taken).repeated
    assert next(taken, None) is not None


def test_a_write_that_was_rolled_back_is_done_again(lake: Lake) -> None:
    start = lake.write(rows(1)).snapshot_id
    assert start is not None
    writer = lake.writer(idempotency_key="k")
    writer.write(rows(2))
    lake.table.manage_snapshots().set_current_snapshot(snapshot_id=start).commit()
    again = writer.write(rows(2))
    assert (again.repeated, lake.column("id")) == (False, [1, 2])
    assert writer.write(rows(2)).repeated


def test_a_repeat_that_overtakes_the_first_write_is_recognised(lake: Lake) -> None:
    """Two runs with one key at once: the one that comes second must see what the first has done."""
    lake.write(rows(1))

    def batches() -> Iterator[pa.RecordBatch]:
        yield from rows(2).to_batches()
        lake.writer(idempotency_key="k").write(rows(2))

    result = lake.writer(idempotency_key="k").write(batches())
    assert lake.column("id") == [1, 2]
    assert result.repeated
    assert lake.orphans() == set()


def half_way() -> Iterator[pa.RecordBatch]:
    yield from rows(*range(1000)).to_batches(max_chunksize=10)
    raise RuntimeError("the source is gone")


BAD: dict[str, tuple[Any, dict[str, Any], type[Exception]]] = {
    "wrong type": (rows(1).set_column(0, "id", [["x"]]), {}, SchemaError),
    "missing column": (rows(1).select(["id"]), {}, SchemaError),
    "column twice": (rows(1).append_column("id", [[1]]), {}, SchemaError),
    "value that does not fit": (rows(1).set_column(0, "id", pa.array([2**63], pa.uint64())), {}, DataError),
    "reader that breaks": (half_way, {}, RuntimeError),
    "no rows at all": ("orders.parquet", {}, DataError),
    "unknown partition column": (rows(1), {"partition_spec": [{"field": "nope"}]}, ConfigurationError),
    "unknown sort column": (rows(1), {"sort_order": [{"field": "nope"}]}, ConfigurationError),
    "unknown filter column": (rows(1), {"where": "nope = 1", "write_mode": "overwrite"}, ConfigurationError),
    "row outside of the filter": (rows(1), {"where": "id = 2", "write_mode": "overwrite"}, DataError),
    "filter without overwrite": (rows(1), {"where": "id = 1"}, ConfigurationError),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_changes_nothing(lake: Lake, name: str) -> None:
    data, declared, error = BAD[name]
    lake.write(rows(1, 2), partition_spec=[{"field": "id", "transform": "bucket[4]"}])
    before = (lake.table.metadata_location, lake.on_disk())
    with pytest.raises(error) as raised:
        lake.write(data() if callable(data) else data, **declared)
    assert (lake.table.metadata_location, lake.on_disk()) == before
    if isinstance(raised.value, DwhError) and name != "no rows at all":
        assert lake.name in str(raised.value)


FIRST: dict[str, tuple[Any, dict[str, Any], type[Exception]]] = {
    **{name: case for name, case in BAD.items() if name not in ("wrong type", "missing column")},
    "wrong declaration": (rows(1), {"columns": {"name": {"type": "int"}}}, DataError),
    "null key": (
        rows(1).set_column(0, "id", pa.array([None], pa.int64())),
        {"key_columns": ["id"]},
        DataError,
    ),
}


@pytest.mark.parametrize("name", FIRST)
def test_bad_input_makes_no_table(lake: Lake, name: str) -> None:
    """A table that a failed first write had left behind would refuse the right data afterwards."""
    data, declared, error = FIRST[name]
    with pytest.raises(error):
        lake.write(data() if callable(data) else data, **declared)
    assert not lake.catalog.table_exists(lake.name)
    assert lake.on_disk() == set()


@pytest.mark.parametrize(
    "declared",
    [
        {"table": "orders"},
        {"table": ".orders"},
        {"write_mode": "replace"},
        {"partition_spec": [{"field": "id", "transform": "bucket[0]"}]},
        {"partition_spec": [{"field": "id", "transform": "week"}]},
        {"sort_order": [{"field": "id", "direction": "up"}]},
        {"target_file_size_bytes": 10},
        {"format_version": 3},
        {"unknown": 1},
    ],
    ids=lambda declared: str(next(iter(declared.items()))),
)
def test_a_wrong_configuration_is_refused_by_attribute(lake: Lake, declared: dict[str, Any]) -> None:
    table = declared.pop("table", None)
    with pytest.raises(ValidationError, match="table" if table else next(iter(declared))):
        Lake(lake.folder, table or lake.name).writer(**declared)


def on_branch(lake: Lake, branch: str) -> list[int]:
    snapshot = next(ref for name, ref in lake.metadata["refs"].items() if name == branch)["snapshot-id"]
    return sorted(duckdb_rows(lake.table.metadata_location, snapshot)["id"].to_pylist())


def test_a_branch_grows_from_main_and_leaves_it_alone(lake: Lake) -> None:
    main = lake.write(rows(1))
    first = lake.write(rows(2), branch="audit")
    second = lake.write(rows(3), branch="audit")
    assert (first.parent_snapshot_id, second.parent_snapshot_id) == (main.snapshot_id, first.snapshot_id)
    assert (on_branch(lake, "main"), on_branch(lake, "audit")) == ([1], [1, 2, 3])
    assert lake.metadata["current-snapshot-id"] == main.snapshot_id
    replaced = lake.write(rows(9), branch="audit", write_mode="overwrite", where="id > 1")
    assert (replaced.rows_deleted, replaced.total_rows) == (2, 2)
    assert (on_branch(lake, "main"), on_branch(lake, "audit")) == ([1], [1, 9])
    lake.write(rows(4), write_mode="overwrite")
    assert (on_branch(lake, "main"), on_branch(lake, "audit")) == ([4], [1, 9])


def test_a_branch_remembers_its_own_keys(lake: Lake) -> None:
    lake.write(rows(1))
    audit = lake.writer(branch="audit", idempotency_key="k")
    audit.write(rows(2))
    assert audit.write(rows(2)).repeated
    assert not lake.writer(idempotency_key="k").write(rows(2)).repeated
    assert (on_branch(lake, "main"), on_branch(lake, "audit")) == ([1, 2], [1, 2])


def test_columns_that_a_branch_brings_are_not_main_s(lake: Lake) -> None:
    lake.write(rows(1))
    wider = rows(2).append_column("new", pa.array([True]))
    lake.write(wider, branch="audit")
    assert lake.rows() == rows(1).to_pylist()
    lake.write(wider)
    assert on_branch(lake, "main") == [1, 2]


def test_a_tag_is_no_branch(lake: Lake) -> None:
    snapshot = lake.write(rows(1)).snapshot_id
    assert snapshot is not None
    lake.table.manage_snapshots().create_tag(snapshot, "q3").commit()
    with pytest.raises(ConfigurationError, match=r"shop.orders.*'q3'.*tag"):
        lake.write(rows(2), branch="q3")
    assert (lake.metadata["refs"]["q3"], len(snapshots(lake))) == (
        {"snapshot-id": snapshot, "type": "tag"},
        1,
    )


def test_views_and_dictionaries_go_into_partitions(lake: Lake) -> None:
    table = pa.table(
        {
            "id": [1, 2],
            "name": pa.array(["a", "b"], pa.string_view()),
            "kind": pa.array(["x", "y"]).dictionary_encode(),
        }
    )
    lake.write(table, partition_spec=[{"field": "name"}, {"field": "kind", "transform": "truncate[1]"}])
    assert multiset(lake.rows()) == multiset(table.to_pylist())


def test_bounds_keep_every_row_findable(lake: Lake) -> None:
    for start in range(0, 50, 10):
        lake.write(rows(*range(start, start + 10)))
    assert len(list(lake.table.scan(row_filter="id = 25").plan_files())) == 1
    assert len(list(lake.table.scan(row_filter="name = 'n25'").plan_files())) == 2  # n2 < n25 < n3
    assert duckdb_rows(lake.table.metadata_location, where="id BETWEEN ? AND ?", values=[9, 11]).num_rows == 3
    assert duckdb_rows(lake.table.metadata_location, where="name = 'n25'")["id"].to_pylist() == [25]


def test_a_table_that_another_made_is_written_as_it_is(lake: Lake) -> None:
    lake.catalog.create_namespace("shop")
    made = lake.catalog.create_table(
        lake.name, pa.schema([("id", pa.int64())]), properties={"format-version": "1"}
    )
    made.append(pa.table({"id": [1]}))
    lake.write(pa.table({"id": [2]}))
    lake.write(pa.table({"id": [1, 1]}), where="id = 1", write_mode="overwrite")
    assert (lake.column("id"), lake.metadata["format-version"]) == ([1, 1, 2], 1)


def test_an_event_is_logged_for_each_write(lake: Lake, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "dwh_assets.iceberg.write"):
        result = lake.write(rows(1))
    (record,) = [record for record in caplog.records if record.message.startswith("iceberg.write.complete")]
    assert record.__dict__["event"] == {
        "table": lake.name,
        "rows_written": 1,
        "files_written": 1,
        "snapshot_id": result.snapshot_id,
        "manifest_list": result.manifest_list,
    }


def test_everything_is_a_filter_too(lake: Lake) -> None:
    lake.write(rows(1, 2))
    assert lake.write(rows(3), where=AlwaysTrue(), write_mode="overwrite").rows_deleted == 2
