"""What to say of a version that is not there: why, and what is there instead."""

from __future__ import annotations

from datetime import datetime, timedelta

from pyiceberg.table import Table
from pyiceberg.table.refs import SnapshotRefType
from pyiceberg.table.snapshots import Snapshot

from dwh_assets.errors import NotFoundError
from dwh_assets.iceberg.versions import moment
from dwh_assets.versioning.shown import ExpiredIntervals, Shown

_KEPT_FOR = "history.expire.max-snapshot-age-ms"
_DATE_IN_DIGITS = 8
_SHOWN_TAGS = 5


def explain_missing_id(table: Table, snapshot_id: int, ledger: ExpiredIntervals | None) -> NotFoundError:
    """Return the error for a snapshot id that the table does not have."""
    name = ".".join(table.name())
    recorded = ledger.expired_intervals(name) if ledger else ()
    reason = next((gone.reason for gone in recorded if gone.snapshot_id == snapshot_id), None)
    if reason is not None:
        why = f"it was expired by {reason}"
    elif any(snapshot.parent_snapshot_id == snapshot_id for snapshot in table.metadata.snapshots):
        why = "it was expired"
    else:
        why = "it was expired, or never was"
    date_hint = " A date is written 2026-01-31." if len(str(snapshot_id)) == _DATE_IN_DIGITS else ""
    return NotFoundError(
        f"{name} has no snapshot {snapshot_id}: {why}. {_kept(table)}", remedy=_remedy(table) + date_hint
    )


def explain_missing_moment(table: Table, at: datetime, shown: Shown) -> NotFoundError:
    """Return the error for a moment of which the table has no version (any more)."""
    name, when = ".".join(table.name()), at.isoformat()
    if shown.known and shown.snapshot_id is None:
        return NotFoundError(
            f"{name} has no version before {when}: nothing had been written yet. {_kept(table)}",
            remedy=_remedy(table),
        )
    policy = f"by {shown.reason}" if shown.reason else _by_property(table)
    expired = f"expired {policy}".rstrip()
    if shown.known:
        told = f"main showed snapshot {shown.snapshot_id} then, which was {expired}"
    elif shown.snapshot_id is None:
        told = f"what main showed then was {expired}"
    else:
        told = (
            f"main showed snapshot {shown.snapshot_id} before, but others were {expired} since, "
            "and one of them may have followed by then"
        )
    return NotFoundError(f"{name} has no version of {when}: {told}. {_kept(table)}", remedy=_remedy(table))


def _by_property(table: Table) -> str:
    """Return the table's own policy, where it declares one."""
    age = table.metadata.properties.get(_KEPT_FOR)
    if age is None or not age.isdigit():
        return ""
    return f"by policy ({_KEPT_FOR}: {timedelta(milliseconds=int(age))})"


def _kept(table: Table) -> str:
    kept = table.metadata.snapshots
    if not kept:
        return "It has no version at all."
    oldest = min(kept, key=lambda snapshot: snapshot.timestamp_ms)
    return f"The oldest kept snapshot is {_shown(oldest)}."


def _shown(snapshot: Snapshot) -> str:
    return f"{snapshot.snapshot_id} of {moment(snapshot.timestamp_ms).isoformat(timespec='milliseconds')}"


def _remedy(table: Table) -> str:
    tags = [n for n, r in table.metadata.refs.items() if r.snapshot_ref_type == SnapshotRefType.TAG]
    more = ", …" if len(tags) > _SHOWN_TAGS else ""
    named = f" or a tag: {', '.join(sorted(tags)[:_SHOWN_TAGS])}{more}" if tags else ""
    return f"See the table's history; name a version that it keeps{named}."
