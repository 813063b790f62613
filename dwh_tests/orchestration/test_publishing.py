"""`publish: after_audit` in a run: main has what passed, the run tells what did not and where it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest

from dwh_assets.orchestration import iceberg_io, step
from dwh_assets.orchestration.auditing import markdown_table
from dwh_tests.components import computed
from dwh_tests.components.project import loaded
from dwh_tests.components.test_iceberg_table import run
from dwh_tests.components.test_writer_attributes import document, order
from dwh_tests.independent import iceberg_rows
from dwh_tests.orchestration.lake import (
    Lake,
    failure_text,
    in_order,
    materializations,
    step_failure,
    written_by,
)
from dwh_tests.orchestration.test_run_time_metadata import deciding

TABLE = "shop.orders"
KEY = dg.AssetKey(["iceberg", "shop", "orders"])
IDS = [{"kind": "not_null", "columns": ["id"]}, {"kind": "unique", "columns": ["id"]}]
PUBLISH: dict[str, Any] = {"audits": IDS, "publish": "after_audit"}
GOOD, BAD = pa.table({"id": [1, 2]}), pa.table({"id": [2, None, 5], "note": ["a | b", "c", "d"]})
REGIONS = dg.StaticPartitionsDefinition(["eu", "us"])


def ids(lake: Lake) -> list[Any]:
    return [row["id"] for row in lake.rows(TABLE)]


def checks(lake: Lake, result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetCheckEvaluation]:
    """What the event log has of a run's checks: there the UI finds it."""
    events = [entry.dagster_event for entry in lake.instance.all_logs(result.run_id)]
    found = [
        e.asset_check_evaluation_data for e in events if e and e.event_type_value == "ASSET_CHECK_EVALUATION"
    ]
    assert len({evaluation.check_name for evaluation in found}) == len(found), "each once"
    return {evaluation.check_name: evaluation for evaluation in found}


def audit_branch(lake: Lake) -> str:
    (branch,) = set(lake.metadata(TABLE)["refs"]) - {"main"}
    return str(branch)


def test_what_passes_is_published_and_told(lake: Lake) -> None:
    result = lake.run(written_by(lambda _: GOOD, **PUBLISH))
    assert ids(lake) == [1, 2]
    assert set(lake.metadata(TABLE)["refs"]) == {"main"}
    (event,) = materializations(result, TABLE)
    assert event.metadata["dwh/snapshot_id"].value == str(lake.metadata(TABLE)["current-snapshot-id"])
    assert "**unique_id**" in str(event.metadata["dwh/audits"].value)
    assert {name: check.passed for name, check in checks(lake, result).items()} == {
        "not_null_id": True,
        "unique_id": True,
    }


def test_what_fails_is_not_published_and_the_run_says_where_it_is(lake: Lake) -> None:
    attempts: list[int] = []

    def compute(context: dg.AssetExecutionContext) -> pa.Table:
        attempts.append(context.retry_number)
        return BAD

    lake.run(written_by(lambda _: GOOD, **PUBLISH))
    before = lake.metadata(TABLE)["current-snapshot-id"]
    retried = dg.RetryPolicy(max_retries=2)
    result = lake.run(written_by(compute, retry_policy=retried, **PUBLISH), expect_success=False)
    assert attempts == [0], "the same rows fail again"
    metadata = lake.metadata(TABLE)
    assert (ids(lake), metadata["current-snapshot-id"], metadata["current-schema-id"]) == ([1, 2], before, 0)
    branch = audit_branch(lake)
    assert branch == f"audit_{result.run_id[:8]}"
    head = metadata["refs"][branch]["snapshot-id"]
    assert iceberg_rows(lake.metadata_location(TABLE), head).num_rows == 5
    failure = step_failure(result).user_failure_data
    assert failure.metadata["dwh/branch"].value == branch
    assert failure.metadata["sample of unique_id"].value == "| id | _times |\n| --- | --- |\n| 2 | 2 |"
    assert "a \\| b" not in str(failure.metadata["sample of not_null_id"].value)
    assert "| null | c |" in str(failure.metadata["sample of not_null_id"].value)
    assert branch in str(failure.metadata["publish it by hand"].value)
    assert "nothing was published" in failure_text(result)
    assert not materializations(result, TABLE)
    found = checks(lake, result)
    assert {name: check.passed for name, check in found.items()} == {"not_null_id": False, "unique_id": False}
    assert found["unique_id"].metadata["rows_failing"].value == 2


def test_a_run_that_is_retried_after_it_published_reports_its_audits(lake: Lake) -> None:
    crashes = [dg.Failure("the step went down")]

    @dg.asset(
        key=KEY,
        io_manager_key="iceberg_io_manager",
        retry_policy=dg.RetryPolicy(max_retries=1),
        metadata=PUBLISH,
    )
    def orders() -> Iterator[dg.Output[pa.Table]]:
        yield dg.Output(GOOD)
        if crashes:
            raise crashes.pop()

    lake.run(orders)
    assert ids(lake) == [1, 2]
    assert [s["summary"]["operation"] for s in lake.snapshots(TABLE)] == ["append", "append"]


def test_partitions_are_published_one_by_one(lake: Lake) -> None:
    def compute(context: dg.AssetExecutionContext) -> pa.Table:
        eu = context.partition_key == "eu"
        return pa.table({"id": [1, 2] if eu else [3, None], "region": [context.partition_key] * 2})

    orders = written_by(
        compute, partitions=REGIONS, write_mode="overwrite", partition_expr="region", **PUBLISH
    )
    lake.run(orders, partition="eu")
    lake.run(orders, partition="us", expect_success=False)
    lake.run(orders, partition="eu")
    assert in_order(lake.rows(TABLE)) == [{"id": 1, "region": "eu"}, {"id": 2, "region": "eu"}]


