"""Runs that read the past: what they write goes to a branch, and readers of the table do not see it.

The run's tag `dwh/as_of` names the point in time; `dwh/write_to` the branch, if it shall be another one than
`as-of-<point>`. It may be `main`. Branches that nobody has named are kept for thirty days after the last run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta

import dagster as dg
from pyiceberg.catalog import Catalog
from pyiceberg.table import Table
from pyiceberg.table.refs import MAIN_BRANCH

from dwh_assets.config import IcebergWriterConfig, SchemaEvolution, ref_name_fault
from dwh_assets.errors import ConfigurationError, DwhError, NotFoundError
from dwh_assets.iceberg.declaration import find_table
from dwh_assets.iceberg.refs import create_branch, prune_branches
from dwh_assets.iceberg.versions import at_branch, at_snapshot
from dwh_assets.iceberg.write import IcebergWriter
from dwh_assets.orchestration import step
from dwh_assets.versioning.points import resolve

AS_OF = "dwh/as_of"
WRITE_TO = "dwh/write_to"
KEEP = timedelta(days=30)

_UNFIT_FOR_A_NAME = re.compile(r"[^\w.:+-]+")


def run_as_of(context: dg.InputContext | dg.OutputContext) -> str | None:
    """Return the point in time that the whole run reads, if there is one."""
    return step.run_tags(context).get(AS_OF)


def branch_of_run(tags: Mapping[str, str], declared: str) -> str:
    """Return the branch that a run with these tags writes tables to whose own branch is `declared`."""
    aside = f"as-of-{_UNFIT_FOR_A_NAME.sub('-', tags[AS_OF])}" if AS_OF in tags else declared
    if fault := ref_name_fault(tags.get(WRITE_TO, aside)):
        raise ConfigurationError(
            f"The run's tag {WRITE_TO} says {tags.get(WRITE_TO)!r}, which is no name for a branch: {fault}.",
            remedy="Name the branch that the run shall write to.",
        )
    return tags.get(WRITE_TO, aside)


def lifetime_of(tags: Mapping[str, str]) -> timedelta | None:
    """Return how long a branch is kept that a run with these tags makes; None is for ever."""
    return KEEP if AS_OF in tags and WRITE_TO not in tags else None


def table_before(catalog: Catalog, name: str, declared: str, tags: Mapping[str, str]) -> Table | None:
    """Return the table as a run with these tags finds it before it writes; None where there is none yet.

    Raises `NotFoundError` for a run that reads a time of which the table has no version.
    """
    table, branch = find_table(catalog, name), branch_of_run(tags, declared)
    if table is None or AS_OF not in tags or branch in table.metadata.refs:
        return table and at_branch(table, branch)
    return at_snapshot(table, resolve(table, tags[AS_OF]).snapshot_id)


def written_aside(config: IcebergWriterConfig, branch: str) -> IcebergWriterConfig:
    """Return how a table is written to the branch of a run: columns are the table's, so they stay."""
    if branch in (config.branch, MAIN_BRANCH):
        return config.model_copy(update={"branch": branch})
    return config.model_copy(update={"branch": branch, "schema_evolution": SchemaEvolution(enabled=False)})


def begin_branch(writer: IcebergWriter, as_of: str | None, *, partial: bool = False) -> None:
    """Begin the writer's branch, for a run that reads the past, where its table was at that point in time.

    What is appended or replaced in part then joins the rows of that time, not today's. Where the table had no
    version then, that does not matter to an overwrite, unless it is `partial`; otherwise raises
    `ConfigurationError`. Branches of the table whose time is over go.
    """
    catalog, config = writer.catalog, writer.config
    table = find_table(catalog, config.table) if as_of is not None else None
    if as_of is None or table is None or not table.metadata.snapshots:
        return
    table = _pruned(catalog, table)
    if config.branch in table.metadata.refs:
        return
    try:
        found = resolve(table, as_of)
    except NotFoundError as miss:
        if _replaces_all(config) and not partial:
            return
        raise ConfigurationError(
            f"{config.table}: this run goes on from the table's own rows of {as_of!r}, and there are none: "
            f"{miss.message}",
            remedy=f"Begin a branch where it shall go on, and name it in the run's tag {WRITE_TO}.",
        ) from None
    try:
        create_branch(catalog, table, config.branch, found.snapshot_id, lifetime=writer.branch_lifetime)
    except ConfigurationError:  # another run of the same backfill was faster
        if config.branch not in table.refresh().metadata.refs:
            raise


def _pruned(catalog: Catalog, table: Table) -> Table:
    with suppress(DwhError):  # the next run will
        if prune_branches(catalog, table):
            return table.refresh()
    return table


def _replaces_all(config: IcebergWriterConfig) -> bool:
    return config.write_mode == "overwrite" and config.overwrite == "table" and config.overwrite_where is None
