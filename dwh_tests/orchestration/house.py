"""Assets on a lake, rolled back by the job `rollback`, with automation looking on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from dwh_assets.orchestration.declared_lake import declared_lake
from dwh_assets.orchestration.rollback_job import rollback_job
from dwh_tests.orchestration.lake import QUIET, Lake


def key(table: str, kind: str = "iceberg") -> dg.AssetKey:
    """The key of a table's asset, or of a replica's."""
    return dg.AssetKey([kind, *table.split(".")])


@dataclass
class RolledBack:
    """A lake whose subclass declares `assets` and `definitions`."""

    lake: Lake
    assets: list[dg.AssetsDefinition] = field(init=False)
    definitions: dg.Definitions = field(init=False)
    cursor: Any = field(default=None, init=False)

    def roll_back(self, *, expect_success: bool = True, **config: Any) -> dg.ExecuteInProcessResult:
        result = rollback_job(declared_lake(self.definitions)).execute_in_process(
            instance=self.lake.instance,
            resources=self.lake.resources,
            run_config={**QUIET, "ops": {"roll_back": {"config": config}}},
            raise_on_error=False,
        )
        assert result.success is expect_success
        return result

    def version(self, asset: dg.AssetKey) -> str:
        """The data version that an asset reports now."""
        event = self.lake.instance.get_latest_materialization_event(asset)
        assert event is not None
        assert event.asset_materialization is not None
        return (event.asset_materialization.tags or {})["dagster/data_version"]

    def tick(self) -> set[str]:
        """What automation requests now."""
        found = dg.evaluate_automation_conditions(self.definitions, self.lake.instance, cursor=self.cursor)
        self.cursor = found.cursor
        keys = {one for asset in self.assets for one in asset.keys}
        return {one.to_user_string() for one in keys if found.get_num_requested(one)}
