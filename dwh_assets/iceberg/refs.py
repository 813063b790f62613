"""Tags and branches of a table: made, listed and dropped, with a lifetime that is counted from now."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from pyiceberg.catalog import Catalog
from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.refs import MAIN_BRANCH, SnapshotRef, SnapshotRefType
from pyiceberg.table.snapshots import Snapshot
from pyiceberg.table.update import (
    AssertRefSnapshotId,
    RemoveSnapshotRefUpdate,
    RemoveSnapshotsUpdate,
    SetSnapshotRefUpdate,
    TableUpdate,
)

from dwh_assets.config import ref_name_fault
from dwh_assets.errors import ConfigurationError, ConflictError, NotFoundError
from dwh_assets.iceberg.ancestry import ancestors
from dwh_assets.iceberg.names import name_of
from dwh_assets.iceberg.ref_commits import RefChange, commit_refs
from dwh_assets.iceberg.snapshot import discard_metadata
from dwh_assets.iceberg.versions import moment

RefKind = Literal["tag", "branch"]


@dataclass(frozen=True)
class Ref:
    """A tag or a branch: what it is called, where it stands, and until when it is kept (None: for ever).

    Of a branch `expires_at` moves on with each commit to it.
    """

    name: str
    kind: RefKind
    snapshot_id: int
    committed_at: datetime
    expires_at: datetime | None


def list_refs(metadata: TableMetadata) -> list[Ref]:
    """Return the tags and branches by name, main among them."""
    refs = sorted(metadata.refs.items())
    return [_described(metadata, name, ref) for name, ref in refs]


def create_tag(
    catalog: Catalog,
    table: Table,
    name: str,
    snapshot_id: int | None = None,
    *,
    lifetime: timedelta | None = None,
) -> Ref:
    """Name a snapshot, by default the one that main shows; expiry keeps it for `lifetime` from now.

    Without a lifetime it is kept until the tag is dropped. Raises `ConfigurationError` for a name that is
    taken or a lifetime that is none, `NotFoundError` for a snapshot that is not there, `UnsupportedError`
    when the catalog drops the tag in silence, `ConflictError` and `CommitUnknownError`.
    """
    return _create(catalog, table, "tag", name, snapshot_id, lifetime)


def create_branch(
    catalog: Catalog,
    table: Table,
    name: str,
    snapshot_id: int | None = None,
    *,
    lifetime: timedelta | None = None,
) -> Ref:
    """Begin a branch at a snapshot, by default the one that main shows; see `create_tag`.

    The lifetime is counted from the branch's newest commit on, as soon as there is one.
    """
    return _create(catalog, table, "branch", name, snapshot_id, lifetime)


def ensure_tag(
    catalog: Catalog, table: Table, name: str, snapshot_id: int, *, lifetime: timedelta | None = None
) -> Ref:
    """Make a tag, or keep the one that names this snapshot already at least for `lifetime` from now.

    Raises what `create_tag` raises; a name that is taken is one that names something else.
    """
    ref = table.metadata.refs.get(name)
    if ref is None or _kind(ref) != "tag" or ref.snapshot_id != snapshot_id:
        return create_tag(catalog, table, name, snapshot_id, lifetime=lifetime)
    known = _described(table.metadata, name, ref)
    asked = None if lifetime is None else datetime.now(UTC) + lifetime
    if known.expires_at is None or (asked is not None and asked <= known.expires_at):
        return known
    return set_lifetime(catalog, table, name, lifetime)


def set_lifetime(catalog: Catalog, table: Table, name: str, lifetime: timedelta | None) -> Ref:
    """Keep a tag or branch for `lifetime` from now; None is for ever.

    Raises `NotFoundError` for an unknown name, `ConfigurationError` for main and a lifetime that is none,
    and what `ref_commits.commit_refs` raises.
    """
    _require_lifetime(table, name, lifetime)

    def decide(current: Table) -> RefChange:
        kept = _existing(current, name)
        update = set_ref(current.metadata, _kind(kept), name, kept.snapshot_id, lifetime)
        return RefChange(
            (AssertRefSnapshotId(ref=name, snapshot_id=kept.snapshot_id),),
            (update,),
            lambda metadata: (
                name in metadata.refs and metadata.refs[name].max_ref_age_ms == update.max_ref_age_ms
            ),
        )

    kept = commit_refs(catalog, table, decide).metadata
    return _described(kept, name, kept.refs[name])


def drop_tag(catalog: Catalog, table: Table, name: str) -> None:
    """Forget a name; the snapshot stays until expiry.

    Raises `NotFoundError` for an unknown name, `ConfigurationError` for a branch, `ConflictError` when
    somebody else moved the tag meanwhile.
    """
    _drop(catalog, table, "tag", name)


def drop_branch(
    catalog: Catalog, table: Table, name: str, *, head: int | None = None, forget: bool = False
) -> Table:
    """Forget a branch, and return the table without it; see `drop_tag`. Main is never dropped.

    `head` is where it was looked at: one that somebody has written to since is not dropped. With `forget`
    those of its snapshots go, too, that no other branch or tag leads to, and their manifests; their data
    files stay, since a new plan may be about to use them again.
    """
    gone: list[Snapshot] = []

    def and_what_only_it_has(current: Table) -> list[TableUpdate]:
        gone[:] = _only_on(current.metadata, name)
        return [RemoveSnapshotsUpdate(snapshot_ids=[one.snapshot_id for one in gone])] if gone else []

    left = _drop(catalog, table, "branch", name, head, and_what_only_it_has if forget else None)
    _delete_manifests(left, gone)
    return left


def _only_on(metadata: TableMetadata, branch: str) -> list[Snapshot]:
    """Return the snapshots that are reached from this branch alone."""
    others = {
        snapshot.snapshot_id
        for name, ref in metadata.refs.items()
        if name != branch
        for snapshot in ancestors(metadata, ref.snapshot_id)
    }
    line = ancestors(metadata, metadata.snapshot_by_name(branch))
    return [snapshot for snapshot in line if snapshot.snapshot_id not in others]


def _delete_manifests(table: Table, gone: Sequence[Snapshot]) -> None:
    """Delete the metadata files of snapshots that are gone, unless one that is left was built on them."""
    ids = {snapshot.snapshot_id for snapshot in gone}
    if any(snapshot.parent_snapshot_id in ids for snapshot in table.metadata.snapshots):
        return
    for snapshot in gone:
        with suppress(OSError):
            own = [m.manifest_path for m in snapshot.manifests(table.io) if m.added_snapshot_id in ids]
            discard_metadata([(table.io, path) for path in (*own, snapshot.manifest_list)])


def prune_branches(catalog: Catalog, table: Table) -> list[Ref]:
    """Forget the branches whose time is over, and return them as they were.

    Their snapshots stay until expiry. One that is written to meanwhile lives on. Raises what
    `ref_commits.commit_refs` raises.
    """
    over = _over(table.metadata)

    def decide(current: Table) -> RefChange:
        over[:] = _over(current.metadata)
        return RefChange(
            [AssertRefSnapshotId(ref=ref.name, snapshot_id=ref.snapshot_id) for ref in over],
            [RemoveSnapshotRefUpdate(ref_name=ref.name) for ref in over],
            lambda metadata: not any(ref.name in metadata.refs for ref in over),
        )

    if over:
        commit_refs(catalog, table, decide)
    return over


def _over(metadata: TableMetadata) -> list[Ref]:
    now = datetime.now(UTC)
    return [
        ref
        for ref in list_refs(metadata)
        if ref.kind == "branch" and ref.name != MAIN_BRANCH and ref.expires_at and ref.expires_at <= now
    ]


def set_ref(
    metadata: TableMetadata,
    kind: RefKind,
    name: str,
    snapshot_id: int,
    lifetime: timedelta | None = None,
) -> SetSnapshotRefUpdate:
    """Return the update that puts a name on a snapshot, kept for `lifetime` from now.

    What is said of the retention of a branch's snapshots stays said.

    Iceberg counts `max-ref-age-ms` from the snapshot's own moment: without its age, a tag of thirty days on a
    snapshot of last year would die at the next expiry.
    """
    snapshot, present = _snapshot(metadata, name, snapshot_id), metadata.refs.get(name)
    return SetSnapshotRefUpdate(
        ref_name=name,
        type=SnapshotRefType(kind),
        snapshot_id=snapshot_id,
        max_ref_age_ms=None if lifetime is None else _age_at_end(snapshot, lifetime),
        max_snapshot_age_ms=present.max_snapshot_age_ms if present else None,
        min_snapshots_to_keep=present.min_snapshots_to_keep if present else None,
    )


def _create(
    catalog: Catalog,
    table: Table,
    kind: RefKind,
    name: str,
    snapshot_id: int | None,
    lifetime: timedelta | None,
) -> Ref:
    require_name(table, name)
    _require_lifetime(table, name, lifetime)
    wanted = snapshot_id if snapshot_id is not None else _head(table, name)

    def decide(current: Table) -> RefChange:
        _require_free(current, name)
        update = set_ref(current.metadata, kind, name, wanted, lifetime)
        return RefChange(
            (AssertRefSnapshotId(ref=name, snapshot_id=None),),
            (update,),
            lambda metadata: _stands(metadata, name, kind, wanted),
        )

    made = commit_refs(catalog, table, decide).metadata
    return _described(made, name, made.refs[name])


def _drop(
    catalog: Catalog,
    table: Table,
    kind: RefKind,
    name: str,
    head: int | None = None,
    more: Callable[[Table], list[TableUpdate]] | None = None,
) -> Table:
    seen = head or _existing(table, name, kind).snapshot_id

    def decide(current: Table) -> RefChange:
        if _existing(current, name, kind).snapshot_id != seen:
            raise ConflictError(
                f"{name_of(table)}: the {kind} {name!r} was moved by somebody else just now, from "
                f"snapshot {seen} to {_existing(current, name, kind).snapshot_id}.",
                remedy="Look at what it names now, and drop it again if it still shall go.",
            )
        return RefChange(
            (AssertRefSnapshotId(ref=name, snapshot_id=seen),),
            (RemoveSnapshotRefUpdate(ref_name=name), *(more(current) if more else ())),
            lambda metadata: name not in metadata.refs,
        )

    return commit_refs(catalog, table, decide)


def _stands(metadata: TableMetadata, name: str, kind: RefKind, snapshot_id: int) -> bool:
    """Tell whether a new ref is there; a branch may have moved on since."""
    ref = metadata.refs.get(name)
    if ref is None or ref.snapshot_ref_type != kind:
        return False
    return kind == "branch" or ref.snapshot_id == snapshot_id


def _existing(table: Table, name: str, kind: RefKind | None = None) -> SnapshotRef:
    """Return a ref that may be changed; raise unless it is there, and of the kind."""
    shown, ref = name_of(table), table.metadata.refs.get(name)
    if name == MAIN_BRANCH:
        raise ConfigurationError(
            f"{shown}: {MAIN_BRANCH} is what readers see; it is neither dropped nor given an end.",
            remedy="Roll the table back, or drop the table itself.",
        )
    if ref is None:
        names = sorted(name for name, known in table.metadata.refs.items() if kind in (None, _kind(known)))
        raise NotFoundError(
            f"{shown} has no {kind or 'tag or branch'} {name!r}.",
            remedy=f"It has {', '.join(names)}." if names else "It has none.",
        )
    if kind not in (None, _kind(ref)):
        raise ConfigurationError(
            f"{shown}: {name!r} is a {_kind(ref)}, not a {kind}.", remedy=f"Drop it as a {_kind(ref)}."
        )
    return ref


def _kind(ref: SnapshotRef) -> RefKind:
    return "tag" if ref.snapshot_ref_type == SnapshotRefType.TAG else "branch"


def require_name(table: Table, name: str) -> None:
    """Raise `ConfigurationError` for what is no name for a tag or a branch."""
    if fault := ref_name_fault(name):
        raise ConfigurationError(
            f"{name_of(table)}: {name!r} is no name for a tag or a branch: {fault}.",
            remedy="Give it a name of letters, digits and signs.",
        )


def _require_free(table: Table, name: str) -> None:
    ref = table.metadata.refs.get(name)
    if ref is not None or name == MAIN_BRANCH:
        kind = ref.snapshot_ref_type.value if ref else "branch"
        at = f", at snapshot {ref.snapshot_id}" if ref else ""
        raise ConfigurationError(
            f"{name_of(table)} has a {kind} {name!r} already{at}.",
            remedy="Choose another name, or drop that one first.",
        )


def _require_lifetime(table: Table, name: str, lifetime: timedelta | None) -> None:
    if lifetime is not None and lifetime <= timedelta(0):
        raise ConfigurationError(
            f"{name_of(table)}: {name!r} cannot be kept for {lifetime}.",
            remedy="Give a lifetime above zero, or none to keep it until it is dropped.",
        )


def _head(table: Table, name: str) -> int:
    head = table.metadata.current_snapshot()
    if head is None:
        raise NotFoundError(
            f"{name_of(table)} has no version yet that {name!r} could name.",
            remedy="Write to it first; data without rows will do.",
        )
    return int(head.snapshot_id)


def _snapshot(metadata: TableMetadata, name: str, snapshot_id: int) -> Snapshot:
    snapshot = metadata.snapshot_by_id(snapshot_id)
    if snapshot is None:
        raise NotFoundError(
            f"{name!r} cannot name snapshot {snapshot_id}: the table has none of this id.",
            remedy="It may have expired; see the table's history.",
        )
    return snapshot


def _age_at_end(snapshot: Snapshot, lifetime: timedelta) -> int:
    age = datetime.now(UTC) - moment(snapshot.timestamp_ms)
    return max(1, (age + lifetime) // timedelta(milliseconds=1))


def _described(metadata: TableMetadata, name: str, ref: SnapshotRef) -> Ref:
    committed_at = moment(_snapshot(metadata, name, ref.snapshot_id).timestamp_ms)
    age = ref.max_ref_age_ms
    expires_at = None if age is None else committed_at + timedelta(milliseconds=age)
    return Ref(name, _kind(ref), ref.snapshot_id, committed_at, expires_at)
