"""Every attribute of the writer can be declared in YAML, and does there what it does in a notebook."""

import json
from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest

from dwh_assets.components import IcebergTable
from dwh_assets.config import IcebergWriterConfig, Stream
from dwh_assets.orchestration.declarations import stream_declaration, writer_config
from dwh_tests.components import computed
from dwh_tests.components.project import COMPUTED, loaded, table
from dwh_tests.components.test_iceberg_table import run
from dwh_tests.independent import iceberg_rows
from dwh_tests.orchestration.lake import Lake, in_order, materializations

# The catalog is a resource of Dagster, shared by all tables: the resource `iceberg` declares it.
NOT_THE_TABLES_OWN = {"catalog", "catalog_config"}
KEY = {"key_columns": ["id"]}
UPDATE = {"when": "matched", "then": "update"}
# Of each attribute a value that is not the default, with what it needs beside it.
SAMPLES: dict[str, dict[str, Any]] = {
    "table": {},
    "write_mode": {"write_mode": "overwrite"},
    "overwrite": {"overwrite": "partitions", "write_mode": "overwrite"},
    "overwrite_where": {"overwrite_where": "id > 1", "write_mode": "overwrite"},
    "key_columns": KEY,
    "merge": {
        "merge": {
            "on": "source.id = target.id",
            "clauses": [{**UPDATE, "if": "source.id > 1", "set": {"id": "source.id"}}],
            "not_written": ["flag"],
        },
        "write_mode": "merge",
    },
    "detect_unchanged": {"detect_unchanged": False},
    "null_keys": {"null_keys": "match"},
    "on_duplicate": {"on_duplicate": "last"},
    "duplicate_order": {"duplicate_order": "at"},
    "row_changes": {"row_changes": "copy-on-write"},
    "columns": {"columns": {"id": {"description": "Number.", "type": "int", "required": True}}},
    "partition_spec": {"partition_spec": [{"field": "id", "transform": "bucket[4]"}]},
    "sort_order": {"sort_order": [{"field": "id", "direction": "desc", "nulls": "last"}]},
    "schema_evolution": {"schema_evolution": {"enabled": False, "mode": "permissive"}},
    "table_properties": {"table_properties": {"owner": "shop"}},
    "target_file_size_bytes": {"target_file_size_bytes": 1 << 21},
    "format_version": {"format_version": 2},
    "branch": {"branch": "audit"},
    "idempotency_key": {"idempotency_key": "release 7"},
}


def document(name: str, **attributes: Any) -> str:
    """JSON is YAML."""
    declared = {"table": name, "compute": f"{COMPUTED}.arriving", **attributes}
    return json.dumps({"type": "dwh_assets.components.IcebergTable", "attributes": declared})


@pytest.fixture(scope="module")
def declared() -> Iterator[dict[str, dict[str, Any]]]:
    documents = [document(f"shop.{name}", **given) for name, given in SAMPLES.items()]
    with loaded("\n---\n".join(documents)) as definitions:
        yield {name: dict(table(definitions, "iceberg", "shop", name).metadata) for name in SAMPLES}


@pytest.mark.parametrize("name", sorted(IcebergWriterConfig.model_fields.keys() - NOT_THE_TABLES_OWN))
def test_an_attribute_reaches_the_writer_from_yaml_by_way_of_the_metadata(
    declared: dict[str, dict[str, Any]], name: str
) -> None:
    assert name in IcebergTable.model_fields
    given = {"table": f"shop.{name}", **SAMPLES[name]}
    from_yaml = writer_config(f"shop.{name}", declared[name])
    in_notebook = IcebergWriterConfig.model_validate(given)
    assert from_yaml == in_notebook
    default = IcebergWriterConfig.model_fields[name].get_default(call_default_factory=True)
    assert (getattr(from_yaml, name) != default) is (name != "format_version")


def test_how_a_stream_is_fed_reaches_the_writer_too() -> None:
    given = {"name": "clicks", "commit_rows": 10, "commit_seconds": 1.5}
    with loaded(document("shop.clicks", stream=given)) as definitions:
        metadata = table(definitions, "iceberg", "shop", "clicks").metadata
    assert stream_declaration("shop.clicks", metadata) == Stream.model_validate(given)
    assert given.keys() == Stream.model_fields.keys()


def write(lake: Lake, definitions: dg.Definitions, rows: list[dict[str, Any]], **options: Any) -> Any:
    """Run the asset for these rows; return what its materialization says."""
    computed.ARRIVING[:] = rows
    result = run(lake, definitions, "iceberg/shop/orders", **options)
    event = materializations(result, "shop.orders")[-1]
    return {name: value.value for name, value in event.metadata.items()}


def order(number: int, place: str, **more: Any) -> dict[str, Any]:
    return {"id": number, "place": place, **more}


