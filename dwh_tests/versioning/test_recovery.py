"""Random histories of one table: every version ever named and every moment reads back as it was, until gone.

A model in plain Python writes down at each step which rows main held; whatever is asked afterwards has to be
exactly that, or an error once expiry took it, never something else. Environment: DWH_EXAMPLES (how many
histories, 16 unless told).
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
)

from dwh_assets import VersionedDataStore
from dwh_assets.errors import NotFoundError
from dwh_assets.versioning.points import Point
from dwh_tests.iceberg.conftest import TABLE, Lake, local
from dwh_tests.state_machines import run_histories

EXAMPLES = int(os.environ.get("DWH_EXAMPLES", "16"))
STEPS = 14

Rows = dict[int, int]
_rows = st.dictionaries(st.integers(0, 5), st.integers(0, 9), min_size=1, max_size=4)


def _one_of(snapshot_ids: list[int]) -> st.SearchStrategy[int]:
    """One of them by its place: ids are never the same twice, and a failing history has to be."""
    return st.integers(0, len(snapshot_ids) - 1).map(lambda place: snapshot_ids[place])


@dataclass
class Model:
    """What each snapshot held (id and value), on what it was built, and what main showed when."""

    rows: dict[int, Counter[tuple[int, int]]] = field(default_factory=dict)
    parent: dict[int, int | None] = field(default_factory=dict)
    tags: dict[str, int] = field(default_factory=dict)
    moments: list[tuple[datetime, int]] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)
    head: int | None = None

    def line(self) -> list[int]:
        """Main's snapshots from its head backwards, expired ones too."""
        found, snapshot_id = [], self.head
        while snapshot_id is not None:
            found.append(snapshot_id)
            snapshot_id = self.parent[snapshot_id]
        return found


class Recovery(RuleBasedStateMachine):
    """One table, changed by rules; `remembers` tells whether old metadata files are kept."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="dwh-recovery-"))
        self.lake = Lake(self.folder)
        self.model = Model()
        self.store = VersionedDataStore(self.lake.catalog)

    # --- What changes the table ---

    @initialize(rows=_rows)
    def create(self, rows: Rows) -> None:
        self.append(rows)

    @rule(rows=_rows)
    def append(self, rows: Rows) -> None:
        self._write(rows, self._held() + Counter(rows.items()), "append")

    @rule(rows=_rows)
    def overwrite(self, rows: Rows) -> None:
        self._write(rows, Counter(rows.items()), "overwrite")

    @precondition(lambda self: self._has_unique_ids())
    @rule(rows=_rows)
    def upsert(self, rows: Rows) -> None:
        self._write(rows, Counter((dict(self._held().elements()) | rows).items()), "upsert")

    @rule(data=st.data())
    def move_main(self, data: st.DataObject) -> None:
        """Roll back to, or forward to, anything that is kept."""
        target = data.draw(_one_of(self.model.kept), "target")
        self.lake.table.manage_snapshots().set_current_snapshot(target).commit()
        self.model.head = target
        self._look()

    @rule(data=st.data())
    def tag(self, data: st.DataObject) -> None:
        target = data.draw(_one_of(self.model.kept), "target")
        name = f"tag-{len(self.model.tags)}"
        assert self.store.create_version(TABLE, tag=name, at=target) == str(target)
        self.model.tags[name] = target
        self._look()

    @rule(data=st.data())
    def expire(self, data: st.DataObject) -> None:
        held = {self.model.head, *self.model.tags.values()}
        free = [snapshot_id for snapshot_id in self.model.kept if snapshot_id not in held]
        gone = data.draw(st.lists(_one_of(free), unique=True), "gone") if free else []
        if gone:
            self.lake.table.maintenance.expire_snapshots().by_ids(gone).commit()
            self.model.kept = [id_ for id_ in self.model.kept if id_ not in gone]
            self._look()

    # --- What must hold then ---

    def teardown(self) -> None:
        try:
            if self.model.head is not None:
                self._check_names()
                self._check_moments(exact=True)
                for entry in self.lake.metadata["metadata-log"]:
                    Path(local(entry["metadata-file"])).unlink()
                self._check_moments(exact=False)
        finally:
            shutil.rmtree(self.folder)

    def _check_names(self) -> None:
        for name, snapshot_id in self.model.tags.items():
            self._require(name, snapshot_id)
        for snapshot_id in self.model.rows:
            self._require(snapshot_id, snapshot_id if snapshot_id in self.model.kept else None)
        reachable = True
        for number, snapshot_id in enumerate(self.model.line()):
            reachable = reachable and snapshot_id in self.model.kept
            self._require(f"{number} versions ago", snapshot_id if reachable else None)

    def _check_moments(self, *, exact: bool) -> None:
        """Unless `exact`, a miss is allowed, and the neighbour is not."""
        for at, snapshot_id in self.model.moments:
            wanted = snapshot_id if snapshot_id in self.model.kept else None
            if exact or wanted is None or self._is_found(at):
                self._require(at, wanted)

    def _is_found(self, at: datetime) -> bool:
        try:
            self.store.resolve(TABLE, at)
        except NotFoundError:
            return False
        return True

    def _require(self, point: Point, snapshot_id: int | None) -> None:
        """The point reads the rows of that snapshot; None: it is gone, and the error says so."""
        if snapshot_id is None:
            with pytest.raises(NotFoundError, match=r"expired|kept on main"):
                self.store.resolve(TABLE, point)
            return
        found = self.store.scan(TABLE, point).read_all()
        rows = zip(found["id"].to_pylist(), found["value"].to_pylist(), strict=True)
        assert Counter(rows) == self.model.rows[snapshot_id], point

    # --- Helpers ---

    def _held(self) -> Counter[tuple[int, int]]:
        return self.model.rows[self.model.head] if self.model.head is not None else Counter()

    def _has_unique_ids(self) -> bool:
        counts = Counter(id_ for id_, _ in self._held().elements())
        return all(count == 1 for count in counts.values())

    def _write(self, rows: Rows, after: Counter[tuple[int, int]], mode: str) -> None:
        data = pa.table({"id": list(rows), "value": list(rows.values())})
        keys = ["id"] if mode == "upsert" else []
        written = self.lake.write(data, write_mode=mode, key_columns=keys).snapshot_id
        assert written is not None
        if written != self.model.head:
            self.model.rows[written], self.model.parent[written] = after, self.model.head
            self.model.kept.append(written)
            self.model.head = written
        self._look()

    def _look(self) -> None:
        """Write down what main shows at a moment of its own."""
        time.sleep(0.003)
        assert self.model.head is not None
        self.model.moments.append((datetime.now(UTC), self.model.head))
        time.sleep(0.003)


@pytest.mark.slow
def test_what_was_is_read_back_or_told_to_be_gone() -> None:
    run_histories(Recovery, examples=EXAMPLES, steps=STEPS)
