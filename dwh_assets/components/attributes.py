"""The attributes that only Dagster needs: partitions, inputs, replicas, freshness, policy."""

from __future__ import annotations

import os
from datetime import date, datetime, timedelta
from typing import Any, Literal, Self
from zoneinfo import ZoneInfo

import dagster as dg
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pyiceberg.types import NestedField

from dwh_assets.config import ColumnDeclaration
from dwh_assets.orchestration.replica_declarations import ReplicaDeclaration

_CRON = {"hour": "0 * * * *", "day": "0 0 * * *", "week": "0 0 * * 0", "month": "0 0 1 * *"}
_FORMAT = {"hour": "%Y-%m-%d-%H:%M", "day": "%Y-%m-%d", "week": "%Y-%m-%d", "month": "%Y-%m-%d"}


class _Attribute(BaseModel):
    """An attribute of several parts."""

    model_config = ConfigDict(extra="forbid")


class Column(ColumnDeclaration):
    """What is promised about one column, over what the data themselves say."""

    @field_validator("type")
    @classmethod
    def _known_type(cls, value: str | None) -> str | None:
        try:
            _ = value and NestedField(1, "column", value, required=False)
        except ValueError:
            raise ValueError(
                "expected an Iceberg type, for example int, long, double, decimal(10, 2), string, date, "
                "timestamp or timestamptz"
            ) from None
        return value


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

    @field_validator("start", "end", mode="before")
    @classmethod
    def _moment(cls, value: Any) -> Any:
        """Take dates that YAML reads as dates, and refuse what is no moment."""
        text = value.isoformat() if isinstance(value, date) else value
        if isinstance(text, str) and datetime.fromisoformat(text).tzinfo is not None:
            raise ValueError("the time zone is an attribute of its own: leave it out here")
        return text

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (KeyError, ValueError, OSError):
            raise ValueError("not the name of a time zone, such as UTC or America/New_York") from None
        return value

    @field_validator("keys")
    @classmethod
    def _distinct(cls, value: list[str] | None) -> list[str] | None:
        repeated = {key for key in value or [] if (value or []).count(key) > 1}
        if repeated:
            raise ValueError(f"a key stands there twice: {', '.join(sorted(repeated))}")
        return value

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        given = [name for name in ("every", "cron", "keys", "dynamic") if getattr(self, name) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none of them"
            raise ValueError(f"give exactly one of every, cron, keys or dynamic; found {found}")
        if self.is_time and not self.start:
            raise ValueError("time windows need a start")
        stray = {"start", "end", "timezone"} & self.model_fields_set
        if stray and not self.is_time:
            raise ValueError(f"{', '.join(sorted(stray))} belongs to time windows, not to {given[0]}")
        for moment in (self.start, self.end):
            _require_exact(moment, self._format)
        try:
            self.definition()
        except dg.DagsterError as error:
            raise ValueError(str(error)) from None
        return self

    @property
    def is_time(self) -> bool:
        """Whether the partitions are time windows."""
        return self.every is not None or self.cron is not None

    @property
    def _format(self) -> str:
        return _FORMAT[self.every] if self.every else "%Y-%m-%d-%H:%M"

    def definition(self) -> dg.PartitionsDefinition[str]:
        """Return the Dagster partitions of this dimension."""
        if self.keys is not None:
            return dg.StaticPartitionsDefinition(self.keys)
        if self.dynamic is not None:
            return dg.DynamicPartitionsDefinition(name=self.dynamic)
        fmt = self._format
        return dg.TimeWindowPartitionsDefinition(
            start=_key(self.start or "", fmt),
            end=_key(self.end, fmt) if self.end else None,
            fmt=fmt,
            timezone=self.timezone,
            cron_schedule=self.cron or _CRON[self.every or "day"],
        )


def _key(moment: str, fmt: str) -> str:
    """Write a date or ISO moment in the format that the partition keys have."""
    return datetime.fromisoformat(moment).strftime(fmt)


def _require_exact(moment: str | None, fmt: str) -> None:
    """Refuse a moment that the format would cut: days do not begin at five in the morning."""
    if moment and datetime.strptime(_key(moment, fmt), fmt) != datetime.fromisoformat(moment):  # noqa: DTZ007
        raise ValueError(f"{moment} is more exact than these windows, which begin as {_key(moment, fmt)}")


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
    as_of: str | int | None = Field(
        default=None,
        description="Read this point in time: an ISO date or time, N versions ago, a tag, a snapshot id.",
    )
    tag: str | None = Field(default=None, description="Read the version that this tag names.")
    branch: str | None = Field(default=None, description="Read this branch.")
    snapshot_id: str | int | None = Field(default=None, description="Read this snapshot.")

    @field_validator("as_of", mode="before")
    @classmethod
    def _dates_as_text(cls, value: Any) -> Any:
        """Take dates that YAML reads as dates."""
        return value.isoformat() if isinstance(value, date) else value

    @model_validator(mode="after")
    def _one_point(self) -> Self:
        given = [
            name for name in ("as_of", "tag", "branch", "snapshot_id") if getattr(self, name) is not None
        ]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} say twice which version to read; leave one")
        return self


