"""The filter that a set of partitions stands for: exact, or an error; never "no filter"."""

import random
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.types import (
    BooleanType,
    DateType,
    DecimalType,
    DoubleType,
    IcebergType,
    IntegerType,
    LongType,
    NestedField,
    StringType,
    TimestampType,
    TimestamptzType,
    UUIDType,
)

from dwh_assets.errors import ConfigurationError
from dwh_assets.orchestration.partitions import (
    PartitionSlice,
    Window,
    named,
    partition_filter,
    partition_slice,
)

NEW_YORK = "America/New_York"
HOURS = dg.HourlyPartitionsDefinition("2013-11-02-22:00", end_date="2013-11-03-05:00", timezone=NEW_YORK)
DAYS = dg.DailyPartitionsDefinition("2024-02-26", end_date="2024-03-04")
REGIONS = dg.StaticPartitionsDefinition(["apac", "eu", "us"])
GRID = dg.MultiPartitionsDefinition({"day": DAYS, "region": REGIONS})


@pytest.fixture
def catalog(tmp_path: Path) -> SqlCatalog:
    catalog = SqlCatalog("test", uri=f"sqlite:///{tmp_path / 'catalog.db'}", warehouse=tmp_path.as_uri())
    catalog.create_namespace("shop")
    return catalog


def table_of(catalog: SqlCatalog, rows: pa.Table) -> Table:
    table = catalog.create_table("shop.orders", rows.schema)
    table.append(rows)
    return table


def ids(table: Table, partitions: dg.PartitionsDefinition[str], keys: Sequence[str], expr: Any) -> set[int]:
    found = partition_filter(partitions, keys, expr, table.schema(), "shop.orders")
    return set(table.scan(row_filter=found).to_arrow()["id"].to_pylist())


def test_any_set_of_hours_is_exact_also_where_the_clocks_go_back(catalog: SqlCatalog) -> None:
    """Every hour has a row at its first and at its last moment; the model is a list of hours in UTC."""
    keys = list(HOURS.get_partition_keys())
    first = datetime(2013, 11, 3, 2, tzinfo=UTC)  # 22:00 the day before in New York
    assert len(keys) == 8, "the night that summer time ends has one hour more"
    moments = {
        (number, edge): first + timedelta(hours=number) + edge * (timedelta(hours=1, microseconds=-1))
        for number in range(len(keys))
        for edge in (0, 1)
    }
    table = table_of(
        catalog,
        pa.table(
            {
                "id": pa.array([2 * number + edge for number, edge in moments], pa.int64()),
                "at": pa.array(list(moments.values()), pa.timestamp("us", "UTC")),
            }
        ),
    )
    for chosen in range(1, 1 << len(keys)):
        numbers = [number for number in range(len(keys)) if chosen >> number & 1]
        expected = {2 * number + edge for number in numbers for edge in (0, 1)}
        assert ids(table, HOURS, [keys[number] for number in numbers], "at") == expected, numbers


def test_any_set_of_cells_is_exact_and_not_the_rectangle_around_it(catalog: SqlCatalog) -> None:
    cells = list(GRID.get_partition_keys())
    days, regions = zip(*(str(cell).split("|") for cell in cells), strict=True)
    table = table_of(
        catalog,
        pa.table(
            {
                "id": pa.array(range(len(cells)), pa.int64()),
                "at": pa.array([date.fromisoformat(day) for day in days], pa.date32()),
                "place": list(regions),
            }
        ),
    )
    shuffled = random.Random(7)
    for _ in range(100):
        numbers = shuffled.sample(range(len(cells)), shuffled.randint(1, len(cells)))
        chosen = [cells[number] for number in numbers]
        assert ids(table, GRID, chosen, {"day": "at", "region": "place"}) == set(numbers)


def test_a_null_belongs_to_no_partition(catalog: SqlCatalog) -> None:
    table = table_of(catalog, pa.table({"id": [1, 2, 3], "place": ["eu", None, "us"]}))
    assert ids(table, REGIONS, ["apac", "eu", "us"], "place") == {1, 3}


