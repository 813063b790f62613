"""What data with other columns do to a table: nothing, an evolution, or an error that says why."""

from __future__ import annotations

import datetime as dt
import uuid
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from dwh_assets.errors import ConfigurationError, DataError, DwhError, SchemaError, UnsupportedError
from dwh_tests.iceberg.conftest import Lake

PERMISSIVE = {"mode": "permissive"}
INT, LONG, FLOAT = pa.int32(), pa.int64(), pa.float32()


def dec(text: str, precision: int, scale: int) -> pa.Array:
    return pa.array([Decimal(text)], pa.decimal128(precision, scale))


def one(value: Any, arrow: pa.DataType) -> pa.Array:
    return pa.array([value], arrow)


def struct(**fields: pa.DataType) -> pa.DataType:
    return pa.struct(list(fields.items()))


# Column: what the table holds, what arrives (None: no such column), the type afterwards.
STRICT: dict[str, tuple[pa.Array | None, pa.Array, str]] = {
    "same": (one(1, LONG), one(2, LONG), "long"),
    "new": (None, one("x", pa.string()), "string"),
    "new struct": (None, one({"p": 1}, struct(p=LONG)), "struct<"),
    "int to long": (one(1, INT), one(2**40, LONG), "long"),
    "int and unsigned": (one(1, INT), one(2**31, pa.uint32()), "long"),
    "float to double": (one(1.5, FLOAT), one(0.1, pa.float64()), "double"),
    "wider decimal": (dec("1.5", 5, 1), dec("12345678.5", 9, 1), "decimal(9, 1)"),
    "narrower int": (one(1, LONG), one(2, pa.int8()), "long"),
    "narrower float": (one(0.1, pa.float64()), one(1.5, pa.float16()), "double"),
    "narrower decimal": (dec("1.500", 7, 3), dec("1.5", 5, 1), "decimal(7, 3)"),
    "coarser time": (one(1, pa.timestamp("us")), one(1, pa.timestamp("s")), "timestamp"),
    "other zone": (
        one(1, pa.timestamp("us", "UTC")),
        one(1, pa.timestamp("ms", "Asia/Tokyo")),
        "timestamptz",
    ),
    "encoded": (one("x", pa.string()), pa.array(["y"]).dictionary_encode(), "string"),
    "only nulls": (one("x", pa.string()), pa.nulls(1), "string"),
    "empty list": (one([1], pa.list_(LONG)), one([], pa.list_(pa.null())), "list<long>"),
    "struct grows": (
        one({"p": 1}, struct(p=INT)),
        one({"q": "x", "p": 2**40}, struct(q=pa.string(), p=LONG)),
        "struct<",
    ),
    "list element widens": (one([1], pa.list_(INT)), one([2**40], pa.list_(LONG)), "list<long>"),
    "struct in a list grows": (
        one([{"p": 1}], pa.list_(struct(p=INT))),
        one([{"p": 2**40, "q": "x"}, None], pa.list_(struct(p=LONG, q=pa.string()))),
        "list<struct<",
    ),
    "map value widens": (
        one([("k", 1)], pa.map_(pa.string(), INT)),
        one([("k", 2**40)], pa.map_(pa.string(), LONG)),
        "map<string, long>",
    ),
    "struct in a map grows": (
        one([("k", {"p": 1})], pa.map_(pa.string(), struct(p=INT))),
        one([("k", {"p": 2, "q": [1.5]})], pa.map_(pa.string(), struct(p=INT, q=pa.list_(FLOAT)))),
        "map<string, struct<",
    ),
}
CAST: dict[str, tuple[pa.Array, pa.Array | None, str, Any]] = {
    "missing": (one(1, LONG), None, "long", None),
    "missing inside": (
        one({"p": 1, "q": 2}, struct(p=LONG, q=LONG)),
        one({"p": 3}, struct(p=LONG)),
        "struct<",
        {"p": 3, "q": None},
    ),
    "text to number": (one(1, LONG), one("12", pa.string()), "long", 12),
    "number to text": (one("x", pa.string()), one(12, LONG), "string", "12"),
    "day to text": (one("x", pa.string()), one(dt.date(2020, 1, 2), pa.date32()), "string", "2020-01-02"),
    "long to int": (one(1, INT), one(7, pa.uint64()), "long", 7),
    "double to decimal": (dec("1.50", 5, 2), one(1.25, pa.float64()), "decimal(5, 2)", Decimal("1.25")),
    "decimal of another scale": (dec("1.5", 5, 1), dec("2.50", 6, 2), "decimal(5, 1)", Decimal("2.5")),
    "day to moment": (
        one(1, pa.timestamp("us")),
        one(dt.date(2020, 1, 2), pa.date32()),
        "timestamp",
        dt.datetime.fromisoformat("2020-01-02"),
    ),
    "midnight to day": (one(1, pa.date32()), one(86400, pa.timestamp("s")), "date", dt.date(1970, 1, 2)),
}
# Column: what the table holds, what arrives, the mode, words of the error.
UTC, NAIVE = pa.timestamp("us", "UTC"), pa.timestamp("us")
TYPED: dict[str, pa.Array] = {
    "long": one(1, LONG),
    "double": one(1.5, pa.float64()),
    "decimal": dec("1.5", 5, 1),
    "text": one("x", pa.string()),
    "utc": one(1, UTC),
    "naive": one(1, NAIVE),
    "day": one(1, pa.date32()),
    "clock": one(1, pa.time64("us")),
    "id": one(uuid.UUID(int=1).bytes, pa.uuid()),
    "list": one([1], pa.list_(LONG)),
    "struct": one({"p": 1, "q": 1}, struct(p=LONG, q=LONG)),
    "map": one([(1, {"p": 1})], pa.map_(INT, struct(p=LONG))),
    "keys": one([({"p": 1}, 1)], pa.map_(struct(p=LONG), LONG)),
}
REFUSED: list[tuple[str, pa.Array | None, str, list[str]]] = [
    ("long", None, "strict", ["'long'", "missing", "permissive"]),
    ("long", one("x", pa.string()), "strict", ["'long' is long", "string", "permissive"]),
    ("long", one(1.5, pa.float64()), "strict", ["'long' is long", "double"]),
    ("double", one(1, LONG), "strict", ["'double' is double", "long"]),
    ("decimal", dec("1.25", 5, 2), "strict", ["decimal(5, 1)", "decimal(5, 2)"]),
    ("decimal", one(1, LONG), "strict", ["decimal(5, 1)", "long"]),
    ("text", one(b"x", pa.binary()), "strict", ["string", "binary"]),
    *[
        ("utc", one(1, NAIVE), mode, ["'utc' is timestamptz", "time zone"])
        for mode in ("strict", "permissive")
    ],
    *[
        ("naive", one(1, UTC), mode, ["'naive' is timestamp", "time zone"])
        for mode in ("strict", "permissive")
    ],
    ("utc", one(1, pa.date32()), "permissive", ["timestamptz", "date"]),
    ("naive", one(5, LONG), "permissive", ["timestamp", "long", "what the values mean"]),
    ("long", one(5, pa.date32()), "permissive", ["long", "date"]),
    ("day", one(5, INT), "permissive", ["date", "int"]),
    ("clock", one(5, NAIVE), "permissive", ["time", "timestamp"]),
    ("text", TYPED["id"], "permissive", ["string", "uuid"]),
    ("list", one(1, LONG), "permissive", ["list<long>", "long"]),
    ("list", one({"p": 1}, struct(p=LONG)), "permissive", ["list<long>", "struct"]),
    ("struct", one(1, LONG), "permissive", ["struct<", "long"]),
    ("struct", one({"p": 1}, struct(p=LONG)), "strict", ["'struct.q'", "missing"]),
    (
        "struct",
        one({"p": 1, "Q": 1, "q": 1}, struct(p=LONG, Q=LONG, q=LONG)),
        "permissive",
        ["'struct.Q'", "case"],
    ),
    ("map", one([(2**40, {"p": 1})], pa.map_(LONG, struct(p=LONG))), "strict", ["'map.key'", "never change"]),
    (
        "keys",
        one([({"p": 1, "q": 1}, 1)], pa.map_(struct(p=LONG, q=LONG), LONG)),
        "strict",
        ["'keys.key.q'", "never"],
    ),
]
LOSSY: list[tuple[str, pa.Array, str]] = [
    ("long", one("twelve", pa.string()), "twelve"),
    ("long", one(1.5, pa.float64()), "1.5"),
    ("decimal", one(1.25, pa.float64()), "1.25"),
    ("decimal", dec("1.25", 5, 2), "decimal128"),
    ("double", one(2**53 + 1, LONG), str(2**53 + 1)),
    ("day", one(86401, pa.timestamp("s")), "1 of 1"),
    ("utc", one("2020-01-01 00:00:00", pa.string()), "zone"),
]


