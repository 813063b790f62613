"""What a comparison says, against plain DuckDB over all rows, and what it never reads."""

from __future__ import annotations

import datetime as dt
import uuid
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.table.snapshots import Operation
from pyiceberg.types import DateType, StringType

from dwh_assets.errors import ConfigurationError, NotFoundError, UnsupportedError
from dwh_assets.iceberg.commit import commit
from dwh_assets.iceberg.diff import slots
from dwh_assets.iceberg.diff.compare import compare
from dwh_assets.iceberg.diff.version_diff import VersionDiff
from dwh_assets.iceberg.snapshot import Change
from dwh_tests.iceberg.conftest import Lake, local
from dwh_tests.iceberg.diff.compaction import compact
from dwh_tests.iceberg.diff.expected import expected_difference
from dwh_tests.iceberg.diff.test_histories import assert_changes

KEYS = ["id"]


def orders(ids: range | list[int], **columns: Any) -> pa.Table:
    """Rows by id; a column is one value, or a list of them."""
    count = len(list(ids))
    rows: dict[str, Any] = {
        "id": list(ids),
        "amount": [float(i) for i in ids],
        "note": [f"order {i}" for i in ids],
    }
    for name, value in columns.items():
        rows[name] = value if isinstance(value, list) else [value] * count
    return pa.table(rows)


def upsert(lake: Lake, rows: pa.Table, **declared: Any) -> int:
    return _id(lake.write(rows, write_mode="upsert", key_columns=KEYS, **declared).snapshot_id)


def append(lake: Lake, rows: pa.Table, **declared: Any) -> int:
    return _id(lake.write(rows, **declared).snapshot_id)


def _id(snapshot_id: int | None) -> int:
    assert snapshot_id is not None
    return snapshot_id


def counts(diff: VersionDiff) -> tuple[int, int, int]:
    return diff.rows_added, diff.rows_removed, diff.rows_modified


def assert_equals_full_comparison(lake: Lake, before: int | None, after: int, keys: list[str]) -> None:
    """Rows of both versions come from PyIceberg's own reader."""
    table = lake.table
    new = table.scan(snapshot_id=after).to_arrow()
    old = table.scan(snapshot_id=before).to_arrow() if before is not None else new.slice(0, 0)
    expected = expected_difference(old, new, keys)
    with compare(table, before, after, keys=keys) as diff:
        assert counts(diff) == (expected.added, expected.removed, expected.modified)
        assert_changes(diff.changes().read_all().to_pylist(), expected, keys)


def test_an_upsert_shows_both_images_of_each_row(lake: Lake) -> None:
    first = append(lake, orders(range(100)))
    second = upsert(lake, orders([3, 200], amount=7.5))
    with compare(lake.table, first, second, keys=KEYS) as diff:
        assert counts(diff) == (1, 0, 1)
        assert (diff.table, diff.from_snapshot_id, diff.to_snapshot_id) == (lake.name, first, second)
        found = {row["_change_type"]: row for row in diff.changes().read_all().to_pylist()}
    assert {kind: (row["id"], row["amount"]) for kind, row in found.items()} == {
        "update_before": (3, 3.0),
        "update_after": (3, 7.5),
        "insert": (200, 7.5),
    }


def test_every_change_tells_snapshot_time_and_run(lake: Lake) -> None:
    first = append(lake, orders(range(3)))
    writer = lake.writer(write_mode="upsert", key_columns=KEYS)
    second = _id(writer.write(orders([1], amount=9.0), summary={"dwh.run-id": "run 2"}).snapshot_id)
    third = upsert(lake, orders([2], amount=9.0))
    made = {one.snapshot_id: one.timestamp_ms for one in lake.table.metadata.snapshots}

    with compare(lake.table, first, third, keys=KEYS) as diff:
        net = diff.changes().read_all().to_pylist()
        each = diff.changes(per_snapshot=True).read_all().to_pylist()
    moments = {id_: dt.datetime.fromtimestamp(ms / 1000, dt.UTC) for id_, ms in made.items()}
    assert {(r["_snapshot_id"], r["_committed_at"], r["_run_id"]) for r in net} == {
        (third, moments[third], None)
    }
    assert [(r["id"], r["_snapshot_id"], r["_committed_at"], r["_run_id"]) for r in each] == [
        *[(1, second, moments[second], "run 2")] * 2,
        *[(2, third, moments[third], None)] * 2,
    ]


