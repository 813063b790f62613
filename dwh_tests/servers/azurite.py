"""Azure Blob Storage on this machine, by Microsoft's emulator."""

import base64

from dwh_tests.servers.availability import package, program, tool
from dwh_tests.servers.downloads import npm_package
from dwh_tests.servers.object_store import ObjectStore

_DOWNLOAD = npm_package("azurite", "3.37.0")


class AzuriteServer(ObjectStore):
    """A blob service with one account and one container, kept in memory.

    It has no service of hierarchical namespaces (`dfs`): `abfss://` addresses reach its blobs.
    """

    name = "azurite"
    needs = (tool("node", 20), package("adlfs", "pyiceberg[adlfs]"))
    download = _DOWNLOAD
    account = "dwhtests"
    key = base64.b64encode(b"the key of an account that lives for one test run").decode()

    @property
    def connection_string(self) -> str:
        """What Azure's own clients take."""
        address = f"http://127.0.0.1:{self.port}/{self.account}"
        account = f"DefaultEndpointsProtocol=http;AccountName={self.account};AccountKey={self.key}"
        return f"{account};BlobEndpoint={address};"

    @property
    def storage_properties(self) -> dict[str, str]:
        """What a FileIO needs: fsspec's takes the connection string, PyArrow's the rest."""
        authority = f"127.0.0.1:{self.port}"
        return {
            "adls.connection-string": self.connection_string,
            "adls.account-name": self.account,
            "adls.account-key": self.key,
            "adls.blob-storage-authority": authority,
            "adls.blob-storage-scheme": "http",
            "adls.dfs-storage-authority": authority,
            "adls.dfs-storage-scheme": "http",
        }

    @property
    def root(self) -> str:
        """The address of the container, in the form that Azure's own users write."""
        return f"abfss://{self.bucket}@{self.account}.dfs.core.windows.net"

    @property
    def pyarrow_root(self) -> str:
        """The short form: PyArrowFileIO takes all that comes before the path for the container's name."""
        return f"abfss://{self.bucket}"

    def command(self) -> list[str]:
        """The blob service alone, run by Node itself: npm's wrapper would be a second process to end."""
        main = _DOWNLOAD.folder / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
        address = ["--blobHost", "127.0.0.1", "--blobPort", str(self.port)]
        # Newer clients name versions of the protocol that the emulator does not know yet.
        options = ["--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry", "--silent"]
        return [program("node"), str(main), *address, *options]

    def environment(self) -> dict[str, str]:
        """Our account instead of the well-known one."""
        return {"AZURITE_ACCOUNTS": f"{self.account}:{self.key}"}

    def fill(self) -> None:
        """Make the container."""
        from azure.storage.blob import BlobServiceClient

        with BlobServiceClient.from_connection_string(self.connection_string) as service:
            service.create_container(self.bucket)
