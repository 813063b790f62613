"""Which version of its table an input is read at.

Who says it most closely wins: the run's config for the input, then the input's own metadata, then the run's
tag `dwh/as_of`, which all inputs share that say nothing themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import dagster as dg
from pyiceberg.table import Table
from pyiceberg.table.refs import MAIN_BRANCH
from pyiceberg.table.snapshots import Snapshot

from dwh_assets.errors import ConfigurationError
from dwh_assets.iceberg.versions import branch_start
from dwh_assets.orchestration import step
from dwh_assets.orchestration.time_travel import AS_OF, branch_of_run, run_as_of
from dwh_assets.versioning.history import INPUT_PREFIX
from dwh_assets.versioning.points import ResolvedPoint, resolve, resolve_ref

Kind = Literal["as_of", "tag", "branch", "snapshot_id"]
_KINDS: tuple[Kind, ...] = ("as_of", "tag", "branch", "snapshot_id")

# What run config may say of an input; `snapshot_id` and `as_of` are text or numbers.
INPUT_CONFIG = {
    "as_of": dg.Field(
        dg.Any,
        is_required=False,
        description="Read this point in time: an ISO date or time, N versions ago, a tag, a snapshot id.",
    ),
    "tag": dg.Field(str, is_required=False, description="Read the version that this tag names."),
    "branch": dg.Field(str, is_required=False, description="Read this branch."),
    "snapshot_id": dg.Field(dg.Any, is_required=False, description="Read this snapshot."),
}


@dataclass(frozen=True)
class Pin:
    """Which version an input is to be read at, and who says so."""

    kind: Kind
    value: Any
    said_by: str

    def resolve(self, table: Table, declared_branch: str = MAIN_BRANCH) -> ResolvedPoint:
        """Return the version; raise `NotFoundError` that explains a miss, or `ConfigurationError`.

        What main showed is no answer for a table that is declared to be read at another branch.
        """
        found = self._resolve(table)
        if found.by_main and declared_branch != MAIN_BRANCH:
            raise ConfigurationError(
                f"{found.table} is read at its branch {declared_branch!r}, and only {MAIN_BRANCH}'s past is "
                f"known: {self.said_by} says {self.kind} {self.value!r}.",
                remedy="Name a tag, a branch or a snapshot id.",
            )
        return found

    def _resolve(self, table: Table) -> ResolvedPoint:
        if self.kind == "tag" or self.kind == "branch":
            return resolve_ref(table, str(self.value), self.kind)
        if self.kind == "snapshot_id":
            return resolve(table, _as_id(table, self.value))
        return resolve(table, self.value)


def pin_of(context: dg.InputContext) -> Pin | None:
    """Return which version this input is to be read at; None: as its table is now.

    What the run itself has written is read as it was written, whatever the run's tag says.
    Raises `ConfigurationError` where one place says several versions.
    """
    config = context.config if isinstance(context.config, Mapping) else {}
    pin = _said(config, f"the run's config of input {context.name}")
    pin = pin or _said(context.definition_metadata, f"the input {context.name}")
    as_of = run_as_of(context)
    if pin is None and as_of is not None and not step.made_by_this_run(context):
        return Pin("as_of", as_of, f"the run's tag {AS_OF}")
    return pin


def refuse_pin(context: dg.InputContext, name: str) -> None:
    """Raise `ConfigurationError` where an input that has no past, such as a replica, is to be read in it."""
    pin = pin_of(context)
    if pin is not None:
        raise ConfigurationError(
            f"{name} is a replica, which holds one version only; {pin.said_by} says "
            f"{pin.kind} {pin.value!r}.",
            remedy="Read the Iceberg table instead, or leave this asset out of the run.",
        )


@dataclass(frozen=True)
class InputVersion:
    """What an input was read at; `pinned` tells how that was found, unless it is simply what is there."""

    table: str
    snapshot: Snapshot
    pinned: str | None = None

    def __str__(self) -> str:
        return f"{self.table}: {self.pinned} (snapshot {self.snapshot.snapshot_id})"


def input_version(context: dg.InputContext, table: Table, declared_branch: str) -> InputVersion | None:
    """Return the version that an input reads; None where its table has none yet."""
    name, pin = ".".join(table.name()), pin_of(context)
    if pin is not None:
        found = pin.resolve(table, declared_branch)
        snapshot = table.snapshot_by_id(found.snapshot_id)
        return InputVersion(name, snapshot, found.described) if snapshot else None
    own = step.made_by_this_run(context)
    head = branch_start(
        table.metadata, branch_of_run(step.run_tags(context), declared_branch) if own else declared_branch
    )
    return InputVersion(name, head) if head else None


def inputs_summary(reads: Iterable[InputVersion]) -> dict[str, str]:
    """Return the versions that were read, by table: several where inputs read one at several versions."""
    ids: dict[str, dict[str, None]] = {}
    for read in reads:
        ids.setdefault(f"{INPUT_PREFIX}{read.table}", {})[str(read.snapshot.snapshot_id)] = None
    return {entry: ",".join(read) for entry, read in ids.items()}


def _said(said: Mapping[str, Any], by: str) -> Pin | None:
    given = [(kind, said[kind]) for kind in _KINDS if said.get(kind) is not None]
    if len(given) > 1:
        raise ConfigurationError(
            f"Which version to read is said twice by {by}: {' and '.join(kind for kind, _ in given)}.",
            remedy="Leave one.",
        )
    return Pin(*given[0], said_by=by) if given else None


def _as_id(table: Table, value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        raise ConfigurationError(
            f"{'.'.join(table.name())}: {value!r} is no snapshot id.", remedy="Ids are whole numbers."
        ) from None
