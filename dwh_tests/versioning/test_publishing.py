"""A write is audited on a branch of its own; main takes it over whole, or knows nothing of it."""

from __future__ import annotations

import multiprocessing
import os
import re
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from dwh_assets.config import IcebergWriterConfig
from dwh_assets.errors import AuditFailedError, ConfigurationError, ConflictError, DataError, DwhError
from dwh_assets.iceberg.refs import drop_branch
from dwh_assets.iceberg.write import IcebergWriter
from dwh_assets.versioning import publishing
from dwh_assets.versioning.branches import fast_forward
from dwh_assets.versioning.publishing import AuditedWrite, write_audited
from dwh_tests.iceberg.conftest import Lake, duckdb_rows
from dwh_tests.versioning.conftest import now, on, orders, shape

# Where a test comes in between
HOOKS: Any = publishing
IDS: list[dict[str, Any]] = [{"kind": "not_null", "columns": ["id"]}, {"kind": "unique", "columns": ["id"]}]
KEYED: dict[str, Any] = {"write_mode": "upsert", "key_columns": ["id"]}
MODES: dict[str, dict[str, Any]] = {
    "append": {},
    "upsert": KEYED,
    "copy-on-write": {**KEYED, "row_changes": "copy-on-write"},
    "overwrite": {"write_mode": "overwrite"},
    "merge": {
        "write_mode": "merge",
        "key_columns": ["id"],
        "merge": {
            "clauses": [{"when": "matched", "then": "update"}, {"when": "not_matched", "then": "insert"}]
        },
    },
}
NEW_SHAPE: dict[str, Any] = {
    "partition_spec": [{"field": "region"}],
    "sort_order": [{"field": "id", "direction": "desc"}],
    "table_properties": {"owner": "shop"},
}


def publish(
    lake: Lake, data: Any, audits: Any = IDS, *, key: str | None = None, **declared: Any
) -> AuditedWrite:
    options = {name: declared.pop(name) for name in ("where", "keep", "attempts", "name") if name in declared}
    return write_audited(lake.writer(**declared), data, audits, idempotency_key=key, **options)


def ids(lake: Lake) -> list[Any]:
    return [row["id"] for row in now(lake)]


# --- Publishing ---


@pytest.mark.parametrize("declared", MODES.values(), ids=MODES)
def test_a_write_that_passes_is_published_and_its_branch_is_gone(
    lake: Lake, declared: dict[str, Any]
) -> None:
    publish(lake, orders(1, 2), **declared)
    done = publish(lake, orders(2, 3, region=["us", "us"]), [IDS[0]], **declared)
    expected = {"append": [1, 2, 2, 3], "overwrite": [2, 3]}.get(
        declared.get("write_mode", "append"), [1, 2, 3]
    )
    assert ids(lake) == expected
    assert set(lake.metadata["refs"]) == {"main"}
    assert (done.written.snapshot_id, done.attempts) == (lake.metadata["current-snapshot-id"], 1)
    assert [(result.name, result.passed) for result in done.audits] == [("not_null_id", True)]
    assert not lake.orphans()


def test_the_shape_of_the_write_is_published_with_it(filled: Lake) -> None:
    publish(filled, orders(3, note=["n"]), **NEW_SHAPE)
    found = shape(filled)
    assert [column[1] for column in found["columns"]] == ["id", "region", "note"]
    assert (found["partitions"], found["order"]) == ([("region", "identity")], [1])
    assert found["properties"]["owner"] == "shop"
    assert ids(filled) == [1, 2, 3]


@pytest.mark.parametrize("declared", MODES.values(), ids=MODES)
def test_a_first_write_that_fails_leaves_no_table(lake: Lake, declared: dict[str, Any]) -> None:
    with pytest.raises(AuditFailedError, match="is gone again") as raised:
        publish(
            lake, pa.table({"id": ["a", "b"]}), [{"kind": "range", "column": "id", "max": "a"}], **declared
        )
    assert (raised.value.branch, raised.value.results[0].sample["id"].to_pylist()) == ("", ["b"])
    assert not lake.catalog.table_exists(lake.name)
    assert lake.on_disk() == set()
    publish(lake, orders(1, 2), **declared)
    assert ids(lake) == [1, 2]


def test_a_first_write_is_not_seen_before_it_is_published(lake: Lake) -> None:
    seen: list[Any] = []
    publish(lake, orders(1, 2), meanwhile(lake, lambda: seen.append(ids(lake))))
    assert (seen, ids(lake)) == ([[]], [1, 2])


def test_a_first_write_that_fails_leaves_what_others_have_written_meanwhile(lake: Lake) -> None:
    with pytest.raises(AuditFailedError) as raised:
        publish(lake, orders(1, 1), meanwhile(lake, lambda: lake.write(orders(7))))
    assert ids(lake) == [7]
    assert [row["id"] for row in on(lake, raised.value.branch)] == [1, 1]


