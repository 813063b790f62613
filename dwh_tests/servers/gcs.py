"""Google Cloud Storage on this machine."""

import json
import os
import time

from dwh_tests.servers.availability import package
from dwh_tests.servers.downloads import go_program
from dwh_tests.servers.object_store import ObjectStore
from dwh_tests.servers.process import ServerFailed, http_status

# With it, gcsfs asks for the kind of every bucket over gRPC with TLS, and hangs where only HTTP is spoken.
# gcsfs reads it at its own import, so it is set here, before any server is started; child processes inherit
# it.
os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")

_DOWNLOAD = go_program("github.com/fsouza/fake-gcs-server", "v1.56.1")
_DAY_MS = 24 * 60 * 60 * 1000


class FakeGcsServer(ObjectStore):
    """The JSON API of Google Cloud Storage with one bucket, kept in memory."""

    name = "fake-gcs-server"
    needs = (package("gcsfs", "pyiceberg[gcsfs]"),)
    download = _DOWNLOAD
    project = "test"

    @property
    def endpoint(self) -> str:
        """The address of the service."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def storage_properties(self) -> dict[str, str]:
        """What a FileIO needs: fsspec's takes the token `anon`, PyArrow's any that has not expired."""
        return {
            "gcs.service.host": self.endpoint,
            "gcs.project-id": self.project,
            "gcs.oauth2.token": "anon",
            # Without it PyArrow asks the metadata service of Google's machines for a token, and waits.
            "gcs.oauth2.token-expires-at": str(int(time.time() * 1000) + _DAY_MS),
        }

    @property
    def root(self) -> str:
        """The address of the bucket."""
        return f"gs://{self.bucket}"

    def command(self) -> list[str]:
        """The server with both its names for itself set, since its answers hold them as the next address."""
        host = f"127.0.0.1:{self.port}"
        listen = ["-scheme", "http", "-host", "127.0.0.1", "-port", str(self.port)]
        names = ["-public-host", host, "-external-url", self.endpoint]
        return [str(_DOWNLOAD.folder / "fake-gcs-server"), *listen, *names, "-backend", "memory"]

    def fill(self) -> None:
        """Make the bucket."""
        path, body = f"/storage/v1/b?project={self.project}", json.dumps({"name": self.bucket})
        if (status := http_status("POST", self.port, path, body)) != 200:
            raise ServerFailed(f"{self.name} made no bucket: it answered {status}.")
