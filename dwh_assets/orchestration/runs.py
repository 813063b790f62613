"""Runs of this machine that died, and how many runs may write a table at once."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import dagster as dg
import psutil
from dagster import DagsterRunStatus, RunsFilter

from dwh_assets.config import load_dotenv
from dwh_assets.orchestration.environment import local_instance

MAX_WRITERS = "dwh/max_writers"
_ALIVE_TAG = "dwh/process"
_UNFINISHED = [DagsterRunStatus.STARTING, DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING]


def process_tag() -> dict[str, str]:
    """Return the run tag by which a run of this process is recognised when the process is gone."""
    process = psutil.Process()
    return {_ALIVE_TAG: f"{process.pid}:{process.create_time():.2f}:{socket.gethostname()}"}


def fail_dead_runs(instance: dg.DagsterInstance) -> list[str]:
    """Mark runs whose process is gone as failed and free their pool slots; return their ids.

    A killed process cannot say that its run ended: the run stays STARTED and keeps its slots, and every
    later run of the same table would wait for them. Only runs of this machine that carry `process_tag` are
    judged.
    """
    dead = [run for run in _unfinished(instance) if not _is_alive(run.tags[_ALIVE_TAG])]
    for run in dead:
        instance.report_run_failed(run, message="The process of this run is gone; it was killed or crashed.")
        instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
    return [run.run_id for run in dead]


def _unfinished(instance: dg.DagsterInstance) -> Iterator[dg.DagsterRun]:
    for run in instance.get_runs(filters=RunsFilter(statuses=_UNFINISHED)):
        if _ALIVE_TAG in run.tags:
            yield run


def _is_alive(tag: str) -> bool:
    """Tell whether the process may still run. Of another machine's, nobody here can tell that it does not."""
    pid, started, *host = tag.split(":")
    if host and host[0] != socket.gethostname():
        return True
    try:
        process = psutil.Process(int(pid))
        return process.status() != psutil.STATUS_ZOMBIE and abs(process.create_time() - float(started)) < 1
    except psutil.NoSuchProcess:
        return False


def apply_pool_limits(instance: dg.DagsterInstance, definitions: dg.Definitions) -> dict[str, int]:
    """Give the pool of each table that allows several writers its limit; return the limits set.

    Without this a pool has the instance's default limit of one: slower, and as right. A table that allows
    one writer again takes back what was allowed before.
    """
    storage = instance.event_log_storage
    present = {pool.name: pool.limit for pool in storage.get_pool_limits()}
    wanted: dict[str, int] = {}
    for spec in definitions.resolve_all_asset_specs():
        writers = spec.metadata.get(MAX_WRITERS)
        pool = f"iceberg/{spec.metadata.get('table')}"
        if isinstance(writers, int) and max(writers, present.get(pool, 1)) > 1:
            wanted[pool] = writers
    for pool, limit in wanted.items():
        if present.get(pool) != limit:
            storage.set_concurrency_slots(pool, limit)
    return wanted


def main() -> None:
    """Prepare the local instance for `make dev`: dead runs failed, pool limits set."""
    from dwh_assets.definitions import defs

    load_dotenv()
    with local_instance() as instance:
        fail_dead_runs(instance)
        apply_pool_limits(instance, defs())


if __name__ == "__main__":
    main()
