"""Points in time of a table, as people name them, and the one resolver that finds the snapshot.

    resolve(table, "q3")                    # a tag or a branch, before anything else that the text may mean
    resolve(table, "2 versions ago")        # counted on main, compactions not
    resolve(table, 4358109269873137077)     # a snapshot id, also as text
    resolve(table, "2026-01-03")            # what main showed at that midnight, in UTC
    resolve(table, datetime(2026, 1, 3, 8)) # likewise; without a time zone it is UTC

A point that cannot be found is an error that says what there is; it is never the neighbour.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from difflib import get_close_matches
from typing import SupportsIndex

from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.refs import MAIN_BRANCH
from pyiceberg.table.snapshots import Operation, Snapshot

from dwh_assets.errors import ConfigurationError, NotFoundError
from dwh_assets.iceberg.names import name_of
from dwh_assets.iceberg.refs import RefKind
from dwh_assets.iceberg.versions import branch_history, moment
from dwh_assets.versioning.misses import explain_missing_id, explain_missing_moment
from dwh_assets.versioning.shown import ExpiredIntervals, shown_at

Point = int | str | datetime | date | None

_VERSIONS_AGO = re.compile(r"(\d+) versions? ago", re.IGNORECASE)


@dataclass(frozen=True)
class ResolvedPoint:
    """The snapshot that a point names: `described` says how it was found, `committed_at` when it was made.

    `by_main` tells that main's past decided, of which other branches may have had another one.
    """

    table: str
    snapshot_id: int
    described: str
    committed_at: datetime
    by_main: bool = False


def resolve(table: Table, point: Point, ledger: ExpiredIntervals | None = None) -> ResolvedPoint:
    """Return the snapshot that `point` names; None is what main shows now.

    Text is tried as a tag or branch, as "N versions ago", as a snapshot id in digits, and as an ISO date or
    date-time, in this order. Versions are counted back from main's head along its parents: neither what was
    rolled back nor compactions count. A time (of a date: its midnight in UTC) means what main showed then, a
    rollback included; `ledger` helps where snapshots were expired since.

    Raises `NotFoundError` that explains the miss, `ConfigurationError` for what is no point at all.
    """
    if point is None:
        return _found(table, _head(table), MAIN_BRANCH)
    if isinstance(point, str):
        return _by_text(table, point.strip(), ledger)
    if isinstance(point, datetime):
        return _by_time(table, point, ledger)
    if isinstance(point, date):
        return _by_time(table, datetime.combine(point, time()), ledger)
    snapshot_id = _as_id(point)
    if snapshot_id is not None:
        return _by_id(table, snapshot_id, ledger)
    raise ConfigurationError(
        f"{name_of(table)}: {point!r} is no point in time.",
        remedy="Give a snapshot id, a tag or branch, a datetime, a date, an ISO text or 'N versions ago'.",
    )


def resolve_ref(table: Table, name: str, kind: RefKind) -> ResolvedPoint:
    """Return the snapshot of a tag or of a branch, whatever else its name may mean.

    Raises `NotFoundError` that names those that there are.
    """
    ref = table.metadata.refs.get(name)
    if ref is None or ref.snapshot_ref_type.value != kind:
        raise _unknown_ref(table, name, kind)
    return _by_id(table, ref.snapshot_id, None, f"{kind} {name}")


def versions_of(metadata: TableMetadata, branch: str = MAIN_BRANCH) -> Iterator[Snapshot]:
    """Yield a branch's versions from its head backwards, each as the branch showed it last.

    A replace snapshot, which leaves every row as it was, belongs to the version before it.
    """
    newest: Snapshot | None = None
    for snapshot in branch_history(metadata, branch):
        newest = newest or snapshot
        if snapshot.summary is None or snapshot.summary.operation != Operation.REPLACE:
            yield newest
            newest = None
    if newest is not None:
        yield newest


def _by_text(table: Table, text: str, ledger: ExpiredIntervals | None) -> ResolvedPoint:
    ref = table.metadata.refs.get(text)
    if ref is not None:
        return _by_id(table, ref.snapshot_id, ledger, f"{ref.snapshot_ref_type.value} {text}")
    ago = _VERSIONS_AGO.fullmatch(text)
    if ago:
        return _versions_ago(table, int(ago[1]))
    if text.isascii() and text.isdigit():
        return _by_id(table, int(text), ledger)
    at = _as_time(text)
    if at is not None:
        return _by_time(table, at, ledger)
    raise _unknown(table, text)


def _as_id(point: object) -> int | None:
    """Return the whole number that a point is, of whatever library; a boolean is none."""
    if isinstance(point, SupportsIndex) and not isinstance(point, bool):
        return point.__index__()
    return None


def _as_time(text: str) -> datetime | None:
    """Return the moment that a text in ISO form is; a date alone is its midnight."""
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def _by_id(
    table: Table, snapshot_id: int, ledger: ExpiredIntervals | None, described: str | None = None
) -> ResolvedPoint:
    snapshot = table.snapshot_by_id(snapshot_id)
    if snapshot is None:
        raise explain_missing_id(table, snapshot_id, ledger)
    return _found(table, snapshot, described or f"snapshot {snapshot_id}")


def _by_time(table: Table, point: datetime, ledger: ExpiredIntervals | None) -> ResolvedPoint:
    at = _in_utc(table, point)
    _require_past(table, at)
    shown = shown_at(table, at, ledger)
    snapshot = table.snapshot_by_id(shown.snapshot_id) if shown.known and shown.snapshot_id else None
    if snapshot is None:
        raise explain_missing_moment(table, at, shown)
    return _found(table, snapshot, f"{MAIN_BRANCH} at {at.isoformat()}", by_main=True)


def _in_utc(table: Table, point: datetime) -> datetime:
    try:
        return point.astimezone(UTC) if point.tzinfo else point.replace(tzinfo=UTC)
    except OverflowError:
        raise ConfigurationError(
            f"{name_of(table)}: {point.isoformat()} lies outside of the years 1 to 9999 in UTC.",
            remedy="Give a time at which the table may have had a version.",
        ) from None


def _require_past(table: Table, at: datetime) -> None:
    """Refuse what nobody can know yet; a writer whose clock goes ahead may have made the newest version."""
    if at > max(datetime.now(UTC), moment(table.metadata.last_updated_ms)):
        raise NotFoundError(
            f"{name_of(table)}: {at.isoformat()} lies in the future.",
            remedy="Leave the point out to read what main shows now; a time without a zone is UTC.",
        )


def _versions_ago(table: Table, count: int) -> ResolvedPoint:
    oldest, kept = _head(table), 0
    for kept, oldest in enumerate(versions_of(table.metadata)):
        if kept == count:
            ago = f"{count} version{'' if count == 1 else 's'} ago"
            return _found(table, oldest, ago, by_main=True)
    limit = "its first version is" if oldest.sequence_number == 1 else "the oldest that is kept on main is"
    raise NotFoundError(
        f"{name_of(table)} has no version {count} versions ago: {limit} {kept} versions ago, "
        f"snapshot {oldest.snapshot_id} of {moment(oldest.timestamp_ms).isoformat()}.",
        remedy=f"Go back {kept} versions at most, or name an older one by a tag or its id.",
    )


def _head(table: Table) -> Snapshot:
    head = table.metadata.current_snapshot()
    if head is None:
        raise NotFoundError(f"{name_of(table)} has no version yet.", remedy="Write to it first.")
    return head


def _found(table: Table, snapshot: Snapshot, described: str, *, by_main: bool = False) -> ResolvedPoint:
    committed_at = moment(snapshot.timestamp_ms)
    return ResolvedPoint(name_of(table), snapshot.snapshot_id, described, committed_at, by_main)


def _unknown(table: Table, text: str) -> NotFoundError:
    return NotFoundError(
        f"{name_of(table)} has no tag or branch {text!r}, and that is no snapshot id, no ISO date or time "
        "and not 'N versions ago'.",
        remedy=_meant(text, list(table.metadata.refs)),
    )


def _unknown_ref(table: Table, name: str, kind: RefKind) -> NotFoundError:
    names = [known for known, ref in table.metadata.refs.items() if ref.snapshot_ref_type.value == kind]
    return NotFoundError(f"{name_of(table)} has no {kind} {name!r}.", remedy=_meant(name, names))


def _meant(text: str, names: list[str]) -> str:
    close = get_close_matches(text, names, n=1, cutoff=0.5)
    if close:
        return f"Did you mean {close[0]!r}?"
    return f"It has {', '.join(sorted(names))}." if names else "It has none."
