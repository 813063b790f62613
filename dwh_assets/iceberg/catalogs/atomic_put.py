"""Stores in which a file can be created under a condition: only if nobody else has that name.

A hadoop table has no server that orders its commits: version N+1 belongs to whoever creates its
metadata file first. `open_store` gives the store of a location, `create_exclusively` creates a file
in it and tells the three outcomes apart, `require_exclusive` proves that the store keeps the promise.

How the condition is met: on local files by a hard link to a complete temporary file (a rename would
overwrite, O_EXCL would show half a file); on HDFS by the NameNode's rename without overwrite, through
hdfs-native (PyArrow's `move` deletes a file that is in the way); on S3 and Azure by `If-None-Match: *`
and on Google Cloud by `ifGenerationMatch=0`, which fsspec calls `mode="create"`.
"""

from __future__ import annotations

import errno
import importlib
import os
import posixpath
import re
import shutil
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from pyiceberg.exceptions import CommitFailedException, CommitStateUnknownException
from typing_extensions import override

from dwh_assets.config import local_path
from dwh_assets.errors import (
    ConfigurationError,
    DwhError,
    NotFoundError,
    UnavailableError,
    UnsupportedError,
)

# The extra of this package that brings the client of a scheme.
_EXTRAS = {"s3": "s3", "s3a": "s3", "s3n": "s3", "gs": "gcs", "gcs": "gcs", "abfs": "adls", "abfss": "adls"}
_NO_HARD_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV}
_SECRET_PROPERTY = re.compile(r"key|secret|token|passw|credential|sas|connection-string|kerb", re.IGNORECASE)
_SECRET_TEXT = re.compile(
    r"((?:account_?key|secret\w*|token|passw\w*|\bsig\w*|x-amz-[\w-]+|credential)\s*[=:]\s*)[^\s;&,'\"]+",
    re.IGNORECASE,
)
_REPEATS_WHEN_TOLD = 3
# Object stores know no empty directories: this file keeps one.
_KEEP = ".namespace"


@dataclass(frozen=True)
class Entry:
    """One thing in a directory."""

    name: str
    is_directory: bool


class Store(ABC):
    """The files below a warehouse; every location is a full one.

    Methods raise `FileNotFoundError` and `FileExistsError` where they say so, `ConfigurationError` when
    access is denied, and `UnavailableError` for all else; no message holds a credential.
    """

    def __init__(self, warehouse: str, properties: Mapping[str, str]) -> None:
        self.warehouse = warehouse
        values = [str(value) for key, value in properties.items() if _SECRET_PROPERTY.search(key)]
        self._secrets = [value for value in values if len(value) > 3]

    @abstractmethod
    def read(self, location: str) -> bytes:
        """Return a file's content; raises `FileNotFoundError`."""

    @abstractmethod
    def create(self, location: str, content: bytes) -> None:
        """Create a file, complete at once; a client's errors come as they are: they may mean anything.

        Raises `FileExistsError` when the name is taken and `FileNotFoundError` when the directory is gone.
        A `DwhError` says that nothing was written.
        """

    @abstractmethod
    def replace(self, location: str, content: bytes) -> None:
        """Create or replace a file; a reader sees the old content or the new."""

    @abstractmethod
    def existing(self, directory: str, names: Sequence[str]) -> list[str]:
        """Return those of the names that are files in the directory."""

    @abstractmethod
    def entries(self, directory: str) -> list[Entry]:
        """List a directory; raises `FileNotFoundError`."""

    def names(self, directory: str, prefix: str = "") -> list[str]:
        """Return the files in a directory whose names begin with the prefix; none where it is missing."""
        try:
            found = self.entries(directory)
        except FileNotFoundError:
            return []
        return [entry.name for entry in found if not entry.is_directory and entry.name.startswith(prefix)]

    def is_directory(self, location: str) -> bool:
        """Say whether there is such a directory."""
        try:
            self.entries(location)
        except FileNotFoundError:
            return False
        return True

    @abstractmethod
    def prepare_directory(self, location: str) -> None:
        """See to it that files can be created in a directory."""

    @abstractmethod
    def keep_directory(self, location: str) -> None:
        """Create a directory that stays when it is empty."""

    @abstractmethod
    def remove(self, location: str) -> None:
        """Remove a file, if it is there."""

    @abstractmethod
    def remove_directory(self, location: str) -> None:
        """Remove a directory with all that is in it, if it is there."""

    def require_root(self) -> None:  # noqa: B027 - only object stores have a root that can be missing
        """Raise `NotFoundError` when the bucket or container itself is missing."""

    def describe(self, error: BaseException) -> str:
        """Return what an error says, in one line and without credentials."""
        text = (str(error).strip().splitlines() or [""])[0]
        for secret in self._secrets:
            text = text.replace(secret, "***")
        text = _SECRET_TEXT.sub(r"\1***", text)
        return f"{type(error).__name__}: {text[:300]}".rstrip(": .")

    @contextmanager
    def guarded(self, location: str) -> Iterator[None]:
        """Turn a client's errors into ours; a missing or an existing file stays what it is."""
        try:
            yield
        except (DwhError, FileNotFoundError, FileExistsError):
            raise
        except PermissionError as error:
            raise self.denied(location, error) from None
        except Exception as error:
            raise UnavailableError(
                f"{location} cannot be reached or written: {self.describe(error)}.",
                remedy="Check the store's address, its free space and the credentials; then run it again.",
            ) from None

    def denied(self, location: str, error: BaseException) -> ConfigurationError:
        """Return the error of a store that denies access."""
        return ConfigurationError(
            f"Access to {location} is denied: {self.describe(error)}.",
            remedy="Grant reading, writing, listing and deleting below the warehouse, or mend credentials.",
        )


