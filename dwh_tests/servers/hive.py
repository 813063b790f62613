"""A standalone Hive metastore, kept in memory."""

import os
import socket

from dwh_tests.servers.availability import java, package
from dwh_tests.servers.downloads import java_server
from dwh_tests.servers.java import java_command
from dwh_tests.servers.process import ProcessServer

_DOWNLOAD = java_server("hive-metastore")


class HiveMetastore(ProcessServer):
    """Hive's metastore without Hive or Hadoop, with its tables on local files."""

    name = "hive-metastore"
    needs = (java(), package("thrift", "pyiceberg[hive]"))
    download = _DOWNLOAD

    @property
    def uri(self) -> str:
        """The address of the metastore."""
        return f"thrift://127.0.0.1:{self.port}"

    @property
    def catalog_properties(self) -> dict[str, str]:
        """A Hive catalog. The metastore chooses where its databases lie."""
        return {"type": "hive", "uri": self.uri}

    def command(self) -> list[str]:
        """The metastore behind our main class, which makes lock tables and listens on the loopback only."""
        warehouse = (self.folder / "warehouse").as_uri()
        options = [f"-Dmetastore.warehouse.dir={warehouse}", f"-Dderby.stream.error.file={os.devnull}"]
        return [*java_command(_DOWNLOAD, "LoopbackMetastore", "512m", options), str(self.port)]

    def is_ready(self) -> bool:
        """Whether it takes connections, which it does last."""
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=5).close()
        except OSError:
            return False
        return True
