"""A database that somebody else holds is waited for and named; a sync that is killed has done nothing."""

import contextlib
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import duckdb
import pyarrow as pa
import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.table import Table

from dwh_assets.errors import ConfigurationError, UnavailableError
from dwh_assets.warehouses.base import SyncResult
from dwh_assets.warehouses.duckdb.warehouse import DuckDBWarehouse
from dwh_tests.warehouses.lake import query

HOLD = """
import sys, duckdb
connection = duckdb.connect(sys.argv[1], read_only=sys.argv[2] == "read-only")
print("held", flush=True)
sys.stdin.readline()
"""
# Syncs file by file, and stops at the n-th batch of rows until a line comes in.
SYNC = """
import sys
from pathlib import Path
from dwh_assets.warehouses import arriving, source
from dwh_assets.warehouses.duckdb.warehouse import DuckDBWarehouse
from dwh_tests.warehouses.lake import open_catalog

arriving._SECONDS_BETWEEN_MESSAGES, source._STREAM_BYTES = 0, 1
batches = []

def stop(line):
    batches.append(line)
    if len(batches) == int(sys.argv[3]):
        print("under way", flush=True)
        sys.stdin.readline()

replica = DuckDBWarehouse(sys.argv[2]).replica("sales.orders")
print(replica.sync(open_catalog(Path(sys.argv[1])), on_progress=stop).method, flush=True)
"""


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "w.duckdb"