def test_a_first_write_that_fails_leaves_the_branch_of_another(lake: Lake) -> None:
    with pytest.raises(AuditFailedError):
        publish(lake, orders(1, 1), meanwhile(lake, lambda: lake.write(orders(7), branch="other")))
    assert (ids(lake), [row["id"] for row in on(lake, "other")]) == ([], [7])


def test_a_first_write_whose_process_died_binds_nobody(lake: Lake) -> None:
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_die_at, args=(lake.folder, "evaluate"))
    process.start()
    process.join(120)
    assert process.exitcode == 9
    assert lake.catalog.table_exists(lake.name)
    publish(lake, pa.table({"id": ["a"]}), key="k")
    assert ids(lake) == ["a"]


def test_a_first_write_of_data_that_cannot_be_written_leaves_no_table(lake: Lake) -> None:
    with pytest.raises(DataError):
        publish(lake, orders(1, 1), **KEYED)
    assert not lake.catalog.table_exists(lake.name)


def test_what_changes_nothing_makes_nothing(filled: Lake) -> None:
    before = filled.table.metadata_location
    done = publish(filled, orders(1, 2), **KEYED)
    assert (done.written.changed, done.audits, filled.table.metadata_location) == (False, (), before)
    assert done.written.snapshot_id == filled.metadata["current-snapshot-id"]


def test_a_filter_is_overwritten_after_its_audit(filled: Lake) -> None:
    filled.write(orders(8, region=["us"]))
    grown = [{"kind": "row_count_change", "max_percent": 10}]
    with pytest.raises(AuditFailedError, match=r"3 rows before, 4 now"):
        publish(filled, orders(5, 6, 7), grown, write_mode="overwrite", where="region = 'eu'")
    assert ids(filled) == [1, 2, 8]
    publish(filled, orders(5, 6), grown, write_mode="overwrite", where="region = 'eu'")
    assert ids(filled) == [5, 6, 8]


# --- Failed audits ---


@pytest.mark.parametrize("declared", MODES.values(), ids=MODES)
def test_a_failed_audit_publishes_nothing(lake: Lake, declared: dict[str, Any]) -> None:
    """Neither rows nor columns, partitioning, order or properties: read from the catalog and by DuckDB."""
    lake.write(orders(1, 2))
    before, rows, main = shape(lake), now(lake), lake.table
    bad = orders(3, 4, note=[None, "n"])
    with pytest.raises(AuditFailedError) as raised:
        publish(lake, bad, [*IDS, {"kind": "not_null", "columns": ["note"]}], **declared, **NEW_SHAPE)
    assert (shape(lake), now(lake)) == (before, rows)
    table = lake.table
    assert (table.schema(), table.spec(), table.sort_order()) == (
        main.schema(),
        main.spec(),
        main.sort_order(),
    )
    assert table.properties == main.properties
    assert table.scan().to_arrow().to_pylist() == main.scan().to_arrow().to_pylist()
    assert table.inspect.files().num_rows == 1
    found = {row["id"]: row["note"] for row in on(lake, raised.value.branch)}
    assert {3: None, 4: "n"}.items() <= found.items()
    lake.write(orders(9))
    assert ids(lake) == [1, 2, 9]
    assert [column[1] for column in shape(lake)["columns"]] == ["id", "region"]


def test_a_failed_audit_says_what_failed_and_where_to_look(filled: Lake) -> None:
    with pytest.raises(AuditFailedError) as raised:
        publish(filled, orders(1, 7, 7), name="run 42/eu")
    error = raised.value
    assert error.branch == "audit_run_42_eu"
    assert re.fullmatch(r"[a-z]\w*", error.branch), "a name that needs no quotes in SQL"
    passed, failed = error.results
    assert (passed.passed, failed.rows_failing) == (True, 4)
    assert failed.sample.to_pylist() == [{"id": 1, "_times": 2}, {"id": 7, "_times": 2}]
    for word in ("shop.orders", "1 of 2", "unique_id", "4 rows"):
        assert word in error.message
    assert "'audit_run_42_eu'" in error.remedy
    assert "7 days" in error.remedy
    (other,) = {publish_failing(filled, "run 42/eu")}
    assert other == "audit_run_42_eu_2"


def publish_failing(lake: Lake, name: str) -> str:
    with pytest.raises(AuditFailedError) as raised:
        publish(lake, orders(1), name=name)
    return raised.value.branch