@pytest.fixture(scope="module")
def evolved(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    lake = Lake(tmp_path_factory.mktemp("strict"))
    lake.write(pa.table({name: old for name, (old, _, _) in STRICT.items() if old is not None}))
    lake.write(pa.table({name: new for name, (_, new, _) in reversed(STRICT.items())}))
    return lake


def filled(value: Any, like: Any) -> Any:
    """A value with the struct fields that the other has, null where it had none."""
    if isinstance(value, dict) and isinstance(like, dict):
        return {key: value.get(key) for key in [*value, *(k for k in like if k not in value)]}
    if isinstance(value, list) and isinstance(like, list) and value and like:
        return [filled(one, like[0]) for one in value]
    if isinstance(value, tuple) and isinstance(like, tuple):
        return (value[0], filled(value[1], like[1]))
    return value


def values_of(array: pa.Array | None) -> Any:
    value = array[0].as_py() if array is not None else None
    return value.astimezone(dt.UTC) if isinstance(value, dt.datetime) and value.tzinfo else value


@pytest.mark.parametrize("name", STRICT)
def test_strict_evolution(evolved: Lake, name: str) -> None:
    old, new, iceberg = STRICT[name]
    before, after = values_of(old), values_of(new)
    found = [row[name] for row in sorted(evolved.rows(), key=lambda row: row["same"])]
    assert str(evolved.table.schema().find_type(name)).startswith(iceberg)
    assert found == [filled(before, after), filled(after, before)]


def test_columns_keep_their_ids_and_their_order(evolved: Lake) -> None:
    first, second = evolved.metadata["schemas"]
    kept = [(field["id"], field["name"]) for field in first["fields"]]
    assert [(f["id"], f["name"]) for f in second["fields"]][: len(kept)] == kept
    ids = [field.field_id for field in evolved.table.schema().fields] + list(evolved.table.schema().field_ids)
    assert len(set(ids)) == len(evolved.table.schema().field_ids)
    assert evolved.metadata["last-column-id"] == max(ids)


def test_schema_and_data_are_one_commit(lake: Lake) -> None:
    lake.write(pa.table({"a": [1]}))
    before = lake.metadata
    result = lake.write(pa.table({"a": [2], "b": ["x"]}))
    after = lake.metadata
    assert result.schema_changes == ("added b string",)
    assert len(after["snapshots"]) == len(before["snapshots"]) + 1
    assert len(after["metadata-log"]) == len(before["metadata-log"]) + 1
    assert after["snapshots"][-1]["schema-id"] == after["current-schema-id"] != before["current-schema-id"]


@pytest.fixture(scope="module")
def cast(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    lake = Lake(tmp_path_factory.mktemp("permissive"))
    lake.write(pa.table({name: old for name, (old, _, _, _) in CAST.items()}))
    arriving = {name: new for name, (_, new, _, _) in CAST.items() if new is not None}
    lake.write(pa.table(arriving), schema_evolution=PERMISSIVE)
    return lake


@pytest.mark.parametrize("name", CAST)
def test_permissive_evolution(cast: Lake, name: str) -> None:
    old, _, iceberg, expected = CAST[name]
    assert str(cast.table.schema().find_type(name)).startswith(iceberg)
    assert sorted(map(repr, (row[name] for row in cast.rows()))) == sorted(
        map(repr, [values_of(old), expected])
    )


@pytest.fixture(scope="module")
def typed(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    lake = Lake(tmp_path_factory.mktemp("typed"))
    lake.write(pa.table(TYPED))
    return lake


def refuse(lake: Lake, data: pa.Table, error: type[DwhError], words: list[str], **declared: Any) -> None:
    """Expect an error with these words, and the table as it was."""
    before, files = lake.table.metadata_location, lake.on_disk(".parquet")
    with pytest.raises(error) as raised:
        lake.write(data, **declared)
    assert [word for word in [lake.name, *words] if word not in str(raised.value)] == []
    assert (lake.table.metadata_location, lake.on_disk(".parquet")) == (before, files)


def arriving(name: str, array: pa.Array | None) -> pa.Table:
    columns = {**TYPED, name: array}
    return pa.table({key: value for key, value in columns.items() if value is not None})


@pytest.mark.parametrize(("name", "array", "mode", "words"), REFUSED)
def test_what_would_lose_or_reinterpret_is_refused(
    typed: Lake, name: str, array: pa.Array | None, mode: str, words: list[str]
) -> None:
    refuse(typed, arriving(name, array), SchemaError, words, schema_evolution={"mode": mode})


@pytest.mark.parametrize(("name", "array", "word"), LOSSY)
def test_permissive_refuses_values_that_do_not_survive(
    typed: Lake, name: str, array: pa.Array, word: str
) -> None:
    refuse(typed, arriving(name, array), DataError, [f"'{name}'", word], schema_evolution=PERMISSIVE)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (arriving("long", None), ["'long'", "missing"]),
        (arriving("extra", one(1, LONG)), ["'extra'", "enabled: true"]),
        (arriving("decimal", dec("1.5", 7, 1)), ["'decimal'", "decimal(7, 1)", "enabled: true"]),
        (arriving("struct", one({"p": 1, "q": 1, "r": 1}, struct(p=LONG, q=LONG, r=LONG))), ["'struct.r'"]),
        (arriving("text", one(1, LONG)), ["'text'"]),
    ],
)
def test_without_evolution_every_difference_is_refused(typed: Lake, data: pa.Table, words: list[str]) -> None:
    refuse(typed, data, SchemaError, words, schema_evolution={"enabled": False})


def test_without_evolution_order_and_narrower_types_are_no_difference(lake: Lake) -> None:
    lake.write(pa.table({"a": [1], "b": ["x"]}))
    lake.write(pa.table({"b": ["y"], "a": one(2, pa.int8())}), schema_evolution={"enabled": False})
    assert lake.column("a") == [1, 2]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (pa.table([one(1, LONG), one(2, LONG)], names=["a", "a"]), ["several", "'a'"]),
        (pa.table({"A": [1]}), ["'A'", "'a'", "case"]),
        (pa.table({"a": [1], "A": [1]}), ["'A'", "'a'", "case"]),
        (pa.table({"a": [1], "b": pa.nulls(1)}), ["'b'", "only nulls"]),
        (pa.table({"a": [1], "b": one(1, pa.duration("s"))}), ["'b'", "duration"]),
    ],
)
def test_columns_that_nobody_can_tell_are_refused(lake: Lake, data: pa.Table, words: list[str]) -> None:
    lake.write(pa.table({"a": [1]}))
    before = lake.table.metadata_location
    with pytest.raises((SchemaError, UnsupportedError)) as raised:
        lake.write(data, schema_evolution=PERMISSIVE)
    assert [word for word in words if word not in str(raised.value)] == []
    assert lake.table.metadata_location == before


