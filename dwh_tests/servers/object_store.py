"""What object stores share: a place for tables, and a SQLite catalog for them."""

from abc import abstractmethod
from typing import ClassVar

from dwh_tests.servers.process import ProcessServer

# PyIceberg's two ways to a store, which need different properties and take different addresses
FILE_IOS = {"pyarrow": "pyiceberg.io.pyarrow.PyArrowFileIO", "fsspec": "pyiceberg.io.fsspec.FsspecFileIO"}


class ObjectStore(ProcessServer):
    """A store that tables can lie on. It comes without a catalog, so a SQLite file beside its log is one."""

    # The bucket or container that is there once the server has started
    bucket: ClassVar[str] = "warehouse"

    @property
    @abstractmethod
    def root(self) -> str:
        """The address of the bucket, without a slash at its end, as users of the real store write it."""

    @property
    def pyarrow_root(self) -> str:
        """The address that PyIceberg's PyArrowFileIO understands."""
        return self.root

    @property
    @abstractmethod
    def storage_properties(self) -> dict[str, str]:
        """What PyIceberg's FileIO needs to reach the store, be it PyArrow's or fsspec's."""

    @property
    def catalog_properties(self) -> dict[str, str]:
        """A SQLite catalog with its tables on the store, read and written as PyIceberg chooses."""
        return self._sql_catalog(self.root)

    def sql_catalog_properties(self, file_io: str) -> dict[str, str]:
        """The same, read and written by one of `FILE_IOS`."""
        root = self.pyarrow_root if file_io == "pyarrow" else self.root
        return self._sql_catalog(root) | {"py-io-impl": FILE_IOS[file_io]}

    def _sql_catalog(self, root: str) -> dict[str, str]:
        # Two writers who meet wait for each other: SQLite's own patience of five seconds is short for a busy
        # machine, and PyIceberg does not retry when the database is locked.
        uri = f"sqlite:///{self.folder / 'catalog.db'}?timeout=60"
        return {"type": "sql", "uri": uri, "warehouse": f"{root}/sql", **self.storage_properties}
