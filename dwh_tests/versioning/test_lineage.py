"""Lineage told from summaries, against what each write of the test is known to have read."""

import json
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.expressions import AlwaysTrue

from dwh_assets.errors import NotFoundError
from dwh_assets.versioning.lineage import Lineage, lineage
from dwh_tests.versioning.graph import GraphLake


def inputs(found: Lineage) -> dict[str, set[int]]:
    return {table: set(ids) for table, ids in found.root.inputs.items()}


def named(found: Lineage) -> set[tuple[str, int]]:
    return {(version.table, version.snapshot_id) for version in found.versions}


def test_a_version_leads_to_its_inputs_and_theirs_and_each_is_told_once(graph: GraphLake) -> None:
    raw = graph.write("shop.raw", [1, 2])
    left = graph.write("shop.left", [1], reads={"shop.raw": raw})
    right = graph.write("shop.right", [2], reads={"shop.raw": raw})
    graph.write("shop.raw", [9])
    top = graph.write("mart.top", [3], reads={"shop.left": left, "shop.right": right})
    graph.write("shop.left", [9], reads={"shop.raw": graph.head("shop.raw")})

    found = lineage(graph.catalog, "mart.top")
    assert [(version.table, version.snapshot_id) for version in found.versions] == [
        ("mart.top", top), ("shop.left", left), ("shop.right", right), ("shop.raw", raw),
    ]  # fmt: skip
    assert found.root.run_id == "run-5"
    snapshot = graph.table("mart.top").current_snapshot()
    assert found.root.committed_at is not None
    assert snapshot is not None
    assert round(found.root.committed_at.timestamp() * 1000) == snapshot.timestamp_ms
    assert all(version.complete and version.status == "kept" for version in found.versions)
    told = json.loads(json.dumps(found.to_dict()))["versions"][0]
    assert told["inputs"] == {"shop.left": [str(left)], "shop.right": [str(right)]}
    assert f"shop.left at `{left}`" in found.to_markdown()


def test_an_older_version_is_asked_for_by_its_snapshot(graph: GraphLake) -> None:
    raw = graph.write("shop.raw", [1])
    first = graph.write("mart.top", [1], reads={"shop.raw": raw})
    newer = graph.write("shop.raw", [2])
    graph.write("mart.top", [2], reads={"shop.raw": newer})
    assert inputs(lineage(graph.catalog, "mart.top", first)) == {"shop.raw": {raw}}
    assert inputs(lineage(graph.catalog, "mart.top")) == {"shop.raw": {newer}}


def test_what_grows_by_appends_was_made_from_all_that_these_read(graph: GraphLake) -> None:
    first = graph.write("shop.raw", [1])
    graph.write("mart.grown", [1], reads={"shop.raw": first}, write_mode="append")
    second = graph.write("shop.raw", [2])
    graph.write("mart.grown", [2], reads={"shop.raw": second}, write_mode="append")
    assert inputs(lineage(graph.catalog, "mart.grown")) == {"shop.raw": {first, second}}
    third = graph.write("shop.raw", [3])
    graph.write("mart.grown", [7], reads={"shop.raw": third})
    assert inputs(lineage(graph.catalog, "mart.grown")) == {"shop.raw": {third}}


def test_an_upsert_of_every_row_does_not_end_what_earlier_writes_read(graph: GraphLake) -> None:
    """It may leave columns as they were; a merge sets some of them."""
    upsert: dict[str, Any] = {"write_mode": "upsert", "key_columns": ["id"]}
    for value, raw in enumerate([graph.write("shop.raw", [1]), graph.write("shop.raw", [2])]):
        graph.write("mart.kept", pa.table({"id": [1], "value": [value]}), reads={"shop.raw": raw}, **upsert)
    assert len(inputs(lineage(graph.catalog, "mart.kept"))["shop.raw"]) == 2


def month(graph: GraphLake, key: str, raw: int, ids: list[int]) -> int:
    rows = pa.table({"id": ids, "month": [key] * len(ids)})
    told = {"dwh.partition-key": key, "dwh.replaces": "partitions"}
    return graph.write("mart.months", rows, reads={"shop.raw": raw}, where=f"month = '{key}'", summary=told)


