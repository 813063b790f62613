"""Local files: a name is taken by a hard link to a complete temporary file.

A rename would overwrite, and `O_EXCL` would show half a file.
"""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from typing_extensions import override

from dwh_assets.config import local_path
from dwh_assets.errors import (
    UnsupportedError,
)
from dwh_assets.iceberg.catalogs.stores.base import Entry, Store

_NO_HARD_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV}


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
