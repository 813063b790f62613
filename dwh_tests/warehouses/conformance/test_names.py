"""Names and values of every kind: they arrive as they are, or are refused by name before anything is made."""

import pyarrow as pa
import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.schema import Schema
from pyiceberg.types import LongType, NestedField

from dwh_assets.errors import ConfigurationError, DwhError, SchemaError, UnsupportedError
from dwh_tests.iceberg.conftest import Lake
from dwh_tests.warehouses.conformance.exceptions import excepted
from dwh_tests.warehouses.conformance.expected import require_same
from dwh_tests.warehouses.conformance.places import Place

INJECTION = "x'); DROP TABLE _dwh_replicas; --"
NAMES = [
    *(
        "select",
        "Order",
        "É",
        "é",
        "with space",
        "日本語",
        "a.b",
        'say "hi"',
        "back`tick",
        "rowid",
        "%s",
        "?",
    ),
    *("back\\slash", "{0}", INJECTION, 'x"; DROP TABLE _dwh_replicas; --'),
]
TEXTS = [INJECTION, 'x"', "\\", "\\'", "%s", "?", "{}", "`", "$$", ":1", "/*", "日本語 😀", "", " ", "\n\t\0"]


def test_columns_of_any_name(place: Place, catalog: SqlCatalog) -> None:
    taken = [name for name in NAMES if not excepted(place.name, f"column {name}")]
    fields = (NestedField(number, name, LongType(), required=False) for number, name in enumerate(taken, 1))
    table = catalog.create_table("sales.odd", Schema(*fields))
    table.append(pa.table({name: [number, None] for number, name in enumerate(taken)}))
    replica = place.replica(table="sales.odd")
    replica.sync(catalog)
    expected = {name: number for number, name in enumerate(taken)}
    for name, value in expected.items():
        assert replica.read(where={name: value}).read_all().to_pylist() == [expected]
    table.append(pa.table({name: [number + 100] for number, name in enumerate(taken)}))
    table.delete("Order = 1")
    assert replica.sync(catalog).rows_deleted
    assert sorted(replica.read(["select"]).read_all()["select"].to_pylist(), key=repr) == [100, None]
    assert replica.verify(catalog).equal


@pytest.mark.parametrize("name", NAMES)
def test_columns_that_cannot_be_are_refused(place: Place, catalog: SqlCatalog, name: str) -> None:
    if not excepted(place.name, f"column {name}"):
        pytest.skip(f"{place.name} takes it, as the test above shows")
    catalog.create_table("sales.odd", pa.schema([("id", pa.int64()), (name, pa.int64())]))
    replica = place.replica(table="sales.odd")
    with pytest.raises((SchemaError, ConfigurationError, UnsupportedError)) as refused:
        replica.sync(catalog)
    assert repr(name) in str(refused.value)
    assert replica.state() is None


@pytest.mark.parametrize("name", ["select", "Größe", "with space", "a.b", INJECTION, 'x"; DROP TABLE y; --'])
def test_tables_of_any_name(place: Place, catalog: SqlCatalog, name: str) -> None:
    catalog.create_table("sales.orders", pa.schema([("id", pa.int64())])).append(pa.table({"id": [7]}))
    quoted = name.replace('"', '""')
    into = f'{place.schema}."{quoted}"'
    if excepted(place.name, f"table {name}"):
        with pytest.raises(ConfigurationError):
            place.replica(table="sales.orders", into=into)
        return
    replica = place.replica(table="sales.orders", into=into)
    replica.sync(catalog)
    assert replica.target.name == name
    assert replica.read().read_all().to_pylist() == [{"id": 7}]
    replica.drop()
    assert replica.state() is None


def test_names_that_differ_in_case_alone_are_refused(place: Place, catalog: SqlCatalog) -> None:
    catalog.create_table("sales.clash", pa.schema([("Id", pa.int64()), ("ID", pa.int64())]))
    replica = place.replica(table="sales.clash")
    with pytest.raises(SchemaError, match=r"sales\.clash: columns 'Id' and 'ID'"):
        replica.sync(catalog)
    assert replica.state() is None


def test_a_name_that_is_too_long_is_refused(place: Place, catalog: SqlCatalog) -> None:
    long = "n" * 400
    catalog.create_table("sales.long", pa.schema([(long, pa.int64())])).append(pa.table({long: [1]}))
    replica = place.replica(table="sales.long")
    if place.connect().dialect.capabilities.max_identifier_length >= len(long):
        replica.sync(catalog)
        assert replica.read().read_all().to_pylist() == [{long: 1}]
        return
    with pytest.raises(DwhError, match="400 characters"):
        replica.sync(catalog)


def test_a_person_needs_no_quotes(place: Place, catalog: SqlCatalog) -> None:
    table = catalog.create_table("sales.orders", pa.schema([("OrderId", pa.int64()), ("item", pa.string())]))
    table.append(pa.table({"OrderId": [1], "item": ["pen"]}))
    place.replica(table="sales.orders").sync(catalog)
    for columns in ("orderid, ITEM", "OrderId, item"):
        assert [(int(n), item) for n, item in place.ask(f"SELECT {columns} FROM {place.into}")] == [
            (1, "pen")
        ]


def test_values_are_never_sql(place: Place, lake: Lake) -> None:
    """As keys, as values, and as what is asked for."""
    rows = pa.table({"key": TEXTS, "text": TEXTS[::-1]})
    lake.write(rows, key_columns=["key"])
    replica = place.replica()
    replica.sync(lake.catalog)
    require_same(replica, lake)
    for key, text in zip(TEXTS, TEXTS[::-1], strict=True):
        assert replica.read(["text"], {"key": key}).read_all()["text"].to_pylist() == [text]
    changed = pa.table({"key": TEXTS[:4], "text": ["' OR 1=1 --"] * 4})
    lake.write(changed, write_mode="upsert", key_columns=["key"])
    assert replica.sync(lake.catalog).rows_updated == 4
    require_same(replica, lake)


def test_a_thousand_columns(place: Place, catalog: SqlCatalog) -> None:
    names = [f"column_{number}" for number in range(1000)]
    table = catalog.create_table("sales.wide", pa.schema([(name, pa.int64()) for name in names]))
    table.append(pa.table({name: [number, None] for number, name in enumerate(names)}))
    replica = place.replica(table="sales.wide")
    replica.sync(catalog)
    expected = {name: number for number, name in enumerate(names)}
    assert replica.read(where={"column_999": 999}).read_all().to_pylist() == [expected]
    assert replica.verify(catalog).equal
