"""The examination: which checks there are, in which order, and what each of them does.

A check whose precondition failed is skipped, so that one cause is told once. None of them raises, and
none changes the declared table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, TypeVar

from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import ForbiddenError
from pyiceberg.table import Table, TableProperties
from pyiceberg.table.snapshots import Snapshot

from dwh_assets.config import IcebergWriterConfig
from dwh_assets.errors import UnavailableError
from dwh_assets.iceberg.declaration import find_table
from dwh_assets.iceberg.doctor import clock, credentials
from dwh_assets.iceberg.doctor.check import Check, Finding, Unchecked, attempt
from dwh_assets.iceberg.doctor.fit import fit, schema_of
from dwh_assets.iceberg.doctor.probes import (
    commit_nothing,
    commit_snapshot,
    keeps_tag,
    probe_object,
    probe_table,
)
from dwh_assets.iceberg.doctor.redaction import without_secrets
from dwh_assets.iceberg.faults import first_line, is_silence

T = TypeVar("T")

# In the order in which they are made, with what to do where an error does not say it itself.
REMEDIES = {
    "catalog_connection": "Check the catalog's uri and credentials, and that it is running and reachable.",
    "namespace_exists": "Check the namespace's name, and that this user may see it.",
    "table_exists": "Check the table's metadata files and the store's credentials.",
    "schema_compatible": "Correct the declaration, or the table's columns.",
    "permissions": "Allow this user to create, change and drop tables, and to write, read and delete files "
    "under the warehouse.",
    "refs_kept": "Use a catalog that keeps tags and branches; with this one, name versions by snapshot id.",
    "clock": "Check that the catalog and the store answer.",
    "credentials_expiry": "Check the catalog's properties.",
}
CHECKS = tuple(REMEDIES)

_Action = Callable[[], "str | Finding"]


def examine_table(
    config: IcebergWriterConfig,
    open_catalog: Callable[[], Catalog],
    data: Any = None,
    *,
    probe: bool = True,
) -> list[Check]:
    """Make all of `CHECKS` for a declared table.

    `data` (rows, or a `pyarrow.Schema`) are compared with the table's columns; nothing of them is written.
    Without `probe` nothing is written at all, and what only writing can prove is skipped.
    """
    namespace = tuple(config.table.split(".")[:-1])
    examination = _Examination(open_catalog, _declared_by(config), namespace, probe=probe)
    return examination.run({**examination.of_catalog(), **examination.of_table(config, data)})


def examine_catalog(
    open_catalog: Callable[[], Catalog],
    declared: Callable[[], Mapping[str, Any]],
    namespace: tuple[str, ...] | None = None,
) -> list[Check]:
    """Make the checks of `CHECKS` that need no table.

    `declared` are the properties that the catalog is opened with. The probe table lies in `namespace` where
    that is there, else in a namespace of its own.
    """
    examination = _Examination(open_catalog, declared, namespace)
    return examination.run(examination.of_catalog())


def examine_declaration(config: IcebergWriterConfig, catalog: Catalog) -> list[Check]:
    """Make the checks of `CHECKS` that are about one table alone; nothing is written."""
    namespace = tuple(config.table.split(".")[:-1])
    examination = _Examination(lambda: catalog, lambda: catalog.properties, namespace, catalog, probe=False)
    return examination.run(examination.of_table(config, None))


def _declared_by(config: IcebergWriterConfig) -> Callable[[], Mapping[str, Any]]:
    return lambda: config.resolved_catalog().resolved_properties()


class _Examination:
    """One examination; what a check finds is kept for those that follow."""

    def __init__(
        self,
        open_catalog: Callable[[], Catalog],
        declared: Callable[[], Mapping[str, Any]],
        namespace: tuple[str, ...] | None,
        catalog: Catalog | None = None,
        *,
        probe: bool = True,
    ) -> None:
        self._open = open_catalog
        self._declared = declared
        self._namespace = namespace
        self._probe = probe
        self._catalog = catalog
        self._table: Table | None = None
        self._refs: Check | None = None
        self._store_skew: float | None = None

    def of_catalog(self) -> dict[str, _Action]:
        """Return the checks of the catalog and its store, by name."""
        return {
            "catalog_connection": self._catalog_connection,
            "permissions": self._permissions,
            "refs_kept": self._refs_kept,
            "clock": self._clock,
            "credentials_expiry": self._credentials_expiry,
        }

    def of_table(self, config: IcebergWriterConfig, data: Any) -> dict[str, _Action]:
        """Return the checks of a declared table, by name."""
        return {
            "namespace_exists": self._namespace_exists,
            "table_exists": lambda: self._table_exists(config.table),
            "schema_compatible": lambda: self._schema_compatible(config, data),
        }

    def run(self, actions: Mapping[str, _Action]) -> list[Check]:
        """Make the checks in the order of `CHECKS`."""
        return [
            self._without_secrets(attempt(name, actions[name], remedy))
            for name, remedy in REMEDIES.items()
            if name in actions
        ]

    # --- What each check does ---

    def _catalog_connection(self) -> str:
        catalog = self._open()
        try:
            found = counted(len(_answered(catalog, catalog.list_namespaces)), "namespace")
        except ForbiddenError:
            found = "namespaces that this user may not list"
        self._catalog = catalog
        return f"Catalog {catalog.name!r} answers; it has {found}."

    def _namespace_exists(self) -> str | Finding:
        name = ".".join(self._namespace or ())
        if self._existing_namespace() is not None:
            return f"Namespace {name} is there."
        return Finding(
            "warning",
            f"There is no namespace {name}.",
            "Write the table, which makes it; or correct its name.",
        )

    def _table_exists(self, name: str) -> str | Finding:
        table = self._table = find_table(self._connected(), name)
        if table is None:
            return Finding("warning", f"{name} is declared, but not written yet.", "Write or materialize it.")
        snapshot = table.current_snapshot()
        if snapshot is None:
            return Finding("warning", f"{name} is there, but has no snapshot.", "Write or materialize it.")
        snapshot.manifests(table.io)
        return f"{name} has {_rows(snapshot)}."

    def _schema_compatible(self, config: IcebergWriterConfig, data: Any) -> str | Finding:
        self._connected()
        return fit(self._table, config, None if data is None else schema_of(data))

    def _permissions(self) -> str:
        catalog = self._writable()
        with probe_table(catalog, self._existing_namespace()) as probe:
            self._store_skew = probe_object(probe.io, probe.location())
            committed = commit_snapshot(catalog, probe)
            self._refs = attempt("refs_kept", lambda: _keeps_tag(catalog, committed), REMEDIES["refs_kept"])
        done = "A probe table was made, committed to and dropped, a file written, read and deleted"
        if self._table is None:
            return f"{done}."
        for folder in sorted(_folders(self._table)):
            probe_object(self._table.io, folder)
        commit_nothing(catalog, self._table)
        return f"{done}; the same holds for the files of the table, which takes commits."

    def _refs_kept(self) -> str | Finding:
        self._writable()
        if self._refs is None:
            raise Unchecked("There is no probe table: see permissions.")
        return Finding(self._refs.status, self._refs.detail, self._refs.remedy)

    def _clock(self) -> str | Finding:
        catalog_skew = clock.catalog_skew(self._connected())
        skews = {"the store": self._store_skew, "the catalog": catalog_skew}
        changed = self._table.metadata.last_updated_ms / 1000 if self._table else None
        return clock.judged({whose: skew for whose, skew in skews.items() if skew is not None}, changed)

    def _credentials_expiry(self) -> str | Finding:
        return credentials.expiry(self._catalog.properties if self._catalog else self._declared())

    # --- What they share ---

    def _connected(self) -> Catalog:
        if self._catalog is None:
            raise Unchecked("The catalog does not answer: see catalog_connection.")
        return self._catalog

    def _writable(self) -> Catalog:
        if not self._probe:
            raise Unchecked("Not asked for: it would write, and remove, a probe.")
        return self._connected()

    def _existing_namespace(self) -> tuple[str, ...] | None:
        catalog, namespace = self._connected(), self._namespace
        there = namespace and _answered(catalog, lambda: catalog.namespace_exists(namespace))
        return namespace if there else None

    def _without_secrets(self, check: Check) -> Check:
        """Hide what must not be shown; the properties that tables are handed with are no less secret."""
        secrets: dict[str, Any] = {}
        with suppress(Exception):  # what cannot be resolved is not known here either, nor told
            secrets.update(self._declared())
        for known in (self._catalog, self._table.io if self._table else None):
            secrets.update(known.properties if known else {})
        shown = (without_secrets(text, secrets) for text in (check.detail, check.remedy))
        return Check(check.name, check.status, *shown)


def counted(number: int, thing: str) -> str:
    """Write a number of things: 1 namespace, 2 namespaces."""
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"


def _rows(snapshot: Snapshot) -> str:
    summary = snapshot.summary.additional_properties if snapshot.summary else {}
    if "total-records" not in summary:
        return f"snapshot {snapshot.snapshot_id}, which does not say of how many rows"
    rows = int(summary["total-records"]) - int(summary.get("total-position-deletes", "0"))
    return f"{counted(rows, 'row')} at snapshot {snapshot.snapshot_id}"


def _keeps_tag(catalog: Catalog, probe: Table) -> str | Finding:
    if keeps_tag(catalog, probe):
        return "A tag was there after the table was loaded anew."
    return Finding(
        "failed",
        "A tag was taken without an error, and is lost: it is not there after a reload.",
        REMEDIES["refs_kept"],
    )


def _folders(table: Table) -> set[str]:
    """Return where files of the table are written."""
    own = (TableProperties.WRITE_DATA_PATH, TableProperties.WRITE_METADATA_PATH)
    return {table.properties.get(path) or table.location() for path in own}


def _answered(catalog: Catalog, ask: Callable[[], T]) -> T:
    """Ask the catalog; raise `UnavailableError` when it does not answer."""
    try:
        return ask()
    except Exception as error:
        if not is_silence(error):
            raise
        raise UnavailableError(
            f"Catalog {catalog.name!r} does not answer: {first_line(error)}.",
            remedy="Check its uri, and that it is running and reachable.",
        ) from None
