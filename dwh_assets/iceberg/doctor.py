"""Check a catalog and its warehouse: what works, what does not, and what to do about it."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from pyiceberg.catalog import Catalog
from pyiceberg.io import load_file_io

from dwh_assets.config import CatalogConfig
from dwh_assets.errors import DwhError
from dwh_assets.iceberg.catalogs.load import load_catalog

Status = Literal["ok", "warning", "failed"]


@dataclass(frozen=True)
class Check:
    """One thing that was checked. `remedy` says what to do where it is not ok."""

    name: str
    status: Status
    detail: str
    remedy: str = ""


def check_catalog(config: CatalogConfig) -> Iterator[Check]:
    """Check that the catalog answers and that the warehouse can be written, read and deleted from."""
    yield attempt("catalog_connection", lambda: _connect(config), f"Check the {config.kind} catalog's uri.")
    if config.warehouse:
        yield attempt(
            "warehouse_permissions",
            lambda: _probe_storage(config),
            "Check the warehouse's path and credentials.",
        )


def check_table(catalog: Catalog, table: str) -> Check:
    """Check that a declared table is there and can be read at its current version."""
    return attempt(
        f"table {table}", lambda: _describe_table(catalog, table), "Check the table's metadata and storage."
    )


def attempt(name: str, action: Callable[[], str | Check], remedy: str) -> Check:
    """Run one check; an exception becomes its detail, without the lines that may hold credentials."""
    try:
        outcome = action()
    except DwhError as error:
        return Check(name, "failed", error.message, error.remedy or remedy)
    except Exception as error:
        first_line = (str(error).splitlines() or [""])[0]
        return Check(name, "failed", f"{type(error).__name__}: {first_line}", remedy)
    return outcome if isinstance(outcome, Check) else Check(name, "ok", outcome)


def _connect(config: CatalogConfig) -> str:
    namespaces = load_catalog(config).list_namespaces()
    return f"{config.kind} catalog {config.name!r} answers; {len(namespaces)} namespaces."


def _probe_storage(config: CatalogConfig) -> str:
    """Write, read back and delete a small object of our own."""
    properties = config.resolved_properties()
    location = f"{properties['warehouse'].rstrip('/')}/.dwh-doctor-{uuid.uuid4()}"
    io = load_file_io(properties, location)
    content = location.encode()
    with io.new_output(location).create() as stream:
        stream.write(content)
    try:
        with io.new_input(location).open() as stream:
            if stream.read() != content:
                raise OSError("what was written was not read back")
    finally:
        io.delete(location)
    return f"{properties['warehouse']} can be written, read and deleted from."


def _describe_table(catalog: Catalog, table: str) -> str | Check:
    if not catalog.table_exists(table):
        return Check(f"table {table}", "warning", "Declared, but not written yet.", "Materialize it.")
    loaded = catalog.load_table(table)
    snapshot = loaded.current_snapshot()
    if snapshot is None:
        return Check(f"table {table}", "warning", "Is there, but has no snapshot.", "Materialize it.")
    snapshot.manifests(loaded.io)
    summary = snapshot.summary.additional_properties if snapshot.summary else {}
    if "total-records" not in summary:
        return f"Snapshot {snapshot.snapshot_id}; it does not say of how many rows."
    rows = int(summary["total-records"]) - int(summary.get("total-position-deletes", "0"))
    return f"{rows} rows at snapshot {snapshot.snapshot_id}."
