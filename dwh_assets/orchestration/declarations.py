"""What an asset's metadata declare about its table, and what is said of a declaration that is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg
from pydantic import ValidationError
from pyiceberg.table.refs import MAIN_BRANCH

from dwh_assets.config import IcebergWriterConfig, Stream, TableLayout
from dwh_assets.errors import ConfigurationError
from dwh_assets.versioning.audits.declarations import Audit, as_declared

STREAM = "stream"
AUDITS = "audits"
PUBLISH = "publish"
AFTER_AUDIT = "after_audit"
# What the metadata that a run gives its output may say instead of the asset's own.
AT_RUN_TIME = frozenset(
    {"write_mode", "overwrite", "overwrite_where", "branch", "idempotency_key", "schema_evolution"}
)
# Attributes that go with one write mode; a run that chooses another one drops them.
_OF_MODE = {"merge": ("merge",), "overwrite": ("overwrite", "overwrite_where")}


def table_key(table: str) -> dg.AssetKey:
    """Return the asset key of an Iceberg table."""
    return dg.AssetKey(["iceberg", *table.split(".")])


def table_name(asset_key: dg.AssetKey, metadata: Mapping[str, Any]) -> str:
    """Return `namespace.table`: the metadata entry `table`, else the asset key without its first part.

    Raises `ConfigurationError` when that leaves no namespace.
    """
    entry = metadata.get("table")
    name = str(entry) if entry else ".".join(asset_key.path[1:])
    if "." not in name:
        raise ConfigurationError(
            f"The asset {asset_key.to_user_string()} does not say which Iceberg table it is.",
            remedy="Give it the key [iceberg, namespace, table], or the metadata entry table.",
        )
    return name


def writer_config(table: str, metadata: Mapping[str, Any]) -> IcebergWriterConfig:
    """Return how to write a table whose layout an asset's metadata declare, an entry for each attribute.

    Raises `ConfigurationError` that names the attribute, what was found and what is expected.
    """
    declared = {name: metadata[name] for name in TableLayout.model_fields if name in metadata}
    try:
        return IcebergWriterConfig.model_validate({**declared, "table": table})
    except ValidationError as error:
        raise ConfigurationError(f"{table}: {first_mistake(error)}.") from None


def stream_declaration(table: str, metadata: Mapping[str, Any]) -> Stream | None:
    """Return how a table is fed from a stream, if the metadata entry `stream` says that it is.

    Raises `ConfigurationError` as `writer_config` does.
    """
    if metadata.get(STREAM) is None:
        return None
    try:
        return Stream.model_validate(metadata[STREAM])
    except ValidationError as error:
        raise ConfigurationError(f"{table}: {STREAM}: {first_mistake(error)}.") from None


def audit_declarations(table: str, metadata: Mapping[str, Any]) -> list[Audit]:
    """Return the audits that the metadata entry `audits` declares.

    Raises `ConfigurationError` as `writer_config` does.
    """
    try:
        return as_declared(metadata.get(AUDITS) or [])
    except ValidationError as error:
        raise ConfigurationError(f"{table}: {AUDITS}: {first_mistake(error)}.") from None
    except ValueError as error:
        raise ConfigurationError(f"{table}: {AUDITS}: {error}.") from None


def publishes_after_audit(table: str, metadata: Mapping[str, Any]) -> bool:
    """Tell whether the table is published only after its audits, by the metadata entry `publish`.

    Raises `ConfigurationError` where that is not possible.
    """
    publish = metadata.get(PUBLISH)
    if publish is None:
        return False
    mistake = publish_mistake(metadata) if publish == AFTER_AUDIT else f"{PUBLISH} is {publish!r}"
    if mistake:
        raise ConfigurationError(f"{table}: {mistake}.", remedy=f"Correct it, or leave out {PUBLISH}.")
    return True


def publish_mistake(declared: Mapping[str, Any]) -> str | None:
    """Say what does not go with `publish: after_audit`, if anything."""
    if not declared.get(AUDITS):
        return f"{PUBLISH}: {AFTER_AUDIT} needs {AUDITS}"
    if declared.get(STREAM) is not None:
        return f"{PUBLISH} goes without {STREAM}, whose commits are there for readers as they come"
    if declared.get("branch", MAIN_BRANCH) != MAIN_BRANCH:
        return f"{PUBLISH} goes without branch: it is main that takes the write over"
    return None


def as_run_decided(table: str, declared: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return an asset's metadata as far as a run has not said otherwise in the metadata of its output.

    Raises `ConfigurationError` for an attribute of the table that is not for a run to decide.
    """
    fixed = sorted((TableLayout.model_fields.keys() | {STREAM, AUDITS, PUBLISH}) & given.keys() - AT_RUN_TIME)
    if fixed:
        raise ConfigurationError(
            f"{table}: {fixed[0]} is declared with the asset; the metadata of an output cannot change it.",
            remedy=f"A run may decide {', '.join(sorted(AT_RUN_TIME))}; name other entries differently.",
        )
    decided = {name: _plain(given[name]) for name in AT_RUN_TIME & given.keys()}
    mode = decided.get("write_mode")
    dropped = {name for of, names in _OF_MODE.items() if mode not in (None, of) for name in names}
    return {**{name: value for name, value in declared.items() if name not in dropped}, **decided}


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, dg.MetadataValue) else value


def first_mistake(error: ValidationError) -> str:
    """Say in one sentence where the first mistake is, what was found and what is expected."""
    first, *others = error.errors(include_url=False)
    where = ".".join(str(part) for part in first["loc"])
    found = f"{where} is {first['input']!r}: " if where else ""
    more = f" (and {len(others)} more)" if others else ""
    expected = first["msg"].removeprefix("Value error, ").replace("Input should be", "expected", 1)
    return f"{found}{expected}{more}"
