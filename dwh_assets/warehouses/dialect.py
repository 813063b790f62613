"""What one warehouse's SQL is like: its limits, types and quoting, and the text form that hashes compare.

A warehouse is one folder with one `Dialect` and one `Session` (`session.py`); everything else is written
once, on top of these two.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa
from pyiceberg.types import DecimalType, IcebergType, IntegerType, LongType, NestedField

from dwh_assets.errors import ConfigurationError
from dwh_assets.iceberg.sql import quote_identifier
from dwh_assets.warehouses.base import Target

_PLAIN = re.compile(r'[^."]+')
_PART = re.compile(r'"(?:[^"]|"")+"|[^".]+')
_DOTTED = re.compile(rf"(?:{_PART.pattern})(?:\.(?:{_PART.pattern}))*")

# So that the sum of ten billion such decimals has 38 digits
_MOST_SUMMED_DIGITS = 28


@dataclass(frozen=True)
class Capabilities:
    """What a warehouse can do, and how it likes to be loaded. Sizes are bytes of compressed files.

    `casing` is how names are stored: as they are given, or in capitals. With `case_sensitive` two columns
    whose names differ in case alone are two columns, with `case_sensitive_tables` two tables.
    `transactional_ddl` says that tables can be made, altered and
    replaced inside a transaction together with rows. `max_decimal_digits` is the widest decimal;
    `timestamp_digits` are digits behind the second. `daily_loads_per_table` is None where there is no such
    limit.
    """

    warehouse: Literal["duckdb", "motherduck", "snowflake", "bigquery"]
    sqlglot_dialect: str
    placeholder: str
    casing: Literal["preserve", "upper"]
    case_sensitive: bool
    case_sensitive_tables: bool
    max_identifier_length: int
    max_columns: int
    max_decimal_digits: int
    timestamp_digits: int
    transactional_ddl: bool
    merge_in_transaction: bool
    bulk_formats: tuple[str, ...]
    file_bytes: int
    parallel_files: int
    daily_loads_per_table: int | None = None


@dataclass(frozen=True)
class TypeOptions:
    """What becomes of values that a warehouse's own types cannot hold as they are.

    `nested`: `native` takes the warehouse's own structs, lists and maps even where it loses something
    (the table in docs/types.md says what), `json` keeps all of it as JSON or VARIANT; None is whichever of
    them loses nothing. `wide_decimals`: decimals with more digits than there are become an error or text.
    `nanoseconds`: an error, cut to microseconds, or text.
    """

    nested: Literal["native", "json"] | None = None
    wide_decimals: Literal["error", "text"] = "error"
    nanoseconds: Literal["error", "truncate", "text"] = "error"


@dataclass(frozen=True)
class Holding:
    """How values of one Iceberg type are held.

    `sql_type` is the column's declaration. Rows travel as `arrow_type`: `encode` turns an array of the
    lake's type (`iceberg.arrow.types.arrow_schema`) into it, `decode` turns what a query brought back into
    the lake's type; None where nothing needs doing but a cast. `staged_sql` gets the SQL of a staged
    value and returns that of the stored one (`PARSE_JSON` and its like); `fetched_sql` gets that of a
    stored value and returns what a query is to bring back. `lost` says in words what is lost, and is empty
    where reading back gives the same values.
    """

    sql_type: str
    arrow_type: pa.DataType
    encode: Callable[[pa.Array], pa.Array] | None = None
    decode: Callable[[pa.Array], pa.Array] | None = None
    staged_sql: Callable[[str], str] | None = None
    fetched_sql: Callable[[str], str] | None = None
    lost: str = ""


@dataclass(frozen=True)
class ReplicaColumn:
    """One column of a replica: the lake's field, and under which name and how the warehouse holds it."""

    field: NestedField
    name: str
    holding: Holding


class Dialect(ABC):
    """One warehouse's SQL. Names go into text through `quote` and `qualify` alone."""

    capabilities: Capabilities
    quotation_mark = '"'

    @abstractmethod
    def holding(self, iceberg: IcebergType, where: str, options: TypeOptions) -> Holding:
        """Return how values of a type are held.

        Raises `UnsupportedError` that names `where` (table and column) when they cannot be.
        """

    @abstractmethod
    def canonical_sql(self, iceberg: IcebergType, holding: Holding, value_sql: str) -> str | None:
        r"""Return SQL for the canonical text of a value, the same in every warehouse; NULL stays NULL.

        None where this type has no text that all warehouses agree on.
        """

    @abstractmethod
    def limbs_sql(self, text_sql: str) -> tuple[str, str, str, str]:
        """Return SQL for the MD5 of a text as four integers of 32 bits."""

    def sum_sql(self, iceberg: IcebergType, value_sql: str) -> str | None:
        """Return SQL for the exact sum of integers or decimals; None for what may have none that fits."""
        if isinstance(iceberg, IntegerType | LongType):
            return f"SUM(CAST({value_sql} AS DECIMAL(38, 0)))"
        if isinstance(iceberg, DecimalType) and iceberg.precision <= _MOST_SUMMED_DIGITS:
            return f"SUM(CAST({value_sql} AS DECIMAL(38, {iceberg.scale:d})))"
        return None

    def name(self, lake_name: str) -> str:
        """Return the name that a lake's column has in the warehouse.

        Raises `ConfigurationError` for one that the warehouse does not take.
        """
        return lake_name.upper() if self.capabilities.casing == "upper" else lake_name

    @abstractmethod
    def target(self, into: str) -> Target:
        """Return where `into` is, a name of two or three parts as a person writes it (`schema.table`).

        Raises `ConfigurationError`.
        """

    @abstractmethod
    def state_table(self, target: Target) -> Target:
        """Return where the record of the replica is kept: `_dwh_replicas`, in a transaction's reach."""

    def quote(self, name: str) -> str:
        """Return a name as a quoted identifier."""
        return quote_identifier(name, self.quotation_mark)

    def qualify(self, target: Target) -> str:
        """Return a table's name, each part quoted."""
        return ".".join(map(self.quote, target.parts))

    def same_sql(self, left_sql: str, right_sql: str, field: NestedField) -> str:
        """Return a condition that two values of a key column are the same; null is the same as null.

        The key never is a float: NaN is not the same as NaN everywhere.
        """
        if field.required:
            return f"{left_sql} = {right_sql}"
        return f"{left_sql} IS NOT DISTINCT FROM {right_sql}"

    def parameters_sql(self, count: int) -> str:
        """Return so many placeholders, parted by commas."""
        return ", ".join([self.capabilities.placeholder] * count)


def split_name(into: str, fold: Callable[[str], str] = str) -> list[str]:
    """Return the parts of a dotted name; one in double quotes may hold dots. Raises `ConfigurationError`.

    `fold` gets the parts that stand without quotes, for warehouses that store them in another way.
    """
    if not _DOTTED.fullmatch(into):
        raise ConfigurationError(
            f"`into` is {into!r}, which is no name of a table.",
            remedy='Write schema.table; a part that holds a dot goes in double quotes: schema."my.table".',
        )
    return [part[1:-1].replace('""', '"') if part[0] == '"' else fold(part) for part in _PART.findall(into)]


def in_lake(table: str) -> str:
    """Return the lake's name of a table as `into` would be written: its namespace is one schema."""
    namespace, _, name = table.rpartition(".")
    return ".".join(
        part if _PLAIN.fullmatch(part) else quote_identifier(part) for part in (namespace, name) if part
    )
