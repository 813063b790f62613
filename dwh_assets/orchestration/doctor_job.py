"""`make doctor` and the Dagster job `doctor`: check everything that the configuration names."""

import sys
from collections.abc import Iterator, Mapping
from functools import partial

import dagster as dg
from dagster_duckdb import DuckDBResource
from pyiceberg.catalog import Catalog
from rich.console import Console

from dwh_assets.config import IcebergWriterConfig
from dwh_assets.iceberg.doctor.check import STATUSES, Check, attempt
from dwh_assets.iceberg.doctor.examination import examine_catalog, examine_declaration
from dwh_assets.iceberg.doctor.report import show
from dwh_assets.orchestration.declarations import table_name, writer_config
from dwh_assets.orchestration.resources import IcebergCatalogResource
from dwh_assets.warehouses.duckdb.warehouse import DuckDBWarehouse
from dwh_assets.warehouses.environment import Warehouse, named_warehouses

_WAIT_SECONDS = 2.0
_NAMED = "Check the variables that name it and its login, see .env.example."


def run_checks(
    iceberg: IcebergCatalogResource, duckdb: DuckDBResource, tables: Mapping[str, IcebergWriterConfig]
) -> Iterator[Check]:
    """Check the catalog and its store, the warehouses, and each declared table."""
    namespace = next((tuple(name.split(".")[:-1]) for name in tables), None)
    of_catalog = examine_catalog(
        lambda: iceberg.catalog, lambda: iceberg.config().resolved_properties(), namespace
    )
    yield from of_catalog
    yield attempt(
        "duckdb_file",
        lambda: _open_duckdb(duckdb),
        "Close the program that holds it, or set DWH_DUCKDB_PATH.",
    )
    for kind, warehouse in named_warehouses(_WAIT_SECONDS).items():
        if kind != "duckdb":
            yield attempt(f"{kind}_answers", partial(_ask, warehouse), _NAMED)
    if of_catalog[0].status == "ok":
        for name, config in tables.items():
            yield _of_table(name, config, iceberg.catalog)


def _ask(warehouse: Warehouse) -> str:
    return f"It answers, and holds {len(warehouse.replicas())} replicas."


def _open_duckdb(duckdb: DuckDBResource) -> str:
    with DuckDBWarehouse(duckdb.database, wait_seconds=_WAIT_SECONDS).connect() as connection:
        version = (connection.execute("SELECT version()").fetchone() or ("?",))[0]
    return f"{duckdb.database} opens; DuckDB {version}."


def _of_table(name: str, config: IcebergWriterConfig, catalog: Catalog) -> Check:
    """Return the worst that was found about a table; where all is well, what it holds."""

    def by_weight(check: Check) -> tuple[int, bool]:
        return STATUSES.index(check.status), check.name != "table_exists"

    found = min(examine_declaration(config, catalog), key=by_weight)
    return Check(f"table {name}", found.status, found.detail, found.remedy)


def declared_tables(definitions: dg.Definitions) -> dict[str, IcebergWriterConfig]:
    """Return how the Iceberg tables that the definitions declare are written, by name."""
    assets = [one for one in definitions.assets or [] if isinstance(one, dg.AssetsDefinition)]
    specs = {spec.key: spec.metadata for one in assets for spec in one.specs}
    named = {table_name(key, metadata): metadata for key, metadata in specs.items() if _is_iceberg(key)}
    return {name: writer_config(name, named[name]) for name in sorted(named)}


def _is_iceberg(key: dg.AssetKey) -> bool:
    return key.path[0] == "iceberg"


def doctor_job(tables: Mapping[str, IcebergWriterConfig]) -> dg.JobDefinition:
    """Return the job `doctor`, which checks what the configuration names, and these tables."""

    @dg.op(required_resource_keys={"iceberg", "duckdb"})
    def examine(context: dg.OpExecutionContext) -> None:
        """Check catalog, warehouse, DuckDB file and tables; fail when one of them does not work."""
        checks = list(run_checks(context.resources.iceberg, context.resources.duckdb, tables))
        for check in checks:
            context.log.info(str(check))
        failed = [str(check) for check in checks if check.status == "failed"]
        if failed:
            raise dg.Failure("; ".join(failed), allow_retries=False)

    @dg.job(
        name="doctor", description="Check what the configuration names; say what is wrong and what to do."
    )
    def doctor() -> None:
        examine()

    return doctor


def main() -> int:
    """Check the shipped lakehouse; return 1 when something failed."""
    from dwh_assets.config import load_dotenv
    from dwh_assets.definitions import defs

    load_dotenv()
    definitions = defs()
    resources = definitions.resources or {}
    checks = list(run_checks(resources["iceberg"], resources["duckdb"], declared_tables(definitions)))
    show(checks, Console())
    return 1 if any(check.status == "failed" for check in checks) else 0


if __name__ == "__main__":
    sys.exit(main())
