"""What every command has: the catalog that is meant, opened when it is first asked for, and the output."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from dwh_assets.cli.failures import told
from dwh_assets.cli.output import Output
from dwh_assets.errors import DwhError, NotFoundError

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog

    from dwh_assets.config import CatalogConfig
    from dwh_assets.ledger import Ledger
    from dwh_assets.versioning.replicas import Replica
    from dwh_assets.versioning.store import VersionedDataStore
    from dwh_assets.warehouses.replica import Replica as WarehouseReplica


_WAIT_SECONDS = 5.0  # for a DuckDB file that somebody else holds: a person is waiting


class Session:
    """One run of a command: on which catalog, and how its outcome is shown."""

    def __init__(
        self,
        catalog: Annotated[
            str | None,
            typer.Option(
                help="In place of DWH_CATALOG_TYPE: sql, rest, glue, hive, hadoop, "
                "or a name of .pyiceberg.yaml."
            ),
        ] = None,
        catalog_uri: Annotated[str | None, typer.Option(help="In place of DWH_CATALOG_URI.")] = None,
        warehouse: Annotated[str | None, typer.Option(help="In place of DWH_WAREHOUSE.")] = None,
        as_json: Annotated[bool, typer.Option("--json", help="Print JSON, errors too.")] = False,
    ) -> None:
        self._named, self._uri, self._warehouse = catalog, catalog_uri, warehouse
        self.output = Output(as_json)

    @cached_property
    def config(self) -> CatalogConfig | str:
        """The catalog's configuration, or its name in PyIceberg's own."""
        from dwh_assets.config import CatalogConfig, CatalogKind

        if self._named is None or self._named in get_args(CatalogKind):
            return CatalogConfig.from_environment(kind=self._named, uri=self._uri, warehouse=self._warehouse)
        if self._uri or self._warehouse:
            raise typer.BadParameter(
                f"{self._named!r} is none of {', '.join(get_args(CatalogKind))}, so it is a name of "
                ".pyiceberg.yaml, where its uri and warehouse stand."
            )
        return self._named

    def declared(self) -> CatalogConfig:
        """Return the catalog's configuration; of one that PyIceberg knows by name, what it opens it with."""
        from dwh_assets.config import CatalogConfig, catalog_from_properties

        if not isinstance(self.config, str):
            return self.config
        try:
            properties = self.catalog.properties
        except DwhError:  # whoever asks opens it, too, and tells that
            return CatalogConfig(name=self.config)
        return catalog_from_properties("sql", {"name": self.config, **properties})

    @cached_property
    def catalog(self) -> Catalog:
        """The open catalog. Raises what `load_catalog` raises; `NotFoundError` where there is no database."""
        from dwh_assets.iceberg.catalogs.load import load_catalog

        if not isinstance(self.config, str):
            _require_database(self.config)
        return load_catalog(self.config)

    @cached_property
    def ledger(self) -> Ledger:
        """The ledger at DWH_LEDGER_URL, else beside the warehouse; made where there is none yet."""
        from dwh_assets.config import ledger_url
        from dwh_assets.ledger import Ledger

        return Ledger(ledger_url(self.declared().warehouse))

    def kept_ledger(self) -> Ledger | None:
        """Return the ledger for what only reads: None where nobody has made one."""
        from dwh_assets.config import ledger_url
        from dwh_assets.errors import ConfigurationError

        try:
            url = ledger_url(self.declared().warehouse)
        except ConfigurationError:  # a warehouse that is not local, and no variable that names a ledger
            return None
        return self.ledger if _is_there(url) else None

    @property
    def replicas(self) -> dict[str, Replica]:
        """The copies of this catalog's tables, by name.

        Raises what a warehouse says that cannot be asked: `UnavailableError` for a DuckDB file that somebody
        else holds.
        """
        found, problems = self.look_for_replicas()
        for problem in problems.values():
            raise problem
        return dict(found)

    def look_for_replicas(self) -> tuple[dict[str, WarehouseReplica], dict[str, DwhError]]:
        """Return the copies, and the warehouses of those that the environment names that do not answer."""
        from dwh_assets.warehouses.environment import named_warehouses

        found: dict[str, WarehouseReplica] = {}
        problems: dict[str, DwhError] = {}
        _ = self.catalog  # what is wrong with it is no warehouse's fault
        for kind, warehouse in named_warehouses(_WAIT_SECONDS).items():
            try:
                for replica in filter(self._is_of_catalog, warehouse.replicas()):
                    name = f"{kind}/{replica.table.replace('.', '/')}"  # the asset's, where Dagster made it
                    found[name if name not in found else f"{kind}/{replica.into}"] = replica
            except DwhError as problem:
                problems[kind] = problem
        return found, problems

    def _is_of_catalog(self, replica: WarehouseReplica) -> bool:
        from dwh_assets.iceberg.declaration import find_table

        table, state = find_table(self.catalog, replica.table), replica.state()
        return bool(table and state and str(table.metadata.table_uuid) == state.table_uuid)

    @cached_property
    def store(self) -> VersionedDataStore:
        """The catalog's tables as versions."""
        from dwh_assets.versioning.store import VersionedDataStore

        return VersionedDataStore(self.catalog, self.kept_ledger())

    def secrets(self) -> Mapping[str, Any]:
        """Return what is not shown: the catalog's properties as far as they are known, and passwords."""
        from dwh_assets.warehouses.environment import secrets

        known: dict[str, Any] = secrets()
        with suppress(DwhError):
            known.update({} if isinstance(self.config, str) else self.config.resolved_properties())
        if "catalog" in self.__dict__:
            known.update(self.catalog.properties)
        return known


def command(
    app: typer.Typer, name: str | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a command of a function of a `Session` and of what it asks for itself."""

    def register(function: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(function, eval_str=True)
        shared = inspect.signature(Session, eval_str=True).parameters
        _, *own = signature.parameters.values()

        def run(**given: Any) -> None:
            session = Session(**{name: given.pop(name) for name in shared})
            with told(session.output.as_json, given.get("table") or "the catalog", session.secrets):
                function(session, **given)

        parameters = [*own, *shared.values()]
        run.__doc__ = function.__doc__
        run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {one.name: one.annotation for one in parameters}
        app.command(name or function.__name__)(run)
        return function

    return register


def _require_database(config: CatalogConfig) -> None:
    """Refuse a SQLite file that is not there: opening would make it, and a wrong folder an empty catalog."""
    from sqlalchemy.engine import make_url

    uri = config.resolved_properties().get("uri", "")
    if config.kind != "sql" or _is_there(uri):
        return
    raise NotFoundError(
        f"There is no catalog at {make_url(uri).database}.",
        remedy="Go to the project's folder, or name the catalog with --catalog-uri, --warehouse or in .env.",
    )


def _is_there(uri: str) -> bool:
    """Tell whether a database is there to be opened, as far as a path tells: of SQLite's files."""
    from sqlalchemy.engine import make_url

    if not uri.startswith("sqlite:///"):
        return True
    database = make_url(uri).database or ":memory:"
    return database.startswith((":memory:", "file:")) or Path(database).exists()
