"""How many rows each partition of a run holds: the same number, counted one by one or all at once."""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.table import Table

from dwh_assets.orchestration.partition_counts import partition_counts

NEW_YORK = "America/New_York"
MIDNIGHT = datetime(2024, 1, 1)  # noqa: DTZ001 - clock time
FIRST_HOUR = datetime(2013, 11, 3, 4, tzinfo=UTC)
ROWS = 500


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Table:
    """Row n lies n hours, n days and n numbers after the first; every third row lacks the last."""
    folder = tmp_path_factory.mktemp("counts")
    catalog = SqlCatalog("test", uri=f"sqlite:///{folder / 'catalog.db'}", warehouse=Path(folder).as_uri())
    catalog.create_namespace("shop")
    numbers = range(ROWS)
    rows = pa.table(
        {
            "at": pa.array(
                [FIRST_HOUR + timedelta(minutes=20 * n) for n in numbers], pa.timestamp("us", "UTC")
            ),
            "clock": pa.array([MIDNIGHT + timedelta(hours=n) for n in numbers], pa.timestamp("us")),
            "day": pa.array([date(2024, 1, 1) + timedelta(days=n % 60) for n in numbers], pa.date32()),
            "number": pa.array([n % 40 for n in numbers], pa.int32()),
            "place": [f"p{n % 30}" if n % 3 else None for n in numbers],
        }
    )
    made = catalog.create_table("shop.orders", rows.schema)
    made.append(rows)
    return made


def counted(
    table: Table, definition: dg.PartitionsDefinition[str], keys: Sequence[str], expr: Any
) -> dict[str, int]:
    head = table.current_snapshot()
    assert head is not None
    return dict(partition_counts(table, head.snapshot_id, definition, keys, expr))


@pytest.mark.parametrize("how_many", [3, 100])
def test_hours_where_the_clocks_go_back(table: Table, how_many: int) -> None:
    hours = dg.HourlyPartitionsDefinition("2013-11-03-00:00", end_date="2013-11-12-00:00", timezone=NEW_YORK)
    keys = hours.get_partition_keys()[:how_many]
    assert counted(table, hours, keys, "at") == dict.fromkeys(keys, 3)


@pytest.mark.parametrize("how_many", [2, 60])
def test_days_of_a_date_and_of_a_clock_time(table: Table, how_many: int) -> None:
    days = dg.DailyPartitionsDefinition("2024-01-01", end_date="2024-03-01")
    keys = days.get_partition_keys()[:how_many]
    of_day = Counter(str(date(2024, 1, 1) + timedelta(days=n % 60)) for n in range(ROWS))
    of_clock = Counter(str((MIDNIGHT + timedelta(hours=n)).date()) for n in range(ROWS))
    assert counted(table, days, keys, "day") == {key: of_day[key] for key in keys}
    assert counted(table, days, keys, "clock") == {key: of_clock[key] for key in keys}


@pytest.mark.parametrize("how_many", [2, 45])
def test_numbers_and_texts_also_where_there_are_no_rows(table: Table, how_many: int) -> None:
    numbers = [str(n) for n in range(-2, 43)][-how_many:]
    places = [f"p{n}" for n in range(45)][-how_many:]
    of_number = Counter(str(n % 40) for n in range(ROWS))
    of_place = Counter(f"p{n % 30}" for n in range(ROWS) if n % 3)
    found = counted(table, dg.StaticPartitionsDefinition(numbers), numbers, "number")
    assert found == {key: of_number[key] for key in numbers}
    found = counted(table, dg.StaticPartitionsDefinition(places), places, "place")
    assert found == {key: of_place[key] for key in places}


@pytest.mark.parametrize("step", [1, 7, 50])
def test_cells_that_are_no_rectangle(table: Table, step: int) -> None:
    days = dg.DailyPartitionsDefinition("2024-01-01", end_date="2024-03-01")
    grid = dg.MultiPartitionsDefinition(
        {"place": dg.StaticPartitionsDefinition([f"p{n}" for n in range(30)]), "day": days}
    )
    keys = grid.get_partition_keys()[::step]
    rows = ((date(2024, 1, 1) + timedelta(days=n % 60), f"p{n % 30}") for n in range(ROWS) if n % 3)
    expected = Counter(f"{day}|{place}" for day, place in rows)
    found = counted(table, grid, keys, {"place": "place", "day": "day"})
    assert found == {key: expected[str(key)] for key in keys}
