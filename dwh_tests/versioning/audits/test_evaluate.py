"""Audits find the rows that fail, count them and show some; what cannot be audited is refused before."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dwh_assets.errors import ConfigurationError, DwhError, NotFoundError
from dwh_assets.versioning.audits.candidate import SAMPLE_ROWS, AuditResult
from dwh_assets.versioning.audits.declarations import as_declared
from dwh_assets.versioning.publishing import audit
from dwh_tests.iceberg.conftest import Lake, Row

KEYED: dict[str, Any] = {"write_mode": "upsert", "key_columns": ["id"]}
SCHEMA = pa.schema(
    [
        pa.field("id", pa.int64()),
        pa.field("status", pa.string()),
        pa.field("price", pa.float64()),
        pa.field("paid", pa.decimal128(9, 2)),
        pa.field("day", pa.date32()),
        pa.field("at", pa.timestamp("us", "UTC")),
        pa.field('odd "name"', pa.int32()),
    ]
)


def row(id_: int | None, **values: Any) -> Row:
    plain = {
        "id": id_,
        "status": "open",
        "price": 1.0,
        "paid": Decimal("1.00"),
        "day": date(2013, 1, 1),
        "at": datetime(2013, 1, 1, tzinfo=UTC),
        'odd "name"': 1,
    }
    return {**plain, **values}


def table(*rows: Row) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=SCHEMA)


def audited(lake: Lake, before: int | None, after: int | None, **declared: Any) -> AuditResult:
    assert after is not None
    (result,) = audit(lake.table, before, after, [declared])
    return result


@pytest.fixture
def lake_of_two(lake: Lake) -> tuple[Lake, int, int]:
    """A good row, then a snapshot with good rows and bad ones; the bad row 1 was there before."""
    first = lake.write(table(row(1, status="lost", price=-1.0), row(2))).snapshot_id
    second = lake.write(
        table(
            row(3),
            row(None, status=None, price=None),
            row(5, status="burnt", price=7.5, paid=Decimal("-0.01"), day=date(2012, 12, 31)),
            row(6, price=float("nan"), at=datetime(2014, 1, 1, tzinfo=UTC), **{'odd "name"': 9}),
        )
    ).snapshot_id
    assert first is not None
    assert second is not None
    return lake, first, second


CASES: dict[str, tuple[dict[str, Any], list[int | None]]] = {
    "nulls": ({"kind": "not_null", "columns": ["id", "status"]}, [None]),
    "no nulls": ({"kind": "not_null", "columns": ["day"]}, []),
    "values": ({"kind": "accepted_values", "column": "status", "values": ["open", "shut"]}, [5]),
    "dates": ({"kind": "accepted_values", "column": "day", "values": ["2013-01-01"]}, [5]),
    "decimals": ({"kind": "accepted_values", "column": "paid", "values": ["1.00", 2]}, [5]),
    "range": ({"kind": "range", "column": "price", "min": 0, "max": 5}, [5, 6]),
    "least": ({"kind": "range", "column": "paid", "min": "0.00"}, [5]),
    "greatest": ({"kind": "range", "column": "at", "max": "2013-06-01T00:00:00+00:00"}, [6]),
    "odd names": ({"kind": "range", "column": 'odd "name"', "max": 5}, [6]),
    "sql": ({"kind": "sql", "name": "s", "query": "SELECT id FROM changed WHERE price > 5;"}, [5, 6]),
    "sql over both": (
        {
            "kind": "sql",
            "name": "s",
            "query": "SELECT id FROM branch WHERE id IN (1, 3) EXCEPT SELECT id FROM main",
        },
        [3],
    ),
    "sql that reads twice": (
        {
            "kind": "sql",
            "name": "s",
            "query": "WITH b AS (FROM branch) SELECT x.id FROM b x JOIN b y ON x.id = y.id",
        },
        [1, 2, 3, 5, 6],
    ),
}


@pytest.mark.parametrize(("declared", "failing"), CASES.values(), ids=CASES)
def test_changed_rows_that_fail_are_counted_and_shown(
    lake_of_two: tuple[Lake, int, int], declared: dict[str, Any], failing: list[int | None]
) -> None:
    lake, before, after = lake_of_two
    result = audited(lake, before, after, **declared)
    assert (result.passed, result.rows_failing) == (not failing, len(failing))
    shown = result.sample["id"].to_pylist() if failing else []
    assert sorted(shown, key=lambda value: value or 0) == failing
    assert f"{len(failing)}" in result.detail


def test_without_a_version_before_all_rows_are_audited(lake_of_two: tuple[Lake, int, int]) -> None:
    lake, _, after = lake_of_two
    found = audited(lake, None, after, kind="accepted_values", column="status", values=["open"])
    assert found.rows_failing == 2
    assert audited(lake, None, after, kind="sql", name="s", query="FROM main").rows_failing == 0


def test_a_sample_is_a_sample(lake: Lake) -> None:
    after = lake.write(table(*(row(n, status=None) for n in range(50)))).snapshot_id
    result = audited(lake, None, after, kind="not_null", columns=["status"])
    assert (result.rows_failing, result.sample.num_rows) == (50, SAMPLE_ROWS)
    assert result.sample.column_names == SCHEMA.names


# --- Keys ---


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    old=st.lists(st.sampled_from([1, 2, 3, 4, None]), max_size=6),
    new=st.lists(st.sampled_from([1, 2, 3, 4, None]), min_size=1, max_size=6),
)
def test_keys_of_changed_rows_are_unique_in_the_whole_table(
    tmp_path_factory: pytest.TempPathFactory, old: list[int | None], new: list[int | None]
) -> None:
    lake = Lake(tmp_path_factory.mktemp("keys"))
    before = lake.write(table(*(row(n) for n in old))).snapshot_id
    after = lake.write(table(*(row(n) for n in new))).snapshot_id
    result = audited(lake, before, after, kind="unique", columns=["id"])
    times = Counter([*old, *new])
    expected = {key: times[key] for key in set(new) if key is not None and times[key] > 1}
    assert result.rows_failing == sum(expected.values())
    assert {r["id"]: r["_times"] for r in result.sample.to_pylist()} == expected


def test_a_key_moved_by_an_upsert_is_still_one(lake: Lake) -> None:
    before = lake.write(table(row(1), row(2)), **KEYED).snapshot_id
    after = lake.write(table(row(2, status="shut"), row(3)), **KEYED).snapshot_id
    assert audited(lake, before, after, kind="unique", columns=["id"]).passed
    assert not audited(lake, before, after, kind="unique", columns=["day"]).passed


def test_sql_finds_the_version_before_with_the_columns_of_the_new_one(lake: Lake) -> None:
    before = lake.write(pa.table({"id": [1, 2], "price": pa.array([5, 6], pa.int32())})).snapshot_id
    with lake.catalog.load_table(lake.name).update_schema() as change:
        change.rename_column("price", "cost")
    new = pa.table({"id": [1, 2], "cost": [4, 6], "note": ["a", "b"]})
    after = lake.write(new, write_mode="overwrite").snapshot_id
    query = "FROM branch JOIN main USING (id) WHERE branch.cost < main.cost OR main.note IS NOT NULL"
    result = audited(lake, before, after, kind="sql", name="s", query=f"SELECT id {query}")
    assert result.sample.to_pylist() == [{"id": 1}]


@pytest.fixture
def shops(lake: Lake) -> Lake:
    """A table to refer to, at two versions: shop 3 comes with the second."""
    shops = Lake(lake.folder, "shop.shops")
    shops.write(pa.table({"shop": [1, 2], "name": ["a", "b"]}))
    return shops


def test_what_refers_to_nothing_is_found(lake: Lake, shops: Lake) -> None:
    after = lake.write(table(row(1), row(2), row(3), row(3), row(None))).snapshot_id
    declared: dict[str, Any] = {
        "kind": "foreign_key", "columns": ["id"], "table": "shop.shops", "references": ["shop"],
    }  # fmt: skip
    result = audited(lake, None, after, **declared)
    assert (result.rows_failing, result.sample.to_pylist()) == (2, [{"id": 3, "_times": 2}])
    assert f"at snapshot {shops.table.metadata.current_snapshot_id}" in result.detail
    old = shops.table.metadata.current_snapshot_id
    shops.write(pa.table({"shop": [3], "name": ["c"]}))
    assert audited(lake, None, after, **declared).passed
    read = lake.writer().write(table(row(3)), summary={"dwh.input.shop.shops": str(old)})
    told = audited(lake, after, read.snapshot_id, **declared)
    assert (told.rows_failing, f"at snapshot {old}" in told.detail) == (1, True)


@pytest.mark.parametrize("gone", [False, True])
def test_of_several_versions_that_were_read_the_newest_counts(lake: Lake, shops: Lake, gone: bool) -> None:
    old = shops.table.metadata.current_snapshot_id
    new = shops.write(pa.table({"shop": [3], "name": ["c"]})).snapshot_id
    shops.write(pa.table({"shop": [4], "name": ["d"]}))
    ids = f"{old},17" if gone else f"{new},{old}"
    after = lake.writer().write(table(row(3), row(4)), summary={"dwh.input.shop.shops": ids}).snapshot_id
    result = audited(
        lake, None, after, kind="foreign_key", columns=["id"], table="shop.shops", references=["shop"]
    )
    assert {found["id"] for found in result.sample.to_pylist()} == ({3, 4} if gone else {4})


def test_a_table_may_refer_to_itself(lake: Lake) -> None:
    parents = pa.table({"id": [1, 2], "parent": pa.array([None, 1], pa.int64())})
    after = lake.write(parents).snapshot_id
    declared: dict[str, Any] = {
        "kind": "foreign_key", "columns": ["parent"], "table": "shop.orders", "references": ["id"],
    }  # fmt: skip
    assert audited(lake, None, after, **declared).passed
    later = lake.write(pa.table({"id": [3, 4], "parent": [4, 9]})).snapshot_id
    assert audited(lake, after, later, **declared).sample.to_pylist() == [{"parent": 9, "_times": 1}]


# --- Rows that are written again without a change ---

LOST = row(1, status="lost", price=-1.0)
REWRITES: dict[str, tuple[list[Row], dict[str, Any]]] = {
    "copy-on-write": ([row(2, price=2.0)], {**KEYED, "row_changes": "copy-on-write"}),
    "part of a file": ([row(2, price=2.0)], {"write_mode": "overwrite", "where": "id = 2"}),
    "everything": ([LOST, row(2, price=2.0)], {"write_mode": "overwrite"}),
}


@pytest.mark.parametrize(("rows", "declared"), REWRITES.values(), ids=REWRITES)
def test_rows_beside_the_changed_ones_are_not_audited(
    lake: Lake, rows: list[Row], declared: dict[str, Any]
) -> None:
    """Row 1 fails every audit, and was there before."""
    before = lake.write(table(LOST, row(2))).snapshot_id
    (file,) = lake.data_files()
    after = lake.write(table(*rows), **declared).snapshot_id
    assert file.file_path not in {kept.file_path for kept in lake.data_files()}
    for demanded in (
        {"kind": "accepted_values", "column": "status", "values": ["open"]},
        {"kind": "range", "column": "price", "min": 0},
        {"kind": "sql", "name": "s", "query": "FROM changed WHERE id = 1"},
    ):
        assert audited(lake, before, after, **demanded).passed
    found = audited(lake, before, after, kind="sql", name="s", query="SELECT id, price FROM changed")
    assert found.sample.to_pylist() == [{"id": 2, "price": 2.0}]
    assert audited(lake, before, after, kind="range", column="price", max=1).sample["id"].to_pylist() == [2]


@pytest.mark.parametrize("declared", [{"row_changes": "copy-on-write"}, {}], ids=["copied", "marked"])
def test_keys_that_were_twice_before_fail_only_where_they_changed(
    lake: Lake, declared: dict[str, Any]
) -> None:
    before = lake.write(table(row(1), row(1, price=3.0), row(2))).snapshot_id
    after = lake.write(table(row(2, price=2.0)), **KEYED, **declared).snapshot_id
    assert audited(lake, before, after, kind="unique", columns=["id"]).passed
    later = lake.write(table(row(1, price=2.0)), write_mode="append").snapshot_id
    assert audited(lake, after, later, kind="unique", columns=["id"]).rows_failing == 3


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    old=st.lists(st.sampled_from([1, 2, 3, None]), max_size=6),
    new=st.lists(st.sampled_from([1, 2, 3, None]), max_size=6),
)
def test_what_changed_is_what_the_version_before_has_not(
    tmp_path_factory: pytest.TempPathFactory, old: list[int | None], new: list[int | None]
) -> None:
    """Each row as often as it came: nulls, and rows that are there several times."""
    lake = Lake(tmp_path_factory.mktemp("changed"))
    before = lake.write(table(*(row(n) for n in old))).snapshot_id
    after = lake.write(table(*(row(n) for n in new)), write_mode="overwrite").snapshot_id
    came = Counter(new) - Counter(old)
    found = audited(lake, before, after, kind="sql", name="s", query="SELECT id FROM changed")
    assert Counter(found.sample["id"].to_pylist() if came else []) == came
    nulls = audited(lake, before, after, kind="not_null", columns=["id"])
    assert nulls.rows_failing == came[None]


# --- Number of rows ---


@pytest.mark.parametrize(
    ("bounds", "passed"),
    [
        ({"min_percent": 0}, True),
        ({"max_percent": 100}, True),
        ({"max_percent": 99.9}, False),
        ({"min_percent": 101}, False),
        ({"min_percent": 100, "max_percent": 100}, True),
    ],
)
def test_the_number_of_rows_changes_within_bounds(lake: Lake, bounds: dict[str, float], passed: bool) -> None:
    before = lake.write(table(row(1), row(2)), **KEYED).snapshot_id
    after = lake.write(table(row(1, status="x"), row(3), row(4)), **KEYED).snapshot_id
    result = audited(lake, before, after, kind="row_count_change", **bounds)
    assert (result.passed, "2 rows before, 4 now: +100.00%" in result.detail) == (passed, True)
    assert audited(lake, None, after, kind="row_count_change", **bounds).passed


# --- What is read ---


def test_only_files_that_the_version_before_has_not_are_read(lake: Lake) -> None:
    before = lake.write(table(row(1, status=None))).snapshot_id
    (old,) = lake.data_files()
    after = lake.write(table(row(2))).snapshot_id
    _remove(lake, old.file_path)
    assert audited(lake, before, after, kind="not_null", columns=["status"]).passed


def _remove(lake: Lake, path: str) -> None:
    lake.table.io.delete(path)


# --- Mistakes ---

MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "column": ({"kind": "not_null", "columns": ["ID"]}, "'ID', which is not there"),
    "value": ({"kind": "accepted_values", "column": "id", "values": [1, "one"]}, "'one'"),
    "bound": ({"kind": "range", "column": "day", "min": "soon"}, "'soon'"),
    "no zone": ({"kind": "range", "column": "at", "min": "2013-01-01T00:00:00"}, "'at'"),
    "no bound": ({"kind": "range", "column": "id"}, "min, max or both"),
    "kind": ({"kind": "nonnull", "columns": ["id"]}, "nonnull"),
    "attribute": ({"kind": "not_null", "column": "id"}, "audits.0"),
    "sql column": ({"kind": "sql", "name": "s", "query": "SELECT nix FROM branch"}, "nix"),
    "sql table": ({"kind": "sql", "name": "s", "query": "SELECT * FROM nix"}, "nix"),
    "no select": ({"kind": "sql", "name": "s", "query": "DROP TABLE branch"}, "one SELECT"),
    "two selects": ({"kind": "sql", "name": "s", "query": "SELECT 1; SELECT 2"}, "one SELECT"),
    "a file": ({"kind": "sql", "name": "s", "query": "SELECT * FROM read_csv('/etc/hosts')"}, "disabled"),
    "key type": (
        {"kind": "foreign_key", "columns": ["status"], "table": "shop.shops", "references": ["shop"]},
        r"'status' \(string\) with 'shop' of shop.shops \(long\)",
    ),
    "key column": ({"kind": "foreign_key", "columns": ["id"], "table": "shop.shops"}, "'id', which is not"),
}


@pytest.mark.parametrize(("declared", "said"), MISTAKES.values(), ids=MISTAKES)
def test_what_cannot_be_audited_is_refused(
    lake: Lake, shops: Lake, declared: dict[str, Any], said: str
) -> None:
    after = lake.write(table(row(1))).snapshot_id
    with pytest.raises(ConfigurationError, match=said) as raised:
        audited(lake, None, after, **declared)
    assert isinstance(raised.value, DwhError)
    assert "shop.orders" in raised.value.message


def test_a_table_that_is_not_there_is_refused(lake: Lake) -> None:
    after = lake.write(table(row(1))).snapshot_id
    with pytest.raises(NotFoundError, match=r"shop\.nix"):
        audited(lake, None, after, kind="foreign_key", columns=["id"], table="shop.nix")


def test_results_have_names_of_their_own() -> None:
    declared = as_declared(
        [{"kind": "not_null", "columns": ["a b", "c"]}, {"kind": "unique", "columns": ["c"], "name": "mine"}]
    )
    assert [audit.label for audit in declared] == ["not_null_a_b_c", "mine"]
    with pytest.raises(ValueError, match="two audits are called not_null_c"):
        as_declared([{"kind": "not_null", "columns": ["c"]}] * 2)
    with pytest.raises(ValueError, match="letters, digits and _"):
        as_declared([{"kind": "not_null", "columns": ["c"], "name": "a-b"}])
