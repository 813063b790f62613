"""What an asset's metadata declare about a replica: in YAML or by hand, the same entries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dwh_assets.errors import ConfigurationError
from dwh_assets.orchestration.declarations import first_mistake
from dwh_assets.warehouses.base import Mode
from dwh_assets.warehouses.dialect import TypeOptions
from dwh_assets.warehouses.options import ReplicaOptions
from dwh_assets.warehouses.parity_report import Level
from dwh_assets.warehouses.session import Layout


class TimePartition(BaseModel):
    """Partitions of a replica, by a column of time."""

    model_config = ConfigDict(extra="forbid")

    field: str = Field(description="A column of dates or timestamps.")
    transform: Literal["hour", "day", "month", "year"] = Field(
        default="day", description="How long a partition is: hour, day, month or year."
    )


class ReplicaDeclaration(BaseModel):
    """How a replica is kept, whichever warehouse it is in. Frozen: an asset's metadata are one such."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mode: Mode = Field(
        default="copy",
        description="copy: the table's rows. external: the warehouse reads the table's own files. "
        "merge_into: rows that went or changed stay, closed (_dwh_valid_from, _dwh_valid_to). append_only: "
        "each change is a row of its own.",
    )
    at: str | None = Field(
        default=None, description="A tag or release: the replica stays on that version, wherever main goes."
    )
    cluster_by: list[str] = Field(
        default_factory=list,
        description="Columns that rows are clustered by; DuckDB sorts by them what it loads.",
    )
    partition_by: TimePartition | None = Field(
        default=None, description="Partitions in BigQuery, by a column of time."
    )
    indexes: list[list[str]] = Field(
        default_factory=list, description="Indexes in DuckDB, the columns of each: [[id], [place, at]]."
    )
    nested: Literal["native", "json"] | None = Field(
        default=None,
        description="Structs, lists and maps: the warehouse's own types, or JSON. Unset: what loses nothing.",
    )
    wide_decimals: Literal["error", "text"] = Field(
        default="error", description="Decimals of more digits than the warehouse has."
    )
    nanoseconds: Literal["error", "truncate", "text"] = Field(
        default="error", description="Timestamps finer than the warehouse keeps."
    )
    dropped_columns: Literal["drop", "keep"] = Field(
        default="drop", description="What becomes of a column that the table no longer has."
    )
    create_table: bool = Field(
        default=True, description="false: the table in the warehouse is made by somebody else, before."
    )
    pin_days: float = Field(
        default=7.0,
        ge=0,
        description="So long the table's expiry keeps the snapshot that the replica holds, for the next sync "
        "to apply just what changed since.",
    )
    parity: Level = Field(
        default="fingerprint",
        description="How the check after each sync compares: count of rows, fingerprint of each column, or "
        "full, every value.",
    )

    def options(self) -> ReplicaOptions:
        """Return what the library calls these choices."""
        by = self.partition_by
        return ReplicaOptions(
            types=TypeOptions(self.nested, self.wide_decimals, self.nanoseconds),
            layout=Layout(
                cluster_by=tuple(self.cluster_by),
                partition_by=by.field if by else None,
                partition_grain=by.transform if by else None,
                indexes=tuple(map(tuple, self.indexes)),
            ),
            dropped_columns=self.dropped_columns,
            create_table=self.create_table,
            pin_days=self.pin_days,
        )

    def entries(self) -> dict[str, Any]:
        """Return the metadata entries of an asset that say so: what is not as it is by default."""
        declared = ReplicaDeclaration.model_fields.keys() & self.model_fields_set
        return self.model_dump(mode="json", include=set(declared), exclude_defaults=True)


def replica_declaration(name: str, metadata: Mapping[str, Any]) -> ReplicaDeclaration:
    """Return what the metadata of the replica `name` declare.

    Raises `ConfigurationError` that names the attribute, what was found and what is expected.
    """
    known = {key: metadata[key] for key in ReplicaDeclaration.model_fields if key in metadata}
    try:
        return ReplicaDeclaration.model_validate(known)
    except ValidationError as error:
        raise ConfigurationError(f"{name}: {first_mistake(error)}.") from None
