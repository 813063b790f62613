"""Restoring a part of a table, against a model that keeps each version's rows."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from dwh_assets.errors import ConfigurationError, NotFoundError
from dwh_assets.versioning.lineage import lineage
from dwh_assets.versioning.restore import restore
from dwh_tests.versioning.graph import GraphLake, multiset

TABLE = "shop.orders"


def rows(*pairs: tuple[int, str | None]) -> pa.Table:
    return pa.table({"id": [i for i, _ in pairs], "place": pa.array([p for _, p in pairs], pa.string())})


def held(graph: GraphLake) -> list[tuple[Any, ...]]:
    return sorted(((row["id"], row["place"]) for row in graph.rows(TABLE)), key=str)


@pytest.mark.parametrize("spec", [[], [{"field": "place"}], [{"field": "id", "transform": "bucket[2]"}]])
def test_only_the_rows_of_the_filter_are_as_they_were(graph: GraphLake, spec: list[dict[str, str]]) -> None:
    layout: dict[str, Any] = {"partition_spec": spec}
    first = graph.write(TABLE, rows((1, "eu"), (2, "eu"), (2, "eu"), (3, "us")), **layout)
    graph.write(TABLE, rows((1, "eu"), (9, "eu"), (3, "ASIA"), (4, "us")), **layout)
    before = graph.head(TABLE)
    done = restore(graph.catalog, TABLE, first, "place = 'eu'")
    assert held(graph) == [(1, "eu"), (2, "eu"), (2, "eu"), (3, "ASIA"), (4, "us")]
    assert (done.rows_inserted, done.rows_deleted, done.total_rows) == (3, 2, 5)
    snapshot = graph.table(TABLE).current_snapshot()
    assert snapshot is not None
    assert (snapshot.parent_snapshot_id, snapshot.snapshot_id) == (before, done.snapshot_id)
    assert len(graph.table(TABLE).metadata.snapshots) == 3, "one new snapshot"
    assert graph.table(TABLE).spec().fields == graph.table(TABLE).specs()[0].fields


def test_rows_that_had_been_deleted_by_position_stay_deleted(graph: GraphLake) -> None:
    keyed: dict[str, Any] = {"write_mode": "upsert", "key_columns": ["id"]}
    graph.write(TABLE, rows((1, "eu"), (2, "eu"), (3, "us")), write_mode="append")
    first = graph.write(TABLE, rows((2, "EU2")), **keyed)
    graph.write(TABLE, rows((1, "gone"), (3, "gone")), **keyed)
    restore(graph.catalog, TABLE, first, "id < 3")
    assert held(graph) == [(1, "eu"), (2, "EU2"), (3, "gone")]


def test_without_a_filter_every_row_is_restored_and_history_goes_on(graph: GraphLake) -> None:
    first = graph.write(TABLE, rows((1, "eu"), (2, None)))
    second = graph.write(TABLE, rows((3, "us")))
    then = multiset(graph.rows(TABLE, first))
    restore(graph.catalog, TABLE, first)
    assert multiset(graph.rows(TABLE)) == then
    assert [s.snapshot_id for s in graph.table(TABLE).metadata.snapshots][:2] == [first, second]


def test_a_part_that_was_empty_becomes_empty(graph: GraphLake) -> None:
    first = graph.write(TABLE, rows((1, "eu")))
    graph.write(TABLE, rows((1, "eu"), (2, "us"), (3, None)))
    restore(graph.catalog, TABLE, first, "place = 'us'")
    assert held(graph) == [(1, "eu"), (3, None)]


def test_older_rows_come_in_the_columns_of_now(graph: GraphLake) -> None:
    first = graph.write(TABLE, pa.table({"id": pa.array([1, 2], pa.int32()), "old": ["a", "b"]}))
    with graph.table(TABLE).update_schema() as update:
        update.rename_column("old", "place")
    graph.write(TABLE, pa.table({"id": [1, 5], "place": ["x", "y"], "note": ["n", "m"]}))
    restore(graph.catalog, TABLE, first, "id < 5")
    assert sorted(graph.rows(TABLE), key=lambda row: row["id"]) == [
        {"id": 1, "place": "a", "note": None},
        {"id": 2, "place": "b", "note": None},
        {"id": 5, "place": "y", "note": "m"},
    ]


def test_a_restored_part_was_made_from_what_it_was_made_from_then(graph: GraphLake) -> None:
    raws = [graph.write("shop.raw", [number]) for number in range(2)]
    first = graph.write(TABLE, rows((1, "eu")), reads={"shop.raw": raws[0]})
    graph.write(TABLE, rows((2, "us")), reads={"shop.raw": raws[1]})
    restore(graph.catalog, TABLE, first, "place = 'eu'")
    assert set(lineage(graph.catalog, TABLE).root.inputs["shop.raw"]) == set(raws)
    restore(graph.catalog, TABLE, first)
    assert set(lineage(graph.catalog, TABLE).root.inputs["shop.raw"]) == {raws[0]}


def test_a_filter_that_cannot_be_understood_or_a_version_that_is_gone_changes_nothing(
    graph: GraphLake,
) -> None:
    first = graph.write(TABLE, rows((1, "eu")))
    with pytest.raises(ConfigurationError, match="cannot be understood"):
        restore(graph.catalog, TABLE, first, "nowhere = 1")
    with pytest.raises(NotFoundError, match="5"):
        restore(graph.catalog, TABLE, 5, "place = 'eu'")
    assert graph.head(TABLE) == first
