"""A sync that ends anywhere leaves the old version or the new one, and the next finishes what it began."""

import os
from collections.abc import Callable
from itertools import count
from typing import Any

import pyarrow as pa
import pytest

from dwh_assets.errors import DwhError
from dwh_assets.warehouses.replica import Replica
from dwh_tests.iceberg.conftest import Lake
from dwh_tests.warehouses.conformance.expected import require_same
from dwh_tests.warehouses.conformance.mortal import How, Killed, Life, mortal
from dwh_tests.warehouses.conformance.places import Place

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_lease")]

SCHEMA = pa.schema([pa.field("id", pa.int64()), ("item", pa.string()), ("other", pa.string())])
# In the emulators a sync takes a second or more, so some steps stand for all; DWH_EVERY_STEP=1 tries each.
STRIDE = {"snowflake": 7, "bigquery": 11}
# What an act returns: the numbers that the table holds after it
Act = Callable[[Lake, int, list[int]], list[int]]


def stride_in(place: Place) -> int:
    return 1 if os.environ.get("DWH_EVERY_STEP") else STRIDE.get(place.name, 1)


def rows(*numbers: int, item: str = "x") -> pa.Table:
    return pa.table({"id": numbers, "item": [item] * len(numbers), "other": ["o"] * len(numbers)}, SCHEMA)


def by_key(lake: Lake, turn: int, before: list[int]) -> list[int]:
    """Update a row, insert one, delete one."""
    names = lake.table.schema().column_names
    changed = rows(1, 1000 + turn, item=f"turn {turn}").rename_columns(names)
    lake.write(changed, write_mode="upsert", key_columns=["id"])
    lake.table.delete(f"id = {100 + turn}")
    return sorted({*before, 1000 + turn} - {100 + turn})


def by_rows(lake: Lake, turn: int, before: list[int]) -> list[int]:
    """More of equal rows, and one less of others; there is no key."""
    lake.write(rows(1, 1, 1000 + turn))
    lake.table.delete(f"id = {100 + turn}")
    return sorted([1, 1, 1000 + turn, *(number for number in before if number != 100 + turn)])


def columns(lake: Lake, turn: int, before: list[int]) -> list[int]:
    """Rename one, with rows."""
    with lake.table.update_schema() as update:
        update.rename_column(lake.table.schema().fields[1].name, f"item_{turn}")
    return by_key(lake, turn, before)


def exchange(lake: Lake, turn: int, before: list[int]) -> list[int]:
    """No steps lead there: all rows have to be loaded into other columns."""
    for old, new in (("item", "between"), ("other", "item"), ("between", "other")):
        with lake.table.update_schema() as update:
            update.rename_column(old, new)
    return by_key(lake, turn, before)


def expire(lake: Lake, turn: int, before: list[int]) -> list[int]:
    """All rows have to be loaded into the same columns."""
    held = lake.table.current_snapshot()
    assert held is not None
    after = by_key(lake, turn, before)
    lake.table.maintenance.expire_snapshots().by_id(held.snapshot_id).commit()
    return after


CHANGES: dict[str, tuple[Act, bool]] = {
    "by key": (by_key, True),
    "by rows": (by_rows, False),
    "columns": (columns, True),
    "exchange": (exchange, True),
    "expire": (expire, True),
}


def seen(place: Place) -> list[int]:
    """What a person sees, who asks the warehouse itself."""
    return sorted(int(number) for (number,) in place.ask(f"SELECT id FROM {place.into}"))


def end_at(replica: Replica, lake: Lake, last: int, how: How, **options: Any) -> Life:
    life = Life(last, how)
    try:
        mortal(replica, life).sync(lake.catalog, **options)
    except (Killed, DwhError):
        assert life.is_over
    return life


def require_old_or_new(place: Place, replica: Replica, before: list[int], after: list[int], new: int) -> None:
    """Whatever is claimed is there."""
    now, state = seen(place), replica.state()
    assert now in (before, after)
    assert state is not None
    if state.snapshot_id is not None:
        assert now == (after if state.snapshot_id == new else before)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("how", ["dies", "unanswered"])
def test_a_sync_may_end_at_any_step(place: Place, lake: Lake, how: How, change: str) -> None:
    act, keyed = CHANGES[change]
    numbers = [1, *range(100, 160)]
    lake.write(rows(*numbers), **({"key_columns": ["id"]} if keyed else {}))
    replica = place.replica()
    replica.sync(lake.catalog)
    stride = stride_in(place)
    first = 1 + (list(CHANGES).index(change) + (how == "dies")) % stride
    for turn, last in enumerate(count(first, stride)):
        after = act(lake, turn, numbers)
        life = end_at(replica, lake, last, how)
        head = lake.table.metadata.current_snapshot_id
        assert head is not None
        require_old_or_new(place, replica, numbers, after, head)
        replica.sync(lake.catalog)
        assert (replica.snapshot_id, seen(place)) == (head, after), f"{how} at step {last}"
        numbers = after
        if not life.is_over:
            break
    assert last > 5
    require_same(replica, lake)


def test_a_first_sync_may_end_at_any_step(place: Place, lake: Lake) -> None:
    """Until it has come to its end there is no replica, or all of it."""
    lake.write(rows(1, 2, 3), key_columns=["id"])
    for last in count(1, stride_in(place)):
        replica = place.replica(into=f"{place.schema}.first_{last}")
        life = end_at(replica, lake, last, "dies")
        if replica.state() is not None:
            assert len(replica.read().read_all()) in (0, 3)
        replica.sync(lake.catalog)
        assert replica.count() == 3
        if not life.is_over:
            break
    assert last > 3
