"""Iceberg's own reference REST catalog, kept in a SQLite file."""

from typing import ClassVar

from dwh_tests.servers.availability import java
from dwh_tests.servers.downloads import java_server
from dwh_tests.servers.java import java_command
from dwh_tests.servers.moto import MotoServer
from dwh_tests.servers.process import ProcessServer, http_status

_DOWNLOAD = java_server("iceberg-rest")


class IcebergRestServer(ProcessServer):
    """A REST catalog with its tables on local files, or on the S3 of a running moto server."""

    name = "iceberg-rest"
    needs = (java(),)
    download = _DOWNLOAD
    main_class: ClassVar[str] = "org.apache.iceberg.rest.LoopbackCatalogServer"

    def __init__(self, s3: MotoServer | None = None) -> None:
        self._s3 = s3

    @property
    def uri(self) -> str:
        """The address of the catalog."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def catalog_properties(self) -> dict[str, str]:
        """A REST catalog. The server chooses where its tables lie."""
        storage = self._s3.storage_properties if self._s3 else {}
        return {"type": "rest", "uri": self.uri, **storage}

    def command(self) -> list[str]:
        """The reference server behind our main class, which listens on the loopback interface only."""
        return [*java_command(_DOWNLOAD, self.main_class, "256m", []), str(self.port)]

    def environment(self) -> dict[str, str]:
        """The catalog's properties, as the reference server takes them: `_` for a dot, `__` for a dash."""
        database = self.folder / "catalog.db"
        return {
            "CATALOG_CATALOG__IMPL": "org.apache.iceberg.jdbc.JdbcCatalog",
            "CATALOG_URI": f"jdbc:sqlite:{database}?busy_timeout=60000&journal_mode=WAL",
            "CATALOG_JDBC_SCHEMA__VERSION": "V1",
            **(self._on_s3(self._s3) if self._s3 else self._on_files()),
        }

    def is_ready(self) -> bool:
        """Whether the catalog tells its configuration."""
        return http_status("GET", self.port, "/v1/config") == 200

    def _on_files(self) -> dict[str, str]:
        return {"CATALOG_WAREHOUSE": (self.folder / "warehouse").as_uri()}

    def _on_s3(self, s3: MotoServer) -> dict[str, str]:
        return {
            "CATALOG_WAREHOUSE": f"{s3.root}/rest-{self.port}",
            "CATALOG_IO__IMPL": "org.apache.iceberg.aws.s3.S3FileIO",
            "CATALOG_S3_ENDPOINT": s3.endpoint,
            "CATALOG_S3_PATH__STYLE__ACCESS": "true",
            "CATALOG_S3_ACCESS__KEY__ID": s3.access_key,
            "CATALOG_S3_SECRET__ACCESS__KEY": s3.secret_key,
            "CATALOG_CLIENT_REGION": s3.storage_properties["s3.region"],
        }
