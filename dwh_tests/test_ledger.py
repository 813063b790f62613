"""The ledger on real SQLite files: what it keeps, for many processes at once."""

from __future__ import annotations

import multiprocessing
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from dwh_assets.config import ledger_url
from dwh_assets.errors import ConfigurationError, NotFoundError, UnavailableError
from dwh_assets.ledger import Expired, Ledger, Operation, Pin
from dwh_assets.versioning.points import resolve
from dwh_tests.servers.postgres import PostgresServer
from dwh_tests.versioning.graph import GraphLake

NOON = datetime(2026, 1, 3, 12, 0, 0, 123456, tzinfo=UTC)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "new folder" / "ledger.db"


@pytest.fixture
def ledger(file: Path) -> Ledger:
    return Ledger(f"sqlite:///{file}")


def test_pins_hold_until_their_time_or_until_they_are_taken_back(ledger: Ledger, file: Path) -> None:
    now = datetime.now(UTC)
    kept = Pin("shop.orders", 1 << 62, "release/q3", "released")
    soon = Pin("shop.orders", 2, "rollback/1", "running", now + timedelta(hours=1))
    past = Pin("shop.orders", 3, "rollback/1", "ran", now - timedelta(seconds=1))
    ledger.pin(kept, soon, past, Pin("shop.other", 4, "release/q3", "released"))
    again = Ledger(f"sqlite:///{file}")
    assert again.pins("shop.orders") == [kept, soon]
    again.pin(Pin("shop.orders", 2, "rollback/1", "longer"))
    assert [pin.reason for pin in ledger.pins("shop.orders")] == ["released", "longer"]
    ledger.unpin("rollback/1")
    assert ledger.pins("shop.orders") == [kept]
    assert len(ledger.pins("shop.other")) == 1


def test_what_was_expired_is_remembered_once_for_each_time_that_it_was_shown(ledger: Ledger) -> None:
    hour = timedelta(hours=1)
    first = Expired("shop.orders", 7, NOON, NOON + hour, "older than 30 days")
    again = Expired("shop.orders", 7, NOON + 5 * hour, NOON + 6 * hour, "older than 30 days")
    never = Expired("shop.orders", 8, None, None, "of a branch that was dropped")
    ledger.record_expired(again, first, never, Expired("shop.other", 7, NOON, NOON + hour, ""))
    ledger.record_expired(first, never)
    found = ledger.expired_intervals("shop.orders")
    assert sorted(found, key=str) == sorted([first, again, never], key=str)
    assert all(one.shown_from is None or one.shown_from.tzinfo is UTC for one in found)


def test_the_ledger_tells_the_resolver_what_main_showed(graph: GraphLake, ledger: Ledger) -> None:
    first, second, _ = [graph.write("shop.orders", [number]) for number in range(3)]
    made = {s.snapshot_id: s.timestamp_ms for s in graph.table("shop.orders").metadata.snapshots}
    shown_from, shown_to = (datetime.fromtimestamp(ms / 1000, UTC) for ms in list(made.values())[1:])
    ledger.record_expired(Expired("shop.orders", second, shown_from, shown_to, "policy keep: 1 day"))
    graph.expire("shop.orders", second)
    with pytest.raises(NotFoundError, match="policy keep: 1 day"):
        resolve(graph.table("shop.orders"), shown_from, ledger)
    assert (
        resolve(graph.table("shop.orders"), shown_from - timedelta(microseconds=1), ledger).snapshot_id
        == first
    )


