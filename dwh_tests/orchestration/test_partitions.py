"""Dagster partitions of every kind, written and written again: each holds its own rows and nobody else's."""

from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, timezone
from itertools import pairwise
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest

from dwh_tests.orchestration.lake import Lake, Row, in_order, written_by

TABLE = "shop.orders"
NEW_YORK = "America/New_York"
EDT, EST = timezone(timedelta(hours=-4)), timezone(timedelta(hours=-5))
MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True)
class Kind:
    """Partitions, the type of the column, and for each key, written by hand, the values that belong to it."""

    partitions: dg.PartitionsDefinition[str]
    column: pa.DataType
    values: dict[str, list[Any]]
    spec: list[dict[str, str]] = field(default_factory=list)
    own_files: bool = True

    @property
    def keys(self) -> list[str]:
        return list(self.values)


INSTANT = pa.timestamp("us", "UTC")
CLOCK = pa.timestamp("us")


def instants(*bounds: datetime) -> list[list[datetime]]:
    """For each window between two bounds: its first moment, one inside, and its last moment, in UTC."""
    utc = [bound.astimezone(UTC) for bound in bounds]
    return [[low, low + (high - low) / 2, high - MICROSECOND] for low, high in pairwise(utc)]


def clock(*bounds: datetime) -> list[list[datetime]]:
    """The same in local clock time, for a column without a time zone."""
    return [[low, low + (high - low) / 2, high - MICROSECOND] for low, high in pairwise(bounds)]


def named(keys: list[str], values: list[list[Any]]) -> dict[str, list[Any]]:
    return dict(zip(keys, values, strict=True))


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[arg-type, misc]


HOUR_OF = [{"field": "at", "transform": "hour"}]
DAY_OF = [{"field": "at", "transform": "day"}]
MONTH_OF = [{"field": "at", "transform": "month"}]
SAME = [{"field": "at", "transform": "identity"}]