@pytest.mark.parametrize("keys", [[], KEYS])
def test_the_empty_table_can_be_compared(lake: Lake, keys: list[str]) -> None:
    first = append(lake, orders(range(4)))
    assert_equals_full_comparison(lake, None, first, keys)
    with compare(lake.table, None, first, keys=keys) as diff:
        assert counts(diff) == (4, 0, 0)


def test_a_version_equals_itself(lake: Lake) -> None:
    first = append(lake, orders(range(4)))
    with compare(lake.table, first, first, keys=KEYS) as diff:
        assert counts(diff) == (0, 0, 0)
        assert diff.changes().read_all().num_rows == 0
        assert diff.files_read == diff.bytes_read == 0


@pytest.mark.parametrize("row_changes", ["merge-on-read", "copy-on-write"])
@pytest.mark.parametrize("keys", [[], KEYS])
def test_rows_that_were_only_written_again_are_no_change(
    lake: Lake, row_changes: str, keys: list[str]
) -> None:
    first = append(lake, orders(range(1000)))
    second = upsert(lake, orders([5, 6, 2000], amount=-1.0), row_changes=row_changes)
    assert_equals_full_comparison(lake, first, second, keys)
    assert_equals_full_comparison(lake, second, first, keys)


def test_equality_is_that_of_an_upsert(lake: Lake) -> None:
    """Null equals null, NaN equals NaN, zero has no sign; copy-on-write writes them all again."""
    values = [None, float("nan"), 0.0, -0.0, 1.5]
    first = append(lake, orders(range(5), amount=values))
    again = [None, float("nan"), -0.0, 0.0, 2.5]
    second = upsert(lake, orders(range(5), amount=again), row_changes="copy-on-write", detect_unchanged=False)
    with compare(lake.table, first, second, keys=KEYS) as diff:
        assert counts(diff) == (0, 0, 1)
    with compare(lake.table, first, second) as diff:
        assert counts(diff) == (1, 1, 0)


@pytest.mark.parametrize("keys", [[], KEYS, ["id", "note"]])
def test_rows_and_keys_may_repeat_and_be_null(lake: Lake, keys: list[str]) -> None:
    nothing = [None] * 6
    one = orders([1, 1, 1, 2, 2, 3], note=[None, "a", "a", "b", "b", None])
    other = orders([1, 1, 1, 1, 2, 4], note=[None, "a", "c", "d", "b", None])
    without_id = one.set_column(0, "id", pa.array(nothing, pa.int64()))
    first = append(lake, pa.concat_tables([one, without_id]))
    second = _id(lake.write(pa.concat_tables([other, without_id, one]), write_mode="overwrite").snapshot_id)
    assert_equals_full_comparison(lake, first, second, keys)
    assert_equals_full_comparison(lake, second, first, keys)


def test_what_is_left_of_a_repeated_key_is_paired(lake: Lake) -> None:
    first = append(lake, orders([1, 1, 1], note=["same", "a", "b"]))
    second = _id(lake.write(orders([1, 1], note=["same", "c"]), write_mode="overwrite").snapshot_id)
    with compare(lake.table, first, second, keys=KEYS) as diff:
        assert counts(diff) == (0, 1, 1)


# --- Only what the versions do not share is read ---


def test_shared_files_and_manifests_are_not_read(lake: Lake) -> None:
    first = append(lake, orders(range(1000)))
    snapshot = lake.table.snapshot_by_id(first)
    assert snapshot is not None
    shared = {local(file.file_path) for file in lake.data_files()}
    shared |= {local(manifest.manifest_path) for manifest in snapshot.manifests(lake.table.io)}
    second = append(lake, orders(range(1000, 1010)))
    table = lake.table
    for path in shared:
        Path(path).unlink()

    with compare(table, first, second, keys=KEYS) as diff:
        assert counts(diff) == (10, 0, 0)
        assert diff.changes().read_all().num_rows == 10
        assert diff.files_read == 1


