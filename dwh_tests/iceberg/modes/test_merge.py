"""Merges against SQL's MERGE written as loops over dictionaries."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pytest
from pydantic import ValidationError
from pyiceberg.table.update import AssertRefSnapshotId

from dwh_assets.errors import ConfigurationError, DataError
from dwh_assets.iceberg.matching import source_rows
from dwh_assets.iceberg.matching.live_rows import live_rows
from dwh_assets.iceberg.write import WriteResult
from dwh_tests.iceberg.conftest import Lake, Row, multiset

Test = Callable[[Row, Row], bool]
Setter = Callable[[Row, Row], Any]
KEYED: dict[str, Any] = {"write_mode": "merge", "key_columns": ["id"]}
NOTHING: Row = {}


@dataclass
class Clause:
    """A clause in SQL, and the same in Python."""

    declared: Row
    test: Test = lambda source, target: True
    sets: dict[str, Setter] | None = None


def merged(
    before: list[Row], data: list[Row], on: Test, clauses: list[Clause]
) -> tuple[list[Row], list[int]]:
    """The rows after SQL's MERGE, and how many were inserted, updated, deleted and left as they were."""
    after: list[Row] = []
    inserted = updated = deleted = unchanged = 0
    columns = list(before[0])

    def first(when: str, source: Row, target: Row) -> Clause | None:
        candidates = (c for c in clauses if c.declared["when"] == when)
        return next((c for c in candidates if c.test(source, target)), None)

    def values(clause: Clause, source: Row, target: Row) -> Row:
        if clause.sets is None:
            return {name: source[name] for name in columns}
        kept = target or dict.fromkeys(columns)
        return {**kept, **{name: make(source, target) for name, make in clause.sets.items()}}

    for target in before:
        partners = [source for source in data if on(source, target)]
        pairs = [(s, first("matched", s, target)) for s in partners]
        if not partners:
            pairs = [(NOTHING, first("not_matched_by_source", NOTHING, target))]
        changing = [(source, clause) for source, clause in pairs if clause]
        assert len(changing) < 2, "the test's own data break the rule"
        if not changing:
            after.append(target)
            continue
        source, clause = changing[0]
        assert clause is not None
        if clause.declared["then"] == "delete":
            deleted += 1
            continue
        new = values(clause, source, target)
        updated, unchanged = updated + (new != target), unchanged + (new == target)
        after.append(new)
    for source in data:
        chosen = first("not_matched", source, NOTHING)
        if chosen and not any(on(source, target) for target in before):
            inserted += 1
            after.append(values(chosen, source, NOTHING))
    return after, [inserted, updated, deleted, unchanged]


def told(result: WriteResult) -> list[int]:
    return [result.rows_inserted, result.rows_updated, result.rows_deleted, result.rows_unchanged]


def table(rows: list[Row], **types: pa.DataType) -> pa.Table:
    default = {"id": pa.int64(), "v": pa.int64(), "t": pa.string(), "op": pa.string()}
    fields = [(name, types.get(name, default[name])) for name in rows[0]]
    return pa.Table.from_pylist(rows, pa.schema(fields))


def exceeds(one: int | None, other: int | None) -> bool:
    """As SQL compares: nothing exceeds null, and null nothing."""
    return one is not None and other is not None and one > other


