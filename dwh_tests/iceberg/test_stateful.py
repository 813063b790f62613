"""Random histories of one table, by our writer and by PyIceberg, against a model in plain Python.

After each step the rows that PyIceberg reads equal the model's, and the totals in the snapshot's summary
equal what the manifests list; every few steps, and at the end for every snapshot, DuckDB's `iceberg`
extension has to agree. Environment: DWH_EXAMPLES (how many histories, 16 unless told).
"""

from __future__ import annotations

import datetime as dt
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from pyiceberg.manifest import DataFileContent, ManifestEntryStatus
from pyiceberg.table import Table
from pyiceberg.transforms import parse_transform
from pyiceberg.types import DateType, DecimalType, DoubleType, IcebergType, IntegerType, LongType, StringType

from dwh_assets.iceberg.results import WriteResult
from dwh_tests.iceberg.conftest import Lake, duckdb_rows, local
from dwh_tests.iceberg.model import Column, Counts, Predicate, TableModel, multiset
from dwh_tests.state_machines import run_histories

EXAMPLES = int(os.environ.get("DWH_EXAMPLES", "16"))
STEPS = 16
INDEPENDENT_EVERY = 4

ARROW = {
    "int": pa.int32(),
    "long": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "decimal(6, 2)": pa.decimal128(6, 2),
    "decimal(12, 2)": pa.decimal128(12, 2),
    "string": pa.string(),
    "date": pa.date32(),
}
ICEBERG: dict[str, IcebergType] = {
    "int": IntegerType(),
    "long": LongType(),
    "double": DoubleType(),
    "decimal(12, 2)": DecimalType(12, 2),
    "string": StringType(),
    "date": DateType(),
}
WIDER = {"int": "long", "float": "double", "decimal(6, 2)": "decimal(12, 2)"}
ADDED_TYPES = ["int", "double", "string", "date"]
NEW_NAMES = ["extra", "more", "other", "note"]

_numbers = st.sampled_from([None, 0.0, -0.0, 1.5, -2.25, float("nan"), float("inf")])
_days = st.sampled_from([None, *(dt.date(2024, month, day) for month in (1, 2, 3) for day in (1, 20))])
_prices = st.sampled_from([None, Decimal("0.00"), Decimal("-1.50"), Decimal("9999.99")])
_texts = st.sampled_from([None, "", "a", "b", "Ä|\\N", "a longer text than bounds keep of it"])
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "int": st.sampled_from([None, 0, 7, -(2**31)]),
    "long": st.sampled_from([None, 0, 7, 2**40]),
    "float": _numbers,
    "double": _numbers,
    "decimal(6, 2)": _prices,
    "decimal(12, 2)": _prices,
    "string": _texts,
    "date": _days,
}
PARTS = ["a", "b", "c"]
# Columns of the same role keep it under any name: `id` and `part` are what keys and partitions are made of.
BASE = [
    Column(1, "id", "int"),
    Column(2, "part", "string"),
    Column(3, "ratio", "float"),
    Column(4, "price", "decimal(6, 2)"),
    Column(5, "day", "date"),
]
ID, PART, DAY = 1, 2, 5


