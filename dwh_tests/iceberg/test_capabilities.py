"""What the writer says that it can do is what it does."""

from __future__ import annotations

import json
import tomllib
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pydantic import ValidationError

from dwh_assets import IcebergWriter, IcebergWriterConfig
from dwh_assets.iceberg.scan import scan
from dwh_tests.iceberg.conftest import Lake

CAPABILITIES = IcebergWriter.capabilities
NEEDED: dict[str, dict[str, Any]] = {
    "append": {},
    "overwrite": {},
    "upsert": {"key_columns": ["id"]},
    "merge": {"key_columns": ["id"], "merge": {"clauses": [{"when": "not_matched", "then": "insert"}]}},
}


def test_the_modes_are_those_that_a_table_can_be_written_in(tmp_path: Path) -> None:
    assert set(CAPABILITIES.modes) == set(NEEDED)
    for mode in CAPABILITIES.modes:
        lake = Lake(tmp_path / mode)
        lake.write(pa.table({"id": [1]}), write_mode=mode, **NEEDED[mode])
        assert lake.rows() == [{"id": 1}]
    with pytest.raises(ValidationError) as refused:
        IcebergWriterConfig(table="a.b", write_mode="replace")  # type: ignore[arg-type]
    assert all(f"'{mode}'" in str(refused.value) for mode in CAPABILITIES.modes)


def test_the_catalogs_are_those_that_can_be_declared() -> None:
    for kind in CAPABILITIES.catalogs:
        assert IcebergWriterConfig.model_validate({"table": "a.b", "catalog": kind}).catalog == kind
    with pytest.raises(ValidationError) as refused:
        IcebergWriterConfig(table="a.b", catalog="nessie")  # type: ignore[arg-type]
    assert all(f"'{kind}'" in str(refused.value) for kind in CAPABILITIES.catalogs)


def test_the_checks_are_those_that_the_doctor_makes(lake: Lake) -> None:
    assert tuple(check.name for check in lake.writer().doctor()) == CAPABILITIES.doctor_checks


def test_each_feature_is_there(lake: Lake) -> None:
    assert set(CAPABILITIES.features) == {"batch", "streaming", "versioning", "time_travel"}
    first = lake.writer().write(pa.table({"id": [1]}))
    streamed = lake.writer().write_stream([pa.record_batch({"id": [2]})], "orders")
    lake.writer(branch="audit").write(pa.table({"id": [3]}))
    assert lake.column("id") == [1, 2]
    assert lake.column("id", streamed.snapshot_id) == [1, 2]
    assert scan(lake.table, snapshot_id=first.snapshot_id).to_arrow()["id"].to_pylist() == [1]
    assert {ref["type"] for ref in lake.metadata["refs"].values()} == {"branch"}
    assert set(lake.metadata["refs"]) == {"main", "audit"}


def test_the_version_is_the_package_s_and_nothing_can_be_changed() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
    assert CAPABILITIES.version == project["project"]["version"]
    with pytest.raises(FrozenInstanceError):
        CAPABILITIES.version = "2"  # type: ignore[misc]


def test_it_can_be_said_in_json_and_in_words() -> None:
    told = json.loads(json.dumps(CAPABILITIES.as_dict()))
    assert told["name"] == "iceberg"
    assert told["modes"] == list(CAPABILITIES.modes)
    assert "doctor checks: catalog_connection, " in str(CAPABILITIES)
