"""`_dwh_replicas`: which version each replica in a warehouse holds, written in one transaction with its rows.

A record is changed only by whoever has seen it as it is: an update names the generation that it saw, and
changes no row when another sync was faster. That update comes first in every transaction, so two syncs of
one replica wait for each other there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

from pyiceberg.schema import Schema
from pyiceberg.types import LongType, NestedField, StringType

from dwh_assets.errors import ConfigurationError, ConflictError
from dwh_assets.warehouses.base import HeldColumn, Mode, ReplicaState, Target
from dwh_assets.warehouses.dialect import Dialect, ReplicaColumn, TypeOptions
from dwh_assets.warehouses.session import Layout, Session

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NAMES = ("schema_name", "table_name")
_VALUES = (
    "iceberg_table",
    "table_uuid",
    "mode",
    "snapshot_id",
    "logical_snapshot_id",
    "schema_json",
    "columns_json",
    "types_json",
    "row_count",
    "synced_at_us",
    "run_id",
    "pending",
)
_NUMBERS = {"snapshot_id", "logical_snapshot_id", "row_count", "synced_at_us", "generation"}
_COLUMNS = (*_NAMES, "generation", *_VALUES)
_FIELDS = Schema(
    *(
        NestedField(number, name, LongType() if name in _NUMBERS else StringType(), required=False)
        for number, name in enumerate(_COLUMNS, 1)
    )
)


@dataclass(frozen=True)
class Records:
    """The records that are beside a target. `session` may be in a transaction."""

    session: Session
    target: Target

    @property
    def _dialect(self) -> Dialect:
        return self.session.dialect

    @property
    def _table(self) -> Target:
        return self._dialect.state_table(self.target)

    def prepare(self, table: str) -> ReplicaState:
        """Make the replica's record, and the table of records where that is missing; return the record.

        It says nothing yet but that a sync of `table` has begun.
        """
        if self.session.describe(self._table) is None:
            self.session.ensure_schema(self._table)
            columns = _record_columns(self._dialect)
            self.session.create_table(self._table, columns, Layout(), existing="keep")
        self._insert(table)
        found = self.read()
        if found is None:
            raise ConflictError(f"The record of {self.target} was removed.", remedy="Repeat the sync.")
        return found

    def read(self) -> ReplicaState | None:
        """Return the replica's record, of a sync that has only begun, too; None when there is none."""
        folded = _folded(self.target, self._dialect)
        own = [state for at, state in self.all() if _folded(at, self._dialect) == folded]
        # Two syncs may have made one each at the same moment: the one that went on counts.
        return max(own, key=lambda state: state.generation, default=None)

    def all(self) -> list[tuple[Target, ReplicaState]]:
        """Return every replica of which something is recorded, in order of their names."""
        found = self.session.describe(self._table)
        if found is None or self._dialect.name("generation") not in found:
            return []  # or they are the first release's, and nothing was synced since
        names_sql = ", ".join(self._column_sql(name) for name in _COLUMNS)
        order_sql = ", ".join(self._column_sql(name) for name in _NAMES)
        rows = self.session.fetch(f"SELECT {names_sql} FROM {self._table_sql} ORDER BY {order_sql}")
        return [
            (Target(self.target.database, schema, name), _as_state(generation, values))
            for schema, name, generation, *values in rows
        ]

    def claim(self, seen: ReplicaState) -> ReplicaState:
        """Take the record, first thing in a transaction: others wait for its end and then come too late.

        Raises `ConflictError` when the record has changed since it was seen.
        """
        return self._update(seen, seen, ())

    def change(self, seen: ReplicaState, state: ReplicaState) -> ReplicaState:
        """Record `state` in place of what was `seen`, and return it with its generation.

        Raises `ConflictError` when the record has changed since it was seen.
        """
        return self._update(seen, state, _VALUES)

    def _update(self, seen: ReplicaState, state: ReplicaState, names: Sequence[str]) -> ReplicaState:
        marker = self._dialect.capabilities.placeholder
        values = dict(zip(_VALUES, _as_row(state), strict=True))
        set_sql = ", ".join(f"{self._column_sql(name)} = {marker}" for name in (*names, "generation"))
        changed = self.session.execute(
            f"UPDATE {self._table_sql} SET {set_sql} WHERE {self._seen_sql}",
            *(values[name] for name in names),
            seen.generation + 1,
            *self._seen(seen),
        )
        self._require_one(changed)
        return replace(state, generation=seen.generation + 1)

    def delete(self, seen: ReplicaState) -> None:
        """Forget the replica. Raises `ConflictError` when its record has changed since it was seen."""
        self._require_one(
            self.session.execute(f"DELETE FROM {self._table_sql} WHERE {self._seen_sql}", *self._seen(seen))
        )

    def _require_one(self, changed: int) -> None:
        if changed < 1:
            raise ConflictError(
                f"{self.target} was brought to another version by another sync meanwhile.",
                remedy="Repeat the call.",
            )

    def _insert(self, table: str) -> None:
        names = (*_NAMES, "generation", "iceberg_table", "row_count")
        names_sql = ", ".join(map(self._column_sql, names))
        markers_sql = self._dialect.parameters_sql(len(names))
        self.session.execute(
            f"INSERT INTO {self._table_sql} ({names_sql}) VALUES ({markers_sql})",
            *(self.target.schema, self.target.name, 0, table, 0),
        )

    @property
    def _table_sql(self) -> str:
        return self._dialect.qualify(self._table)

    @property
    def _seen_sql(self) -> str:
        """The condition that picks the record as it was seen; `_seen` are its parameters."""
        marker = self._dialect.capabilities.placeholder
        shown_sql = "{} = {}" if self._dialect.capabilities.case_sensitive_tables else "lower({}) = lower({})"
        names_sql = [shown_sql.format(self._column_sql(name), marker) for name in _NAMES]
        return " AND ".join([*names_sql, f"{self._column_sql('generation')} = {marker}"])

    def _seen(self, seen: ReplicaState) -> tuple[Any, ...]:
        return self.target.schema, self.target.name, seen.generation

    def _column_sql(self, name: str) -> str:
        return self._dialect.quote(self._dialect.name(name))


