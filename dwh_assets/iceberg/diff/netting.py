"""What remains of weighted rows once equal ones have cancelled each other out, and which of it is an update.

Values are compared as an upsert compares them: null equals null, NaN equals NaN, -0.0 equals 0.0.

Where a key stands in several rows of a version, rows that both versions hold are no change, and what is
left of the key is paired row by row: a pair is an update, and what has no partner an insert or a delete.
With at most one row a key in each version that is what a full outer join by key says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pyiceberg.schema import Schema

from dwh_assets.iceberg.diff.rows import WEIGHT
from dwh_assets.iceberg.sql import quote_identifier, quote_text

CHANGE = "_change"
PAIR = "_pair"
INSERT, DELETE, UPDATE_BEFORE, UPDATE_AFTER = "insert", "delete", "update_before", "update_after"
_WEIGHT_SQL, _CHANGE_SQL, _PAIR_SQL = map(quote_identifier, (WEIGHT, CHANGE, PAIR))


@dataclass(frozen=True)
class NettingSql:
    """Queries over a relation `chunk` of weighted rows, named as inside DuckDB."""

    columns_sql: str
    keys_sql: str

    @classmethod
    def of(cls, schema: Schema, keys: Sequence[str]) -> NettingSql:
        """Compare the columns of `schema`, by `keys` or, without any, as a multiset."""
        names = [field.name for field in schema.fields]
        return cls(*(", ".join(map(quote_identifier, some)) for some in (names, keys)))

    @property
    def changes_sql(self) -> str:
        """Select every row that changed, with `_change` and `_pair`; the rows of a pair follow each other."""
        if not self.keys_sql:
            return (
                f"SELECT {self.columns_sql}, {self._alone_sql} AS {_CHANGE_SQL}, 0 AS {_PAIR_SQL}"
                f" FROM ({self._copies_sql}) AS copies"
            )
        paired_sql = f"{_PAIR_SQL} <= least(went, came)"
        before_sql, after_sql = quote_text(UPDATE_BEFORE), quote_text(UPDATE_AFTER)
        return (
            f"SELECT {self.columns_sql}, CASE WHEN {paired_sql} AND {_WEIGHT_SQL} < 0 THEN {before_sql}"
            f" WHEN {paired_sql} THEN {after_sql} ELSE {self._alone_sql} END AS {_CHANGE_SQL},"
            f" {_PAIR_SQL}"
            f" FROM ({self._numbered_sql}) AS numbered ORDER BY {self.keys_sql}, {_PAIR_SQL}, {_WEIGHT_SQL}"
        )

    @property
    def _alone_sql(self) -> str:
        return f"CASE WHEN {_WEIGHT_SQL} < 0 THEN {quote_text(DELETE)} ELSE {quote_text(INSERT)} END"

    @property
    def _numbered_sql(self) -> str:
        """Number what came and what went of each key, and count both."""
        return (
            f"SELECT *, row_number() OVER (PARTITION BY {self.keys_sql}, {_WEIGHT_SQL} > 0"
            f" ORDER BY hash({self.columns_sql})) AS {_PAIR_SQL},"
            f" count(*) FILTER (WHERE {_WEIGHT_SQL} < 0) OVER (PARTITION BY {self.keys_sql}) AS went,"
            f" count(*) FILTER (WHERE {_WEIGHT_SQL} > 0) OVER (PARTITION BY {self.keys_sql}) AS came"
            f" FROM ({self._copies_sql}) AS copies"
        )

    @property
    def _copies_sql(self) -> str:
        """Select each row as often as it came or went."""
        return (
            f"SELECT {self.columns_sql}, {_WEIGHT_SQL}, unnest(range(abs({_WEIGHT_SQL}))) AS copy"
            f" FROM ({self._net_sql}) AS net"
        )

    @property
    def _net_sql(self) -> str:
        return (
            f"SELECT {self.columns_sql}, sum({_WEIGHT_SQL})::BIGINT AS {_WEIGHT_SQL} FROM chunk"
            f" GROUP BY {self.columns_sql} HAVING sum({_WEIGHT_SQL}) <> 0"
        )
