"""Dagster components: what turns a `defs.yaml` into assets, checks and jobs."""

from dwh_assets.components.iceberg_table import IcebergTable

__all__ = ["IcebergTable"]
