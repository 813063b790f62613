"""SQL text for warehouses: names go in quoted, through these functions and no others."""

from __future__ import annotations

from dwh_assets.errors import ConfigurationError


def quote_identifier(name: str, quote: str = '"') -> str:
    """Return a name as a quoted SQL identifier; `quote` is the dialect's quotation mark.

    Raises `ConfigurationError` for an empty name or one with a NUL character.
    """
    if not name or "\0" in name:
        raise ConfigurationError(
            f"{name!r} cannot be a name in SQL.", remedy="Give it a name of at least one printable character."
        )
    return quote + name.replace(quote, quote * 2) + quote


def qualified(*parts: str) -> str:
    """Return a dotted name, each part quoted."""
    return ".".join(quote_identifier(part) for part in parts)


def quote_text(value: str) -> str:
    """Return a string literal, for the few statements (`COMMENT`) that take no bound parameters.

    A NUL character, which would end the statement, is left out.
    """
    return "'" + value.replace("\0", "").replace("'", "''") + "'"
