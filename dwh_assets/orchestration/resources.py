"""Dagster resources: the Iceberg catalog, and the ledger."""

import dagster as dg
from pydantic import Field, PrivateAttr, ValidationError
from pyiceberg.catalog import Catalog
from pyiceberg.table import Table

from dwh_assets.config import CatalogConfig, ledger_url
from dwh_assets.errors import ConfigurationError
from dwh_assets.iceberg.catalogs.load import load_catalog
from dwh_assets.ledger import Ledger
from dwh_assets.orchestration.declarations import first_mistake


class IcebergCatalogResource(dg.ConfigurableResource[Catalog]):
    """An Iceberg catalog, opened once a process.

    Without any attribute it is the catalog that the environment names (`DWH_CATALOG_TYPE`,
    `DWH_CATALOG_URI`, `DWH_WAREHOUSE`): a SQLite file and a local folder unless told otherwise.
    Secrets go in as `dg.EnvVar` or as `${NAME}` inside a value.
    """

    name: str = Field(default="dwh", description="The catalog's name; a SQL catalog keys its rows by it.")
    kind: str | None = Field(
        default=None, description="sql, rest, glue, hive or hadoop; unset: the environment's."
    )
    uri: str | None = Field(default=None, description="Where the catalog answers.")
    warehouse: str | None = Field(default=None, description="Where tables are kept.")
    properties: dict[str, str] = Field(default_factory=dict, description="Further PyIceberg properties.")

    _catalog: Catalog | None = PrivateAttr(default=None)

    def config(self) -> CatalogConfig:
        """Return the configuration; without a `kind`, what is not given comes from the environment.

        Raises `ConfigurationError` for an unknown kind.
        """
        given = {
            "name": self.name,
            "uri": self.uri,
            "warehouse": self.warehouse,
            "properties": self.properties,
        }
        if self.kind is None:
            known = {name: value for name, value in given.items() if value is not None}
            return CatalogConfig.from_environment().model_copy(update=known)
        try:
            return CatalogConfig.model_validate({**given, "kind": self.kind})
        except ValidationError as error:
            raise ConfigurationError(f"The catalog {self.name!r}: {first_mistake(error)}.") from None

    @property
    def catalog(self) -> Catalog:
        """The open catalog."""
        if self._catalog is None:
            self._catalog = load_catalog(self.config())
        return self._catalog

    def load_table(self, name: str) -> Table:
        """Load `namespace.table`."""
        return self.catalog.load_table(name)


class LedgerResource(dg.ConfigurableResource[Ledger]):
    """The ledger, opened once a process.

    Without a `url` it is where `DWH_LEDGER_URL` says, else a SQLite file beside the local warehouse.
    """

    url: str | None = Field(default=None, description="A URL of SQLAlchemy: SQLite or PostgreSQL.")

    _ledger: Ledger | None = PrivateAttr(default=None)

    @property
    def ledger(self) -> Ledger:
        """The open ledger."""
        if self._ledger is None:
            self._ledger = Ledger(self.url or ledger_url())
        return self._ledger

    def kept(self) -> Ledger | None:
        """Return the ledger for what can do without: None where no address is given, and none is implied."""
        if self.url is None:
            try:
                ledger_url()
            except ConfigurationError:
                return None
        return self.ledger