def test_rows_that_only_came_or_only_went_are_counted_unread(lake: Lake) -> None:
    first = append(lake, orders(range(1000)))
    appended = append(lake, orders(range(1000, 1500)))
    paths = sorted(file.file_path for file in lake.data_files())
    lake.delete_positions({paths[0]: [1, 2, 3], paths[1]: [7]})
    last = _id(lake.table.current_snapshot().snapshot_id)  # type: ignore[union-attr]
    table = lake.table
    for path in paths:
        Path(local(path)).unlink()
    for keys in ([], KEYS):
        for before, after, added, removed in (
            (None, first, 1000, 0),
            (first, appended, 500, 0),
            (appended, first, 0, 500),
            (appended, last, 0, 4),
            (last, appended, 4, 0),
            (None, last, 1496, 0),
        ):
            with compare(table, before, after, keys=keys) as diff:
                assert counts(diff) == (added, removed, 0)
                assert f"| {added:,} | {removed:,} | 0 |" in diff.to_markdown()


def test_single_rows_are_read_out_of_the_row_groups_that_hold_them(lake: Lake) -> None:
    limit = {"write.parquet.row-group-limit": "1000"}
    first = append(lake, orders(range(20_000)), table_properties=limit)
    (file,) = lake.data_files()
    second = upsert(lake, orders([19_500, 19_600], amount=0.5))
    with compare(lake.table, first, second, keys=KEYS) as diff:
        assert counts(diff) == (0, 0, 2)
        assert diff.files_read == 3  # where they were, which they were, and what they are
        others = sum(Path(path).stat().st_size for path in lake.on_disk(".parquet")) - file.file_size_in_bytes
        assert diff.bytes_read - others < file.file_size_in_bytes / 3


@pytest.mark.parametrize("later_changes", [0, 1])
def test_compaction_in_between_costs_nothing(lake: Lake, later_changes: int) -> None:
    first = append(lake, orders(range(1000)))
    append(lake, orders(range(1000, 1010)))
    upsert(lake, orders([5], amount=-5.0))
    before = set(lake.on_disk(".parquet"))
    compact(lake.catalog, lake.name)
    compacted = set(lake.on_disk(".parquet")) - before
    last = _id(lake.table.current_snapshot().snapshot_id)  # type: ignore[union-attr]
    for number in range(later_changes):
        last = upsert(lake, orders([6 + number], amount=-6.0))
    table = lake.table
    if not later_changes:
        for path in compacted:
            Path(path).unlink()

    with compare(table, first, last, keys=KEYS) as diff:
        assert counts(diff) == (10, 0, 1 + later_changes)
        assert diff.bytes_read < 30_000
        assert any("1 replace snapshot" in note for note in diff.notes)


def test_rows_that_a_compaction_moved_and_that_change_again_vanish_on_the_way(lake: Lake) -> None:
    first = append(lake, orders(range(1000)))
    append(lake, orders([2000, 2001]))
    compact(lake.catalog, lake.name)
    lake.table.delete("id == 2000")
    upsert(lake, orders([2001, 7], amount=-1.0))
    compact(lake.catalog, lake.name)
    last = upsert(lake, orders([7], amount=7.0))
    for keys in ([], KEYS):
        assert_equals_full_comparison(lake, first, last, keys)
        assert_equals_full_comparison(lake, last, first, keys)
    with compare(lake.table, first, last, keys=KEYS) as diff:
        assert counts(diff) == (1, 0, 0)


def test_the_end_points_are_compared_where_that_reads_less(lake: Lake) -> None:
    """Everything was written twice between the two versions, and there was a compaction."""
    first = append(lake, orders(range(3)))
    for _ in range(3):
        lake.write(orders(range(1000)), write_mode="overwrite")
    compact(lake.catalog, lake.name)
    last = _id(lake.write(orders(range(4)), write_mode="overwrite").snapshot_id)
    with compare(lake.table, first, last, keys=KEYS) as diff:
        assert counts(diff) == (1, 0, 0)
        assert diff.files_read == 2


# --- Deletes of other writers ---


