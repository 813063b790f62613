"""Releases: one name over many tables, for versions that were made from each other.

A release is a tag of its name on each table, and a record in the ledger that says which tables belong to it
and what each replica held. Tags alone are no release: one that was interrupted is not listed, not compared
and not rolled back to, until it is resumed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from pydantic import TypeAdapter
from pyiceberg.catalog import Catalog
from pyiceberg.table import Table

from dwh_assets.errors import ConfigurationError, NotFoundError
from dwh_assets.iceberg.declaration import find_table
from dwh_assets.iceberg.refs import drop_tag, ensure_tag, require_name
from dwh_assets.ledger import Ledger, Operation, Pin
from dwh_assets.versioning.catalog_tables import CatalogTables
from dwh_assets.versioning.graph import GraphRollback, plan_versions
from dwh_assets.versioning.points import ResolvedPoint, resolve, resolve_ref
from dwh_assets.versioning.provenance import History, Read
from dwh_assets.versioning.replicas import Replica, look_at

RELEASE = "release"


@dataclass(frozen=True)
class ReleasedVersion:
    """The version of one table: its snapshot, and the newest one up to it that changed rows."""

    table: str
    snapshot_id: int
    logical_snapshot_id: int


@dataclass(frozen=True)
class ReleasedReplica:
    """What a replica held when the release was made (None: nothing), or why nobody could tell."""

    replica: str
    table: str
    snapshot_id: int | None
    problem: str = ""


@dataclass(frozen=True)
class _Content:
    versions: tuple[ReleasedVersion, ...]
    replicas: tuple[ReleasedReplica, ...]


_CONTENT: TypeAdapter[_Content] = TypeAdapter(_Content)


@dataclass(frozen=True)
class Release:
    """A finished release; each of its versions carries the tag `name`."""

    name: str
    versions: tuple[ReleasedVersion, ...]
    replicas: tuple[ReleasedReplica, ...]
    created_at: datetime

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON; ids are text, as numbers they lose digits in browsers."""
        return {
            "name": self.name,
            "created_at": self.created_at.isoformat(),
            "versions": {one.table: str(one.snapshot_id) for one in self.versions},
            "replicas": {
                one.replica: {
                    "table": one.table,
                    "snapshot_id": None if one.snapshot_id is None else str(one.snapshot_id),
                    "problem": one.problem,
                }
                for one in self.replicas
            },
        }


@dataclass(frozen=True)
class ComparedVersion:
    """A table of two releases: its snapshots in both, None where it is not part of one.

    `same_rows` is true also where only a compaction lies between them.
    """

    table: str
    before: int | None
    after: int | None
    same_rows: bool


@dataclass(frozen=True)
class ReleaseComparison:
    """Two releases, table by table."""

    before: str
    after: str
    tables: tuple[ComparedVersion, ...]

    @property
    def changed(self) -> tuple[ComparedVersion, ...]:
        """The tables in both whose rows may differ: compare their snapshots."""
        return tuple(one for one in self.tables if one.before and one.after and not one.same_rows)

    @property
    def added(self) -> tuple[str, ...]:
        """Tables of the later release only."""
        return tuple(one.table for one in self.tables if one.before is None)

    @property
    def removed(self) -> tuple[str, ...]:
        """Tables of the earlier release only."""
        return tuple(one.table for one in self.tables if one.after is None)


