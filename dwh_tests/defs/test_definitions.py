"""The shipped definitions: what they are, and that loading them does nothing else."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from dwh_assets.definitions import defs
from dwh_assets.warehouses.environment import BIGQUERY_PROJECT, MOTHERDUCK_DATABASE, SNOWFLAKE_DATABASE

ROOT = Path(__file__).resolve().parents[2]
CHECKED_IN = Path(__file__).with_name("definitions.txt")
# Places in files, and the component itself
_NOT_SHOWN = {"dagster/code_references", "dagster/component_origin"}


def described(definitions: dg.Definitions) -> Iterator[str]:
    """Describe every asset, check and job in lines that stay the same as long as they do."""
    graph = definitions.resolve_asset_graph()
    owners = {key: assets for assets in graph.assets_defs for key in assets.keys}
    for spec in sorted(definitions.resolve_all_asset_specs(), key=lambda spec: spec.key):
        assets = owners[spec.key]
        yield spec.key.to_user_string()
        yield f"    kinds: {_joined(spec.kinds)}; group: {spec.group_name}; owners: {_joined(spec.owners)}"
        tags = {name: value for name, value in spec.tags.items() if "/kind/" not in name}
        yield f"    tags: {json.dumps(tags, sort_keys=True)}"
        yield f"    reads: {_joined(dep.asset_key.to_user_string() for dep in spec.deps)}"
        yield f"    partitions: {_partitions(spec.partitions_def)}; backfill: {assets.backfill_policy}"
        yield f"    pool: {assets.op.pool}; io: {assets.get_io_manager_key_for_asset_key(spec.key)}"
        yield f"    freshness: {_freshness(spec.freshness_policy)}; automation: {_automation(spec)}"
        for name in sorted(set(spec.metadata) - _NOT_SHOWN):
            value = sorted(spec.metadata[name]) if name == "columns" else spec.metadata[name]
            yield f"    {name} = {json.dumps(value, sort_keys=True)}"
    checks = definitions.asset_checks or []
    pools = {key: check.op.pool for check in checks for key in check.check_keys}
    for key in sorted(graph.asset_check_keys):
        pool = pools.get(key, "that of the asset, whose step makes it")
        yield f"check {key.to_user_string()}; blocking: {graph.get(key).blocking}; pool: {pool}"
    for job in sorted(definitions.resolve_all_job_defs(), key=lambda job: job.name):
        keys = job.asset_layer.selected_asset_keys
        if not job.name.startswith("__"):
            yield f"job {job.name}: {_joined(sorted(key.to_user_string() for key in keys))}"
    for name in sorted(definitions.resources or {}):
        yield f"resource {name}"


def _joined(texts: object) -> str:
    return ", ".join(sorted(texts)) or "none"  # type: ignore[call-overload]


def _partitions(definition: dg.PartitionsDefinition[str] | None) -> str:
    if definition is None:
        return "none"
    keys = definition.get_partition_keys()
    return f"{len(keys)}, {keys[0]} to {keys[-1]}"


def _freshness(policy: dg.FreshnessPolicy | None) -> str:
    if policy is None:
        return "none"
    return f"fail after {policy.fail_window.to_timedelta()}, warn after {policy.warn_window.to_timedelta()}"  # type: ignore[attr-defined]


def _automation(spec: dg.AssetSpec) -> str:
    condition = spec.automation_condition
    return condition.get_label() or condition.name or "some" if condition else "none"


def test_the_definitions_are_those_that_were_agreed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a change that is meant: python -m dwh_tests.defs.test_definitions"""
    for variable in (MOTHERDUCK_DATABASE, SNOWFLAKE_DATABASE, BIGQUERY_PROJECT):
        monkeypatch.setenv(variable, "")
    assert "\n".join(described(defs())) + "\n" == CHECKED_IN.read_text(encoding="utf-8")


def test_loading_writes_nothing_and_warns_of_nothing_of_ours(tmp_path: Path) -> None:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("DWH_", "DAGSTER_"))
    }
    work = tmp_path / "work"
    work.mkdir()
    found = subprocess.run(
        [sys.executable, "-m", "dagster", "definitions", "validate", "-m", "dwh_assets.definitions"],
        cwd=work,
        env={**environment, "DAGSTER_DISABLE_TELEMETRY": "yes", "PYTHONWARNINGS": "default"},
        capture_output=True,
        text=True,
        check=False,
    )
    said = found.stdout + found.stderr
    assert found.returncode == 0, said
    assert "dwh_assets/" not in "".join(line for line in said.splitlines() if "Warning" in line), said
    assert list(work.iterdir()) == []


def test_loading_imports_no_client_of_a_warehouse_that_nobody_has_named(tmp_path: Path) -> None:
    """They take seconds, in every process of every run."""
    script = (
        "import sys; from dwh_assets.definitions import defs; defs(); "
        "print(*(name for name in sys.modules if name.startswith(('snowflake.', 'google.cloud.bigquery'))))"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DWH_")}
    found = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == ""


if __name__ == "__main__":
    CHECKED_IN.write_text("\n".join(described(defs())) + "\n", encoding="utf-8")