def test_a_failed_branch_lives_from_now_on_for_the_time_that_is_set(filled: Lake) -> None:
    with pytest.raises(AuditFailedError) as raised:
        publish(filled, orders(1), keep=timedelta(hours=2))
    ref = filled.metadata["refs"][raised.value.branch]
    made = next(
        s["timestamp-ms"] for s in filled.metadata["snapshots"] if s["snapshot-id"] == ref["snapshot-id"]
    )
    until = made + ref["max-ref-age-ms"]
    assert abs(until - (time.time() * 1000 + 2 * 3_600_000)) < 60_000


def test_branches_whose_time_is_over_go_with_the_next_audited_write(filled: Lake) -> None:
    kept = publish_failing(filled, "kept")
    with pytest.raises(AuditFailedError):
        publish(filled, orders(1), keep=timedelta(milliseconds=1), name="over")
    filled.write(orders(5), branch="mine")
    assert set(filled.metadata["refs"]) == {"main", kept, "audit_over", "mine"}
    time.sleep(0.01)
    publish(filled, orders(3))
    assert set(filled.metadata["refs"]) == {"main", kept, "mine"}


def test_a_failed_branch_can_be_published_by_hand(filled: Lake) -> None:
    with pytest.raises(AuditFailedError) as raised:
        publish(filled, orders(1, note=["twice"]), key="k")
    fast_forward(filled.table, raised.value.branch, drop=True)
    assert [(row["id"], row["note"]) for row in now(filled)] == [(1, "twice"), (1, None), (2, None)]
    assert publish(filled, orders(1, note=["twice"]), key="k").written.repeated


def test_after_a_failed_audit_corrected_data_may_come_under_the_same_key(filled: Lake) -> None:
    with pytest.raises(AuditFailedError) as raised:
        publish(filled, orders(1), key="release 7")
    assert not publish(filled, orders(3), key="release 7").written.repeated
    assert ids(filled) == [1, 2, 3]
    assert [row["id"] for row in on(filled, raised.value.branch)] == [1, 1, 2]


def test_mistakes_are_refused_before_anything_is_written(lake: Lake) -> None:
    for audits in (
        [{"kind": "not_null", "columns": ["nix"]}],
        [{"kind": "sql", "name": "s", "query": "SELECT nix FROM branch"}],
        [{"kind": "range", "column": "id", "min": "a"}],
        [{"kind": "unknown"}],
    ):
        with pytest.raises(ConfigurationError):
            publish(lake, orders(1), audits)
    with pytest.raises(ConfigurationError, match="goes to main"):
        publish(lake, orders(1), branch="wip")
    assert not lake.catalog.table_exists(lake.name)


def test_an_audit_that_breaks_on_the_data_leaves_nothing_behind(filled: Lake) -> None:
    before = shape(filled)
    casting = [{"kind": "sql", "name": "s", "query": "SELECT region::INTEGER FROM changed"}]
    with pytest.raises(DwhError, match=r"audit s: .*'eu'"):
        publish(filled, orders(3), casting)
    assert (shape(filled), set(filled.metadata["refs"])) == (before, {"main"})
    assert len(filled.metadata["snapshots"]) == 1
    assert len(filled.on_disk(".parquet")) == 1


# --- Once ---


def test_a_write_that_was_published_is_not_done_again(filled: Lake) -> None:
    first = publish(filled, orders(3), key="k").written
    again = publish(filled, orders(3), key="k")
    assert (again.written.repeated, again.written.snapshot_id) == (True, first.snapshot_id)
    assert ids(filled) == [1, 2, 3]


@pytest.mark.parametrize("moment", ["evaluate", "fast_forward"])
def test_a_process_that_is_killed_before_publishing_leaves_main_alone_and_is_redone(
    filled: Lake, moment: str
) -> None:
    before = shape(filled)
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_die_at, args=(filled.folder, moment))
    process.start()
    process.join(120)
    assert process.exitcode == 9
    (left,) = set(filled.metadata["refs"]) - {"main"}
    assert (shape(filled), [row["id"] for row in on(filled, left)]) == (before, [1, 2, 3])
    days = filled.metadata["refs"][left]["max-ref-age-ms"] / 86_400_000
    assert days == pytest.approx(7), "if nobody tries again, it goes by itself"
    done = publish(filled, orders(3, note=["n"]), key="k")
    assert (done.written.repeated, ids(filled), set(filled.metadata["refs"])) == (False, [1, 2, 3], {"main"})


def _die_at(folder: Path, moment: str) -> None:
    """Publish in a process that ends, as if killed, when it comes to a certain function."""
    setattr(publishing, moment, lambda *_, **__: os._exit(9))
    publish(Lake(folder), orders(3, note=["n"]), key="k")


# --- Main has moved ---


