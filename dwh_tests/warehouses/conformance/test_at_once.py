"""Two syncs at once, and readers beside them."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event

import pyarrow as pa
import pytest
from pyiceberg.types import LongType, StringType

from dwh_assets.errors import UnavailableError
from dwh_tests.iceberg.conftest import Lake
from dwh_tests.warehouses.conformance.expected import require_same
from dwh_tests.warehouses.conformance.places import Place

ROUNDS = 3


def rows(start: int, many: int, item: str) -> pa.Table:
    return pa.table({"id": range(start, start + many), "item": [item] * many})


@pytest.mark.parametrize("first", [True, False], ids=["first load", "changes"])
def test_two_syncs_at_once_double_no_row(place: Place, lake: Lake, first: bool) -> None:
    """Each ends, or one says clearly that another was in its way."""
    lake.write(rows(0, 40, "x"), key_columns=["id"])
    if not first:
        place.replica().sync(lake.catalog)
        lake.write(rows(39, 2, "y"), write_mode="upsert", key_columns=["id"])
    together = Barrier(2)

    def sync(_: int) -> str:
        replica, catalog = place.replica(), Lake(lake.folder, lake.name).catalog
        together.wait(timeout=60)
        try:
            return replica.sync(catalog).method
        except UnavailableError as error:
            return f"held: {error}"

    with ThreadPoolExecutor(2) as pool:
        said = list(pool.map(sync, range(2)))
    assert {"full" if first else "incremental"} <= set(said)
    assert all(one in ("full", "incremental", "none") or "another sync" in one for one in said)
    require_same(place.replica(), lake)


@pytest.mark.parametrize("columns", ["the same columns", "other columns"])
def test_a_reader_never_sees_part_of_a_reload(place: Place, lake: Lake, columns: str) -> None:
    """Every version has forty rows of one and the same item."""
    lake.write(rows(0, 40, "first"))
    place.replica().sync(lake.catalog)
    over = Event()

    def look() -> set[tuple[int, int]]:
        found = set()
        while not over.is_set():
            found |= {
                (int(n), int(k))
                for n, k in place.ask(f"SELECT count(*), count(DISTINCT item) FROM {place.into}")
            }
        return found

    with ThreadPoolExecutor(1) as pool:
        looked = pool.submit(look)
        try:
            for turn in range(ROUNDS):
                if columns == "other columns":
                    change_columns(lake, turn)
                lake.write(
                    rows(0, 40, f"turn {turn}"),
                    write_mode="overwrite",
                    schema_evolution={"enabled": True, "mode": "permissive"},
                )
                assert place.replica().sync(lake.catalog).method == "full"
        finally:
            over.set()
    assert looked.result() == {(40, 1)}
    require_same(place.replica(), lake)


def change_columns(lake: Lake, turn: int) -> None:
    """The column stays in name and goes: another of another type takes its place beside the item."""
    with lake.table.update_schema(allow_incompatible_changes=True) as update:
        if "more" in lake.table.schema().column_names:
            update.delete_column("more")
    with lake.table.update_schema() as update:
        update.add_column("more", LongType() if turn % 2 else StringType(), required=False)
