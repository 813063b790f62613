"""Parity: what is equal is said to be, and the least difference is found and named."""

import json
import math
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.io.pyarrow import schema_to_pyarrow
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.transforms import (
    BucketTransform,
    DayTransform,
    HourTransform,
    IdentityTransform,
    MonthTransform,
    Transform,
    TruncateTransform,
    YearTransform,
)
from pyiceberg.types import (
    DateType,
    DecimalType,
    DoubleType,
    IcebergType,
    LongType,
    NestedField,
    StringType,
    TimestamptzType,
)

from dwh_assets import IcebergWriter, IcebergWriterConfig
from dwh_assets.errors import ConfigurationError
from dwh_assets.warehouses.base import Target
from dwh_assets.warehouses.columns import replica_columns
from dwh_assets.warehouses.dialect import ReplicaColumn, TypeOptions
from dwh_assets.warehouses.duckdb.session import DuckDBSession
from dwh_assets.warehouses.duckdb.warehouse import DuckDBWarehouse
from dwh_assets.warehouses.fingerprint import fingerprint
from dwh_assets.warehouses.parity import verify
from dwh_assets.warehouses.parity_report import Level, ParityReport
from dwh_assets.warehouses.repair import repair
from dwh_assets.warehouses.session import Layout, Purpose, encoded
from dwh_assets.warehouses.sides import LakeSide, ReplicaSide, compared_columns
from dwh_assets.warehouses.source import Source, open_source
from dwh_tests.warehouses import canonical_model as model
from dwh_tests.warehouses.canonical_values import EDGES

TARGET = Target("", "main", "copy")
NAME = "sales.orders"
NOON = datetime(2024, 3, 10, 12, tzinfo=UTC)
LEVELS: list[Level] = ["fingerprint", "full"]


@dataclass
class Copy:
    """A table and its copy, made without the engine that syncs."""

    table: Table
    session: DuckDBSession
    columns: tuple[ReplicaColumn, ...]

    @property
    def source(self) -> Source:
        return open_source(self.table, NAME, None)

    def execute(self, sql: str, *parameters: Any) -> None:
        self.session.connection.execute(sql, parameters)

    def verify(self, level: Level = "fingerprint", keys: list[str] | None = None) -> ParityReport:
        return verify(self.session, TARGET, self.columns, self.source, level, keys=keys)


Maker = Callable[..., Copy]


@pytest.fixture
def copied(catalog: SqlCatalog, lake: Path, tmp_path: Path) -> Iterator[Maker]:
    with ExitStack() as stack:

        def make(schema: Schema, rows: pa.Table, spec: PartitionSpec | None = None) -> Copy:
            table = catalog.create_table(NAME, schema, partition_spec=spec or PartitionSpec())
            # PyIceberg's own append makes null lists of structs empty ones.
            writer(lake).write(rows)
            table.refresh()
            warehouse = DuckDBWarehouse(tmp_path / "w.duckdb")
            session = stack.enter_context(warehouse.open(Purpose(NAME, None)))
            return Copy(table, session, loaded(session, table, rows))

        yield make


def writer(lake: Path, **options: Any) -> IcebergWriter:
    uri, warehouse = f"sqlite:///{lake}/catalog.db", f"file://{lake}"
    catalog = {"catalog": "sql", "catalog_config": {"name": "lake", "uri": uri, "warehouse": warehouse}}
    return IcebergWriter(IcebergWriterConfig.model_validate({**catalog, "table": NAME, **options}))


def loaded(session: DuckDBSession, table: Table, rows: pa.Table) -> tuple[ReplicaColumn, ...]:
    columns = replica_columns(table.schema(), session.dialect, TypeOptions(), NAME)
    session.create_table(TARGET, columns, Layout(), existing="replace")
    session.insert(TARGET, columns, encoded(rows.to_reader(), columns))
    return columns


def arrow_rows(schema: Schema, rows: list[dict[str, Any]]) -> pa.Table:
    target = schema_to_pyarrow(schema, include_field_ids=False)
    plain = pa.schema([pa.field(f.name, getattr(f.type, "storage_type", f.type)) for f in target])
    return pa.Table.from_pylist(rows, plain).cast(target)


ORDERS = Schema(
    NestedField(1, "id", LongType(), required=False),
    NestedField(2, "amount", DoubleType(), required=False),
    NestedField(3, "note", StringType(), required=False),
    NestedField(4, "other", StringType(), required=False),
    NestedField(5, "at", TimestamptzType(), required=False),
    NestedField(6, "day", DateType(), required=False),
    NestedField(7, "price", DecimalType(9, 2), required=False),
)


