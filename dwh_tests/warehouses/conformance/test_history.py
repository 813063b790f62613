"""Replicas that keep history, against a model in plain Python of what the table held when."""

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.types import LongType

from dwh_assets import IcebergWriter, IcebergWriterConfig
from dwh_assets.errors import ConfigurationError, UnsupportedError
from dwh_assets.warehouses.base import Mode
from dwh_tests.warehouses.conformance.places import Place

TABLE = "sales.prices"
SCHEMA = pa.schema([("item", pa.string()), ("price", pa.float64()), ("note", pa.string())])
Rows = dict[str, tuple[float | None, str | None]]


class Shop:
    """A table that is upserted into and deleted from by key, and its replica that keeps history."""

    def __init__(self, folder: Path, mode: Mode, place: Place) -> None:
        config = {
            "catalog": "sql",
            "catalog_config": {
                "uri": f"sqlite:///{folder}/catalog.db",
                "warehouse": (folder / "lake").as_uri(),
            },
            "table": TABLE,
            "write_mode": "upsert",
            "key_columns": ["item"],
        }
        self.writer = IcebergWriter(IcebergWriterConfig.model_validate(config))
        self.catalog = self.writer.catalog
        self.place = place
        self.replica = place.replica(mode, table=TABLE)
        self.versions: list[tuple[datetime, Rows]] = []
        self._rows: Rows = {}

    def put(self, rows: Rows) -> None:
        """Insert and update."""
        data = [{"item": item, "price": price, "note": note} for item, (price, note) in rows.items()]
        self.writer.write(pa.Table.from_pylist(data, schema=SCHEMA))
        self._rows = {**self._rows, **rows}
        self._remember()

    def take(self, item: str) -> None:
        """Delete a row."""
        self.catalog.load_table(TABLE).delete(f"item = '{item}'")
        self._rows = {key: row for key, row in self._rows.items() if key != item}
        self._remember()

    def _remember(self) -> None:
        head = self.catalog.load_table(TABLE).current_snapshot()
        assert head is not None
        self.versions.append((datetime.fromtimestamp(head.timestamp_ms / 1000, UTC), self._rows))

    def query(self, columns: str, order: str = "item") -> list[tuple[Any, ...]]:
        """Ask the warehouse itself; a moment comes as one in UTC."""
        found = self.place.ask(f"SELECT {columns} FROM {self.place.into} ORDER BY {order}")
        return [tuple(_in_utc(value) for value in row) for row in found]

    def as_of(self, when: datetime) -> Rows:
        """What the replica says that the table held then."""
        # Whether it is null is asked: the emulator of Snowflake shows a moment that is null as one in 1970.
        versions = self.query("item, price, note, _dwh_valid_from, _dwh_valid_to, _dwh_valid_to IS NULL")
        found = [row[:3] for row in versions if row[3] <= when and (row[5] or row[4] > when)]
        assert len(found) == len({row[0] for row in found})
        return {item: (price, note) for item, price, note in found}


def _in_utc(value: Any) -> Any:
    return value.astimezone(UTC) if isinstance(value, datetime) else value


def changes_of(versions: list[Rows]) -> Iterator[tuple[str, str, float | None]]:
    """What a changelog of these versions says, by comparing each with the one before."""
    before: Mapping[str, Any] = {}
    for rows in versions:
        for item in sorted({*before, *rows}):
            if item not in rows:
                yield item, "delete", None
            elif item not in before:
                yield item, "insert", rows[item][0]
            elif before[item] != rows[item]:
                yield item, "update", rows[item][0]
        before = rows


def act(shop: Shop, *, sync_each: bool) -> None:
    """Insert, update, delete, bring back; and write a row as it is, which is no change."""
    shop.put({"pen": (1.0, "blue"), "ink": (2.0, None), "nib": (3.0, "x")})
    shop.replica.sync(shop.catalog)
    steps: list[Callable[[], None]] = [
        lambda: shop.put({"pen": (1.5, "blue"), "ink": (2.0, None), "cap": (None, "new")}),
        lambda: shop.take("nib"),
        lambda: shop.put({"pen": (1.0, "blue")}),
        lambda: shop.put({"nib": (9.0, "back")}),
    ]
    for step in steps:
        step()
        if sync_each:
            assert shop.replica.sync(shop.catalog).method == "incremental"
    result = shop.replica.sync(shop.catalog)
    assert result.method == ("none" if sync_each else "incremental")


@pytest.mark.parametrize("sync_each", [True, False], ids=["every version", "at the end"])
def test_merge_into_says_what_the_table_held_when(place: Place, tmp_path: Path, sync_each: bool) -> None:
    shop = Shop(tmp_path, "merge_into", place)
    act(shop, sync_each=sync_each)
    for when, rows in shop.versions:
        assert shop.as_of(when) == rows
    # It never changed: one row, still open.
    assert [item for (item,) in shop.query("item")].count("ink") == 1
    held = {row.pop("item"): tuple(row.values()) for row in shop.replica.read().read_all().to_pylist()}
    assert held == shop.versions[-1][1]
    assert shop.replica.count() == len(held)


@pytest.mark.parametrize("sync_each", [True, False], ids=["every version", "at the end"])
def test_append_only_holds_every_change(place: Place, tmp_path: Path, sync_each: bool) -> None:
    shop = Shop(tmp_path, "append_only", place)
    act(shop, sync_each=sync_each)
    found = shop.query("item, _dwh_change_type, price", "_dwh_valid_from, item")
    assert found == list(changes_of([rows for _, rows in shop.versions]))
    moments = {when for (when,) in shop.query("_dwh_valid_from")}
    assert moments == {when for when, _ in shop.versions}
    with pytest.raises(UnsupportedError, match="append_only"):
        shop.replica.read()


