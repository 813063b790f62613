"""Plan to bring a table, every table computed from it and every replica of these to one consistent version.

What was computed from what is told by the input snapshots that writes have recorded, never guessed. Each
computed table goes to the newest version of its `main` all of whose inputs, and theirs, are at or before the
versions that these tables go to. One that has no such version stays as it is, and the plan says why. An input
snapshot that has expired counts as early enough only where the write that read it was committed no later than
the version that is rolled back to.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import TypeAdapter
from pyiceberg.catalog import Catalog

from dwh_assets.errors import ConfigurationError
from dwh_assets.iceberg.versions import moment
from dwh_assets.ledger import Ledger
from dwh_assets.versioning.catalog_tables import CatalogTables
from dwh_assets.versioning.provenance import History, Read
from dwh_assets.versioning.replicas import Replica, Seen, look_at
from dwh_assets.versioning.rollback import TableRollback, plan_table_rollback

# there: it holds these rows already. aside: it holds a version that lies neither before nor after.
# empty: it was never loaded, or its file is gone. unknown: it does not answer.
Position = Literal["there", "ahead", "behind", "aside", "unfinished", "empty", "unknown"]


@dataclass(frozen=True)
class TableItem:
    """What becomes of one table; without a `rollback` it cannot be brought back, and `problem` says why.

    `is_root` says that its version was asked for. `fresh` says that its version was made from just the
    versions that its inputs go to, so that there is nothing to compute anew.
    """

    table: str
    is_root: bool
    fresh: bool
    rollback: TableRollback | None
    problem: str = ""
    remedy: str = ""


@dataclass(frozen=True)
class ReplicaItem:
    """What becomes of one replica: it holds `held`, and is brought to the snapshot `to` of its table.

    `problem` says why nobody knows what it holds; it is tried all the same.
    """

    replica: str
    table: str
    position: Position
    held: int | None
    to: int
    problem: str = ""


@dataclass(frozen=True)
class GraphRollback:
    """What a rollback of a graph does: tables, inputs before what is computed from them, then replicas.

    `unreadable` are tables of the catalog whose metadata could not be read: whether they were computed from
    these, nobody knows.
    """

    tables: tuple[TableItem, ...]
    replicas: tuple[ReplicaItem, ...]
    unreadable: tuple[str, ...] = ()

    @property
    def problems(self) -> dict[str, str]:
        """What cannot be brought back, and why."""
        tables = {item.table: f"{item.problem} {item.remedy}" for item in self.tables if not item.rollback}
        return {**tables, **dict.fromkeys(self.unreadable, "Its metadata cannot be read.")}

    @property
    def lost(self) -> tuple[str, ...]:
        """Tables of which commits would be lost; see `rollback.TableRollback`."""
        return tuple(item.table for item in self.tables if item.rollback and item.rollback.lost)

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON, whole: `from_dict` reads it."""
        found: dict[str, Any] = _PLAN.dump_python(self, mode="json")
        return found

    @staticmethod
    def from_dict(told: Mapping[str, Any]) -> GraphRollback:
        """Return the plan that `to_dict` has written."""
        return _PLAN.validate_python(told)

    def to_markdown(self) -> str:
        """Say what it does, table by table and replica by replica, and what it cannot do."""
        lines = [item.rollback.to_markdown() for item in self.tables if item.rollback]
        lines += [_of_replica(item) for item in self.replicas]
        if self.problems:
            lines.append("**Cannot be brought back:**")
            lines += [f"- {name}: {why}" for name, why in self.problems.items()]
        return "\n\n".join(lines)


_PLAN: TypeAdapter[GraphRollback] = TypeAdapter(GraphRollback)


def _of_replica(item: ReplicaItem) -> str:
    said = {
        "there": "holds it already",
        "ahead": f"is ahead, at `{item.held}`, and is loaded again",
        "behind": f"is behind, at `{item.held}`, and is loaded again",
        "aside": f"holds `{item.held}`, and is loaded again",
        "unfinished": "was left in the midst of a sync, and is loaded again",
        "empty": "holds nothing (never loaded, or its file is gone), and is left so",
        "unknown": f"does not answer: {item.problem} It is tried again",
    }[item.position]
    return f"**{item.replica}** of {item.table}, to snapshot `{item.to}`: {said}."