def test_an_operation_tells_how_far_it_came(ledger: Ledger, file: Path) -> None:
    begun = ledger.begin("release/q3", "release", {"tables": {"b": "1"}}, ["b", "a"])
    assert (begun.state, begun.open_items, begun.ended_at) == ("running", ("b", "a"), None)
    ledger.mark("release/q3", "b", "done")
    ledger.mark("release/q3", "a", "failed", "it was locked")
    found = Ledger(f"sqlite:///{file}").operation("release/q3")
    assert [(step.item, step.state, step.detail) for step in found.steps] == [
        ("b", "done", ""), ("a", "failed", "it was locked"),
    ]  # fmt: skip
    assert found.plan == {"tables": {"b": "1"}}
    assert ledger.end("release/q3").state == "incomplete"
    ledger.mark("release/q3", "a", "done")
    ended = ledger.end("release/q3")
    assert (ended.state, ended.open_items) == ("done", ())
    assert ended.ended_at is not None
    with pytest.raises(ConfigurationError, match="release/q3"):
        ledger.begin("release/q3", "release", {}, [])
    ledger.begin("rollback/1", "rollback", {}, [])
    assert [one.id for one in ledger.operations("release")] == ["release/q3"]
    ledger.forget("release/q3")
    assert ledger.operations("release") == []
    with pytest.raises(NotFoundError, match="release/q3"):
        ledger.operation("release/q3")


def _work(url: str, number: int, start: Any) -> None:
    ledger = Ledger(url)
    start.wait(60)
    for turn in range(10):
        ledger.begin(f"op/{number}/{turn}", "test", {}, ["one"])
        ledger.mark(f"op/{number}/{turn}", "one", "done")
        ledger.end(f"op/{number}/{turn}")


def at_once(url: str) -> list[Operation]:
    """What three processes leave that make the ledger's tables and fill them at once."""
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(3)
    workers = [context.Process(target=_work, args=(url, number, start)) for number in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    return Ledger(url).operations("test")


def test_processes_that_make_and_fill_it_at_once_lose_nothing(file: Path) -> None:
    found = at_once(f"sqlite:///{file}")
    assert sorted(one.id for one in found) == sorted(f"op/{n}/{t}" for n in range(3) for t in range(10))
    assert {one.state for one in found} == {"done"}


@pytest.mark.server
def test_postgresql_keeps_the_same_for_many_processes(postgres_server: PostgresServer) -> None:
    found = at_once(postgres_server.uri)
    assert {one.state for one in found} == {"done"}
    assert len(found) == 30
    ledger = Ledger(postgres_server.uri)
    ledger.pin(Pin("shop.orders", 1 << 62, "release/q3", "released"))
    assert ledger.pins("shop.orders")[0].snapshot_id == 1 << 62
    ledger.record_expired(Expired("t", 1 << 62, NOON, None, ""), Expired("t", 1 << 62, NOON, None, ""))
    assert ledger.expired_intervals("t") == [Expired("t", 1 << 62, NOON, None, "")]
    with pytest.raises(ConfigurationError, match="op/0/0"):
        ledger.begin("op/0/0", "test", {}, [])
    ledger.close()


def test_a_ledger_of_a_newer_release_is_left_alone(ledger: Ledger, file: Path) -> None:
    ledger.pins("t")
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE dwh_ledger SET version = 99")
    with pytest.raises(ConfigurationError, match="99"):
        Ledger(f"sqlite:///{file}").pins("t")


def test_a_ledger_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match=str(tmp_path)):
        Ledger(f"sqlite:///{tmp_path}").pins("t")
    with pytest.raises(ConfigurationError, match="DWH_LEDGER_URL"):
        Ledger("nonsense")


def test_it_lies_beside_the_warehouse_unless_the_environment_says_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DWH_LEDGER_URL", raising=False)
    monkeypatch.setenv("DWH_WAREHOUSE", str(tmp_path / "lake"))
    assert ledger_url() == f"sqlite:///{tmp_path}/lake/ledger.db"
    monkeypatch.setenv("DWH_WAREHOUSE", "s3://lake")
    monkeypatch.setenv("DWH_CATALOG_URI", "sqlite:///catalog.db")
    with pytest.raises(ConfigurationError, match="DWH_LEDGER_URL"):
        ledger_url()
    monkeypatch.setenv("DWH_LEDGER_URL", "postgresql+psycopg2://somewhere/ledger")
    assert ledger_url() == "postgresql+psycopg2://somewhere/ledger"
