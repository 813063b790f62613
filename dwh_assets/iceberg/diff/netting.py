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
_ALONE_SQL = f"CASE WHEN {_WEIGHT_SQL} < 0 THEN {quote_text(DELETE)} ELSE {quote_text(INSERT)} END"
_SUMS_SQL = (
    f"coalesce(sum(-{_WEIGHT_SQL}) FILTER (WHERE {_WEIGHT_SQL} < 0), 0)::BIGINT AS went,"
    f" coalesce(sum({_WEIGHT_SQL}) FILTER (WHERE {_WEIGHT_SQL} > 0), 0)::BIGINT AS came"
)


@dataclass(frozen=True)
class NettingSql:
    """Queries over a relation `chunk` of weighted rows, named as inside DuckDB."""

    columns_sql: str
    key_columns_sql: tuple[str, ...] = ()

    @classmethod
    def of(cls, schema: Schema, keys: Sequence[str]) -> NettingSql:
        """Compare the columns of `schema`, by `keys` or, without any, as a multiset."""
        names_sql = ", ".join(quote_identifier(field.name) for field in schema.fields)
        return cls(names_sql, tuple(map(quote_identifier, keys)))

    @property
    def counts_sql(self) -> str:
        """Select how many rows came, went and were updated."""
        keys_sql = f", {self._keys_sql}" if self.key_columns_sql else ""
        pairs_sql = "least(went, came)" if self.key_columns_sql else "0"
        return (
            f"SELECT coalesce(sum(came - {pairs_sql}), 0)::BIGINT,"
            f" coalesce(sum(went - {pairs_sql}), 0)::BIGINT, coalesce(sum({pairs_sql}), 0)::BIGINT"
            f" FROM (SELECT {_SUMS_SQL}{keys_sql}"
            f" FROM ({self._net_sql}) AS net GROUP BY ALL) AS counted"
        )

    @property
    def changes_sql(self) -> str:
        """Select every row that changed, with `_change` and `_pair`; the rows of a pair follow each other."""
        if not self.key_columns_sql:
            return (
                f"WITH net AS MATERIALIZED ({self._net_sql}) SELECT {self.columns_sql},"
                f" {_ALONE_SQL} AS {_CHANGE_SQL}, 0 AS {_PAIR_SQL} FROM ({self._copied_sql}) AS copies"
            )
        paired_sql = f"{_PAIR_SQL} <= least(went, came)"
        before_sql, after_sql = quote_text(UPDATE_BEFORE), quote_text(UPDATE_AFTER)
        return (
            f"WITH net AS MATERIALIZED ({self._net_sql}), counted AS MATERIALIZED (SELECT {self._keys_sql},"
            f" {_SUMS_SQL} FROM net GROUP BY {self._keys_sql}), numbered AS ({self._numbered_sql})"
            f" SELECT {self.columns_sql}, CASE WHEN {paired_sql} AND {_WEIGHT_SQL} < 0 THEN {before_sql}"
            f" WHEN {paired_sql} THEN {after_sql} ELSE {_ALONE_SQL} END AS {_CHANGE_SQL}, {_PAIR_SQL}"
            f" FROM numbered ORDER BY {self._keys_sql}, {_PAIR_SQL}, {_WEIGHT_SQL}"
        )

    @property
    def _keys_sql(self) -> str:
        return ", ".join(self.key_columns_sql)

    @property
    def _numbered_sql(self) -> str:
        """Number what came and what went of each key; most keys stand in one row of each."""
        same_key_sql = " AND ".join(
            f"net.{key_sql} IS NOT DISTINCT FROM counted.{key_sql}" for key_sql in self.key_columns_sql
        )
        own_keys_sql = ", ".join(f"net.{key_sql}" for key_sql in self.key_columns_sql)
        joined_sql = f"FROM net JOIN counted ON {same_key_sql}"
        single_sql = "went <= 1 AND came <= 1"
        return (
            f"SELECT net.*, went, came, 1 AS {_PAIR_SQL} {joined_sql} WHERE {single_sql}"
            f" UNION ALL SELECT net.*, went, came, row_number() OVER (PARTITION BY {own_keys_sql},"
            f" net.{_WEIGHT_SQL} > 0 ORDER BY hash(net)) AS {_PAIR_SQL}"
            f" FROM ({self._copied_sql}) AS net JOIN counted ON {same_key_sql} WHERE NOT ({single_sql})"
        )

    @property
    def _copied_sql(self) -> str:
        """Select each row as often as it came or went."""
        return (
            f"SELECT {self.columns_sql}, {_WEIGHT_SQL} FROM"
            f" (SELECT *, unnest(range(abs({_WEIGHT_SQL}))) AS copy FROM net) AS copies"
        )

    @property
    def _net_sql(self) -> str:
        return (
            f"SELECT {self.columns_sql}, sum({_WEIGHT_SQL})::BIGINT AS {_WEIGHT_SQL} FROM chunk"
            f" GROUP BY {self.columns_sql} HAVING sum({_WEIGHT_SQL}) <> 0"
        )