def test_a_dot_in_a_name_is_part_of_it(lake: Lake) -> None:
    lake.write(pa.table({"a.b": [1], "a": [{"c": 5}]}))
    lake.write(pa.table({"a": [{"c": 6, "d": "x"}], "a.b": [2]}))
    assert sorted(lake.rows(), key=lambda row: row["a.b"]) == [
        {"a.b": 1, "a": {"c": 5, "d": None}},
        {"a.b": 2, "a": {"c": 6, "d": "x"}},
    ]
    refuse(lake, pa.table({"a": [{"b": 1, "c": 1, "d": "x"}], "a.b": [1]}), SchemaError, ["a.b", "Rename"])


def test_two_columns_may_not_have_one_path(lake: Lake) -> None:
    with pytest.raises(SchemaError, match=r"a.b.*Rename"):
        lake.write(pa.table({"a.b": [1], "a": [{"b": 5}]}))


DESCRIBED = {"v": {"description": "What it is."}}


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (one(1, INT), one(2**40, LONG), [1, 2**40]),
        (
            one({"p": 1}, struct(p=LONG)),
            one({"p": 2, "q": 3}, struct(p=LONG, q=LONG)),
            [{"p": 1, "q": None}, {"p": 2, "q": 3}],
        ),
    ],
)
def test_a_description_does_not_change_the_rules(
    lake: Lake, old: pa.Array, new: pa.Array, expected: Any
) -> None:
    lake.write(pa.table({"v": old}), columns=DESCRIBED)
    lake.write(pa.table({"v": new}), columns=DESCRIBED)
    assert sorted(map(repr, (row["v"] for row in lake.rows()))) == sorted(map(repr, expected))
    refuse(lake, pa.table({"v": ["x"]}), SchemaError, ["'v'"], columns=DESCRIBED)
    assert lake.metadata["schemas"][-1]["fields"][0]["doc"] == "What it is."


