"""A point in time names the snapshot that it should, or the error says why it cannot."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Operation

from dwh_assets.errors import ConfigurationError, NotFoundError
from dwh_assets.iceberg.commit import commit
from dwh_assets.iceberg.refs import create_branch, create_tag
from dwh_assets.iceberg.snapshot import Change
from dwh_assets.versioning.points import Point, resolve
from dwh_tests.iceberg.conftest import TABLE, Lake, local

MS = timedelta(milliseconds=1)


@dataclass(frozen=True)
class Expired:
    """What a ledger keeps of a snapshot that is gone."""

    snapshot_id: int
    shown_from: datetime | None
    shown_to: datetime | None
    reason: str = "policy keep-7-days"


@dataclass(frozen=True)
class Ledger:
    """A ledger that knows these."""

    expired: Sequence[Expired]

    def expired_intervals(self, table: str) -> Sequence[Expired]:
        assert table == TABLE
        return self.expired


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """A table of four versions, each of one more row, some milliseconds apart."""
    lake = Lake(tmp_path)
    for number in range(4):
        append(lake, number)
    return lake


def append(lake: Lake, number: int) -> None:
    lake.write(pa.table({"id": [number]}))
    time.sleep(0.004)


def ids(lake: Lake) -> list[int]:
    """The snapshots in the order in which they were made."""
    return [snapshot["snapshot-id"] for snapshot in lake.metadata["snapshots"]]


def shown_from(lake: Lake) -> list[tuple[datetime, int]]:
    """The log: from when on main showed which snapshot."""
    return [(_moment(entry["timestamp-ms"]), entry["snapshot-id"]) for entry in lake.metadata["snapshot-log"]]


def found(lake: Lake, point: Point, ledger: Ledger | None = None) -> int:
    return resolve(lake.table, point, ledger).snapshot_id


def missed(lake: Lake, point: Point, ledger: Ledger | None = None) -> str:
    with pytest.raises(NotFoundError) as error:
        resolve(lake.table, point, ledger)
    return str(error.value)


def expire(lake: Lake, *snapshot_ids: int) -> None:
    """As PyIceberg does it: the log loses the entries of these, and nothing tells that they were there."""
    lake.table.maintenance.expire_snapshots().by_ids(list(snapshot_ids)).commit()


def move_main(lake: Lake, snapshot_id: int) -> None:
    lake.table.manage_snapshots().set_current_snapshot(snapshot_id).commit()
    time.sleep(0.004)


def forget_old_metadata(lake: Lake) -> None:
    for entry in lake.metadata["metadata-log"]:
        Path(local(entry["metadata-file"])).unlink()


# --- Names that are found ---


def test_what_names_a_snapshot(lake: Lake) -> None:
    first, second, third, fourth = ids(lake)
    create_tag(lake.catalog, lake.table, "q3", second)
    create_branch(lake.catalog, lake.table, "trial", third)
    named: dict[Any, int] = {
        None: fourth,
        "main": fourth,
        "q3": second,
        "trial": third,
        first: first,
        str(first): first,
        f" {first} ": first,
        np.int64(first): first,
        "0 versions ago": fourth,
        "1 version ago": third,
        "3 Versions Ago": first,
    }
    assert {point: found(lake, point) for point in named} == named


def test_it_is_said_what_was_found(lake: Lake) -> None:
    first, second, *_ = ids(lake)
    create_tag(lake.catalog, lake.table, "q3", first)
    at = shown_from(lake)[1][0]
    told = {point: resolve(lake.table, point).described for point in ("q3", second, "3 versions ago", None)}
    assert told == {
        "q3": "tag q3",
        second: f"snapshot {second}",
        "3 versions ago": "3 versions ago",
        None: "main",
    }
    by_time = resolve(lake.table, at)
    assert (by_time.table, by_time.described) == (TABLE, f"main at {at.isoformat()}")
    assert by_time.committed_at == at


def test_a_name_comes_before_anything_else_that_it_may_mean(lake: Lake) -> None:
    first, second, *_ = ids(lake)
    for name in ("2020-01-01", "1 version ago", str(second)):
        create_tag(lake.catalog, lake.table, name, first)
    assert {found(lake, name) for name in ("2020-01-01", "1 version ago", str(second))} == {first}


def test_a_moment_means_what_main_showed_then(lake: Lake) -> None:
    log = shown_from(lake)
    for (at, snapshot_id), (until, _) in pairwise(log):
        assert found(lake, at) == snapshot_id
        assert found(lake, until - MS) == snapshot_id
    at, snapshot_id = log[-1]
    assert found(lake, at) == found(lake, datetime.now(UTC)) == snapshot_id


def test_a_moment_in_any_form_is_the_same(lake: Lake) -> None:
    at, snapshot_id = shown_from(lake)[2]
    forms: list[Point] = [
        at,
        at.replace(tzinfo=None),
        at.astimezone(timezone(timedelta(hours=5, minutes=30))),
        at.isoformat(),
        at.replace(tzinfo=None).isoformat(),
        at.isoformat().replace("+00:00", "Z"),
        str(at),
    ]
    assert {found(lake, form) for form in forms} == {snapshot_id}


def test_a_date_is_its_midnight(lake: Lake) -> None:
    first, second, third, _ = ids(lake)
    days = [datetime(2025, 3, day, hour, tzinfo=UTC) for day, hour in ((1, 12), (2, 0), (3, 9), (9, 0))]
    table = _committed_at(lake, days)
    points: list[Point] = [date(2025, 3, 2), "2025-03-02", "2025-03-03", "2025-03-04", "2025-03-01T12:00"]
    assert [resolve(table, point).snapshot_id for point in points] == [second, second, second, third, first]
    with pytest.raises(NotFoundError, match="nothing had been written yet"):
        resolve(table, "2025-03-01")


def test_a_rollback_counts(lake: Lake) -> None:
    first, second, third, fourth = ids(lake)
    move_main(lake, second)
    append(lake, 9)
    fifth = ids(lake)[-1]
    log = shown_from(lake)
    assert [snapshot_id for _, snapshot_id in log] == [first, second, third, fourth, second, fifth]
    for (at, snapshot_id), (until, _) in pairwise(log):
        assert (found(lake, at), found(lake, until - MS)) == (snapshot_id, snapshot_id)
    assert [found(lake, f"{n} versions ago") for n in range(3)] == [fifth, second, first]


def test_a_compaction_is_no_version(lake: Lake) -> None:
    first, second, third, _ = ids(lake)
    _replace(lake)
    append(lake, 9)
    _replace(lake)
    *_, replaced, fifth, newest = ids(lake)
    assert [found(lake, f"{n} versions ago") for n in range(4)] == [newest, replaced, third, second]
    assert fifth not in {found(lake, f"{n} versions ago") for n in range(5)}
    assert found(lake, "4 versions ago") == first
    assert "its first version is 4 versions ago" in missed(lake, "5 versions ago")


# --- Names that are missed ---


@pytest.mark.parametrize(
    ("point", "told"),
    [
        ("q4", r"has no tag or branch 'q4'.*Did you mean 'q3'\?"),
        ("spring", r"no tag or branch 'spring'.*It has main, q3, trial\."),
        ("", r"no tag or branch ''"),
        (77, r"has no snapshot 77: it was expired, or never was\. The oldest kept snapshot is \d+ of 20"),
        ("20260101", r"has no snapshot 20260101.*A date is written 2026-01-31\."),
        (
            "4 versions ago",
            r"has no version 4 versions ago: its first version is 3 versions ago, snapshot \d+",
        ),
        ("2999-01-01", r"2999-01-01T00:00:00\+00:00 lies in the future"),
        ("2020-01-01", r"no version before 2020-01-01T00:00:00\+00:00: nothing had been written yet"),
    ],
)
def test_a_miss_says_what_there_is(lake: Lake, point: Point, told: str) -> None:
    create_tag(lake.catalog, lake.table, "q3")
    create_branch(lake.catalog, lake.table, "trial")
    assert re.search(told, missed(lake, point))


@pytest.mark.parametrize("point", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:00:00-05:00"])
def test_a_time_that_utc_cannot_tell_is_refused(lake: Lake, point: str) -> None:
    with pytest.raises(ConfigurationError, match="years 1 to 9999"):
        resolve(lake.table, point)


@pytest.mark.parametrize("point", [True, 1.5, b"q3", ["q3"]])
def test_what_is_no_point_is_refused(lake: Lake, point: Any) -> None:
    with pytest.raises(ConfigurationError, match="is no point in time"):
        resolve(lake.table, point)


def test_an_empty_table_has_no_version(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lake.catalog.create_namespace("shop")
    lake.catalog.create_table(TABLE, pa.schema([("id", pa.int64())]))
    assert "has no version yet" in missed(lake, None)
    assert "nothing had been written yet" in missed(lake, datetime.now(UTC))
    assert "It has no version at all" in missed(lake, 5)
    assert "has no version yet" in missed(lake, "1 version ago")


# --- After expiry ---


def test_the_moment_of_an_expired_snapshot_is_never_its_neighbours(lake: Lake) -> None:
    first, second, third, fourth = ids(lake)
    log = shown_from(lake)
    expire(lake, second)
    assert [snapshot_id for _, snapshot_id in shown_from(lake)] == [first, third, fourth]  # the gap is hidden
    for at in (log[1][0], log[2][0] - MS):
        told = missed(lake, at)
        assert f"main showed snapshot {second} then, which was expired" in told
        assert f"The oldest kept snapshot is {first}" in told
    assert found(lake, log[0][0]) == found(lake, log[1][0] - MS) == first
    assert found(lake, log[2][0]) == third


def test_without_old_metadata_what_cannot_be_proved_is_a_miss(lake: Lake) -> None:
    first, second, third, _ = ids(lake)
    log = shown_from(lake)
    expire(lake, second)
    forget_old_metadata(lake)
    for at in (log[0][0], log[1][0], log[2][0] - MS):
        assert f"main showed snapshot {first} before, but others were expired since" in missed(lake, at)
    assert found(lake, log[2][0]) == third
    assert found(lake, first) == first


def test_the_ledger_proves_what_the_log_cannot(lake: Lake) -> None:
    first, second, third, _ = ids(lake)
    log = shown_from(lake)
    expire(lake, second)
    forget_old_metadata(lake)
    ledger = Ledger([Expired(second, log[1][0], log[2][0])])
    assert found(lake, log[1][0] - MS, ledger) == first
    assert found(lake, log[2][0], ledger) == third
    told = missed(lake, log[1][0], ledger)
    assert f"main showed snapshot {second} then, which was expired by policy keep-7-days" in told
    assert "it was expired by policy keep-7-days" in missed(lake, second, ledger)


def test_a_ledger_that_knows_only_some_proves_nothing_about_the_others(lake: Lake) -> None:
    append(lake, 4)
    first, second, third, *_ = ids(lake)
    log = shown_from(lake)
    expire(lake, second, third)
    forget_old_metadata(lake)
    ledger = Ledger([Expired(third, log[2][0], log[3][0])])
    assert "which was expired by" in missed(lake, log[2][0], ledger)
    assert f"main showed snapshot {first} before" in missed(lake, log[1][0], ledger)


def test_what_was_rolled_back_and_expired_leaves_no_doubt_where_none_is_due(lake: Lake) -> None:
    """Main: first to fourth, back to second, fifth. The third and fourth go: when was main there?"""
    first, second, third, fourth = ids(lake)
    move_main(lake, second)
    append(lake, 9)
    fifth = ids(lake)[-1]
    log = shown_from(lake)
    expire(lake, third, fourth)
    forget_old_metadata(lake)
    assert found(lake, log[0][0]) == first  # the second was committed on it
    assert found(lake, log[4][0]) == second  # and the fifth on the second
    assert found(lake, log[5][0]) == fifth
    for at in (log[1][0], log[2][0], log[3][0]):
        assert f"main showed snapshot {second} before" in missed(lake, at)


def test_before_the_oldest_that_is_kept(lake: Lake) -> None:
    first, second, third, _ = ids(lake)
    at = shown_from(lake)[0][0]
    lake.table.transaction().set_properties(
        {"history.expire.max-snapshot-age-ms": "604800000"}
    ).commit_transaction()
    expire(lake, first, second)
    assert f"main showed snapshot {first} then, which was expired by policy" in missed(lake, at)
    forget_old_metadata(lake)
    told = missed(lake, at)
    assert "what main showed then was expired by policy (history.expire.max-snapshot-age-ms: 7 days" in told
    assert f"The oldest kept snapshot is {third}" in told
    assert "the oldest that is kept on main is 1 versions ago" in missed(lake, "2 versions ago")


def test_a_log_that_was_cut_as_java_cuts_it(lake: Lake) -> None:
    """Iceberg's own library drops every entry up to the gap, and keeps the parents' ids."""
    first, second, third, fourth = ids(lake)
    log = shown_from(lake)
    table = _rewritten(lake, expired=second)
    assert resolve(table, log[2][0]).snapshot_id == third
    assert resolve(table, log[3][0]).snapshot_id == fourth
    assert resolve(table, log[0][0]).snapshot_id == first  # the metadata file of that moment knows
    with pytest.raises(NotFoundError, match=f"main showed snapshot {second} then, which was expired"):
        resolve(table, log[1][0])
    forget_old_metadata(lake)
    for at in (log[0][0], log[1][0]):
        with pytest.raises(NotFoundError, match="what main showed then was expired"):
            resolve(table, at)
    with pytest.raises(NotFoundError, match=f"has no snapshot {second}: it was expired"):
        resolve(table, second)


def test_a_version_two_table_without_expiry_needs_no_old_metadata(lake: Lake) -> None:
    move_main(lake, ids(lake)[0])
    move_main(lake, ids(lake)[2])
    forget_old_metadata(lake)
    for at, snapshot_id in shown_from(lake):
        assert found(lake, at) == snapshot_id


def test_a_table_of_version_one(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lake.catalog.create_namespace("shop")
    schema = pa.schema([("id", pa.int64())])
    table = lake.catalog.create_table(TABLE, schema, properties={"format-version": "1"})
    for number in range(3):
        table.append(pa.table({"id": [number]}))
        time.sleep(0.004)
    for at, snapshot_id in shown_from(lake):
        assert found(lake, at) == snapshot_id


def _replace(lake: Lake) -> None:
    """A compaction that moves nothing."""
    commit(lake.catalog, lake.table, lambda _: Change(Operation.REPLACE))
    time.sleep(0.004)


def _rewritten(lake: Lake, expired: int) -> Table:
    """The table as Iceberg's Java library leaves it after expiring a snapshot."""
    metadata = lake.metadata
    metadata["snapshots"] = [s for s in metadata["snapshots"] if s["snapshot-id"] != expired]
    log = metadata["snapshot-log"]
    gap = max(i for i, entry in enumerate(log) if entry["snapshot-id"] == expired)
    metadata["snapshot-log"] = log[gap + 1 :]
    metadata["metadata-log"].append(
        {"metadata-file": lake.table.metadata_location, "timestamp-ms": metadata["last-updated-ms"]}
    )
    metadata["last-updated-ms"] += 1
    return _registered(lake, metadata)


def _committed_at(lake: Lake, moments: Sequence[datetime]) -> Table:
    """The table as if its snapshots had been committed at these moments."""
    metadata = lake.metadata
    for at, snapshot, entry in zip(moments, metadata["snapshots"], metadata["snapshot-log"], strict=True):
        snapshot["timestamp-ms"] = entry["timestamp-ms"] = int(at.timestamp() * 1000)
    return _registered(lake, metadata)


def _registered(lake: Lake, metadata: dict[str, Any]) -> Table:
    path = Path(local(lake.table.metadata_location)).with_name("99999-by-hand.metadata.json")
    path.write_text(json.dumps(metadata))
    return lake.catalog.register_table("shop.by_hand", f"file://{path}")


def _moment(timestamp_ms: int) -> datetime:
    return datetime.fromtimestamp(timestamp_ms // 1000, UTC) + timedelta(milliseconds=timestamp_ms % 1000)