def test_a_partition_that_was_computed_again_is_made_from_what_that_read(graph: GraphLake) -> None:
    raws = [graph.write("shop.raw", [number]) for number in range(4)]
    month(graph, "jan", raws[0], [1])
    month(graph, "feb", raws[1], [2])
    assert inputs(lineage(graph.catalog, "mart.months")) == {"shop.raw": {raws[0], raws[1]}}
    before = month(graph, "jan", raws[2], [3, 4])
    assert inputs(lineage(graph.catalog, "mart.months")) == {"shop.raw": {raws[1], raws[2]}}
    month(graph, "feb", raws[3], [])
    assert inputs(lineage(graph.catalog, "mart.months")) == {"shop.raw": {raws[2], raws[3]}}
    assert inputs(lineage(graph.catalog, "mart.months", before)) == {"shop.raw": {raws[1], raws[2]}}


def test_a_write_of_two_partitions_stays_until_both_were_computed_again(graph: GraphLake) -> None:
    raws = [graph.write("shop.raw", [number]) for number in range(3)]
    rows = pa.table({"id": [1, 2], "month": ["jan", "feb"]})
    told = {"dwh.partition-key": "jan,feb", "dwh.replaces": "partitions"}
    graph.write("mart.months", rows, reads={"shop.raw": raws[0]}, summary=told)
    month(graph, "jan", raws[1], [3])
    assert inputs(lineage(graph.catalog, "mart.months")) == {"shop.raw": {raws[0], raws[1]}}
    month(graph, "feb", raws[2], [4])
    assert inputs(lineage(graph.catalog, "mart.months")) == {"shop.raw": {raws[1], raws[2]}}


def test_a_compaction_is_no_write(graph: GraphLake) -> None:
    raw = graph.write("shop.raw", [1])
    compacted = graph.compact("shop.raw")
    graph.write("mart.top", [1], reads={"shop.raw": compacted})
    graph.compact("mart.top")
    found = lineage(graph.catalog, "mart.top")
    assert inputs(found) == {"shop.raw": {compacted}}
    assert all(version.complete for version in found.versions)
    assert raw not in {version.snapshot_id for version in found.versions}


def test_expired_inputs_and_dropped_tables_are_named_as_such(graph: GraphLake) -> None:
    first = graph.write("shop.raw", [1])
    gone = graph.write("shop.gone", [1])
    top = graph.write("mart.top", [1], reads={"shop.raw": first, "shop.gone": gone})
    graph.write("shop.raw", [2])
    graph.expire("shop.raw", first)
    graph.catalog.drop_table("shop.gone")
    found = lineage(graph.catalog, "mart.top", top)
    assert [(v.table, v.snapshot_id, v.status) for v in found.expired] == [
        ("shop.gone", gone, "no table"), ("shop.raw", first, "expired"),
    ]  # fmt: skip
    assert "expired" in found.to_markdown()


def test_a_version_whose_older_writes_have_expired_says_so(graph: GraphLake) -> None:
    raws = [graph.write("shop.raw", [number]) for number in range(2)]
    first = graph.write("mart.grown", [1], reads={"shop.raw": raws[0]}, write_mode="append")
    graph.write("mart.grown", [2], reads={"shop.raw": raws[1]}, write_mode="append")
    assert lineage(graph.catalog, "mart.grown").root.complete
    graph.expire("mart.grown", first)
    found = lineage(graph.catalog, "mart.grown")
    assert (found.root.complete, inputs(found)) == (False, {"shop.raw": {raws[1]}})
    assert "Older writes have expired" in found.to_markdown()


def test_writes_of_other_programs_are_part_of_it_until_they_certainly_are_not(graph: GraphLake) -> None:
    raw = graph.write("shop.raw", [1])
    graph.write("mart.top", [1], reads={"shop.raw": raw})
    table = graph.table("mart.top")
    table.append(pa.table({"id": [2]}))
    assert inputs(lineage(graph.catalog, "mart.top")) == {"shop.raw": {raw}}
    table.refresh().delete(AlwaysTrue())
    table.refresh().append(pa.table({"id": [3]}))
    assert inputs(lineage(graph.catalog, "mart.top")) == {}
    assert lineage(graph.catalog, "mart.top").root.complete


def test_a_table_that_reads_itself_is_told_once_a_version(graph: GraphLake) -> None:
    first = graph.write("mart.self", [1])
    second = graph.write("mart.self", [2], reads={"mart.self": first})
    assert named(lineage(graph.catalog, "mart.self")) == {("mart.self", first), ("mart.self", second)}


@pytest.mark.parametrize(("table", "snapshot"), [("shop.none", None), ("shop.raw", 5)])
def test_what_is_not_there_is_named(graph: GraphLake, table: str, snapshot: int | None) -> None:
    graph.write("shop.raw", [1])
    with pytest.raises(NotFoundError, match=r"shop\.none" if snapshot is None else "5"):
        lineage(graph.catalog, table, snapshot)
