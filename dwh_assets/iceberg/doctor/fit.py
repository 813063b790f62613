"""Whether a declaration, and data where there are some, fit a table: what the next write would find."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from pyiceberg.schema import Schema
from pyiceberg.table import Table

from dwh_assets.config import IcebergWriterConfig
from dwh_assets.errors import SchemaError
from dwh_assets.iceberg.arrow.sources import as_reader
from dwh_assets.iceberg.arrow.types import arrow_schema
from dwh_assets.iceberg.declaration import Shape, decide_shape, new_shape
from dwh_assets.iceberg.doctor.check import Finding, Unchecked
from dwh_assets.iceberg.modes.merge_clauses import compile_clauses, without_condition_columns
from dwh_assets.iceberg.versions import at_branch


def schema_of(data: Any) -> pa.Schema:
    """Return the columns of data, or of a schema itself. Of an iterator of batches the first is taken out."""
    return data if isinstance(data, pa.Schema) else as_reader(data).schema


def fit(table: Table | None, config: IcebergWriterConfig, incoming: pa.Schema | None) -> str | Finding:
    """Decide what the next write would do to the table's columns, partitioning and order.

    Raises what the write would raise, `SchemaError` and `ConfigurationError`; `Unchecked` without table and
    data.
    """
    if table is None and incoming is None:
        raise Unchecked("There is no table yet, and there are no data to judge the declaration by.")
    if table is None:
        return _told(_shape(None, config, incoming), "The data fit the declaration")
    if incoming is not None:
        return _told(_shape(table, config, incoming), "The data fit the table")
    schema = at_branch(table, config.branch).schema()
    missing = _not_in(schema, config)
    if missing:
        return _only_with_data(missing, config)
    shape = decide_shape(table.metadata, config, arrow_schema(schema), config.table)
    return _told(shape, "The declaration fits the table")


def _shape(table: Table | None, config: IcebergWriterConfig, incoming: pa.Schema | None) -> Shape:
    given = incoming or pa.schema([])
    columns = without_condition_columns(given, config, config.table)
    shape = (
        new_shape(config, columns, config.table)
        if table is None
        else decide_shape(table.metadata, config, columns, config.table)
    )
    compile_clauses(config, shape.schema, given, config.table)
    return shape


def _told(shape: Shape, verdict: str) -> str:
    changes = "; ".join(shape.changes)
    return f"{verdict}; the next write changes it: {changes}." if changes else f"{verdict}."


def _not_in(schema: Schema, config: IcebergWriterConfig) -> list[str]:
    """Return the columns that the declaration names and the table lacks, in the order of the declaration."""
    by = [one.field for one in config.partition_spec] + [one.field for one in config.sort_order]
    named = [*config.columns, *config.key_columns, *by]
    known = set(schema.column_names)
    return [name for name in dict.fromkeys(named) if name not in known]


def _only_with_data(missing: list[str], config: IcebergWriterConfig) -> Finding:
    names = ", ".join(map(repr, missing))
    if not config.schema_evolution.enabled:
        raise SchemaError(
            f"{config.table}: the table has no column {names}, which the declaration names.",
            remedy="Correct the declaration, or set schema_evolution enabled: true.",
        )
    return Finding(
        "warning",
        f"The table has no column {names}: it fits only data that bring it.",
        "Correct the declaration, or see that the data have it.",
    )
