"""The tables and replicas that definitions declare, for jobs that go over many of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from dwh_assets.orchestration.declarations import table_name
from dwh_assets.orchestration.replica_io import ReplicaIOManager
from dwh_assets.warehouses.replica import Replica


@dataclass(frozen=True)
class DeclaredReplica:
    """A replica's asset, its metadata, and how it is reached: through the IO manager of that key."""

    key: dg.AssetKey
    metadata: Mapping[str, Any]
    io_manager: str

    @property
    def table(self) -> str:
        """The lake's table."""
        return str(self.metadata["table"])

    @property
    def follows(self) -> bool:
        """Whether it goes where its table goes, and does not stay on a named version."""
        return self.metadata.get("at") is None

    def reached_over(self, resources: Any) -> Replica:
        """Return the replica itself, over the resources of a run."""
        manager: ReplicaIOManager = getattr(resources, self.io_manager)
        return manager.replica(self.metadata)


@dataclass(frozen=True)
class DeclaredLake:
    """The assets of Iceberg tables by table, those of them that have partitions, and the replicas."""

    tables: dict[str, dg.AssetKey] = field(default_factory=dict)
    partitioned: frozenset[str] = frozenset()
    replicas: tuple[DeclaredReplica, ...] = ()

    @property
    def following(self) -> tuple[DeclaredReplica, ...]:
        """The replicas that go where their tables go."""
        return tuple(replica for replica in self.replicas if replica.follows)


def declared_lake(definitions: dg.Definitions) -> DeclaredLake:
    """Return the tables and replicas that the definitions declare."""
    assets = [one for one in definitions.assets or [] if isinstance(one, dg.AssetsDefinition)]
    tables = {
        table_name(spec.key, spec.metadata): (spec.key, one.partitions_def is not None)
        for one in assets
        for spec in one.specs
        if spec.key.path[0] == "iceberg"
    }
    return DeclaredLake(
        {name: key for name, (key, _) in tables.items()},
        frozenset(name for name, (_, has_partitions) in tables.items() if has_partitions),
        tuple(replica for one in assets for replica in _replicas_of(one)),
    )


def _replicas_of(asset: dg.AssetsDefinition) -> Iterator[DeclaredReplica]:
    for spec in asset.specs:
        if {"table", "into"} <= spec.metadata.keys():
            io_manager = asset.get_io_manager_key_for_asset_key(spec.key)
            yield DeclaredReplica(spec.key, spec.metadata, io_manager)