def test_thousands_of_keys_make_one_filter(catalog: SqlCatalog) -> None:
    keys = [str(number) for number in range(5000)]
    table = table_of(catalog, pa.table({"id": range(6000), "number": pa.array(range(6000), pa.int64())}))
    assert ids(table, dg.StaticPartitionsDefinition(keys), keys, "number") == set(range(5000))


# --- What cannot be a filter ---

SCHEMA = Schema(
    *(
        NestedField(number, name, kind, required=False)
        for number, (name, kind) in enumerate(
            {
                "text": StringType(), "int": IntegerType(), "long": LongType(), "bool": BooleanType(),
                "double": DoubleType(), "decimal": DecimalType(5, 2), "date": DateType(), "uuid": UUIDType(),
                "clock": TimestampType(), "instant": TimestamptzType(),
            }.items(),
            start=1,
        )
    )
)  # fmt: skip


@pytest.mark.parametrize(
    ("column", "key"),
    [
        ("int", "ten"), ("int", "1.5"), ("int", ""), ("int", "--5"), ("int", "²"), ("int", "1_000"),
        ("int", " 5"),
        ("int", str(1 << 31)), ("int", str(-(1 << 31) - 1)), ("long", str(1 << 63)),
        ("bool", "yes"), ("bool", "1"),
        ("double", "much"), ("decimal", "1.234"), ("decimal", "x"), ("date", "2024-02-30"),
        ("date", "today"),
        ("uuid", "not one"), ("clock", "2024-02-28T00:00:00+00:00"), ("instant", "2024-02-28T00:00:00"),
    ],
)  # fmt: skip
def test_a_key_that_does_not_fit_the_column_is_refused(column: str, key: str) -> None:
    partitions = dg.StaticPartitionsDefinition([key, "other"])
    with pytest.raises(ConfigurationError) as caught:
        partition_filter(partitions, [key], column, SCHEMA, "shop.orders")
    assert "shop.orders" in str(caught.value)
    assert repr(key) in str(caught.value)
    assert repr(column) in str(caught.value)


@pytest.mark.parametrize("column", ["date", "text", "double", "bool", "uuid", "int"])
def test_a_time_window_that_a_column_cannot_tell_is_refused(column: str) -> None:
    """A string column may hold the keys themselves; a date column only windows from midnight to midnight."""
    hours = dg.HourlyPartitionsDefinition("2024-02-28-00:00")
    if column == "text":
        partition_filter(hours, ["2024-02-28-05:00"], column, SCHEMA, "shop.orders")
        return
    with pytest.raises(ConfigurationError, match=f"shop.orders.*{column}"):
        partition_filter(hours, ["2024-02-28-05:00"], column, SCHEMA, "shop.orders")


def test_half_a_day_is_no_date() -> None:
    """The window begins at midnight, and ends at noon."""
    halves = dg.TimeWindowPartitionsDefinition(
        start="2024-02-28-00:00", fmt="%Y-%m-%d-%H:%M", cron_schedule="0 0,12 * * *"
    )
    with pytest.raises(ConfigurationError, match="midnight"):
        partition_filter(halves, ["2024-02-28-00:00"], "date", SCHEMA, "shop.orders")


@pytest.mark.parametrize("key", ["2013-11-03-01:00", "2013-11-03-01:00-0500"])
def test_an_hour_that_happens_twice_is_not_told_by_clock_time(key: str) -> None:
    with pytest.raises(ConfigurationError, match="clocks were turned back"):
        partition_filter(HOURS, [key], "clock", SCHEMA, "shop.orders")


def test_both_hours_that_happen_twice_are_told_together_by_clock_time() -> None:
    both = ["2013-11-03-01:00", "2013-11-03-01:00-0500"]
    found = str(partition_filter(HOURS, both, "clock", SCHEMA, "shop.orders"))
    assert "2013-11-03T01:00:00" in found
    assert "2013-11-03T02:00:00" in found