def test_descriptions_come_and_change_as_declared(lake: Lake) -> None:
    lake.write(pa.table({"v": [1], "w": [1]}))
    first = lake.write(pa.table({"v": [1], "w": [1]}), columns=DESCRIBED)
    again = lake.write(pa.table({"v": [1], "w": [1]}), columns=DESCRIBED)
    silent = lake.write(pa.table({"v": [1], "w": [1]}))
    assert (first.schema_changes, again.schema_changes, silent.schema_changes) == (("described v",), (), ())
    assert [field.get("doc") for field in lake.metadata["schemas"][-1]["fields"]] == ["What it is.", None]


def test_a_declared_type_rules_what_arrives(lake: Lake) -> None:
    declared: dict[str, Any] = {"v": {"type": "int"}, "w": {"type": "date"}, "new": {"type": "long"}}
    lake.write(pa.table({"v": ["1"], "w": ["2020-01-01"]}), columns={k: declared[k] for k in "vw"})
    lake.write(pa.table({"v": [2.0], "w": pa.nulls(1), "new": pa.nulls(1)}), columns=declared)
    assert sorted(map(repr, lake.rows())) == [
        repr({"v": 1, "w": dt.date(2020, 1, 1), "new": None}),
        repr({"v": 2, "w": None, "new": None}),
    ]
    assert [str(field.field_type) for field in lake.table.schema().fields] == ["int", "date", "long"]
    wider = {**declared, "v": {"type": "long"}}
    assert lake.write(
        pa.table({"v": [2**40], "w": pa.nulls(1), "new": ["7"]}), columns=wider
    ).schema_changes == ("widened v from int to long",)
    refuse(
        lake,
        pa.table({"v": ["x"], "w": pa.nulls(1), "new": [1]}),
        SchemaError,
        ["'v' is long", "declaration has string"],
        columns={**declared, "v": {"type": "string"}},
    )