def plan_rollback(
    catalog: Catalog,
    table: str,
    to: int,
    replicas: Mapping[str, Replica] | None = None,
    *,
    allow_unpublished: bool = False,
) -> GraphRollback:
    """Return what it takes to bring a table to snapshot `to`, and with it all that was computed from it.

    `replicas`, by name, are asked what they hold. Raises `NotFoundError` and `ConfigurationError` as
    `rollback.plan_table_rollback` does.
    """
    return plan_versions(catalog, {table: to}, replicas, allow_unpublished=allow_unpublished)


def plan_versions(
    catalog: Catalog,
    roots: Mapping[str, int],
    replicas: Mapping[str, Replica] | None = None,
    *,
    allow_unpublished: bool = False,
) -> GraphRollback:
    """Return what it takes to bring several tables to a snapshot each, and what was computed from them."""
    tables = CatalogTables(catalog)
    planned = {
        name: plan_table_rollback(tables.require(name).table, to, allow_unpublished=allow_unpublished)
        for name, to in roots.items()
    }
    targets = _Targets(tables, roots)
    items = tuple(targets.item(name, planned.get(name)) for name in targets.in_order())
    copies = tuple(targets.replica_items(replicas or {}))
    return GraphRollback(items, copies, tuple(tables.unreadable))


def plan_undo(
    catalog: Catalog, ledger: Ledger, operation_id: str, replicas: Mapping[str, Replica] | None = None
) -> GraphRollback:
    """Return what it takes to bring every table of an earlier graph rollback to where it was before.

    Raises `NotFoundError` for an unknown operation or where a table's version from before is gone.
    """
    done = GraphRollback.from_dict(ledger.operation(operation_id).plan)
    moved = (item.rollback for item in done.tables if item.rollback and item.rollback.move)
    before = {one.table: one.from_snapshot_id for one in moved}
    return plan_versions(catalog, before, replicas, allow_unpublished=True)  # main has shown them


def require_nothing_lost(plan: GraphRollback, allow_lost: bool) -> None:
    """Refuse a plan by which commits would be lost, unless that is allowed."""
    if plan.lost and not allow_lost:
        raise ConfigurationError(
            f"{', '.join(plan.lost)}: commits of main do not come after the version to roll back to but "
            "beside it, and would be lost.",
            remedy="Look at the plan; choose an earlier version, or allow it: tags keep these commits.",
        )