def test_a_merge_declared_in_yaml(lake: Lake) -> None:
    yaml = document(
        "shop.orders",
        write_mode="merge",
        **KEY,
        merge={
            "clauses": [
                {"when": "matched", "then": "delete", "if": "source.gone"},
                UPDATE,
                {"when": "not_matched", "then": "insert", "if": "NOT source.gone"},
            ],
            "not_written": ["gone"],
        },
    )
    with loaded(yaml, lake.resources) as definitions:
        first = write(lake, definitions, [order(n, "eu", gone=False) for n in (1, 2, 3)])
        rows = [
            order(1, "eu", gone=True), order(2, "us", gone=False), order(4, "us", gone=False),
            order(5, "us", gone=True),
        ]  # fmt: skip
        found = write(lake, definitions, rows)
    assert lake.rows("shop.orders") == [order(2, "us"), order(3, "eu"), order(4, "us")]
    assert [found[f"dwh/rows_{what}"] for what in ("added", "updated", "removed")] == [1, 1, 1]
    assert [said["dwh/write_mode"] for said in (first, found)] == ["merge", "merge"]
    assert [said["dwh/operation"] for said in (first, found)] == ["append", "overwrite"]


def test_a_copy_on_write_upsert_declared_in_yaml(lake: Lake) -> None:
    yaml = document("shop.orders", write_mode="upsert", **KEY, row_changes="copy-on-write")
    with loaded(yaml, lake.resources) as definitions:
        write(lake, definitions, [order(n, "eu") for n in range(10)])
        found = write(lake, definitions, [order(3, "us"), order(4, "eu"), order(11, "us")])
    expected = [order(n, "us" if n in (3, 11) else "eu") for n in [*range(10), 11]]
    assert lake.rows("shop.orders") == in_order(expected)
    summary = lake.snapshots("shop.orders")[-1]["summary"]
    assert (summary["total-delete-files"], summary["deleted-data-files"]) == ("0", "1")
    assert [found[f"dwh/rows_{what}"] for what in ("added", "updated", "unchanged")] == [1, 1, 1]
    assert "1 rows in, 1 updated, 0 out" in found["dwh/summary"]


def test_a_branch_declared_in_yaml_is_what_the_asset_is(lake: Lake) -> None:
    """It is written, checked and read at the branch; main stays as it is."""
    yaml = "\n---\n".join(
        [
            document("shop.orders", branch="audit", **KEY),
            document("shop.copy", compute=f"{COMPUTED}.with_an_option"),
            document("shop.growing", compute=f"{COMPUTED}.growing", branch="audit"),
        ]
    )
    lake.fill("shop.orders", computed.orders())
    lake.fill("shop.growing", computed.orders().slice(0, 0))
    with loaded(yaml, lake.resources) as definitions:
        computed.ARRIVING[:] = [order(1, "eu")]
        result = run(lake, definitions, "iceberg/shop/orders")
        run(lake, definitions, "iceberg/shop/copy")
        run(lake, definitions, "iceberg/shop/growing")
        run(lake, definitions, "iceberg/shop/growing")
    metadata = lake.metadata("shop.orders")
    audit, main = (metadata["refs"][name]["snapshot-id"] for name in ("audit", "main"))
    assert [len(iceberg_rows(lake.metadata_location("shop.orders"), at)) for at in (audit, main)] == [4, 3]
    (event,) = materializations(result, "shop.orders")
    assert event.metadata["dwh/snapshot_id"].value == str(audit)
    checks = {check.check_name: check for check in result.get_asset_check_evaluations()}
    check = checks["key_is_unique"]
    assert (check.passed, check.metadata["dwh/snapshot_id"].value) == (False, str(audit))
    assert lake.snapshots("shop.copy")[-1]["summary"]["dwh.input.shop.orders"] == str(audit)
    head = lake.metadata("shop.growing")["refs"]["audit"]["snapshot-id"]
    found = iceberg_rows(lake.metadata_location("shop.growing"), head)
    assert sorted(found["id"].to_pylist()) == [0, 1], "`previous` is the branch too"


def test_a_key_declared_in_yaml_lets_a_write_happen_once(lake: Lake) -> None:
    yaml = document("shop.orders", idempotency_key="release 7")
    with loaded(yaml, lake.resources) as definitions:
        first = write(lake, definitions, [order(1, "eu")])
        again = write(lake, definitions, [order(2, "eu")])
    assert lake.rows("shop.orders") == [order(1, "eu")]
    assert again["dwh/snapshot_id"] == first["dwh/snapshot_id"]
    assert "Already written" in again["dwh/summary"]


def test_a_key_declared_in_yaml_counts_for_each_partition(lake: Lake) -> None:
    yaml = document(
        "shop.orders",
        compute=f"{COMPUTED}.by_place",
        idempotency_key="release 7",
        partitions=[{"column": "place", "keys": ["eu", "us"]}],
    )
    with loaded(yaml, lake.resources) as definitions:
        for place in ("eu", "us", "us"):
            run(lake, definitions, "iceberg/shop/orders", partition_key=place)
    assert lake.rows("shop.orders") == [order(0, "eu"), order(0, "us")]