def test_what_changes_nothing_passes(lake: Lake) -> None:
    orders = written_by(lambda _: GOOD, write_mode="upsert", key_columns=["id"], **PUBLISH)
    lake.run(orders)
    result = lake.run(orders)
    (event,) = materializations(result, TABLE)
    assert event.metadata["dwh/audits"].value == "Nothing was written, nothing audited."
    assert [check.passed for check in checks(lake, result).values()] == [True, True]


def test_without_publish_audits_come_after_the_write_and_tell(lake: Lake) -> None:
    lake.run(written_by(lambda _: GOOD, audits=IDS))
    result = lake.run(written_by(lambda _: BAD, audits=IDS))
    assert sorted(ids(lake), key=lambda value: value or 0) == [None, 1, 2, 2, 5]
    assert {name: check.passed for name, check in checks(lake, result).items()} == {
        "not_null_id": False,
        "unique_id": False,
    }
    (event,) = materializations(result, TABLE)
    assert "✗ **unique_id**" in str(event.metadata["dwh/audits"].value)


def test_a_stream_is_audited_over_all_commits_of_a_run(lake: Lake) -> None:
    batches = [pa.record_batch({"id": [1, None]}), pa.record_batch({"id": [3, 3]})]
    stream = {"name": "orders", "commit_rows": 1}
    result = lake.run(written_by(lambda _: lambda offset: iter(batches), stream=stream, audits=IDS))
    found = checks(lake, result)
    assert {name: check.metadata["rows_failing"].value for name, check in found.items()} == {
        "not_null_id": 1,
        "unique_id": 2,
    }


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({"publish": "after_audit"}, "needs audits"),
        ({**PUBLISH, "stream": {"name": "orders"}}, "goes without stream"),
        ({**PUBLISH, "branch": "wip"}, "goes without branch"),
        ({**PUBLISH, "publish": "sometimes"}, "publish is 'sometimes'"),
        ({"audits": [{"kind": "not_null"}]}, "audits: 0.not_null.columns"),
        ({"audits": [{"kind": "not_null", "columns": ["nix"]}]}, "'nix', which is not there"),
        ({**PUBLISH, "audits": [{"kind": "not_null", "columns": ["nix"]}]}, "'nix', which is not there"),
    ],
)
def test_wrong_declarations_are_refused_before_anything_is_written(
    lake: Lake, metadata: dict[str, Any], said: str
) -> None:
    result = lake.run(written_by(lambda _: GOOD, **metadata), expect_success=False)
    assert said in failure_text(result)
    assert not lake.exists(TABLE)


def test_a_run_does_not_decide_what_is_audited(lake: Lake) -> None:
    result = lake.run(deciding(GOOD, {"publish": "after_audit"}), expect_success=False)
    assert "publish is declared with the asset" in failure_text(result)


# --- YAML ---


def test_audits_in_yaml_are_checks_of_the_asset(lake: Lake) -> None:
    yaml = document(
        TABLE,
        audits=[
            *IDS,
            {"kind": "accepted_values", "column": "place", "values": ["eu", "us"], "name": "places"},
        ],
        publish="after_audit",
    )
    with loaded(yaml, lake.resources) as definitions:
        names = {key.name for key in definitions.resolve_asset_graph().asset_check_keys}
        assert {"not_null_id", "unique_id", "places"} <= names
        computed.ARRIVING[:] = [order(1, "eu"), order(2, "us")]
        passed = run(lake, definitions, "iceberg/shop/orders")
        assert ids(lake) == [1, 2]
        computed.ARRIVING[:] = [order(3, "mars")]
        failed = run(lake, definitions, "iceberg/shop/orders", expect_success=False)
    assert ids(lake) == [1, 2]
    assert {name for name, check in checks(lake, passed).items() if check.passed} >= names - {"doctor"}
    found = checks(lake, failed)
    assert (found["places"].passed, found["unique_id"].passed) == (False, True)
    history = lake.instance.event_log_storage.get_asset_check_execution_history(
        dg.AssetCheckKey(KEY, "places"), limit=2
    )
    assert [record.status.value for record in history] == ["FAILED", "SUCCEEDED"]


# --- What is used of Dagster's half-public names ---


def test_a_check_may_be_reported_from_the_io_manager_before_the_step_fails(lake: Lake) -> None:
    class Reporting(iceberg_io.IcebergIOManager):
        def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
            step.report_check(
                context,
                dg.AssetCheckEvaluation(
                    asset_key=context.asset_key, check_name="seen", passed=False, metadata={"n": 1}
                ),
            )
            raise dg.Failure("after it")

    lake.resources = {**lake.resources, "iceberg_io_manager": Reporting(iceberg=lake.iceberg)}
    result = lake.run(written_by(lambda _: GOOD), expect_success=False)
    assert checks(lake, result)["seen"].metadata["n"].value == 1


def test_a_sample_is_a_table_in_markdown() -> None:
    rows = pa.table({"a|b": ["x\ny", None], "n": ["|", "z" * 200]})
    assert markdown_table(rows) == f"| a\\|b | n |\n| --- | --- |\n| x y | \\| |\n| null | {'z' * 80}… |"
