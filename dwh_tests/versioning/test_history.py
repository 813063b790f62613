"""The history tells of each snapshot what its metadata file says, and of what is gone what is known."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from dwh_assets.iceberg.refs import create_branch, create_tag
from dwh_assets.versioning.history import history, history_table
from dwh_tests.iceberg.conftest import TABLE, Lake
from dwh_tests.versioning.test_points import Expired, Ledger, append, expire, ids, move_main, shown_from

RUN = {"dwh.run-id": "run-1", "dwh.asset-key": "iceberg/shop/orders", "dwh.partition-key": "2024-01-01"}
INPUTS = {"dwh.input.shop.sales": "11", "dwh.input.shop.places": "12,13"}


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(tmp_path)
    append(lake, 1)
    writer = lake.writer(write_mode="upsert", key_columns=["id"])
    writer.write(pa.table({"id": [1, 2, 3], "more": ["a", "b", "c"]}), summary={**RUN, **INPUTS})
    lake.write(pa.table({"id": [5], "more": ["d"]}), write_mode="overwrite", where="id = 5")
    return lake


def test_a_version_tells_what_made_it_and_what_it_changed(lake: Lake) -> None:
    first, second, _ = ids(lake)
    version = history(lake.table)[1]
    assert (version.snapshot_id, version.parent_snapshot_id, version.logical_snapshot_id) == (
        second,
        first,
        second,
    )
    assert (version.run_id, version.asset_key, version.partition_key) == tuple(RUN.values())
    assert version.inputs == {"shop.sales": (11,), "shop.places": (12, 13)}
    assert (version.rows_inserted, version.rows_updated, version.rows_deleted) == (2, 1, 0)
    assert [version.total_rows for version in history(lake.table)] == [1, 3, 4]
    assert version.shown_from == (shown_from(lake)[1][0],)


def test_names_and_main_are_told(lake: Lake) -> None:
    first, second, third = ids(lake)
    create_tag(lake.catalog, lake.table, "q3", first)
    create_branch(lake.catalog, lake.table, "trial", second)
    lake.write(pa.table({"id": [9]}), branch="trial", schema_evolution={"mode": "permissive"})
    move_main(lake, second)
    on_trial = ids(lake)[-1]
    told = {version.snapshot_id: version for version in history(lake.table)}
    assert {id_: version.refs for id_, version in told.items()} == {
        first: ("q3",),
        second: ("main",),
        third: (),
        on_trial: ("trial",),
    }
    assert {id_ for id_, version in told.items() if version.on_main} == {first, second}
    assert len(told[second].shown_from) == 2
    assert told[on_trial].shown_from == ()


def test_of_other_engines_the_rows_of_files_are_told(lake: Lake) -> None:
    lake.table.append(pa.table({"id": [7, 8], "more": ["x", "y"]}))
    version = history(lake.table)[-1]
    assert (version.rows_inserted, version.rows_updated, version.rows_deleted) == (2, None, 0)
    assert (version.run_id, version.inputs) == (None, {})


def test_what_is_gone_is_counted_and_named_where_it_is_recorded(lake: Lake) -> None:
    first, second, third = ids(lake)
    shown = shown_from(lake)
    expire(lake, second)
    assert [(version.snapshot_id, version.gone_before) for version in history(lake.table)] == [
        (first, 0),
        (third, 1),
    ]
    ledger = Ledger([Expired(second, shown[1][0], shown[2][0])])
    kept, gone, _ = history(lake.table, ledger)
    assert (kept.kept, gone.kept, gone.snapshot_id) == (True, False, second)
    assert (gone.expired_by, gone.shown_from, gone.total_rows) == ("policy keep-7-days", (shown[1][0],), None)


def test_a_history_goes_into_json_and_arrow(lake: Lake) -> None:
    versions = history(lake.table, Ledger([Expired(77, None, None)]))
    written = json.loads(json.dumps([version.to_dict() for version in versions]))
    assert [version["snapshot_id"] for version in written] == ["77", *map(str, ids(lake))]
    assert written[2]["inputs"] == {"shop.sales": ["11"], "shop.places": ["12", "13"]}
    assert datetime.fromisoformat(written[2]["committed_at"]) == shown_from(lake)[1][0]
    rows = history_table(versions)
    assert rows["snapshot_id"].to_pylist() == [77, *ids(lake)]
    assert rows["inputs"].to_pylist()[2] == [("shop.sales", [11]), ("shop.places", [12, 13])]
    assert rows["committed_at"].to_pylist()[2] == shown_from(lake)[1][0].astimezone(UTC)
    assert rows["kept"].to_pylist() == [False, True, True, True]


def test_a_table_without_versions_has_an_empty_history(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lake.catalog.create_namespace("shop")
    table = lake.catalog.create_table(TABLE, pa.schema([("id", pa.int64())]))
    assert history(table) == []
    assert history_table([]).num_rows == 0