class _Targets:
    """The version that each table concerned goes to; None where there is none."""

    def __init__(self, tables: CatalogTables, roots: Mapping[str, int]) -> None:
        self._roots = roots
        self._histories = {history.name: history for history in tables.all() if history.head is not None}
        for name in roots:
            self._histories.setdefault(name, tables.require(name))
        self._begun_at = min(self._histories[name].kept[to].timestamp_ms for name, to in roots.items())
        self.of: dict[str, int | None] = {name: self._head(name) for name in self._computed_from(set(roots))}
        self.of.update(roots)
        while self._step():
            pass

    def _head(self, name: str) -> int | None:
        return self._histories[name].head

    def _computed_from(self, found: set[str]) -> set[str]:
        """Add the tables whose version of now was computed from one of these, step by step."""
        while True:
            new = {name for name in self._histories.keys() - found if self._inputs_now(name) & found}
            if not new:
                return found
            found = found | new

    def _inputs_now(self, name: str) -> set[str]:
        history = self._histories[name]
        if history.head not in history.kept:
            return set()
        return {read.table for read in history.provenance(history.head).reads}

    def _step(self) -> bool:
        """Let each computed table go back as far as its inputs demand; tell whether one has moved."""
        moved = False
        for name in sorted(self.of.keys() - self._roots.keys()):
            found = self._newest_consistent(name)
            moved = moved or found != self.of[name]
            self.of[name] = found
        return moved

    def _newest_consistent(self, name: str) -> int | None:
        line = self._histories[name].ancestors(self.of[name])
        return next((s.snapshot_id for s in line if not self._obstacles(name, s.snapshot_id)), None)

    def _obstacles(self, name: str, snapshot_id: int) -> list[Read]:
        """Return what the version has read that is later than the table concerned goes to."""
        return list(self._too_late(name, snapshot_id, set()))

    def _too_late(self, name: str, snapshot_id: int, seen: set[tuple[str, int]]) -> Iterator[Read]:
        if (name, snapshot_id) in seen:
            return
        seen.add((name, snapshot_id))
        for read in self._histories[name].provenance(snapshot_id).reads:
            if read.table not in self.of or read.table == name:
                continue
            if not self._early_enough(read):
                yield read
            elif read.snapshot_id in self._histories[read.table].kept:
                yield from self._too_late(read.table, read.snapshot_id, seen)

    def _early_enough(self, read: Read) -> bool:
        history, target = self._histories[read.table], self.of[read.table]
        if target is None:
            return False
        if read.snapshot_id not in history.kept:
            return read.at <= moment(self._begun_at)
        logical = history.logical(read.snapshot_id)
        return logical == history.logical(target) or any(
            history.is_at_or_before(one, target) for one in (read.snapshot_id, logical)
        )

    def in_order(self) -> list[str]:
        """Return the tables, inputs before what is computed from them."""
        ordered: dict[str, None] = {}
        visiting: set[str] = set()

        def visit(name: str) -> None:
            if name in ordered or name in visiting:
                return
            visiting.add(name)
            for upstream in sorted(self._inputs_now(name) & self.of.keys()):
                visit(upstream)
            ordered[name] = None

        for name in sorted(self.of):
            visit(name)
        return list(ordered)

    def item(self, name: str, planned: TableRollback | None) -> TableItem:
        """Return what becomes of a table; `planned` is that of a root."""
        history, target = self._histories[name], self.of[name]
        if target is None:
            return self._stuck(history)
        done = planned or plan_table_rollback(history.table, target)
        return TableItem(name, name in self._roots, self._is_fresh(history, target), done)

    def _is_fresh(self, history: History, target: int) -> bool:
        newest: dict[str, Read] = {}
        for read in history.provenance(target).reads:  # the newest write comes first
            newest.setdefault(read.table, read)
        return all(self._is_target(read) for read in newest.values() if read.table in self.of)

    def _is_target(self, read: Read) -> bool:
        history, target = self._histories[read.table], self.of[read.table]
        return target is not None and history.logical(read.snapshot_id) == history.logical(target)

    def _stuck(self, history: History) -> TableItem:
        oldest = list(history.ancestors(history.head))[-1]
        reads = {read.table: read for read in self._obstacles(history.name, oldest.snapshot_id)}
        what = "; ".join(self._why(read) for read in reads.values())
        return TableItem(
            history.name,
            False,
            False,
            None,
            f"No kept version goes with it: the oldest, snapshot {oldest.snapshot_id} of "
            f"{moment(oldest.timestamp_ms):%Y-%m-%d %H:%M:%S}, was made from {what}.",
            "It stays as it is; compute it anew after the rollback.",
        )

    def _why(self, read: Read) -> str:
        target = self.of[read.table]
        version = f"{read.table} at {read.snapshot_id}"
        if target is None:
            return f"{version}, which cannot be brought back itself"
        if read.snapshot_id not in self._histories[read.table].kept:
            return f"{version}, which has expired, so that nobody knows whether it is early enough"
        return f"{version}, which is later than {target}"

    def replica_items(self, replicas: Mapping[str, Replica]) -> Iterator[ReplicaItem]:
        """Yield what becomes of each replica of a table that goes somewhere."""
        goes = {name: target for name, target in self.of.items() if target is not None}
        for seen in look_at({name: one for name, one in replicas.items() if one.table in goes}):
            held = seen.state.snapshot_id if seen.state else None
            target = goes[seen.table]
            position = self._position(seen, target)
            yield ReplicaItem(seen.name, seen.table, position, held, target, str(seen.problem or ""))

    def _position(self, seen: Seen, target: int) -> Position:
        """Tell where a replica stands, seen from the version that its table goes to."""
        history = self._histories[seen.table]
        if seen.problem is not None:
            return "unknown"
        if seen.state is not None and seen.state.pending:
            return "unfinished"
        if seen.state is None or seen.state.snapshot_id is None:
            return "empty"
        if seen.state.logical_snapshot_id == history.logical(target):
            return "there"
        if history.is_at_or_before(target, seen.state.snapshot_id):
            return "ahead"
        return "behind" if history.is_at_or_before(seen.state.snapshot_id, target) else "aside"