class History(RuleBasedStateMachine):
    """One table in a lake of its own, changed by rules; `model` says what it should hold."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="dwh-history-"))
        self.lake = Lake(self.folder)
        self.model = TableModel(list(BASE))
        self.steps = 0
        self.key_identities = [ID]
        # PyIceberg leaves delete files whose data file it has written again: they count, but mark nothing.
        self.stale_deletes = False

    # --- Names as they are at present ---

    def name(self, identity: int) -> str:
        return next(column.name for column in self.model.columns if column.identity == identity)

    @property
    def keys(self) -> list[str]:
        return [self.name(identity) for identity in self.key_identities]

    @property
    def table(self) -> Table:
        return self.lake.table

    @initialize(composite=st.booleans(), data=st.data())
    def create(self, composite: bool, data: st.DataObject) -> None:
        if composite:
            self.key_identities = [ID, PART]
        layout = data.draw(st.sampled_from([{}, *self._layouts()]), "layout")
        few = {"commit.manifest.min-count-to-merge": "3"}
        self._write(data, "append", layout={**layout, "table_properties": few})

    # --- Our writer ---

    @rule(data=st.data(), evolve=st.sampled_from(["", "", "add", "widen"]))
    def append(self, data: st.DataObject, evolve: str) -> None:
        self._write(data, "append", evolve=evolve)

    @rule(data=st.data(), whole=st.booleans(), evolve=st.sampled_from(["", "", "add", "widen"]))
    def overwrite(self, data: st.DataObject, whole: bool, evolve: str) -> None:
        where, predicate = (None, _everything) if whole else data.draw(self._filters(), "where")
        self._write(data, "overwrite", evolve=evolve, where=where, predicate=predicate)

    @rule(
        data=st.data(),
        evolve=st.sampled_from(["", "", "add", "widen"]),
        row_changes=st.sampled_from(["merge-on-read", "merge-on-read", "copy-on-write"]),
        detect_unchanged=st.sampled_from([True, True, False]),
    )
    def upsert(self, data: st.DataObject, evolve: str, row_changes: str, detect_unchanged: bool) -> None:
        layout = {"row_changes": row_changes, "detect_unchanged": detect_unchanged}
        self._write(data, "upsert", evolve=evolve, layout=layout)

    @rule(data=st.data(), mode=st.sampled_from(["append", "upsert"]))
    def write_into_another_layout(self, data: st.DataObject, mode: str) -> None:
        self._write(data, mode, layout=data.draw(st.sampled_from(self._layouts()), "layout"))

    @precondition(lambda self: self.model.rows)
    @rule(data=st.data())
    def upsert_what_is_there(self, data: st.DataObject) -> None:
        """Rows that the table has already, one in two of them changed in one column."""
        there = {tuple(row[key] for key in self.keys): row for row in self.model.now().named()}
        rows = list(there.values())[: data.draw(st.integers(1, 8), "rows")]
        price = self.name(4)
        rows = [row if number % 2 else {**row, price: Decimal("5.25")} for number, row in enumerate(rows)]
        self._send("upsert", rows, {}, None, _everything)

    # --- PyIceberg ---

    @rule(data=st.data())
    def delete_by_pyiceberg(self, data: st.DataObject) -> None:
        where, predicate = data.draw(self._filters(negated=False), "where")
        note(f"PyIceberg deletes where {where}")
        self.table.delete(where)
        self.stale_deletes |= self._deletes() > 0
        self.model.delete(predicate)
        self._remember()

    @rule(data=st.data())
    def append_by_pyiceberg(self, data: st.DataObject) -> None:
        rows = data.draw(self._rows(), "rows")
        if not rows:
            return
        self.table.append(self._arrow(rows, required=True))
        self.model.append(rows)
        self._remember()

    @rule(type_=st.sampled_from(ADDED_TYPES), name=st.sampled_from(NEW_NAMES))
    def add_column_by_pyiceberg(self, type_: str, name: str) -> None:
        if name in [column.name for column in self.model.columns]:
            return
        with self.table.update_schema() as change:
            change.add_column(name, ICEBERG[type_])
        self.model.add_column(name, type_)

    @rule(data=st.data())
    def rename_column_by_pyiceberg(self, data: st.DataObject) -> None:
        old = data.draw(st.sampled_from([column.name for column in self.model.columns]), "old name")
        taken = {column.name for column in self.model.columns}
        new = data.draw(st.sampled_from([*NEW_NAMES, f"{old}_2", "id", "part"]), "new name")
        if new in taken or self._is_partition_name(new):
            return
        with self.table.update_schema() as change:
            change.rename_column(old, new)
        self.model.rename_column(old, new)

    @rule(data=st.data())
    def widen_column_by_pyiceberg(self, data: st.DataObject) -> None:
        narrow = [column for column in self.model.columns if column.type in WIDER]
        if not narrow:
            return
        column = data.draw(st.sampled_from(narrow), "column")
        wider = WIDER[column.type]
        with self.table.update_schema() as change:
            change.update_column(column.name, field_type=ICEBERG[wider])
        self.model.widen_column(column.name, wider)

    @rule(data=st.data())
    def drop_column_by_pyiceberg(self, data: st.DataObject) -> None:
        """One that nobody partitions by. A later column of the same name is another one."""
        extra = [column.name for column in self.model.columns if column.identity > DAY]
        if not extra:
            return
        name = data.draw(st.sampled_from(extra), "column")
        with self.table.update_schema(allow_incompatible_changes=True) as change:
            change.delete_column(name)
        self.model.drop_column(name)

    @rule(data=st.data(), transform=st.sampled_from(["identity", "bucket[2]", "truncate[1]"]))
    def partition_anew_by_pyiceberg(self, data: st.DataObject, transform: str) -> None:
        table = self.table
        fields = [field.name for field in table.spec().fields]
        name = f"by_{transform.partition('[')[0]}_{len(table.specs())}"
        with table.update_spec() as change:
            for field in fields:
                change.remove_field(field)
            if data.draw(st.booleans(), "partitioned"):
                change.add_field(self.name(PART), parse_transform(transform), name)

    @precondition(lambda self: len(self.model.snapshots) > 1)
    @rule(data=st.data())
    def roll_back_by_pyiceberg(self, data: st.DataObject) -> None:
        table = self.table
        ancestors = [entry.snapshot_id for entry in self._ancestors(table)]
        chosen = data.draw(st.sampled_from(ancestors), "snapshot")
        table.manage_snapshots().rollback_to_snapshot(chosen).commit()
        self.model.roll_back(chosen)
        # What is under the older snapshot may be rid of them, or not: the manifests say so.
        self.stale_deletes |= self._deletes() > 0

    # --- What holds after each step ---

    @invariant()
    def rows_equal_the_model(self) -> None:
        if not self.model.snapshots:
            return
        table = self.table
        expected = multiset(self.model.now().named())
        assert multiset(table.scan().to_arrow().to_pylist()) == expected
        self.steps += 1
        if self.steps % INDEPENDENT_EVERY == 0:
            self._independent_agrees(table)

    @invariant()
    def totals_equal_the_manifests(self) -> None:
        if not self.model.snapshots:
            return
        table = self.table
        snapshot = table.current_snapshot()
        assert snapshot is not None
        assert snapshot.summary is not None
        told = {
            key: int(value)
            for key, value in snapshot.summary.additional_properties.items()
            if key.startswith("total-") and key != "total-equality-deletes"
        }
        assert told == _listed(table)

    def teardown(self) -> None:
        try:
            if self.model.snapshots and sys.exc_info()[0] is None:
                self._every_snapshot_is_as_it_was()
                assert not self.lake.orphans()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    # --- How ---

    def _write(
        self,
        data: st.DataObject,
        mode: str,
        *,
        evolve: str = "",
        layout: Mapping[str, Any] | None = None,
        where: str | None = None,
        predicate: Predicate | None = None,
    ) -> None:
        predicate = predicate or _everything
        if evolve == "add":
            free = sorted(set(NEW_NAMES) - {column.name for column in self.model.columns})
            if free:
                self.model.add_column(free[0], data.draw(st.sampled_from(ADDED_TYPES), "added type"))
        if evolve == "widen":
            narrow = [column for column in self.model.columns if column.type in WIDER]
            if narrow:
                self.model.widen_column(narrow[0].name, WIDER[narrow[0].type])
        rows = [row for row in data.draw(self._rows(), "rows") if predicate(row)]
        if mode == "upsert":
            rows = list({tuple(row[key] for key in self.keys): row for row in rows}.values())
        self._send(mode, rows, layout or {}, where, predicate)

    def _send(
        self,
        mode: str,
        rows: list[dict[str, Any]],
        layout: Mapping[str, Any],
        where: str | None,
        predicate: Predicate,
    ) -> None:
        """Write with our writer, do the same to the model, and compare what both say about it."""
        result = self.lake.write(
            self._arrow(rows), where=where, write_mode=mode, key_columns=self.keys, **layout
        )
        if mode == "append":
            counts = self.model.append(rows)
        elif mode == "overwrite":
            counts = self.model.overwrite(rows, predicate)
        else:
            detect = layout.get("detect_unchanged", True)
            counts = self.model.upsert(rows, self.keys, detect_unchanged=detect)
        self._compare(result, counts)
        if result.changed:
            assert result.snapshot_id not in self.model.snapshots
            self._remember()
            assert result.snapshot_id in self.model.snapshots

    def _compare(self, result: WriteResult, counts: Counts) -> None:
        told = Counts(result.rows_inserted, result.rows_updated, result.rows_deleted, result.rows_unchanged)
        assert told == counts
        if not self.stale_deletes:
            assert result.total_rows == len(self.model.rows)

    def _remember(self) -> None:
        snapshot = self.table.current_snapshot()
        assert snapshot is not None
        if snapshot.snapshot_id not in self.model.snapshots:
            self.model.commit(snapshot.snapshot_id)

    def _rows(self) -> st.SearchStrategy[list[dict[str, Any]]]:
        columns = list(self.model.columns)
        by_column = {column.name: VALUES[column.type] for column in columns}
        by_column[self.name(ID)] = st.integers(0, 11)
        parts = PARTS if PART in self.key_identities else [*PARTS, None]
        by_column[self.name(PART)] = st.sampled_from(parts)
        return st.lists(st.fixed_dictionaries(by_column), max_size=10)

    def _arrow(self, rows: list[dict[str, Any]], *, required: bool = False) -> pa.Table:
        """The rows as Arrow; PyIceberg wants to be told that there are no nulls in keys."""
        fields = [
            pa.field(
                column.name,
                ARROW[column.type],
                nullable=not (required and column.identity in self.key_identities),
            )
            for column in self.model.columns
        ]
        return pa.Table.from_pylist(rows, schema=pa.schema(fields))

    def _layouts(self) -> list[dict[str, Any]]:
        id_, part, day = self.name(ID), self.name(PART), self.name(DAY)
        return [
            {"partition_spec": [{"field": part}]},
            {"partition_spec": [{"field": id_, "transform": "bucket[3]"}]},
            {"partition_spec": [{"field": id_, "transform": "truncate[5]"}, {"field": part}]},
            {"partition_spec": [{"field": day, "transform": "month"}]},
            {"sort_order": [{"field": id_, "direction": "desc"}, {"field": part}]},
            {"partition_spec": [{"field": part}], "sort_order": [{"field": day, "nulls": "last"}]},
        ]

    def _filters(self, *, negated: bool = True) -> st.SearchStrategy[tuple[str, Predicate]]:
        id_, part, day = self.name(ID), self.name(PART), self.name(DAY)
        second = dt.date(2024, 2, 1)
        filters: list[tuple[str, Predicate]] = [
            (f"{part} = 'a'", lambda row: row[part] == "a"),
            (f"{part} is null", lambda row: row[part] is None),
            (f"{id_} >= 6", lambda row: row[id_] >= 6),
            (f"{part} = 'b' and {id_} < 6", lambda row: row[part] == "b" and row[id_] < 6),
            (f"{day} >= '{second}'", lambda row: row[day] is not None and row[day] >= second),
            (f"{part} in ('a', 'c')", lambda row: row[part] in ("a", "c")),
        ]
        if negated:
            filters.append((f"{part} != 'a'", lambda row: row[part] not in (None, "a")))
        return st.sampled_from(filters)

    def _is_partition_name(self, name: str) -> bool:
        return any(field.name == name for spec in self.table.specs().values() for field in spec.fields)

    def _ancestors(self, table: Table) -> list[Any]:
        found = []
        snapshot = table.current_snapshot()
        while snapshot is not None:
            found.append(snapshot)
            parent = snapshot.parent_snapshot_id
            snapshot = table.snapshot_by_id(parent) if parent is not None else None
        return found

    def _deletes(self) -> int:
        return _listed(self.table)["total-position-deletes"]

    def _independent_agrees(self, table: Table) -> None:
        expected = multiset(self.model.now().named())
        assert multiset(duckdb_rows(table.metadata_location).to_pylist()) == expected

    def _every_snapshot_is_as_it_was(self) -> None:
        table = self.table
        for snapshot_id, moment in self.model.snapshots.items():
            expected = multiset(moment.named())
            read = table.scan(snapshot_id=snapshot_id).to_arrow().to_pylist()
            assert multiset(read) == expected
        self._independent_agrees(table)


def _everything(row: Mapping[str, Any]) -> bool:
    return True


def _listed(table: Table) -> dict[str, int]:
    """Count what the manifests of the current snapshot list as live."""
    snapshot = table.current_snapshot()
    assert snapshot is not None
    counts = dict.fromkeys(["records", "files-size", "data-files", "delete-files", "position-deletes"], 0)
    for manifest in snapshot.manifests(table.io):
        for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=False):
            if entry.status == ManifestEntryStatus.DELETED:
                continue
            file = entry.data_file
            is_data = file.content == DataFileContent.DATA
            assert Path(local(file.file_path)).stat().st_size == file.file_size_in_bytes
            counts["files-size"] += file.file_size_in_bytes
            counts["data-files" if is_data else "delete-files"] += 1
            counts["records" if is_data else "position-deletes"] += file.record_count
    return {f"total-{name}": number for name, number in counts.items()}


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_random_histories_hold_what_the_model_says() -> None:
    run_histories(History, examples=EXAMPLES, steps=STEPS)
