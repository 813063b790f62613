"""The store reads a version as it was, in the form that is asked for, and names and forgets versions."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from dwh_assets import VersionedDataStore
from dwh_assets.errors import ConfigurationError, NotFoundError
from dwh_assets.versioning.history import history_table
from dwh_tests.iceberg.conftest import TABLE, Lake, duckdb_rows


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """Three versions: the second has a column more, the third another row and no longer the first one."""
    lake = Lake(tmp_path)
    lake.write(pa.table({"id": [1, 2], "place": ["eu", "us"]}))
    more = pa.table({"id": [2, 3], "place": ["us", "eu"], "price": [2.5, 3.5]})
    lake.write(more, write_mode="upsert", key_columns=["id"])
    lake.write(
        pa.table({"id": [4], "place": ["eu"], "price": [4.5]}),
        write_mode="overwrite",
        where="id = 1 or id = 4",
    )
    return lake


@pytest.fixture
def store(lake: Lake) -> VersionedDataStore:
    return VersionedDataStore(lake.catalog)


def sorted_ids(rows: Any) -> list[int]:
    return sorted(rows["id"].to_pylist() if isinstance(rows, pa.Table) else list(rows["id"]))


def snapshots_of(lake: Lake) -> list[int]:
    return [snapshot["snapshot-id"] for snapshot in lake.metadata["snapshots"]]


def test_every_version_reads_as_another_reader_reads_it(lake: Lake, store: VersionedDataStore) -> None:
    for snapshot_id in snapshots_of(lake):
        read = store.scan(TABLE, snapshot_id).read_all().sort_by("id").to_pylist()
        expected = duckdb_rows(lake.table.metadata_location, snapshot_id).sort_by("id").to_pylist()
        assert [{**row, "price": row.get("price")} for row in read] == [
            {"price": None, **row} for row in expected
        ]


def test_a_version_has_the_columns_that_it_had(store: VersionedDataStore) -> None:
    assert store.scan(TABLE, "2 versions ago").schema.names == ["id", "place"]
    assert store.scan(TABLE).schema.names == ["id", "place", "price"]
    with pytest.raises(NotFoundError, match="no column 'price'"):
        store.scan(TABLE, "2 versions ago", columns=["price"])


def test_a_version_comes_in_any_form(store: VersionedDataStore) -> None:
    frame = store.time_travel(TABLE, "1 version ago")
    assert isinstance(frame, pd.DataFrame)
    assert sorted_ids(frame) == [1, 2, 3]
    batches = store.scan(TABLE, "1 version ago")
    assert isinstance(batches, pa.RecordBatchReader)
    assert sorted_ids(batches.read_all()) == [1, 2, 3]
    relation = store.relation(TABLE, "1 version ago")
    assert isinstance(relation, duckdb.DuckDBPyRelation)
    assert relation.aggregate("count(*), sum(id)").fetchall() == [(3, 6)]
    lazy = store.polars(TABLE, "1 version ago")
    assert isinstance(lazy, pl.LazyFrame)
    assert sorted_ids(lazy.collect()) == [1, 2, 3]


def test_only_what_is_asked_for_is_read(store: VersionedDataStore) -> None:
    kept: dict[str, Any] = {"columns": ["id"], "where": "place = 'eu'"}
    for rows in (
        store.scan(TABLE, "1 version ago", **kept).read_all(),
        store.time_travel(TABLE, "1 version ago", **kept),
        store.polars(TABLE, "1 version ago", **kept).collect(),
    ):
        assert sorted_ids(rows) == [1, 3]
    assert store.scan(TABLE, columns=["id"]).schema.names == ["id"]


def test_a_named_version_is_listed_read_and_forgotten(lake: Lake, store: VersionedDataStore) -> None:
    head = snapshots_of(lake)[-1]
    assert store.create_version(TABLE, tag="q3") == str(head)
    assert store.create_version(TABLE, tag="q2", at="2 versions ago") == str(snapshots_of(lake)[0])
    permissive = {"mode": "permissive"}
    lake.write(pa.table({"id": [9]}), write_mode="overwrite", schema_evolution=permissive)
    assert sorted_ids(store.time_travel(TABLE, "q3")) == [2, 3, 4]
    assert [(ref.name, ref.kind) for ref in store.list_versions(TABLE)] == [
        ("main", "branch"),
        ("q2", "tag"),
        ("q3", "tag"),
    ]
    store.delete_version(TABLE, "q3")
    with pytest.raises(NotFoundError, match="Did you mean 'q2'"):
        store.time_travel(TABLE, "q3")


def test_a_version_without_a_name_gets_one(lake: Lake, store: VersionedDataStore) -> None:
    head = str(snapshots_of(lake)[-1])
    assert store.create_version(TABLE, lifetime=timedelta(days=1)) == head
    assert store.create_version(TABLE) == head
    (named,) = [ref for ref in store.list_versions(TABLE) if ref.kind == "tag"]
    assert (named.name, named.expires_at) == (f"version-{head}", None)


def test_a_name_is_given_once(store: VersionedDataStore) -> None:
    store.create_version(TABLE, tag="q3")
    with pytest.raises(ConfigurationError, match="has a tag 'q3' already"):
        store.create_version(TABLE, tag="q3")


def test_a_branch_begins_at_a_point_and_ends(lake: Lake, store: VersionedDataStore) -> None:
    store.create_branch(TABLE, "trial", at="1 version ago", lifetime=timedelta(days=7))
    lake.write(pa.table({"id": [9]}), branch="trial", schema_evolution={"mode": "permissive"})
    assert sorted_ids(store.time_travel(TABLE, "trial")) == [1, 2, 3, 9]
    assert sorted_ids(store.time_travel(TABLE)) == [2, 3, 4]
    kept = store.keep_version(TABLE, "trial", None)
    assert kept.expires_at is None
    store.drop_branch(TABLE, "trial")
    assert [ref.name for ref in store.list_versions(TABLE)] == ["main"]


def test_an_unknown_table_is_told(store: VersionedDataStore) -> None:
    for call in (store.history, store.time_travel, store.create_version, store.list_versions):
        with pytest.raises(NotFoundError, match=r"has no table shop\.nothing"):
            call("shop.nothing")


def test_the_store_opens_a_catalog_by_its_configuration(lake: Lake) -> None:
    opened = VersionedDataStore({"kind": "sql", **lake.properties})
    assert sorted_ids(opened.time_travel(TABLE)) == [2, 3, 4]


def test_a_described_version_is_the_one_in_the_history(lake: Lake, store: VersionedDataStore) -> None:
    store.create_version(TABLE, tag="q3")
    described = store.describe_version(TABLE, "q3")
    assert described == store.history(TABLE)[-1]
    assert described.refs == ("main", "q3")
    assert history_table(store.history(TABLE))["snapshot_id"].to_pylist() == snapshots_of(lake)
