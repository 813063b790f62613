"""What a write mode plans on one version of a table."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from pyiceberg.manifest import DataFile
from pyiceberg.table import Table

from dwh_assets.iceberg.files.data_files import FileTarget

# Entries of a snapshot's summary: what a write did to rows, which files alone do not tell.
ROWS_INSERTED = "dwh.rows-inserted"
ROWS_UPDATED = "dwh.rows-updated"
ROWS_DELETED = "dwh.rows-deleted"
ROWS_UNCHANGED = "dwh.rows-unchanged"


@dataclass(frozen=True)
class Planned:
    """Files that come and go, and what that means for rows; `net_rows` is by how many the table grows."""

    added: tuple[DataFile, ...] = ()
    removed: tuple[DataFile, ...] = ()
    added_deletes: tuple[DataFile, ...] = ()
    rows_inserted: int = 0
    rows_updated: int = 0
    rows_deleted: int = 0
    rows_unchanged: int = 0
    net_rows: int = 0

    @property
    def changes_files(self) -> bool:
        """Whether a snapshot is needed for it."""
        return bool(self.added or self.removed or self.added_deletes)

    def summary(self) -> dict[str, str]:
        """Return the rows as entries of the snapshot's summary."""
        counts = {
            ROWS_INSERTED: self.rows_inserted,
            ROWS_UPDATED: self.rows_updated,
            ROWS_DELETED: self.rows_deleted,
            ROWS_UNCHANGED: self.rows_unchanged,
        }
        return {key: str(count) for key, count in counts.items() if count}


class Mode(Protocol):
    """Plans one write, again and again until the commit lands, and owns the files written for it."""

    def plan(self, table: Table, branch: str) -> Planned:
        """Return what has to happen to the branch of `table`, as it now is."""
        ...

    def discard(self, used: Sequence[DataFile]) -> None:
        """Delete the files that were written and are not among `used`, those of the commit that landed."""
        ...


@dataclass
class Append:
    """Adds files; no version of the table changes what it has to do."""

    target: FileTarget
    files: list[DataFile]

    def plan(self, table: Table, branch: str) -> Planned:
        """Add every file."""
        rows = sum(file.record_count for file in self.files)
        return Planned(added=tuple(self.files), rows_inserted=rows, net_rows=rows)

    def discard(self, used: Sequence[DataFile]) -> None:
        """Delete the files unless they are used."""
        delete_unused(self.target, self.files, used)


def delete_unused(target: FileTarget, written: Sequence[DataFile], used: Sequence[DataFile]) -> None:
    """Delete files that were written for a commit that does not use them.

    One that cannot be deleted stays: that is no reason to fail a commit that landed, or to hide why one did
    not.
    """
    kept = {file.file_path for file in used}
    for file in written:
        if file.file_path not in kept:
            with suppress(OSError):
                target.io.delete(file.file_path)