UPDATE: Row = {"when": "matched", "then": "update"}
DELETE: Row = {"when": "matched", "then": "delete"}
INSERT: Row = {"when": "not_matched", "then": "insert"}
ALL = [Clause(UPDATE), Clause(INSERT)]
CASES: dict[str, list[Clause]] = {
    "update and insert": ALL,
    "insert only": [Clause(INSERT)],
    "delete only": [Clause(DELETE)],
    "changes of a source": [
        Clause({**DELETE, "if": "source.op = 'd'"}, lambda s, t: s["op"] == "d"),
        Clause({**UPDATE, "if": "source.v > target.v"}, lambda s, t: exceeds(s["v"], t["v"])),
        Clause({**INSERT, "if": "op <> 'd'"}, lambda s, t: s["op"] != "d"),
    ],
    "set some": [
        Clause(
            {
                **UPDATE,
                "if": "target.t IS NOT NULL",
                "set": {"v": "coalesce(target.v, 0) + 1", "t": "upper(source.t)"},
            },
            lambda s, t: t["t"] is not None,
            {"v": lambda s, t: (t["v"] or 0) + 1, "t": lambda s, t: s["t"] and s["t"].upper()},
        ),
        Clause(
            {**INSERT, "set": {"id": "source.id", "v": "NULL", "t": "'new'"}},
            sets={"id": lambda s, t: s["id"], "v": lambda s, t: None, "t": lambda s, t: "new"},
        ),
    ],
    "the table follows the data": [
        *ALL,
        Clause({"when": "not_matched_by_source", "then": "delete", "if": "target.v < 5"},
               lambda s, t: t["v"] is not None and t["v"] < 5),
        Clause({"when": "not_matched_by_source", "then": "update", "set": {"t": "'gone'"}},
               sets={"t": lambda s, t: "gone"}),
    ],
    "only what the data lack": [Clause({"when": "not_matched_by_source", "then": "delete"})],
    "an order of clauses": [
        Clause({**UPDATE, "if": "source.v > 6", "set": {"v": "target.v"}}, lambda s, t: (s["v"] or 0) > 6,
               {"v": lambda s, t: t["v"]}),
        Clause({**DELETE, "if": "source.v > 3"}, lambda s, t: (s["v"] or 0) > 3),
        Clause({**INSERT, "if": "source.v > 6"}, lambda s, t: (s["v"] or 0) > 6),
        Clause({**INSERT, "if": "source.t = 'a'", "set": {"id": "id", "v": "-v"}}, lambda s, t: s["t"] == "a",
               {"id": lambda s, t: s["id"], "v": lambda s, t: s["v"] and -s["v"]}),
    ],
}  # fmt: skip


def random_rows(dice: random.Random, ids: list[int]) -> list[Row]:
    return [
        {
            "id": n,
            "v": dice.choice([None, *range(10)]),
            "t": dice.choice([None, "a", "b"]),
            "op": dice.choice("du"),
        }
        for n in ids
    ]


def declared(clauses: list[Clause], **more: Any) -> Row:
    return {"not_written": ["op"], "clauses": [clause.declared for clause in clauses], **more}


def without_op(rows: list[Row]) -> list[Row]:
    return [{name: value for name, value in row.items() if name != "op"} for row in rows]


@pytest.mark.parametrize("row_changes", ["merge-on-read", "copy-on-write"])
@pytest.mark.parametrize("case", CASES)
def test_a_merge_does_what_loops_do(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, case: str, row_changes: str
) -> None:
    dice = random.Random(case)
    if row_changes == "copy-on-write":
        monkeypatch.setattr(source_rows, "_IN_MEMORY_BYTES", 0)
    before = without_op(random_rows(dice, list(range(40))))
    for part in (before[:20], before[20:]):
        lake.write(table(part))
    for turn in range(2):
        data = random_rows(dice, dice.sample(range(60), 20))
        expected, counts = merged(before, data, lambda s, t: s["id"] == t["id"], CASES[case])
        snapshots = len(lake.table.snapshots())
        result = lake.write(table(data), **KEYED, row_changes=row_changes, merge=declared(CASES[case]))
        assert told(result) == counts, turn
        assert multiset(lake.rows()) == multiset(expected)
        assert len(lake.table.snapshots()) == snapshots + result.changed
        before = expected
    assert not lake.orphans()


def test_rows_pair_by_any_condition(lake: Lake) -> None:
    before: list[Row] = [{"id": n, "v": n % 3, "t": "a" if n % 2 else None} for n in range(12)]
    data: list[Row] = [{"id": 100 + n, "v": n, "t": "b", "op": "u"} for n in range(4)]
    lake.write(table(before))
    clauses = [
        Clause(
            {**UPDATE, "set": {"t": "source.t || '-' || source.id"}}, sets={"t": lambda s, t: f"b-{s['id']}"}
        ),
        Clause(INSERT),
    ]

    def on(source: Row, target: Row) -> bool:
        return bool(
            source["v"] == target["v"] and target["t"] is not None and source["id"] - 90 > target["id"]
        )

    expected, counts = merged(before, data, on, clauses)
    condition = "(source.v = target.v AND target.t IS NOT NULL) AND source.id - 90 > target.id"
    result = lake.write(table(data), write_mode="merge", merge=declared(clauses, on=condition))
    assert told(result) == counts
    assert multiset(lake.rows()) == multiset(expected)


