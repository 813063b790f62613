"""A run that was killed is ended and gives back its pool slots; one that lives is left alone."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import psutil
import pytest
from dagster import DagsterRunStatus

from dwh_assets.orchestration.runs import apply_pool_limits, fail_dead_runs, process_tag
from dwh_tests.orchestration.held_run import POOL

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 60


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A DAGSTER_HOME with the configuration that the repository ships with."""
    folder = tmp_path / "home"
    folder.mkdir()
    shutil.copy(ROOT / "dagster_home" / "dagster.yaml", folder)
    return folder


@pytest.fixture
def instance(home: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.from_config(str(home)) as instance:
        yield instance


@pytest.fixture
def hold(home: Path, tmp_path: Path) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Starts a process whose run holds the pool; all of them are gone when the test ends."""
    started: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        marker = tmp_path / f"held-{len(started)}"
        process = subprocess.Popen(
            [sys.executable, "-m", "dwh_tests.orchestration.held_run", str(marker)],
            cwd=ROOT,
            env={**os.environ, "DAGSTER_HOME": str(home)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        started.append(process)
        wait_until(marker.exists)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def only_run(instance: dg.DagsterInstance) -> dg.DagsterRun:
    (run,) = instance.get_runs()
    return run


def held_slots(instance: dg.DagsterInstance) -> int:
    return instance.event_log_storage.get_concurrency_info(POOL).active_slot_count


def test_a_killed_run_is_failed_and_its_slot_freed(
    instance: dg.DagsterInstance, hold: Callable[[], subprocess.Popen[bytes]]
) -> None:
    process = hold()
    run = only_run(instance)
    assert limits(instance) == {POOL: 1}, "a pool without a limit would not limit anything"
    assert fail_dead_runs(instance) == [], "it lives"
    assert only_run(instance).status == DagsterRunStatus.STARTED
    assert held_slots(instance) == 1

    process.kill()
    wait_until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE)
    assert only_run(instance).status == DagsterRunStatus.STARTED, "nobody else ends it"
    assert held_slots(instance) == 1

    assert fail_dead_runs(instance) == [run.run_id], "dead also before its parent has noticed"
    assert only_run(instance).status == DagsterRunStatus.FAILURE
    assert held_slots(instance) == 0
    assert fail_dead_runs(instance) == [], "once is enough"
    process.wait()


def test_a_run_whose_process_is_gone_and_whose_number_is_taken_is_dead(instance: dg.DagsterInstance) -> None:
    """Process ids are used again: a process that was born at another time is not the run's."""
    ((name, tag),) = process_tag().items()
    pid, born, host = tag.split(":")
    other = _under_way(instance, {name: f"{pid}:{float(born) - 100:.2f}:{host}"})
    gone = _under_way(instance, {name: f"{2**22 + 1}:{born}:{host}"})
    mine = _under_way(instance, {name: tag})
    assert set(fail_dead_runs(instance)) == {other, gone}
    run = instance.get_run_by_id(mine)
    assert run is not None
    assert run.status == DagsterRunStatus.STARTED


def test_runs_of_other_machines_and_of_other_programs_are_not_judged(instance: dg.DagsterInstance) -> None:
    ((name, tag),) = process_tag().items()
    assert tag.endswith(socket.gethostname())
    elsewhere = _under_way(instance, {name: f"{2**22 + 1}:1.00:another-machine"})
    unknown = _under_way(instance, {})
    assert fail_dead_runs(instance) == []
    for run_id in (elsewhere, unknown):
        run = instance.get_run_by_id(run_id)
        assert run is not None
        assert run.status == DagsterRunStatus.STARTED


def _under_way(instance: dg.DagsterInstance, tags: dict[str, str]) -> str:
    """Record a run that has started, and return its id."""

    @dg.job
    def nothing() -> None: ...

    run = instance.create_run_for_job(nothing, tags=tags)
    event = dg.DagsterEvent(event_type_value="PIPELINE_START", job_name="nothing", message="started")
    instance.report_dagster_event(event, run.run_id)
    return run.run_id


# --- Pools ---


def tables(**writers: int) -> dg.Definitions:
    return dg.Definitions(
        assets=[
            dg.AssetSpec(
                ["iceberg", "shop", name], metadata={"table": f"shop.{name}", "dwh/max_writers": count}
            )
            for name, count in writers.items()
        ]
    )


def limits(instance: dg.DagsterInstance) -> dict[str, int]:
    return {pool.name: pool.limit for pool in instance.event_log_storage.get_pool_limits()}


def test_a_table_that_allows_several_writers_has_a_pool_of_that_size(instance: dg.DagsterInstance) -> None:
    assert apply_pool_limits(instance, tables(orders=4, prices=1)) == {"iceberg/shop.orders": 4}
    assert limits(instance) == {"iceberg/shop.orders": 4}
    apply_pool_limits(instance, tables(orders=4, prices=1))
    apply_pool_limits(instance, tables(orders=2, prices=3))
    assert limits(instance) == {"iceberg/shop.orders": 2, "iceberg/shop.prices": 3}


def test_a_table_that_allows_one_writer_again_has_a_pool_of_one(instance: dg.DagsterInstance) -> None:
    apply_pool_limits(instance, tables(orders=4))
    apply_pool_limits(instance, tables(orders=1))
    assert limits(instance) == {"iceberg/shop.orders": 1}


def test_assets_that_are_no_tables_have_no_pool_of_ours(instance: dg.DagsterInstance) -> None:
    apply_pool_limits(instance, dg.Definitions(assets=[dg.AssetSpec("other"), dg.AssetSpec("more")]))
    assert limits(instance) == {}