class Replica(ReplicaDeclaration):
    """A copy of the table in a warehouse."""

    warehouse: Literal["duckdb", "motherduck", "snowflake", "bigquery"] = Field(
        description="Which warehouse: duckdb, motherduck, snowflake or bigquery."
    )
    into: str | None = Field(
        default=None, description="schema.table in the warehouse; unset: as in the lake."
    )
    name: str | None = Field(
        default=None,
        description="Last part of the asset's key, where a table has several replicas in one warehouse; "
        "unset: the table's name.",
    )
    resource: str | None = Field(
        default=None,
        description="Key of the Dagster resource that connects to it; unset: the warehouse's name.",
    )
    when_env: str | None = Field(
        default=None,
        description="Name of an environment variable: where it is not set, the replica is not there.",
    )
    verify_schedule: str | None = Field(
        default=None, description="When the replica is compared with its table anyway: a cron expression."
    )

    @field_validator("name")
    @classmethod
    def _plain_name(cls, value: str | None) -> str | None:
        if value is not None and not value.isidentifier():
            raise ValueError("expected a plain name: letters, digits and _")
        return value

    @field_validator("verify_schedule")
    @classmethod
    def _is_cron(cls, value: str | None) -> str | None:
        try:
            _ = value is not None and dg.ScheduleDefinition(cron_schedule=value, job_name="verify")
        except dg.DagsterError:
            raise ValueError("expected a cron expression, such as 0 3 * * *") from None
        return value

    @model_validator(mode="after")
    def _fits_the_warehouse(self) -> Self:
        for name, where in _ONLY_IN.items():
            if getattr(self, name) and self.warehouse not in where:
                raise ValueError(f"{name} is for {' and '.join(where)}; {self.warehouse} has no such thing")
        return self

    @model_validator(mode="after")
    def _can_stay(self) -> Self:
        if self.at is None:
            return self
        if self.mode not in ("copy", "external"):
            raise ValueError(f"at keeps one version; mode {self.mode} is a history of them")
        if self.mode == "external" and self.warehouse == "bigquery":
            raise ValueError("at needs mode copy in bigquery, whose external tables show the newest version")
        return self

    @model_validator(mode="after")
    def _fits_the_mode(self) -> Self:
        compared = sorted({"parity", "verify_schedule"} & self.model_fields_set)
        if self.mode == "append_only" and compared:
            raise ValueError(f"{compared[0]} is for rows of the table; mode append_only holds changes")
        stray = sorted(_OF_COPIED_ROWS & self.model_fields_set)
        if self.mode == "external" and stray:
            raise ValueError(f"{stray[0]} is for rows that are written; with mode external none are")
        return self

    @property
    def is_there(self) -> bool:
        """Whether the environment is one in which the replica is to be."""
        return self.when_env is None or bool(os.environ.get(self.when_env))

    @property
    def connection(self) -> str:
        """The key of the Dagster resource that connects to the warehouse."""
        return self.resource or self.warehouse


_ONLY_IN = {
    "partition_by": ("bigquery",),
    "indexes": ("duckdb", "motherduck"),
}
# What is decided where rows are written; a warehouse that reads the table's files writes none.
_OF_COPIED_ROWS = frozenset(
    {"cluster_by", "partition_by", "indexes", "nested", "wide_decimals", "nanoseconds", "dropped_columns"}
)


class Freshness(_Attribute):
    """How old the newest materialization may become."""

    fail_after_hours: float = Field(gt=0, description="Older than this is a failure.")
    warn_after_hours: float | None = Field(default=None, gt=0, description="Older than this is a warning.")

    @model_validator(mode="after")
    def _warns_before_it_fails(self) -> Self:
        shortest = 1 / 60
        if min(self.fail_after_hours, self.warn_after_hours or shortest) < shortest:
            raise ValueError("Dagster knows no freshness below a minute")
        if self.warn_after_hours is not None and self.warn_after_hours >= self.fail_after_hours:
            raise ValueError("warn_after_hours must be less than fail_after_hours")
        return self

    def policy(self) -> dg.FreshnessPolicy:
        """Return Dagster's policy."""
        warn = timedelta(hours=self.warn_after_hours) if self.warn_after_hours else None
        return dg.FreshnessPolicy.time_window(
            fail_window=timedelta(hours=self.fail_after_hours), warn_window=warn
        )


class Policy(_Attribute):
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
