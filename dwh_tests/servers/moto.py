"""AWS on this machine: S3 and Glue, both by one moto server."""

import sys
from pathlib import Path
from typing import Any

from dwh_tests.servers.availability import package
from dwh_tests.servers.object_store import ObjectStore
from dwh_tests.servers.process import http_status

_REGION = "us-east-1"
# By its path and with -P, since moto is not to be looked for in this folder, where it would be this module.
_PROCESS = Path(__file__).with_name("moto_process.py")


class MotoServer(ObjectStore):
    """S3 and Glue. Everything is kept in memory, and nothing is asked for a permission.

    S3 honours `If-None-Match: *` on PutObject and on the completion of a multipart upload, and `If-Match` on
    PutObject: of any number of racing writers one wins. CopyObject ignores both, and the completion
    `If-Match`, unlike the real ones: commits must not be tested with them. Glue refuses to update another
    version of a table than the expected one.
    """

    name = "moto"
    needs = (package("moto", "moto[server]"), package("flask", "moto[server]"), package("boto3", "boto3"))
    access_key = "test"
    secret_key = "test"

    @property
    def endpoint(self) -> str:
        """The address of every service."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def root(self) -> str:
        """The address of the bucket."""
        return f"s3://{self.bucket}"

    @property
    def storage_properties(self) -> dict[str, str]:
        """What a FileIO needs to reach S3."""
        return {f"s3.{key}": value for key, value in self._access().items()}

    @property
    def catalog_properties(self) -> dict[str, str]:
        """A Glue catalog with its tables on S3."""
        glue = {f"glue.{key}": value for key, value in self._access().items()}
        return {"type": "glue", "warehouse": f"{self.root}/glue", **glue, **self.storage_properties}

    def client(self, service: str) -> Any:
        """A boto3 client of one service, such as `s3` or `glue`."""
        import boto3

        return boto3.client(
            service,
            endpoint_url=self.endpoint,
            region_name=_REGION,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
        )

    def command(self) -> list[str]:
        """A script of ours that mends moto's server, then runs it."""
        return [sys.executable, "-P", str(_PROCESS), "-H", "127.0.0.1", "-p", str(self.port)]

    def is_ready(self) -> bool:
        """Ask moto's own service, so that no AWS service is made up for the request."""
        return http_status("GET", self.port, "/moto-api/data.json") == 200

    def fill(self) -> None:
        """Make the bucket."""
        self.client("s3").create_bucket(Bucket=self.bucket)

    def _access(self) -> dict[str, str]:
        return {
            "endpoint": self.endpoint,
            "region": _REGION,
            "access-key-id": self.access_key,
            "secret-access-key": self.secret_key,
        }