def meanwhile(lake: Lake, *steps: Any) -> list[dict[str, Any]]:
    """An audit in SQL, and other writers that come while it is evaluated, one each time."""
    coming: Iterator[Any] = iter(steps)
    original = HOOKS.evaluate

    def evaluate(*arguments: Any) -> Any:
        found = original(*arguments)
        for step in [next(coming, None)]:
            if step is not None:
                step()
        return found

    HOOKS.evaluate = evaluate
    return IDS


@pytest.fixture(autouse=True)
def _own_evaluate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a test puts in its place is gone after it."""
    monkeypatch.setattr(HOOKS, "evaluate", HOOKS.evaluate)


@pytest.mark.parametrize("declared", MODES.values(), ids=MODES)
def test_when_main_moves_the_write_is_planned_and_audited_again(lake: Lake, declared: dict[str, Any]) -> None:
    lake.write(orders(1, 2))
    audits = meanwhile(lake, lambda: lake.write(orders(3, 7)), lambda: lake.write(orders(8)))
    done = publish(lake, orders(4, 5), audits, **declared)
    assert done.attempts == 3
    expected = [4, 5] if declared.get("write_mode") == "overwrite" else [1, 2, 3, 4, 5, 7, 8]
    assert ids(lake) == expected
    assert set(lake.metadata["refs"]) == {"main"}
    assert not lake.orphans()


def test_an_upsert_is_matched_again_on_what_main_is_now(filled: Lake) -> None:
    audits = meanwhile(filled, lambda: filled.write(orders(3, region=["us"]), **KEYED))
    done = publish(filled, orders(3, region=["uk"]), audits, **KEYED)
    assert (done.written.rows_updated, done.written.rows_inserted) == (1, 0)
    assert [(row["id"], row["region"]) for row in now(filled)] == [(1, "eu"), (2, "eu"), (3, "uk")]


def test_what_passed_before_may_fail_on_what_main_is_now(filled: Lake) -> None:
    audits = meanwhile(filled, lambda: filled.write(orders(3)))
    with pytest.raises(AuditFailedError, match="unique_id"):
        publish(filled, orders(3), audits)
    assert ids(filled) == [1, 2, 3]


def test_main_that_always_moves_is_given_up_and_nothing_is_left(filled: Lake) -> None:
    audits = meanwhile(filled, *(lambda n=n: filled.write(orders(10 + n)) for n in range(9)))
    with pytest.raises(ConflictError, match="each of 3 attempts"):
        publish(filled, orders(3), audits, attempts=3)
    assert ids(filled) == [1, 2, 10, 11, 12]
    assert set(filled.metadata["refs"]) == {"main"}
    assert not filled.orphans()
    assert len(filled.on_disk(".parquet")) == 4


def test_columns_that_main_has_got_meanwhile_end_it_clearly(filled: Lake) -> None:
    audits = meanwhile(filled, lambda: filled.write(orders(5, other=[1])))
    with pytest.raises(ConflictError, match="columns"):
        publish(filled, orders(3), audits, schema_evolution={"mode": "permissive"})
    assert (ids(filled), set(filled.metadata["refs"])) == ([1, 2, 5], {"main"})
    assert len(filled.on_disk(".parquet")) == 2


def test_another_attempt_at_the_same_write_is_not_doubled(filled: Lake) -> None:
    """The second takes the first one's branch away, as that of a process that died, and publishes."""
    audits = meanwhile(filled, lambda: publish(filled, orders(3), IDS, key="k"))
    with pytest.raises(ConflictError, match="taken away"):
        publish(filled, orders(3), audits, key="k")
    assert ids(filled) == [1, 2, 3]


def test_a_branch_that_was_written_to_while_it_was_audited_is_not_published(filled: Lake) -> None:
    def write_to_it() -> None:
        (branch,) = set(filled.metadata["refs"]) - {"main"}
        filled.write(orders(666), branch=branch)

    with pytest.raises(ConflictError, match="moved"):
        publish(filled, orders(3), meanwhile(filled, write_to_it))
    assert ids(filled) == [1, 2]
    (branch,) = set(filled.metadata["refs"]) - {"main"}
    drop_branch(filled.catalog, filled.table, branch)


def test_a_reader_s_data_are_read_once_however_often_they_are_audited(filled: Lake) -> None:
    audits = meanwhile(filled, lambda: filled.write(orders(8)))
    data = pa.RecordBatchReader.from_batches(orders(3).schema, iter(orders(3, 4).to_batches()))
    assert publish(filled, data, audits).attempts == 2
    assert ids(filled) == [1, 2, 3, 4, 8]


def test_two_writers_in_turn_need_nothing_of_each_other(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    config = IcebergWriterConfig(table=lake.name, catalog="sql", catalog_config=lake.properties)  # type: ignore[arg-type]
    for n in range(3):
        write_audited(IcebergWriter(config), orders(n), IDS)
    assert duckdb_rows(lake.table.metadata_location).num_rows == 3
