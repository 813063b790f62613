"""Versions of one table: how soon the first row of an old one comes, and how much room a hundred take."""

from __future__ import annotations

import shutil

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.table import Table
from pyiceberg.table.refs import SnapshotRefType
from pyiceberg.table.update import AddSnapshotUpdate, SetSnapshotRefUpdate, TableUpdate

from dwh_assets import VersionedDataStore
from dwh_tests.benchmarks.engines.lake import TABLE
from dwh_tests.benchmarks.engines.ours import Append
from dwh_tests.benchmarks.model import Facts

_KEYS = ["l_orderkey", "l_linenumber"]
_TIMES = 20


class FirstRow(Append):
    """The first row of the current version, or of an old one by its moment, twenty times.

    The table's snapshots are made by hand from the only one that was written: they differ in nothing that a
    reader pays for, and a thousand commits would rewrite ever growing metadata.
    """

    def prepare(self) -> None:
        super().open()
        self.subject.write(self.rows)
        snapshots = 1_000 if self.job.size == "full" else 20
        _repeat_snapshot(self.catalog().load_table(TABLE), snapshots - 1)

    def open(self) -> None:
        self.store = VersionedDataStore(self.catalog())
        versions = self.store.history(TABLE)
        middle = versions[len(versions) // 2]
        self.point = middle.committed_at if self.job.options["travels"] else None
        self.wanted = middle.snapshot_id if self.job.options["travels"] else versions[-1].snapshot_id
        self.run()

    def run(self) -> None:
        for _ in range(_TIMES):
            first = next(iter(self.store.scan(TABLE, self.point)))
            self.seen = first.slice(0, 1)

    def facts(self) -> Facts:
        return {"rows": str(self.seen.num_rows)}

    def expected(self) -> Facts:
        found = self.store.resolve(TABLE, self.point).snapshot_id
        return {"rows": "1" if found == self.wanted else f"of snapshot {self.wanted}, not of {found}"}


class Versions(Append):
    """Upsert a share of the rows, drawn at random, again and again: each time is a version."""

    def open(self) -> None:
        super().open()
        shutil.rmtree(self.job.folder / "lake", ignore_errors=True)
        self.changing = self.writer(TABLE, write_mode="upsert", key_columns=_KEYS)

    def run(self) -> None:
        self.subject.write(self.rows)
        random = np.random.default_rng(0)
        count = int(self.rows.num_rows * float(self.job.options["share"]))
        times = int(self.job.options["versions"])
        for _ in range(times if self.job.size == "full" else times // 20):
            drawn = self.rows.take(pa.array(random.choice(self.rows.num_rows, count, replace=False)))
            at = drawn.schema.get_field_index("l_comment")
            changed = pc.utf8_reverse(drawn["l_comment"])
            self.changing.write(drawn.set_column(at, drawn.schema.field(at), changed))

    def stored_bytes(self) -> int:
        return sum(path.stat().st_size for path in (self.job.folder / "lake").rglob("*") if path.is_file())


def _repeat_snapshot(table: Table, times: int) -> None:
    """Give the table so many further versions that hold what its only one holds."""
    snapshot = table.current_snapshot()
    assert snapshot is not None
    updates: list[TableUpdate] = []
    for _ in range(times):
        parent, number = snapshot, (snapshot.sequence_number or 0) + 1
        snapshot = parent.model_copy(
            update={
                "snapshot_id": parent.snapshot_id + 1,
                "parent_snapshot_id": parent.snapshot_id,
                "sequence_number": number,
                "timestamp_ms": parent.timestamp_ms + 1,
            }
        )
        updates += [AddSnapshotUpdate(snapshot=snapshot), _main_at(snapshot.snapshot_id)]
    table.catalog.commit_table(table, (), tuple(updates))


def _main_at(snapshot_id: int) -> SetSnapshotRefUpdate:
    return SetSnapshotRefUpdate(
        ref_name="main",
        type=SnapshotRefType.BRANCH,
        snapshot_id=snapshot_id,
        max_ref_age_ms=None,
        max_snapshot_age_ms=None,
        min_snapshots_to_keep=None,
    )