def test_the_bare_key_on_of_yaml_is_understood(lake: Lake) -> None:
    lake.write(table([{"id": 1, "v": 1}]))
    lake.write(
        table([{"id": 1, "v": 2}]),
        write_mode="merge",
        merge={True: "source.id = target.id", "clauses": [UPDATE]},
    )
    assert lake.rows() == [{"id": 1, "v": 2}]


def test_a_new_table_takes_what_is_not_matched(lake: Lake) -> None:
    data = [{"id": 1, "v": 1, "op": "u"}, {"id": 2, "v": 2, "op": "d"}]
    clauses: list[Row] = [{**DELETE, "if": "source.op = 'd'"}, UPDATE, {**INSERT, "if": "source.op <> 'd'"}]
    result = lake.write(table(data), **KEYED, merge={"not_written": ["op"], "clauses": clauses})
    assert told(result) == [1, 0, 0, 0]
    assert lake.rows() == [{"id": 1, "v": 1}]


def test_a_new_column_of_the_data_is_null_in_the_table_so_far(lake: Lake) -> None:
    lake.write(table([{"id": n, "v": n} for n in range(4)]))
    data: list[Row] = [{"id": 1, "v": 1, "t": None}, {"id": 2, "v": 2, "t": "x"}, {"id": 3, "v": 3, "t": "y"}]
    clauses: list[Row] = [{**DELETE, "if": "target.t IS NULL AND source.t = 'y'"}, UPDATE]
    assert told(lake.write(table(data), **KEYED, merge={"clauses": clauses})) == [0, 1, 1, 1]
    expected: list[Row] = [
        {"id": 0, "v": 0, "t": None},
        {"id": 1, "v": 1, "t": None},
        {"id": 2, "v": 2, "t": "x"},
    ]
    assert multiset(lake.rows()) == multiset(expected)


def test_nothing_to_change_makes_no_snapshot(lake: Lake) -> None:
    lake.write(table([{"id": 1, "v": 1}, {"id": 2, "v": 2}]))
    files = lake.on_disk()
    result = lake.write(table([{"id": 1, "v": 1}]), **KEYED, merge={"clauses": [UPDATE, INSERT]})
    assert not result.changed
    assert told(result) == [0, 0, 0, 1]
    assert lake.on_disk() == files


def test_several_changes_of_one_row_are_an_error_that_shows_some(lake: Lake) -> None:
    lake.write(table([{"id": n, "v": n} for n in range(5)]))
    files = lake.on_disk()
    data = table([{"id": n % 3, "v": n} for n in range(6)])
    for keys in ({"key_columns": ["id"]}, {}):
        on = {} if keys else {"on": "source.id = target.id"}
        with pytest.raises(
            DataError, match=r"shop\.orders: several rows of the data change one .* id = 0 2 times"
        ):
            lake.write(data, write_mode="merge", **keys, merge={**on, "clauses": [UPDATE]})
    assert lake.on_disk() == files


def test_several_partners_are_no_error_where_one_of_them_applies(lake: Lake) -> None:
    lake.write(table([{"id": n, "v": n} for n in range(3)]))
    data = table([{"id": 1, "v": 10}, {"id": 1, "v": 20}])
    result = lake.write(data, **KEYED, merge={"clauses": [{**UPDATE, "if": "source.v > 15"}]})
    assert told(result) == [0, 1, 0, 0]
    assert lake.column("v") == [0, 2, 20]