KINDS = {
    "hour, UTC": Kind(
        dg.HourlyPartitionsDefinition("2024-02-28-22:00", end_date="2024-02-29-01:00"),
        INSTANT,
        named(
            ["2024-02-28-22:00", "2024-02-28-23:00", "2024-02-29-00:00"],
            instants(utc(2024, 2, 28, 22), utc(2024, 2, 28, 23), utc(2024, 2, 29), utc(2024, 2, 29, 1)),
        ),
        HOUR_OF,
    ),
    # Clocks go back at two: the hour from one to two happens twice.
    "hour, New York, end of summer time": Kind(
        dg.HourlyPartitionsDefinition("2013-11-03-00:00", end_date="2013-11-03-03:00", timezone=NEW_YORK),
        INSTANT,
        named(
            ["2013-11-03-00:00", "2013-11-03-01:00", "2013-11-03-01:00-0500", "2013-11-03-02:00"],
            instants(
                datetime(2013, 11, 3, 0, tzinfo=EDT),
                datetime(2013, 11, 3, 1, tzinfo=EDT),
                datetime(2013, 11, 3, 1, tzinfo=EST),
                datetime(2013, 11, 3, 2, tzinfo=EST),
                datetime(2013, 11, 3, 3, tzinfo=EST),
            ),
        ),
        DAY_OF,
        own_files=False,
    ),
    "day, UTC": Kind(
        dg.DailyPartitionsDefinition("2024-02-28", end_date="2024-03-02"),
        INSTANT,
        named(
            ["2024-02-28", "2024-02-29", "2024-03-01"],
            instants(utc(2024, 2, 28), utc(2024, 2, 29), utc(2024, 3, 1), utc(2024, 3, 2)),
        ),
        DAY_OF,
    ),
    # Not on the bounds of the table's own partitions, which are days in UTC; 10 March has 23 hours.
    "day, New York, begin of summer time": Kind(
        dg.DailyPartitionsDefinition("2013-03-09", end_date="2013-03-12", timezone=NEW_YORK),
        INSTANT,
        named(
            ["2013-03-09", "2013-03-10", "2013-03-11"],
            instants(
                datetime(2013, 3, 9, tzinfo=EST),
                datetime(2013, 3, 10, tzinfo=EST),
                datetime(2013, 3, 11, tzinfo=EDT),
                datetime(2013, 3, 12, tzinfo=EDT),
            ),
        ),
        DAY_OF,
        own_files=False,
    ),
    "day, New York, column without time zone": Kind(
        dg.DailyPartitionsDefinition("2013-03-09", end_date="2013-03-12", timezone=NEW_YORK),
        CLOCK,
        named(
            ["2013-03-09", "2013-03-10", "2013-03-11"],
            clock(*(datetime(2013, 3, day) for day in (9, 10, 11, 12))),  # noqa: DTZ001 - clock time
        ),
        DAY_OF,
    ),
    "day, date column": Kind(
        dg.DailyPartitionsDefinition("2024-02-28", end_date="2024-03-02"),
        pa.date32(),
        named(
            ["2024-02-28", "2024-02-29", "2024-03-01"],
            [[date(2024, 2, 28)], [date(2024, 2, 29)], [date(2024, 3, 1)]],
        ),
        SAME,
    ),
    "day, string column": Kind(
        dg.DailyPartitionsDefinition("2024-02-28", end_date="2024-03-02"),
        pa.string(),
        named(["2024-02-28", "2024-02-29", "2024-03-01"], [["2024-02-28"], ["2024-02-29"], ["2024-03-01"]]),
        SAME,
    ),
    "week, UTC": Kind(
        dg.WeeklyPartitionsDefinition("2024-02-25", end_date="2024-03-17"),
        INSTANT,
        named(
            ["2024-02-25", "2024-03-03", "2024-03-10"],
            instants(utc(2024, 2, 25), utc(2024, 3, 3), utc(2024, 3, 10), utc(2024, 3, 17)),
        ),
        DAY_OF,
    ),
    "month, UTC": Kind(
        dg.MonthlyPartitionsDefinition("2023-12-01", end_date="2024-03-01"),
        INSTANT,
        named(
            ["2023-12-01", "2024-01-01", "2024-02-01"],
            instants(utc(2023, 12, 1), utc(2024, 1, 1), utc(2024, 2, 1), utc(2024, 3, 1)),
        ),
        MONTH_OF,
    ),
    "month, New York": Kind(
        dg.MonthlyPartitionsDefinition("2013-10-01", end_date="2014-01-01", timezone=NEW_YORK),
        INSTANT,
        named(
            ["2013-10-01", "2013-11-01", "2013-12-01"],
            instants(
                datetime(2013, 10, 1, tzinfo=EDT),
                datetime(2013, 11, 1, tzinfo=EDT),
                datetime(2013, 12, 1, tzinfo=EST),
                datetime(2014, 1, 1, tzinfo=EST),
            ),
        ),
        MONTH_OF,
        own_files=False,
    ),
    "cron, twice a day": Kind(
        dg.TimeWindowPartitionsDefinition(
            start="2024-02-28-06:00",
            end="2024-02-29-18:00",
            fmt="%Y-%m-%d-%H:%M",
            cron_schedule="0 6,18 * * *",
        ),
        INSTANT,
        named(
            ["2024-02-28-06:00", "2024-02-28-18:00", "2024-02-29-06:00"],
            instants(utc(2024, 2, 28, 6), utc(2024, 2, 28, 18), utc(2024, 2, 29, 6), utc(2024, 2, 29, 18)),
        ),
        own_files=False,
    ),
    "static, string column": Kind(
        dg.StaticPartitionsDefinition(["eu", "us", 'it\'s, "odd" | 日本']),
        pa.string(),
        {"eu": ["eu"], "us": ["us"], 'it\'s, "odd" | 日本': ['it\'s, "odd" | 日本']},
        SAME,
    ),
    "static, int column": Kind(
        dg.StaticPartitionsDefinition(["-1", "0", "10"]), pa.int32(), {"-1": [-1], "0": [0], "10": [10]}, SAME
    ),
    "static, long column": Kind(
        dg.StaticPartitionsDefinition([str(-(1 << 63)), "7"]),
        pa.int64(),
        {str(-(1 << 63)): [-(1 << 63)], "7": [7]},
        own_files=False,
    ),
    "static, bool column": Kind(
        dg.StaticPartitionsDefinition(["true", "false"]), pa.bool_(), {"true": [True], "false": [False]}, SAME
    ),
    "static, date column": Kind(
        dg.StaticPartitionsDefinition(["2024-02-28", "2024-03-01"]),
        pa.date32(),
        {"2024-02-28": [date(2024, 2, 28)], "2024-03-01": [date(2024, 3, 1)]},
        SAME,
    ),
    "dynamic": Kind(
        dg.DynamicPartitionsDefinition(name="shops"), pa.string(), {"a": ["a"], "b": ["b"], "c": ["c"]}, SAME
    ),
}


