"""How far a replica is behind, and what becomes of one that was left in the midst of a sync."""

from __future__ import annotations

from datetime import timedelta

import duckdb

from dwh_assets.ledger import Ledger
from dwh_assets.versioning.graph import plan_rollback
from dwh_assets.versioning.graph_apply import apply_rollback
from dwh_assets.versioning.replicas import Lag, lag
from dwh_tests.versioning.graph import GraphLake, next_millisecond
from dwh_tests.warehouses.lake import commit_replace

RAW = "shop.raw"


def write(graph: GraphLake, number: int) -> int:
    next_millisecond()
    return graph.write(RAW, [number])


def between(graph: GraphLake, first: int, last: int) -> timedelta:
    """The time between two commits, from the table's own log."""
    at = {entry.snapshot_id: entry.timestamp_ms for entry in graph.table(RAW).metadata.snapshot_log}
    return timedelta(milliseconds=at[last] - at[first])


def test_versions_and_time_are_counted_from_what_is_held_to_the_head(graph: GraphLake) -> None:
    first, second, third = (write(graph, number) for number in (1, 2, 3))
    metadata = graph.table(RAW).metadata
    assert lag(metadata, third) == Lag(0, timedelta())
    assert lag(metadata, second) == Lag(1, between(graph, second, third))
    assert lag(metadata, first) == Lag(2, between(graph, first, third))
    assert lag(metadata, None) == Lag(3, None)
    assert lag(metadata, 12345) == Lag(None, None)


def test_a_compaction_does_not_make_a_replica_lag(graph: GraphLake) -> None:
    first = write(graph, 1)
    commit_replace(graph.table(RAW))
    assert graph.head(RAW) != first
    assert lag(graph.table(RAW).metadata, first) == Lag(0, timedelta())
    write(graph, 2)
    assert lag(graph.table(RAW).metadata, first).versions == 1


def test_what_main_no_longer_goes_through_has_no_distance(graph: GraphLake) -> None:
    first, second = write(graph, 1), write(graph, 2)
    apply_rollback(graph.catalog, plan_rollback(graph.catalog, RAW, first), _ledger(graph))
    assert lag(graph.table(RAW).metadata, second) == Lag(None, None)


def test_a_replica_in_the_midst_of_a_sync_is_loaded_again_by_a_rollback(graph: GraphLake) -> None:
    first = write(graph, 1)
    replica = graph.replica("torn", RAW)
    replica.sync(graph.catalog)
    write(graph, 2)
    # What a sync that died leaves in a warehouse that cannot replace a table in a transaction.
    with duckdb.connect(graph.database("torn")) as connection:
        connection.execute("UPDATE main._dwh_replicas SET pending = '2026-01-01T00:00:00+00:00 replacing'")
    state = replica.state()
    assert state is not None
    assert state.snapshot_id is None

    plan = plan_rollback(graph.catalog, RAW, first, graph.replicas)
    assert [(item.position, item.to) for item in plan.replicas] == [("unfinished", first)]
    assert "in the midst of a sync" in plan.to_markdown()
    result = apply_rollback(graph.catalog, plan, _ledger(graph), graph.replicas)
    assert result.not_brought_back == {}
    assert (graph.replica_ids("torn"), replica.snapshot_id) == ([1], first)


def test_a_rollback_pins_what_a_replica_holds_afterwards(graph: GraphLake) -> None:
    first = write(graph, 1)
    ledger = _ledger(graph)
    replica = graph.replica("copy", RAW)
    second = write(graph, 2)
    replica.sync(graph.catalog, ledger=ledger)
    assert [pin.snapshot_id for pin in ledger.pins(RAW)] == [second]
    plan = plan_rollback(graph.catalog, RAW, first, graph.replicas)
    apply_rollback(graph.catalog, plan, ledger, graph.replicas)
    assert [(pin.snapshot_id, pin.owner) for pin in ledger.pins(RAW)] == [(first, replica.owner)]


def _ledger(graph: GraphLake) -> Ledger:
    return Ledger(f"sqlite:///{graph.folder}/ledger.db")
