"""The doctor says what works, what does not and what to do; it leaves nothing behind and changes nothing."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from dwh_assets.config import IcebergWriterConfig
from dwh_assets.iceberg.doctor.check import Check
from dwh_assets.iceberg.doctor.examination import CHECKS, counted, examine_catalog, examine_declaration
from dwh_assets.iceberg.doctor.probes import probe_table
from dwh_assets.iceberg.write import IcebergWriter
from dwh_tests.iceberg.catalogs.test_conformance import SECRET, unreachable
from dwh_tests.iceberg.conftest import Lake, local

ROWS = pa.table({"id": [1, 2, 3], "place": ["eu", "eu", "us"]})
CONNECTED = {name for name in CHECKS if name not in ("catalog_connection", "credentials_expiry")}


def found(checks: Iterable[Check]) -> dict[str, Check]:
    return {check.name: check for check in checks}


def statuses(checks: Iterable[Check]) -> dict[str, str]:
    return {check.name: check.status for check in checks}


def says(check: Check, status: str, *words: str) -> None:
    """The check has this status, mentions all words, and says what to do unless it is ok or was not made."""
    assert check.status == status, check
    assert [word for word in words if word not in f"{check.detail} {check.remedy}"] == [], check
    assert bool(check.remedy) is (status in ("failed", "warning")), check


# --- The catalog ---


def doctored(kind: str = "sql", **properties: str) -> dict[str, Check]:
    """What the doctor says of shop.orders in a catalog that it opens itself."""
    config = IcebergWriterConfig.model_validate(
        {"catalog": kind, "catalog_config": properties, "table": "shop.orders"}
    )
    return found(IcebergWriter(config).doctor())


def edit(lake: Lake, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the table's metadata file itself."""
    file = Path(local(lake.table.metadata_location))
    metadata = json.loads(file.read_text())
    change(metadata)
    file.write_text(json.dumps(metadata))


def test_a_catalog_alone_is_examined_without_a_table(lake: Lake) -> None:
    checks = examine_catalog(lambda: lake.catalog, dict, ("shop",))
    assert statuses(checks) == dict.fromkeys(
        ["catalog_connection", "permissions", "refs_kept", "clock", "credentials_expiry"], "ok"
    )
    assert "0 namespaces" in checks[0].detail
    assert lake.catalog.list_namespaces() == []
    assert [path.name for path in (lake.folder / "lake").rglob("*")] == []


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"uri": "sqlite:////proc/nowhere/c.db"}, ["does not answer"]),
        ({"uri": "gibberish"}, ["cannot be opened"]),
        ({"uri": "${DWH_NOT_SET}"}, ["DWH_NOT_SET"]),
    ],
)
def test_a_catalog_that_cannot_be_opened_is_told_once(
    lake: Lake, changed: dict[str, str], words: list[str]
) -> None:
    checks = doctored(**lake.properties | changed)
    says(checks["catalog_connection"], "failed", *words)
    assert {checks[name].status for name in CONNECTED} == {"skipped"}


