"""The store of a warehouse's location."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlparse

from dwh_assets.config import local_path
from dwh_assets.errors import (
    ConfigurationError,
    UnsupportedError,
)
from dwh_assets.iceberg.catalogs.stores.base import Store
from dwh_assets.iceberg.catalogs.stores.local import LocalStore
from dwh_assets.iceberg.catalogs.stores.remote import EXTRAS, HdfsStore, ObjectStore


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
    if scheme in EXTRAS:
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