def test_deletes_that_repeat_others_are_counted_once(lake: Lake) -> None:
    first = append(lake, orders(range(100)))
    append(lake, orders(range(100, 200)))
    one, two = (file.file_path for file in sorted(lake.data_files(), key=lambda file: file.file_path))
    lake.delete_positions({one: [1, 2], two: [3]})
    middle = _id(lake.table.current_snapshot().snapshot_id)  # type: ignore[union-attr]
    lake.delete_positions({one: [2, 3], two: [3]}, {one: [3, 4]})
    last = _id(lake.table.current_snapshot().snapshot_id)  # type: ignore[union-attr]
    for before in (first, middle):
        assert_equals_full_comparison(lake, before, last, KEYS)
        assert_equals_full_comparison(lake, last, before, [])
    with compare(lake.table, middle, last) as diff:
        assert counts(diff) == (0, 2, 0)


def test_our_deletes_after_those_of_others_are_exact(lake: Lake) -> None:
    first = append(lake, orders(range(100)))
    (file,) = lake.data_files()
    lake.delete_positions({file.file_path: [1, 2]})
    middle = _id(lake.table.current_snapshot().snapshot_id)  # type: ignore[union-attr]
    last = upsert(lake, orders([1, 50], amount=0.5))
    for before in (first, middle):
        assert_equals_full_comparison(lake, before, last, KEYS)


def test_deletes_of_files_that_are_gone_mean_nothing(lake: Lake) -> None:
    append(lake, orders(range(100)))
    (gone,) = lake.data_files()
    middle = _id(lake.write(orders(range(50)), write_mode="overwrite").snapshot_id)
    append(lake, orders(range(50, 60)))
    stale = _delete_file(lake, gone, DataFileContent.POSITION_DELETES)
    commit(lake.catalog, lake.table, lambda _: Change(Operation.DELETE, added_deletes=(stale,)))
    last = _id(lake.table.current_snapshot().snapshot_id)  # type: ignore[union-attr]
    with compare(lake.table, middle, last) as diff:
        assert counts(diff) == (10, 0, 0)


def test_equality_deletes_are_refused(lake: Lake) -> None:
    first = append(lake, orders(range(100)))
    deletes = _delete_file(lake, lake.data_files()[0], DataFileContent.EQUALITY_DELETES)
    commit(lake.catalog, lake.table, lambda _: Change(Operation.DELETE, added_deletes=(deletes,)))
    last = _id(lake.table.current_snapshot().snapshot_id)  # type: ignore[union-attr]
    with pytest.raises(UnsupportedError, match=r"shop\.orders has equality deletes"):
        compare(lake.table, first, last)


def _delete_file(lake: Lake, data_file: DataFile, content: DataFileContent) -> DataFile:
    """An entry for a delete file, which nobody should come to read."""
    path = data_file.file_path.encode()
    file = DataFile.from_args(
        content=content,
        file_path=f"{lake.table.location()}/data/{uuid.uuid4()}.parquet",
        file_format=FileFormat.PARQUET,
        partition=data_file.partition,
        record_count=1,
        file_size_in_bytes=100,
        lower_bounds={2147483546: path},
        upper_bounds={2147483546: path},
        equality_ids=[1] if content == DataFileContent.EQUALITY_DELETES else None,
    )
    file.spec_id = data_file.spec_id
    return file


# --- Branches, rollbacks, expiry ---


def test_branches_are_compared_through_their_common_ancestor(lake: Lake) -> None:
    base = append(lake, orders(range(10)))
    lake.table.manage_snapshots().create_branch(base, "trial").commit()
    ours = upsert(lake, orders([1], amount=-1.0))
    theirs = upsert(lake, orders([2, 30], amount=-2.0), branch="trial")
    assert_equals_full_comparison(lake, ours, theirs, KEYS)
    with compare(lake.table, ours, theirs, keys=KEYS) as diff:
        assert counts(diff) == (1, 0, 2)
        assert any(f"common ancestor, snapshot {base}" in note for note in diff.notes)
        each = diff.changes(per_snapshot=True).read_all().to_pylist()
    # Our change is taken back first.
    assert [(row["_snapshot_id"], row["_change_type"], row["id"], row["amount"]) for row in each] == [
        (ours, "update_before", 1, -1.0),
        (ours, "update_after", 1, 1.0),
        (theirs, "update_before", 2, 2.0),
        (theirs, "update_after", 2, -2.0),
        (theirs, "insert", 30, -2.0),
    ]