class Source:
    """Rows by partition key, and the asset that writes them."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.rows: dict[str, list[Row]] = {}
        for key in kind.keys:
            self.fill(key, generation=1)

    def fill(self, key: str, generation: int) -> None:
        self.rows[key] = [{"at": at, "generation": generation} for at in self.kind.values[key]]

    def asset(self) -> dg.AssetsDefinition:
        schema = pa.schema([("at", self.kind.column), ("generation", pa.int64())])

        def rows(context: dg.AssetExecutionContext) -> pa.Table:
            wanted = [row for key in context.partition_keys for row in self.rows[key]]
            return pa.Table.from_pylist(wanted, schema=schema)

        return written_by(
            rows,
            table=TABLE,
            partitions=self.kind.partitions,
            write_mode="overwrite",
            partition_expr="at",
            partition_spec=self.kind.spec,
        )

    def expected(self) -> list[Row]:
        return in_order(row for rows in self.rows.values() for row in rows)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_partition_is_written_again_without_touching_the_others(lake: Lake, kind: Kind) -> None:
    if isinstance(kind.partitions, dg.DynamicPartitionsDefinition):
        lake.instance.add_dynamic_partitions("shops", kind.keys)
    source = Source(kind)
    orders = source.asset()
    changed = kind.keys[1]

    lake.run(orders, between=(kind.keys[0], kind.keys[-1]))
    assert lake.rows(TABLE) == source.expected()
    assert len(lake.snapshots(TABLE)) == 1, "a range of partitions is one commit"

    source.fill(changed, generation=2)
    before = lake.files(TABLE)
    lake.run(orders, partition=changed)
    assert lake.rows(TABLE) == source.expected()

    source.rows[changed] = []
    lake.run(orders, partition=changed)
    assert lake.rows(TABLE) == source.expected(), "an empty partition empties itself and nothing else"

    if kind.own_files:  # where a file holds rows of one partition only
        after = lake.files(TABLE)
        assert after.keys() < before.keys()
        assert {path: before[path] for path in after} == after, (
            "files of the others are the same, byte by byte"
        )


# --- Two dimensions ---

DAYS = ["2024-02-28", "2024-02-29", "2024-03-01"]
REGIONS = ["apac", "eu", "us"]
DAY_AND_REGION = dg.MultiPartitionsDefinition(
    {
        "day": dg.DailyPartitionsDefinition("2024-02-28", end_date="2024-03-02"),
        "region": dg.StaticPartitionsDefinition(REGIONS),
    }
)


def two_dimensional(lake: Lake, source: dict[tuple[str, str], int]) -> dg.AssetsDefinition:
    """An asset of day and region with one row, `source[day, region]`, in each partition that has one."""

    def rows(context: dg.AssetExecutionContext) -> pa.Table:
        pairs = [tuple(str(key).split("|")) for key in context.partition_keys]
        return pa.Table.from_pylist(
            [row_of(day, region, source[day, region]) for day, region in pairs if (day, region) in source],
            schema=pa.schema([("at", INSTANT), ("place", pa.string()), ("generation", pa.int64())]),
        )

    return written_by(
        rows,
        table=TABLE,
        partitions=DAY_AND_REGION,
        write_mode="overwrite",
        partition_expr={"day": "at", "region": "place"},
        partition_spec=[{"field": "at", "transform": "day"}, {"field": "place"}],
    )


def row_of(day: str, region: str, generation: int) -> Row:
    last_moment = datetime.fromisoformat(day).replace(hour=23, minute=59, second=59, tzinfo=UTC)
    return {"at": last_moment, "place": region, "generation": generation}


def test_a_cell_of_two_dimensions_is_written_again_without_touching_its_row_or_column(lake: Lake) -> None:
    source = {(day, region): 1 for day in DAYS for region in REGIONS}
    orders = two_dimensional(lake, source)

    def expected() -> list[Row]:
        return in_order(row_of(*cell, generation) for cell, generation in source.items())

    lake.run(orders, between=(f"{DAYS[0]}|apac", f"{DAYS[-1]}|us"))
    assert lake.rows(TABLE) == expected()
    assert len(lake.snapshots(TABLE)) == 1

    source["2024-02-29", "eu"] = 2
    lake.run(orders, partition="2024-02-29|eu")
    assert lake.rows(TABLE) == expected()

    del source["2024-02-29", "eu"]
    before = lake.files(TABLE)
    lake.run(orders, partition="2024-02-29|eu")
    after = lake.files(TABLE)
    assert lake.rows(TABLE) == expected()
    assert len(after) == len(before) - 1
    assert {path: before[path] for path in after} == after

    source["2024-02-28", "eu"] = source["2024-02-28", "us"] = source["2024-02-29", "us"] = 3
    lake.run(orders, between=(f"{DAYS[0]}|eu", f"{DAYS[1]}|us"))
    assert lake.rows(TABLE) == expected()


def test_two_dimensions_that_are_both_dynamic_or_static(lake: Lake) -> None:
    lake.instance.add_dynamic_partitions("sellers", ["ann", "bob"])
    partitions = dg.MultiPartitionsDefinition(
        {
            "seller": dg.DynamicPartitionsDefinition(name="sellers"),
            "size": dg.StaticPartitionsDefinition(["1", "2"]),
        }
    )
    generation = 1

    def rows(context: dg.AssetExecutionContext) -> pa.Table:
        cells = [str(key).split("|") for key in context.partition_keys]
        return pa.table(
            {
                "seller": [seller for seller, _ in cells],
                "size": pa.array([int(size) for _, size in cells], pa.int64()),
                "generation": pa.array([generation] * len(cells), pa.int64()),
            }
        )

    orders = written_by(
        rows,
        table=TABLE,
        partitions=partitions,
        write_mode="overwrite",
        partition_expr={"seller": "seller", "size": "size"},
    )
    lake.run(orders, between=("ann|1", "bob|2"))
    generation = 2
    lake.run(orders, partition="bob|1")
    found = {(row["seller"], row["size"]): row["generation"] for row in lake.rows(TABLE)}
    assert found == {("ann", 1): 1, ("ann", 2): 1, ("bob", 1): 2, ("bob", 2): 1}
