"""A table in Snowflake over the lake's own files: it is shown one metadata file after the other.

No emulator knows these statements, so their SQL alone is tested.
"""

from __future__ import annotations

from dataclasses import dataclass

from dwh_assets.errors import ConfigurationError
from dwh_assets.warehouses.base import Target
from dwh_assets.warehouses.dialect import Dialect
from dwh_assets.warehouses.snowflake.literals import quote_literal


@dataclass(frozen=True)
class ExternalFiles:
    """Where Snowflake finds the lake's files.

    `external_volume` and `catalog_integration` are names in Snowflake; the integration's catalog source is
    OBJECT_STORE and its table format ICEBERG. `base` is the volume's storage location, such as
    `s3://bucket/lake/`.
    """

    external_volume: str
    catalog_integration: str
    base: str

    def path(self, metadata_location: str) -> str:
        """Return a metadata file's path below the volume's location.

        Raises `ConfigurationError` for one that is elsewhere.
        """
        base = self.base.rstrip("/") + "/"
        if not metadata_location.startswith(base):
            raise ConfigurationError(
                f"{metadata_location} is not below {base}, where the external volume "
                f"{self.external_volume} is.",
                remedy="Name the volume that holds the table, with its own location as `base`.",
            )
        return metadata_location.removeprefix(base)


def create_external_sql(
    dialect: Dialect, target: Target, files: ExternalFiles, metadata_location: str
) -> str:
    """Return the statement that makes the table, in place of one that is there."""
    return (
        f"CREATE OR REPLACE ICEBERG TABLE {dialect.qualify(target)}"
        f" EXTERNAL_VOLUME = {quote_literal(files.external_volume)}"
        f" CATALOG = {quote_literal(files.catalog_integration)}"
        f" METADATA_FILE_PATH = {quote_literal(files.path(metadata_location))}"
    )


def refresh_external_sql(
    dialect: Dialect, target: Target, files: ExternalFiles, metadata_location: str
) -> str:
    """Return the statement that shows the table another metadata file: other rows, and columns."""
    path_sql = quote_literal(files.path(metadata_location))
    return f"ALTER ICEBERG TABLE {dialect.qualify(target)} REFRESH {path_sql}"
