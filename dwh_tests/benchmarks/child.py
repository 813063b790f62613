"""A fresh process that does a few stages of one contender's work and writes down what it saw.

The command line names the file for the answers and holds a JSON list of requests, one where anything is to be
measured. With `modules` the process only imports them, and tells its peak memory: the empty process that
others are compared with.
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import psutil

from dwh_tests.benchmarks.model import Job, Unavailable, Work
from dwh_tests.benchmarks.registry import BENCHMARKS


def main(request: dict[str, Any]) -> dict[str, Any]:
    """Answer one request."""
    if "modules" in request:
        for module in request["modules"]:
            # Some modules can only be imported by the package that they belong to.
            with suppress(Exception):
                import_module(module)
        return {"peak_bytes": peak_bytes()}
    work = _work(request)
    answer: dict[str, Any] = {}
    stages = request["stages"]
    if "prepare" in stages:
        work.prepare()
    if "run" in stages:
        work.open()
        cpu_before, started = cpu_seconds(), time.perf_counter()
        with _profiled(request.get("profile")):
            work.run()
        answer["seconds"] = time.perf_counter() - started
        answer["cpu_seconds"] = cpu_seconds() - cpu_before
        answer["peak_bytes"] = peak_bytes()
        answer["modules"] = list(sys.modules)
        answer["stored_bytes"] = work.stored_bytes()
        if "facts" in stages:
            answer["facts"], answer["expected"] = work.facts(), work.expected()
            answer["figures"] = work.figures()
        work.close()
    return answer


def _work(request: dict[str, Any]) -> Work:
    benchmark = BENCHMARKS[request["benchmark"]]
    contender = next(c for c in benchmark.contenders if c.name == request["contender"])
    warehouse = request.get("rest_warehouse")
    job = Job(
        task=benchmark.task(request["size"]),
        size=request["size"],
        folder=Path(request["folder"]),
        inputs=Path(request["inputs"]),
        options=contender.options,
        rest_uri=request.get("rest_uri"),
        rest_warehouse=Path(warehouse) if warehouse else None,
    )
    return contender.load()(job)


class _profiled:  # noqa: N801 - reads as a verb
    """Profile the block into a file, if one is named. From Python 3.12 on, other threads are mixed in."""

    def __init__(self, path: str | None) -> None:
        self._path = path

    def __enter__(self) -> None:
        if self._path:
            import cProfile

            self._profile = cProfile.Profile()
            self._profile.enable()

    def __exit__(self, *_: object) -> None:
        if self._path:
            self._profile.disable()
            self._profile.dump_stats(self._path)


def peak_bytes() -> int | None:
    """The peak resident memory of this process and of those that it started; None where no one tells."""
    peaks = [_high_water_mark(process.pid) for process in _family()]
    return sum(peak for peak in peaks if peak) or None


def cpu_seconds() -> float:
    """The processor time of this process and of those that it started, such as Spark's Java machine."""
    times = [process.cpu_times() for process in _family()]
    return float(sum(one.user + one.system for one in times))


def _family() -> list[psutil.Process]:
    this = psutil.Process()
    return [this, *this.children(recursive=True)]


def _high_water_mark(pid: int) -> int | None:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return None


def answer_or_reason(request: dict[str, Any], *, alone: bool) -> dict[str, Any]:
    """Answer, or say why not; the error of a request that came alone ends the process."""
    try:
        return main(request)
    except Unavailable as reason:
        return {"unavailable": str(reason)}
    except Exception as error:
        if alone:
            raise
        return {"failed": f"{type(error).__name__}: {error}"}


if __name__ == "__main__":
    asked = json.loads(sys.argv[2])
    results = [answer_or_reason(request, alone=len(asked) == 1) for request in asked]
    Path(sys.argv[1]).write_text(json.dumps(results))
