"""Stores reached through fsspec: a name is taken on a condition that the server checks.

On HDFS by the NameNode's rename without overwrite, through hdfs-native (PyArrow's `move` deletes a file
that is in the way); on S3 and Azure by `If-None-Match: *` and on Google Cloud by `ifGenerationMatch=0`,
which fsspec calls `mode="create"`.
"""

from __future__ import annotations

import importlib
import posixpath
import uuid
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import urlparse

from typing_extensions import override

from dwh_assets.errors import (
    ConfigurationError,
)
from dwh_assets.iceberg.catalogs.stores.base import Entry, Store, no_root

# The extra of this package that brings the client of a scheme.
EXTRAS = {"s3": "s3", "s3a": "s3", "s3n": "s3", "gs": "gcs", "gcs": "gcs", "abfs": "adls", "abfss": "adls"}
_REPEATS_WHEN_TOLD = 3
# Object stores know no empty directories: this file keeps one.
_KEEP = ".namespace"


class _FsspecStore(Store):
    """What object stores and HDFS have in common: a client that speaks fsspec."""

    def __init__(self, warehouse: str, properties: Mapping[str, str]) -> None:
        super().__init__(warehouse, properties)
        self._root = urlparse(warehouse)

    @abstractmethod
    def client(self) -> Any:
        """Return the fsspec file system; raises `ConfigurationError` when it is not installed."""

    def _fresh(self) -> Any:
        """Return the client without what it remembers of listings: other processes write here too."""
        client = self.client()
        client.invalidate_cache()
        return client

    @override
    def read(self, location: str) -> bytes:
        with self.guarded(location):
            return bytes(self._fresh().cat_file(location))

    @override
    def entries(self, directory: str) -> list[Entry]:
        with self.guarded(directory):
            client = self._fresh()
            parent = _path_in(client, directory)
            listed = client.ls(directory, detail=True)
        paths = {entry["name"].rstrip("/"): entry["type"] == "directory" for entry in listed}
        # S3 lists a directory's own marker among its children, and ours is nobody's business.
        return [
            Entry(posixpath.basename(path), is_directory)
            for path, is_directory in paths.items()
            if posixpath.dirname(path) == parent and posixpath.basename(path) != _KEEP
        ]

    @override
    def remove(self, location: str) -> None:
        with self.guarded(location), suppress(FileNotFoundError):
            self.client().rm_file(location)

    @override
    def remove_directory(self, location: str) -> None:
        with self.guarded(location), suppress(FileNotFoundError):
            self._fresh().rm(location, recursive=True)


def _path_in(client: Any, location: str) -> str:
    """Return a location as the client's own listings name it."""
    return str(client._strip_protocol(location)).rstrip("/")


class ObjectStore(_FsspecStore):
    """S3, Google Cloud Storage or Azure, with PyIceberg's own properties."""

    def __init__(self, warehouse: str, properties: Mapping[str, str]) -> None:
        super().__init__(warehouse, properties)
        from pyiceberg.io.fsspec import FsspecFileIO

        self._file_io = FsspecFileIO(dict(properties))
        with self.guarded(warehouse):
            self.client()

    @override
    def client(self) -> Any:
        try:
            return self._file_io.get_fs(self._root.scheme, self._root.hostname)
        except ImportError as error:
            raise ConfigurationError(
                f"A hadoop catalog on {self._root.scheme}:// needs {error.name}, which is not installed.",
                remedy=f"pip install 'dwh_assets[{EXTRAS[self._root.scheme]}]'",
            ) from None

    @override
    def create(self, location: str, content: bytes) -> None:
        for _ in range(_REPEATS_WHEN_TOLD):
            try:
                self.client().pipe_file(location, content, mode="create")
            except OSError as error:
                # S3's "somebody is at it, ask again": nothing was written.
                if "ConditionalRequestConflict" not in str(error):
                    raise
            else:
                return
        raise FileExistsError(location)

    @override
    def replace(self, location: str, content: bytes) -> None:
        with self.guarded(location):
            self.client().pipe_file(location, content)

    @override
    def existing(self, directory: str, names: Sequence[str]) -> list[str]:
        # One listing, whatever endings are asked for.
        found = {
            name
            for stem in {n.partition(".")[0] for n in names}
            for name in self.names(directory, f"{stem}.")
        }
        return [name for name in names if name in found]

    @override
    def names(self, directory: str, prefix: str = "") -> list[str]:
        found: list[str] = []
        with self.guarded(directory), suppress(FileNotFoundError):
            client = self._fresh()
            parent = _path_in(client, directory)
            found = [
                path for path in client.find(directory, prefix=prefix) if posixpath.dirname(path) == parent
            ]
        return [posixpath.basename(path) for path in found]

    @override
    def prepare_directory(self, location: str) -> None:
        """There is nothing to do: a directory is where files are."""

    @override
    def keep_directory(self, location: str) -> None:
        self.replace(f"{location}/{_KEEP}", b"")

    @override
    def require_root(self) -> None:
        root = f"{self._root.scheme}://{self._root.netloc}"
        with self.guarded(root):
            found = self._fresh().exists(root)
        if not found:
            raise no_root(f"{root} does not exist.")


class HdfsStore(_FsspecStore):
    """HDFS in its own protocol, by hdfs-native: no Java, no libhdfs.

    It reads `HADOOP_CONF_DIR` and `HADOOP_USER_NAME`.
    """

    def __init__(self, warehouse: str, properties: Mapping[str, str]) -> None:
        super().__init__(warehouse, properties)
        with self.guarded(warehouse):
            self.client()

    @override
    def client(self) -> Any:
        try:
            module = importlib.import_module("hdfs_native.fsspec")
        except ImportError:
            raise ConfigurationError(
                "A hadoop catalog on hdfs:// needs hdfs-native: PyArrow's client overwrites when it renames.",
                remedy="pip install 'dwh_assets[hdfs]'",
            ) from None
        return module.HdfsFileSystem(host=self._root.netloc or None)

    @override
    def create(self, location: str, content: bytes) -> None:
        self._move_into_place(location, content, overwrite=False)

    @override
    def replace(self, location: str, content: bytes) -> None:
        with self.guarded(location):
            self._move_into_place(location, content, overwrite=True)

    def _move_into_place(self, location: str, content: bytes, *, overwrite: bool) -> None:
        directory, name = posixpath.split(location)
        temporary = f"{directory}/.{name}.{uuid.uuid4().hex}.tmp"
        client = self.client()
        try:
            with self.guarded(location), client.open(temporary, "wb") as file:
                file.write(content)
            client.mv(temporary, location, overwrite=overwrite)
        except Exception:
            with suppress(Exception):
                client.rm_file(temporary)
            raise

    @override
    def existing(self, directory: str, names: Sequence[str]) -> list[str]:
        with self.guarded(directory):
            client = self.client()
            return [name for name in names if client.exists(f"{directory}/{name}")]

    @override
    def prepare_directory(self, location: str) -> None:
        with self.guarded(location):
            self.client().makedirs(location, exist_ok=True)

    @override
    def keep_directory(self, location: str) -> None:
        self.prepare_directory(location)