def order(number: int, **values: Any) -> dict[str, Any]:
    return {
        "id": number,
        "amount": number / 7,
        "note": f"n|{number}",
        "other": "" if number % 2 else None,
        "at": NOON + timedelta(hours=17 * number),
        "day": date(2024, 1, 1) + timedelta(days=9 * number),
        "price": Decimal(number) / 4,
        **values,
    }


SOME = [order(n) for n in range(40)]


@pytest.fixture
def orders_copy(copied: Maker) -> Copy:
    return copied(ORDERS, arrow_rows(ORDERS, SOME))


# --- What is equal ---


def column_of(iceberg: IcebergType) -> Schema:
    return Schema(
        NestedField(1, "n", LongType(), required=False), NestedField(2, "v", iceberg, required=False)
    )


@pytest.mark.parametrize("kind", EDGES)
def test_every_type_is_compared_whole_and_a_lost_row_is_found(copied: Maker, kind: str) -> None:
    iceberg, values = EDGES[kind]
    schema = column_of(iceberg)
    rows = [{"n": n, "v": value} for n, value in enumerate([*values, None])]
    copy = copied(schema, arrow_rows(schema, rows))
    for level in LEVELS:
        report = copy.verify(level)
        assert report.equal, report.to_markdown()
        assert report.not_compared == {}
        assert report.rows_in_table == report.rows_in_replica == len(rows)
    copy.execute("UPDATE copy SET v = NULL WHERE n = 0")
    for level in LEVELS:
        assert not copy.verify(level, ["n"])
    assert {(one.column, one.figure) for one in copy.verify().columns} >= {("v", "nulls"), ("v", "hash")}


@pytest.mark.parametrize("kind", EDGES)
def test_the_figures_of_both_sides_are_the_models(copied: Maker, kind: str) -> None:
    iceberg, values = EDGES[kind]
    values = [*values, values[0], None]
    schema = column_of(iceberg)
    copy = copied(schema, arrow_rows(schema, [{"n": n, "v": value} for n, value in enumerate(values)]))
    compared, left_out = compared_columns(copy.columns, copy.source.schema)
    assert not left_out
    texts = [text for text in (model.text(iceberg, value) for value in values) if text is not None]
    for side in (LakeSide(copy.source), ReplicaSide(copy.session, TARGET)):
        found = fingerprint(side, compared)
        rows = model.rows_hash([LongType(), iceberg], enumerate(values))
        assert (found.rows.count, *found.rows.limbs) == rows
        figures = found.columns["v"]
        assert figures.hash is not None
        assert (figures.hash.count, *figures.hash.limbs) == model.column_hash(iceberg, values)
        assert (figures.count, figures.nulls, figures.distinct) == (len(texts), 1, len(set(texts)))
        assert found.columns["n"].total == sum(range(len(values)))
        if iceberg.is_primitive:
            assert (figures.minimum, figures.maximum) == extremes(iceberg, values)


def extremes(iceberg: IcebergType, values: list[Any]) -> tuple[str | None, str | None]:
    known = [one for one in values if one is not None and not (isinstance(one, float) and math.isnan(one))]
    by = str.encode if isinstance(iceberg, StringType) else lambda value: value
    return model.text(iceberg, min(known, key=by)), model.text(iceberg, max(known, key=by))


def test_the_order_of_rows_does_not_matter(copied: Maker) -> None:
    rows = SOME.copy()
    copy = copied(ORDERS, arrow_rows(ORDERS, rows))
    random.Random(5).shuffle(rows)
    loaded(copy.session, copy.table, arrow_rows(ORDERS, rows))
    assert all(copy.verify(level).equal for level in LEVELS)


@pytest.mark.parametrize(("before", "after"), [(0.0, -0.0), (-0.0, 0.0), (math.nan, -math.nan)])
def test_zeros_are_equal_and_so_is_what_is_no_number(copied: Maker, before: float, after: float) -> None:
    copy = copied(ORDERS, arrow_rows(ORDERS, [order(1, amount=before)]))
    copy.execute("UPDATE copy SET amount = ?", after)
    assert all(copy.verify(level).equal for level in LEVELS)


