"""What a hadoop catalog asks of the store that holds its files."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from dwh_assets.errors import (
    ConfigurationError,
    DwhError,
    NotFoundError,
    UnavailableError,
)

_SECRET_PROPERTY = re.compile(r"key|secret|token|passw|credential|sas|connection-string|kerb", re.IGNORECASE)
_SECRET_TEXT = re.compile(
    r"((?:account_?key|secret\w*|token|passw\w*|\bsig\w*|x-amz-[\w-]+|credential)\s*[=:]\s*)[^\s;&,'\"]+",
    re.IGNORECASE,
)


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


def no_root(message: str) -> NotFoundError:
    """Return the error for a warehouse whose bucket or directory is not there."""
    return NotFoundError(message, remedy="Create the bucket, or mend the catalog's warehouse.")
