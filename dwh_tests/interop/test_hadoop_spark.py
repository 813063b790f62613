"""Spark's `type=hadoop` catalog and ours on one warehouse: each changes and drops the other's tables."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from dwh_assets.config import local_path
from dwh_assets.iceberg.catalogs.hadoop import HadoopCatalog
from dwh_tests.servers.spark import Spark

pytestmark = [pytest.mark.interop, pytest.mark.slow, pytest.mark.timeout(600)]

ROWS = pa.schema([("id", pa.int64()), ("name", pa.string())])


def rows(*ids: int) -> pa.Table:
    return pa.table({"id": list(ids), "name": [f"p{i}" for i in ids]}, schema=ROWS)


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory, spark: Spark) -> HadoopCatalog:
    warehouse = (tmp_path_factory.mktemp("spark") / "lake").as_uri()
    spark.use("lake", type="hadoop", warehouse=warehouse)
    return HadoopCatalog("lake", warehouse=warehouse)


def told(spark: Spark, statement: str) -> list[tuple[Any, ...]]:
    """The rows of a statement, each as a tuple."""
    return [tuple(row.values()) for row in spark.sql(statement)]


def seen_by_spark(spark: Spark, table: str) -> list[tuple[Any, ...]]:
    return told(spark, f"SELECT id, name FROM lake.{table} ORDER BY id")


def seen_by_us(catalog: HadoopCatalog, table: str) -> list[tuple[Any, ...]]:
    found = catalog.load_table(table).scan(selected_fields=("id", "name")).to_arrow().to_pylist()
    return sorted((row["id"], row["name"]) for row in found)


def files_of(catalog: HadoopCatalog, table: str) -> set[str]:
    folder = local_path(catalog.load_table(table).metadata_location).parent
    return {
        path.name for path in folder.iterdir() if path.suffix != ".avro" and not path.name.startswith(".")
    }


def test_spark_reads_and_writes_a_table_of_ours(spark: Spark, catalog: HadoopCatalog) -> None:
    catalog.create_namespace("ours")
    table = catalog.create_table("ours.orders", ROWS, properties={"write.delete.mode": "merge-on-read"})
    table.append(rows(1, 2))
    table.append(rows(3))
    assert [row[:2] for row in told(spark, "SHOW TABLES IN lake.ours")] == [("ours", "orders")]
    assert seen_by_spark(spark, "ours.orders") == [(1, "p1"), (2, "p2"), (3, "p3")]

    spark.sql("INSERT INTO lake.ours.orders VALUES (4, 's4')")
    spark.sql("DELETE FROM lake.ours.orders WHERE id = 2")
    expected = [(1, "p1"), (3, "p3"), (4, "s4")]
    assert seen_by_us(catalog, "ours.orders") == expected
    catalog.load_table("ours.orders").append(rows(5))
    expected.append((5, "p5"))
    assert seen_by_spark(spark, "ours.orders") == seen_by_us(catalog, "ours.orders") == expected

    spark.sql("ALTER TABLE lake.ours.orders ADD COLUMN note STRING")
    assert catalog.load_table("ours.orders").schema().column_names == ["id", "name", "note"]
    assert files_of(catalog, "ours.orders") == {f"v{n}.metadata.json" for n in range(1, 8)} | {
        "version-hint.text"
    }
    snapshots = told(spark, "SELECT snapshot_id FROM lake.ours.orders.snapshots")
    assert [(s.snapshot_id,) for s in catalog.load_table("ours.orders").snapshots()] == snapshots


def test_we_read_write_and_drop_a_table_of_spark_s(spark: Spark, catalog: HadoopCatalog) -> None:
    spark.sql("CREATE NAMESPACE lake.theirs")
    spark.sql("CREATE TABLE lake.theirs.orders (id BIGINT, name STRING) USING iceberg PARTITIONED BY (name)")
    spark.sql("INSERT INTO lake.theirs.orders VALUES (1, 's1'), (2, 's2')")
    assert ("theirs",) in catalog.list_namespaces()
    assert catalog.list_tables("theirs") == [("theirs", "orders")]
    catalog.load_table("theirs.orders").append(rows(3))
    catalog.load_table("theirs.orders").transaction().set_properties(team="lake").commit_transaction()
    spark.sql("UPDATE lake.theirs.orders SET name = 's9' WHERE id = 1")
    expected = [(1, "s9"), (2, "s2"), (3, "p3")]
    assert seen_by_spark(spark, "theirs.orders") == seen_by_us(catalog, "theirs.orders") == expected
    shown = {row[0]: row[1] for row in told(spark, "SHOW TBLPROPERTIES lake.theirs.orders")}
    assert shown["team"] == "lake"

    catalog.drop_table("theirs.orders")
    assert told(spark, "SHOW TABLES IN lake.theirs") == []
    catalog.drop_namespace("theirs")
    assert "theirs" not in [row[0] for row in told(spark, "SHOW NAMESPACES IN lake")]


def test_we_follow_where_spark_compresses_and_spark_where_we_do_not(
    spark: Spark, catalog: HadoopCatalog
) -> None:
    spark.sql(
        "CREATE TABLE lake.ours.packed (id BIGINT, name STRING) USING iceberg "
        "TBLPROPERTIES ('write.metadata.compression-codec' = 'gzip')"
    )
    spark.sql("INSERT INTO lake.ours.packed VALUES (1, 's1')")
    table = catalog.load_table("ours.packed")
    assert table.metadata_location.endswith("/v2.gz.metadata.json")
    table.append(rows(2))
    spark.sql("INSERT INTO lake.ours.packed VALUES (3, 's3')")
    expected = [(1, "s1"), (2, "p2"), (3, "s3")]
    assert seen_by_us(catalog, "ours.packed") == seen_by_spark(spark, "ours.packed") == expected


def test_spark_does_without_the_hint_and_drops_our_table(spark: Spark, catalog: HadoopCatalog) -> None:
    table = catalog.create_table("ours.hintless", ROWS)
    table.append(rows(1))
    folder = local_path(table.metadata_location).parent
    (folder / "version-hint.text").unlink()
    assert seen_by_spark(spark, "ours.hintless") == [(1, "p1")]
    spark.sql("INSERT INTO lake.ours.hintless VALUES (2, 's2')")
    assert json.loads((folder / "version-hint.text").read_text()) == 3
    (folder / "version-hint.text").write_text("1")
    table = catalog.load_table("ours.hintless")
    table.append(rows(3))
    assert seen_by_spark(spark, "ours.hintless") == [(1, "p1"), (2, "s2"), (3, "p3")]
    spark.sql("DROP TABLE lake.ours.hintless PURGE")
    assert not catalog.table_exists("ours.hintless")
    assert not Path(folder).exists()
