"""The doctor says what works, what does not and what to do, and leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from dwh_assets.config import CatalogConfig
from dwh_assets.errors import ConfigurationError
from dwh_assets.iceberg.doctor import Check, attempt, check_catalog, check_table
from dwh_tests.iceberg.conftest import Lake, local


def configured(folder: Path, **changed: str) -> CatalogConfig:
    return CatalogConfig.model_validate({"kind": "sql", **Lake(folder).properties, **changed})


def found(config: CatalogConfig) -> dict[str, Check]:
    return {check.name: check for check in check_catalog(config)}


def test_a_working_catalog_is_ok_and_left_clean(tmp_path: Path) -> None:
    checks = found(configured(tmp_path))
    assert {name: check.status for name, check in checks.items()} == {
        "catalog_connection": "ok",
        "warehouse_permissions": "ok",
    }
    assert "0 namespaces" in checks["catalog_connection"].detail
    assert [path.name for path in (tmp_path / "lake").rglob("*")] == []


@pytest.mark.parametrize(
    ("changed", "name", "words"),
    [
        ({"uri": "sqlite:////proc/nowhere/c.db"}, "catalog_connection", ["does not answer"]),
        ({"uri": "gibberish"}, "catalog_connection", ["cannot be opened"]),
        ({"uri": "${DWH_NOT_SET}"}, "catalog_connection", ["DWH_NOT_SET"]),
        ({"warehouse": "file:///proc/nowhere"}, "warehouse_permissions", ["proc"]),
    ],
)
def test_what_does_not_work_fails_with_a_remedy(
    tmp_path: Path, changed: dict[str, str], name: str, words: list[str]
) -> None:
    check = found(configured(tmp_path, **changed))[name]
    assert check.status == "failed"
    assert [word for word in words if word not in check.detail] == []
    assert check.remedy


def test_no_check_tells_a_password(tmp_path: Path) -> None:
    uri = "postgresql+psycopg2://user:sekret@127.0.0.1:1/db"
    for check in check_catalog(configured(tmp_path, uri=uri)):
        assert "sekret" not in f"{check.detail}{check.remedy}"
    assert "sekret" not in repr(configured(tmp_path, uri=uri))


def test_tables_are_described_at_their_current_version(lake: Lake) -> None:
    assert check_table(lake.catalog, lake.name).status == "warning"
    lake.catalog.create_namespace("shop")
    lake.catalog.create_table(lake.name, pa.schema([("v", pa.int64())]))
    assert check_table(lake.catalog, lake.name) == Check(
        f"table {lake.name}", "warning", "Is there, but has no snapshot.", "Materialize it."
    )
    lake.write(pa.table({"v": [1, 2, 3]}))
    lake.delete_positions({lake.data_files()[0].file_path: [0]})
    check = check_table(lake.catalog, lake.name)
    assert (check.status, check.detail.split(" at ")[0]) == ("ok", "2 rows")


def test_a_broken_table_is_found(lake: Lake) -> None:
    lake.write(pa.table({"v": [1]}))
    Path(local(lake.table.metadata_location)).unlink()
    check = check_table(lake.catalog, lake.name)
    assert (check.status, bool(check.remedy)) == ("failed", True)


def test_an_error_becomes_the_detail_without_its_later_lines() -> None:
    def fail() -> str:
        raise ValueError("first\npassword=secret")

    assert attempt("x", fail, "do this") == Check("x", "failed", "ValueError: first", "do this")

    def refuse() -> str:
        raise ConfigurationError("wrong", remedy="mend it")

    assert attempt("x", refuse, "do this") == Check("x", "failed", "wrong", "mend it")
    assert attempt("x", lambda: "fine", "do this") == Check("x", "ok", "fine")