def _record_columns(dialect: Dialect) -> Sequence[ReplicaColumn]:
    return [
        ReplicaColumn(
            field, dialect.name(field.name), dialect.holding(field.field_type, field.name, TypeOptions())
        )
        for field in _FIELDS.fields
    ]


def _folded(target: Target, dialect: Dialect) -> tuple[str, str]:
    if dialect.capabilities.case_sensitive_tables:
        return target.schema, target.name
    return target.schema.lower(), target.name.lower()


def _as_row(state: ReplicaState) -> Iterator[Any]:
    yield state.table
    yield state.table_uuid
    yield state.mode
    yield state.snapshot_id
    yield state.logical_snapshot_id
    yield state.schema.model_dump_json()
    yield json.dumps(state.columns)
    yield json.dumps(asdict(state.types))
    yield state.rows
    yield None if state.synced_at is None else (state.synced_at - _EPOCH) // timedelta(microseconds=1)
    yield state.run_id
    yield state.pending


def _as_state(generation: int, values: Sequence[Any]) -> ReplicaState:
    table, uuid, mode, snapshot, logical, schema, columns, types, rows, synced_at, run_id, pending = values
    if mode not in (None, *get_args(Mode)):
        raise ConfigurationError(
            f"The replica of {table} has mode {mode!r}, which this release does not know.",
            remedy="Use the release that made it, or a newer one.",
        )
    return ReplicaState(
        table=table,
        table_uuid=uuid or "",
        mode=mode or "copy",
        snapshot_id=_number(snapshot),
        logical_snapshot_id=_number(logical),
        schema=Schema.model_validate_json(schema) if schema else Schema(),
        columns=tuple(HeldColumn(*column) for column in json.loads(columns or "[]")),
        types=TypeOptions(**json.loads(types or "{}")),
        rows=_number(rows) or 0,
        synced_at=None if synced_at is None else _EPOCH + timedelta(microseconds=int(synced_at)),
        run_id=run_id,
        generation=int(generation),
        pending=pending or "",
    )


def _number(value: Any) -> int | None:
    return None if value is None else int(value)
