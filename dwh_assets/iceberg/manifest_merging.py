"""Which manifests to join into one: every plan opens each of them, and each commit adds one or two."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from pyiceberg.manifest import ManifestContent, ManifestFile
from pyiceberg.table import TableProperties
from pyiceberg.utils.properties import property_as_bool, property_as_int


def to_join(manifests: Sequence[ManifestFile], properties: Mapping[str, str]) -> list[list[ManifestFile]]:
    """Return groups of manifests, each of one kind and partition spec, to be joined.

    The table's `commit.manifest-merge.enabled` (true unless it says otherwise, as in Iceberg's Java library),
    `commit.manifest.min-count-to-merge` and `commit.manifest.target-size-bytes` decide. Full manifests stay
    as they are, so that a table's age costs a commit nothing.
    """
    p, known = TableProperties, dict(properties)
    if not property_as_bool(known, p.MANIFEST_MERGE_ENABLED, True):
        return []
    size = property_as_int(known, p.MANIFEST_TARGET_SIZE_BYTES, p.MANIFEST_TARGET_SIZE_BYTES_DEFAULT)
    least = property_as_int(known, p.MANIFEST_MIN_MERGE_COUNT, p.MANIFEST_MIN_MERGE_COUNT_DEFAULT)
    alike: defaultdict[tuple[ManifestContent, int], list[ManifestFile]] = defaultdict(list)
    for manifest in manifests:
        if manifest.manifest_length < (size or 0) / 2:
            alike[manifest.content, manifest.partition_spec_id].append(manifest)
    many = (group for group in alike.values() if len(group) >= max(2, least or 0))
    return [part for group in many for part in _of_size(group, size or 0) if len(part) > 1]


def _of_size(manifests: Sequence[ManifestFile], size: int) -> Iterator[list[ManifestFile]]:
    """Cut manifests, in their order, into runs that fill one manifest each."""
    run: list[ManifestFile] = []
    filled = 0
    for manifest in manifests:
        if run and filled + manifest.manifest_length > size:
            yield run
            run, filled = [], 0
        run.append(manifest)
        filled += manifest.manifest_length
    yield run
