"""Which writes a version of a table is made of, and which versions of other tables they read.

Told from snapshot summaries alone. A version of a table that grows by many writes is made of all of those
whose rows it may still hold:

- A write that made every row of the version (by its own counts) ends the walk back: nothing older is left.
- A write that replaced the partitions of its run takes those out of which it left no row: earlier ones that
  replaced the same partitions, or some of them.
- Any other write stays part of every later version: an upsert or a delete seldom touches all that another
  one wrote, and the summary does not tell.
- A compaction is no write. A restored part comes from the writes of the version that it was taken from.

So an answer may name a write too many, and never one too few.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from itertools import takewhile

from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.refs import SnapshotRefType
from pyiceberg.table.snapshots import Operation, Snapshot

from dwh_assets.iceberg.modes.plan import ROWS_INSERTED
from dwh_assets.iceberg.move import TAG_PREFIX
from dwh_assets.iceberg.pending import BRANCH_KEY
from dwh_assets.iceberg.row_counts import TOTAL_ROWS
from dwh_assets.iceberg.versions import logical_snapshot_id, moment
from dwh_assets.versioning.history import recorded_inputs

PARTITION_KEY = "dwh.partition-key"
# Says that exactly the rows of the partitions which `PARTITION_KEY` names were replaced, and no others.
REPLACES = "dwh.replaces"
REPLACES_PARTITIONS = "partitions"
RESTORED_FROM = "dwh.restored-from"


@dataclass(frozen=True)
class Read:
    """One write read one version of an input table."""

    table: str
    snapshot_id: int
    by: int
    at: datetime


@dataclass(frozen=True)
class Provenance:
    """The writes that a version is made of, newest first.

    It is not `complete` where older writes, whose rows it may hold, have expired.
    """

    writes: tuple[Snapshot, ...]
    complete: bool

    @property
    def reads(self) -> tuple[Read, ...]:
        """What these writes read, newest write first."""
        return tuple(read for write in self.writes for read in reads_of(write))


def reads_of(write: Snapshot) -> tuple[Read, ...]:
    """Return the versions of other tables that a write recorded as its inputs."""
    at = moment(write.timestamp_ms)
    return tuple(
        Read(table, snapshot_id, write.snapshot_id, at)
        for table, read in sorted(recorded_inputs(entries(write)).items())
        for snapshot_id in read
    )


class History:
    """The kept snapshots of one table, and what each version is made of."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.metadata: TableMetadata = table.metadata
        self.kept = {snapshot.snapshot_id: snapshot for snapshot in table.metadata.snapshots}
        self._provenances: dict[int, Provenance] = {}
        self._before: dict[int, frozenset[int]] = {}

    @property
    def name(self) -> str:
        """`namespace.table`."""
        return ".".join(self.table.name())

    @property
    def head(self) -> int | None:
        """The snapshot that `main` shows now."""
        return self.metadata.current_snapshot_id

    def ancestors(self, snapshot_id: int | None) -> Iterator[Snapshot]:
        """Yield a snapshot and those before it, newest first, as far as they are kept."""
        while snapshot_id is not None and snapshot_id in self.kept:
            yield self.kept[snapshot_id]
            snapshot_id = self.kept[snapshot_id].parent_snapshot_id

    def is_at_or_before(self, older: int, newer: int) -> bool:
        """Tell whether a kept snapshot is another one, or came before it on the way to it.

        Expiry cuts lines: PyIceberg's even forgets who was whose parent. What `main` has shown and is older
        than the cut is taken for what came before it.
        """
        if newer not in self._before:
            self._before[newer] = self._at_or_before(newer)
        return older in self._before[newer]

    def _at_or_before(self, newer: int) -> frozenset[int]:
        line = list(self.ancestors(newer))
        earlier = self._shown_before(line[-1]) if line and self._is_cut(line[-1]) else set()
        return frozenset({snapshot.snapshot_id for snapshot in line} | earlier)

    def was_shown(self, snapshot_id: int) -> bool:
        """Tell whether `main` is known to have shown a kept snapshot, or one that was built on it.

        Where expiry has cut its line and its log, a write of ours says itself whether it was made on `main`.
        """
        if snapshot_id in self._shown:
            return True
        earlier = self.head is not None and self.is_at_or_before(snapshot_id, self.head)
        return earlier and _is_ours(self.kept[snapshot_id])

    @cached_property
    def _shown(self) -> set[int]:
        """What `main` shows, or has shown by its log, or has left in a rollback, each with its ancestors."""
        heads = {self.head, *(entry.snapshot_id for entry in self.metadata.snapshot_log)}
        heads |= {ref.snapshot_id for name, ref in self.metadata.refs.items() if name.startswith(TAG_PREFIX)}
        found: set[int] = set()
        for head in heads:
            line = (snapshot.snapshot_id for snapshot in self.ancestors(head))
            found.update(takewhile(lambda snapshot_id: snapshot_id not in found, line))
        return found

    def _shown_before(self, oldest: Snapshot) -> set[int]:
        """Return the kept snapshots before a cut, without what was written to a branch and never published.

        A branch that was dropped may have left some of that, held by a tag.
        """
        branches = [
            ref.snapshot_id
            for ref in self.metadata.refs.values()
            if ref.snapshot_ref_type == SnapshotRefType.BRANCH and ref.snapshot_id != self.head
        ]
        aside = {snapshot.snapshot_id for head in branches for snapshot in self.ancestors(head)}
        aside |= {i for i, snapshot in self.kept.items() if BRANCH_KEY in entries(snapshot)}
        older = {i for i, snapshot in self.kept.items() if snapshot.timestamp_ms < oldest.timestamp_ms}
        return older - (aside - self._shown)

    @staticmethod
    def _is_cut(oldest: Snapshot) -> bool:
        """Tell whether the oldest kept of a line had a parent; a table's first snapshot is number one."""
        return oldest.parent_snapshot_id is not None or (oldest.sequence_number or 0) > 1

    def logical(self, snapshot_id: int) -> int:
        """Return the newest snapshot that changed rows, from this one backwards; itself if it has expired."""
        found = self.kept.get(snapshot_id)
        return logical_snapshot_id(self.metadata, found) if found else snapshot_id

    def provenance(self, snapshot_id: int) -> Provenance:
        """Return the writes whose rows the version at a kept snapshot may hold."""
        if snapshot_id not in self._provenances:
            self._provenances[snapshot_id] = self._walk(snapshot_id)
        return self._provenances[snapshot_id]

    def _walk(self, snapshot_id: int) -> Provenance:
        """Follow the version's line back, and those of the versions that parts of it were restored from."""
        found: dict[int, Snapshot] = {}
        complete = True
        begun: set[int] = set()
        to_follow = [snapshot_id]
        while to_follow:
            start = to_follow.pop()
            if start in begun:
                continue
            begun.add(start)
            writes, whole = self._line(start)
            found.update((write.snapshot_id, write) for write in writes)
            to_follow += [int(entries(w)[RESTORED_FROM]) for w in writes if RESTORED_FROM in entries(w)]
            complete &= whole
        return Provenance(tuple(sorted(found.values(), key=lambda write: -write.timestamp_ms)), complete)

    def _line(self, snapshot_id: int) -> tuple[list[Snapshot], bool]:
        """Return the writes of one line, newest first, and whether it reaches one that made every row."""
        writes: list[Snapshot] = []
        replaced: set[str] = set()
        for write in self.ancestors(snapshot_id):
            if _is_compaction(write):
                continue
            partitions = _replaced_partitions(write)
            if not partitions or not partitions <= replaced:
                writes.append(write)
            replaced |= partitions
            if _made_every_row(write):
                return writes, True
        return writes, False


