"""What a branch wants of the table, and main has not got: schema, spec, sort order and properties.

Iceberg keeps these once for a table, not for each branch. So a write to a branch other than main only adds
them, and notes in its snapshot's summary which they are; they become current when main takes the branch over.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import Any

from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.refs import MAIN_BRANCH
from pyiceberg.table.snapshots import Snapshot

from dwh_assets.iceberg.ancestry import ancestors

PENDING_KEY = "dwh.pending"
# The branch other than main that a snapshot was written to.
BRANCH_KEY = "dwh.branch"


@dataclass(frozen=True)
class Move:
    """From one id to another: of schemas, specs or sort orders."""

    before: int
    after: int


@dataclass(frozen=True)
class Pending:
    """What becomes current with the branch; None is as main has it."""

    schema: Move | None = None
    spec: Move | None = None
    sort_order: Move | None = None
    properties: Mapping[str, str] = field(default_factory=dict)

    def then(self, later: Pending) -> Pending:
        """Return both as one: what later writes of the branch find is what earlier ones left."""
        return replace(
            self,
            schema=_joined(self.schema, later.schema),
            spec=_joined(self.spec, later.spec),
            sort_order=_joined(self.sort_order, later.sort_order),
            properties={**self.properties, **later.properties},
        )

    def summary(self) -> dict[str, str]:
        """Return the entry of the snapshot's summary that remembers it; none where nothing is pending."""
        moves = {name: getattr(self, name) for name in ("schema", "spec", "sort_order")}
        noted: dict[str, Any] = {name: [m.before, m.after] for name, m in moves.items() if m is not None}
        if self.properties:
            noted["properties"] = dict(self.properties)
        return {PENDING_KEY: json.dumps(noted, sort_keys=True)} if noted else {}


def _joined(earlier: Move | None, later: Move | None) -> Move | None:
    if earlier is None or later is None:
        return earlier or later
    return Move(earlier.before, later.after)


def pending_changes(metadata: TableMetadata, head: Snapshot | None) -> Pending:
    """Return what a branch with this head wants of the table, as the newest of its own snapshots has it.

    Another engine's snapshot carries nothing forward, so its ancestors are asked, down to where main is.
    """
    for snapshot in own_snapshots(metadata, head):
        noted = snapshot.summary.additional_properties.get(PENDING_KEY) if snapshot.summary else None
        if noted is not None:
            return _read(json.loads(noted))
    return Pending()


def own_snapshots(metadata: TableMetadata, head: Snapshot | None) -> Iterator[Snapshot]:
    """Yield the snapshots up to a head that main has not got, newest first, as far as they are kept."""
    on_main = {snapshot.snapshot_id for snapshot in ancestors(metadata, metadata.current_snapshot_id)}
    return takewhile(lambda snapshot: snapshot.snapshot_id not in on_main, ancestors(metadata, head))


def _read(noted: Mapping[str, Any]) -> Pending:
    moves = {name: Move(*noted[name]) for name in ("schema", "spec", "sort_order") if name in noted}
    return Pending(**moves, properties=noted.get("properties", {}))


def branch_view(metadata: TableMetadata, branch: str) -> TableMetadata:
    """Return the metadata as readers and writers of the branch see it: its head is the current snapshot.

    Columns are those of the head's schema, the rest is main's but for what is pending. A branch that is not
    there yet, or stands where main does, is as main is.
    """
    head = metadata.snapshot_by_name(branch)
    if branch == MAIN_BRANCH or head is None or head.snapshot_id == metadata.current_snapshot_id:
        return metadata
    pending = pending_changes(metadata, head)
    known = {schema.schema_id for schema in metadata.schemas}
    return metadata.model_copy(
        update={
            "current_snapshot_id": head.snapshot_id,
            "current_schema_id": head.schema_id if head.schema_id in known else metadata.current_schema_id,
            "default_spec_id": pending.spec.after if pending.spec else metadata.default_spec_id,
            "default_sort_order_id": (
                pending.sort_order.after if pending.sort_order else metadata.default_sort_order_id
            ),
            "properties": {**metadata.properties, **pending.properties},
        }
    )