def test_one_row_of_the_data_changes_several_of_the_table(lake: Lake) -> None:
    lake.write(table([{"id": n % 2, "v": n} for n in range(6)]))
    result = lake.write(table([{"id": 1, "v": 9}]), **KEYED, merge={"clauses": [UPDATE]})
    assert told(result) == [0, 3, 0, 0]
    assert lake.column("v") == [0, 2, 4, 9, 9, 9]


def test_rows_to_insert_repeat_no_key(lake: Lake) -> None:
    lake.write(table([{"id": 1, "v": 1}]))
    data = table([{"id": 7, "v": 1}, {"id": 7, "v": 2}])
    with pytest.raises(DataError, match="rows to insert repeat a key: id = 7 2 times"):
        lake.write(data, **KEYED, merge={"clauses": [INSERT]})
    lake.write(data, **KEYED, on_duplicate="last", merge={"clauses": [INSERT]})
    assert lake.column("v") == [1, 2]


def test_without_keys_a_merge_inserts_what_it_is_given(lake: Lake) -> None:
    lake.write(table([{"id": 1, "v": 1}]))
    data = table([{"id": 7, "v": 1}, {"id": 7, "v": 1}])
    lake.write(data, write_mode="merge", merge={"on": "source.id = target.id", "clauses": [INSERT]})
    assert lake.column("id") == [1, 7, 7]


@pytest.mark.parametrize(("nulls", "counts"), [("match", [1, 1, 0, 0]), ("error", None)])
def test_null_keys_follow_their_rule(lake: Lake, nulls: str, counts: list[int] | None) -> None:
    lake.write(table([{"id": None, "v": 1}, {"id": 2, "v": 2}]))
    data = table([{"id": None, "v": 5}, {"id": 3, "v": 3}])
    merge = {"clauses": [UPDATE, INSERT]}
    if counts is None:
        with pytest.raises(DataError, match="key column 'id' is null"):
            lake.write(data, **KEYED, merge=merge)
        return
    assert told(lake.write(data, **KEYED, null_keys=nulls, merge=merge)) == counts
    assert lake.column("v") == [2, 3, 5]


def test_nan_and_zero_are_told_apart_as_sql_does(lake: Lake) -> None:
    nan = float("nan")
    lake.write(pa.table({"id": [1, 2, 3, 4], "v": [nan, -0.0, 1.0, None]}))
    data = pa.table({"id": [1, 2, 3, 4], "v": [nan, 0.0, nan, None]})
    merge = {"on": "source.id = target.id AND (target.v > -1 OR target.v IS NULL)", "clauses": [UPDATE]}
    assert told(lake.write(data, write_mode="merge", merge=merge)) == [0, 1, 0, 3]
    merge = {"on": "source.v = target.v", "clauses": [{**DELETE, "if": "source.v > 100"}]}
    assert told(lake.write(pa.table({"id": [9], "v": [nan]}), write_mode="merge", merge=merge)) == [
        0,
        0,
        2,
        0,
    ]


@pytest.mark.parametrize(
    "name", ["_file", "_position", "_row", "source", "target", "clause", "differs", 'a "b" é']
)
def test_no_name_of_a_column_is_taken_for_another(lake: Lake, name: str) -> None:
    quoted = '"' + name.replace('"', '""') + '"'
    lake.write(pa.table({name: [1, 2, 3], "x": [1, 2, 3]}))
    clauses: list[Row] = [
        {**UPDATE, "if": f"source.{quoted} = 2", "set": {"x": f"target.{quoted} + 10 * source.x"}},
        {"when": "not_matched_by_source", "then": "delete", "if": f"{quoted} = 3"},
    ]
    lake.write(
        pa.table({name: [1, 2], "x": [5, 6]}),
        write_mode="merge",
        key_columns=[name],
        merge={"clauses": clauses},
    )
    assert multiset(lake.rows()) == multiset([{name: 1, "x": 1}, {name: 2, "x": 62}])