def test_a_rollback_is_seen_as_what_it_took_back(lake: Lake) -> None:
    first = append(lake, orders(range(10)))
    second = upsert(lake, orders([1], amount=-1.0))
    compact(lake.catalog, lake.name)
    lake.table.manage_snapshots().rollback_to_snapshot(first).commit()
    third = upsert(lake, orders([2], amount=-2.0))
    assert_equals_full_comparison(lake, second, third, KEYS)
    with compare(lake.table, second, first, keys=KEYS) as diff:
        assert counts(diff) == (0, 0, 1)
        assert any("taken back" in note for note in diff.notes)


def test_expired_snapshots_in_between_leave_the_end_points(lake: Lake) -> None:
    first = append(lake, orders(range(10)))
    middle = upsert(lake, orders([1], amount=-1.0))
    last = upsert(lake, orders([2], amount=-2.0))
    lake.table.manage_snapshots().create_tag(first, "kept").commit()
    lake.table.maintenance.expire_snapshots().by_id(middle).commit()
    assert_equals_full_comparison(lake, first, last, KEYS)
    with compare(lake.table, first, last, keys=KEYS) as diff:
        assert counts(diff) == (0, 0, 2)
        assert any("expired" in note for note in diff.notes)
        each = diff.changes(per_snapshot=True).read_all().to_pylist()
    assert Counter(row["_snapshot_id"] for row in each) == {last: 4}


# --- Columns ---


def test_columns_are_found_by_id_under_their_latest_names(lake: Lake) -> None:
    first = append(lake, orders(range(4)))
    with lake.table.update_schema(allow_incompatible_changes=True) as change:
        change.rename_column("amount", "total")
        change.delete_column("note")
        change.add_column("extra", lake.table.schema().find_field("id").field_type)
    renamed = pa.table(
        {"id": [1, 9], "total": [1.0, 9.0], "extra": [None, 3]},
        pa.schema([("id", pa.int64()), ("total", pa.float64()), ("extra", pa.int64())]),
    )
    second = upsert(lake, renamed, detect_unchanged=False)
    with compare(lake.table, first, second, keys=KEYS) as diff:
        assert counts(diff) == (1, 0, 0)
        (row,) = diff.changes().read_all().to_pylist()
        assert {name: row[name] for name in ("id", "total", "extra")} == {"id": 9, "total": 9.0, "extra": 3}
    with compare(lake.table, second, first, keys=KEYS) as diff:
        # The row that was written anew has lost its note.
        assert counts(diff) == (0, 1, 1)
        assert diff.changes().schema.names[:3] == ["id", "amount", "note"]


def test_an_added_column_has_its_default_in_older_rows(lake: Lake) -> None:
    first = append(lake, orders(range(4)))
    with lake.table.update_schema() as change:
        change.add_column("state", StringType(), default_value="open")
        change.add_column("day", DateType(), default_value=dt.date(2024, 5, 6))
    changed = orders([1, 2], state=["shut", "open"], day=dt.date(2024, 5, 6))
    second = upsert(lake, changed, detect_unchanged=False)
    with compare(lake.table, first, second, keys=KEYS) as diff:
        images = diff.changes().read_all().to_pylist()
    assert [(row["id"], row["state"], row["day"]) for row in images] == [
        (1, "open", dt.date(2024, 5, 6)),
        (1, "shut", dt.date(2024, 5, 6)),
    ]