@contextlib.contextmanager
def process(script: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run a script in a process of its own, which has said its first word when the block begins."""
    with subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as started:
        assert started.stdout
        assert started.stdout.readline()
        yield started
        started.kill()


class WhenWaiting(logging.Handler):
    """Does something once, as soon as a sync says that it waits; keeps what was said."""

    def __init__(self, action: Callable[[], None]) -> None:
        super().__init__()
        self.action = action
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())
        if len(self.said) == 1:
            self.action()

    def __enter__(self) -> Self:
        logging.getLogger("dwh_assets.warehouses").addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger("dwh_assets.warehouses").removeHandler(self)


def go_on(other: subprocess.Popen[str]) -> None:
    assert other.stdin
    other.stdin.write("\n")
    other.stdin.flush()


@pytest.mark.parametrize("how", ["read-only", "writing"])
def test_a_held_file_is_refused_by_name(database: Path, orders: Table, how: str) -> None:
    duckdb.connect(database).close()
    with process(HOLD, str(database), how) as other:
        with pytest.raises(UnavailableError) as refused:
            DuckDBWarehouse(database, wait_seconds=0.3).replica("sales.orders").sync(orders)
        assert str(database) in refused.value.message
        assert f"held by PID {other.pid} (python" in refused.value.message


def test_a_held_file_is_waited_for_with_a_message(database: Path, orders: Table) -> None:
    duckdb.connect(database).close()
    with process(HOLD, str(database), "writing") as other, WhenWaiting(lambda: go_on(other)) as waiting:
        result = DuckDBWarehouse(database).replica("sales.orders").sync(orders)
    assert result.method == "full"
    expected = f"waiting for the DuckDB file {database}, held by PID {other.pid} (python"
    assert waiting.said[0].startswith(expected)


def test_several_processes_may_read(database: Path, orders: Table) -> None:
    replica = DuckDBWarehouse(database, wait_seconds=0).replica("sales.orders")
    replica.sync(orders)
    with process(HOLD, str(database), "read-only"):
        assert replica.read().read_all().num_rows == 3
        assert replica.snapshot_id is not None


def test_settings_that_disagree_in_this_process_are_waited_for(database: Path, orders: Table) -> None:
    replica = DuckDBWarehouse(database, wait_seconds=0.2).replica("sales.orders")
    with duckdb.connect(database, config={"threads": 1}):
        with pytest.raises(UnavailableError, match=rf"this process \(PID {os.getpid()}\)"):
            replica.sync(orders)
        same = DuckDBWarehouse(database, config={"threads": 1}).replica("sales.orders")
        assert same.sync(orders).method == "full"
        assert same.read().read_all().num_rows == 3
    assert replica.sync(orders).method == "none"


@pytest.mark.parametrize("content", [b"no database" * 2000, None], ids=["other content", "a folder"])
def test_what_cannot_be_opened_is_not_waited_for(
    database: Path, orders: Table, content: bytes | None
) -> None:
    if content is None:
        database.mkdir()
    else:
        database.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"w\.duckdb cannot be opened"):
        DuckDBWarehouse(database).replica("sales.orders").sync(orders)


@contextlib.contextmanager
def leaky(database: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """As Dagster's resource has it: a failure in the block leaves the connection open."""
    connection = duckdb.connect(database, config={"custom_user_agent": "dagster"})
    yield connection
    connection.close()


def test_the_connection_of_a_factory_is_closed_whatever_happens(
    catalog: SqlCatalog, database: Path, orders: Table
) -> None:
    kept: list[duckdb.DuckDBPyConnection] = []

    @contextlib.contextmanager
    def factory() -> Iterator[duckdb.DuckDBPyConnection]:
        with leaky(database) as connection:
            kept.append(connection)
            yield connection

    warehouse = DuckDBWarehouse(factory, wait_seconds=0)
    assert warehouse.replica("sales.orders").sync(catalog).method == "full"
    with pytest.raises(ZeroDivisionError), warehouse.connect():
        raise ZeroDivisionError
    for connection in kept:
        with pytest.raises(duckdb.ConnectionException, match="closed"):
            connection.execute("SELECT 1")
    assert query(database, "SELECT count(*) FROM sales.orders") == [(3,)]


def test_the_file_that_a_factory_cannot_open_is_named(database: Path, orders: Table) -> None:
    duckdb.connect(database).close()
    with process(HOLD, str(database), "writing") as other:
        warehouse = DuckDBWarehouse(lambda: leaky(database), wait_seconds=0.1)
        with pytest.raises(UnavailableError, match=rf"{database} is held by PID {other.pid}"):
            warehouse.replica("sales.orders").sync(orders)


def test_a_sync_leaves_the_settings_of_a_shared_database(database: Path, orders: Table) -> None:
    setting = "SELECT current_setting('preserve_insertion_order')"
    with duckdb.connect(database) as shared:
        DuckDBWarehouse(shared.cursor).replica("sales.orders").sync(orders)
        assert shared.execute(setting).fetchone() == (True,)
        shared.execute("SET preserve_insertion_order = false")
        DuckDBWarehouse(shared.cursor).replica("sales.orders").sync(orders)
        assert shared.execute(setting).fetchone() == (False,)


def test_two_threads_sync_once(database: Path, orders: Table) -> None:
    """Readers see the old rows meanwhile, and the second sync finds the work done."""
    replica = DuckDBWarehouse(database).replica("sales.orders")
    replica.sync(orders)
    orders.append(pa.table({"id": [4], "item": ["ink"]}))
    under_way, finish = threading.Event(), threading.Event()

    def stop(_: str) -> None:
        under_way.set()
        finish.wait(30)

    results: list[SyncResult] = []
    first = threading.Thread(target=lambda: results.append(replica.sync(orders, on_progress=stop)))
    second = threading.Thread(target=lambda: results.append(replica.sync(orders)))
    with WhenWaiting(finish.set) as waiting:
        first.start()
        assert under_way.wait(30)
        assert replica.read().read_all().num_rows == 3
        second.start()
        first.join()
        second.join()
    assert "another sync" in waiting.said[0]

    # Which thread gets to report first after the commit is the scheduler's affair.
    assert sorted(result.method for result in results) == ["incremental", "none"]
    assert replica.read().read_all().num_rows == 4


def test_two_processes_sync_once(catalog: SqlCatalog, lake: Path, database: Path, orders: Table) -> None:
    with process(SYNC, str(lake), str(database), "1") as other, WhenWaiting(lambda: go_on(other)) as waiting:
        result = DuckDBWarehouse(database).replica("sales.orders").sync(catalog)
        assert other.stdout
        assert other.stdout.readline() == "full\n"
    assert result.method == "none"
    assert waiting.said


def test_a_sync_after_a_wait_takes_what_is_newest_then(
    catalog: SqlCatalog, database: Path, orders: Table
) -> None:
    duckdb.connect(database).close()
    with process(HOLD, str(database), "writing") as other:

        def write_and_let_go() -> None:
            orders.append(pa.table({"id": [4], "item": ["ink"]}))
            go_on(other)

        with WhenWaiting(write_and_let_go):
            assert DuckDBWarehouse(database).replica("sales.orders").sync(catalog).rows_inserted == 4


@pytest.mark.parametrize("batch", [1, 4, 7])
def test_a_killed_sync_leaves_the_old_replica(
    catalog: SqlCatalog, lake: Path, database: Path, orders: Table, batch: int
) -> None:
    replica = DuckDBWarehouse(database).replica("sales.orders")
    replica.sync(catalog)
    state = replica.state()
    rows = pa.table({"id": range(300_000), "item": ["ink"] * 300_000})
    for _ in range(3):
        orders.append(rows)

    with process(SYNC, str(lake), str(database), str(batch)) as other:
        other.kill()

    assert query(database, "SELECT count(*), count(item) FROM sales.orders") == [(3, 2)]
    assert replica.state() == state
    assert replica.sync(catalog).rows_inserted == 900_000
    assert query(database, "SELECT count(*) FROM sales.orders") == [(3 + 900_000,)]
