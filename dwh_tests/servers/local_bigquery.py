"""BigQuery on this machine: its REST interface, and those of storage reads and writes over gRPC.

`python -m dwh_tests.servers.local_bigquery` runs it until Ctrl-C, and says how to reach it.
"""

import base64
import json
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dwh_tests.servers.availability import package
from dwh_tests.servers.ports import reserved_port
from dwh_tests.servers.process import ProcessServer, http_status
from dwh_tests.servers.python_environment import environment_python, python_environment

if TYPE_CHECKING:
    from google.cloud import bigquery
    from google.cloud.bigquery_storage_v1 import BigQueryReadClient, BigQueryWriteClient

# In the environment of the emulator, not in ours
_PROCESS = Path(__file__).with_name("local_bigquery_process.py")
_VERSION = "0.3.2"
_DUCKDB = "1.5.5"
# All three extensions: without `spatial`, the first request is refused.
_REQUIREMENTS = [
    f"local-bigquery=={_VERSION}",
    f"duckdb=={_DUCKDB}",
    *(f"duckdb-extension-{name}=={_DUCKDB}" for name in ("icu", "ducklake", "spatial")),
]
_DOWNLOAD = python_environment("local-bigquery", f"{_VERSION}-{_DUCKDB}", _REQUIREMENTS, (3, 13))


class LocalBigQuery(ProcessServer):
    """One project without datasets, in a folder. Nobody is asked who they are."""

    name = "local-bigquery"
    needs = (package("google.cloud.bigquery", "google-cloud-bigquery"),)
    download = _DOWNLOAD
    project = "dwh-tests"
    grpc_port: int

    @property
    def catalog_properties(self) -> dict[str, str]:
        """It keeps no Iceberg tables."""
        return {}

    @property
    def endpoint(self) -> str:
        """The address of the REST interface."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def service_account(self) -> dict[str, str]:
        """The key of an account made up for this process; its tokens come from the server."""
        return {
            "type": "service_account",
            "project_id": self.project,
            "private_key_id": "made-up",
            "private_key": _private_key(),
            "client_email": f"tests@{self.project}.iam.gserviceaccount.com",
            "token_uri": f"{self.endpoint}/token",
        }

    @property
    def client_environment(self) -> dict[str, str]:
        """The variable by which any client of Google's goes here instead."""
        return {"BIGQUERY_EMULATOR_HOST": self.endpoint}

    @property
    def gcp_credentials(self) -> str:
        """The same key, as Dagster's `BigQueryResource(gcp_credentials=…)` takes it."""
        return base64.b64encode(json.dumps(self.service_account).encode()).decode()

    @contextmanager
    def client(self) -> Iterator["bigquery.Client"]:
        """Google's client, by REST."""
        from google.auth.credentials import AnonymousCredentials
        from google.cloud import bigquery

        options = {"api_endpoint": self.endpoint}
        credentials: Any = AnonymousCredentials()
        with bigquery.Client(self.project, credentials, client_options=options) as client:
            yield client

    @contextmanager
    def write_client(self) -> Iterator["BigQueryWriteClient"]:
        """Google's client of the Storage Write API, by gRPC."""
        import grpc
        from google.cloud.bigquery_storage_v1 import BigQueryWriteClient
        from google.cloud.bigquery_storage_v1.services.big_query_write.transports import (
            BigQueryWriteGrpcTransport,
        )

        with grpc.insecure_channel(f"127.0.0.1:{self.grpc_port}") as channel:
            yield BigQueryWriteClient(transport=BigQueryWriteGrpcTransport(channel=channel))

    @contextmanager
    def read_client(self) -> Iterator["BigQueryReadClient"]:
        """Google's client of the Storage Read API, by gRPC."""
        import grpc
        from google.cloud.bigquery_storage import BigQueryReadClient
        from google.cloud.bigquery_storage_v1.services.big_query_read.transports import (
            BigQueryReadGrpcTransport,
        )

        # As Google's own channels are: blocks of rows are larger than gRPC allows otherwise.
        unlimited = [("grpc.max_receive_message_length", -1)]
        with grpc.insecure_channel(f"127.0.0.1:{self.grpc_port}", options=unlimited) as channel:
            yield BigQueryReadClient(transport=BigQueryReadGrpcTransport(channel=channel))

    def command(self) -> list[str]:
        """The emulator behind a script of ours, which hands out tokens too."""
        ports = ["--host", "127.0.0.1", "--port", str(self.port), "--grpc-port", str(self.grpc_port)]
        places = ["--project", self.project, "--data-dir", str(self.folder / "data")]
        return [str(environment_python(_DOWNLOAD.folder)), "-I", str(_PROCESS), *ports, *places]

    def environment(self) -> dict[str, str]:
        """A home of its own, in which DuckDB finds its extensions."""
        return {"HOME": str(_DOWNLOAD.folder / "home")}

    def is_ready(self) -> bool:
        """Whether the project can be listed: that opens the database."""
        return http_status("GET", self.port, f"/bigquery/v2/projects/{self.project}/datasets") == 200

    def _start(self, cleanup: ExitStack) -> None:
        self.grpc_port = cleanup.enter_context(reserved_port())
        super()._start(cleanup)


@cache
def _private_key() -> str:
    """A key that nothing but its own signature is checked with."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65_537, key_size=2048)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def main() -> None:
    """Run the server until this process is told to end."""
    if reason := LocalBigQuery.why_not():
        raise SystemExit(f"{LocalBigQuery.name} cannot run here: {reason}")
    with LocalBigQuery() as server, suppress(KeyboardInterrupt):
        print(f"BigQuery's interface is at {server.endpoint}, project {server.project}.")
        for name, value in server.client_environment.items():
            print(f"export {name}={value}", flush=True)
        signal.pause()


if __name__ == "__main__":
    main()