@pytest.mark.parametrize("new", [True, False], ids=["new table", "known table"])
@pytest.mark.parametrize(
    ("arrow", "target"),
    [(NAIVE, "timestamptz"), (UTC, "timestamp"), (pa.date32(), "timestamptz"), (LONG, "date")],
)
def test_a_declared_type_reinterprets_nothing(lake: Lake, new: bool, arrow: pa.DataType, target: str) -> None:
    columns = {"v": {"type": target}}
    if not new:
        lake.write(pa.table({"v": pa.nulls(1)}), columns=columns)
    with pytest.raises(SchemaError, match=f"'v' is {target}"):
        lake.write(pa.table({"v": one(1, arrow)}), columns=columns)


@pytest.mark.parametrize(
    ("declared", "word"),
    [
        ({"columns": {"nope": {"required": True}}}, "'nope'"),
        ({"key_columns": ["nope"]}, "'nope'"),
        ({"columns": {"v": {"type": "number"}}}, "'number'"),
    ],
)
def test_a_wrong_declaration_is_refused(lake: Lake, declared: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigurationError, match=word):
        lake.write(pa.table({"v": [1]}), **declared)


def test_keys_and_required_columns(lake: Lake) -> None:
    columns = {"w": {"required": True}, "v": {"description": "d"}, "x": {"required": False}}
    strict = pa.schema(
        [pa.field("v", LONG, nullable=False), ("w", LONG), pa.field("x", LONG, nullable=False), ("id", LONG)]
    )
    lake.write(pa.table([[1]] * 4, schema=strict), columns=columns, key_columns=["id"])
    schema = lake.table.schema()
    assert [(field.name, field.required) for field in schema.fields] == [
        ("v", True), ("w", True), ("x", False), ("id", True),
    ]  # fmt: skip
    assert schema.identifier_field_names() == {"id"}
    nulls = pa.table({"v": [1, 1], "w": pa.array([1, None], LONG), "x": [1, 1], "id": [1, 2]})
    refuse(lake, nulls, DataError, ["'w'", "required", "1 of 2"], columns=columns)
    lake.write(nulls.slice(0, 1))
    refuse(lake, nulls.select(["v", "x", "id"]), SchemaError, ["'w'", "missing"], schema_evolution=PERMISSIVE)


