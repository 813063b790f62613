"""Old metadata files go where the table's properties say so, and only then."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from dwh_assets import IcebergWriter, IcebergWriterConfig

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
