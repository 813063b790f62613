"""Carry out a planned rollback of a graph, part by part, with a journal: what is interrupted is resumed.

Each part is safe to repeat: one that was done, and of which nobody noted that any more, is recognised.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from pyiceberg.catalog import Catalog

from dwh_assets.errors import ConflictError, DwhError, NotFoundError
from dwh_assets.iceberg.declaration import find_table
from dwh_assets.ledger import Ledger, Operation, Pin
from dwh_assets.versioning.graph import GraphRollback, ReplicaItem, require_nothing_lost
from dwh_assets.versioning.replicas import Replica
from dwh_assets.versioning.rollback import TableRollback, apply_table_rollback

ROLLBACK = "rollback"


@dataclass(frozen=True)
class GraphResult:
    """How far a rollback of a graph has come."""

    plan: GraphRollback
    operation: Operation

    @property
    def not_brought_back(self) -> dict[str, str]:
        """What is not at its version, by table or replica, and why."""
        steps = {step.item: step.detail or "It was not tried." for step in self.operation.steps}
        still = {item.partition(" ")[2]: steps[item] for item in self.operation.open_items}
        return {**self.plan.problems, **still}

    def to_markdown(self) -> str:
        """Say what was done, what was not, and how to go on."""
        done = [step.item for step in self.operation.steps if step.state == "done"]
        lines = [f"Rollback `{self.operation.id}`: {len(done)} of {len(self.operation.steps)} parts done."]
        lines += [f"- {item}" for item in done]
        if self.not_brought_back:
            lines += ["", "**Not brought back:**"]
            lines += [f"- {name}: {why}" for name, why in self.not_brought_back.items()]
        if self.operation.open_items:
            lines += ["", f"Resume it as `{self.operation.id}` once that is mended."]
        return "\n".join(lines)


def apply_rollback(
    catalog: Catalog,
    plan: GraphRollback,
    ledger: Ledger,
    replicas: Mapping[str, Replica] | None = None,
    *,
    allow_lost: bool = False,
    run_id: str | None = None,
    on_step: Callable[[str], None] | None = None,
) -> GraphResult:
    """Do what was planned: the tables, inputs first, then the replicas; journal each part.

    A part that fails does not keep the others from being brought back, except a table that was asked for:
    then nothing more is done. What failed is in the result, and `resume_rollback` tries it again. Raises
    `ConfigurationError` when commits would be lost that nobody allowed to lose, `ConflictError` when a table
    has moved since the plan was made; nothing is done then.
    """
    require_nothing_lost(plan, allow_lost)
    for move in _moves(plan):
        _require_unmoved(catalog, move)
    operation_id = f"{ROLLBACK}/{uuid.uuid4().hex[:12]}"
    items = [*(_table_step(move) for move in _moves(plan)), *(_replica_step(one) for one in _syncs(plan))]
    ledger.begin(operation_id, ROLLBACK, plan.to_dict(), items)
    ledger.pin(
        *(Pin(move.table, move.to_snapshot_id, operation_id, "rolled back to") for move in _moves(plan))
    )
    return resume_rollback(catalog, ledger, operation_id, replicas, run_id=run_id, on_step=on_step)


def resume_rollback(
    catalog: Catalog,
    ledger: Ledger,
    operation_id: str,
    replicas: Mapping[str, Replica] | None = None,
    *,
    run_id: str | None = None,
    on_step: Callable[[str], None] | None = None,
) -> GraphResult:
    """Go on with a rollback that was interrupted, or of which parts failed; see `apply_rollback`."""
    operation = ledger.operation(operation_id)
    plan = GraphRollback.from_dict(operation.plan)
    work = _Work(catalog, ledger, operation, replicas or {}, run_id, on_step or (lambda _: None))
    if work.move_tables(plan):
        work.sync_replicas(plan)
    ended = ledger.end(operation_id)
    if not ended.open_items:
        ledger.unpin(operation_id)
    return GraphResult(plan, ended)


@dataclass(frozen=True)
class _Work:
    catalog: Catalog
    ledger: Ledger
    operation: Operation
    replicas: Mapping[str, Replica]
    run_id: str | None
    on_step: Callable[[str], None]

    def move_tables(self, plan: GraphRollback) -> bool:
        """Move every table; tell whether those that were asked for are where they should be."""
        roots = {item.table for item in plan.tables if item.is_root}
        for move in _moves(plan):
            moved = self._do(_table_step(move), partial(apply_table_rollback, self.catalog, move))
            if not moved and move.table in roots:
                return False
        return True

    def sync_replicas(self, plan: GraphRollback) -> None:
        """Bring every replica of a table that has moved to its snapshot."""
        for item in _syncs(plan):
            self._do(_replica_step(item), partial(self._sync, item))

    def _sync(self, item: ReplicaItem) -> None:
        """Only where the table stands by now: elsewhere the replica would be the one that is inconsistent."""
        table = find_table(self.catalog, item.table)
        head = table.metadata.current_snapshot_id if table else None
        if head != item.to:
            raise NotFoundError(
                f"{item.table} is at snapshot {head}, not at {item.to}.", remedy="Bring it back first."
            )
        if item.replica not in self.replicas:
            raise NotFoundError(
                f"The replica {item.replica} is not declared any more.", remedy="Give it, or drop it."
            )
        replica = self.replicas[item.replica]
        replica.sync(self.catalog, item.to, run_id=self.run_id, ledger=self.ledger)

    def _do(self, item: str, work: Callable[[], object]) -> bool:
        """Do one part that is not done yet, and note how it went, whatever goes wrong."""
        if item not in self.operation.open_items:
            return True
        try:
            work()
        except Exception as error:
            why = str(error) if isinstance(error, DwhError) else f"{type(error).__name__}: {error}"
            self.ledger.mark(self.operation.id, item, "failed", why)
            self.on_step(f"{item}: {why}")
            return False
        self.ledger.mark(self.operation.id, item, "done")
        self.on_step(f"{item}: done")
        return True


def _require_unmoved(catalog: Catalog, move: TableRollback) -> None:
    table = find_table(catalog, move.table)
    head = table.metadata.current_snapshot_id if table else None
    if head != move.from_snapshot_id:
        raise ConflictError(
            f"{move.table}: other commits arrived, main shows snapshot {head} and no longer "
            f"{move.from_snapshot_id}; nothing was changed.",
            remedy="Plan the rollback again.",
        )


def _moves(plan: GraphRollback) -> list[TableRollback]:
    return [item.rollback for item in plan.tables if item.rollback and item.rollback.move]


def _syncs(plan: GraphRollback) -> list[ReplicaItem]:
    return [item for item in plan.replicas if item.position != "empty"]


def _table_step(move: TableRollback) -> str:
    return f"table {move.table}"


def _replica_step(item: ReplicaItem) -> str:
    return f"replica {item.replica}"
