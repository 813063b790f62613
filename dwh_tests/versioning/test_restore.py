"""Restoring a part of a table, against a model that keeps each version's rows."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from dwh_assets.errors import ConfigurationError, NotFoundError
from dwh_assets.versioning.lineage import lineage
from dwh_assets.versioning.restore import restore
from dwh_tests.versioning.lake import Lake, multiset

TABLE = "shop.orders"


def rows(*pairs: tuple[int, str | None]) -> pa.Table:
    return pa.table({"id": [i for i, _ in pairs], "place": pa.array([p for _, p in pairs], pa.string())})


def held(lake: Lake) -> list[tuple[Any, ...]]:
    return sorted(((row["id"], row["place"]) for row in lake.rows(TABLE)), key=str)


@pytest.mark.parametrize("spec", [[], [{"field": "place"}], [{"field": "id", "transform": "bucket[2]"}]])
def test_only_the_rows_of_the_filter_are_as_they_were(lake: Lake, spec: list[dict[str, str]]) -> None:
    layout: dict[str, Any] = {"partition_spec": spec}
    first = lake.write(TABLE, rows((1, "eu"), (2, "eu"), (2, "eu"), (3, "us")), **layout)
    lake.write(TABLE, rows((1, "eu"), (9, "eu"), (3, "ASIA"), (4, "us")), **layout)
    before = lake.head(TABLE)
    done = restore(lake.catalog, TABLE, first, "place = 'eu'")
    assert held(lake) == [(1, "eu"), (2, "eu"), (2, "eu"), (3, "ASIA"), (4, "us")]
    assert (done.rows_inserted, done.rows_deleted, done.total_rows) == (3, 2, 5)
    snapshot = lake.table(TABLE).current_snapshot()
    assert snapshot is not None
    assert (snapshot.parent_snapshot_id, snapshot.snapshot_id) == (before, done.snapshot_id)
    assert len(lake.table(TABLE).metadata.snapshots) == 3, "one new snapshot"
    assert lake.table(TABLE).spec().fields == lake.table(TABLE).specs()[0].fields


def test_rows_that_had_been_deleted_by_position_stay_deleted(lake: Lake) -> None:
    keyed: dict[str, Any] = {"write_mode": "upsert", "key_columns": ["id"]}
    lake.write(TABLE, rows((1, "eu"), (2, "eu"), (3, "us")), write_mode="append")
    first = lake.write(TABLE, rows((2, "EU2")), **keyed)
    lake.write(TABLE, rows((1, "gone"), (3, "gone")), **keyed)
    restore(lake.catalog, TABLE, first, "id < 3")
    assert held(lake) == [(1, "eu"), (2, "EU2"), (3, "gone")]


def test_without_a_filter_every_row_is_restored_and_history_goes_on(lake: Lake) -> None:
    first = lake.write(TABLE, rows((1, "eu"), (2, None)))
    second = lake.write(TABLE, rows((3, "us")))
    then = multiset(lake.rows(TABLE, first))
    restore(lake.catalog, TABLE, first)
    assert multiset(lake.rows(TABLE)) == then
    assert [s.snapshot_id for s in lake.table(TABLE).metadata.snapshots][:2] == [first, second]


def test_a_part_that_was_empty_becomes_empty(lake: Lake) -> None:
    first = lake.write(TABLE, rows((1, "eu")))
    lake.write(TABLE, rows((1, "eu"), (2, "us"), (3, None)))
    restore(lake.catalog, TABLE, first, "place = 'us'")
    assert held(lake) == [(1, "eu"), (3, None)]


def test_older_rows_come_in_the_columns_of_now(lake: Lake) -> None:
    first = lake.write(TABLE, pa.table({"id": pa.array([1, 2], pa.int32()), "old": ["a", "b"]}))
    with lake.table(TABLE).update_schema() as update:
        update.rename_column("old", "place")
    lake.write(TABLE, pa.table({"id": [1, 5], "place": ["x", "y"], "note": ["n", "m"]}))
    restore(lake.catalog, TABLE, first, "id < 5")
    assert sorted(lake.rows(TABLE), key=lambda row: row["id"]) == [
        {"id": 1, "place": "a", "note": None},
        {"id": 2, "place": "b", "note": None},
        {"id": 5, "place": "y", "note": "m"},
    ]


def test_a_restored_part_was_made_from_what_it_was_made_from_then(lake: Lake) -> None:
    raws = [lake.write("shop.raw", [number]) for number in range(2)]
    first = lake.write(TABLE, rows((1, "eu")), reads={"shop.raw": raws[0]})
    lake.write(TABLE, rows((2, "us")), reads={"shop.raw": raws[1]})
    restore(lake.catalog, TABLE, first, "place = 'eu'")
    assert set(lineage(lake.catalog, TABLE).root.inputs["shop.raw"]) == set(raws)
    restore(lake.catalog, TABLE, first)
    assert set(lineage(lake.catalog, TABLE).root.inputs["shop.raw"]) == {raws[0]}


def test_a_filter_that_cannot_be_understood_or_a_version_that_is_gone_changes_nothing(lake: Lake) -> None:
    first = lake.write(TABLE, rows((1, "eu")))
    with pytest.raises(ConfigurationError, match="cannot be understood"):
        restore(lake.catalog, TABLE, first, "nowhere = 1")
    with pytest.raises(NotFoundError, match="5"):
        restore(lake.catalog, TABLE, 5, "place = 'eu'")
    assert lake.head(TABLE) == first