def test_a_column_declared_required_later_refuses_nulls(lake: Lake) -> None:
    lake.write(pa.table({"v": pa.array([1, None], LONG)}))
    columns = {"v": {"required": True}, "new": {"required": True}}
    lake.write(pa.table({"v": [2], "new": [1]}), columns=columns)
    refuse(
        lake,
        pa.table({"v": pa.array([None], LONG), "new": [1]}),
        DataError,
        ["'v'", "required"],
        columns=columns,
    )
    refuse(lake, pa.table({"v": [1], "new": pa.array([None], LONG)}), DataError, ["'new'"], columns=columns)


# --- A required column becomes optional ---

REQUIRED = pa.schema(
    [
        pa.field("id", LONG, nullable=False),
        pa.field("v", LONG, nullable=False),
        pa.field("s", struct(x=LONG), nullable=False),
        pa.field("t", pa.struct([pa.field("x", LONG, nullable=False)])),
    ]
)
NULLABLE = pa.schema([(field.name, field.type) for field in REQUIRED]).set(3, pa.field("t", struct(x=LONG)))
FULL: dict[str, Any] = {"id": 1, "v": 1, "s": {"x": 1}, "t": {"x": 1}}


def strict_table(lake: Lake, **declared: Any) -> None:
    lake.write(pa.Table.from_pylist([FULL], REQUIRED), **declared)


def required(lake: Lake) -> dict[str, bool]:
    """What the table's JSON says of the present columns."""
    metadata = lake.metadata
    fields = next(s for s in metadata["schemas"] if s["schema-id"] == metadata["current-schema-id"])["fields"]
    inner = {f"{f['name']}.x": f["type"]["fields"][0] for f in fields if isinstance(f["type"], dict)}
    return {name: field["required"] for name, field in {**{f["name"]: f for f in fields}, **inner}.items()}


@pytest.mark.parametrize("mode", ["strict", "permissive"])
@pytest.mark.parametrize(
    ("column", "given_row"),
    [
        ("v", {**FULL, "id": 2, "v": None}),
        ("s", {**FULL, "id": 2, "s": None}),
        ("t.x", {**FULL, "id": 2, "t": {"x": None}}),
    ],
)
def test_nulls_make_a_required_column_optional_in_the_same_commit(
    lake: Lake, column: str, given_row: dict[str, Any], mode: str
) -> None:
    strict_table(lake)
    before = required(lake)
    first = lake.table.metadata.current_snapshot_id
    snapshots = len(lake.metadata["snapshots"])
    batches = [FULL | {"id": 3}, given_row]
    rows = pa.Table.from_pylist(batches, NULLABLE).to_batches(max_chunksize=1)
    result = lake.write(iter(rows), schema_evolution={"mode": mode})
    assert result.schema_changes == (f"made {column} optional",)
    assert required(lake) == {**before, column: False}
    assert len(lake.metadata["snapshots"]) == snapshots + 1
    expected = sorted([FULL, FULL | {"id": 3}, given_row], key=lambda row: row["id"])
    assert sorted(lake.rows(), key=lambda row: row["id"]) == expected
    assert sorted(lake.table.scan().to_arrow().to_pylist(), key=lambda row: row["id"]) == expected
    assert lake.rows(first) == [FULL]
    assert lake.table.scan(snapshot_id=first).to_arrow().to_pylist() == [FULL]


