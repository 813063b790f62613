"""Create a file only if nobody else has that name, and tell the three outcomes apart.

A hadoop table has no server that orders its commits: version N+1 belongs to whoever creates its
metadata file first. `create_exclusively` creates a file, `require_exclusive` proves that the store keeps
the promise; how each store keeps it is told in `stores`.
"""

from __future__ import annotations

import uuid
from contextlib import suppress

from pyiceberg.exceptions import CommitFailedException, CommitStateUnknownException

from dwh_assets.errors import (
    DwhError,
    UnavailableError,
    UnsupportedError,
)
from dwh_assets.iceberg.catalogs.stores.base import Store, no_root


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
        raise no_root(str(error)) from None
    try:
        create_exclusively(store, probe, b"second")
    except CommitFailedException:
        return True
    return False