def test_only_files_that_may_hold_a_partner_are_read(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    for start in (0, 100, 200):
        lake.write(table([{"id": start + n, "v": n} for n in range(10)]))
    seen: list[int] = []

    def counting(connection: Any, at: Any, tasks: Any, schema: Any) -> Any:
        seen.append(len(tasks))
        return live_rows(connection, at, tasks, schema)

    monkeypatch.setattr("dwh_assets.iceberg.modes.merge.live_rows", counting)
    data = table([{"id": 105, "v": 9}, {"id": 106, "v": 9}])
    for on in ({"on": "source.id = target.id AND target.v > 0"}, {}):
        keys = {} if on else {"key_columns": ["id"]}
        lake.write(
            data, write_mode="merge", **keys, merge={**on, "clauses": [{**UPDATE, "if": "source.v > 50"}]}
        )
    assert seen == [1, 1]


class _Overtaken:
    """A catalog in which somebody else commits just before our first commit."""

    def __init__(self, lake: Lake, other: Callable[[Lake], Any], monkeypatch: pytest.MonkeyPatch) -> None:
        self.done = False
        real = lake.catalog.commit_table

        def commit_table(table: Any, requirements: Any, updates: Any) -> Any:
            if not self.done and any(isinstance(r, AssertRefSnapshotId) for r in requirements):
                self.done = True
                other(Lake(lake.folder))
            return real(table, requirements, updates)

        monkeypatch.setattr(lake.catalog, "commit_table", commit_table)


def test_who_is_overtaken_decides_again(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    lake.write(table([{"id": n, "v": n} for n in range(10)]))
    other = table([{"id": 1, "v": 100}, {"id": 20, "v": 20}])
    _Overtaken(lake, lambda mine: mine.write(other, write_mode="upsert", key_columns=["id"]), monkeypatch)
    clauses: list[Row] = [
        {**UPDATE, "set": {"v": "target.v + source.v"}},
        INSERT,
        {"when": "not_matched_by_source", "then": "delete", "if": "target.id = 20"},
    ]
    data = table([{"id": 1, "v": 1}, {"id": 30, "v": 30}])
    result = lake.write(data, **KEYED, merge={"clauses": clauses})
    assert (result.attempts, told(result)) == (2, [1, 1, 1, 0])
    expected = {n: n for n in range(10)} | {1: 101, 30: 30}
    assert multiset(lake.rows()) == multiset({"id": n, "v": v} for n, v in expected.items())
    assert not lake.orphans()


def test_partitioned_tables_keep_rows_where_they_belong(lake: Lake) -> None:
    before: list[Row] = [{"id": n, "v": n % 4, "t": "a"} for n in range(16)]
    lake.write(table(before), partition_spec=[{"field": "v"}])
    clauses = [Clause({**UPDATE, "set": {"v": "target.v + 1"}}, sets={"v": lambda s, t: t["v"] + 1})]
    data: list[Row] = [{"id": n, "v": 0, "t": "b", "op": "u"} for n in range(0, 16, 3)]
    expected, counts = merged(before, data, lambda s, t: s["id"] == t["id"], clauses)
    assert told(lake.write(table(data), **KEYED, merge=declared(clauses))) == counts
    assert multiset(lake.rows()) == multiset(expected)
    assert all(file.partition[0] in range(5) for file in lake.data_files())


def test_a_merge_on_a_branch_leaves_main_alone(lake: Lake) -> None:
    lake.write(table([{"id": 1, "v": 1}, {"id": 2, "v": 2}]))
    result = lake.write(table([{"id": 1, "v": 5}]), **KEYED, branch="audit", merge={"clauses": [UPDATE]})
    assert lake.column("v") == [1, 2]
    assert lake.column("v", result.snapshot_id) == [2, 5]


# --- Refused ---


@pytest.mark.parametrize(
    ("merge", "message"),
    [
        ({"clauses": []}, "at least one"),
        ({"clauses": [{"when": "matched", "then": "insert"}]}, "matched takes update or delete"),
        ({"clauses": [{"when": "not_matched", "then": "update"}]}, "not_matched takes insert"),
        ({"clauses": [{**DELETE, "set": {"v": "1"}}]}, "sets nothing"),
        ({"clauses": [{**UPDATE, "set": {}}]}, "names no column"),
        ({"clauses": [{"when": "not_matched_by_source", "then": "update"}]}, "needs set"),
        ({"clauses": [UPDATE, DELETE]}, "clause 2 never applies"),
        (None, "needs the attribute merge"),
    ],
)
def test_what_makes_no_sense_is_refused_by_the_declaration(
    lake: Lake, merge: Row | None, message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        lake.writer(**KEYED, merge=merge)


def test_a_merge_needs_a_condition_or_keys(lake: Lake) -> None:
    with pytest.raises(ValidationError, match="merge needs on, or key_columns"):
        lake.writer(write_mode="merge", merge={"clauses": [UPDATE]})


@pytest.mark.parametrize(
    ("merge", "message"),
    [
        (
            {"on": "source.idd = target.id", "clauses": [DELETE]},
            r"merge on: there is no column 'idd' in source",
        ),
        (
            {"clauses": [UPDATE, {**INSERT, "if": "nope = 1"}]},
            r"clause 2 \(not_matched, insert\), if: .*'nope'",
        ),
        (
            {"clauses": [{**DELETE, "if": "v > 1"}]},
            r"clause 1 .* column 'v' is ambiguous: source.v or target.v",
        ),
        ({"clauses": [{**INSERT, "if": "target.v > 1"}]}, "there is no row of target here"),
        ({"clauses": [{**UPDATE, "set": {"w": "1"}}]}, "set 'w': the table has no column 'w'"),
        ({"clauses": [{**UPDATE, "set": {"v": "'a'"}}]}, r"set 'v': .* is VARCHAR, but column 'v' is BIGINT"),
        ({"clauses": [{**UPDATE, "set": {"v": "source.v / 2"}}]}, "is DOUBLE, but column 'v' is BIGINT"),
        ({"clauses": [{**DELETE, "if": "source.v + 1"}]}, "is BIGINT, not a condition"),
        ({"clauses": [{**INSERT, "set": {"v": "1"}}]}, "column 'id' is required, but set does not name it"),
        (
            {"not_written": ["flag"], "clauses": [UPDATE]},
            r"column 'flag' \(not_written\), which is not in the data",
        ),
        ({"clauses": [{**DELETE, "if": "source.t = 'x'"}]}, "there is no column 't' in source"),
    ],
)
@pytest.mark.parametrize("there", [True, False])
def test_what_is_wrong_is_named_before_anything_changes(
    lake: Lake, merge: Row, message: str, there: bool
) -> None:
    if there:
        lake.write(table([{"id": 1, "v": 1}]), write_mode="upsert", key_columns=["id"])
    files = lake.on_disk()
    with pytest.raises(ConfigurationError, match=message) as raised:
        lake.write(table([{"id": 1, "v": 1}]), **KEYED, merge=merge)
    assert "shop.orders" in raised.value.message
    assert raised.value.remedy
    assert lake.on_disk() == files
    assert there or not lake.catalog.namespace_exists("shop")


@pytest.mark.parametrize("expression", ["target.v + 9223372036854775807", "CAST(source.t AS BIGINT)"])
def test_a_value_that_fails_is_told_and_nothing_changes(lake: Lake, expression: str) -> None:
    lake.write(table([{"id": 1, "v": 1, "t": "a"}]))
    files = lake.on_disk()
    merge = {"clauses": [{**UPDATE, "set": {"v": expression}}]}
    with pytest.raises(DataError, match=r"shop\.orders: an expression of the merge fails"):
        lake.write(table([{"id": 1, "v": 1, "t": "b"}]), **KEYED, merge=merge)
    assert lake.on_disk() == files


def test_a_value_too_long_for_its_column_is_refused(lake: Lake) -> None:
    small = pa.decimal128(4, 2)
    lake.write(table([{"id": 1, "v": 1}], v=small))
    merge = {"clauses": [{**UPDATE, "set": {"v": "target.v + source.v"}}]}
    with pytest.raises(DataError, match="an expression of the merge fails"):
        lake.write(table([{"id": 1, "v": 99}], v=small), **KEYED, merge=merge)
    lake.write(table([{"id": 1, "v": 2}], v=small), **KEYED, merge=merge)
    assert [str(value) for value in lake.column("v")] == ["3.00"]
