"""What two versions differ in, by plain DuckDB over all rows of both; no line is shared with the code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Expected:
    """Counts, and the rows that are in one version only, without their order."""

    added: int
    removed: int
    modified: int
    came: Counter[str]
    went: Counter[str]


def expected_difference(before: pa.Table, after: pa.Table, keys: Sequence[str]) -> Expected:
    """Compare two tables of the same columns: by key with a full outer join, or as multisets.

    Where keys repeat, rows in both versions are taken away first, and the rest of a key is paired.
    """
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("before", before)
        connection.register("after", after)
        connection.execute("CREATE TABLE went AS FROM before EXCEPT ALL FROM after")
        connection.execute("CREATE TABLE came AS FROM after EXCEPT ALL FROM before")
        went = connection.execute("FROM went").to_arrow_table().to_pylist()
        came = connection.execute("FROM came").to_arrow_table().to_pylist()
        modified = _pairs(connection, keys) if keys else 0
        found = Expected(len(came) - modified, len(went) - modified, modified, rows(came), rows(went))
        if keys and _unique(connection, "before", keys) and _unique(connection, "after", keys):
            assert _full_outer_join(connection, keys, before.column_names) == (
                found.added,
                found.removed,
                found.modified,
            )
    return found


def _names(columns: Iterable[str]) -> str:
    return ", ".join(f'"{column}"' for column in columns)


def _same(columns: Iterable[str]) -> str:
    return " AND ".join(f'before."{column}" IS NOT DISTINCT FROM after."{column}"' for column in columns)


def _pairs(connection: duckdb.DuckDBPyConnection, keys: Sequence[str]) -> int:
    by_key = "SELECT {0}, count(*) AS n FROM {1} GROUP BY {0}"
    before, after = (by_key.format(_names(keys), name) for name in ("went", "came"))
    (found,) = _one(
        connection,
        f"SELECT coalesce(sum(least(before.n, after.n)), 0)::BIGINT FROM ({before}) AS before"
        f" JOIN ({after}) AS after ON {_same(keys)}",
    )
    return int(found)


def _unique(connection: duckdb.DuckDBPyConnection, name: str, keys: Sequence[str]) -> bool:
    distinct = f"SELECT count(*) FROM (SELECT DISTINCT {_names(keys)} FROM {name})"
    return _one(connection, distinct) == _one(connection, f"SELECT count(*) FROM {name}")


def _full_outer_join(
    connection: duckdb.DuckDBPyConnection, keys: Sequence[str], columns: Sequence[str]
) -> tuple[int, ...]:
    return _one(
        connection,
        "SELECT count(*) FILTER (WHERE before.there IS NULL), count(*) FILTER (WHERE after.there IS NULL),"
        f" count(*) FILTER (WHERE before.there AND after.there AND NOT ({_same(columns)}))"
        " FROM (SELECT *, true AS there FROM before) AS before"
        f" FULL JOIN (SELECT *, true AS there FROM after) AS after ON {_same(keys)}",
    )


def _one(connection: duckdb.DuckDBPyConnection, query: str) -> tuple[Any, ...]:
    found = connection.execute(query).fetchone()
    assert found is not None
    return found


def rows(found: Iterable[Row]) -> Counter[str]:
    """Rows without their order; zero has no sign, NaN equals NaN."""
    return Counter(repr(sorted((name, _plain(value)) for name, value in row.items())) for row in found)


def _plain(value: Any) -> Any:
    if isinstance(value, float) and value == 0:
        return 0.0
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    return value
