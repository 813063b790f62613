"""Metadata files: large ones are compressed for every reader; old ones go where properties say so."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from dwh_assets import IcebergWriter, IcebergWriterConfig
from dwh_assets.iceberg.refs import create_tag
from dwh_tests.iceberg.conftest import Lake, local

CLEANED = {"write.metadata.delete-after-commit.enabled": "true", "write.metadata.previous-versions-max": "3"}


@pytest.mark.parametrize(("properties", "kept"), [(CLEANED, 4), ({}, 9)], ids=["cleaned", "kept"])
def test_old_metadata_goes_where_it_is_asked(tmp_path: Path, properties: dict[str, str], kept: int) -> None:
    writer = IcebergWriter(
        IcebergWriterConfig(
            catalog_config={"uri": f"sqlite:///{tmp_path}/catalog.db", "warehouse": tmp_path.as_uri()},
            table="lake.events",
            table_properties=properties,
        )
    )
    for number in range(8):
        writer.write(pa.table({"id": [number]}))
    assert len(list(tmp_path.glob("lake/events/metadata/*.metadata.json"))) == kept
    assert sorted(writer.catalog.load_table("lake.events").scan().to_arrow()["id"].to_pylist()) == list(
        range(8)
    )


# --- Compressed ---

SNAPSHOTS = 24


def write(lake: Lake, times: int, **declared: Any) -> list[str]:
    """Append a row so many times; return the name of each metadata file."""
    locations = []
    for number in range(times):
        lake.write(pa.table({"id": [number]}), **declared)
        locations.append(lake.table.metadata_location)
    return locations


def is_compressed(location: str) -> bool:
    """By its first bytes, which have to be what its name says."""
    compressed = Path(local(location)).read_bytes()[:2] == b"\x1f\x8b"
    assert compressed == location.endswith(".gz.metadata.json")
    return compressed


def test_metadata_of_many_snapshots_are_compressed_and_read_by_everybody(lake: Lake) -> None:
    locations = write(lake, SNAPSHOTS)
    assert [is_compressed(location) for location in locations] == [False] * 20 + [True] * 4
    create_tag(lake.catalog, lake.table, "q3")
    table = lake.table
    assert is_compressed(table.metadata_location)
    assert Path(local(table.metadata_location)).name.startswith("00025-"), "versions are counted on"
    assert table.refs()["q3"].snapshot_id == table.metadata.current_snapshot_id
    assert lake.column("id") == list(range(SNAPSHOTS)), "DuckDB"
    assert sorted(table.scan().to_arrow()["id"].to_pylist()) == list(range(SNAPSHOTS)), "PyIceberg"
    assert lake.column("id", table.metadata.snapshot_log[2].snapshot_id) == [0, 1, 2]
    assert [entry.metadata_file for entry in table.metadata.metadata_log][1:] == locations
    assert not lake.orphans()


def test_they_take_little_room(lake: Lake) -> None:
    last = Path(local(write(lake, SNAPSHOTS)[-1])).read_bytes()
    assert len(last) < len(gzip.decompress(last)) / 4


@pytest.mark.parametrize(("codec", "compressed"), [("none", False), ("gzip", True)])
def test_the_table_s_own_property_wins(lake: Lake, codec: str, compressed: bool) -> None:
    properties = {"write.metadata.compression-codec": codec}
    locations = write(lake, SNAPSHOTS, table_properties=properties)
    assert [is_compressed(location) for location in locations] == [compressed] * SNAPSHOTS
    assert lake.column("id") == list(range(SNAPSHOTS))


def test_a_refused_commit_leaves_no_compressed_file_behind(lake: Lake) -> None:
    write(lake, SNAPSHOTS)
    stale = lake.catalog.load_table(lake.name)
    lake.write(pa.table({"id": [99]}))
    create_tag(lake.catalog, stale, "late")
    assert "late" in lake.table.refs()
    assert not lake.orphans()
