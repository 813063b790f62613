"""A project of one `defs.yaml`, loaded as Dagster loads a real one."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from textwrap import dedent
from typing import Any

import dagster as dg
from dagster.components.testing import create_defs_folder_sandbox

COMPUTED = "dwh_tests.components.computed"


@contextmanager
def loaded(yaml: str, resources: Mapping[str, Any] | None = None) -> Iterator[dg.Definitions]:
    """Load the definitions that a `defs.yaml` declares, with these resources, or some that do nothing."""
    with create_defs_folder_sandbox() as sandbox:
        folder = sandbox.defs_folder_path / "shop"
        folder.mkdir(parents=True)
        (folder / "defs.yaml").write_text(dedent(yaml).lstrip("\n"), encoding="utf-8")
        with sandbox.build_all_defs() as definitions:
            yield dg.Definitions.merge(definitions, dg.Definitions(resources=resources or _IDLE))


_IDLE: dict[str, Any] = {
    "iceberg": dg.ResourceDefinition.none_resource(),
    "iceberg_io_manager": dg.FilesystemIOManager(),
    **{
        f"{warehouse}_replica_io_manager": dg.FilesystemIOManager()
        for warehouse in ("duckdb", "motherduck", "snowflake", "bigquery", "eu_snowflake")
    },
}


def table(definitions: dg.Definitions, *key: str) -> dg.AssetSpec:
    """Return what the definitions say of one asset."""
    specs = {spec.key: spec for spec in definitions.resolve_all_asset_specs()}
    return specs[dg.AssetKey(key)]