def test_values_of_every_type_are_compared(lake: Lake) -> None:
    moment = dt.datetime(2024, 5, 6, 7, 8, 9, 10, tzinfo=dt.UTC)
    row: dict[str, Any] = {
        "id": 1,
        "price": Decimal("12.50"),
        "at": moment,
        "local": moment.replace(tzinfo=None),
        "day": moment.date(),
        "time": dt.time(1, 2, 3, 4),
        "raw": b"\x00\xff",
        "fixed": b"abcd",
        "uid": uuid.UUID(int=5).bytes,
        "list": [{"a": 1, "b": float("nan")}, None],
        "map": [("k", [1, None])],
        "struct": {"x": None, "y": "text"},
        "flag": True,
    }
    schema = pa.schema(
        [
            ("id", pa.int64()),
            ("price", pa.decimal128(9, 2)),
            ("at", pa.timestamp("us", "UTC")),
            ("local", pa.timestamp("us")),
            ("day", pa.date32()),
            ("time", pa.time64("us")),
            ("raw", pa.binary()),
            ("fixed", pa.binary(4)),
            ("uid", pa.uuid()),
            ("list", pa.list_(pa.struct([("a", pa.int32()), ("b", pa.float64())]))),
            ("map", pa.map_(pa.string(), pa.list_(pa.int32()))),
            ("struct", pa.struct([("x", pa.int32()), ("y", pa.string())])),
            ("flag", pa.bool_()),
        ]
    )
    changed = {
        "price": Decimal("12.51"),
        "at": moment + dt.timedelta(microseconds=1),
        "local": dt.datetime(2024, 5, 6),  # noqa: DTZ001
        "day": dt.date(2024, 5, 7),
        "time": dt.time(1, 2, 3, 5),
        "raw": b"\x00\xfe",
        "fixed": b"abce",
        "uid": uuid.UUID(int=6).bytes,
        "list": [{"a": 1, "b": float("nan")}],
        "map": [("k", [1, 2])],
        "struct": {"x": 1, "y": "text"},
        "flag": False,
    }
    numbered = [{**row, "id": number} for number in range(len(changed) + 1)]
    first = append(lake, pa.Table.from_pylist(numbered, schema))
    then = [
        numbered[0],
        *({**old, name: value} for old, (name, value) in zip(numbered[1:], changed.items(), strict=True)),
    ]
    second = _id(lake.write(pa.Table.from_pylist(then, schema), write_mode="overwrite").snapshot_id)
    with compare(lake.table, first, second, keys=KEYS) as diff:
        assert counts(diff) == (0, 0, len(changed))
        images = diff.changes().read_all()
        assert {column.name: column.rows_changed for column in diff.columns} == {
            **dict.fromkeys(changed, 1),
            "id": 0,
        }
    with compare(lake.table, first, second) as diff:
        assert counts(diff) == (len(changed), len(changed), 0)
    after = images.filter(pa.compute.field("_change_type") == "update_after").select(schema.names)
    assert repr(after.sort_by("id").to_pylist()) == repr(
        lake.table.scan(row_filter="id > 0").to_arrow().sort_by("id").to_pylist()
    )


# --- More than memory holds ---


@pytest.mark.parametrize("keys", [[], KEYS])
def test_differences_that_are_spilled_are_the_same(
    lake: Lake, keys: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "CHUNK_BYTES", 1 << 16)
    first = append(lake, orders(range(20_000)))
    changed = orders(range(10_000, 25_000), amount=[float(i % 3000) for i in range(10_000, 25_000)])
    second = _id(lake.write(changed, write_mode="overwrite").snapshot_id)
    assert_equals_full_comparison(lake, first, second, keys)
    with compare(lake.table, first, second, keys=KEYS) as diff:
        assert diff.rows_added == 5_000
        amount = diff.columns[1]
        assert amount.rows_changed == diff.rows_modified
        assert amount.before.rows == 20_000
        one, other = diff.changes(), diff.changes()
        begun = one.read_next_batch().num_rows
        assert begun + one.read_all().num_rows == other.read_all().num_rows


# --- What is asked in vain ---


def test_mistakes_are_told_before_anything_is_read(lake: Lake) -> None:
    first = append(lake, orders(range(4)))
    with pytest.raises(NotFoundError, match=r"shop\.orders has no snapshot 42"):
        compare(lake.table, first, 42)
    with pytest.raises(NotFoundError, match=r"shop\.orders has no snapshot 43"):
        compare(lake.table, 43, first)
    with pytest.raises(ConfigurationError, match=r"'nr' is not a column of both versions.*id, amount, note"):
        compare(lake.table, first, first, keys=["nr"])


def test_a_key_has_to_be_in_both_versions(lake: Lake) -> None:
    first = append(lake, orders(range(4)))
    second = append(lake, orders(range(4), code="x"), schema_evolution={"enabled": True})
    with pytest.raises(ConfigurationError, match="'code' is not a column of both versions"):
        compare(lake.table, first, second, keys=["code"])


def test_a_column_of_the_name_of_ours_is_refused_when_rows_are_asked_for(lake: Lake) -> None:
    first = append(lake, orders(range(4), _run_id="x"))
    with compare(lake.table, None, first) as diff:
        assert diff.rows_added == 4
        with pytest.raises(UnsupportedError, match=r"shop\.orders has a column '_run_id'"):
            diff.changes()
