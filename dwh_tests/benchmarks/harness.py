"""Measures a benchmark: each contender in fresh processes, taking turns, the median of several runs."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from dwh_tests.benchmarks.data import inputs
from dwh_tests.benchmarks.model import Benchmark, Contender, Facts, Measured, Size
from dwh_tests.servers.availability import first_unmet
from dwh_tests.servers.iceberg_rest import IcebergRestServer

_ROOT = Path(__file__).parents[2]
_LOG_LINES = 3
Status = Literal["measured", "missing", "crashed", "failed"]


@dataclass
class Row:
    """What became of one contender."""

    contender: Contender
    status: Status = "measured"
    reason: str = ""
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    peaks: list[int] = field(default_factory=list)
    stored: list[int] = field(default_factory=list)
    empty_bytes: int | None = None
    facts: Facts | None = None
    figures: dict[str, float] = field(default_factory=dict)

    @property
    def measured(self) -> Measured | None:
        """The medians, or None when nothing was measured."""
        if self.status != "measured" or not self.seconds:
            return None
        peak = None
        if self.peaks and self.empty_bytes is not None:
            peak = (statistics.median(self.peaks) - self.empty_bytes) / 2**20
        stored = statistics.median(self.stored) / 2**20 if self.stored else None
        seconds, cpu_seconds = statistics.median(self.seconds), statistics.median(self.cpu_seconds)
        return Measured(seconds, cpu_seconds, peak, stored, self.figures)


@dataclass
class Outcome:
    """One benchmark, measured."""

    benchmark: Benchmark
    size: Size
    rows: list[Row]

    @property
    def by_name(self) -> dict[str, Measured]:
        """What was measured, by contender."""
        return {row.contender.name: row.measured for row in self.rows if row.measured}


@dataclass(frozen=True)
class Settings:
    """How to measure."""

    size: Size = "full"
    runs: int = 3
    timeout: float = 1800.0
    only: tuple[str, ...] = ()
    profile: Path | None = None
    say: Callable[[str], None] = lambda text: None


class ChildFailed(Exception):
    """A process of a contender ended badly; the message holds the end of its log."""


def measure(benchmark: Benchmark, settings: Settings) -> Outcome:
    """Run a benchmark and return what was seen; a contender that fails does not stop the others."""
    contenders = [c for c in benchmark.contenders if not settings.only or c.name in settings.only]
    with ExitStack() as resources:
        folder = Path(resources.enter_context(tempfile.TemporaryDirectory(prefix="dwh-bench-")))
        run = _Run(benchmark, settings, folder, [Row(contender) for contender in contenders])
        run.start(resources)
        run.prepare()
        for number in range(settings.runs):
            run.round(number)
        run.measure_empty_processes()
    return Outcome(benchmark, settings.size, run.rows)


class _Run:
    """The processes of one benchmark."""

    def __init__(self, benchmark: Benchmark, settings: Settings, folder: Path, rows: list[Row]) -> None:
        self._benchmark = benchmark
        self._settings = settings
        self._folder = folder
        self.rows = rows
        self._rest: IcebergRestServer | None = None
        self._inputs = folder
        self._modules: dict[str, list[str]] = {}

    def start(self, resources: ExitStack) -> None:
        """Find out who can take part, make the inputs, start the server."""
        task = self._benchmark.task(self._settings.size)
        if task is not None:
            self._inputs = inputs(task, self._settings.size)
        for row in self.rows:
            self._check_needs(row)
        if any(row.contender.load().needs_rest for row in self._taking_part()):
            self._rest = resources.enter_context(IcebergRestServer())

    def _check_needs(self, row: Row) -> None:
        try:
            work = row.contender.load()
            reason = first_unmet(work.needs) or (IcebergRestServer.why_not() if work.needs_rest else None)
        except ImportError as error:
            # Optional packages are named as needs and imported later; this one is the project's own trouble.
            row.status, row.reason = "failed", str(error)
            return
        if reason:
            row.status, row.reason = "missing", reason

    def _taking_part(self) -> list[Row]:
        return [row for row in self.rows if row.status == "measured"]

    @property
    def _together(self) -> bool:
        """At toy size nothing is compared but results, and processes take longer than the work."""
        return self._settings.size == "toy"

    def prepare(self) -> None:
        """Make what the work finds, once for each folder."""
        if self._together:
            return
        done: dict[str, Row] = {}
        for row in self._taking_part():
            first = done.setdefault(row.contender.folder, row)
            if first is row:
                self._child(row, ["prepare"])
            else:
                row.status, row.reason = first.status, first.reason

    def round(self, number: int) -> None:
        """Measure each contender once, forwards and backwards in turn."""
        rows = self._taking_part()
        if self._together:
            self._round_together(rows)
            return
        for row in rows if number % 2 == 0 else rows[::-1]:
            if number and row.contender.once:
                continue
            answer = self._child(row, ["run"] if number else ["run", "facts"])
            if answer:
                self._note(row, answer)

    def _round_together(self, rows: list[Row]) -> None:
        """Let the contenders share a process, but those that fork: threads of others do not survive that."""
        forking = [row for row in rows if row.contender.load().forks]
        for group in [[row for row in rows if row not in forking], *([row] for row in forking)]:
            prepared = {row.contender.folder: row for row in reversed(group)}
            stages = ["run", "facts"]
            requests = [
                self._request(row, ["prepare", *stages] if row in prepared.values() else stages)
                for row in group
            ]
            answers = self._answers(group, requests)
            for row, answer in zip(group, answers, strict=True):
                if answer:
                    self._note(row, answer)

    def _note(self, row: Row, answer: dict[str, Any]) -> None:
        row.seconds.append(answer["seconds"])
        row.cpu_seconds.append(answer["cpu_seconds"])
        if answer["peak_bytes"]:
            row.peaks.append(answer["peak_bytes"])
        if answer["stored_bytes"]:
            row.stored.append(answer["stored_bytes"])
        self._modules[row.contender.name] = answer["modules"]
        self._settings.say(f"  {row.contender.name}: {answer['seconds']:.2f} s")
        if "facts" in answer:
            row.facts, row.figures = answer["facts"], answer["figures"]
            if answer["facts"] != answer["expected"]:
                row.status = "failed"
                row.reason = f"the result is {answer['facts']}, and should be {answer['expected']}"

    def measure_empty_processes(self) -> None:
        """Measure a process that only imports what the contender's had imported at its end."""
        for row in self._taking_part():
            if row.peaks and not self._together:
                answer = self._child(row, [], modules=self._modules[row.contender.name])
                row.empty_bytes = answer.get("peak_bytes")

    def _child(self, row: Row, stages: Sequence[str], modules: list[str] | None = None) -> dict[str, Any]:
        """Run one process. Empty when it came to nothing, and then the row says why."""
        return self._answers([row], [self._request(row, stages, modules)])[0]

    def _request(self, row: Row, stages: Sequence[str], modules: list[str] | None = None) -> dict[str, Any]:
        request: dict[str, Any] = {
            "benchmark": self._benchmark.name,
            "contender": row.contender.name,
            "size": self._settings.size,
            "stages": list(stages),
            "folder": str(self._folder / row.contender.folder.replace(" ", "-").replace(",", "")),
            "inputs": str(self._inputs),
        }
        if modules is not None:
            request["modules"] = modules
        if self._settings.profile and "run" in stages:
            request["profile"] = str(
                self._settings.profile / f"{self._benchmark.name}-{row.contender.name}.prof"
            )
        if self._rest is not None:
            request |= {
                "rest_uri": self._rest.uri,
                "rest_warehouse": str(self._rest.folder / "warehouse"),
            }
        return request

    def _answers(self, rows: Sequence[Row], requests: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Let one process answer for each row. What came to nothing is empty, and its row says why."""
        if not rows:
            return []
        try:
            answers = self._ask(requests)
        except ChildFailed as error:
            answers = [{"failed": str(error)} for _ in rows]
        return [self._heard(row, answer) for row, answer in zip(rows, answers, strict=True)]

    def _heard(self, row: Row, answer: dict[str, Any]) -> dict[str, Any]:
        if "unavailable" in answer:
            row.status, row.reason = "missing", answer["unavailable"]
        elif "failed" in answer:
            known = row.contender.known_crash
            row.status = "crashed" if known else "failed"
            row.reason = f"{known} ({answer['failed']})" if known else answer["failed"]
        else:
            return answer
        self._settings.say(f"  {row.contender.name}: {row.status}: {row.reason}")
        return {}

    def _ask(self, requests: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        answer_file = self._folder / "answer.json"
        answer_file.unlink(missing_ok=True)
        log = self._folder / "child.log"
        asked = json.dumps(list(requests))
        command = [sys.executable, "-m", "dwh_tests.benchmarks.child", str(answer_file), asked]
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                cwd=_ROOT,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            try:
                code = process.wait(self._settings.timeout)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise ChildFailed(f"not done after {self._settings.timeout:.0f} s") from None
            except BaseException:
                process.kill()
                process.wait()
                raise
        if code != 0:
            raise ChildFailed(f"{_ended(code)}: {_tail(log)}")
        answers: list[dict[str, Any]] = json.loads(answer_file.read_text())
        return answers


def _ended(code: int) -> str:
    return f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"


def _tail(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return " | ".join(lines[-_LOG_LINES:]) or "it said nothing"
