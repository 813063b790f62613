"""The command `dwh` and its subcommands."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperGroup

from dwh_assets.cli import diff, doctor, history, lineage, publish, refs, release, replica, rollback, show
from dwh_assets.cli.failures import WRONG_USAGE, UsageError, tell
from dwh_assets.cli.session import command


class _Dwh(TyperGroup):
    """Tells a wrong call as every other error is told; without arguments, how to call it."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Parse the arguments, run the command and exit, whatever `standalone_mode` says."""
        arguments = list(sys.argv[1:] if args is None else args)
        try:
            code = super().main(
                arguments or ["--help"], prog_name, complete_var, False, windows_expand_args, **extra
            )
        except UsageError as error:
            context = getattr(error, "ctx", None)
            remedy = f"{context.command_path if context else 'dwh'} --help tells how it is called."
            message = error.format_message()
            tell("UsageError", message, remedy, WRONG_USAGE, as_json="--json" in arguments)
            sys.exit(WRONG_USAGE)
        sys.exit(code if isinstance(code, int) else 0)


app = typer.Typer(
    name="dwh",
    cls=_Dwh,
    help="Versions of Iceberg tables: what they said, what changed, and the way back.",
    epilog="Exit codes: 0 done, 1 cannot be done, 2 called wrongly, 3 try again, "
    "4 nobody knows whether the change landed, 130 interrupted.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
command(app)(history.history)
command(app)(show.show)
command(app)(diff.diff)
command(app)(refs.tag)
command(app)(refs.branch)
command(app)(publish.publish)
command(app)(rollback.rollback)
app.add_typer(release.app, name="release")
app.add_typer(replica.app, name="replica")
command(app)(lineage.lineage)
command(app)(doctor.doctor)


def main() -> None:
    """Run the command that `sys.argv` names, and exit."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # libraries' advice to programmers, between a person and an answer
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    app(prog_name="dwh")
