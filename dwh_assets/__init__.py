"""Apache Iceberg tables and their warehouse copies, from Python: the public names.

Each is loaded when it is first asked for: `dwh --help` needs none of them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dwh_assets.config import CatalogConfig, IcebergWriterConfig
    from dwh_assets.iceberg.catalogs.load import load_catalog
    from dwh_assets.iceberg.diff.version_diff import VersionDiff
    from dwh_assets.iceberg.results import WriteResult
    from dwh_assets.iceberg.write import IcebergWriter
    from dwh_assets.versioning.store import VersionedDataStore
    from dwh_assets.warehouses.base import SyncResult
    from dwh_assets.warehouses.bigquery.warehouse import BigQueryWarehouse
    from dwh_assets.warehouses.duckdb.warehouse import DuckDBWarehouse
    from dwh_assets.warehouses.motherduck import MotherDuckWarehouse
    from dwh_assets.warehouses.options import ReplicaOptions
    from dwh_assets.warehouses.parity_report import ParityReport
    from dwh_assets.warehouses.snowflake.warehouse import SnowflakeWarehouse

__all__ = [
    "BigQueryWarehouse",
    "CatalogConfig",
    "DuckDBWarehouse",
    "IcebergWriter",
    "IcebergWriterConfig",
    "MotherDuckWarehouse",
    "ParityReport",
    "ReplicaOptions",
    "SnowflakeWarehouse",
    "SyncResult",
    "VersionDiff",
    "VersionedDataStore",
    "WriteResult",
    "load_catalog",
]

_MODULES = {
    "BigQueryWarehouse": "warehouses.bigquery.warehouse",
    "CatalogConfig": "config",
    "DuckDBWarehouse": "warehouses.duckdb.warehouse",
    "IcebergWriter": "iceberg.write",
    "IcebergWriterConfig": "config",
    "MotherDuckWarehouse": "warehouses.motherduck",
    "ParityReport": "warehouses.parity_report",
    "ReplicaOptions": "warehouses.options",
    "SnowflakeWarehouse": "warehouses.snowflake.warehouse",
    "SyncResult": "warehouses.base",
    "VersionDiff": "iceberg.diff.version_diff",
    "VersionedDataStore": "versioning.store",
    "WriteResult": "iceberg.results",
    "load_catalog": "iceberg.catalogs.load",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
