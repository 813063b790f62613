"""What a table is called in messages."""

from __future__ import annotations

from pyiceberg.table import Table


def name_of(table: Table) -> str:
    """Return `namespace.table`."""
    return ".".join(table.name())
