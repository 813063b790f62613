"""The versions of one hadoop table: which is current, and the next one taken by one writer only."""

from __future__ import annotations

import gzip
import logging
import re
import secrets
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from pyiceberg.exceptions import (
    CommitFailedException,
    CommitStateUnknownException,
)
from pyiceberg.table.metadata import TableMetadata, TableMetadataUtil
from pyiceberg.utils.config import Config

from dwh_assets.errors import (
    DataError,
    DwhError,
    UnavailableError,
)
from dwh_assets.iceberg.catalogs.atomic_put import create_exclusively
from dwh_assets.iceberg.catalogs.stores.base import Store

if TYPE_CHECKING:
    pass

logger = logging.getLogger(__name__)

_HINT = "version-hint.text"
_VERSION_FILE = re.compile(r"v(\d+)(?:\.gz)?\.metadata\.json(?:\.gz)?")
_LOOKS_AT_A_MOVING_TABLE = 10
# From here on one listing is cheaper than going on version by version.
_LONGEST_LAG = 20


@dataclass(frozen=True)
class Version:
    """One version of a table that was read."""

    number: int
    location: str
    metadata: TableMetadata


class Versions:
    """The metadata directory of one table."""

    def __init__(self, store: Store, table_location: str) -> None:
        self._store = store
        self.directory = f"{table_location}/metadata"

    def newest(self) -> Version | None:
        """Return the version that is current, or None where there is no table.

        When old versions are cleaned up, one may go between finding and reading it: then look again.
        """
        for _ in range(_LOOKS_AT_A_MOVING_TABLE):
            found = self._find()
            if found is None:
                return None
            with suppress(FileNotFoundError):
                return self._read(*found)
        raise UnavailableError(f"{self.directory} changes faster than it can be read.", remedy="Try again.")

    def commit(self, base: Version | None, metadata: TableMetadata) -> str:
        """Write the version after `base` and return its location; raises what `create_exclusively` does."""
        number = base.number + 1 if base else 1
        mine = Version(number, f"{self.directory}/v{number}.metadata.json", metadata)
        if base is None:
            self._store.prepare_directory(self.directory)
        create_exclusively(self._store, mine.location, serialize(metadata))
        self._require_place_in_history(base, mine)
        self._advance_hint(number)
        return mine.location

    def remove(self) -> None:
        """Remove the versions, the newest last: until then readers see it, and never an older one."""
        self._store.remove(f"{self.directory}/{_HINT}")
        for _, name in sorted(self._listed()):
            self._store.remove(f"{self.directory}/{name}")

    def exists(self) -> bool:
        """Say whether a hadoop table is here, without reading it."""
        hint = self._hint()
        return bool((hint and self._file_of(hint)) or self._listed())

    def _find(self) -> tuple[int, str] | None:
        """Follow the hint, which may lag, to the last version; list the directory where it leads astray."""
        number = self._hint()
        found = self._file_of(number) if number else None
        if number is None or found is None:
            return self._last_listed()
        for _ in range(_LONGEST_LAG):
            following = self._file_of(number + 1)
            if following is None:
                return number, found
            number, found = number + 1, following
        return self._last_listed()

    def _last_listed(self) -> tuple[int, str] | None:
        # Of two files for one version the plain one counts, as for Java.
        return max(self._listed(), key=lambda found: (found[0], ".gz" not in found[1]), default=None)

    def _hint(self) -> int | None:
        try:
            text = self._store.read(f"{self.directory}/{_HINT}").strip()
        except FileNotFoundError:
            return None
        return int(text) if re.fullmatch(rb"[0-9]{1,10}", text) else None

    def _file_of(self, number: int) -> str | None:
        """Return the name of a version's file: plain as we write it, or compressed as Spark may."""
        names = [f"v{number}.metadata.json", f"v{number}.gz.metadata.json", f"v{number}.metadata.json.gz"]
        return next(iter(self._store.existing(self.directory, names)), None)

    def _listed(self) -> list[tuple[int, str]]:
        matches = (_VERSION_FILE.fullmatch(name) for name in self._store.names(self.directory, "v"))
        return [(int(match[1]), match[0]) for match in matches if match]

    def _read(self, number: int, name: str) -> Version:
        location = f"{self.directory}/{name}"
        content = self._store.read(location)
        try:
            text = gzip.decompress(content) if ".gz" in name else content
            return Version(number, location, TableMetadataUtil.parse_raw(text.decode()))
        except Exception as error:
            raise DataError(
                f"{location} is not the metadata of a table: {self._store.describe(error)}.",
                remedy="Restore that file; as a last resort remove it, which undoes its commit.",
            ) from None

    def _require_place_in_history(self, base: Version | None, mine: Version) -> None:
        """See that the version just written follows on its base.

        A name is free also when its version was cleaned up long ago, or the table dropped: who slept between
        reading the base and writing then "wins" a version that nobody will ever read.
        """
        try:
            if (self._hint() or 0) <= mine.number and self._is_there(base):
                return
            self._judge(self.newest(), base, mine)
        except DwhError as error:
            logger.warning(
                "%s was written; its place in the history was not checked: %s", mine.location, error
            )

    def _judge(self, newest: Version | None, base: Version | None, mine: Version) -> None:
        """Return when the history up to `newest` holds `mine`; else take it back, or call it unknown."""
        if newest is None or newest.metadata.table_uuid != mine.metadata.table_uuid:
            self._take_back(mine, "the table was dropped meanwhile")
        if newest.number == mine.number:
            if not self._is_there(base):
                self._take_back(mine, "the table was dropped meanwhile")
        elif not _leads_to(newest.metadata, base, mine):
            # A snapshot a moment old is not expired yet. Without one, or when somebody cleaned the version up
            # (who did has seen it), nothing tells.
            if _added(base, mine) and self._is_there(mine):
                self._take_back(mine, f"version {newest.number} does not contain it")
            raise CommitStateUnknownException(
                f"{mine.location} was written while versions up to {newest.number} came and went. "
                "Load the table and look before trying again."
            )

    def _take_back(self, mine: Version, reason: str) -> NoReturn:
        try:
            self._store.remove(mine.location)
        except DwhError:
            raise CommitStateUnknownException(f"{mine.location} should be removed: {reason}.") from None
        raise CommitFailedException(f"{mine.location} was written in vain: {reason}.")

    def _is_there(self, version: Version | None) -> bool:
        return version is None or bool(
            self._store.existing(self.directory, [version.location.rpartition("/")[2]])
        )

    def _advance_hint(self, number: int) -> None:
        """Write the hint, unless somebody is further already; the commit stands without it."""
        try:
            if number == 1 or (self._hint() or 0) < number:
                self._store.replace(f"{self.directory}/{_HINT}", str(number).encode())
        except (DwhError, OSError) as error:
            logger.warning("%s/%s was not updated to %d: %s", self.directory, _HINT, number, error)


