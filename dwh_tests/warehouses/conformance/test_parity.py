"""The same proof in every warehouse: what DuckDB computes of the lake, each computes in its own SQL."""

from operator import itemgetter
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
from dwh_assets.warehouses.parity import verify
from dwh_assets.warehouses.parity_report import Level, ParityReport
from dwh_assets.warehouses.replica import Replica
from dwh_assets.warehouses.session import Purpose
from dwh_assets.warehouses.sides import ReplicaSide
from dwh_assets.warehouses.source import open_source
from dwh_tests.warehouses.canonical_values import EDGES
from dwh_tests.warehouses.conformance.exceptions import excepted
from dwh_tests.warehouses.conformance.places import Place
from dwh_tests.warehouses.test_parity import NAME, ORDERS, SOME, arrow_rows, writer


def replicated(
    place: Place,
    catalog: SqlCatalog,
    folder: Path,
    schema: Schema,
    rows: list[dict[str, Any]],
    spec: PartitionSpec | None = None,
) -> Replica:
    catalog.create_table(NAME, schema, partition_spec=spec or PartitionSpec())
    writer(folder).write(arrow_rows(schema, rows))
    replica = place.replica(table=NAME)
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


def test_every_type_is_proved_equal(place: Place, catalog: SqlCatalog, folder: Path) -> None:
    kinds = {kind: edge for kind, edge in EDGES.items() if not excepted(place.name, f"types[{kind}]")}
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
    replica = replicated(place, catalog, folder, schema, rows)
    report = verified(replica, catalog)
    assert report.equal, report.to_markdown()
    left_out = {kind for (kind, (iceberg, _)) in kinds.items() if not iceberg.is_primitive}
    names = {f"c{n}" for n, kind in enumerate(kinds) if kind in left_out}
    assert set(report.not_compared) == (set() if "duckdb" in replica.warehouse else names)
    full = verified(replica, catalog, "full")
    assert full.equal, full.to_markdown()
    # And by what was written, without the library's own proof
    found = sorted(replica.read().read_all().to_pylist(), key=itemgetter("id"))
    assert repr(found) == repr(arrow_rows(schema, rows).to_pylist())
    by_kind = {kind: f"c{n}" for n, kind in enumerate(kinds)}
    for kind in ("string", "date", "long", "boolean"):
        if kind in by_kind:
            value = kinds[kind][1][-1]
            matching = replica.read(["id"], {by_kind[kind]: value}).read_all()["id"].to_pylist()
            assert sorted(matching) == [row["id"] for row in rows if row[by_kind[kind]] == value]


PARTITIONS: list[tuple[str, Transform[Any, Any], str]] = [
    ("at", DayTransform(), "at_part=2024-03-16"),
    ("id", TruncateTransform(10), "id_part=0"),
    ("note", IdentityTransform(), "note_part=n|9"),
    ("note", TruncateTransform(2), "note_part=n|"),
]


@pytest.mark.parametrize(("column", "transform", "name"), PARTITIONS)
def test_what_differs_is_named(
    place: Place, catalog: SqlCatalog, folder: Path, column: str, transform: Any, name: str
) -> None:
    field = ORDERS.find_field(column)
    spec = PartitionSpec(PartitionField(field.field_id, 1000, transform, f"{column}_part"))
    replica = replicated(place, catalog, folder, ORDERS, SOME, spec)
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
    place: Place, catalog: SqlCatalog, folder: Path
) -> None:
    replica = replicated(place, catalog, folder, ORDERS, SOME)
    report = verified(replica, catalog, update_sql="UPDATE {} SET note = NULL WHERE id = 9")
    assert {(one.column, one.figure) for one in report.columns} >= {("note", "nulls"), ("note", "hash")}
    assert len(report.partitions) == 1
    (row,) = verified(replica, catalog, "full").rows
    assert row.in_table is not None
    assert row.in_replica is not None
    assert (row.in_table["note"], row.in_replica["note"]) == ("n|9", None)
