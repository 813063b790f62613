"""After each kind of write the replica holds the table's rows, having read no more than what changed."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from dwh_assets.warehouses.base import SyncResult
from dwh_tests.iceberg.conftest import Lake
from dwh_tests.iceberg.diff.compaction import compact
from dwh_tests.warehouses.conformance.expected import require_same
from dwh_tests.warehouses.conformance.places import TABLE, Place

SCHEMA = pa.schema(
    [
        ("id", pa.int64()),
        ("part", pa.string()),
        ("ratio", pa.float64()),
        ("price", pa.decimal128(9, 2)),
    ]
)
NAN = float("nan")
MERGE = {
    "clauses": [
        {"when": "matched", "if": "source.price IS NULL", "then": "delete"},
        {"when": "matched", "then": "update"},
        {"when": "not_matched", "then": "insert"},
    ]
}
# Rows of one file that no write touches: what changes is less than the table.
MANY = 30
Step = Callable[[Lake], None]


def row(number: int | None, part: str | None = "a", ratio: float | None = 0.5, price: str = "1.50") -> Any:
    return {"id": number, "part": part, "ratio": ratio, "price": Decimal(price) if price else None}


def rows(*given: Any) -> pa.Table:
    return pa.Table.from_pylist([one if isinstance(one, dict) else row(one) for one in given], SCHEMA)


def write(mode: str, data: pa.Table, **options: Any) -> Step:
    return lambda lake: _written(lake, mode, data, options)


def _written(lake: Lake, mode: str, data: pa.Table, options: dict[str, Any]) -> None:
    lake.write(data, write_mode=mode, **options)


def upsert(row_changes: str, *given: Any) -> Step:
    return write("upsert", rows(*given), key_columns=["id"], row_changes=row_changes)


def delete(where: str) -> Step:
    return lambda lake: lake.table.delete(where)


def roll_back(lake: Lake) -> None:
    """To before the last write, and the compaction that came after it."""
    table = lake.table
    newest = sorted(table.snapshots(), key=lambda snapshot: snapshot.sequence_number or 0)
    table.manage_snapshots().rollback_to_snapshot(newest[-3].snapshot_id).commit()


def several(*steps: Step) -> Step:
    def run(lake: Lake) -> None:
        for step in steps:
            step(lake)

    return run


# What is written, and how much of it a sync reads: rows inserted, updated, deleted. None is a reload.
KEYED: list[tuple[str, Step, tuple[int, int, int] | None]] = [
    ("append", write("append", rows(10, row(11, None), row(12, ratio=NAN))), (3, 0, 0)),
    ("upsert, merge-on-read", upsert("merge-on-read", row(10, "b"), row(13, ratio=-0.0)), (1, 1, 0)),
    ("upsert, copy-on-write", upsert("copy-on-write", row(11, "c"), row(14)), (1, 1, 0)),
    (
        "merge",
        write("merge", rows(row(12, "m"), row(13, price=""), 15), key_columns=["id"], merge=MERGE),
        (1, 1, 1),
    ),
    ("delete", delete("id = 10"), (0, 0, 1)),
    ("rollback", roll_back, (1, 0, 0)),
    ("overwrite a part", write("overwrite", rows(row(30, "z")), where="id >= 14 and id < 100"), (1, 0, 2)),
    (
        "several at once",
        several(upsert("merge-on-read", row(30, "y")), write("append", rows(31)), delete("id = 31")),
        (0, 1, 0),
    ),
    ("overwrite all", write("overwrite", rows(1, 2, row(3, None))), None),
]
UNKEYED: list[tuple[str, Step, tuple[int, int, int] | None]] = [
    ("append copies", write("append", rows(10, 10, 10, row(None), row(None), row(12, ratio=NAN))), (6, 0, 0)),
    ("delete copies", delete("id = 10"), (0, 0, 3)),
    ("signs of zero", write("append", rows(row(13, ratio=0.0), row(13, ratio=-0.0))), (2, 0, 0)),
    (
        "fewer copies",
        write("overwrite", rows(row(12, ratio=NAN), row(12, ratio=NAN)), where="id = 12"),
        (1, 0, 0),
    ),
    ("nulls go", delete("id is null"), (0, 0, 2)),
    ("rollback", roll_back, (2, 0, 0)),
    ("overwrite all", write("overwrite", rows(1, 1, row(None))), None),
]


def counted(result: SyncResult) -> tuple[int, int, int]:
    return result.rows_inserted, result.rows_updated, result.rows_deleted


@pytest.mark.parametrize("keyed", [True, False], ids=["keyed", "unkeyed"])
def test_a_replica_follows_every_write(place: Place, lake: Lake, keyed: bool) -> None:
    first = [row(number, "many") for number in range(100, 100 + MANY)]
    lake.write(rows(*first), **({"key_columns": ["id"]} if keyed else {}))
    replica = place.replica()
    assert replica.sync(lake.catalog).method == "full"
    for name, step, expected in KEYED if keyed else UNKEYED:
        step(lake)
        result = replica.sync(lake.catalog)
        require_same(replica, lake, name)
        if expected is None:
            assert (name, result.method) == (name, "full")
        else:
            assert (name, result.method, *counted(result)) == (name, "incremental", *expected)
        # It is written anew and the same: nobody has to read a row.
        compact(lake.catalog, TABLE, lambda file: file.record_count < MANY)
        unread = replica.sync(lake.catalog)
        assert (unread.method, unread.bytes, counted(unread)) == ("none", 0, (0, 0, 0)), name
        assert replica.snapshot_id == unread.to_snapshot


def test_partitions_are_overwritten(place: Place, lake: Lake) -> None:
    layout: dict[str, Any] = {"partition_spec": [{"field": "part", "transform": "identity"}]}
    lake.write(rows(*(row(n, "many") for n in range(20)), row(50, "a"), row(51, None)), **layout)
    replica = place.replica()
    replica.sync(lake.catalog)
    lake.write(rows(row(52, "a"), row(53, None)), write_mode="overwrite", overwrite="partitions", **layout)
    result = replica.sync(lake.catalog)
    assert (result.method, *counted(result)) == ("incremental", 2, 0, 2)
    require_same(replica, lake)


def test_keys_of_several_columns_may_be_null(place: Place, lake: Lake) -> None:
    """The key is the two, and null is a value of it."""
    keys = {"write_mode": "upsert", "key_columns": ["id", "part"]}
    lake.write(rows(*(row(n, "many") for n in range(20)), row(1), row(1, "b")), **keys)
    replica = place.replica()
    replica.sync(lake.catalog)
    lake.write(rows(row(1, "b", None), row(2, "b")), **keys)
    assert counted(replica.sync(lake.catalog)) == (1, 1, 0)
    lake.table.delete("id = 1 and part = 'a'")
    assert counted(replica.sync(lake.catalog)) == (0, 0, 1)
    require_same(replica, lake)
