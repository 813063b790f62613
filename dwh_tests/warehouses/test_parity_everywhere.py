"""The same proof in every warehouse: what DuckDB computes of the lake, each computes in its own SQL."""

import secrets
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.transforms import DayTransform, IdentityTransform, Transform, TruncateTransform
from pyiceberg.types import LongType, NestedField

from dwh_assets.warehouses.columns import replica_columns
from dwh_assets.warehouses.dialect import TypeOptions
from dwh_assets.warehouses.duckdb.warehouse import DuckDBWarehouse
from dwh_assets.warehouses.parity import verify
from dwh_assets.warehouses.parity_report import Level, ParityReport
from dwh_assets.warehouses.replica import Replica
from dwh_assets.warehouses.session import Purpose
from dwh_assets.warehouses.sides import ReplicaSide
from dwh_assets.warehouses.source import open_source
from dwh_tests.warehouses.canonical_values import EDGES
from dwh_tests.warehouses.test_parity import NAME, ORDERS, SOME, arrow_rows, writer

pytestmark = pytest.mark.server


@pytest.fixture
def duckdb_warehouse(tmp_path: Path) -> tuple[Any, str]:
    return DuckDBWarehouse(tmp_path / "w.duckdb"), "main.copy"


@pytest.fixture
def snowflake_warehouse(fakesnow: Any) -> tuple[Any, str]:
    from dwh_assets.warehouses.snowflake.warehouse import SnowflakeWarehouse

    database = f"DB_{secrets.token_hex(4)}".upper()
    return SnowflakeWarehouse(partial(fakesnow.connect, database, network_timeout=2)), "PUBLIC.COPY_OF_IT"


@pytest.fixture
def bigquery_warehouse(local_bigquery: Any) -> Iterator[tuple[Any, str]]:
    from dwh_assets.warehouses.bigquery.warehouse import BigQueryWarehouse

    dataset = f"d_{secrets.token_hex(5)}"
    with local_bigquery.client() as client:
        client.create_dataset(dataset)
        yield BigQueryWarehouse(local_bigquery.client), f"{dataset}.copy_of_it"
        client.delete_dataset(dataset, delete_contents=True, not_found_ok=True)


@pytest.fixture(params=["duckdb", "snowflake", "bigquery"])
def warehouse(request: pytest.FixtureRequest) -> tuple[Any, str]:
    found: tuple[Any, str] = request.getfixturevalue(f"{request.param}_warehouse")
    return found


def replicated(
    warehouse: tuple[Any, str],
    catalog: SqlCatalog,
    lake: Path,
    schema: Schema,
    rows: list[dict[str, Any]],
    spec: PartitionSpec | None = None,
) -> Replica:
    catalog.create_table(NAME, schema, partition_spec=spec or PartitionSpec())
    writer(lake).write(arrow_rows(schema, rows))
    opened, into = warehouse
    replica: Replica = opened.replica(NAME, into)
    replica.sync(catalog)
    return replica


def verified(
    replica: Replica, catalog: SqlCatalog, level: Level = "fingerprint", update_sql: str = ""
) -> ParityReport:
    with replica.sessions.open(Purpose(NAME, None)) as session:
        source = open_source(catalog, NAME, None)
        columns = replica_columns(source.schema, session.dialect, TypeOptions(), NAME)
        if update_sql:
            session.execute(update_sql.format(session.dialect.qualify(replica.target)))
        return verify(session, replica.target, columns, source, level, keys=["id"])


# What the emulators cannot hold, or hold otherwise than the services
ABSENT = {
    "bigquery": {
        "decimal(38,38)": "its BIGNUMERIC has 18 places",
        "decimal(38,10)": "its BIGNUMERIC has 20 digits",
    },
    "snowflake": {"long": "its NUMBER(38, 0) has 64 bits, which -2^63 needs a digit more than"},
}


def test_every_type_is_proved_equal(warehouse: tuple[Any, str], catalog: SqlCatalog, lake: Path) -> None:
    absent = ABSENT.get(warehouse[0].dialect.capabilities.warehouse, {})
    kinds = {kind: edge for kind, edge in EDGES.items() if kind not in absent}
    columns = [
        NestedField(1000 + n, f"c{n}", iceberg, required=False)
        for n, (iceberg, _) in enumerate(kinds.values())
    ]
    schema = Schema(NestedField(1, "id", LongType(), required=False), *columns)
    values = {f"c{n}": [*edges, None] for n, (_, edges) in enumerate(kinds.values())}
    rows = [
        {"id": n, **{name: some[n % len(some)] for name, some in values.items()}}
        for n in range(max(map(len, values.values())))
    ]
    replica = replicated(warehouse, catalog, lake, schema, rows)
    report = verified(replica, catalog)
    assert report.equal, report.to_markdown()
    left_out = {kind for (kind, (iceberg, _)) in kinds.items() if not iceberg.is_primitive}
    names = {f"c{n}" for n, kind in enumerate(kinds) if kind in left_out}
    assert set(report.not_compared) == (set() if replica.warehouse == "duckdb" else names)
    full = verified(replica, catalog, "full")
    assert full.equal, full.to_markdown()


PARTITIONS: list[tuple[str, Transform[Any, Any], str]] = [
    ("at", DayTransform(), "at_part=2024-03-16"),
    ("id", TruncateTransform(10), "id_part=0"),
    ("note", IdentityTransform(), "note_part=n|9"),
    ("note", TruncateTransform(2), "note_part=n|"),
]


@pytest.mark.parametrize(("column", "transform", "name"), PARTITIONS)
def test_what_differs_is_named(
    warehouse: tuple[Any, str], catalog: SqlCatalog, lake: Path, column: str, transform: Any, name: str
) -> None:
    field = ORDERS.find_field(column)
    spec = PartitionSpec(PartitionField(field.field_id, 1000, transform, f"{column}_part"))
    replica = replicated(warehouse, catalog, lake, ORDERS, SOME, spec)
    report = verified(replica, catalog, update_sql="UPDATE {} SET amount = 0.5 WHERE id = 9")
    assert {(one.column, one.figure) for one in report.columns} == {("amount", "hash")}
    assert [one.name for one in report.partitions] == [name]
    with replica.sessions.open(Purpose(NAME, None)) as session:
        side = ReplicaSide(session, replica.target)
        condition_sql, values = report.grouping.condition(side, report.groups)
        table_sql = session.dialect.qualify(replica.target)
        found = session.fetch(f"SELECT COUNT(*) FROM {table_sql} WHERE {condition_sql}", *values)
    assert int(found[0][0]) == report.partitions[0].rows_in_replica


def test_without_partitions_a_bucket_of_the_key_is_named(
    warehouse: tuple[Any, str], catalog: SqlCatalog, lake: Path
) -> None:
    replica = replicated(warehouse, catalog, lake, ORDERS, SOME)
    report = verified(replica, catalog, update_sql="UPDATE {} SET note = NULL WHERE id = 9")
    assert {(one.column, one.figure) for one in report.columns} >= {("note", "nulls"), ("note", "hash")}
    assert len(report.partitions) == 1
    (row,) = verified(replica, catalog, "full").rows
    assert row.in_table is not None
    assert row.in_replica is not None
    assert (row.in_table["note"], row.in_replica["note"]) == ("n|9", None)