def test_a_rollback_closes_and_opens_now(place: Place, tmp_path: Path) -> None:
    shop = Shop(tmp_path, "merge_into", place)
    shop.put({"pen": (1.0, None)})
    first = shop.catalog.load_table(TABLE).current_snapshot()
    assert first is not None
    shop.put({"pen": (2.0, None), "ink": (5.0, None)})
    shop.replica.sync(shop.catalog)

    shop.replica.sync(shop.catalog, first.snapshot_id)

    assert shop.as_of(datetime.now(UTC)) == shop.versions[0][1]
    assert shop.as_of(shop.versions[1][0]) == shop.versions[1][1]


def test_what_expiry_took_is_told_by_the_difference(place: Place, tmp_path: Path) -> None:
    shop = Shop(tmp_path, "merge_into", place)
    shop.put({"pen": (1.0, None), "ink": (2.0, None), "nib": (3.0, None)})
    shop.replica.sync(shop.catalog)
    held = shop.replica.snapshot_id
    shop.put({"pen": (1.5, None), "cap": (4.0, None)})
    shop.take("nib")
    table = shop.catalog.load_table(TABLE)
    assert held is not None
    table.maintenance.expire_snapshots().by_id(held).commit()

    result = shop.replica.sync(shop.catalog)

    assert (result.method, result.rows_inserted, result.rows_deleted) == ("full", 2, 2)
    assert "expired" in result.reason
    assert shop.as_of(shop.versions[0][0]) == shop.versions[0][1]
    assert shop.as_of(shop.versions[-1][0]) == shop.versions[-1][1]


def test_a_changelog_that_expiry_has_cut_is_never_glossed_over(place: Place, tmp_path: Path) -> None:
    shop = Shop(tmp_path, "append_only", place)
    shop.put({"pen": (1.0, None)})
    shop.replica.sync(shop.catalog)
    held = shop.replica.snapshot_id
    assert held is not None
    shop.put({"pen": (1.5, None)})
    shop.catalog.load_table(TABLE).maintenance.expire_snapshots().by_id(held).commit()
    with pytest.raises(UnsupportedError, match="expired"):
        shop.replica.sync(shop.catalog)
    assert shop.query("item") == [("pen",)]


def test_columns_come_and_go_without_history_being_lost(place: Place, tmp_path: Path) -> None:
    shop = Shop(tmp_path, "merge_into", place)
    shop.put({"pen": (1.0, "blue")})
    shop.replica.sync(shop.catalog)
    with shop.catalog.load_table(TABLE).update_schema() as schema:
        schema.delete_column("note")
        schema.rename_column("price", "amount")
        schema.add_column("stock", LongType())
    table = shop.catalog.load_table(TABLE)
    new = {"item": ["ink"], "amount": [2.0], "stock": [7]}
    table.append(pa.table(new, schema=table.schema().as_arrow()))

    assert shop.replica.sync(shop.catalog).method == "incremental"

    assert shop.query("item, amount, note, stock") == [("ink", 2.0, None, 7), ("pen", 1.0, "blue", None)]


def test_a_table_without_a_key_cannot_be_merged(place: Place, catalog: SqlCatalog) -> None:
    catalog.create_table("sales.loose", SCHEMA)
    replica = place.replica("merge_into", table="sales.loose")
    with pytest.raises(UnsupportedError, match=r"sales\.loose has no key"):
        replica.sync(catalog)


def test_history_is_never_taken_for_rows_nor_replaced_by_them(tmp_path: Path, place: Place) -> None:
    shop = Shop(tmp_path, "merge_into", place)
    act(shop, sync_each=True)
    columns = "item, price, note, _dwh_valid_from"
    before = shop.query(columns, columns)
    copy = place.replica(table=TABLE)

    refused = "is a replica with mode merge_into, and copy was asked for"
    with pytest.raises(ConfigurationError, match=refused):
        copy.sync(shop.catalog)
    with pytest.raises(ConfigurationError, match=refused):
        copy.verify(shop.catalog)
    with pytest.raises(ConfigurationError, match=refused):
        copy.read()

    assert shop.query(columns, columns) == before


def test_a_copy_does_not_begin_to_keep_history(tmp_path: Path, place: Place) -> None:
    shop = Shop(tmp_path, "copy", place)
    shop.put({"pen": (1.0, "blue")})
    shop.replica.sync(shop.catalog)
    keeping = place.replica("merge_into", table=TABLE)
    with pytest.raises(ConfigurationError, match="is a replica with mode copy"):
        keeping.sync(shop.catalog)


def test_columns_that_exchanged_their_names_are_refused(tmp_path: Path, place: Place) -> None:
    shop = Shop(tmp_path, "merge_into", place)
    shop.put({"pen": (1.0, "blue")})
    shop.replica.sync(shop.catalog)
    table = shop.catalog.load_table(TABLE)
    for old, new in (("price", "other"), ("note", "price"), ("other", "note")):
        with table.update_schema() as schema:
            schema.rename_column(old, new)
    with pytest.raises(UnsupportedError, match=r"cannot follow the columns .* exchanged their names"):
        shop.replica.sync(shop.catalog)
    assert shop.query("item, price, note") == [("pen", 1.0, "blue")]
