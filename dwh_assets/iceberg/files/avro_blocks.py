"""Avro files of manifest entries in blocks of many.

PyIceberg makes each entry a block of its own, compressed by itself, and writes its numbers byte by byte; a
manifest of thousands of files takes longer than the commit around it.
"""

from __future__ import annotations

from types import TracebackType

from pyiceberg.avro.encoder import BinaryEncoder
from pyiceberg.avro.file import AvroOutputFile
from pyiceberg.manifest import ManifestEntry

_BLOCK_ENTRIES = 256


class ManifestBlocks(AvroOutputFile[ManifestEntry]):
    """Collects entries, and writes a block when there are enough or the file ends."""

    def __enter__(self) -> ManifestBlocks:
        super().__enter__()
        self._waiting: list[ManifestEntry] = []
        return self

    def __exit__(
        self,
        exctype: type[BaseException] | None,
        excinst: BaseException | None,
        exctb: TracebackType | None,
    ) -> None:
        if exctype is None:
            self._flush()
        super().__exit__(exctype, excinst, exctb)

    def write_block(self, objects: list[ManifestEntry]) -> None:
        """Add entries."""
        self._waiting += objects
        if len(self._waiting) >= _BLOCK_ENTRIES:
            self._flush()

    def _flush(self) -> None:
        entries, self._waiting = self._waiting, []
        if not entries:
            return
        block = _BlockEncoder()
        for entry in entries:
            self.writer.write(block, entry)
        codec = self.compression_codec()
        content = codec.compress(bytes(block.content))[0] if codec else bytes(block.content)
        self.encoder.write_int(len(entries))
        self.encoder.write_bytes(content)
        self.encoder.write(self.sync_bytes)


class _BlockEncoder(BinaryEncoder):
    """Avro's binary encoding into memory."""

    def __init__(self) -> None:
        self.content = bytearray()

    def write(self, b: bytes) -> None:
        self.content += b

    def write_int(self, integer: int) -> None:
        rest = (integer << 1) ^ (integer >> 63)
        while rest & ~0x7F:
            self.content.append((rest & 0x7F) | 0x80)
            rest >>= 7
        self.content.append(rest)

    def write_bytes(self, b: bytes) -> None:
        self.write_int(len(b))
        self.content += b