class LocalStore(Store):
    """Local files, also on mounted drives that know hard links."""

    @override
    def read(self, location: str) -> bytes:
        with self.guarded(location):
            return local_path(location).read_bytes()

    @override
    def create(self, location: str, content: bytes) -> None:
        path = local_path(location)
        temporary = _beside(path)
        try:
            with self.guarded(location):
                _write_through(temporary, content)
            self._link(path, temporary)
        finally:
            with suppress(OSError):
                temporary.unlink()
        _sync_directory(path.parent)

    def _link(self, path: Path, temporary: Path) -> None:
        try:
            path.hardlink_to(temporary)
        except OSError as error:
            if error.errno not in _NO_HARD_LINKS:
                raise
            raise UnsupportedError(
                f"{path.parent} lies on a file system without hard links ({self.describe(error)}), so a "
                "hadoop catalog cannot commit there atomically.",
                remedy="Move the warehouse, or use a catalog of another kind.",
            ) from None

    @override
    def replace(self, location: str, content: bytes) -> None:
        path = local_path(location)
        temporary = _beside(path)
        with self.guarded(location):
            temporary.write_bytes(content)
            # Hadoop's local file system keeps a checksum beside each file it wrote, and would refuse ours.
            path.with_name(f".{path.name}.crc").unlink(missing_ok=True)
            temporary.replace(path)

    @override
    def existing(self, directory: str, names: Sequence[str]) -> list[str]:
        with self.guarded(directory):
            return [name for name in names if (local_path(directory) / name).is_file()]

    @override
    def entries(self, directory: str) -> list[Entry]:
        with self.guarded(directory), os.scandir(local_path(directory)) as found:
            return [Entry(entry.name, entry.is_dir()) for entry in found]

    @override
    def prepare_directory(self, location: str) -> None:
        with self.guarded(location):
            local_path(location).mkdir(parents=True, exist_ok=True)

    @override
    def keep_directory(self, location: str) -> None:
        self.prepare_directory(location)

    @override
    def remove(self, location: str) -> None:
        with self.guarded(location):
            local_path(location).unlink(missing_ok=True)

    @override
    def remove_directory(self, location: str) -> None:
        with self.guarded(location), suppress(FileNotFoundError):
            shutil.rmtree(local_path(location))


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")


