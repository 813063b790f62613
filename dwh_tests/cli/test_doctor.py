"""`dwh doctor` examines the catalog and a table, and its exit code says whether something failed."""

from __future__ import annotations

from pathlib import Path

from dwh_assets.iceberg.doctor.examination import CHECKS
from dwh_tests.cli.conftest import Dwh
from dwh_tests.iceberg.conftest import TABLE, Lake, local


def test_all_checks_are_made_and_the_table_stays(lake: Lake, dwh: Dwh) -> None:
    before, files = lake.metadata["snapshots"], lake.on_disk()
    told = dwh("doctor", TABLE, "--json")
    assert (told.code, told.json["status"], told.json["table"]) == (0, "ok", TABLE)
    assert [(check["name"], check["status"]) for check in told.json["checks"]] == [(n, "ok") for n in CHECKS]
    assert lake.metadata["snapshots"] == before
    assert lake.on_disk(".parquet") == {f for f in files if f.endswith(".parquet")}


def test_without_a_probe_nothing_is_written(lake: Lake, dwh: Dwh) -> None:
    files = lake.on_disk()
    told = dwh("doctor", TABLE, "--no-probe", "--json").json
    assert told["status"] == "skipped"
    assert {check["status"] for check in told["checks"]} == {"ok", "skipped"}
    assert lake.on_disk() == files


def test_people_see_a_line_for_each_check_and_what_to_do(lake: Lake, dwh: Dwh) -> None:
    Path(local(lake.table.metadata_location)).write_text("{")
    told = dwh("doctor", TABLE)
    assert told.code == 1
    lines = told.out.splitlines()
    failed = next(line for line in lines if line.startswith("failed") and "table_exists" in line)
    assert "cannot be read" in failed
    assert lines[lines.index(failed) + 1].strip().startswith("-> ")


def test_a_catalog_that_is_not_there_is_told_and_not_made(tmp_path: Path, dwh: Dwh) -> None:
    nowhere = tmp_path / "nowhere" / "catalog.db"
    told = dwh("doctor", TABLE, "--catalog-uri", f"sqlite:///{nowhere}", "--json")
    assert told.code == 1
    assert told.json["checks"][0]["status"] == "failed"
    assert str(nowhere) in told.json["checks"][0]["detail"]
    assert not nowhere.parent.exists()
