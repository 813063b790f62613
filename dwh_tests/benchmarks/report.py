"""What is shown and kept: a table for people, JSON for comparisons, the machine and the versions in both."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import psutil

from dwh_tests.benchmarks.harness import Outcome, Row

_PACKAGES = (
    "dwh_assets",
    "deltalake",
    "duckdb",
    "duckdb-extension-iceberg",
    "numpy",
    "polars",
    "pyarrow",
    "pyiceberg",
    "pyspark",
    "tpchgen-cli",
)


def machine() -> dict[str, Any]:
    """What the numbers depend on beside the code."""
    return {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "system": platform.platform(),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "load": [round(part, 1) for part in os.getloadavg()],
        "versions": {name: _version(name) for name in _PACKAGES},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def table(outcome: Outcome) -> str:
    """One benchmark as text: a line for each contender, then the bars."""
    benchmark, by_name = outcome.benchmark, outcome.by_name
    ours = next(iter(benchmark.contenders)).name
    lines = [f"{benchmark.name}: {benchmark.title} ({outcome.size})"]
    lines += [
        _HEADER,
        *(_line(row, by_name[ours].seconds if ours in by_name else None) for row in outcome.rows),
    ]
    lines += [f"  {text}" for text in _bars(outcome)]
    return "\n".join(lines)


_HEADER = (
    f"  {'':<26}{'median s':>10}{'min s':>9}{'max s':>9}{'runs':>6}{'cpu s':>9}{'ratio':>8}{'peak MiB':>10}"
    f"{'stored':>10}"
)


def _line(row: Row, ours: float | None) -> str:
    measured = row.measured
    if measured is None:
        return f"  {row.contender.name:<26}{row.status}: {row.reason}"
    ratio = f"{measured.seconds / ours:.2f}" if ours else ""
    peak = f"{measured.peak_mib:,.0f}" if measured.peak_mib is not None else ""
    low, high = min(row.seconds), max(row.seconds)
    times = (
        f"{measured.seconds:>10.3f}{low:>9.3f}{high:>9.3f}{len(row.seconds):>6}{measured.cpu_seconds:>9.2f}"
    )
    stored = f"{measured.stored_mib:,.1f}" if measured.stored_mib is not None else ""
    return f"  {row.contender.name:<26}{times}{ratio:>8}{peak:>10}{stored:>10}".rstrip()


def _bars(outcome: Outcome) -> list[str]:
    if outcome.size == "toy":
        return ["(toy size: results compared, nothing to reach)"]
    said = []
    for bar in outcome.benchmark.bars:
        value = bar.value(outcome.by_name)
        verdict = "not measured" if value is None else "reached" if bar.reached(value) else "MISSED"
        said.append(f"{bar.text}: {verdict}" + (f" ({value:,.2f})" if value is not None else ""))
    return said


def as_json(outcomes: list[Outcome], facts: dict[str, Any]) -> dict[str, Any]:
    """Everything that was seen."""
    return {"machine": facts, "benchmarks": [_benchmark(outcome) for outcome in outcomes]}


def _benchmark(outcome: Outcome) -> dict[str, Any]:
    bars = [(bar, bar.value(outcome.by_name)) for bar in outcome.benchmark.bars]
    return {
        "name": outcome.benchmark.name,
        "title": outcome.benchmark.title,
        "size": outcome.size,
        "contenders": [_contender(row) for row in outcome.rows],
        "bars": [
            {
                "text": bar.text,
                "value": value,
                "reached": None if value is None or outcome.size == "toy" else bar.reached(value),
            }
            for bar, value in bars
        ],
    }


def _contender(row: Row) -> dict[str, Any]:
    measured = row.measured
    return {
        "name": row.contender.name,
        "status": row.status,
        "reason": row.reason or None,
        "seconds": row.seconds,
        "cpu_seconds": row.cpu_seconds,
        "median_seconds": measured.seconds if measured else None,
        "peak_mib_above_empty": measured.peak_mib if measured else None,
        "stored_mib": measured.stored_mib if measured else None,
        "facts": row.facts,
    }
