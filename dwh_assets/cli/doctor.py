"""`dwh doctor`: whether catalog, store and a table work, and what to do where they do not."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from dwh_assets.cli.failures import FAILED
from dwh_assets.cli.parameters import TableArgument
from dwh_assets.cli.session import Session

if TYPE_CHECKING:
    from rich.console import Console

    from dwh_assets.iceberg.doctor.check import Check


@dataclass(frozen=True)
class _Checks:
    checks: list[Check]

    def print(self, console: Console) -> None:
        from dwh_assets.iceberg.doctor.report import show

        show(self.checks, console)


def doctor(
    session: Session,
    table: TableArgument,
    probe: Annotated[
        bool,
        typer.Option(
            help="Prove permissions with a probe table and a small file, both removed again; "
            "without, nothing is written."
        ),
    ] = True,
) -> None:
    """Check catalog, store and table.

    Says of each check what to do about it; exits with 1 where one failed.
    """
    from dwh_assets.config import IcebergWriterConfig
    from dwh_assets.iceberg.doctor.check import worst
    from dwh_assets.iceberg.doctor.examination import examine_table

    declared = IcebergWriterConfig(table=table, catalog=session.declared())
    checks = examine_table(declared, lambda: session.catalog, probe=probe)
    told = {"table": table, "status": worst(checks), "checks": [asdict(check) for check in checks]}
    session.output.show(told, _Checks(checks))
    if worst(checks) == "failed":
        raise typer.Exit(FAILED)
