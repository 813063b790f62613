"""What a run may decide of its write, by the metadata that it gives its output."""

from typing import Any

import dagster as dg
import pyarrow as pa
import pytest

from dwh_assets.orchestration.declarations import AT_RUN_TIME
from dwh_tests.independent import iceberg_rows
from dwh_tests.orchestration.lake import Lake, failure_text, materializations, written_by

TABLE = "shop.orders"
ROWS = pa.table({"id": [1, 2, 3], "place": ["eu", "eu", "us"]})


def deciding(rows: pa.Table, decided: dict[str, Any], **metadata: Any) -> dg.AssetsDefinition:
    """An asset that says at run time how it is written."""

    @dg.asset(key=["iceberg", "shop", "orders"], io_manager_key="iceberg_io_manager", metadata=metadata)
    def orders() -> dg.Output[pa.Table]:
        return dg.Output(rows, metadata=decided)

    asset: dg.AssetsDefinition = orders
    return asset


def test_a_run_may_overwrite_what_is_appended_otherwise(lake: Lake) -> None:
    lake.run(deciding(ROWS, {}))
    lake.run(deciding(ROWS, {}))
    assert len(lake.rows(TABLE)) == 6
    decided = {"write_mode": "overwrite", "overwrite_where": "place = 'eu'", "reviewed": True}
    (event,) = materializations(lake.run(deciding(ROWS.slice(0, 1), decided)), TABLE)
    assert [row["place"] for row in lake.rows(TABLE)] == ["eu", "us", "us"]
    assert event.metadata["dwh/write_mode"].value == "overwrite"
    assert event.metadata["reviewed"].value is True


def test_it_may_say_so_by_its_context_too(lake: Lake) -> None:
    def compute(context: dg.AssetExecutionContext) -> pa.Table:
        context.add_output_metadata({"write_mode": "overwrite"})
        return ROWS

    for _ in range(2):
        lake.run(written_by(compute))
    assert len(lake.rows(TABLE)) == 3


def test_each_attribute_that_a_run_may_decide_is_obeyed(lake: Lake) -> None:
    assert {
        "write_mode", "overwrite", "overwrite_where", "branch", "idempotency_key", "schema_evolution",
    } == AT_RUN_TIME  # fmt: skip
    spec = [{"field": "place"}]
    lake.run(deciding(ROWS, {}, partition_spec=spec))
    lake.run(deciding(ROWS.slice(2), {"write_mode": "overwrite", "overwrite": "partitions"}))
    assert len(lake.rows(TABLE)) == 3
    for _ in range(2):
        lake.run(deciding(ROWS.slice(0, 1), {"idempotency_key": "release 7"}))
    assert len(lake.rows(TABLE)) == 4
    lake.run(deciding(ROWS, {"branch": "audit"}))
    refs = lake.metadata(TABLE)["refs"]
    at = {name: iceberg_rows(lake.metadata_location(TABLE), ref["snapshot-id"]) for name, ref in refs.items()}
    assert {name: rows.num_rows for name, rows in at.items()} == {"main": 4, "audit": 7}
    wider = ROWS.append_column("new", [[1, 2, 3]])
    result = lake.run(deciding(wider, {"schema_evolution": {"enabled": False}}), expect_success=False)
    assert "'new' (long) is new" in failure_text(result)
    assert len(lake.rows(TABLE)) == 4


def test_another_mode_drops_what_only_the_declared_one_needs(lake: Lake) -> None:
    declared: dict[str, Any] = {
        "write_mode": "merge",
        "key_columns": ["id"],
        "merge": {"clauses": [{"when": "not_matched", "then": "insert"}]},
    }
    lake.run(deciding(ROWS, {}, **declared))
    lake.run(deciding(ROWS.slice(0, 2), {"write_mode": "overwrite"}, **declared))
    lake.run(deciding(ROWS, {}, **declared))
    assert [row["id"] for row in lake.rows(TABLE)] == [1, 2, 3]
    assert [s["summary"]["added-records"] for s in lake.snapshots(TABLE)] == ["3", "2", "1"]


@pytest.mark.parametrize(
    ("decided", "message"),
    [
        ({"key_columns": ["id"]}, "key_columns is declared with the asset"),
        ({"stream": {"name": "orders"}}, "stream is declared with the asset"),
        ({"write_mode": "replace"}, "write_mode is 'replace'"),
        ({"overwrite_where": "place = 'eu'"}, "overwrite_where says what write_mode: overwrite replaces"),
    ],
)
def test_what_a_run_cannot_decide_is_refused(lake: Lake, decided: dict[str, Any], message: str) -> None:
    lake.run(deciding(ROWS, {}))
    before = lake.metadata(TABLE)
    result = lake.run(deciding(ROWS, decided), expect_success=False)
    assert f"{TABLE}: {message}" in failure_text(result)
    assert lake.metadata(TABLE) == before
