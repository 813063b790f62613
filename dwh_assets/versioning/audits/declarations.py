"""Audits as they are declared, in YAML or Python: `{kind: not_null, columns: [carrier]}`."""

from __future__ import annotations

import re
from collections import Counter
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, field_validator, model_validator

# What a value in YAML, or in JSON, may stand for
Value = bool | int | float | Decimal | datetime | date | str


class _Audit(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str | None = Field(
        default=None, description="What its result is called: letters, digits and _. Unset: kind and columns."
    )

    @field_validator("name")
    @classmethod
    def _plain(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"\w+", value, re.ASCII):
            raise ValueError(f"{value!r} may hold only letters, digits and _")
        return value

    @property
    def label(self) -> str:
        """What the result of this audit is called."""
        return self.name or re.sub(r"\W", "_", "_".join([self._kind, *self._columns]), flags=re.ASCII)

    @property
    def described(self) -> str:
        """What it demands, in a sentence."""
        raise NotImplementedError

    @property
    def _kind(self) -> str:
        return str(getattr(self, "kind"))  # noqa: B009 - each kind declares its own literal

    @property
    def _columns(self) -> list[str]:
        return []


class _OfColumns(_Audit):
    columns: list[str] = Field(min_length=1, description="Columns of the table.")

    @property
    def _columns(self) -> list[str]:
        return self.columns


class _OfColumn(_Audit):
    column: str = Field(description="A column of the table.")

    @property
    def _columns(self) -> list[str]:
        return [self.column]


class NotNull(_OfColumns):
    """No changed row holds a null in any of the columns."""

    kind: Literal["not_null"] = Field(default="not_null", description="not_null")

    @property
    def described(self) -> str:
        """What it demands, in a sentence."""
        return f"{', '.join(self.columns)}: no nulls."


class Unique(_OfColumns):
    """No changed row shares the values of the columns with another row of the table; nulls equal nothing."""

    kind: Literal["unique"] = Field(default="unique", description="unique")

    @property
    def described(self) -> str:
        """What it demands, in a sentence."""
        return f"{', '.join(self.columns)}: no two rows alike."


class AcceptedValues(_OfColumn):
    """The column of each changed row is null, or one of the values."""

    kind: Literal["accepted_values"] = Field(default="accepted_values", description="accepted_values")
    values: list[Value] = Field(min_length=1, description="The values that may occur, of the column's type.")

    @property
    def described(self) -> str:
        """What it demands, in a sentence."""
        return f"{self.column}: one of {', '.join(map(str, self.values))}."


class Range(_OfColumn):
    """The column of each changed row is null, or lies between the bounds; these may occur themselves."""

    kind: Literal["range"] = Field(default="range", description="range")
    min: Value | None = Field(default=None, description="The least value.")
    max: Value | None = Field(default=None, description="The greatest value.")

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if self.min is None and self.max is None:
            raise ValueError("a range needs min, max or both")
        return self

    @property
    def described(self) -> str:
        """What it demands, in a sentence."""
        low = "" if self.min is None else f" from {self.min}"
        return f"{self.column}:{low}{'' if self.max is None else f' up to {self.max}'}."


class RowCountChange(_Audit):
    """The table's number of rows changes, against the version before, by so many percent."""

    kind: Literal["row_count_change"] = Field(default="row_count_change", description="row_count_change")
    min_percent: float | None = Field(default=None, description="The least change; -10 allows a tenth less.")
    max_percent: float | None = Field(default=None, description="The greatest change; 0 allows no growth.")

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if self.min_percent is None and self.max_percent is None:
            raise ValueError("row_count_change needs min_percent, max_percent or both")
        if None not in (low := self.min_percent, high := self.max_percent) and low > high:  # type: ignore[operator]
            raise ValueError(f"min_percent {low} is greater than max_percent {high}")
        return self

    @property
    def described(self) -> str:
        """What it demands, in a sentence."""
        low = "" if self.min_percent is None else f" from {self.min_percent:+g}%"
        return f"Number of rows:{low}{'' if self.max_percent is None else f' up to {self.max_percent:+g}%'}."


class ForeignKey(_OfColumns):
    """The columns of each changed row hold a null, or are there in another table.

    That table is read at the snapshot which the write says it has read, of several at the newest that is
    kept, else as its main branch is.
    """

    kind: Literal["foreign_key"] = Field(default="foreign_key", description="foreign_key")
    table: str = Field(description="namespace.table that is referred to.")
    references: list[str] | None = Field(
        default=None, description="The columns over there; unset: those of the same names."
    )

    @model_validator(mode="after")
    def _as_many(self) -> Self:
        if self.references is not None and len(self.references) != len(self.columns):
            raise ValueError(f"{len(self.columns)} columns cannot refer to {len(self.references)}")
        return self

    @property
    def referenced(self) -> list[str]:
        """The columns over there."""
        return self.references or self.columns

    @property
    def described(self) -> str:
        """What it demands, in a sentence."""
        return f"{', '.join(self.columns)}: there in {self.table} ({', '.join(self.referenced)})."


class Sql(_Audit):
    """A SELECT of DuckDB that returns no rows.

    It reads `branch`, the new version; `main`, the version before; and `changed`, the rows that the new
    version has and the one before has not. All are in the columns of the new version.
    """

    kind: Literal["sql"] = Field(default="sql", description="sql")
    name: str = Field(description="What its result is called: letters, digits and _.")
    query: str = Field(description="SELECT over the tables branch, main and changed; its rows are failures.")

    @property
    def described(self) -> str:
        """What it demands, in a sentence."""
        return f"No rows: {' '.join(self.query.split())}"


Audit = Annotated[
    NotNull | Unique | AcceptedValues | Range | RowCountChange | ForeignKey | Sql, Field(discriminator="kind")
]
AUDITS: TypeAdapter[list[Audit]] = TypeAdapter(list[Audit])


def require_distinct_names(audits: list[Audit]) -> list[Audit]:
    """Return the audits; raises `ValueError` where two results would have one name."""
    repeated = [name for name, times in Counter(audit.label for audit in audits).items() if times > 1]
    if repeated:
        raise ValueError(f"two audits are called {repeated[0]}; give one of them a name")
    return audits


def as_declared(audits: Any) -> list[Audit]:
    """Return audits that are given as models or as plain mappings.

    Raises pydantic's `ValidationError`, and `ValueError` for two of one name.
    """
    return require_distinct_names(AUDITS.validate_python(audits))
