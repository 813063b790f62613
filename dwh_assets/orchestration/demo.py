"""`make demo`: materialize the whole shipped lakehouse and show what was written.

The runs go to the Dagster instance that `make dev` shows. Assets without partitions that can run
together run as one; each partitioned asset runs once for all its partitions, as one commit.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import dagster as dg
from dagster import DagsterEventType
from dagster._core.utils import make_new_run_id
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from dwh_assets.config import load_dotenv
from dwh_assets.orchestration.environment import local_instance
from dwh_assets.orchestration.metadata import human_bytes
from dwh_assets.orchestration.runs import apply_pool_limits, fail_dead_runs, process_tag

_RANGE_START = "dagster/asset_partition_range_start"
_RANGE_END = "dagster/asset_partition_range_end"
_SHOWN = {
    DagsterEventType.ASSET_MATERIALIZATION,
    DagsterEventType.ASSET_CHECK_EVALUATION,
    DagsterEventType.STEP_FAILURE,
}
_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


_TABLE_WIDTH = 150


@dataclass(frozen=True)
class Wave:
    """Assets that one run materializes; with their partitions when they have some."""

    keys: tuple[dg.AssetKey, ...]
    partitions: tuple[str, ...] = ()

    @property
    def tags(self) -> dict[str, str]:
        """Run tags that select the partitions."""
        return {_RANGE_START: self.partitions[0], _RANGE_END: self.partitions[-1]} if self.partitions else {}


def waves(
    specs: Iterable[dg.AssetSpec], dynamic_partitions: dg.DagsterInstance | None = None
) -> Iterator[Wave]:
    """Order assets into runs: a run begins when everything that its assets read is there.

    An asset that has partitions, and none of them yet, is left out.
    """
    waiting = {spec.key: spec for spec in specs}
    while waiting:
        plain = _closed(waiting, [spec for spec in waiting.values() if spec.partitions_def is None])
        if plain:
            yield Wave(tuple(sorted(plain)))
            for key in plain:
                del waiting[key]
            continue
        spec = next(spec for spec in waiting.values() if not _waits(spec, waiting))
        assert spec.partitions_def is not None  # noqa: S101 - every asset without partitions is in `plain`
        keys = spec.partitions_def.get_partition_keys(dynamic_partitions_store=dynamic_partitions)
        if keys:
            yield Wave((spec.key,), tuple(keys))
        del waiting[spec.key]


def _waits(spec: dg.AssetSpec, waiting: Mapping[dg.AssetKey, dg.AssetSpec]) -> bool:
    """Tell whether an asset reads one that is not there yet; its own earlier partitions do not count."""
    return any(dep.asset_key in waiting and dep.asset_key != spec.key for dep in spec.deps)


def _closed(waiting: Mapping[dg.AssetKey, dg.AssetSpec], candidates: list[dg.AssetSpec]) -> set[dg.AssetKey]:
    """Return the candidates whose upstream assets are done or are candidates that qualify themselves."""
    chosen = {spec.key for spec in candidates}
    while True:
        blocked = {
            key
            for key in chosen
            if any(d.asset_key in waiting and d.asset_key not in chosen for d in waiting[key].deps)
        }
        if not blocked:
            return chosen
        chosen -= blocked


class Demo:
    """One materialization of everything, with progress on the console."""

    def __init__(self, definitions: dg.Definitions, instance: dg.DagsterInstance, console: Console) -> None:
        self._definitions = definitions
        self._job = definitions.resolve_implicit_global_asset_job_def()
        self._instance = instance
        self._console = console
        self._events: list[dg.DagsterEvent] = []

    def run(self) -> bool:
        """Materialize every asset and print the table; return whether all of it succeeded."""
        started = time.monotonic()
        for run_id in fail_dead_runs(self._instance):
            self._console.print(
                f"[yellow]Run {run_id[:8]} was killed earlier: marked as failed, its slots freed.[/]"
            )
        apply_pool_limits(self._instance, self._definitions)
        specs = self._definitions.resolve_all_asset_specs()
        outcomes = [self._materialize(wave) for wave in waves(specs, self._instance)]
        self._show(time.monotonic() - started)
        return all(outcomes)

    def _materialize(self, wave: Wave) -> bool:
        run_id = make_new_run_id()
        what = wave.keys[0].to_user_string() if len(wave.keys) == 1 else f"{len(wave.keys)} assets"
        partitions = f", {len(wave.partitions)} partitions in one commit" if wave.partitions else ""
        self._console.print(f"[bold]Run {run_id[:8]}[/]: {what}{partitions}")
        with _Progress(self._instance, run_id, self._console):
            result = self._job.execute_in_process(
                instance=self._instance,
                asset_selection=list(wave.keys),
                tags={**process_tag(), **wave.tags},
                run_id=run_id,
                run_config=_QUIET,
                raise_on_error=False,
            )
        self._events += result.all_events
        return result.success

    def _show(self, seconds: float) -> None:
        table = RichTable(
            "Asset", "Operation", "Rows in", "Updated", "Rows out", "Rows now", "Files", "Bytes", "Snapshot",
            "Seconds", "Checks", title="The lakehouse",
        )  # fmt: skip
        for key, metadata in _last_materializations(self._events).items():
            table.add_row(*_row(key, metadata, self._checks_of(key)))
        self._console.print(table)
        self._console.print(f"{seconds:.0f} seconds. `make dev` serves the UI on http://127.0.0.1:3000.")

    def _checks_of(self, key: dg.AssetKey) -> str:
        mine = [check for event in self._events if (check := _check(event)) and check.asset_key == key]
        passed = sum(check.passed for check in mine)
        return f"[{'green' if passed == len(mine) else 'red'}]{passed} of {len(mine)}[/]" if mine else ""


class _Progress:
    """Prints the events of a run while it runs."""

    def __init__(self, instance: dg.DagsterInstance, run_id: str, console: Console) -> None:
        self._instance = instance
        self._run_id = run_id
        self._console = console
        self._shown = 0
        self._done: set[dg.AssetKey | None] = set()
        self._finished = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._finished.set()
        self._thread.join()

    def _follow(self) -> None:
        while not self._finished.wait(0.5):
            self._print_new()
        self._print_new()

    def _print_new(self) -> None:
        entries = self._instance.all_logs(self._run_id, of_type=_SHOWN)
        for entry in entries[self._shown :]:
            if entry.dagster_event:
                self._print(entry.dagster_event)
        self._shown = len(entries)

    def _print(self, event: dg.DagsterEvent) -> None:
        check = _check(event)
        if event.event_type == DagsterEventType.STEP_FAILURE:
            self._console.print(f"  [red]failed[/] {event.step_key}: {escape(_root_cause(event))}")
        elif check and not check.passed:
            self._console.print(
                f"  [red]check failed[/] {check.asset_key.to_user_string()}: {check.check_name}"
            )
        elif event.event_type == DagsterEventType.ASSET_MATERIALIZATION and event.asset_key not in self._done:
            self._done.add(event.asset_key)  # one event a partition says the same for all of them
            self._console.print(f"  [green]done[/]   {escape(_sentence(event))}")


def _check(event: dg.DagsterEvent) -> dg.AssetCheckEvaluation | None:
    is_check = event.event_type == DagsterEventType.ASSET_CHECK_EVALUATION
    return event.asset_check_evaluation_data if is_check else None


def _root_cause(event: dg.DagsterEvent) -> str:
    error = event.step_failure_data.error
    while error is not None and error.cause is not None:
        error = error.cause
    return error.message.strip() if error else ""


def _sentence(event: dg.DagsterEvent) -> str:
    assert event.asset_key is not None  # noqa: S101 - a materialization has a key
    summary = _values(event).get("dwh/summary", "")
    return f"{event.asset_key.to_user_string()}: {str(summary).replace('**', '').replace('`', '')}"


def _values(event: dg.DagsterEvent) -> dict[str, Any]:
    return {
        key: value.value for key, value in event.step_materialization_data.materialization.metadata.items()
    }


def _last_materializations(events: list[dg.DagsterEvent]) -> dict[dg.AssetKey, dict[str, Any]]:
    return {
        event.asset_key: _values(event)
        for event in events
        if event.event_type == DagsterEventType.ASSET_MATERIALIZATION and event.asset_key
    }


def _row(key: dg.AssetKey, metadata: dict[str, Any], checks: str) -> list[str]:
    def number(name: str) -> str:
        return f"{metadata[name]:,}" if name in metadata else ""

    return [
        key.to_user_string(),
        _operation(metadata),
        number("dwh/rows_added"),
        number("dwh/rows_updated"),
        number("dwh/rows_removed"),
        number("dagster/row_count"),
        number("dwh/files_added"),
        human_bytes(metadata["dwh/bytes_added"]) if "dwh/bytes_added" in metadata else "",
        str(metadata.get("dwh/snapshot_id", "")),
        f"{metadata.get('dwh/seconds', 0):.1f}",
        checks,
    ]


def _operation(metadata: Mapping[str, Any]) -> str:
    """Name the write mode: to Iceberg, the first write of an overwrite or upsert is an append."""
    operation = str(metadata.get("dwh/operation", ""))
    return operation if operation == "none" else str(metadata.get("dwh/write_mode", operation))


def _wide_console() -> Console:
    """Return a console wide enough for the table; a narrow terminal wraps lines rather than cells."""
    console = Console()
    return console if console.width >= _TABLE_WIDTH else Console(width=_TABLE_WIDTH)


def main() -> int:
    """Run the demo on the local instance; return 1 when anything failed."""
    load_dotenv()
    from dwh_assets.definitions import defs

    with local_instance() as instance:
        return 0 if Demo(defs(), instance, _wide_console()).run() else 1


if __name__ == "__main__":
    sys.exit(main())
