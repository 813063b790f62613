"""The tables of a catalog, seen together: each is loaded once, so that all are judged by one state of it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

from pyiceberg.catalog import Catalog

from dwh_assets.errors import DamagedError, DwhError, NotFoundError
from dwh_assets.iceberg.declaration import find_table
from dwh_assets.versioning.provenance import History


class CatalogTables:
    """The histories of a catalog's tables, loaded when they are asked for."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self._loaded: dict[str, History | None] = {}
        self.unreadable: dict[str, DwhError] = {}

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Every table's `namespace.table`, in order."""
        return tuple(sorted(set(_tables_below(self.catalog, ()))))

    def find(self, name: str) -> History | None:
        """Return the table's history; None where there is no such table."""
        if name not in self._loaded:
            table = find_table(self.catalog, name)
            self._loaded[name] = History(table) if table else None
        return self._loaded[name]

    def require(self, name: str) -> History:
        """Return the table's history; `NotFoundError` where there is no such table."""
        found = self.find(name)
        if found is None:
            raise NotFoundError(
                f"There is no table {name} in the catalog {self.catalog.name!r}.",
                remedy=f"It has {', '.join(self.names) or 'no table'}.",
            )
        return found

    def all(self) -> Iterator[History]:
        """Yield every table's history; what cannot be read is left out, and noted in `unreadable`."""
        for name in self.names:
            try:
                found = self.find(name)
            except (NotFoundError, DamagedError) as error:
                self.unreadable[name] = error
                found = self._loaded[name] = None
            if found is not None:
                yield found

    def require_version(self, name: str, snapshot_id: int | None) -> tuple[History, int]:
        """Return a table's history and a snapshot of it that is kept; None means what `main` shows now.

        Raises `NotFoundError` when the table or the snapshot is not there.
        """
        history = self.require(name)
        wanted = history.head if snapshot_id is None else snapshot_id
        if wanted is None or wanted not in history.kept:
            what = "any snapshot yet" if wanted is None else f"snapshot {wanted} (any more)"
            raise NotFoundError(f"{name} has not {what}.", remedy="See the table's history.")
        return history, wanted


def _tables_below(catalog: Catalog, namespace: tuple[str, ...]) -> Iterator[str]:
    if namespace:
        yield from (".".join(identifier) for identifier in catalog.list_tables(namespace))
    for inner in catalog.list_namespaces(namespace):
        if len(inner) > len(namespace):
            yield from _tables_below(catalog, tuple(inner))