def _leads_to(metadata: TableMetadata, base: Version | None, mine: Version) -> bool:
    """Say whether a later version's log, or its snapshots, contain this one."""
    name = mine.location.rpartition("/")[2]
    logged = any(
        entry.metadata_file.rpartition("/")[2] == name and entry.timestamp_ms == mine.metadata.last_updated_ms
        for entry in metadata.metadata_log
    )
    added = _added(base, mine)
    return logged or (bool(added) and added <= {snapshot.snapshot_id for snapshot in metadata.snapshots})


def _added(base: Version | None, mine: Version) -> set[int]:
    before = {snapshot.snapshot_id for snapshot in base.metadata.snapshots} if base else set()
    return {snapshot.snapshot_id for snapshot in mine.metadata.snapshots} - before


def serialize(metadata: TableMetadata) -> bytes:
    """Return the metadata as JSON, followed by blanks that no other attempt has.

    Two writers that make the same change in the same millisecond would write the same text, and both take
    it for their own. Blanks mean nothing to a reader of JSON.
    """
    keeps_null_ids = Config().get_bool("legacy-current-snapshot-id") or False
    mark = "".join(" \t"[secrets.randbits(1)] for _ in range(64))
    return f"{metadata.model_dump_json(exclude_none=not keeps_null_ids)}\n{mark}\n".encode()