def test_partitions_of_the_data_are_overwritten_as_declared_in_yaml(lake: Lake) -> None:
    yaml = document(
        "shop.orders", write_mode="overwrite", overwrite="partitions", partition_spec=[{"field": "place"}]
    )
    with loaded(yaml, lake.resources) as definitions:
        write(lake, definitions, [order(1, "eu"), order(2, "eu"), order(3, "us")])
        found = write(lake, definitions, [order(4, "eu"), order(5, "cn")])
    assert lake.rows("shop.orders") == [order(3, "us"), order(4, "eu"), order(5, "cn")]
    assert (found["dwh/rows_added"], found["dwh/rows_removed"]) == (2, 2)


def test_a_dagster_partition_narrows_the_partitions_that_are_overwritten(lake: Lake) -> None:
    yaml = document(
        "shop.orders",
        write_mode="overwrite",
        overwrite="partitions",
        overwrite_where="id < 5",
        partition_spec=[{"field": "place", "transform": "truncate[1]"}],
        partitions=[{"column": "place", "keys": ["eu", "ea"]}],
    )
    lake.fill("shop.orders", computed.orders())
    with loaded(yaml, lake.resources) as definitions:
        write(lake, definitions, [order(1, "ea"), order(2, "ea")], partition_key="ea")
        write(lake, definitions, [order(3, "eu")], partition_key="eu")
        computed.ARRIVING[:] = [order(4, "eu")]
        refused = run(lake, definitions, "iceberg/shop/orders", partition_key="ea", expect_success=False)
        computed.ARRIVING[:] = [order(7, "ea")]
        refused = run(lake, definitions, "iceberg/shop/orders", partition_key="ea", expect_success=False)
    assert not refused.success
    kept = [order(2, "us"), {"id": 3, "place": None}]
    assert lake.rows("shop.orders") == in_order([order(1, "ea"), order(2, "ea"), order(3, "eu"), *kept])


# --- Streams ---


@pytest.mark.parametrize("function", ["events", "yielding", "arriving"])
def test_a_stream_declared_in_yaml_is_fed_exactly_once(lake: Lake, function: str) -> None:
    yaml = document(
        "shop.orders", compute=f"{COMPUTED}.{function}", stream={"name": "orders", "commit_rows": 3}
    )
    with loaded(yaml, lake.resources) as definitions:
        first = write(lake, definitions, [order(n, "eu") for n in range(7)])
        again = write(lake, definitions, [order(n, "eu") for n in range(7)])
        more = write(lake, definitions, [order(n, "eu") for n in range(9)])
    assert lake.rows("shop.orders") == in_order(order(n, "eu") for n in range(9))
    added = [snapshot["summary"]["added-records"] for snapshot in lake.snapshots("shop.orders")]
    assert added == ["3", "3", "1", "2"]
    names = ("dwh/stream", "dwh/stream_offset", "dwh/stream_rows", "dwh/commits", "dwh/rows_added")
    assert [[said[name] for name in names] for said in (first, again, more)] == [
        ["orders", 7, 7, 3, 7],
        ["orders", 7, 0, 0, 0],
        ["orders", 9, 2, 1, 2],
    ]
    assert (first["dwh/parent_snapshot_id"], first["dwh/files_added"]) == ("none", 3)
    assert "Nothing to write" in again["dwh/summary"]


def test_a_stream_may_upsert(lake: Lake) -> None:
    stream = {"name": "orders", "commit_rows": 2}
    yaml = document("shop.orders", compute=f"{COMPUTED}.events", write_mode="upsert", **KEY, stream=stream)
    with loaded(yaml, lake.resources) as definitions:
        rows = [order(1, "eu"), order(2, "eu"), order(1, "us"), order(3, "us"), order(1, "cn")]
        found = write(lake, definitions, rows)
    assert lake.rows("shop.orders") == [order(1, "cn"), order(2, "eu"), order(3, "us")]
    assert [found[f"dwh/rows_{what}"] for what in ("added", "updated")] == [3, 2]


def test_a_stream_without_rows_makes_no_table(lake: Lake) -> None:
    yaml = document("shop.orders", compute=f"{COMPUTED}.events", stream={"name": "orders"})
    computed.ARRIVING[:] = []
    with loaded(yaml, lake.resources) as definitions:
        run(lake, definitions, "iceberg/shop/orders", expect_success=False)
    assert not lake.exists("shop.orders")


def test_a_function_that_yields_feeds_a_table_that_is_no_stream(lake: Lake) -> None:
    with loaded(document("shop.orders", compute=f"{COMPUTED}.yielding"), lake.resources) as definitions:
        write(lake, definitions, [order(n, "eu") for n in range(3)])
    assert lake.rows("shop.orders") == [order(n, "eu") for n in range(3)]
    assert len(lake.snapshots("shop.orders")) == 1
