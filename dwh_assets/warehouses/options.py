"""How a person wants a replica to be: declared in YAML, or given in a notebook."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from dwh_assets.warehouses.dialect import TypeOptions
from dwh_assets.warehouses.session import Layout


@dataclass(frozen=True)
class ReplicaOptions:
    """The choices of one replica.

    `dropped_columns`: a column that the table lost goes from the replica, too, or stays there with the
    values that it had and null in new rows, until all rows have to be loaded again. `create_table`: whether
    a sync may make the table and change its columns; without, it must be there with the table's columns, as
    somebody with other rights made it. `pin_days`: for how long the table's expiry keeps the snapshot that
    the replica holds, counted from the sync, so that the next one has to apply only what changed.
    """

    types: TypeOptions = field(default_factory=TypeOptions)
    layout: Layout = field(default_factory=Layout)
    dropped_columns: Literal["drop", "keep"] = "drop"
    create_table: bool = True
    pin_days: float = 7.0
