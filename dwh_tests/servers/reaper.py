"""Ends the servers of a test process that died without ending them: killed, crashed, or out of memory.

The test process holds the only writing end of a pipe and names on it the servers it starts and stops. When it
dies, however that happens, the pipe closes, and this process ends the servers that are left. (Linux alone
could tie a child to its parent's life, and there to the life of one thread.)
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

_GRACE_SECONDS = 5.0


class Reaper:
    """The test process's side: one reaper serves all its servers."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0

    def watch(self, pid: int, folder: Path) -> None:
        """End process `pid` and remove its folder, should this process die before `forget`."""
        if self._process is None or self._owner != os.getpid():
            self._process, self._owner = _start(), os.getpid()
        self._say(f"+{pid} {folder}\n")

    def forget(self, pid: int) -> None:
        """Process `pid` has ended; its number may soon be another's."""
        self._say(f"-{pid}\n")

    def _say(self, line: str) -> None:
        # A reaper that is gone is no reason to fail a test: it is a second line of defence.
        if self._process is not None and self._process.stdin is not None:
            with suppress(BrokenPipeError):
                self._process.stdin.write(line.encode())
                self._process.stdin.flush()


def _start() -> "subprocess.Popen[bytes]":
    # Isolated and without site-packages, so that it starts at once; in a session of its own, so that Ctrl-C
    # in the terminal ends the tests and not their reaper.
    return subprocess.Popen(
        [sys.executable, "-I", "-S", __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _serve(orders: IO[str]) -> None:
    watched: dict[int, str] = {}
    for order in orders:
        pid, _, folder = order[1:].rstrip("\n").partition(" ")
        if order[0] == "+":
            watched[int(pid)] = folder
        else:
            watched.pop(int(pid), None)
    _end(set(watched))
    for folder in watched.values():
        shutil.rmtree(folder, ignore_errors=True)


def _end(pids: set[int]) -> None:
    for pid in pids:
        _send(pid, signal.SIGTERM)
    deadline = time.monotonic() + _GRACE_SECONDS
    while pids and time.monotonic() < deadline:
        time.sleep(0.05)
        pids = {pid for pid in pids if _send(pid, 0)}
    for pid in pids:
        _send(pid, signal.SIGKILL)


def _send(pid: int, number: int) -> bool:
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        # It has ended; if it may not be asked, its number is another's by now.
        return False
    return True


REAPER = Reaper()

if __name__ == "__main__":
    _serve(sys.stdin)
