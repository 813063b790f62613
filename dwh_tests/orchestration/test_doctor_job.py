"""The doctor in Dagster: the job, the check of a table, and what `make doctor` prints."""

import io
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest
from dagster_duckdb import DuckDBResource
from rich.console import Console

from dwh_assets.iceberg.doctor.check import Check
from dwh_assets.iceberg.doctor.report import show
from dwh_assets.orchestration.checks import doctor_check
from dwh_assets.orchestration.doctor_job import declared_tables, doctor_job, run_checks
from dwh_assets.orchestration.resources import IcebergCatalogResource
from dwh_tests.orchestration.lake import QUIET, Lake, failure_text, written_by

TABLE = dg.AssetKey(["iceberg", "shop", "orders"])
ROWS = pa.table({"id": [1, 2]})


def checked(
    lake: Lake, *definitions: Any, **metadata: Any
) -> tuple[bool, dg.AssetCheckSeverity, dict[str, str]]:
    """Run the check of shop.orders, by itself unless assets are given; the status of each of its checks."""
    check = doctor_check(TABLE, "shop.orders", metadata)
    if definitions:
        result = lake.run(*definitions, check)
    else:
        result = dg.materialize(
            [written_by(lambda _: ROWS), check],
            selection=dg.AssetSelection.checks(check),
            instance=lake.instance,
            resources=lake.resources,
            run_config=QUIET,
        )
    (evaluation,) = result.get_asset_check_evaluations()
    told: Any = evaluation.metadata["checks"]
    return evaluation.passed, evaluation.severity, {r.data["check"]: r.data["status"] for r in told.records}


def test_a_check_after_a_materialization_writes_nothing_and_alone_it_probes(lake: Lake) -> None:
    passed, _, found = checked(lake, written_by(lambda _: ROWS))
    assert passed
    assert {name for name, status in found.items() if status == "skipped"} == {
        "permissions", "refs_kept", "clock",
    }  # fmt: skip
    passed, _, found = checked(lake)
    assert passed
    assert set(found.values()) == {"ok"}
    assert len(lake.snapshots("shop.orders")) == 1


@pytest.mark.parametrize(
    ("declared", "severity"),
    [
        ({"columns": {"id": {"type": "date"}}}, dg.AssetCheckSeverity.ERROR),
        ({"key_columns": ["nr"]}, dg.AssetCheckSeverity.WARN),
    ],
    ids=["failed", "warning"],
)
def test_a_check_fails_as_badly_as_its_worst_finding(
    lake: Lake, declared: dict[str, Any], severity: dg.AssetCheckSeverity
) -> None:
    lake.run(written_by(lambda _: ROWS))
    passed, found, _ = checked(lake, **declared)
    assert (passed, found) == (False, severity)


def test_a_catalog_that_does_not_answer_fails_the_check_and_not_the_run(lake: Lake) -> None:
    lake.resources["iceberg"] = IcebergCatalogResource(kind="sql", uri="sqlite:////proc/nowhere/c.db")
    passed, severity, found = checked(lake)
    assert (passed, severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert found["catalog_connection"] == "failed"


def examined(lake: Lake, **declared: Any) -> dg.ExecuteInProcessResult:
    """Run the job `doctor` for a table that is declared so."""
    definitions = dg.Definitions(assets=[written_by(lambda _: ROWS, **declared)])
    duckdb = DuckDBResource(database=str(lake.folder / "replicas.duckdb"))
    job = doctor_job(declared_tables(definitions))
    assert job.name == "doctor"
    return job.execute_in_process(
        instance=lake.instance,
        resources={"iceberg": lake.resources["iceberg"], "duckdb": duckdb},
        run_config=QUIET,
        raise_on_error=False,
    )


def test_the_job_succeeds_where_nothing_fails_and_else_says_what_does(lake: Lake) -> None:
    assert examined(lake).success, "a table that is not written yet is no failure"
    lake.run(written_by(lambda _: ROWS))
    assert examined(lake).success
    result = examined(lake, columns={"id": {"type": "date"}})
    assert not result.success
    said = failure_text(result)
    assert "table shop.orders: failed: shop.orders: column 'id' is long, but the declaration has date" in said
    assert "catalog_connection" not in said


def test_every_table_is_a_line_with_its_worst_finding(lake: Lake) -> None:
    lake.run(written_by(lambda _: ROWS))
    definitions = dg.Definitions(
        assets=[
            written_by(lambda _: ROWS),
            written_by(lambda _: ROWS, table="shop.late"),
            written_by(lambda _: ROWS, table="mart.none"),
        ]
    )
    duckdb = DuckDBResource(database=str(lake.folder / "replicas.duckdb"))
    checks = list(run_checks(lake.iceberg, duckdb, declared_tables(definitions)))
    assert [(check.name, check.status) for check in checks] == [
        ("catalog_connection", "ok"),
        ("permissions", "ok"),
        ("refs_kept", "ok"),
        ("clock", "ok"),
        ("credentials_expiry", "ok"),
        ("duckdb_file", "ok"),
        ("table mart.none", "warning"),
        ("table shop.late", "warning"),
        ("table shop.orders", "ok"),
    ]
    assert "1 namespace." in checks[0].detail
    assert "2 rows" in checks[-1].detail
    assert all("not written yet" in check.detail for check in checks[-3:-1])


def test_a_catalog_that_does_not_answer_is_told_once(tmp_path: Path) -> None:
    iceberg = IcebergCatalogResource(kind="sql", uri="sqlite:////proc/nowhere/c.db")
    duckdb = DuckDBResource(database=str(tmp_path / "replicas.duckdb"))
    definitions = dg.Definitions(assets=[written_by(lambda _: ROWS)])
    checks = list(run_checks(iceberg, duckdb, declared_tables(definitions)))
    assert [check.name for check in checks if check.status == "failed"] == ["catalog_connection"]
    assert not [check for check in checks if check.name.startswith("table")]


def test_an_environment_that_names_no_catalog_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DWH_CATALOG_TYPE", "nessie")
    duckdb = DuckDBResource(database=str(tmp_path / "replicas.duckdb"))
    first, *_ = run_checks(IcebergCatalogResource(), duckdb, {})
    assert (first.status, "DWH_CATALOG_TYPE is 'nessie'" in first.detail) == ("failed", True)
    assert "hadoop" in first.remedy


def test_what_is_printed_into_a_pipe_is_a_line_for_each_check() -> None:
    long = "a text of [some] length, " * 20
    checks = [Check("first", "ok", long, "not shown"), Check("the second", "failed", long, "mend it")]
    printed = io.StringIO()
    show(checks, Console(file=printed, width=80))
    assert printed.getvalue().splitlines() == [
        f"ok       first       {long}",
        f"failed   the second  {long}",
        "         -> mend it",
    ]


def test_a_warehouse_that_is_named_and_does_not_answer_is_told(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A port at which nobody listens."""
    named = {
        "DWH_SNOWFLAKE_DATABASE": "LAKE",
        "SNOWFLAKE_ACCOUNT": "nobody",
        "SNOWFLAKE_USER": "nobody",
        "SNOWFLAKE_PASSWORD": "hunter2-is-not-shown",
        "SNOWFLAKE_HOST": "127.0.0.1",
        "SNOWFLAKE_PORT": "9",
        "SNOWFLAKE_PROTOCOL": "http",
    }
    for variable, value in named.items():
        monkeypatch.setenv(variable, value)
    result = examined(lake)
    assert not result.success
    assert "snowflake_answers: failed" in failure_text(result)
    assert "hunter2" not in failure_text(result)
