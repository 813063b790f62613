"""Manifests stay few however many commits a table has, and say of every file what they said before."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.manifest import ManifestContent, ManifestEntry, ManifestEntryStatus
from pyiceberg.table import Table
from pyiceberg.types import StringType

from dwh_tests.iceberg.conftest import Lake

LEAST = "commit.manifest.min-count-to-merge"
UPSERT: dict[str, Any] = {"write_mode": "upsert", "key_columns": ["id"]}


def rows(*ids: int, text: str = "a") -> pa.Table:
    return pa.table({"id": pa.array(ids, pa.int64()), "text": [text] * len(ids)})


def entries(table: Table) -> dict[str, ManifestEntry]:
    """What the current manifests say of each live file."""
    snapshot = table.current_snapshot()
    assert snapshot is not None
    return {
        entry.data_file.file_path: entry
        for manifest in snapshot.manifests(table.io)
        for entry in manifest.fetch_manifest_entry(table.io)
    }


def manifests(table: Table, content: ManifestContent = ManifestContent.DATA) -> int:
    snapshot = table.current_snapshot()
    assert snapshot is not None
    return sum(manifest.content == content for manifest in snapshot.manifests(table.io))


def test_manifests_are_joined_once_there_are_many(lake: Lake) -> None:
    for number in range(4):
        lake.write(rows(number), table_properties={LEAST: "4"})
    assert manifests(lake.table) == 4
    known = entries(lake.table)
    lake.write(rows(4))
    assert manifests(lake.table) == 2
    after = entries(lake.table)
    assert len(after) == 5
    for path, before in known.items():
        assert after[path].sequence_number == before.sequence_number
        assert after[path].file_sequence_number == before.file_sequence_number
        assert after[path].snapshot_id == before.snapshot_id
        assert after[path].data_file.record_count == 1
    assert lake.column("id") == [0, 1, 2, 3, 4]
    assert lake.orphans() == set()


def test_deletes_are_joined_apart_and_still_hold(lake: Lake) -> None:
    lake.write(rows(*range(10)), **UPSERT, table_properties={LEAST: "3"})
    for number in range(8):
        lake.write(rows(number, text=f"b{number}"), **UPSERT)
    assert manifests(lake.table) <= 4
    assert manifests(lake.table, ManifestContent.DELETES) <= 4
    assert lake.column("text") == sorted(["a", "a", *(f"b{number}" for number in range(8))])


def test_what_a_commit_removes_is_told_by_a_manifest_of_its_own(lake: Lake) -> None:
    for number in range(4):
        lake.write(rows(number), table_properties={LEAST: "3"})
    lake.write(rows(0, text="b"), write_mode="overwrite", where="id = 0")
    table = lake.table
    snapshot = table.current_snapshot()
    assert snapshot is not None
    removed = [
        entry
        for manifest in snapshot.manifests(table.io)
        for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=False)
        if entry.status == ManifestEntryStatus.DELETED
    ]
    assert [entry.snapshot_id for entry in removed] == [snapshot.snapshot_id]
    assert lake.column("text") == ["a", "a", "a", "b"]


def test_each_spec_keeps_manifests_of_its_own(lake: Lake) -> None:
    for spec in ([], [{"field": "text", "transform": "identity"}]):
        for number in range(3):
            lake.write(rows(number), partition_spec=spec, table_properties={LEAST: "3"})
    lake.write(rows(3), partition_spec=[{"field": "text", "transform": "identity"}])
    snapshot = lake.table.current_snapshot()
    assert snapshot is not None
    assert sorted(one.partition_spec_id for one in snapshot.manifests(lake.table.io)) == [0, 1, 1]
    assert lake.column("id") == [0, 0, 1, 1, 2, 2, 3]


@pytest.mark.parametrize(
    "declared",
    [
        {},
        {LEAST: "3", "commit.manifest-merge.enabled": "false"},
        {LEAST: "3", "commit.manifest.target-size-bytes": "1"},
    ],
)
def test_what_the_table_says_of_it_is_kept(lake: Lake, declared: dict[str, str]) -> None:
    for number in range(6):
        lake.write(rows(number), table_properties=declared)
    assert manifests(lake.table) == 6


def test_a_commit_that_was_overtaken_leaves_it_to_the_next(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        lake.write(rows(number), table_properties={LEAST: "3"})
    send, refused = lake.catalog.commit_table, iter([True])

    def refuse_once(*given: Any) -> Any:
        if next(refused, False):
            raise CommitFailedException("somebody else was faster")
        return send(*given)

    monkeypatch.setattr(lake.catalog, "commit_table", refuse_once)
    assert lake.write(rows(3)).attempts == 2
    assert manifests(lake.table) == 4
    assert lake.orphans() == set()


@pytest.mark.parametrize("row_changes", ["merge-on-read", "copy-on-write"])
def test_files_outlast_the_column_that_they_were_partitioned_by(lake: Lake, row_changes: str) -> None:
    keyed: dict[str, Any] = {"write_mode": "upsert", "key_columns": ["id"], "row_changes": row_changes}
    for number in range(4):
        lake.write(rows(number), partition_spec=[{"field": "text"}], table_properties={LEAST: "3"})
    with lake.catalog.load_table(lake.name).update_spec() as spec:
        spec.remove_field("text")
    with lake.catalog.load_table(lake.name).update_schema() as schema:
        schema.delete_column("text")
    lake.write(pa.table({"id": [0, 7]}), **keyed)
    lake.write(pa.table({"id": [8]}))
    with lake.catalog.load_table(lake.name).update_schema() as schema:
        schema.add_column("note", StringType())
    lake.write(pa.table({"id": [1], "note": ["new"]}), **keyed)
    found = lake.table.scan().to_arrow().sort_by("id").to_pylist()  # PyIceberg's; DuckDB dies of such a table
    assert found == [{"id": id_, "note": "new" if id_ == 1 else None} for id_ in (0, 1, 2, 3, 7, 8)]