def _is_ours(snapshot: Snapshot) -> bool:
    return any(key.startswith("dwh.") for key in entries(snapshot))


def _is_compaction(snapshot: Snapshot) -> bool:
    return snapshot.summary is not None and snapshot.summary.operation == Operation.REPLACE


def _replaced_partitions(write: Snapshot) -> set[str]:
    """Return the partitions that the write replaced; of very many, one name stands for all."""
    found = entries(write)
    if found.get(REPLACES) != REPLACES_PARTITIONS:
        return set()
    named = found.get(PARTITION_KEY, "")
    return {named} if named.endswith(")") else set(filter(None, named.split(",")))


def _made_every_row(write: Snapshot) -> bool:
    """Tell whether every row of the table at this snapshot was written by it, or there is none.

    Files do not tell: a write that changes part of a file writes the rest again. Where the summary has no
    counts of ours, only an append, or a table left empty, is certain.
    """
    found = entries(write)
    if TOTAL_ROWS in found:  # an updated row may keep columns of an earlier write
        return found.get(ROWS_INSERTED, "0") == found[TOTAL_ROWS]
    if found.get("total-data-files") == "0":
        return True
    is_append = write.summary is not None and write.summary.operation == Operation.APPEND
    return is_append and found.get("added-data-files", "0") == found.get("total-data-files")


def entries(snapshot: Snapshot) -> Mapping[str, str]:
    """Return what the snapshot's summary says."""
    return snapshot.summary.additional_properties if snapshot.summary else {}