def create_release(
    catalog: Catalog,
    ledger: Ledger,
    name: str,
    tables: Sequence[str] | None = None,
    *,
    replicas: Mapping[str, Replica] | None = None,
) -> Release:
    """Fix `name` over what `main` of these tables shows now; by default over all of the catalog with data.

    Every table that was computed from others of them must have been made from just the versions that these
    show: the newest read of each input counts, since a table that grows was made from older ones before.
    Inputs that are not part of the release do not count. What each replica of these tables holds is recorded
    beside it.

    Raises `ConfigurationError` that names the stale tables, or where the name is none, or taken on one of
    them; then nothing was changed. What goes wrong later leaves a release that `resume_release` finishes.
    """
    loaded = CatalogTables(catalog)
    histories = list(_chosen(loaded, tables))
    _require_fresh(name, histories)
    for history in histories:
        _require_free(history, name)
    concerned = {history.name for history in histories}
    content = _Content(
        tuple(map(_version, histories)),
        tuple(_replicas({key: one for key, one in (replicas or {}).items() if one.table in concerned})),
    )
    operation_id = _id(name)
    plan = _CONTENT.dump_python(content, mode="json")
    ledger.begin(operation_id, RELEASE, plan, [one.table for one in content.versions])
    ledger.pin(*(Pin(one.table, one.snapshot_id, operation_id, "released") for one in content.versions))
    return resume_release(catalog, ledger, name)


def resume_release(catalog: Catalog, ledger: Ledger, name: str) -> Release:
    """Finish a release that was interrupted, over the versions that it was begun with.

    Raises `NotFoundError` for one that was never begun, and what `refs.create_tag` raises; then it can be
    resumed again.
    """
    operation = ledger.operation(_id(name))
    versions = {one.table: one.snapshot_id for one in _content(operation).versions}
    try:
        for table in operation.open_items:
            _tag(catalog, table, name, versions[table])
            ledger.mark(operation.id, table, "done")
    finally:
        ended = ledger.end(operation.id)
    ledger.unpin(operation.id)
    return _release(ended)


def list_releases(ledger: Ledger) -> list[Release]:
    """Return the finished releases, oldest first."""
    return [_release(operation) for operation in ledger.operations(RELEASE) if operation.state == "done"]


def get_release(ledger: Ledger, name: str) -> Release:
    """Return a finished release; raises `NotFoundError`, which says so if it was interrupted."""
    try:
        operation = ledger.operation(_id(name))
    except NotFoundError:
        known = ", ".join(release.name for release in list_releases(ledger)) or "none"
        raise NotFoundError(f"There is no release {name!r}.", remedy=f"There is {known}.") from None
    if operation.state != "done":
        raise NotFoundError(
            f"The release {name!r} was interrupted: {', '.join(operation.open_items)} not tagged.",
            remedy="Resume it, or drop it.",
        )
    return _release(operation)


def named_version(table: Table, name: str, ledger: Ledger | None) -> ResolvedPoint:
    """Return the version that a release of this table names, or else a tag.

    Raises `NotFoundError` where there is neither, where the release was interrupted (its tag alone is none),
    or where its snapshot was expired.
    """
    release = _release_of(".".join(table.name()), name, ledger) if ledger else None
    if release is None:
        return resolve_ref(table, name, "tag")
    found = resolve(table, release.snapshot_id, ledger)
    return replace(found, described=f"release {name}")


def _release_of(table: str, name: str, ledger: Ledger) -> ReleasedVersion | None:
    for operation in ledger.operations(RELEASE):
        if operation.id == _id(name) and table in {one.table for one in _content(operation).versions}:
            return next(one for one in get_release(ledger, name).versions if one.table == table)
    return None


def drop_release(catalog: Catalog, ledger: Ledger, name: str) -> None:
    """Forget a release, finished or interrupted, with its tags; snapshots stay until expiry."""
    operation = ledger.operation(_id(name))
    for one in _content(operation).versions:
        table = find_table(catalog, one.table)
        ref = table.metadata.refs.get(name) if table else None
        if table is not None and ref is not None and ref.snapshot_id == one.snapshot_id:
            drop_tag(catalog, table, name)
    ledger.unpin(operation.id)
    ledger.forget(operation.id)


def compare_releases(ledger: Ledger, before: str, after: str) -> ReleaseComparison:
    """Return which tables came, went and changed from one release to another.

    Raises `NotFoundError` for an unknown release.
    """
    old = {one.table: one for one in get_release(ledger, before).versions}
    new = {one.table: one for one in get_release(ledger, after).versions}
    return ReleaseComparison(
        before,
        after,
        tuple(_compared(table, old.get(table), new.get(table)) for table in sorted(old.keys() | new.keys())),
    )


