"""The attributes that only Dagster needs: partitions, inputs, replicas, freshness, retention."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal, Self

import dagster as dg
from pydantic import Field, model_validator

_CRON = {"hour": "0 * * * *", "day": "0 0 * * *", "week": "0 0 * * 0", "month": "0 0 1 * *"}
_FORMAT = {"hour": "%Y-%m-%d-%H:%M", "day": "%Y-%m-%d", "week": "%Y-%m-%d", "month": "%Y-%m-%d"}


class _Attribute(dg.Model, dg.Resolvable):
    """An attribute of several parts."""


class PartitionDimension(_Attribute):
    """One dimension of a table's Dagster partitions, and the column that holds it.

    Give exactly one of `every` or `cron` (time windows), `keys` (static) or `dynamic`.
    """

    column: str = Field(description="The column whose values are this dimension's partitions.")
    name: str | None = Field(default=None, description="Name of the dimension; needed when there are two.")
    every: Literal["hour", "day", "week", "month"] | None = Field(
        default=None, description="Time windows of one hour, day, week or month."
    )
    cron: str | None = Field(default=None, description="Time windows that begin as a cron expression says.")
    start: str | None = Field(
        default=None, description="First moment of the first time window, as 2013-01-01."
    )
    end: str | None = Field(default=None, description="No window ends after this moment; unset: up to now.")
    timezone: str = Field(
        default="UTC", description="Time zone of the windows; Iceberg's own partitions are in UTC."
    )
    keys: list[str] | None = Field(default=None, description="The fixed partition keys.")
    dynamic: str | None = Field(default=None, description="Name of a dynamic set of partitions.")

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        given = [name for name in ("every", "cron", "keys", "dynamic") if getattr(self, name) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none of them"
            raise ValueError(f"give exactly one of every, cron, keys or dynamic; found {found}")
        if (self.every or self.cron) and not self.start:
            raise ValueError("time windows need a start")
        return self

    def definition(self) -> dg.PartitionsDefinition[str]:
        """Return the Dagster partitions of this dimension."""
        if self.keys is not None:
            return dg.StaticPartitionsDefinition(self.keys)
        if self.dynamic is not None:
            return dg.DynamicPartitionsDefinition(name=self.dynamic)
        fmt = _FORMAT[self.every] if self.every else "%Y-%m-%d-%H:%M"
        return dg.TimeWindowPartitionsDefinition(
            start=dg_time(self.start or "", fmt),
            end=dg_time(self.end, fmt) if self.end else None,
            fmt=fmt,
            timezone=self.timezone,
            cron_schedule=self.cron or _CRON[self.every or "day"],
        )


def dg_time(moment: str, fmt: str) -> str:
    """Write a date or ISO moment in the format that the partition keys have."""
    from datetime import datetime

    return datetime.fromisoformat(moment).strftime(fmt)


def partitions_definition(dimensions: list[PartitionDimension]) -> dg.PartitionsDefinition[str] | None:
    """Return the Dagster partitions that one or two dimensions make; None for none."""
    if not dimensions:
        return None
    if len(dimensions) == 1:
        return dimensions[0].definition()
    return dg.MultiPartitionsDefinition({d.name or d.column: d.definition() for d in dimensions})


def partition_expr(dimensions: list[PartitionDimension]) -> str | dict[str, str] | None:
    """Return the column of the partitions, or the column of each dimension."""
    if len(dimensions) < 2:
        return dimensions[0].column if dimensions else None
    return {d.name or d.column: d.column for d in dimensions}


class Input(_Attribute):
    """One table that a computed table reads."""

    table: str | None = Field(
        default=None, description="namespace.table; unset: the parameter's name, same namespace."
    )
    columns: list[str] | None = Field(default=None, description="Read only these columns.")
    where: str | None = Field(default=None, description="Read only the rows that match, e.g. carrier = 'AA'.")


class Replica(_Attribute):
    """A copy of the table in a warehouse."""

    warehouse: Literal["duckdb"] = Field(description="Which warehouse: duckdb.")
    into: str | None = Field(
        default=None, description="schema.table in the warehouse; unset: as in the lake."
    )
    resource: str = Field(default="duckdb", description="Key of the Dagster resource that connects to it.")


class Freshness(_Attribute):
    """How old the newest materialization may become."""

    fail_after_hours: float = Field(gt=0, description="Older than this is a failure.")
    warn_after_hours: float | None = Field(default=None, gt=0, description="Older than this is a warning.")

    def policy(self) -> dg.FreshnessPolicy:
        """Return Dagster's policy."""
        warn = timedelta(hours=self.warn_after_hours) if self.warn_after_hours else None
        return dg.FreshnessPolicy.time_window(
            fail_window=timedelta(hours=self.fail_after_hours), warn_window=warn
        )


class Retention(_Attribute):
    """What the table's history may cost, kept as the Iceberg properties that every engine obeys."""

    keep_snapshots: int | None = Field(
        default=None,
        ge=1,
        description="Expiry keeps at least this many snapshots (history.expire.min-snapshots-to-keep).",
    )
    snapshot_age_days: float | None = Field(
        default=None, gt=0, description="Expiry keeps younger snapshots (history.expire.max-snapshot-age-ms)."
    )
    metadata_versions: int | None = Field(
        default=None,
        ge=1,
        description="Keep this many old metadata files, delete older ones at each commit "
        "(write.metadata.previous-versions-max, write.metadata.delete-after-commit.enabled).",
    )

    def properties(self) -> dict[str, str]:
        """Return the Iceberg table properties that say so."""
        found: dict[str, str] = {}
        if self.keep_snapshots is not None:
            found["history.expire.min-snapshots-to-keep"] = str(self.keep_snapshots)
        if self.snapshot_age_days is not None:
            found["history.expire.max-snapshot-age-ms"] = str(round(self.snapshot_age_days * 86_400_000))
        if self.metadata_versions is not None:
            found["write.metadata.previous-versions-max"] = str(self.metadata_versions)
            found["write.metadata.delete-after-commit.enabled"] = "true"
        return found
