"""SQL text for DuckDB: names go in quoted, through these functions and no others."""

from __future__ import annotations

from dwh_assets.errors import ConfigurationError


def quote_identifier(name: str) -> str:
    """Return a name as a quoted SQL identifier.

    Raises `ConfigurationError` for an empty name or one with a NUL character.
    """
    if not name or "\0" in name:
        raise ConfigurationError(f"{name!r} cannot be a name in SQL.")
    return '"' + name.replace('"', '""') + '"'


def qualified(*parts: str) -> str:
    """Return a dotted name, each part quoted."""
    return ".".join(quote_identifier(part) for part in parts)