def test_data_that_could_hold_nulls_and_do_not_change_no_column(lake: Lake) -> None:
    """Neither do those whose struct is null: its required field is not there to be null."""
    strict_table(lake)
    before = required(lake)
    row = FULL | {"id": 2, "t": None}
    result = lake.write(pa.Table.from_pylist([row], NULLABLE))
    assert (result.schema_changes, required(lake)) == ((), before)
    assert sorted(lake.rows(), key=lambda found: found["id"]) == [FULL, row]
    assert lake.table.scan().to_arrow()["v"].to_pylist() == [1, 1]


def test_what_must_not_be_null_stays_required(lake: Lake) -> None:
    strict_table(lake, key_columns=["id"])
    nulls = pa.Table.from_pylist([FULL | {"v": None}], NULLABLE)
    refuse(lake, nulls, DataError, ["'v'", "required", "evolve"], schema_evolution={"enabled": False})
    refuse(lake, nulls, DataError, ["'v'", "required"], columns={"v": {"required": True}})
    refuse(lake, nulls, DataError, ["'v'", "required"], key_columns=["v"], write_mode="append")
    no_key = pa.Table.from_pylist([FULL | {"id": None}], NULLABLE)
    refuse(lake, no_key, DataError, ["'id'", "required"])
    inner = pa.schema([pa.field("l", pa.list_(pa.field("element", LONG, nullable=False)))])
    other = Lake(lake.folder, "shop.lists")
    other.write(pa.Table.from_pylist([{"l": [1]}], inner))
    refuse(other, pa.table({"l": pa.array([[None]], pa.list_(LONG))}), DataError, ["'l'.element", "required"])


@pytest.mark.parametrize("changes", ["merge-on-read", "copy-on-write"])
def test_an_upsert_relaxes_a_column_too(lake: Lake, changes: str) -> None:
    strict_table(lake, key_columns=["id"])
    upsert: dict[str, Any] = {"write_mode": "upsert", "key_columns": ["id"], "row_changes": changes}
    result = lake.write(pa.Table.from_pylist([FULL], NULLABLE), **upsert)
    assert (result.changed, required(lake)["v"]) == (False, True)
    result = lake.write(pa.Table.from_pylist([FULL | {"v": None}], NULLABLE), **upsert)
    assert (result.rows_updated, result.schema_changes) == (1, ("made v optional",))
    assert required(lake) == {"id": True, "v": False, "s": True, "t": False, "s.x": False, "t.x": True}
    assert lake.rows() == [FULL | {"v": None}]


def test_a_column_that_somebody_else_relaxes_meanwhile_is_no_conflict(lake: Lake) -> None:
    strict_table(lake)
    other = Lake(lake.folder)

    class Overtaken(type(lake.catalog)):  # type: ignore[misc]
        interrupted = False

        def commit_table(self, *arguments: Any) -> Any:
            if not Overtaken.interrupted:
                Overtaken.interrupted = True
                other.write(pa.Table.from_pylist([FULL | {"id": 2, "v": None}], NULLABLE))
            return super().commit_table(*arguments)

    writer = lake.writer(catalog=Overtaken("dwh", **lake.properties))
    result = writer.write(pa.Table.from_pylist([FULL | {"id": 3, "v": None, "s": None}], NULLABLE))
    assert (result.attempts, result.schema_changes) == (2, ("made s optional",))
    assert [row["v"] for row in sorted(lake.rows(), key=lambda row: row["id"])] == [1, None, None]
