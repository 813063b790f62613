"""Apache Spark on the very tables that our writer writes, through the same SQLite catalog.

Each engine reads what the other wrote and goes on from there; a model in plain Python says what the rows are.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.table import Table

from dwh_assets.config import IcebergWriterConfig
from dwh_assets.iceberg.results import WriteResult
from dwh_assets.iceberg.write import IcebergWriter
from dwh_tests.iceberg.model import Column, TableModel, multiset
from dwh_tests.servers.spark import Spark

pytestmark = [pytest.mark.interop, pytest.mark.slow, pytest.mark.timeout(600)]

# A SQL catalog keys its rows by its name, so both engines have to use the same.
CATALOG = "dwh"
Row = dict[str, Any]
MERGE_ON_READ = {f"write.{what}.mode": "merge-on-read" for what in ("delete", "update", "merge")}


class Lake:
    """One warehouse, one SQLite catalog, two engines."""

    def __init__(self, folder: Path, spark: Spark) -> None:
        self.spark = spark
        self._properties = {
            "uri": f"sqlite:///{folder / 'catalog.db'}",
            "warehouse": (folder / "lake").as_uri(),
        }

    def write(self, table: str, data: Any, *, where: str | None = None, **declared: Any) -> WriteResult:
        catalog: dict[str, Any] = {"catalog": "sql", "catalog_config": {"name": CATALOG, **self._properties}}
        return IcebergWriter(IcebergWriterConfig(table=table, **catalog, **declared)).write(data, where=where)

    def upsert(self, table: str, data: Any, **declared: Any) -> WriteResult:
        return self.write(table, data, write_mode="upsert", key_columns=["id"], **declared)

    def load(self, table: str) -> Table:
        return SqlCatalog(CATALOG, **self._properties).load_table(table)

    def by_pyiceberg(self, table: str, snapshot_id: int | None = None) -> list[Row]:
        rows: list[Row] = self.load(table).scan(snapshot_id=snapshot_id).to_arrow().to_pylist()
        return rows

    def by_spark(self, table: str, snapshot_id: int | None = None) -> list[Row]:
        version = "" if snapshot_id is None else f" VERSION AS OF {snapshot_id}"
        found = self.sql(f"SELECT * FROM {CATALOG}.{table}{version}")
        return [{key: bytes(v) if isinstance(v, bytearray) else v for key, v in row.items()} for row in found]

    def sql(self, statement: str) -> list[Row]:
        return self.spark.sql(statement)

    def require(self, table: str, model: TableModel) -> None:
        """See that both engines read what the model holds."""
        expected = multiset(model.now().named())
        assert multiset(self.by_pyiceberg(table)) == expected
        assert multiset(self.by_spark(table)) == expected

    def delete_files(self, table: str) -> list[Row]:
        """The live delete files, as Spark lists them."""
        return self.sql(f"SELECT file_path, record_count, spec_id FROM {CATALOG}.{table}.delete_files")


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory, spark: Spark) -> Lake:
    """Spark, with our catalog as its own."""
    folder = tmp_path_factory.mktemp("spark")
    # The catalog's own tables are made by whoever comes first: here by PyIceberg.
    SqlCatalog(CATALOG, uri=f"sqlite:///{folder / 'catalog.db'}")
    spark.use(
        CATALOG,
        **{
            "type": "jdbc",
            "uri": f"jdbc:sqlite:{folder / 'catalog.db'}?busy_timeout=60000",
            "jdbc.schema-version": "V1",
            "warehouse": (folder / "lake").as_uri(),
        },
    )
    return Lake(folder, spark)


# --- Rows ---

POINT = pa.struct([("x", pa.int32()), ("y", pa.string())])
SCHEMA = pa.schema(
    [
        ("id", pa.int32()),
        ("region", pa.string()),
        ("amount", pa.decimal128(9, 2)),
        ("day", pa.date32()),
        ("ratio", pa.float32()),
        ("raw", pa.binary()),
        ("point", POINT),
        ("tags", pa.list_(pa.string())),
    ]
)


def full_row(n: int, region: str) -> Row:
    """A row with a value of every kind; every fourth one has nulls."""
    row = {
        "id": n,
        "region": region,
        "amount": Decimal(n).scaleb(-2),
        "day": dt.date(2024, 1 + n % 3, 1),
        "ratio": n / 4,
        "raw": bytes([n, 255]),
        "point": {"x": n, "y": None},
        "tags": ["a", None] if n % 2 else [],
    }
    return row if n % 4 else {**dict.fromkeys(row), "id": n, "region": region}


def plain(*rows: tuple[int, str, int]) -> tuple[pa.Table, list[Row]]:
    """Rows of id, region and amount, as Arrow and as dictionaries."""
    named = [dict(zip(("id", "region", "amount"), row, strict=True)) for row in rows]
    schema = pa.schema([("id", pa.int64()), ("region", pa.string()), ("amount", pa.int64())])
    return pa.Table.from_pylist(named, schema=schema), named


def plain_model() -> TableModel:
    return TableModel([Column(1, "id", "long"), Column(2, "region", "string"), Column(3, "amount", "long")])


def make_by_spark(lake: Lake, name: str, **properties: str) -> None:
    told = ", ".join(f"'{key}' = '{value}'" for key, value in (MERGE_ON_READ | properties).items())
    lake.sql(f"CREATE NAMESPACE IF NOT EXISTS {CATALOG}.theirs")
    lake.sql(
        f"CREATE TABLE {CATALOG}.{name} (id BIGINT, region STRING, amount BIGINT) USING iceberg "
        f"PARTITIONED BY (region) TBLPROPERTIES ({told})"
    )


def insert_by_spark(lake: Lake, name: str, model: TableModel, *rows: tuple[int, str, int]) -> None:
    """Insert the rows as one file for each region."""
    values = ", ".join(str(row) for row in rows)
    lake.sql(
        f"INSERT INTO {CATALOG}.{name} SELECT /*+ COALESCE(1) */ * FROM VALUES {values} AS v(id, region, n)"
    )
    model.append(plain(*rows)[1])


# --- Spark reads what we write ---


def test_spark_reads_all_that_we_write(lake: Lake) -> None:
    name = "ours.everything"
    model = TableModel([Column(n, field.name, str(field.type)) for n, field in enumerate(SCHEMA, 1)])

    def arrow(rows: list[Row]) -> pa.Table:
        return pa.Table.from_pylist(rows, schema=SCHEMA)

    rows = [full_row(n, "north" if n % 2 else "south") for n in range(1, 13)]
    results = [lake.upsert(name, arrow(rows))]
    model.upsert(rows, ["id"])
    model.commit(results[-1].snapshot_id or 0)

    rows = [full_row(n, "west") for n in (20, 21)]
    results.append(lake.write(name, arrow(rows), partition_spec=[{"field": "region"}]))
    model.append(rows)
    model.commit(results[-1].snapshot_id or 0)

    rows = [{**full_row(n, "west"), "tags": ["changed"]} for n in (1, 2, 20, 30)]
    results.append(lake.upsert(name, arrow(rows)))
    model.upsert(rows, ["id"])
    model.commit(results[-1].snapshot_id or 0)
    assert results[-1].delete_files_added

    rows = [full_row(n, "north") for n in (40, 41)]
    results.append(lake.write(name, arrow(rows), where="region = 'north'", write_mode="overwrite"))
    model.overwrite(rows, lambda row: row["region"] == "north")
    model.commit(results[-1].snapshot_id or 0)

    lake.require(name, model)
    for snapshot_id, moment in model.snapshots.items():
        assert multiset(lake.by_spark(name, snapshot_id)) == multiset(moment.named())


def test_spark_reads_columns_that_we_added_and_widened(lake: Lake) -> None:
    name = "ours.columns"
    model = TableModel([Column(1, "id", "int"), Column(2, "ratio", "float")])
    first = [{"id": n, "ratio": n / 4} for n in range(1, 6)]
    lake.upsert(name, pa.Table.from_pylist(first, pa.schema([("id", pa.int32()), ("ratio", pa.float32())])))
    model.upsert(first, ["id"])
    wide = pa.schema([("id", pa.int64()), ("ratio", pa.float64()), ("note", pa.string())])
    second = [{"id": 2**40, "ratio": 0.1, "note": "new"}, {"id": 2, "ratio": 0.5, "note": "late"}]
    lake.upsert(name, pa.Table.from_pylist(second, wide))
    model.add_column("note", "string")
    model.upsert(second, ["id"])
    lake.require(name, model)
    types = {row["col_name"]: row["data_type"] for row in lake.sql(f"DESCRIBE {CATALOG}.{name}")}
    assert {"id": "bigint", "ratio": "double", "note": "string"}.items() <= types.items()


def test_spark_reads_every_partitioning_and_the_sort_order_of_each_file(lake: Lake) -> None:
    name = "ours.layouts"
    model = plain_model()
    layouts: list[dict[str, Any]] = [
        {},
        {"partition_spec": [{"field": "region"}], "sort_order": [{"field": "amount", "direction": "desc"}]},
        {"partition_spec": [{"field": "id", "transform": "bucket[4]"}], "sort_order": [{"field": "id"}]},
        {"partition_spec": [{"field": "id", "transform": "truncate[10]"}, {"field": "region"}]},
    ]
    for number, layout in enumerate(layouts):
        data, rows = plain(*((10 * number + n, "ab"[n % 2], n) for n in range(8)), (1, "c", number))
        lake.upsert(name, data.slice(0, 8) if number == 0 else data, **layout)
        model.upsert(rows[:8] if number == 0 else rows, ["id"])
        lake.require(name, model)
    table = lake.load(name)
    files = lake.sql(f"SELECT spec_id, sort_order_id FROM {CATALOG}.{name}.files WHERE content = 0")
    # A layout without a sort order leaves the table's as it is.
    orders = {file["spec_id"]: file["sort_order_id"] for file in files}
    assert orders == {0: None, 1: 1, 2: 2, 3: 2} or orders == {0: 0, 1: 1, 2: 2, 3: 2}
    assert table.sort_order().order_id == 2
    # Spark finds a partition's rows by the bounds and values that we wrote.
    for region in "abc":
        counted = lake.sql(f"SELECT count(*) AS n FROM {CATALOG}.{name} WHERE region = '{region}'")
        assert counted == [{"n": sum(row["region"] == region for row in model.now().named())}]
    for id_ in (1, 13, 30):
        found = lake.sql(f"SELECT * FROM {CATALOG}.{name} WHERE id = {id_}")
        assert found == [row for row in model.now().named() if row["id"] == id_]


# --- We read and change what Spark writes ---


@pytest.mark.parametrize("granularity", ["file", "partition"])
def test_we_upsert_over_deletes_of_spark(lake: Lake, granularity: str) -> None:
    name = f"theirs.deletes_by_{granularity}"
    model = plain_model()
    make_by_spark(lake, name, **{"write.delete.granularity": granularity})
    insert_by_spark(lake, name, model, *((n, "a" if n < 6 else "b", n) for n in range(12)))
    insert_by_spark(lake, name, model, *((n, "a", n) for n in range(12, 18)))
    lake.sql(f"DELETE FROM {CATALOG}.{name} WHERE id IN (1, 7, 13)")
    model.delete(lambda row: row["id"] in (1, 7, 13))
    lake.sql(
        f"MERGE INTO {CATALOG}.{name} AS t USING (SELECT * FROM VALUES (2, 'a', 200), (14, 'b', 140), "
        "(50, 'c', 50) AS v(id, region, amount)) AS s ON t.id = s.id "
        "WHEN MATCHED THEN UPDATE SET * WHEN NOT MATCHED THEN INSERT *"
    )
    model.upsert(plain((2, "a", 200), (14, "b", 140), (50, "c", 50))[1], ["id"])
    lake.require(name, model)
    assert lake.delete_files(name)

    data, rows = plain((1, "a", -1), (2, "a", -2), (7, "b", -7), (8, "b", 8), (14, "a", -14), (15, "a", -15))
    result = lake.upsert(name, data)
    # 1 and 7 were deleted, so they are new; 8 is as it was.
    assert (result.rows_inserted, result.rows_updated, result.rows_unchanged) == (2, 3, 1)
    model.upsert(rows, ["id"])
    lake.require(name, model)

    # A file goes with its own delete files; one that other files need stays.
    lake.upsert(name, plain((0, "a", 0), (3, "a", -3))[0], row_changes="copy-on-write")
    model.upsert(plain((0, "a", 0), (3, "a", -3))[1], ["id"])
    lake.require(name, model)
    lake.write(name, plain((9, "b", 9))[0], where="region = 'b'", write_mode="overwrite")
    model.overwrite(plain((9, "b", 9))[1], lambda row: row["region"] == "b")
    lake.require(name, model)
    lake.write(name, plain((9, "a", 9))[0], write_mode="overwrite")
    model.overwrite(plain((9, "a", 9))[1], lambda row: True)
    lake.require(name, model)
    assert lake.delete_files(name) == []


def test_we_match_columns_that_spark_renamed_and_promoted(lake: Lake) -> None:
    name = "theirs.renamed"
    lake.sql(f"CREATE NAMESPACE IF NOT EXISTS {CATALOG}.theirs")
    lake.sql(
        f"CREATE TABLE {CATALOG}.{name} (id INT, label STRING, ratio FLOAT, price DECIMAL(6, 2)) "
        "USING iceberg"
    )
    lake.sql(
        f"INSERT INTO {CATALOG}.{name} VALUES (1, 'a', 0.25, 1.5), (2, 'b', 0.5, 2.5), (3, 'c', 0.75, 3.5)"
    )
    for change in (
        "RENAME COLUMN label TO title",
        "ALTER COLUMN id TYPE BIGINT",
        "ALTER COLUMN ratio TYPE DOUBLE",
        "ALTER COLUMN price TYPE DECIMAL(12, 2)",
        # A new column under an old name is another column.
        "ADD COLUMN label STRING",
    ):
        lake.sql(f"ALTER TABLE {CATALOG}.{name} {change}")
    schema = pa.schema(
        [
            ("id", pa.int64()),
            ("title", pa.string()),
            ("ratio", pa.float64()),
            ("price", pa.decimal128(12, 2)),
            ("label", pa.string()),
        ]
    )
    rows = [
        {"id": 1, "title": "a", "ratio": 0.25, "price": Decimal("1.50"), "label": None},
        {"id": 2, "title": "b", "ratio": 0.1, "price": Decimal("123456789.00"), "label": "x"},
        {"id": 2**40, "title": "z", "ratio": None, "price": None, "label": None},
    ]
    result = lake.upsert(name, pa.Table.from_pylist(rows, schema))
    assert (result.rows_unchanged, result.rows_updated, result.rows_inserted) == (1, 1, 1)
    third = {"id": 3, "title": "c", "ratio": 0.75, "price": Decimal("3.50"), "label": None}
    expected = multiset([*rows, third])
    assert multiset(lake.by_pyiceberg(name)) == multiset(lake.by_spark(name)) == expected


def test_compaction_by_spark_between_our_upserts_changes_no_row(lake: Lake) -> None:
    name = "ours.compacted"
    model = plain_model()
    layout: dict[str, Any] = {"partition_spec": [{"field": "region"}]}
    for turn in (0, 1):
        data, rows = plain(*((n, "ab"[n % 2], 100 * turn + n) for n in range(4 * turn, 4 * turn + 10)))
        lake.upsert(name, data, **layout)
        model.upsert(rows, ["id"])
    compact(lake, name)
    lake.require(name, model)
    data, rows = plain(*((n, "ab"[n % 2], 200 + n) for n in range(8, 18)))
    result = lake.upsert(name, data, **layout)
    model.upsert(rows, ["id"])
    compact(lake, name)
    lake.require(name, model)
    unchanged = lake.upsert(name, data, **layout)
    assert not unchanged.changed
    assert unchanged.rows_unchanged == 10
    # The newest snapshot is the compaction; the newest that changed rows is still ours.
    assert unchanged.snapshot_id != result.snapshot_id
    assert unchanged.logical_snapshot_id == result.snapshot_id
    # Spark may leave delete files that mark nothing any more: they count in the summary, not in the result.
    assert unchanged.total_rows == len(model.rows)


def test_a_compaction_that_lands_during_an_upsert_doubles_no_key(lake: Lake) -> None:
    name = "ours.overtaken"
    model = plain_model()
    data, rows = plain(*((n, "a", n) for n in range(20)))
    lake.upsert(name, data)
    model.upsert(rows, ["id"])
    data, rows = plain((1, "a", -1), (2, "a", -2))
    lake.upsert(name, data)
    model.upsert(rows, ["id"])
    data, rows = plain((2, "a", -20), (3, "a", -30), (99, "a", 99))

    def interrupted() -> Iterator[pa.RecordBatch]:
        yield data.slice(0, 1).to_batches()[0]
        compact(lake, name)
        yield from data.slice(1).to_batches()

    result = lake.upsert(name, interrupted())
    model.upsert(rows, ["id"])
    assert (result.attempts, result.rows_updated, result.rows_inserted) == (2, 2, 1)
    lake.require(name, model)


def compact(lake: Lake, name: str) -> None:
    """Let Spark write every file again, without the rows that are marked."""
    done = lake.sql(
        f"CALL {CATALOG}.system.rewrite_data_files(table => '{name}', options => map('rewrite-all', 'true'))"
    )
    assert done[0]["rewritten_data_files_count"] > 0
