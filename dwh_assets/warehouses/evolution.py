"""How a replica's columns follow those of its table: which steps lead from one schema to the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dwh_assets.warehouses.dialect import ReplicaColumn


@dataclass(frozen=True)
class ColumnStep:
    """One change of one column.

    `add` and `widen` concern `column` as it is to be; `rename` and `drop` the column that is called
    `name` now (`rename` makes it `column.name`); `relax` lets `column` hold nulls.
    """

    kind: Literal["add", "rename", "widen", "relax", "drop"]
    name: str
    column: ReplicaColumn | None = None
