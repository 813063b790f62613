"""An Iceberg table that is put back as it was prepared, in any catalog: its metadata file says it all."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog

NAMESPACE = "bench"
TABLE = f"{NAMESPACE}.subject"
# Small and upserted into before the measurement: what a process does once is not what is compared.
WARM_UP = f"{NAMESPACE}.warm_up"
WARM_UP_ROWS = 1_000


def catalog_properties(folder: Path) -> dict[str, str]:
    """A SQLite catalog and local files in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    return {"uri": f"sqlite:///{folder / 'catalog.db'}", "warehouse": (folder / "lake").as_uri()}


def remember(catalog: Catalog, folder: Path) -> None:
    """Keep where the prepared table's metadata lie."""
    (folder / "prepared").write_text(catalog.load_table(TABLE).metadata_location)


def restore(catalog: Catalog, folder: Path) -> None:
    """Register the prepared table again; what later runs added stays behind as unused files."""
    prepared = (folder / "prepared").read_text()
    catalog.drop_table(TABLE)
    catalog.register_table(TABLE, prepared)


def drop_if_there(catalog: Catalog) -> None:
    """Make room for a new table."""
    if catalog.table_exists(TABLE):
        catalog.drop_table(TABLE)