def _write_through(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_directory(path: Path) -> None:
    """Let a new name survive a power cut, where the file system can."""
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


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
                remedy=f"pip install 'dwh_assets[{_EXTRAS[self._root.scheme]}]'",
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
            raise _no_root(f"{root} does not exist.")


def _no_root(message: str) -> NotFoundError:
    return NotFoundError(message, remedy="Create the bucket, or mend the catalog's warehouse.")


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


def open_store(warehouse: str, properties: Mapping[str, str]) -> Store:
    """Return the store of a warehouse's location.

    Raises `UnsupportedError` for a scheme under which no file can be created exclusively, and
    `ConfigurationError` when the client of a store is not installed.
    """
    scheme = urlparse(warehouse).scheme
    if scheme == "file":
        return LocalStore(warehouse, properties)
    if scheme == "hdfs":
        return HdfsStore(warehouse, properties)
    if scheme in _EXTRAS:
        return ObjectStore(warehouse, properties)
    raise UnsupportedError(
        f"A hadoop catalog cannot commit atomically on {scheme}://.",
        remedy="Use file, hdfs, s3, gs or abfs(s), or a catalog of another kind.",
    )


def checked_warehouse(warehouse: str | None) -> str:
    """Return a warehouse's location, with a scheme and without a slash at the end.

    Raises `ConfigurationError` when there is none, when it holds a credential or reads as a pattern.
    """
    if not warehouse:
        raise ConfigurationError(
            "A hadoop catalog needs a warehouse.", remedy="For example warehouse: file:///lake or s3://lake."
        )
    url = urlparse(warehouse)
    local = url.scheme in ("", "file")
    if url.password is not None or "?" in warehouse or "#" in warehouse or (local and url.netloc):
        # Not repeated in the message: there may be a credential in it.
        raise ConfigurationError(
            "The warehouse of a hadoop catalog holds a password, a query, a fragment or another host.",
            remedy="Give its location alone, and credentials as PyIceberg's properties of the store.",
        )
    if re.search(r"[*\[\]{}]", warehouse):
        raise ConfigurationError(
            f"The warehouse {warehouse!r} holds a character that stores read as a pattern."
        )
    return (f"file://{local_path(warehouse).absolute()}" if local else warehouse).rstrip("/")


def one_spelling(location: str) -> str:
    """Return a location as one of its spellings: engines write file:/x, file:///x and /x, s3: and s3a:."""
    plain = re.sub(r"^file:/*", "/", location).rstrip("/")
    return re.sub(r"^s3[an]:", "s3:", plain)


def create_exclusively(store: Store, location: str, content: bytes) -> None:
    """Create a file unless its name is taken; `content` has to be unlike anybody else's.

    Clients repeat what timed out, so "it exists" may speak of our own file: the content decides.

    Raises:
        CommitFailedException: Somebody else's file has that name, or the directory is gone.
        CommitStateUnknownException: The answer was lost, and so is what became of the file.
        ConfigurationError: Access is denied.
        UnavailableError: Nothing was written.
    """
    doubt = ""
    try:
        store.create(location, content)
    except FileExistsError:
        pass
    except FileNotFoundError:
        raise CommitFailedException(f"{location} cannot be written: its directory is gone.") from None
    except PermissionError as error:
        raise store.denied(location, error) from None
    except DwhError:
        raise
    except Exception as error:
        doubt = store.describe(error)
    else:
        return
    _settle(store, location, content, doubt)


def _settle(store: Store, location: str, content: bytes, doubt: str) -> None:
    """Read the file again and say whose it is."""
    try:
        found = store.read(location)
    except FileNotFoundError:
        if not doubt:
            raise CommitFailedException(f"{location} was there, and was removed at once.") from None
        raise _unknown(location, doubt) from None
    except DwhError as error:
        raise _unknown(location, doubt or store.describe(error)) from None
    if found != content:
        raise CommitFailedException(f"{location} was written by somebody else first.")


def _unknown(location: str, doubt: str) -> CommitStateUnknownException:
    return CommitStateUnknownException(
        f"{location} may or may not have been written ({doubt}). Load the table and look before trying again."
    )


def require_exclusive(store: Store) -> None:
    """Prove with a small file, removed afterwards, that a second creation of a name is refused.

    Raises `UnsupportedError` when the store ignores the condition: it would let commits overwrite each other.
    """
    store.prepare_directory(store.warehouse)
    probe = f"{store.warehouse}/.dwh-probe-{uuid.uuid4().hex}"
    try:
        refused = _refuses_a_second(store, probe)
    except CommitStateUnknownException as error:
        raise UnavailableError(f"The store did not answer: {error}") from None
    finally:
        with suppress(DwhError):
            store.remove(probe)
    if not refused:
        raise UnsupportedError(
            f"The store of {store.warehouse} ignores the condition under which a hadoop catalog creates a "
            "version, so two writers could overwrite each other's commits.",
            remedy="Use a store that honours If-None-Match, or a catalog of another kind.",
        )


def _refuses_a_second(store: Store, probe: str) -> bool:
    try:
        create_exclusively(store, probe, b"first")
    except CommitFailedException as error:
        raise _no_root(str(error)) from None
    try:
        create_exclusively(store, probe, b"second")
    except CommitFailedException:
        return True
    return False
