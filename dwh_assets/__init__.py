"""Apache Iceberg tables and their warehouse copies, from Python: the public names."""

from dwh_assets.config import CatalogConfig, IcebergWriterConfig
from dwh_assets.iceberg.catalogs import load_catalog
from dwh_assets.iceberg.write import IcebergWriter, WriteResult

__all__ = [
    "CatalogConfig",
    "IcebergWriter",
    "IcebergWriterConfig",
    "WriteResult",
    "load_catalog",
]
