"""What a table's metadata files are called: compressed ones say so, and every reader goes by the name."""

from __future__ import annotations

from pyiceberg.table.metadata import TableMetadata

COMPRESSION = "write.metadata.compression-codec"
# Each commit writes all snapshots down again, so that metadata files grow with the square of the commits.
# Small ones stay plain, for people to look at.
_FEW_SNAPSHOTS = 20
_PLAIN, _COMPRESSED = ".metadata.json", ".gz.metadata.json"


def metadata_location(metadata: TableMetadata, location: str) -> str:
    """Return where to write metadata, by their size or as the table's properties have it.

    `location` is where they would be written plain; PyIceberg compresses by the name.
    """
    if not _is_compressed(metadata) or location.endswith(_COMPRESSED):
        return location
    return location.removesuffix(_PLAIN) + _COMPRESSED


def _is_compressed(metadata: TableMetadata) -> bool:
    codec = metadata.properties.get(COMPRESSION)
    return len(metadata.snapshots) > _FEW_SNAPSHOTS if codec is None else codec.lower() == "gzip"
