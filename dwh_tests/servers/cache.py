"""Folders outside the repository that are filled once and then shared by every test process."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def cache_root() -> Path:
    """Where downloads are kept: `DWH_TEST_CACHE`, else `~/.cache/dwh-tests`."""
    return Path(os.environ.get("DWH_TEST_CACHE") or "~/.cache/dwh-tests").expanduser().resolve()


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Let one process at a time do `name`; the others wait. A process that dies gives its lock back."""
    cache_root().mkdir(parents=True, exist_ok=True)
    with (cache_root() / f".{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def fill_once(folder: Path, lock: str, fill: Callable[[Path], None]) -> bool:
    """Let `fill` make the content of `folder`, unless it is there already. True when it was made just now.

    The content is made beside the folder and renamed, so that a folder which exists is complete.
    """
    if folder.is_dir():
        return False
    with locked(lock):
        if folder.is_dir():
            return False
        folder.parent.mkdir(parents=True, exist_ok=True)
        for leftover in folder.parent.glob(".partial-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        scratch = Path(tempfile.mkdtemp(prefix=".partial-", dir=folder.parent))
        try:
            fill(scratch)
            scratch.rename(folder)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return True
