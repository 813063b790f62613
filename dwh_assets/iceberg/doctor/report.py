"""Print checks for a person."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from dwh_assets.iceberg.doctor.check import STATUSES, Check

_COLOURS = {"ok": "green", "warning": "yellow", "failed": "red", "skipped": "dim"}


def show(checks: list[Check], console: Console) -> None:
    """Print a line for each check, and one more for what to do; nothing is broken where it is piped."""
    width = max((len(check.name) for check in checks), default=0)
    for check in checks:
        status = (f"{check.status:<{max(map(len, STATUSES))}}", _COLOURS[check.status])
        console.print(Text.assemble(status, f"  {check.name:<{width}}  {check.detail}"), soft_wrap=True)
        if check.remedy and check.status != "ok":
            console.print(Text(f"{'':9}-> {check.remedy}"), soft_wrap=True)
