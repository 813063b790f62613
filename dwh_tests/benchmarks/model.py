"""What a benchmark is: contenders that do the same work, and the ratios that ours has to reach."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Literal

from dwh_tests.servers.availability import Need

Size = Literal["full", "toy"]
# What a table holds afterwards, by name: counts and exact sums, as text.
Facts = dict[str, str]


class Unavailable(Exception):
    """A peer cannot run on this machine; the message says why."""


@dataclass(frozen=True)
class Task:
    """The work of one benchmark over TPC-H data: append, upsert by `keys`, or compare before and after that.

    To be compared, the rows are sorted by date, and the source changes rows of the newest days, or scattered.
    """

    dataset: Literal["orders", "lineitem"]
    keys: tuple[str, ...] = ()
    source_rows: int = 0
    by_day: str | None = None
    changes: Literal["newest", "scattered"] | None = None

    @property
    def name(self) -> str:
        """Name the inputs of this task; tasks with the same inputs share them."""
        parts = [
            self.dataset,
            *(["by-day"] if self.by_day else []),
            *([f"{self.source_rows}"] if self.keys else []),
            *([self.changes] if self.changes else []),
        ]
        return "-".join(parts)


@dataclass(frozen=True)
class Job:
    """One contender's work: on which inputs, in which folder, beside which server."""

    task: Task | None
    size: Size
    folder: Path
    inputs: Path
    options: Mapping[str, Any] = field(default_factory=dict)
    rest_uri: str | None = None
    rest_warehouse: Path | None = None


class Work(ABC):
    """What one contender does: `prepare` once, `open` and `run` in a fresh process for each measurement."""

    needs: ClassVar[tuple[Need, ...]] = ()
    needs_rest: ClassVar[bool] = False
    # Whether it forks, which the threads of other contenders in its process would not survive
    forks: ClassVar[bool] = False

    def __init__(self, job: Job) -> None:
        self.job = job

    @property
    def task(self) -> Task:
        """The TPC-H task; benchmarks over generated rows have none."""
        if self.job.task is None:
            raise TypeError(f"{type(self).__name__} needs a task")
        return self.job.task

    def prepare(self) -> None:  # noqa: B027 - most have nothing to prepare
        """Make what the work finds, such as the table to upsert into. Not measured."""

    @abstractmethod
    def open(self) -> None:
        """Put things back as prepared, load the input, connect and warm up. Not measured."""

    @abstractmethod
    def run(self) -> None:
        """Do the work. Measured."""

    @abstractmethod
    def facts(self) -> Facts:
        """Read what is there now. Not measured."""

    def figures(self) -> dict[str, float]:
        """Other numbers to reach than seconds and memory, by name. Not measured."""
        return {}

    def expected(self) -> Facts:
        """What the facts have to equal, computed without the contender."""
        expected: Facts = json.loads((self.job.inputs / "expected.json").read_text())
        return expected

    def stored_bytes(self) -> int | None:
        """Return what lies in the store afterwards, with metadata; None where that is not the question."""
        return None

    def close(self) -> None:  # noqa: B027 - most have nothing to end
        """End what `open` started."""


@dataclass(frozen=True)
class Contender:
    """One row of a benchmark's table. `work` is `module:class` below `engines`."""

    name: str
    work: str
    options: Mapping[str, Any] = field(default_factory=dict)
    # Too slow for every round: measured in the first one only.
    once: bool = False
    # A known defect of a peer that ends its process: reported, and no failure of the benchmark.
    known_crash: str | None = None
    # Contenders that name the same preparation share it; by default each has its own.
    prepared: str | None = None

    @property
    def folder(self) -> str:
        """Where it works, below the folder of the benchmark."""
        return self.prepared or self.name

    def load(self) -> type[Work]:
        """Import the class that does the work."""
        module, name = self.work.split(":")
        found: type[Work] = getattr(import_module(f"dwh_tests.benchmarks.engines.{module}"), name)
        return found


@dataclass(frozen=True)
class Measured:
    """The medians of one contender."""

    seconds: float
    # Of the contender's processes, not of a server beside it: steadier than seconds where others are at work.
    cpu_seconds: float
    peak_mib: float | None
    stored_mib: float | None = None
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Bar:
    """Something to reach: `value` tells how far ours got, in a number that has to be on the right side."""

    text: str
    limit: float
    value: Callable[[Mapping[str, Measured]], float | None]
    at_least: bool = True

    def reached(self, value: float) -> bool:
        """Whether a value is good enough."""
        return value >= self.limit if self.at_least else value <= self.limit


def times_faster(peer: str, factor: float, ours: str = "dwh_assets") -> Bar:
    """Ours takes at most 1/`factor` of the peer's time."""

    def value(by_name: Mapping[str, Measured]) -> float | None:
        if ours not in by_name or peer not in by_name:
            return None
        return by_name[peer].seconds / by_name[ours].seconds

    return Bar(f"time of {peer} / {ours} >= {factor:g}", factor, value)


def rows_per_second(rows: int, rate: float, ours: str = "dwh_assets") -> Bar:
    """Ours does so many rows a second."""

    def value(by_name: Mapping[str, Measured]) -> float | None:
        return rows / by_name[ours].seconds if ours in by_name else None

    return Bar(f"{ours}: rows/s >= {rate:,.0f}", rate, value)


def seconds_at_most(seconds: float, ours: str = "dwh_assets") -> Bar:
    """One contender takes at most so long, whatever the machine."""

    def value(by_name: Mapping[str, Measured]) -> float | None:
        return by_name[ours].seconds if ours in by_name else None

    return Bar(f"{ours}: seconds <= {seconds:g}", seconds, value, at_least=False)


def at_most_times(slow: str, fast: str, factor: float) -> Bar:
    """One contender takes at most `factor` times as long as another."""

    def value(by_name: Mapping[str, Measured]) -> float | None:
        if slow not in by_name or fast not in by_name:
            return None
        return by_name[slow].seconds / by_name[fast].seconds

    return Bar(f"time of {slow} / {fast} <= {factor:g}", factor, value, at_least=False)


def peak_below(mib: float, ours: str = "dwh_assets") -> Bar:
    """The peak memory above that of a process which only imports the same modules."""

    def value(by_name: Mapping[str, Measured]) -> float | None:
        return by_name[ours].peak_mib if ours in by_name else None

    return Bar(f"{ours}: peak MiB <= {mib:g}", mib, value, at_least=False)


def figure_at_most(name: str, limit: float, ours: str = "dwh_assets") -> Bar:
    """A figure of one contender."""

    def value(by_name: Mapping[str, Measured]) -> float | None:
        return by_name[ours].figures.get(name) if ours in by_name else None

    return Bar(f"{ours}: {name} <= {limit:g}", limit, value, at_least=False)


def stored_at_most_times(large: str, small: str, factor: float) -> Bar:
    """One contender leaves at most `factor` times as many bytes behind as another."""

    def value(by_name: Mapping[str, Measured]) -> float | None:
        kept = [by_name[name].stored_mib if name in by_name else None for name in (large, small)]
        return kept[0] / kept[1] if kept[0] and kept[1] else None

    return Bar(f"bytes of {large} / {small} <= {factor:g}", factor, value, at_least=False)


@dataclass(frozen=True)
class Benchmark:
    """One row of the issue's table."""

    name: str
    title: str
    contenders: tuple[Contender, ...]
    bars: tuple[Bar, ...]
    task: Callable[[Size], Task | None]
