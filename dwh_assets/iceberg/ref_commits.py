"""Commit a change of a table's tags and branches, alone and read back afterwards.

A ref change inside a write's transaction vanishes in silence when PyIceberg retries the write, so none is
ever put there. It is sent with what it was decided on; when that no longer holds, it is decided again, or
refused. Some catalogs accept a tag and drop it, so only the table itself tells whether it is there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.update import AssertTableUUID, TableRequirement, TableUpdate

from dwh_assets.errors import CommitUnknownError, ConflictError, UnsupportedError
from dwh_assets.iceberg.commit import (
    RETRY_SECONDS,
    drop_old_metadata,
    is_lost,
    noted_metadata,
    pause,
    refreshed,
)
from dwh_assets.iceberg.snapshot import MetadataFiles, discard_metadata


@dataclass(frozen=True)
class RefChange:
    """What to ask of the catalog, and how to see in the table that it has happened."""

    requirements: Sequence[TableRequirement]
    updates: Sequence[TableUpdate]
    happened: Callable[[TableMetadata], bool]


def commit_refs(
    catalog: Catalog,
    table: Table,
    decide: Callable[[Table], RefChange],
    *,
    retry_seconds: float = RETRY_SECONDS,
) -> Table:
    """Commit the change of refs that `decide` wants, and return the table with it.

    `decide` is called again, on the refreshed table, each time another commit was faster, and raises when
    what it wants has become wrong. Raises `UnsupportedError` when the catalog accepts the change and the
    table does not show it, `ConflictError` after `retry_seconds`, `CommitUnknownError` when the catalog's
    answer was lost.
    """
    deadline, attempt, doubted = time.monotonic() + retry_seconds, 0, False
    change = decide(table)
    while True:
        attempt += 1
        try:
            return _send(catalog, table, change)
        except Exception as error:
            lost = is_lost(error)
            doubted = doubted or lost
            table = _reloaded(table, doubted)
            if doubted and change.happened(table.metadata):
                return table
            change = decide(table)
            if not lost and not isinstance(error, CommitFailedException):
                raise
            _wait(attempt, deadline, table, error, doubted)


def _send(catalog: Catalog, table: Table, change: RefChange) -> Table:
    requirements = (AssertTableUUID(uuid=table.metadata.table_uuid), *change.requirements)
    written: MetadataFiles = []
    try:
        with noted_metadata(catalog, written):
            catalog.commit_table(table, requirements, tuple(change.updates))
    except CommitFailedException:
        discard_metadata(written)
        raise
    fresh = refreshed(table)
    if not change.happened(fresh.metadata):
        raise UnsupportedError(
            f"{'.'.join(table.name())}: the catalog {catalog.name!r} accepted a change of tags or branches "
            "and did not keep it.",
            remedy="Use a catalog that keeps refs (the doctor's check refs_kept tells), or snapshot ids.",
        )
    drop_old_metadata(fresh, table.metadata)
    return fresh


def _reloaded(table: Table, doubted: bool) -> Table:
    try:
        return refreshed(table)
    except ConflictError:
        raise
    except Exception as error:
        if doubted:
            raise _unknown(table) from error
        raise


def _wait(attempt: int, deadline: float, table: Table, error: Exception, doubted: bool) -> None:
    try:
        pause(attempt, deadline, table, error)
    except ConflictError as gave_up:
        raise (_unknown(table) if doubted else gave_up) from error


def _unknown(table: Table) -> CommitUnknownError:
    return CommitUnknownError(
        f"{'.'.join(table.name())}: the catalog did not answer, so it is unknown whether its tags or "
        "branches were changed.",
        remedy="Once the catalog answers, list them; repeat the call if the change is missing.",
    )
