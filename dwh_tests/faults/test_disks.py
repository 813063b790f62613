"""A full disk, files that may not grow, a location that may not be written: told, and nothing changes.

The writes run in a process of its own; disks are small ones in memory, mounted in the process's namespace.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from dwh_tests.faults.test_bad_input import MODES

ROOT = Path(__file__).parents[2]
FIRST = [1, 2, 3]


def confined(scenario: str, folder: Path, *, disk: str = "") -> dict[str, list[dict[str, Any]]]:
    """Run a scenario with every mode; `disk` is the size of a disk of its own, where it needs one."""
    command = [sys.executable, "-m", "dwh_tests.faults.confined", scenario, str(folder)]
    if disk:
        # Mounts of the namespace go with its last process.
        on_disk = f'mount -t tmpfs -o size={disk} tmpfs "$1" && shift && exec "$@"'
        command = ["unshare", "-rm", "sh", "-c", on_disk, "sh", str(folder), *command]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, list[dict[str, Any]]] = json.loads(done.stdout.splitlines()[-1])
    assert found.keys() == MODES.keys()
    return found


@cache
def _no_mounts() -> str | None:
    """Why this machine cannot mount a small disk, or None."""
    if not shutil.which("unshare"):
        return "there is no unshare (Linux only)"
    command = ["unshare", "-rm", "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", "/mnt"]
    tried = subprocess.run(command, capture_output=True, text=True, check=False)
    return tried.stderr.strip() or f"code {tried.returncode}" if tried.returncode else None


@pytest.fixture
def disk_folder(tmp_path: Path) -> Path:
    """Where a small disk may be mounted."""
    reason = _no_mounts()
    if reason:
        pytest.skip(f"nobody but root may mount a small disk here: {reason}")
    return tmp_path


def require_refusals(mode: str, found: list[dict[str, Any]], error: str, says: str) -> None:
    for refused in found:
        assert refused.get("error") == error, (mode, refused)
        assert "shop.orders" in refused["message"]
        assert says in refused["message"]
        assert refused["remedy"]
        assert refused["unchanged"], (mode, refused)
        assert refused["after"][-1] == FIRST


def after(mode: str, new: list[int]) -> dict[str, list[int]]:
    """What the process tells of the keys when the write has landed."""
    return {"ids": sorted({"append": [*FIRST, *new], "overwrite": new}.get(mode, {*FIRST, *new}))}


def test_a_full_disk_is_told_at_whatever_page_it_is_full(disk_folder: Path) -> None:
    for mode, (*refused, landed) in confined("full_disk", disk_folder, disk="8m").items():
        assert len(refused) > 3
        require_refusals(mode, refused, "UnavailableError", "no room left")
        assert landed == after(mode, [1, 7])


def test_a_file_that_may_not_grow_is_told(tmp_path: Path) -> None:
    for mode, (refused, landed) in confined("limited_files", tmp_path).items():
        require_refusals(mode, [refused], "UnavailableError", "no room left")
        assert landed == after(mode, [1, *range(7, 60)])


def test_a_read_only_location_is_told(disk_folder: Path) -> None:
    for mode, (refused, landed) in confined("read_only", disk_folder, disk="8m").items():
        require_refusals(mode, [refused], "ConfigurationError", "may not be written")
        assert landed == after(mode, [1, 7])
