"""Open a catalog from its configuration, ready for several processes at once."""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, get_args

from pyiceberg.catalog import Catalog
from pyiceberg.catalog import load_catalog as load_pyiceberg_catalog
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from dwh_assets.config import CatalogConfig, CatalogKind, catalog_from_properties
from dwh_assets.errors import ConfigurationError, DwhError, UnavailableError
from dwh_assets.iceberg.faults import first_line, is_silence

_SQLITE_BUSY_SECONDS = 60
_FIRST_OPENS = 10
_POSTGRES_DRIVER = "postgresql+psycopg2"


def load_catalog(catalog: CatalogConfig | Mapping[str, Any] | str) -> Catalog:
    """Open a catalog.

    `catalog` is a `CatalogConfig`, a mapping of PyIceberg properties with the kind under `kind` or
    `type`, or a name that PyIceberg's own configuration (`.pyiceberg.yaml`) knows.

    Raises `ConfigurationError` for a wrong configuration and `UnavailableError` when it does not answer.
    """
    if isinstance(catalog, str):
        return _guarded(f"Catalog {catalog!r}", lambda: load_pyiceberg_catalog(catalog))
    config = catalog if isinstance(catalog, CatalogConfig) else _from_mapping(catalog)
    return _guarded(f"Catalog {config.name!r} ({config.kind})", lambda: _open(config))


def _guarded(name: str, open_catalog: Callable[[], Catalog]) -> Catalog:
    """Open a catalog; tell one that does not answer from one that is declared wrongly."""
    try:
        return open_catalog()
    except DwhError:
        raise
    except Exception as error:
        if isinstance(error, OSError) or is_silence(error):
            raise UnavailableError(
                f"{name} does not answer: {first_line(error)}.",
                remedy="Check its uri, and that it is running and reachable.",
            ) from None
        raise ConfigurationError(
            f"{name} cannot be opened: {type(error).__name__}: {first_line(error)}.",
            remedy="Check its kind, uri, credentials and properties, and that its extra is installed.",
        ) from None


def ensure_namespace(catalog: Catalog, namespace: tuple[str, ...]) -> None:
    """Create the namespace, and those above it, where missing."""
    for depth in range(1, len(namespace) + 1):
        if not catalog.namespace_exists(namespace[:depth]):
            try:
                catalog.create_namespace(namespace[:depth])
            except Exception:
                # Another writer may have been first, which catalogs report in many ways (a REST catalog
                # whose database refuses the second row answers 500): what counts is that it is there.
                if not catalog.namespace_exists(namespace[:depth]):
                    raise


def _from_mapping(properties: Mapping[str, Any]) -> CatalogConfig:
    rest = dict(properties)
    kind = rest.pop("kind", None) or rest.pop("type", None)
    if kind not in get_args(CatalogKind):
        raise ConfigurationError(
            f"The catalog's kind is {kind!r}." if kind else "The catalog's kind is missing.",
            remedy="Give kind: sql, rest, glue, hive or hadoop.",
        )
    return catalog_from_properties(kind, rest)


def _open(config: CatalogConfig) -> Catalog:
    properties = config.resolved_properties()
    if config.kind == "hadoop":
        from dwh_assets.iceberg.catalogs.hadoop import HadoopCatalog

        return HadoopCatalog(config.name, **properties)
    if config.kind == "sql":
        properties["uri"] = _prepare_database(properties.get("uri", ""))
        return _first_open(config, properties)
    return load_pyiceberg_catalog(config.name, type=config.kind, **properties)


def _first_open(config: CatalogConfig, properties: dict[str, str]) -> Catalog:
    """Open a SQL catalog; several processes may each find a table missing, and one of them makes it."""
    for _ in range(_FIRST_OPENS):
        try:
            return load_pyiceberg_catalog(config.name, type="sql", **properties)
        except DBAPIError as error:
            if not any(told in str(error) for told in ("already exists", "duplicate key")):
                raise
    return load_pyiceberg_catalog(config.name, type="sql", **properties)


def _prepare_database(uri: str) -> str:
    """Return the URI as SQLAlchemy is to open it, and make a SQLite file fit for several writers.

    A PostgreSQL URI without a driver gets the one that the extra `postgres` installs: SQLAlchemy 2.1 would
    take another than 2.0. SQLite gets a write-ahead log, and a wait for a busy lock.
    """
    if not uri:
        raise ConfigurationError(
            "A sql catalog needs a uri.", remedy="For example sqlite:///lakehouse/catalog.db."
        )
    url = make_url(uri)
    if url.drivername in ("postgresql", "postgres"):
        return url.set(drivername=_POSTGRES_DRIVER).render_as_string(hide_password=False)
    if url.get_backend_name() != "sqlite" or not url.database or url.database == ":memory:":
        return uri
    _enable_write_ahead_log(url.database)
    return url.update_query_dict({"timeout": str(_SQLITE_BUSY_SECONDS)}).render_as_string(hide_password=False)


def _enable_write_ahead_log(database: str) -> None:
    """Switch the file over, once for ever. SQLite does not wait for others here, so this does."""
    Path(database).parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + _SQLITE_BUSY_SECONDS
    with closing(sqlite3.connect(database, timeout=_SQLITE_BUSY_SECONDS)) as connection:
        while True:
            try:
                connection.execute("PRAGMA journal_mode=WAL")
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(random.uniform(0.01, 0.05))
