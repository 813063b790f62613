"""Names as BigQuery takes them: what may be in one, and how it is quoted."""

from __future__ import annotations

import re

from dwh_assets.errors import ConfigurationError
from dwh_assets.iceberg.sql import quote_identifier

MAX_COLUMN_NAME = 300
_MAX_TABLE_NAME = 1024  # bytes of UTF-8
_IN_NO_COLUMN = re.compile(r"[!\"$()*,./;?@\[\\\]^`{}~\x00-\x08\x0a-\x1f\x7f]")
_IN_NO_TABLE = re.compile(r"[^\w\- ]")
_IN_NO_DATASET = re.compile(r"[^A-Za-z0-9_]")
_IN_NO_PROJECT = re.compile(r"[^A-Za-z0-9:.\-]")
_IN_NO_QUOTES = re.compile(r"[`\\\x00-\x1f\x7f]")
# BigQuery keeps columns of its own under such names.
_RESERVED = (
    "_table_",
    "_file_",
    "_partition",
    "_row_timestamp",
    "__root__",
    "_colidentifier",
    "_change_sequence_number",
    "_change_type",
    "_change_timestamp",
)


def quote(name: str) -> str:
    """Return a name between backticks.

    BigQuery knows escapes there, and no name has a character that would need one: such a name is refused
    with a `ConfigurationError`.
    """
    found = _IN_NO_QUOTES.search(name)
    if found:
        raise _refusal(name, "name", f"the character {found[0]!r}", "a name without it")
    return quote_identifier(name, "`")


def column_name(name: str) -> str:
    """Return the name of a column as it is. Raises `ConfigurationError` for one that BigQuery refuses."""
    found = _IN_NO_COLUMN.search(name)
    if found:
        raise _refusal(name, "column", f"the character {found[0]!r}", "letters, digits and underscores")
    prefix = next((prefix for prefix in _RESERVED if name.lower().startswith(prefix)), None)
    if prefix:
        raise _refusal(name, "column", f"the beginning {prefix!r}", "another beginning")
    if not name or len(name) > MAX_COLUMN_NAME:
        raise _refusal(name, "column", f"{len(name)} characters", f"1 to {MAX_COLUMN_NAME}")
    return name


def require_table(project: str, dataset: str, table: str) -> None:
    """Raise `ConfigurationError` for parts of a table's name that BigQuery refuses; no project is fine."""
    if project and _IN_NO_PROJECT.search(project):
        raise _refusal(project, "project", "other characters", "letters, digits and hyphens")
    if _IN_NO_DATASET.search(dataset):
        raise _refusal(dataset, "dataset", "other characters", "letters, digits and underscores")
    if _IN_NO_TABLE.search(table) or len(table.encode()) > _MAX_TABLE_NAME:
        raise _refusal(table, "table", "other characters, or too many", "letters, digits and underscores")


def _refusal(name: str, what: str, why: str, instead: str) -> ConfigurationError:
    return ConfigurationError(
        f"{name!r} cannot be the name of a {what} in BigQuery: {why} cannot be in it.",
        remedy=f"Use {instead}.",
    )
