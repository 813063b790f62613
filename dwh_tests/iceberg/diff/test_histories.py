"""Random histories, pairs of whose versions are compared: the result is what plain DuckDB says of all rows.

The histories are those of `test_stateful`, with compaction. Environment: DWH_EXAMPLES (how many, 8 unless
told).
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule
from pyiceberg.table import Table

from dwh_assets.iceberg.diff.compare import compare
from dwh_assets.iceberg.diff.version_diff import CHANGE_COLUMNS, VersionDiff
from dwh_tests.iceberg.diff.compaction import compact
from dwh_tests.iceberg.diff.expected import Expected, expected_difference, rows
from dwh_tests.iceberg.model import Moment
from dwh_tests.iceberg.test_stateful import ARROW, WIDER, History
from dwh_tests.state_machines import run_histories

EXAMPLES = int(os.environ.get("DWH_EXAMPLES", "8"))
STEPS = 12
MOST_PAIRS = 12


class ComparedHistory(History):
    """A history whose versions are compared at its end."""

    @precondition(lambda self: self.model.snapshots)
    @rule(data=st.data(), whole=st.booleans())
    def compact(self, data: st.DataObject, whole: bool) -> None:
        files = sorted(file.file_path for file in self.lake.data_files())
        chosen = set(files) if whole else set(files[:: data.draw(st.integers(2, 3), "each")])
        note(f"compacts {len(chosen)} of {len(files)} files")
        compact(self.lake.catalog, self.lake.name, lambda file: file.file_path in chosen)
        self._remember()

    def teardown(self) -> None:
        try:
            if self.model.snapshots and sys.exc_info()[0] is None:
                self._compare_versions()
        finally:
            super().teardown()

    def _compare_versions(self) -> None:
        table = self.lake.table
        ids: list[int | None] = [None, *self.model.snapshots]
        pairs = [(before, after) for before in ids for after in self.model.snapshots]
        for before, after in pairs[:: max(len(pairs) // MOST_PAIRS, 1)]:
            for identities in ([], self.key_identities):
                self._compare_pair(table, before, after, identities)

    def _compare_pair(self, table: Table, before: int | None, after: int, identities: list[int]) -> None:
        moment = self.model.snapshots[after]
        keys = [column.name for column in moment.columns if column.identity in identities]
        with compare(table, before, after, keys=keys) as found:
            expected = expected_difference(self._seen(before, moment), self._seen(after, moment), keys)
            assert (found.rows_added, found.rows_removed, found.rows_modified) == (
                expected.added,
                expected.removed,
                expected.modified,
            )
            changes = found.changes().read_all().to_pylist()
            assert_changes(changes, expected, keys)
            self._each_snapshot(table, found, moment, keys)

    def _each_snapshot(self, table: Table, found: VersionDiff, moment: Moment, keys: list[str]) -> None:
        """Every snapshot's own changes are what it differs in from its parent, in the columns of `after`."""
        changes = found.changes(per_snapshot=True).read_all().to_pylist()
        told = {id_: list(some) for id_, some in groupby(changes, key=lambda row: row["_snapshot_id"])}
        undone = _descent(table, found.from_snapshot_id) - _descent(table, found.to_snapshot_id)
        done = _descent(table, found.to_snapshot_id) - _descent(table, found.from_snapshot_id)
        assert told.keys() <= undone | done
        for id_ in undone | done:
            ends = [table.snapshot_by_id(id_).parent_snapshot_id, id_]  # type: ignore[union-attr]
            if not set(ends) <= {None, *self.model.snapshots}:
                continue  # PyIceberg makes two at once of some deletes, and the model knows the last one
            if id_ in undone:
                ends.reverse()
            old, new = (self._seen(end, moment) for end in ends)
            assert_changes(told.get(id_, []), expected_difference(old, new, keys), keys)

    def _seen(self, snapshot_id: int | None, moment: Moment) -> pa.Table:
        """All rows of a version, in the columns of another moment."""
        held = self.model.snapshots[snapshot_id].rows if snapshot_id is not None else ()
        schema = pa.schema([(c.name, ARROW[WIDER.get(c.type, c.type)]) for c in moment.columns])
        return pa.Table.from_pylist(Moment(moment.columns, held).named(), schema=schema)


def assert_changes(changes: Sequence[dict[str, Any]], expected: Expected, keys: Sequence[str]) -> None:
    """The streamed rows are those that came and went, updates in pairs of the same key."""
    by_type = Counter(row["_change_type"] for row in changes)
    assert by_type == +Counter(
        insert=expected.added,
        delete=expected.removed,
        update_before=expected.modified,
        update_after=expected.modified,
    )
    came = [row for row in changes if row["_change_type"] in ("insert", "update_after")]
    went = [row for row in changes if row["_change_type"] in ("delete", "update_before")]
    assert rows(map(_plain, came)) == expected.came
    assert rows(map(_plain, went)) == expected.went
    for place, row in enumerate(changes):
        if row["_change_type"] == "update_before":
            after = changes[place + 1]
            assert after["_change_type"] == "update_after"
            assert [row[key] for key in keys] == [after[key] for key in keys]


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in CHANGE_COLUMNS.names}


def _descent(table: Table, snapshot_id: int | None) -> set[int]:
    """A snapshot and its ancestors."""
    found = set()
    while snapshot_id is not None:
        found.add(snapshot_id)
        snapshot_id = table.snapshot_by_id(snapshot_id).parent_snapshot_id  # type: ignore[union-attr]
    return found


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_comparisons_of_random_histories_equal_a_full_outer_join() -> None:
    run_histories(ComparedHistory, examples=EXAMPLES, steps=STEPS, shrinks=False)
