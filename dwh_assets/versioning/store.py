"""Versions of tables: named, listed, and read as they were.

store = VersionedDataStore(catalog)
store.create_version("sales.orders", tag="q3")
store.time_travel("sales.orders", "q3")                      # pandas
store.scan("sales.orders", "2026-01-03", columns=["id"])     # Arrow batches, in bounded memory
diff = store.compare_versions("sales.orders", "q3", None)    # diff.rows_added, diff.changes(), …
store.rollback("sales.orders", to="q3")
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.expressions import BooleanExpression
from pyiceberg.table import DataScan, Table

from dwh_assets.config import CatalogConfig
from dwh_assets.errors import ConfigurationError, NotFoundError
from dwh_assets.iceberg import refs
from dwh_assets.iceberg.arrow.frames import read_as
from dwh_assets.iceberg.catalogs.load import load_catalog
from dwh_assets.iceberg.declaration import find_table
from dwh_assets.iceberg.diff.compare import compare, own_keys
from dwh_assets.iceberg.diff.version_diff import VersionDiff
from dwh_assets.iceberg.faults import explained
from dwh_assets.iceberg.refs import Ref
from dwh_assets.iceberg.results import WriteResult
from dwh_assets.iceberg.scan import read, scan
from dwh_assets.ledger import Ledger
from dwh_assets.versioning import branches, releases
from dwh_assets.versioning.branches import Published
from dwh_assets.versioning.catalog_tables import CatalogTables
from dwh_assets.versioning.cherry_pick import cherry_pick
from dwh_assets.versioning.graph import GraphRollback, plan_rollback, plan_undo
from dwh_assets.versioning.graph_apply import GraphResult, apply_rollback, resume_rollback
from dwh_assets.versioning.history import Version, history
from dwh_assets.versioning.impact import Impact, impact
from dwh_assets.versioning.lineage import Lineage, lineage
from dwh_assets.versioning.points import Point, ResolvedPoint, resolve
from dwh_assets.versioning.releases import Release, ReleaseComparison
from dwh_assets.versioning.replicas import Replica
from dwh_assets.versioning.restore import restore
from dwh_assets.versioning.rollback import TableRollback, rollback
from dwh_assets.versioning.shown import ExpiredIntervals

if TYPE_CHECKING:
    import duckdb
    import pandas
    import polars

VERSION_TAG = "version-"
Replicas = Mapping[str, Replica] | None
_Frame = TypeVar("_Frame")


class VersionedDataStore:
    """The tables of one catalog as versions: every point in time is named as `points.resolve` says.

    `catalog` is an open one, or what `load_catalog` takes. `ledger` knows which snapshots were expired, by
    what, and when they were shown: with it a miss can say more, and moments around it can be told. A
    `ledger.Ledger` also journals what spans many tables: rollbacks of a graph, and releases. `replicas`, by
    name, are the copies that go along with their tables.
    """

    def __init__(
        self,
        catalog: Catalog | CatalogConfig | Mapping[str, Any] | str,
        ledger: ExpiredIntervals | None = None,
    ) -> None:
        self.catalog = catalog if isinstance(catalog, Catalog) else load_catalog(catalog)
        self.ledger = ledger

    # --- Names ---

    def create_version(
        self,
        table: str,
        tag: str | None = None,
        *,
        at: Point = None,
        lifetime: timedelta | None = None,
    ) -> str:
        """Name a snapshot with a tag, by default the one that main shows; return its id as text.

        Expiry keeps it for `lifetime` from now, or until the tag is deleted. Without a `tag` it is called
        `version-<snapshot id>`, and one that is called so already is kept longer where that is asked for.
        Raises what `refs.create_tag` and `points.resolve` raise.
        """
        loaded, found = self._resolved(table, at)
        with explained(table, self.catalog.name):
            if tag is not None:
                refs.create_tag(self.catalog, loaded, tag, found.snapshot_id, lifetime=lifetime)
            else:
                name = f"{VERSION_TAG}{found.snapshot_id}"
                refs.ensure_tag(self.catalog, loaded, name, found.snapshot_id, lifetime=lifetime)
        return str(found.snapshot_id)

    def keep_version(self, table: str, name: str, lifetime: timedelta | None) -> Ref:
        """Keep a tag or branch for `lifetime` from now; None is for ever. See `refs.set_lifetime`."""
        with explained(table, self.catalog.name):
            return refs.set_lifetime(self.catalog, self.load_table(table), name, lifetime)

    def list_versions(self, table: str) -> list[Ref]:
        """Return the table's tags and branches by name, main among them."""
        return refs.list_refs(self.load_table(table).metadata)

    def describe_version(self, table: str, point: Point = None) -> Version:
        """Return the version that a point names: where it stands, what it changed, who made it."""
        loaded, found = self._resolved(table, point)
        versions = history(loaded, self.ledger)
        return next(version for version in versions if version.snapshot_id == found.snapshot_id)

    def history(self, table: str) -> list[Version]:
        """Return the table's versions, oldest first, and what is known of those that are gone.

        `history.history_table` makes an Arrow table of them.
        """
        return history(self.load_table(table), self.ledger)

    def delete_version(self, table: str, tag: str) -> None:
        """Forget a tag; its snapshot stays until expiry. Raises what `refs.drop_tag` raises."""
        with explained(table, self.catalog.name):
            refs.drop_tag(self.catalog, self.load_table(table), tag)

    def create_branch(
        self, table: str, name: str, *, at: Point = None, lifetime: timedelta | None = None
    ) -> str:
        """Begin a branch at a point, by default at what main shows; return the snapshot id as text.

        It is kept for `lifetime` from now, and from each commit to it, or until it is dropped. Raises what
        `refs.create_branch` and `points.resolve` raise.
        """
        loaded, found = self._resolved(table, at)
        with explained(table, self.catalog.name):
            refs.create_branch(self.catalog, loaded, name, found.snapshot_id, lifetime=lifetime)
        return str(found.snapshot_id)

    def drop_branch(self, table: str, name: str) -> None:
        """Forget a branch, never main; snapshots stay until expiry. Raises what `refs.drop_branch` raises."""
        with explained(table, self.catalog.name):
            refs.drop_branch(self.catalog, self.load_table(table), name)

    def prune_branches(self, table: str) -> list[Ref]:
        """Forget the table's branches whose time is over, and return them; see `refs.prune_branches`.

        An audited write does that, too.
        """
        with explained(table, self.catalog.name):
            return refs.prune_branches(self.catalog, self.load_table(table))

    def publish(self, table: str, branch: str, *, allow_rolled_back: bool = False) -> Published:
        """Let main take over a branch that goes on from where main is; see `branches.fast_forward`."""
        with explained(table, self.catalog.name):
            return branches.fast_forward(self.load_table(table), branch, allow_rolled_back=allow_rolled_back)

    def cherry_pick(self, table: str, source: str | int) -> Published:
        """Append to main what a branch, or one of its snapshots, appended; see `cherry_pick.cherry_pick`."""
        with explained(table, self.catalog.name):
            return cherry_pick(self.load_table(table), source)

    # --- Comparing ---

    def compare_versions(
        self, table: str, v1: Point, v2: Point = None, keys: Sequence[str] | None = None
    ) -> VersionDiff:
        """Compare two versions exactly; see `diff.compare.compare` and `VersionDiff`.

        Rows are told apart by `keys`; None means the table's own key (identifier fields, or the key columns
        that it is written with), and a multiset where it has none or one version lacks a column of it.
        `keys=[]` is a multiset. Raises what `points.resolve` and `compare` raise.
        """
        loaded = self.load_table(table)
        before, after = (resolve(loaded, point, self.ledger).snapshot_id for point in (v1, v2))
        chosen = own_keys(loaded, before, after) if keys is None else keys
        with explained(table, self.catalog.name):
            return compare(loaded, before, after, keys=chosen)

    # --- Getting back ---

    def rollback(
        self,
        table: str,
        to: Point,
        *,
        expected_head: int | None = None,
        allow_lost: bool = False,
        allow_unpublished: bool = False,
        dry_run: bool = False,
    ) -> TableRollback:
        """Set main of one table back to a point, and tag the head that it leaves; see `rollback.rollback`."""
        snapshot_id = self.resolve(table, to).snapshot_id
        return rollback(
            self.catalog,
            table,
            snapshot_id,
            expected_head=expected_head,
            allow_lost=allow_lost,
            allow_unpublished=allow_unpublished,
            dry_run=dry_run,
        )

    def restore(self, table: str, to: Point, where: str | BooleanExpression | None = None) -> WriteResult:
        """Bring back the rows of a filter as they were, as one new snapshot; see `restore.restore`."""
        return restore(self.catalog, table, self.resolve(table, to).snapshot_id, where)

    def plan_rollback(
        self, table: str, to: Point, replicas: Replicas = None, *, allow_unpublished: bool = False
    ) -> GraphRollback:
        """Plan to bring a table back, with all that was computed from it and every replica.

        Nothing changes until `apply_rollback`; see `graph.plan_rollback`.
        """
        snapshot_id = self.resolve(table, to).snapshot_id
        return plan_rollback(self.catalog, table, snapshot_id, replicas, allow_unpublished=allow_unpublished)

    def apply_rollback(
        self, plan: GraphRollback, replicas: Replicas = None, *, allow_lost: bool = False
    ) -> GraphResult:
        """Do what was planned; see `graph_apply.apply_rollback`."""
        return apply_rollback(self.catalog, plan, self._journal, replicas, allow_lost=allow_lost)

    def resume_rollback(self, operation_id: str, replicas: Replicas = None) -> GraphResult:
        """Go on with an interrupted rollback, or with its parts that failed."""
        return resume_rollback(self.catalog, self._journal, operation_id, replicas)

    def undo_rollback(self, operation_id: str, replicas: Replicas = None) -> GraphRollback:
        """Plan to bring every table of an earlier rollback to where it was before."""
        return plan_undo(self.catalog, self._journal, operation_id, replicas)

    # --- Lineage ---

    def lineage(self, table: str, point: Point = None) -> Lineage:
        """Return which versions of which inputs made a version, recursively; see `lineage.lineage`."""
        return lineage(self.catalog, table, self.resolve(table, point).snapshot_id)

    def impact(self, table: str, point: Point = None, replicas: Replicas = None) -> Impact:
        """Return what was made from a version, recursively; see `impact.impact`."""
        return impact(self.catalog, table, self.resolve(table, point).snapshot_id, replicas=replicas)

    # --- Releases ---

    def create_release(
        self, name: str, tables: Sequence[str] | None = None, replicas: Replicas = None
    ) -> Release:
        """Fix one name over what main of many tables shows now; see `releases.create_release`."""
        return releases.create_release(self.catalog, self._journal, name, tables, replicas=replicas)

    def resume_release(self, name: str) -> Release:
        """Finish a release that was interrupted."""
        return releases.resume_release(self.catalog, self._journal, name)

    def list_releases(self) -> list[Release]:
        """Return the finished releases, oldest first."""
        return releases.list_releases(self._journal)

    def drop_release(self, name: str) -> None:
        """Forget a release with its tags; snapshots stay until expiry."""
        releases.drop_release(self.catalog, self._journal, name)

    def compare_releases(self, before: str, after: str) -> ReleaseComparison:
        """Return which tables came, went and changed; `compare_versions` tells their rows."""
        return releases.compare_releases(self._journal, before, after)

    def rollback_release(self, name: str, replicas: Replicas = None) -> GraphRollback:
        """Plan to bring every table of a release back to it; `apply_rollback` does it."""
        return releases.plan_release_rollback(self.catalog, self._journal, name, replicas)

    # --- Reading ---

    def resolve(self, table: str, point: Point = None) -> ResolvedPoint:
        """Return which snapshot a point names, and how it was found; see `points.resolve`."""
        return self._resolved(table, point)[1]

    def time_travel(
        self,
        table: str,
        point: Point = None,
        *,
        columns: list[str] | None = None,
        where: str | BooleanExpression | None = None,
    ) -> pandas.DataFrame:
        """Return the rows of a version as a pandas frame, all in memory; columns are those it had then.

        `where` is an Iceberg filter such as `"carrier = 'AA' and dep_delay > 10"`. Raises what
        `points.resolve` and `scan.scan` raise.
        """
        import pandas

        return self._read_as(pandas.DataFrame, table, point, columns, where)

    def scan(
        self,
        table: str,
        point: Point = None,
        *,
        columns: list[str] | None = None,
        where: str | BooleanExpression | None = None,
    ) -> pa.RecordBatchReader:
        """Stream the rows of a version as Arrow batches, in bounded memory; see `time_travel`."""
        return read(self.plan(table, point, columns=columns, where=where))

    def relation(
        self,
        table: str,
        point: Point = None,
        *,
        columns: list[str] | None = None,
        where: str | BooleanExpression | None = None,
    ) -> duckdb.DuckDBPyRelation:
        """Return the rows of a version as a DuckDB relation, spilled to disk where memory ends."""
        import duckdb

        return self._read_as(duckdb.DuckDBPyRelation, table, point, columns, where)

    def polars(
        self,
        table: str,
        point: Point = None,
        *,
        columns: list[str] | None = None,
        where: str | BooleanExpression | None = None,
    ) -> polars.LazyFrame:
        """Return a version as a lazy polars frame, which reads only what a query needs."""
        import polars

        return self._read_as(polars.LazyFrame, table, point, columns, where)

    def plan(
        self,
        table: str,
        point: Point = None,
        *,
        columns: list[str] | None = None,
        where: str | BooleanExpression | None = None,
    ) -> DataScan:
        """Return the planned read of a version as PyIceberg knows it, for what else can read one."""
        loaded, found = self._resolved(table, point)
        return scan(loaded, columns=columns, where=where, snapshot_id=found.snapshot_id)

    def load_table(self, table: str) -> Table:
        """Load `namespace.table`; raise `NotFoundError` where there is none."""
        loaded = find_table(self.catalog, table)
        if loaded is None:
            raise NotFoundError(
                f"The catalog {self.catalog.name!r} has no table {table}.",
                remedy=f"It has {', '.join(CatalogTables(self.catalog).names) or 'no table'}.",
            )
        return loaded

    @property
    def _journal(self) -> Ledger:
        """The ledger, where what spans many tables is journalled."""
        if isinstance(self.ledger, Ledger):
            return self.ledger
        raise ConfigurationError(
            "What spans many tables is journalled, and this store has no ledger.",
            remedy="Give it one: VersionedDataStore(catalog, ledger=Ledger('sqlite:///ledger.db')).",
        )

    def _resolved(self, table: str, point: Point) -> tuple[Table, ResolvedPoint]:
        loaded = self.load_table(table)
        return loaded, resolve(loaded, point, self.ledger)

    def _read_as(
        self,
        kind: type[_Frame],
        table: str,
        point: Point,
        columns: list[str] | None,
        where: str | BooleanExpression | None,
    ) -> _Frame:
        rows: _Frame = read_as(self.plan(table, point, columns=columns, where=where), kind)
        return rows
