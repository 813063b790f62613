"""That servers are fetched once, start, tell why they do not, and end, whatever becomes of the tests."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from dwh_tests.servers.availability import package, tool
from dwh_tests.servers.cache import fill_once
from dwh_tests.servers.ports import reserved_port
from dwh_tests.servers.process import ProcessServer, ServerFailed, wait_until


class WebServer(ProcessServer):
    """The smallest server there is."""

    name = "web"

    @property
    def catalog_properties(self) -> dict[str, str]:
        return {}

    def command(self) -> list[str]:
        return [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(self.port)]


class BrokenServer(WebServer):
    """Says something and ends."""

    def command(self) -> list[str]:
        return [sys.executable, "-c", "import sys; sys.exit('no such thing as a warehouse')"]


class SilentServer(WebServer):
    """Runs, ignores that it is to end, and never listens."""

    start_seconds = 1.0

    def command(self) -> list[str]:
        ignore = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)"
        code = f"{ignore}; print('hm', flush=True); time.sleep(99)"
        return [sys.executable, "-c", code]


def test_server_answers_in_its_block_and_is_gone_after_it() -> None:
    with WebServer() as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
        connection.request("GET", "/")
        assert connection.getresponse().status == 200
        connection.close()
    assert not _runs(server.pid)
    assert not server.folder.exists()


def test_server_is_ended_when_the_block_fails() -> None:
    with pytest.raises(KeyboardInterrupt), WebServer() as server:
        raise KeyboardInterrupt
    assert not _runs(server.pid)


def test_server_that_ends_at_once_shows_its_log() -> None:
    with pytest.raises(ServerFailed, match=r"web ended with code 1[\s\S]*no such thing as a warehouse"):
        BrokenServer().__enter__()


def test_server_that_never_answers_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dwh_tests.servers.process._STOP_SECONDS", 0.2)
    server = SilentServer()
    with pytest.raises(ServerFailed, match=r"web did not answer within 1 s[\s\S]*hm"):
        server.__enter__()
    assert not _runs(server.pid)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_server_does_not_outlive_a_killed_test_process(number: signal.Signals) -> None:
    # The signals do what they usually do, also where the tests were started to ignore them.
    code = (
        "import signal, time; from dwh_tests.servers.test_servers_lifecycle import WebServer\n"
        "signal.signal(signal.SIGTERM, signal.SIG_DFL)\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "with WebServer() as server: print(server.pid, server.folder, flush=True); time.sleep(60)"
    )
    root = Path(__file__).parents[2]
    with subprocess.Popen([sys.executable, "-c", code], cwd=root, stdout=subprocess.PIPE, text=True) as tests:
        assert tests.stdout is not None
        started = tests.stdout.readline().split()
        pid, folder = int(started[0]), Path(started[1])
        assert _runs(pid)
        tests.send_signal(number)
    assert wait_until(lambda: not _runs(pid) and not folder.exists(), seconds=10)


def test_reserved_ports_differ_and_are_free() -> None:
    with ExitStack() as stack:
        ports = [stack.enter_context(reserved_port()) for _ in range(50)]
        assert len(set(ports)) == 50
        for port in ports:
            listener = stack.enter_context(socket.socket())
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", port))
            listener.listen()


def test_folder_is_filled_once_by_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DWH_TEST_CACHE", str(tmp_path))
    barrier, calls = threading.Barrier(8), []

    def fill(folder: Path) -> None:
        calls.append(folder)
        (folder / "content").write_text("complete")

    def ask(_: int) -> bool:
        barrier.wait(timeout=30)
        return fill_once(tmp_path / "thing" / "1.0", "client", fill)

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(ask, range(8))) == [False] * 7 + [True]
    assert len(calls) == 1
    assert [path.name for path in (tmp_path / "thing").iterdir()] == ["1.0"]
    assert (tmp_path / "thing" / "1.0" / "content").read_text() == "complete"


def test_failed_fill_leaves_nothing_and_may_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DWH_TEST_CACHE", str(tmp_path))

    def fail(folder: Path) -> None:
        (folder / "half").touch()
        raise ConnectionError

    with pytest.raises(ConnectionError):
        fill_once(tmp_path / "thing" / "1.0", "client", fail)
    assert list((tmp_path / "thing").iterdir()) == []
    assert fill_once(tmp_path / "thing" / "1.0", "client", lambda folder: None)


def test_needs_name_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert package("json", "json")() is None
    assert (
        package("no_such_package", "no-such-package")()
        == "the Python package no-such-package is not installed"
    )

    old = tmp_path / "node"
    old.write_text("#!/bin/sh\necho v16.1.0\n")
    old.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert tool("node", 16)() is None
    assert tool("node", 20)() == f"node 20 or newer is needed, and {old} is version 16"
    assert tool("no-such-tool")() == "no-such-tool is not installed, or not on the PATH"


def _runs(pid: int) -> bool:
    """Whether the process is there and not merely unburied."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