def test_an_empty_table_is_equal_to_an_empty_copy(copied: Maker) -> None:
    copy = copied(ORDERS, arrow_rows(ORDERS, []))
    for level in ("count", *LEVELS):
        assert copy.verify(level).equal
    copy.execute("INSERT INTO copy (id) VALUES (1)")
    for level in ("count", *LEVELS):
        report = copy.verify(level)
        assert (report.equal, report.rows_in_table, report.rows_in_replica) == (False, 0, 1)


def test_a_table_without_a_snapshot_has_no_rows(catalog: SqlCatalog, tmp_path: Path) -> None:
    table = catalog.create_table(NAME, ORDERS)
    with DuckDBWarehouse(tmp_path / "w.duckdb").open(Purpose(NAME, None)) as session:
        copy = Copy(table, session, loaded(session, table, arrow_rows(ORDERS, [])))
        assert all(copy.verify(level).equal for level in ("count", *LEVELS))


# --- What differs ---

CHANGES: dict[str, tuple[str, list[Any], set[tuple[str, str]]]] = {
    "one ulp": (
        "UPDATE copy SET amount = ? WHERE id = 9",
        [math.nextafter(9 / 7, 2)],
        {("amount", "hash")},
    ),
    "a null for an empty text": (
        "UPDATE copy SET other = NULL WHERE id = 9",
        [],
        {("other", "count"), ("other", "nulls"), ("other", "hash")},
    ),
    "an empty text for a null": (
        "UPDATE copy SET other = '' WHERE id = 8",
        [],
        {("other", "count"), ("other", "nulls"), ("other", "hash")},
    ),
    "another zone": (
        'UPDATE copy SET "at" = "at" + INTERVAL 1 HOUR WHERE id = 9',
        [],
        {("at", "hash")},
    ),
    "a greater last day": (
        "UPDATE copy SET day = DATE '2030-01-01' WHERE id = 39",
        [],
        {("day", "maximum"), ("day", "hash")},
    ),
    "a cent": (
        "UPDATE copy SET price = price + 0.01 WHERE id = 9",
        [],
        {("price", "total"), ("price", "hash")},
    ),
    "a trailing space": ("UPDATE copy SET note = note || ' ' WHERE id = 3", [], {("note", "hash")}),
    # The columns have the same values, in other rows
    "two values swapped": (
        "UPDATE copy SET note = CASE id WHEN 3 THEN 'n|4' ELSE 'n|3' END WHERE id IN (3, 4)",
        [],
        set(),
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_least_change_is_found_and_its_column_named(orders_copy: Copy, change: str) -> None:
    sql, values, figures = CHANGES[change]
    orders_copy.execute(sql, *values)
    report = orders_copy.verify()
    assert not report.equal
    assert {(one.column, one.figure) for one in report.columns} == figures
    assert orders_copy.verify("count").equal
    assert not orders_copy.verify("full")


def test_one_of_two_equal_rows_that_is_lost_is_found(copied: Maker) -> None:
    copy = copied(ORDERS, arrow_rows(ORDERS, [order(1), order(1), order(2)]))
    assert copy.verify().equal
    copy.execute("DELETE FROM copy WHERE rowid = 0")
    assert not copy.verify("count")
    assert not copy.verify()
    assert [row.kind for row in copy.verify("full").rows] == ["missing"]
    # As many rows as before, but not the same ones
    copy.execute("INSERT INTO copy SELECT * FROM copy WHERE id = 2")
    assert copy.verify("count").equal
    assert not copy.verify()
    assert sorted(row.kind for row in copy.verify("full").rows) == ["extra", "missing"]


def test_a_separator_that_moves_between_columns_is_found(copied: Maker) -> None:
    copy = copied(
        ORDERS, arrow_rows(ORDERS, [order(1, note="a|", other="b"), order(2, note="\\", other="|")])
    )
    assert copy.verify().equal
    copy.execute("UPDATE copy SET note = 'a', other = '|b' WHERE id = 1")
    assert not copy.verify()
    copy.execute("UPDATE copy SET note = 'a|', other = 'b' WHERE id = 1")
    copy.execute("UPDATE copy SET note = '\\|', other = '' WHERE id = 2")
    assert not copy.verify()


# --- Where it differs ---

PARTITIONS: dict[str, tuple[str, Transform[Any, Any], set[str]]] = {
    "hour": ("at", HourTransform(), {"at_part=2024-03-16-21", "at_part=2024-03-17-14"}),
    "day": ("at", DayTransform(), {"at_part=2024-03-16", "at_part=2024-03-17"}),
    "month": ("day", MonthTransform(), {"day_part=2024-03"}),
    "year": ("day", YearTransform(), {"day_part=2024"}),
    "identity": ("note", IdentityTransform(), {"note_part=n|9", "note_part=n|10"}),
    "identity of days": ("day", IdentityTransform(), {"day_part=2024-03-22", "day_part=2024-03-31"}),
    "range": ("id", TruncateTransform(10), {"id_part=0", "id_part=10"}),
    "prefix": ("note", TruncateTransform(3), {"note_part=n|9", "note_part=n|1"}),
}


def partitioned_by(column: str, transform: Transform[Any, Any]) -> PartitionSpec:
    field = ORDERS.find_field(column)
    return PartitionSpec(PartitionField(field.field_id, 1000, transform, f"{column}_part"))


@pytest.mark.parametrize("kind", PARTITIONS)
def test_partitions_that_differ_are_named_and_mended(copied: Maker, kind: str) -> None:
    column, transform, names = PARTITIONS[kind]
    copy = copied(ORDERS, arrow_rows(ORDERS, SOME), partitioned_by(column, transform))
    copy.execute("UPDATE copy SET amount = 0.5 WHERE id = 9")
    copy.execute("DELETE FROM copy WHERE id = 10")
    report = copy.verify()
    assert {partition.name for partition in report.partitions} == names
    rows = [(one.rows_in_table, one.rows_in_replica) for one in report.partitions]
    assert sum(in_table - in_replica for in_table, in_replica in rows) == 1
    mend(copy, report)
    assert copy.verify().equal


def mend(copy: Copy, report: ParityReport) -> None:
    mending = repair(report, copy.columns, copy.source)
    condition_sql, values = mending.condition(copy.session, TARGET)
    with copy.session.transaction():
        copy.session.execute(f"DELETE FROM copy WHERE {condition_sql}", *values)
        copy.session.insert(TARGET, copy.columns, encoded(mending.rows(), copy.columns))


def test_rows_before_1970_and_nulls_have_partitions_too(copied: Maker) -> None:
    rows = [
        order(1, at=None),
        order(2, at=datetime(1969, 12, 31, 23, 59, 59, 999999, UTC)),
        order(3, at=datetime(1969, 12, 30, tzinfo=UTC)),
    ]
    copy = copied(ORDERS, arrow_rows(ORDERS, rows), partitioned_by("at", DayTransform()))
    copy.execute("UPDATE copy SET amount = 0")
    report = copy.verify()
    assert [one.name for one in report.partitions] == [
        "at_part=1969-12-30",
        "at_part=1969-12-31",
        "at_part=null",
    ]
    mend(copy, report)
    assert copy.verify().equal


@pytest.mark.parametrize("spec", [PartitionSpec(), partitioned_by("id", BucketTransform(8))])
def test_without_such_partitions_buckets_of_the_key_are_mended(copied: Maker, spec: PartitionSpec) -> None:
    copy = copied(ORDERS, arrow_rows(ORDERS, SOME), spec)
    copy.execute("UPDATE copy SET amount = 0.5 WHERE id = 9")
    report = copy.verify(keys=["id"])
    (partition,) = report.partitions
    remainder = model.limbs("9")[0] % 256
    assert partition.name == f"bucket {remainder} of 256 by id"
    mending = repair(report, copy.columns, copy.source)
    assert mending.parts == (partition.name,)
    same = [n for n in range(40) if model.limbs(str(n))[0] % 256 == remainder]
    assert sorted(mending.rows().read_all()["id"].to_pylist()) == same
    mend(copy, report)
    assert copy.verify().equal


def test_without_partitions_or_a_key_there_is_nothing_to_mend_in_part(orders_copy: Copy) -> None:
    orders_copy.execute("DELETE FROM copy WHERE id = 9")
    report = orders_copy.verify()
    assert report.partitions == ()
    with pytest.raises(ConfigurationError, match="names no part that differs"):
        repair(report, orders_copy.columns, orders_copy.source)


# --- All rows ---


def test_a_full_comparison_names_rows_with_both_values(orders_copy: Copy) -> None:
    orders_copy.execute("UPDATE copy SET amount = 0.5, note = NULL WHERE id = 9")
    orders_copy.execute("DELETE FROM copy WHERE id = 10")
    orders_copy.execute("INSERT INTO copy (id) VALUES (99)")
    report = orders_copy.verify("full", ["id"])
    assert not report.equal
    different, missing, extra = report.rows
    assert (different.kind, missing.kind, extra.kind) == ("different", "missing", "extra")
    assert different.in_table is not None
    assert different.in_replica is not None
    assert different.in_table == SOME[9]
    assert different.in_replica == {**SOME[9], "amount": 0.5, "note": None}
    assert missing.in_table == SOME[10]
    assert extra.in_replica == {**dict.fromkeys(SOME[0]), "id": 99}
    assert {(one.column, one.in_table) for one in report.columns} == {("amount", "1"), ("note", "1")}


def test_a_full_comparison_without_a_key_tells_rows_by_all_values(orders_copy: Copy) -> None:
    orders_copy.execute("UPDATE copy SET amount = 0.5 WHERE id = 9")
    missing, extra = orders_copy.verify("full").rows
    assert (missing.in_table, extra.in_replica) == (SOME[9], {**SOME[9], "amount": 0.5})


def test_more_rows_than_memory_should_hold_are_compared_in_parts(
    copied: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dwh_assets.iceberg.diff.slots.CHUNK_BYTES", 1 << 12)
    rows = [order(n) for n in range(5_000)]
    copy = copied(ORDERS, arrow_rows(ORDERS, rows))
    assert copy.verify("full").equal
    copy.execute("UPDATE copy SET amount = 0.5 WHERE id % 1000 = 9")
    report = copy.verify("full", ["id"])
    assert {row.in_table["id"] for row in report.rows if row.in_table} == {9, 1009, 2009, 3009, 4009}


# --- Versions and columns ---


def test_deleted_rows_and_old_versions_are_compared_as_they_are(
    catalog: SqlCatalog, lake: Path, tmp_path: Path
) -> None:
    upserts = writer(lake, write_mode="upsert", key_columns=["id"])
    rows = arrow_rows(ORDERS, SOME)
    first = upserts.write(rows).snapshot_id
    changed = [order(n, amount=0.5) for n in (3, 4, 50)]
    upserts.write(arrow_rows(ORDERS, changed))
    table = catalog.load_table(NAME)
    assert any(task.delete_files for task in table.scan().plan_files())
    with DuckDBWarehouse(tmp_path / "w.duckdb").open(Purpose(NAME, None)) as session:
        copy = Copy(table, session, loaded(session, table, rows))
        before = open_source(table, NAME, first)
        assert verify(session, TARGET, copy.columns, before).equal
        assert not copy.verify("count")
        # The table remembers its key.
        assert {row.kind for row in copy.verify("full").rows} == {"different", "missing"}
        now = {row["id"]: row for row in [*SOME, *changed]}
        loaded(session, table, arrow_rows(ORDERS, list(now.values())))
        assert all(copy.verify(level).equal for level in ("count", *LEVELS))


def test_a_renamed_column_is_the_same_one(orders_copy: Copy) -> None:
    with orders_copy.table.update_schema() as update:
        update.rename_column("note", "remark")
    orders_copy.table.refresh()
    assert all(orders_copy.verify(level).equal for level in LEVELS)


def test_what_was_not_compared_is_told(orders_copy: Copy) -> None:
    orders_copy.columns = tuple(one for one in orders_copy.columns if one.name != "note")
    with orders_copy.table.update_schema() as update:
        update.delete_column("other")
    orders_copy.table.refresh()
    report = orders_copy.verify()
    assert report.equal
    assert report.not_compared == {
        "note": "the replica has no such column",
        "other": "the table has no such column",
    }
    assert "> note: the replica has no such column" in report.to_markdown()


def test_a_report_is_for_people_and_for_programs(copied: Maker) -> None:
    copy = copied(ORDERS, arrow_rows(ORDERS, SOME), partitioned_by("id", TruncateTransform(10)))
    copy.execute("UPDATE copy SET note = NULL WHERE id = 9")
    report = copy.verify("full", ["id"])
    told = json.loads(json.dumps(report.to_dict()))
    assert told["snapshot_id"] == str(copy.source.snapshot_id)
    assert told["target"] == "main.copy"
    assert told["partitions"] == [{"name": "id_part=0", "rows_in_table": 10, "rows_in_replica": 10}]
    assert told["rows"][0]["in_table"]["note"] == "n|9"
    assert told["rows"][0]["in_replica"]["note"] is None
    shown = report.to_markdown()
    assert "**different**" in shown
    assert "| id_part=0 | 10 | 10 |" in shown
    assert r"note: n\|9" in shown
    assert "note: null" in shown


def test_another_level_is_refused(orders_copy: Copy) -> None:
    level: Any = "some"
    with pytest.raises(ConfigurationError, match="level 'some'"):
        orders_copy.verify(level)
