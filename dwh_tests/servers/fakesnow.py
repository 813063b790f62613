"""Snowflake on this machine: its wire protocol over HTTP, for Snowflake's own connector.

`python -m dwh_tests.servers.fakesnow` runs it until Ctrl-C, and says how to reach it.
"""

import http.client
import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from dwh_tests.servers.availability import package
from dwh_tests.servers.process import ProcessServer
from dwh_tests.servers.python_environment import environment_python, python_environment

if TYPE_CHECKING:
    from snowflake.connector import SnowflakeConnection

_VERSION = "0.12.1"
_DUCKDB = "2.0.0"
_REQUIREMENTS = [
    f"fakesnow[server]=={_VERSION}",
    f"duckdb=={_DUCKDB}",
    # It reads private names that version 5 has not.
    "snowflake-connector-python<5",
]
_DOWNLOAD = python_environment("fakesnow", f"{_VERSION}-{_DUCKDB}", _REQUIREMENTS, (3, 11))


class FakeSnow(ProcessServer):
    """An account in memory, in which a database and a schema come into being when somebody connects to them.

    Everybody may do everything. What it cannot do, and what it does in another way than the service, is told
    in docs/snowflake.md. It knows no character case in names, and answers with an internal error (which the
    connector repeats until `network_timeout`) where the service has an error of its own.
    """

    name = "fakesnow"
    needs = (package("snowflake.connector", "snowflake-connector-python"),)
    download = _DOWNLOAD
    account = "fakesnow"
    user = "fake"
    password = "snow"

    @property
    def catalog_properties(self) -> dict[str, str]:
        """It keeps no Iceberg tables."""
        return {}

    @property
    def connection_options(self) -> dict[str, Any]:
        """What a connection needs beside account, user and password, as Dagster's resource takes it.

        The time-outs are short, since each internal error is repeated until then.
        """
        return {
            "host": "127.0.0.1",
            "port": self.port,
            "protocol": "http",
            "login_timeout": 30,
            "network_timeout": 30,
        }

    @contextmanager
    def connect(
        self, database: str, schema: str = "PUBLIC", **options: Any
    ) -> Iterator["SnowflakeConnection"]:
        """Snowflake's connector, connected to a database that is made if need be."""
        import snowflake.connector

        login = {"account": self.account, "user": self.user, "password": self.password}
        place = {"database": database, "schema": schema}
        with snowflake.connector.connect(**{**login, **place, **self.connection_options, **options}) as made:
            yield made

    def end_session(self, token: str) -> None:
        """End a session that its client left without a word, as the service does after a while."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        headers = {"Authorization": f'Snowflake Token="{token}"'}
        connection.request("POST", "/session?delete=true", headers=headers)
        connection.getresponse().read()
        connection.close()

    def command(self) -> list[str]:
        """The emulator, in its own environment."""
        listen = ["--host", "127.0.0.1", "-p", str(self.port)]
        return [str(environment_python(_DOWNLOAD.folder)), "-I", "-m", "fakesnow", "-s", *listen]

    def environment(self) -> dict[str, str]:
        """Its stages are folders for temporary files."""
        return {"TMPDIR": str(self.folder)}


def main() -> None:
    """Run the server until this process is told to end."""
    if reason := FakeSnow.why_not():
        raise SystemExit(f"{FakeSnow.name} cannot run here: {reason}")
    with FakeSnow() as server, suppress(KeyboardInterrupt):
        print(f"Snowflake's interface is at http://127.0.0.1:{server.port}.")
        print(f"account={server.account} user={server.user} password={server.password}")
        print(f"additional_snowflake_connection_args={json.dumps(server.connection_options)}", flush=True)
        signal.pause()


if __name__ == "__main__":
    main()
