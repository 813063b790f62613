"""`make doctor` and the Dagster job `doctor`: check everything that the configuration names."""

import sys
from collections.abc import Iterator

import dagster as dg
from dagster_duckdb import DuckDBResource
from rich.console import Console
from rich.table import Table as RichTable

from dwh_assets.iceberg.doctor import Check, attempt, check_catalog, check_table
from dwh_assets.orchestration.resources import IcebergCatalogResource
from dwh_assets.warehouses.duckdb import DuckDBWarehouse

_COLOURS = {"ok": "green", "warning": "yellow", "failed": "red"}


def run_checks(iceberg: IcebergCatalogResource, duckdb: DuckDBResource, tables: list[str]) -> Iterator[Check]:
    """Check the catalog, the warehouse, the DuckDB file and each declared table."""
    reached = list(check_catalog(iceberg.config()))
    yield from reached
    yield attempt(
        "duckdb_file",
        lambda: _open_duckdb(duckdb),
        "Close the program that holds it, or set DWH_DUCKDB_PATH.",
    )
    if reached[0].status == "ok":
        for table in tables:
            yield check_table(iceberg.catalog, table)


def _open_duckdb(duckdb: DuckDBResource) -> str:
    with DuckDBWarehouse(duckdb.database, wait_seconds=2).connect() as connection:
        version = (connection.execute("SELECT version()").fetchone() or ("?",))[0]
    return f"{duckdb.database} opens; DuckDB {version}."


def declared_tables(definitions: dg.Definitions) -> list[str]:
    """Return the names of the Iceberg tables that the definitions declare."""
    specs = definitions.resolve_all_asset_specs()
    return sorted(str(spec.metadata["table"]) for spec in specs if spec.key.path[0] == "iceberg")


@dg.op(required_resource_keys={"iceberg", "duckdb"})
def doctor(context: dg.OpExecutionContext) -> None:
    """Check catalog, warehouse and DuckDB file; fail when one of them does not work."""
    checks = list(run_checks(context.resources.iceberg, context.resources.duckdb, []))
    for check in checks:
        context.log.info(f"{check.status}: {check.name}: {check.detail} {check.remedy}".strip())
    failed = [check for check in checks if check.status == "failed"]
    if failed:
        raise dg.Failure(
            "; ".join(f"{c.name}: {c.detail} {c.remedy}".strip() for c in failed), allow_retries=False
        )


@dg.job(description="Check what the configuration names and say what is wrong and what to do.")
def doctor_job() -> None:
    """Run the doctor."""
    doctor()


def show(checks: list[Check], console: Console) -> None:
    """Print the checks as a table."""
    table = RichTable("Check", "Status", "Detail", "What to do", title="Doctor")
    for check in checks:
        table.add_row(
            check.name, f"[{_COLOURS[check.status]}]{check.status}[/]", check.detail,
            check.remedy if check.status != "ok" else "",
        )  # fmt: skip
    console.print(table)


def main() -> int:
    """Check the shipped lakehouse; return 1 when something failed."""
    from dwh_assets.definitions import defs
    from dwh_assets.orchestration.environment import load_dotenv

    load_dotenv()
    definitions = defs()
    resources = definitions.resources or {}
    checks = list(run_checks(resources["iceberg"], resources["duckdb"], declared_tables(definitions)))
    show(checks, Console())
    return 1 if any(check.status == "failed" for check in checks) else 0


if __name__ == "__main__":
    sys.exit(main())