@pytest.mark.parametrize("kind", ["sql", "rest", "hive", "hadoop"])
def test_a_catalog_that_does_not_answer_is_found_and_its_secrets_are_not_told(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # clients wait between their tries
    checks = doctored(kind, **unreachable(kind, 1))
    says(checks["catalog_connection"], "failed")
    assert {checks[name].status for name in CONNECTED} == {"skipped"}
    assert SECRET not in str(checks)


def test_a_warehouse_that_cannot_be_written_fails_and_leaves_no_namespace(lake: Lake) -> None:
    checks = doctored(**lake.properties | {"warehouse": "file:///proc/nowhere"})
    says(checks["permissions"], "failed", "/proc/nowhere", "Allow")
    assert checks["refs_kept"].status == "skipped"
    assert checks["catalog_connection"].status == "ok"
    assert lake.catalog.list_namespaces() == []


def test_a_file_where_the_warehouse_should_be_fails(lake: Lake) -> None:
    (lake.folder / "lake").write_text("no folder")
    says(doctored(**lake.properties)["permissions"], "failed", "lake")


@pytest.mark.parametrize("namespace", [("shop",), None], ids=["in a namespace", "in its own"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_a_probe_table_is_gone_whatever_ends_the_block(
    lake: Lake, namespace: tuple[str, ...] | None, error: type[BaseException]
) -> None:
    lake.catalog.create_namespace("shop")
    with pytest.raises(error):
        interrupt(lake, namespace, error)
    assert lake.catalog.list_namespaces() == [("shop",)]
    assert lake.catalog.list_tables("shop") == []
    assert lake.on_disk() == set()


def interrupt(lake: Lake, namespace: tuple[str, ...] | None, error: type[BaseException]) -> None:
    """Raise an error while a probe table is there."""
    with probe_table(lake.catalog, namespace) as probe:
        assert lake.catalog.table_exists(probe.name())
        raise error


# --- The table ---


def test_what_is_not_there_yet_is_a_warning(lake: Lake) -> None:
    checks = found(lake.writer().doctor())
    says(checks["namespace_exists"], "warning", "shop", "Write")
    says(checks["table_exists"], "warning", "shop.orders", "not written yet")
    says(checks["schema_compatible"], "skipped")
    says(checks["permissions"], "ok")
    lake.catalog.create_namespace("shop")
    lake.catalog.create_table(lake.name, ROWS.schema)
    checks = found(lake.writer().doctor())
    says(checks["namespace_exists"], "ok", "shop")
    says(checks["table_exists"], "warning", "no snapshot")


def test_a_table_is_described_at_its_current_version(lake: Lake) -> None:
    lake.write(ROWS)
    lake.delete_positions({lake.data_files()[0].file_path: [0]})
    current = str(lake.metadata["current-snapshot-id"])
    says(found(lake.writer().doctor())["table_exists"], "ok", "2 rows", current)


def test_a_broken_table_is_found_and_the_rest_is_examined_still(lake: Lake) -> None:
    lake.write(ROWS)
    Path(local(lake.table.metadata_location)).unlink()
    checks = found(lake.writer().doctor())
    says(checks["table_exists"], "failed")
    assert {checks[name].status for name in ("namespace_exists", "permissions", "refs_kept")} == {"ok"}


def test_nothing_is_written_without_probes(lake: Lake) -> None:
    lake.write(ROWS)
    before = {path: Path(path).stat().st_mtime_ns for path in lake.on_disk()}
    database = (lake.folder / "catalog.db").read_bytes()
    checks = lake.writer().doctor(probe=False)
    assert statuses(checks) == {
        **dict.fromkeys(CHECKS, "ok"), "permissions": "skipped", "refs_kept": "skipped", "clock": "skipped",
    }  # fmt: skip
    assert {path: Path(path).stat().st_mtime_ns for path in lake.on_disk()} == before
    assert (lake.folder / "catalog.db").read_bytes() == database
    assert statuses(examine_declaration(lake.writer().config, lake.catalog)) == dict.fromkeys(
        ["namespace_exists", "table_exists", "schema_compatible"], "ok"
    )


@pytest.mark.parametrize("path", ["write.data.path", "write.metadata.path"])
def test_a_folder_of_the_table_that_cannot_be_written_is_found(lake: Lake, path: str) -> None:
    lake.write(ROWS)
    edit(lake, lambda metadata: metadata["properties"].update({path: "file:///proc/nowhere"}))
    before, files = lake.metadata, lake.on_disk()
    checks = found(lake.writer().doctor())
    says(checks["permissions"], "failed", "/proc/nowhere")
    says(checks["refs_kept"], "ok")
    assert (lake.metadata, lake.on_disk()) == (before, files)
    assert lake.catalog.list_tables("shop") == [("shop", "orders")]


def test_a_table_of_the_future_is_found(lake: Lake) -> None:
    lake.write(ROWS)
    in_an_hour = lake.metadata["last-updated-ms"] + 3_600_000
    edit(lake, lambda metadata: metadata.update({"last-updated-ms": in_an_hour}))
    says(found(lake.writer().doctor())["clock"], "warning", "in the future", "NTP")


# --- Its columns ---

FITS: dict[str, tuple[dict[str, Any], str, tuple[str, ...]]] = {
    "as it is": ({"key_columns": ["id"]}, "ok", ("fits",)),
    "another partitioning": ({"partition_spec": [{"field": "place"}]}, "ok", ("partitioned by", "place")),
    "a wider type": ({"columns": {"n": {"type": "long"}}}, "ok", ("widened n",)),
    "another type": ({"columns": {"id": {"type": "string"}}}, "failed", ("'id'", "long", "string")),
    "no transform for it": (
        {"partition_spec": [{"field": "place", "transform": "day"}]},
        "failed",
        ("day", "'place'"),
    ),
    "an unknown key": ({"key_columns": ["nr"]}, "warning", ("'nr'", "data")),
    "an unknown order": ({"sort_order": [{"field": "at"}]}, "warning", ("'at'",)),
    "an unknown column that may not come": (
        {"columns": {"nr": {"type": "int"}}, "schema_evolution": {"enabled": False}},
        "failed",
        ("'nr'", "schema_evolution"),
    ),
}


@pytest.mark.parametrize("case", FITS)
def test_a_declaration_is_compared_with_the_table(module_lake: Lake, case: str) -> None:
    declared, status, words = FITS[case]
    lake = Lake(module_lake.folder)
    if not lake.catalog.table_exists(lake.name):
        lake.write(ROWS.append_column("n", pa.array([1, 2, 3], pa.int32())))
    before = lake.metadata
    says(found(lake.writer(**declared).doctor(probe=False))["schema_compatible"], status, *words)
    assert lake.metadata == before


MERGE = {
    "write_mode": "merge",
    "key_columns": ["id"],
    "merge": {
        "clauses": [{"when": "matched", "then": "delete", "if": "source.gone"}],
        "not_written": ["gone"],
    },
}


@pytest.mark.parametrize(
    ("data", "declared", "status", "words"),
    [
        (ROWS, {}, "ok", ["fit"]),
        (ROWS.schema, {}, "ok", ["fit"]),
        (ROWS.append_column("x", [[1, 2, 3]]).to_reader(), {}, "ok", ["added x long"]),
        (pa.table({"id": ["a"], "place": ["b"]}), {}, "failed", ["'id'", "long", "string"]),
        (ROWS.append_column("gone", [[True, False, True]]), MERGE, "ok", ["fit"]),
        (ROWS, MERGE, "failed", ["gone"]),
        ("no rows", {}, "failed", ["str"]),
    ],
    ids=["rows", "schema", "a new column", "another type", "merge", "merge without its column", "a text"],
)
def test_data_are_compared_with_the_table(
    lake: Lake, data: Any, declared: dict[str, Any], status: str, words: list[str]
) -> None:
    lake.write(ROWS)
    says(found(lake.writer(**declared).doctor(data, probe=False))["schema_compatible"], status, *words)
    assert len(lake.rows()) == 3


def test_data_of_a_table_that_is_not_there_are_compared_with_the_declaration(lake: Lake) -> None:
    fits = found(lake.writer(key_columns=["id"]).doctor(ROWS))["schema_compatible"]
    says(fits, "ok", "fit the declaration")
    wrong = found(lake.writer(key_columns=["nr"]).doctor(ROWS))["schema_compatible"]
    says(wrong, "failed", "'nr'", "id, place")
    assert not lake.catalog.namespace_exists("shop")


def test_things_are_counted_in_plain_words() -> None:
    assert [counted(n, "row") for n in (0, 1, 2, 1000)] == ["0 rows", "1 row", "2 rows", "1,000 rows"]