@pytest.mark.parametrize(
    ("partitions", "expr", "message"),
    [
        (REGIONS, None, "partition_expr"),
        (REGIONS, {"region": "text"}, "partition_expr"),
        (REGIONS, "nowhere", "'nowhere'"),
        (REGIONS, "", "''"),
        (DAYS, None, "partition_expr"),
        (DAYS, "nowhere", "'nowhere'"),
        (GRID, None, "partition_expr"),
        (GRID, "text", "day, region"),
        (GRID, {"day": "instant"}, "day, region"),
        (GRID, {"day": "instant", "region": "text", "size": "int"}, "day, region"),
        (GRID, {"day": "instant", "region": "nowhere"}, "'nowhere'"),
    ],
)
def test_a_mapping_that_is_missing_or_wrong_is_refused(
    partitions: dg.PartitionsDefinition[str], expr: Any, message: str
) -> None:
    key = str(partitions.get_partition_keys()[0])
    with pytest.raises(ConfigurationError, match=message) as caught:
        partition_filter(partitions, [key], expr, SCHEMA, "shop.orders")
    assert "shop.orders" in str(caught.value)


def test_no_partition_is_not_every_partition() -> None:
    with pytest.raises(ConfigurationError, match="no partition is selected"):
        partition_filter(REGIONS, [], "text", SCHEMA, "shop.orders")


# --- What a computation is told ---


def test_neighbouring_windows_are_one() -> None:
    found = partition_slice(DAYS, ["2024-02-29", "2024-02-28", "2024-03-01"])
    assert found.keys == ("2024-02-29", "2024-02-28", "2024-03-01")
    assert found.window == Window(datetime(2024, 2, 28, tzinfo=UTC), datetime(2024, 3, 2, tzinfo=UTC))


def test_windows_with_a_gap_are_several_and_not_one() -> None:
    found = partition_slice(DAYS, ["2024-02-26", "2024-02-28"])
    assert [window.start.day for window in found.windows] == [26, 28]
    with pytest.raises(ConfigurationError, match="2 time windows"):
        _ = found.window


def test_the_hour_before_the_clocks_go_back_and_the_hour_after_are_no_neighbours() -> None:
    found = partition_slice(HOURS, ["2013-11-03-00:00", "2013-11-03-01:00-0500"])
    assert [(w.start.astimezone(UTC).hour, w.end.astimezone(UTC).hour) for w in found.windows] == [
        (4, 5),
        (6, 7),
    ]


def test_a_cell_has_the_window_of_its_day() -> None:
    found = partition_slice(GRID, ["2024-02-28|eu", "2024-02-29|us"])
    assert found.window == Window(datetime(2024, 2, 28, tzinfo=UTC), datetime(2024, 3, 1, tzinfo=UTC))


def test_static_partitions_have_no_window() -> None:
    found = partition_slice(REGIONS, ["eu"])
    assert found == PartitionSlice(("eu",))
    with pytest.raises(ConfigurationError, match="0 time windows"):
        _ = found.window


def test_a_name_of_partitions_is_exact_and_short() -> None:
    keys = [f"2024-01-01-{number:04}" for number in range(2000)]
    assert named(["a", "b"]) == "a,b"
    assert len(named(keys)) < 500
    assert named(keys) != named([*keys[:1000], *keys[1001:], keys[0]])
    assert named(keys) == named(list(keys))


def test_types_of_the_schema_above_are_all_types_a_key_can_have() -> None:
    """A key that fits is taken, for every type."""
    fitting: dict[str, str] = {
        "text": "x", "int": "5", "long": "-5", "bool": "True", "double": "1.5", "decimal": "1.50",
        "date": "2024-02-29", "clock": "2024-02-28T00:00:00", "instant": "2024-02-28T00:00:00+00:00",
    }  # fmt: skip
    for column, key in fitting.items():
        partitions = dg.StaticPartitionsDefinition([key])
        assert (
            partition_filter(partitions, [key], column, SCHEMA, "shop.orders").__class__.__name__ == "EqualTo"
        )
    kinds: set[type[IcebergType]] = {type(field.field_type) for field in SCHEMA.fields}
    assert len(kinds) == len(fitting) + 1


def test_a_uuid_is_refused_because_arrow_cannot_compare_it() -> None:
    key = "f79c3e09-677c-4bbd-a479-3f349cb785e7"
    with pytest.raises(ConfigurationError, match="uuid"):
        partition_filter(dg.StaticPartitionsDefinition([key]), [key], "uuid", SCHEMA, "shop.orders")
