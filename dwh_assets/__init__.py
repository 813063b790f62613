"""Apache Iceberg tables and their warehouse copies, from Python: the public names."""

from dwh_assets.config import CatalogConfig, IcebergWriterConfig
from dwh_assets.iceberg.catalogs.load import load_catalog
from dwh_assets.iceberg.results import WriteResult
from dwh_assets.iceberg.write import IcebergWriter
from dwh_assets.versioning.store import VersionedDataStore
from dwh_assets.warehouses.base import SyncResult
from dwh_assets.warehouses.duckdb import DuckDBWarehouse

__all__ = [
    "CatalogConfig",
    "DuckDBWarehouse",
    "IcebergWriter",
    "IcebergWriterConfig",
    "SyncResult",
    "VersionedDataStore",
    "WriteResult",
    "load_catalog",
]
