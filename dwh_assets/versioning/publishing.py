"""Write, audit, publish: a write lands on a branch of its own, and main takes it over once audits pass.

Until then nothing of it is on main: no row, no column, no partitioning, order or property. The branch goes
with the commit that publishes it. One whose audits fail is kept for some days, for people to look at.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import ValidationError
from pyiceberg.catalog import Catalog
from pyiceberg.expressions import BooleanExpression
from pyiceberg.table import Table
from pyiceberg.table.refs import MAIN_BRANCH, SnapshotRefType

from dwh_assets.errors import (
    AuditFailedError,
    ConfigurationError,
    ConflictError,
    DivergedError,
    DwhError,
    NotFoundError,
)
from dwh_assets.iceberg.arrow.sources import as_reader, in_memory
from dwh_assets.iceberg.declaration import drop_unused, find_table, schema_after_write
from dwh_assets.iceberg.pending import own_snapshots
from dwh_assets.iceberg.refs import drop_branch, prune_branches, set_lifetime
from dwh_assets.iceberg.results import IDEMPOTENCY_KEY, WriteResult
from dwh_assets.iceberg.write import IcebergWriter
from dwh_assets.versioning.audits.candidate import AuditResult, Candidate
from dwh_assets.versioning.audits.declarations import Audit, as_declared
from dwh_assets.versioning.audits.evaluate import evaluate, require_sound
from dwh_assets.versioning.branches import fast_forward

# How long a branch whose audits failed is kept, counted from then.
KEEP = timedelta(days=7)
# How long one is kept of which nobody has decided: its process died. By that it is told from a refused one.
UNDECIDED = timedelta(days=7, milliseconds=1)
# How often a write is planned and audited anew because main has moved meanwhile.
ATTEMPTS = 10
_PREFIX = "audit_"


@dataclass(frozen=True)
class AuditedWrite:
    """A write that was published, and what its audits found; none where there was nothing to write."""

    written: WriteResult
    audits: tuple[AuditResult, ...]
    attempts: int


def write_audited(
    writer: IcebergWriter,
    data: Any,
    audits: Sequence[Audit | Mapping[str, Any]],
    *,
    where: str | BooleanExpression | None = None,
    summary: Mapping[str, str] | None = None,
    idempotency_key: str | None = None,
    name: str | None = None,
    keep: timedelta = KEEP,
    attempts: int = ATTEMPTS,
) -> AuditedWrite:
    """Write as `writer.write` does, but to a branch of its own, and let main take it over if audits pass.

    The branch is called `audit_` and `name`, or the moment. Where main has moved meanwhile, the write is
    matched and planned again on what is there now, and audited again. A write whose key main has already is
    not done again; one that never came so far is begun anew. Branches of the table whose time is over go.

    Raises `AuditFailedError` with the branch, which is kept for `keep`, and samples of the rows (a table that
    was made for this write goes, and the branch with it, unless somebody else has anything of it by then);
    `ConflictError` when main has moved in each of so many `attempts`; `ConfigurationError` for an audit that
    cannot be, before anything is written; and what `write` raises.
    """
    config = writer.config
    if config.branch != MAIN_BRANCH:
        raise ConfigurationError(
            f"{config.table}: what is published after an audit goes to main, not to branch "
            f"{config.branch!r}.",
            remedy="Leave out the branch, or write to it without publishing.",
        )
    declared = _declared(audits, config.table)
    reader = as_reader(data)
    rows = reader.read_all() if in_memory(data) else reader
    branch = _new_branch(writer.catalog, config.table, name, idempotency_key or config.idempotency_key)
    schema = schema_after_write(writer.catalog, config, rows.schema)
    require_sound(declared, schema, writer.catalog, config.table)
    publisher = _Publisher(writer.catalog, config.table, branch, declared, keep, attempts)
    beside = IcebergWriter(
        config.model_copy(update={"branch": branch}), catalog=writer.catalog, branch_lifetime=UNDECIDED
    )
    try:
        written = beside.write_accepted(
            rows, publisher, where=where, summary=summary, idempotency_key=idempotency_key
        )
    except AuditFailedError as error:
        if find_table(writer.catalog, config.table) is not None:
            raise
        raise _without_table(error) from None
    return AuditedWrite(written, publisher.results, publisher.done)


def _without_table(error: AuditFailedError) -> AuditFailedError:
    return AuditFailedError(
        f"{error.message} The table was made for this write, and is gone again.",
        remedy="Correct the data and write them again.",
        branch="",
        results=error.results,
    )


def audit(
    table: Table, before: int | None, after: int, audits: Sequence[Audit | Mapping[str, Any]]
) -> tuple[AuditResult, ...]:
    """Evaluate audits on a snapshot against the one before it, `None` for nothing; publish nothing.

    Raises `ConfigurationError` for audits that cannot be evaluated on it.
    """
    candidate = Candidate(table, before, after)
    declared = _declared(audits, candidate.name)
    require_sound(declared, candidate.schema, table.catalog, candidate.name)
    return evaluate(declared, candidate)


def _declared(audits: Sequence[Audit | Mapping[str, Any]], table: str) -> list[Audit]:
    try:
        return as_declared(list(audits))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ConfigurationError(f"{table}: audits.{where}: {first['msg']}.") from None
    except ValueError as error:
        raise ConfigurationError(f"{table}: {error}.") from None


def _new_branch(catalog: Catalog, name: str, label: str | None, key: str | None) -> str:
    """Return a name that is free; drop what a dead attempt at the same write has left, and what is over."""
    wanted = _PREFIX + (re.sub(r"\W", "_", label, flags=re.ASCII) if label else _moment())
    table = find_table(catalog, name)
    if table is None:
        return wanted
    with suppress(DwhError):  # the next one will
        prune_branches(catalog, table)
    unfinished = _unfinished(table, key) if key else []
    for left in unfinished:
        with suppress(NotFoundError, ConflictError):  # somebody else is at it, too
            drop_branch(catalog, table, left, forget=True)
    if unfinished:
        drop_unused(catalog, table)
    found = find_table(catalog, name)
    taken, number = set(found.metadata.refs) if found else set(), 1
    branch = wanted
    while branch in taken:
        number += 1
        branch = f"{wanted}_{number}"
    return branch


def _moment() -> str:
    return f"{datetime.now(UTC):%Y%m%d_%H%M%S}_{uuid.uuid4().hex[:4]}"


def _unfinished(table: Table, key: str) -> list[str]:
    """Return the branches of this write that were neither published nor refused."""
    found = []
    undecided = UNDECIDED // timedelta(milliseconds=1)
    for name, ref in table.metadata.refs.items():
        if ref.snapshot_ref_type != SnapshotRefType.BRANCH or not name.startswith(_PREFIX):
            continue
        own = own_snapshots(table.metadata, table.snapshot_by_id(ref.snapshot_id))
        keys = {s.summary.additional_properties.get(IDEMPOTENCY_KEY) for s in own if s.summary}
        if key in keys and ref.max_ref_age_ms == undecided:
            found.append(name)
    return found


@dataclass
class _Publisher:
    """Audits what has landed on the branch, and lets main take it over."""

    catalog: Catalog
    table: str
    branch: str
    audits: list[Audit]
    keep: timedelta
    attempts: int
    results: tuple[AuditResult, ...] = ()
    done: int = field(default=0)

    def __call__(self, written: WriteResult) -> bool:
        """Return whether it was published; if not, the branch is gone, because main has moved."""
        self.done += 1
        table = self.catalog.load_table(self.table)
        head, base = written.snapshot_id, written.parent_snapshot_id
        assert head is not None  # noqa: S101 - it has landed
        self.results = self._audited(Candidate(table, base, head))
        if not all(result.passed for result in self.results):
            self._keep_for_people(table)
            raise self._failure(head)
        try:
            fast_forward(table, self.branch, head=head, base=base, drop=True)
        except DivergedError as error:
            self._drop(head)
            if self.done >= self.attempts:
                raise self._overtaken(error) from error
            return False
        except NotFoundError as error:
            raise ConflictError(
                f"{self.table}: branch {self.branch!r} was taken away while it was audited: {error.message}",
                remedy="Another attempt at the same write is at work; see whether it lands.",
            ) from error
        return True

    def _audited(self, candidate: Candidate) -> tuple[AuditResult, ...]:
        """Evaluate the audits; a version of which nothing can be said is not kept."""
        try:
            return evaluate(self.audits, candidate)
        except Exception:
            with suppress(Exception):
                self._drop(candidate.after)
            raise

    def _drop(self, head: int) -> None:
        with suppress(NotFoundError):
            table = self.catalog.load_table(self.table)
            drop_branch(self.catalog, table, self.branch, head=head, forget=True)

    def _keep_for_people(self, table: Table) -> None:
        """Give the branch an end; where that fails it is kept for ever."""
        with suppress(DwhError):
            set_lifetime(self.catalog, table, self.branch, self.keep)

    def _failure(self, head: int) -> AuditFailedError:
        failed = [result for result in self.results if not result.passed]
        told = " ".join(f"{result.name}: {result.detail}" for result in failed)
        days = self.keep / timedelta(days=1)
        return AuditFailedError(
            f"{self.table}: {len(failed)} of {len(self.results)} audits failed, nothing was published. "
            f"{told}",
            remedy=f"Look at branch {self.branch!r} (snapshot {head}), which is kept for {days:g} days; "
            "correct the data and write them again, or publish it as it is: "
            f"dwh publish {self.table} {self.branch}",
            branch=self.branch,
            results=self.results,
        )

    def _overtaken(self, error: DivergedError) -> ConflictError:
        return ConflictError(
            f"{self.table}: main has moved in each of {self.done} attempts to publish, and nothing was "
            f"published. The last time: {error.message}",
            remedy="Run it again when fewer writers are at work, or let them share a pool.",
        )
