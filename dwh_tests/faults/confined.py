"""Writes in too small or too closed a place: `python -m dwh_tests.faults.confined <scenario> <folder>`.

A process of its own, since it takes away from itself what it may do. It tries every write mode and prints one
JSON line of what happened; the tests that start it say what should have.
"""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from dwh_assets.errors import DwhError
from dwh_tests.faults.test_bad_input import MODES
from dwh_tests.iceberg.conftest import Lake

PAGE = 4096


def rows(*ids: int, width: int = 10) -> pa.Table:
    """Rows whose texts do not compress."""
    noise = np.random.default_rng(sum(ids)).integers(0, 256, (len(ids), width), np.uint8)
    return pa.table({"id": pa.array(ids, pa.int64()), "text": [bytes(row).hex() for row in noise]})


def state(lake: Lake) -> list[Any]:
    """What must stay as it is: where the table stands, its files and their sizes, its rows."""
    files = sorted((path, Path(path).stat().st_size) for path in lake.on_disk())
    return [lake.table.metadata_location, files, sorted(lake.column("id"))]


def attempt(lake: Lake, mode: str, data: pa.Table) -> dict[str, Any]:
    """Write, and tell what came of it."""
    before = state(lake)
    try:
        lake.writer(**MODES[mode]).write(data)
    except DwhError as error:
        after = state(lake)
        told = {"error": type(error).__name__, "message": error.message, "remedy": error.remedy}
        return {**told, "unchanged": after == before, "before": before, "after": after}
    return {"ids": sorted(lake.column("id"))}


def full_disk(folder: Path, mode: str) -> list[dict[str, Any]]:
    """Write with nothing left on the disk, then with a page more each time, until it lands."""
    lake = Lake(folder)
    lake.write(rows(1, 2, 3))
    ballast = folder / "ballast"
    found: list[dict[str, Any]] = []
    for pages in range(400):
        fill(ballast)
        with ballast.open("r+b") as file:
            file.truncate(max(ballast.stat().st_size - pages * PAGE, 0))
        found.append(attempt(lake, mode, rows(1, 7)))
        if "ids" in found[-1]:
            break
    return found


def fill(ballast: Path) -> None:
    """Let a file take all that is left."""
    with ballast.open("ab", buffering=0) as file:
        try:
            while file.write(b"x" * PAGE):
                pass
        except OSError:
            return


def limited_files(folder: Path, mode: str) -> list[dict[str, Any]]:
    """Write with a limit on the size of files that the data exceed, then without it."""
    lake = Lake(folder)
    lake.write(rows(1, 2, 3))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    data = rows(1, *range(7, 60), width=40_000)
    refused = attempt(lake, mode, data)
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    return [refused, attempt(lake, mode, data)]


def read_only(folder: Path, mode: str) -> list[dict[str, Any]]:
    """Write to a warehouse that is mounted read-only, then when it no longer is. The catalog is elsewhere."""
    lake = Lake(folder)
    (folder / "lake").mkdir()
    mount("-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder / "lake"))
    lake.write(rows(1, 2, 3))
    mount("-o", "remount,ro", str(folder / "lake"))
    refused = attempt(lake, mode, rows(1, 7))
    mount("-o", "remount,rw", str(folder / "lake"))
    return [refused, attempt(lake, mode, rows(1, 7))]


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


SCENARIOS = {"full_disk": full_disk, "limited_files": limited_files, "read_only": read_only}


def main(scenario: str, folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Go through a scenario with every write mode, each in a folder of its own that is then removed."""
    found = {}
    for mode in MODES:
        own = folder / mode.replace(" ", "-")
        own.mkdir()
        found[mode] = SCENARIOS[scenario](own, mode)
        # A disk that is mounted there stays, empty.
        shutil.rmtree(own, ignore_errors=True)
    return found


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], Path(sys.argv[2]))))
