"""Texts inside of SQL, for the few statements that take no bound parameters."""

from __future__ import annotations


def quote_literal(text: str) -> str:
    """Return a text as a literal. Unlike elsewhere a backslash is special in it; a NUL is left out."""
    escaped = text.replace("\0", "").replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
