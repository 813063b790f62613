"""What all servers share: a folder of their own, a process that is waited for and surely ended."""

import http.client
import os
import signal
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from dwh_tests.servers.availability import Need, first_unmet
from dwh_tests.servers.downloads import Download
from dwh_tests.servers.ports import reserved_port
from dwh_tests.servers.reaper import REAPER

_STOP_SECONDS = 10.0
_LOG_LINES = 30


class ServerFailed(Exception):
    """A server did not start; the message holds the end of its log."""


class Server(ABC):
    """A server that runs while its `with` block does, with an empty folder of its own."""

    name: ClassVar[str]
    needs: ClassVar[tuple[Need, ...]] = ()
    download: ClassVar[Download | None] = None

    @classmethod
    def why_not(cls) -> str | None:
        """Why this machine cannot run the server, or None."""
        return first_unmet(cls.needs) or (cls.download.why_not() if cls.download else None)

    @property
    @abstractmethod
    def catalog_properties(self) -> dict[str, str]:
        """What `pyiceberg.catalog.load_catalog` needs to reach the server; the caller may change it."""

    @abstractmethod
    def _start(self, cleanup: ExitStack) -> None:
        """Start the server and return when it answers. `cleanup` takes what ends it."""

    def __enter__(self) -> Self:
        if self.download is not None:
            self.download.fetch()
        with ExitStack() as cleanup:
            # Short, since the path of a Unix socket has room for about a hundred characters.
            folder = tempfile.TemporaryDirectory(prefix="dwh-", ignore_cleanup_errors=True)
            self.folder = Path(cleanup.enter_context(folder)).resolve()
            self._start(cleanup)
            self._cleanup = cleanup.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cleanup.close()


class ProcessServer(Server):
    """A server that is one process and listens on one port of the loopback interface."""

    start_seconds: ClassVar[float] = 90.0
    port: int
    pid: int

    @abstractmethod
    def command(self) -> Sequence[str]:
        """What to run; `self.port` and `self.folder` are known."""

    def environment(self) -> Mapping[str, str]:
        """Variables that the process gets beside those of this one."""
        return {}

    def is_ready(self) -> bool:
        """Whether the server answers: here, to HTTP and with whatever status."""
        return http_status("GET", self.port, "/") is not None

    def fill(self) -> None:
        """Make what tests expect to find, such as a bucket, once the server answers."""

    @property
    def log(self) -> Path:
        """Where the process writes what it says."""
        return self.folder / "server.log"

    def crash(self) -> None:
        """End the process at once; its folder and its port stay for `start_again`."""
        self._process.kill()
        self._process.wait()
        REAPER.forget(self.pid)

    def start_again(self) -> None:
        """Run the server on what it left behind, and return when it answers."""
        self._launch()
        self._wait()

    def _start(self, cleanup: ExitStack) -> None:
        self.port = cleanup.enter_context(reserved_port())
        self._launch()
        cleanup.callback(self._stop)
        self._wait()
        self.fill()

    def _launch(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command(),
                cwd=self.folder,
                env={**os.environ, **self.environment()},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C in the terminal is for the tests, which then stop the server themselves.
                start_new_session=True,
            )
        self.pid = self._process.pid
        REAPER.watch(self.pid, self.folder)

    def _wait(self) -> None:
        process = self._process

        def ready_or_ended() -> bool:
            return process.poll() is not None or self.is_ready()

        in_time = wait_until(ready_or_ended, self.start_seconds)
        if process.poll() is not None:
            raise ServerFailed(f"{self.name} ended with code {process.returncode}.{self._said()}")
        if not in_time:
            raise ServerFailed(f"{self.name} did not answer within {self.start_seconds:.0f} s.{self._said()}")

    def _stop(self) -> None:
        # Where this process was started to ignore the polite signal (`trap '' TERM`), so was its child.
        deaf = signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
        self._process.kill() if deaf else self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        REAPER.forget(self.pid)

    def _said(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()[-_LOG_LINES:]
        return " The end of its log:\n" + "\n".join(lines) if lines else " It logged nothing."


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Ask until the answer is yes, for `seconds` at most. Whether it was."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def http_status(method: str, port: int, path: str, body: str | None = None) -> int | None:
    """The status with which a local server answers, or None. No proxy of the environment is asked."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
