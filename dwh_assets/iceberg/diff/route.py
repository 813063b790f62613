"""The way from one version of a table to another: which snapshots' changes lie between them.

From `before` back to the newest common ancestor, and from there on to `after`. Replace snapshots leave
every row as it was, so they are left out: what remains are stretches between them, each of which is
compared by its end points.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from pyiceberg.io import FileIO
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Operation, Snapshot

from dwh_assets.iceberg.ancestry import ancestors

_EXPIRED = (
    "Snapshots between the two versions are expired: they are compared by their end points, and what each "
    "snapshot changed is not known."
)


class Stretch(NamedTuple):
    """From the rows of one snapshot to those of another; None is the empty table."""

    before: int | None
    after: int | None


@dataclass(frozen=True)
class Step:
    """What one snapshot changed, or, where it is `undone`, what taking it back changes."""

    snapshot: Snapshot
    undone: bool = False

    @property
    def stretch(self) -> Stretch:
        """From where to where it leads."""
        parent, own = self.snapshot.parent_snapshot_id, self.snapshot.snapshot_id
        return Stretch(own, parent) if self.undone else Stretch(parent, own)


@dataclass(frozen=True)
class Route:
    """How to get from `before` to `after`.

    `steps` are the changes of single snapshots in order, replace snapshots left out; None where expiry
    took some of them, so that only the end points can be compared.
    """

    ends: Stretch
    steps: tuple[Step, ...] | None = None
    seen_through: int = 0
    notes: tuple[str, ...] = field(default=())

    def stretches(self) -> list[Stretch]:
        """Join steps that follow upon each other; a snapshot that was left out parts them."""
        joined: list[Stretch] = []
        for step in self.steps or ():
            before, after = step.stretch
            if joined and joined[-1].after == before:
                joined[-1] = Stretch(joined[-1].before, after)
            else:
                joined.append(Stretch(before, after))
        return joined


def find_route(table: Table, before: int | None, after: int) -> Route:
    """Find the way between two snapshots of the table, both of which are there."""
    ends = Stretch(before, after)
    forth, back = (list(ancestors(table.metadata, end)) for end in (after, before))
    meeting = _common_ancestor(back, forth)
    if meeting is None and not (_is_whole(back, table.io) and _is_whole(forth, table.io)):
        return Route(ends, notes=(_EXPIRED,))
    undone = [Step(snapshot, undone=True) for snapshot in _until(back, meeting)]
    done = [Step(snapshot) for snapshot in reversed(list(_until(forth, meeting)))]
    steps = tuple(step for step in (*undone, *done) if not _is_replace(step.snapshot))
    return Route(ends, steps, len(undone) + len(done) - len(steps), _through(before, after, meeting))


def parting(table: Table, one: int, other: int) -> int | None:
    """Return the newest snapshot that is on the way to both; None where it is not kept, or never was."""
    lines = (list(ancestors(table.metadata, head)) for head in (one, other))
    return _common_ancestor(*lines)


def _common_ancestor(one: Sequence[Snapshot], other: Sequence[Snapshot]) -> int | None:
    ids = {snapshot.snapshot_id for snapshot in other}
    return next((snapshot.snapshot_id for snapshot in one if snapshot.snapshot_id in ids), None)


def _is_whole(history: Sequence[Snapshot], io: FileIO) -> bool:
    """Tell whether a history is kept from the empty table on.

    A parent that is expired may have been taken out of its child, whose files then came from nowhere.
    """
    if not history:
        return True
    first = history[-1]
    return first.parent_snapshot_id is None and all(
        manifest.added_snapshot_id == first.snapshot_id
        and not manifest.has_existing_files()
        and not manifest.deleted_files_count
        for manifest in first.manifests(io)
    )


def _until(history: Sequence[Snapshot], end: int | None) -> Iterator[Snapshot]:
    for snapshot in history:
        if snapshot.snapshot_id == end:
            return
        yield snapshot


def _is_replace(snapshot: Snapshot) -> bool:
    return snapshot.summary is not None and snapshot.summary.operation == Operation.REPLACE


def _through(before: int | None, after: int, meeting: int | None) -> tuple[str, ...]:
    if meeting == before:
        return ()
    where = "the empty table" if meeting is None else f"snapshot {meeting}"
    if meeting == after:
        return (f"Snapshot {before} is a descendant of {after}: its changes are taken back.",)
    return (f"Snapshots {before} and {after} are compared through their common ancestor, {where}.",)
