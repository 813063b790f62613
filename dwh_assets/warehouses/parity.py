"""Prove that a replica holds the rows of its table, or say where it does not."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from typing import Any, TypeVar

from dwh_assets.errors import ConfigurationError
from dwh_assets.iceberg.keys import known_keys
from dwh_assets.iceberg.planning import planned_files
from dwh_assets.iceberg.row_counts import total_rows
from dwh_assets.warehouses.base import Target
from dwh_assets.warehouses.dialect import ReplicaColumn
from dwh_assets.warehouses.fingerprint import (
    ColumnFigures,
    Group,
    RowsFigures,
    column_figures,
    grouped_figures,
    hashed_columns,
    native_rows_figures,
    rows_figures,
)
from dwh_assets.warehouses.grouping import Grouping
from dwh_assets.warehouses.parity_report import (
    ColumnDifference,
    Level,
    ParityReport,
    PartitionDifference,
)
from dwh_assets.warehouses.parity_rows import compare_rows
from dwh_assets.warehouses.session import Session
from dwh_assets.warehouses.sides import LakeSide, ReplicaSide, Side, alike, compared_columns
from dwh_assets.warehouses.source import Source

Answer = TypeVar("Answer")
_NO_TEXT = "its type has no text that all warehouses agree on: only its nulls were counted"


def verify(
    session: Session,
    target: Target,
    columns: Sequence[ReplicaColumn],
    source: Source,
    level: Level = "fingerprint",
    *,
    keys: Sequence[str] | None = None,
    current_sql: str = "TRUE",
) -> ParityReport:
    """Compare a replica, whose columns are `columns`, with its table at the snapshot that it holds.

    Only rows of the replica count for which `current_sql` is true.

    `count` compares numbers of rows; the table's are known without reading any. `fingerprint` compares
    hashes, computed on both sides at once; only where they differ it looks for the columns and partitions
    that do. `full` fetches all rows and compares every value. `keys` tell rows apart where the table does
    not remember its own. Raises `ConfigurationError` for another level.
    """
    started = time.monotonic()
    parity = _Parity(source, ReplicaSide(session, target, current_sql), columns, keys)
    compare = {"count": parity.count, "fingerprint": parity.fingerprint, "full": parity.full}.get(level)
    if compare is None:
        raise ConfigurationError(
            f"A replica cannot be verified at level {level!r}.", remedy="Use count, fingerprint or full."
        )
    return replace(compare(), seconds=time.monotonic() - started)


class _Parity:
    """One comparison."""

    def __init__(
        self,
        source: Source,
        replica: ReplicaSide,
        columns: Sequence[ReplicaColumn],
        keys: Sequence[str] | None,
    ) -> None:
        self._source, self._lake, self._replica = source, LakeSide(source), replica
        self._columns, self._left_out = compared_columns(columns, source.schema)
        self._hashed, self._counted = hashed_columns(self._columns, (self._lake, self._replica))
        self._keys = known_keys(source.table.metadata, source.schema) if keys is None else list(keys)

    def count(self) -> ParityReport:
        """Compare numbers of rows."""
        known = total_rows(self._source.table, self._source.snapshot)
        in_table = rows_figures(self._lake, ()).rows.count if known is None else known
        in_replica = self._replica.rows()
        return self._report("count", in_table == in_replica, in_table, in_replica)

    def fingerprint(self) -> ParityReport:
        """Compare hashes."""
        table, replica = self._both(self._figures)
        not_compared = {**self._left_out, **{column.name: _NO_TEXT for column in self._counted}}
        return self._report(
            "fingerprint",
            table == replica,
            table.rows.count,
            replica.rows.count,
            not_compared=not_compared,
            bytes=self._file_bytes,
            **({} if table == replica else self._differences()),
        )

    def _figures(self, side: Side) -> RowsFigures:
        if self._hashed and not self._counted and alike(self._replica, self._hashed):
            return native_rows_figures(side, self._hashed)
        return rows_figures(side, self._hashed, self._counted)

    def full(self) -> ParityReport:
        """Compare all values."""
        whole = [column for column in self._columns if not column.held.holding.lost]
        lost = {
            column.name: f"it is held without {column.held.holding.lost}"
            for column in self._columns
            if column not in whole
        }
        found = compare_rows(self._lake, self._replica, whole, self._keys)
        differs = bool(found.missing or found.extra or found.different)
        return self._report(
            "full",
            not differs,
            found.rows_in_table,
            found.rows_in_replica,
            columns=tuple(
                ColumnDifference(name, "rows with another value", str(count), str(count))
                for name, count in found.differing.items()
            ),
            rows=tuple(found.sample),
            not_compared={**self._left_out, **lost},
            bytes=self._file_bytes + found.bytes,
            **(self._partitions() if differs else {}),
        )

    def _report(
        self, level: Level, equal: bool, in_table: int, in_replica: int, **found: Any
    ) -> ParityReport:
        return ParityReport(
            table=self._source.name,
            target=self._replica.target,
            warehouse=self._replica.dialect.capabilities.warehouse,
            level=level,
            equal=equal,
            snapshot_id=self._source.snapshot_id,
            rows_in_table=in_table,
            rows_in_replica=in_replica,
            **found,
        )

    @property
    def _file_bytes(self) -> int:
        return sum(task.file.file_size_in_bytes for task in planned_files(self._source.scan))

    def _both(self, ask: Callable[[Side], Answer]) -> tuple[Answer, Answer]:
        """Ask both sides at once: the warehouse works while the files are read here."""
        with ThreadPoolExecutor(1, thread_name_prefix="parity") as pool:
            table = pool.submit(ask, self._lake)
            replica = ask(self._replica)
            return table.result(), replica

    # --- Where they differ ---

    def _differences(self) -> dict[str, Any]:
        table, replica = self._both(lambda side: column_figures(side, self._columns))
        columns = tuple(
            difference
            for column in self._columns
            for difference in _differing(column.name, table[column.name], replica[column.name])
        )
        return {"columns": columns, **self._partitions()}

    def _partitions(self) -> dict[str, Any]:
        grouping = Grouping.of(self._source, self._hashed, self._keys)
        if not grouping.parts:
            return {}
        table, replica = self._both(
            lambda side: grouped_figures(side, self._hashed, self._counted, grouping.sql(side))
        )
        groups = [group for group in table | replica if table.get(group) != replica.get(group)]
        return {
            "grouping": grouping,
            "groups": tuple(groups),
            "partitions": _by_name(grouping, groups, table, replica),
        }


def _differing(name: str, table: ColumnFigures, replica: ColumnFigures) -> Iterator[ColumnDifference]:
    """Yield the figures that differ, of those that both sides have."""
    for figure in fields(ColumnFigures):
        in_table, in_replica = getattr(table, figure.name), getattr(replica, figure.name)
        if in_table != in_replica and None not in (in_table, in_replica):
            yield ColumnDifference(name, figure.name, _shown(in_table), _shown(in_replica))


def _shown(figure: Any) -> str:
    return str(getattr(figure, "hex", figure))


def _by_name(
    grouping: Grouping,
    groups: Sequence[Group],
    table: Mapping[Group, RowsFigures],
    replica: Mapping[Group, RowsFigures],
) -> tuple[PartitionDifference, ...]:
    """Sum groups that are in one partition."""
    found: dict[str, tuple[int, int]] = {}
    for group in groups:
        name = grouping.label(group)
        before = found.get(name, (0, 0))
        counts = (side[group].rows.count if group in side else 0 for side in (table, replica))
        in_table, in_replica = (a + b for a, b in zip(before, counts, strict=True))
        found[name] = in_table, in_replica
    return tuple(PartitionDifference(name, *counts) for name, counts in sorted(found.items()))
