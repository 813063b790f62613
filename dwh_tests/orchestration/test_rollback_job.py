"""The job `rollback` in a real instance: what it shows, what assets say after it, what automation does."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pyarrow as pa
import pytest
from pyiceberg.table import DataScan

from dwh_assets.ledger import Ledger
from dwh_tests.orchestration.house import RolledBack, key
from dwh_tests.orchestration.lake import Lake, failure_text

RAW, MIDDLE, TOP = "shop.raw", "shop.middle", "mart.top"
EAGER = dg.AutomationCondition.eager()
TABLES = {RAW: [], MIDDLE: [RAW], TOP: [MIDDLE]}


@dataclass
class House(RolledBack):
    """Three tables, each computed from the one before, and replicas of the first and the last."""

    generation: int = 0

    def __post_init__(self) -> None:
        self.lake.replicate(wait_seconds=4)
        self.assets = [self._raw(), self._outside(), self._middle(), self._top(), *map(_replica, (RAW, TOP))]
        self.definitions = dg.Definitions(assets=self.assets, resources=self.lake.resources)

    @property
    def database(self) -> Path:
        return self.lake.database

    @property
    def ledger_url(self) -> str:
        return f"sqlite:///{self.lake.folder / 'ledger.db'}"

    def _raw(self) -> dg.AssetsDefinition:
        @dg.asset(key=key(RAW), io_manager_key="iceberg_io_manager", metadata={"write_mode": "overwrite"})
        def raw() -> pa.Table:
            return pa.table({"id": [self.generation]})

        return raw

    def _outside(self) -> dg.AssetsDefinition:
        @dg.asset(key=["outside"])
        def outside() -> None: ...

        return outside

    def _middle(self) -> dg.AssetsDefinition:
        @dg.asset(
            key=key(MIDDLE), ins={"rows": dg.AssetIn(key(RAW))}, deps=[dg.AssetKey("outside")],
            io_manager_key="iceberg_io_manager", metadata={"write_mode": "overwrite"},
            automation_condition=EAGER,
        )  # fmt: skip
        def middle(rows: pa.Table) -> pa.Table:
            return pa.table({"id": [row * 10 for row in rows["id"].to_pylist()]})

        return middle

    def _top(self) -> dg.AssetsDefinition:
        @dg.asset(
            key=key(TOP), ins={"rows": dg.AssetIn(key(MIDDLE))}, io_manager_key="iceberg_io_manager",
            metadata={"write_mode": "overwrite"}, automation_condition=EAGER,
        )  # fmt: skip
        def top(rows: pa.Table) -> pa.Table:
            return pa.table({"id": [row * 10 for row in rows["id"].to_pylist()]})

        return top

    def compute(self) -> dict[str, str]:
        """Compute everything once; the logical snapshot of each table."""
        self.generation += 1
        self.lake.run(*self.assets)
        return {table: str(self.lake.snapshots(table)[-1]["snapshot-id"]) for table in TABLES}

    def versions(self) -> dict[str, str]:
        """The data version that each asset reports now."""
        keys = {**{t: key(t) for t in TABLES}, **{f"duckdb {t}": key(t, "duckdb") for t in (RAW, TOP)}}
        return {name: self.version(one) for name, one in keys.items()}

    def ids(self) -> list[int]:
        return [self.lake.rows(table)[0]["id"] for table in TABLES]

    def replica_ids(self) -> list[int]:
        with duckdb.connect(str(self.database), read_only=True) as connection:
            return [connection.table(table).fetchall()[0][0] for table in (RAW, TOP)]


def _replica(table: str) -> dg.AssetsDefinition:
    @dg.asset(
        key=key(table, "duckdb"),
        ins={"table": dg.AssetIn(key=key(table), dagster_type=DataScan)},
        metadata={"table": table, "into": table},
        io_manager_key="duckdb_replica_io_manager",
        automation_condition=EAGER,
    )
    def replica(table: DataScan) -> DataScan:
        return table

    made: dg.AssetsDefinition = replica
    return made


@pytest.fixture
def house(lake: Lake) -> House:
    # The instance is shared by all tests of a process, and so are the assets' names.
    lake.instance.wipe_assets([key(t) for t in TABLES] + [key(t, "duckdb") for t in (RAW, TOP)])
    return House(lake)


def metadata_of(result: dg.ExecuteInProcessResult) -> Mapping[str, Any]:
    (output,) = [event for event in result.all_events if event.event_type_value == "STEP_OUTPUT"]
    return {name: value.value for name, value in output.step_output_data.metadata.items()}


def test_a_run_shows_what_it_would_do_and_changes_nothing_unless_told_so(house: House) -> None:
    first, second = house.compute(), house.compute()
    told = metadata_of(house.roll_back(table=RAW, to=first[RAW]))
    for table in TABLES:
        assert f"**{table}**: main goes from snapshot `{second[table]}` to `{first[table]}`" in told["plan"]
    assert "**duckdb/mart/top** of mart.top" in told["plan"]
    assert (told["dry_run"], house.ids(), house.replica_ids()) == (True, [2, 20, 200], [2, 200])
    assert Ledger(house.ledger_url).operations("rollback") == []


@pytest.mark.slow
def test_assets_report_the_old_version_and_automation_computes_nothing_anew(house: House) -> None:
    first = house.compute()
    house.compute()
    house.tick()
    assert house.tick() == set()
    result = house.roll_back(table=RAW, to="1 versions ago", dry_run=False)
    assert (house.ids(), house.replica_ids()) == ([1, 10, 100], [1, 100])
    expected = {**first, f"duckdb {RAW}": first[RAW], f"duckdb {TOP}": first[TOP]}
    assert house.versions() == expected
    assert [house.tick(), house.tick()] == [set(), set()]

    events = [e.step_materialization_data.materialization for e in result.get_asset_materialization_events()]
    assert [e.asset_key for e in events] == [
        key(RAW), key(MIDDLE), key(TOP), key(TOP, "duckdb"), key(RAW, "duckdb")
    ]  # fmt: skip
    assert events[0].metadata["dwh/snapshot_id"].value == first[RAW]
    assert events[0].metadata["dagster/row_count"].value == 1

    house.generation = 7
    house.lake.run(*house.assets, select=[house.assets[0]])
    assert key(MIDDLE).to_user_string() in house.tick(), "the next new version is computed from as ever"


@pytest.mark.slow
def test_while_it_runs_automation_leaves_the_tables_alone_whatever_else_arrives(house: House) -> None:
    first = house.compute()
    house.compute()
    house.tick()
    house.lake.instance.report_runless_asset_event(dg.AssetMaterialization("outside"))
    assert house.tick() == {key(MIDDLE).to_user_string(), key(TOP).to_user_string(), "duckdb/mart/top"}
    house.compute()
    house.tick()

    # Other settings than the job's: it waits for the file, when it plans and when it syncs.
    holder = duckdb.connect(str(house.database), config={"threads": 1})
    run = threading.Thread(
        target=house.roll_back,
        kwargs={"table": RAW, "to": first[RAW], "dry_run": False, "expect_success": True},
    )
    run.start()
    try:
        _until_in_progress(house)
        house.lake.instance.report_runless_asset_event(dg.AssetMaterialization("outside"))
        assert house.tick() == set()
        assert run.is_alive()
    finally:
        holder.close()
        run.join(120)
    assert house.ids() == [1, 10, 100]
    assert house.tick() == set()


def _until_in_progress(house: House) -> None:
    """Wait until the rollback has told Dagster what it is going to report, the last table included."""
    pause = threading.Event()
    for _ in range(1200):
        planned = house.lake.instance.event_log_storage.get_latest_planned_materialization_info(key(TOP))
        run = house.lake.instance.get_run_by_id(planned.run_id) if planned else None
        if run is not None and run.job_name == "rollback":
            return
        pause.wait(0.05)
    raise AssertionError("the rollback never began")


def test_a_replica_that_is_down_is_named_and_is_brought_back_when_the_rollback_is_resumed(
    house: House,
) -> None:
    first = house.compute()
    house.compute()
    house.tick()
    whole = house.database.read_bytes()
    house.database.write_bytes(b"torn" * 4096)
    result = house.roll_back(table=RAW, to=first[RAW], dry_run=False, expect_success=False)
    assert house.ids() == [1, 10, 100]
    assert "cannot be opened" in failure_text(result)
    (operation,) = Ledger(house.ledger_url).operations("rollback")
    assert operation.open_items == ("replica duckdb/mart/top", "replica duckdb/shop/raw")
    assert house.versions()[TOP] == first[TOP], "what was brought back is reported"

    house.database.write_bytes(whole)
    house.roll_back(resume=operation.id, dry_run=False)
    assert house.replica_ids() == [1, 100]
    assert house.versions()[f"duckdb {TOP}"] == first[TOP]


def test_a_rollback_is_undone_by_its_id(house: House) -> None:
    first, second = house.compute(), house.compute()
    house.roll_back(table=RAW, to=first[RAW], dry_run=False)
    (operation,) = Ledger(house.ledger_url).operations("rollback")
    house.roll_back(undo=operation.id, dry_run=False)
    assert (house.ids(), house.replica_ids()) == ([2, 20, 200], [2, 200])
    assert {table: house.versions()[table] for table in TABLES} == second


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"table": "shop.none", "to": "1"}, "shop.none"),
        ({"table": RAW, "to": "q9"}, "q9"),
        ({}, "Give table and to"),
        ({"resume": "rollback/none"}, "rollback/none"),
    ],
)
def test_a_mistake_is_told_and_changes_nothing(house: House, config: dict[str, Any], said: str) -> None:
    house.compute()
    result = house.roll_back(**config, dry_run=False, expect_success=False)
    assert said in failure_text(result)
    assert house.ids() == [1, 10, 100]