def plan_release_rollback(
    catalog: Catalog, ledger: Ledger, name: str, replicas: Mapping[str, Replica] | None = None
) -> GraphRollback:
    """Return what it takes to bring every table of a release back to it, and what was computed from them.

    Apply it with `graph_apply.apply_rollback`. Raises `NotFoundError` for an unknown release, or where a
    table or snapshot of it is gone.
    """
    release = get_release(ledger, name)
    released = {one.table: one.snapshot_id for one in release.versions}
    return plan_versions(catalog, released, replicas, allow_unpublished=True)  # main has shown them


def _chosen(tables: CatalogTables, names: Sequence[str] | None) -> Iterator[History]:
    found = tables.all() if names is None else map(tables.require, dict.fromkeys(names))
    some = False
    for history in found:
        if history.head is not None:
            some = True
            yield history
        elif names is not None:
            raise NotFoundError(f"{history.name} has no data yet.", remedy="Leave it out, or write it first.")
    for name, error in tables.unreadable.items() if names is None else ():
        raise type(error)(f"{name}: {error.message}", remedy=error.remedy or "Name the tables to release.")
    if not some:
        raise NotFoundError("There is no table with data to release.", remedy="Write one first.")


def _require_fresh(release: str, histories: Iterable[History]) -> None:
    by_name = {history.name: history for history in histories}
    stale = [text for history in by_name.values() for text in _stale(history, by_name)]
    if stale:
        raise ConfigurationError(
            f"The release {release!r} cannot be made: {'; '.join(stale)}.",
            remedy="Compute these tables anew, or leave them out.",
        )


def _stale(history: History, released: Mapping[str, History]) -> Iterator[str]:
    newest: dict[str, Read] = {}
    for read in history.provenance(_head(history)).reads:  # the newest write comes first
        newest.setdefault(read.table, read)
    for read in newest.values():
        source = released.get(read.table)
        if source is None or source is history:
            continue
        if source.logical(read.snapshot_id) != source.logical(_head(source)):
            yield (
                f"{history.name} is stale: it was made from {read.table} at snapshot {read.snapshot_id}, "
                f"which shows {_head(source)} by now"
            )


def _head(history: History) -> int:
    if history.head is None:
        raise NotFoundError(f"{history.name} has no data yet.", remedy="Write it first.")
    return history.head


def _require_free(history: History, name: str) -> None:
    require_name(history.table, name)
    if name in history.metadata.refs:
        raise ConfigurationError(
            f"{history.name} has a tag or branch {name!r} already.", remedy="Choose another name."
        )


def _version(history: History) -> ReleasedVersion:
    head = _head(history)
    return ReleasedVersion(history.name, head, history.logical(head))


def _replicas(replicas: Mapping[str, Replica]) -> Iterator[ReleasedReplica]:
    for seen in look_at(replicas):
        held = seen.state.snapshot_id if seen.state else None
        yield ReleasedReplica(seen.name, seen.table, held, str(seen.problem or ""))


def _tag(catalog: Catalog, name: str, tag: str, snapshot_id: int) -> None:
    table = find_table(catalog, name)
    if table is None:
        raise NotFoundError(
            f"{name} is gone, which is part of the release {tag!r}.", remedy="Drop the release."
        )
    ensure_tag(catalog, table, tag, snapshot_id)


def _content(operation: Operation) -> _Content:
    return _CONTENT.validate_python(operation.plan)


def _release(operation: Operation) -> Release:
    content = _content(operation)
    name = operation.id.removeprefix(f"{RELEASE}/")
    return Release(name, content.versions, content.replicas, operation.began_at)


def _compared(table: str, old: ReleasedVersion | None, new: ReleasedVersion | None) -> ComparedVersion:
    same = old is not None and new is not None and old.logical_snapshot_id == new.logical_snapshot_id
    return ComparedVersion(
        table, old.snapshot_id if old else None, new.snapshot_id if new else None, same_rows=same
    )


def _id(name: str) -> str:
    return f"{RELEASE}/{name}"
