"""Data and declarations that cannot be: the error names table, column and value, and nothing changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from dwh_assets.errors import ConfigurationError, DataError, DwhError, SchemaError
from dwh_tests.iceberg.conftest import Lake, multiset

Row = dict[str, Any]
SCHEMA = pa.schema(
    [
        ("id", pa.int64()),
        ("name", pa.string()),
        ("price", pa.decimal128(6, 2)),
        ("seen", pa.timestamp("us")),
    ]
)


def rows(*ids: int) -> pa.Table:
    found = [{"id": n, "name": f"n{n}", "price": Decimal(n), "seen": None} for n in ids]
    return pa.Table.from_pylist(found, schema=SCHEMA)


def with_column(name: str, values: list[Any], arrow: pa.DataType) -> Callable[[], pa.Table]:
    """Two good rows, but for one column."""
    position = SCHEMA.get_field_index(name)
    return lambda: rows(1, 7).set_column(position, name, pa.array(values, arrow))


KEYED = {"write_mode": "upsert", "key_columns": ["id"]}
UPDATE, INSERT = {"when": "matched", "then": "update"}, {"when": "not_matched", "then": "insert"}
MERGE = {"write_mode": "merge", "key_columns": ["id"], "merge": {"clauses": [UPDATE, INSERT]}}
MODES: dict[str, Row] = {
    "append": {},
    "overwrite": {"write_mode": "overwrite"},
    "upsert": {**KEYED},
    "upsert by copies": {**KEYED, "row_changes": "copy-on-write"},
    "merge": MERGE,
}
BY_KEY = ("upsert", "upsert by copies", "merge")


@dataclass(frozen=True)
class Case:
    """Data that a write has to refuse, in every mode or in some, and what the error has to say."""

    data: Callable[[], pa.Table]
    error: type[DwhError]
    says: tuple[str, ...]
    modes: tuple[str, ...] = tuple(MODES)
    declared: Row = field(default_factory=dict)


def condition(text: str) -> Row:
    return {"merge": {"clauses": [{**UPDATE, "if": text}, INSERT]}}


CASES = {
    "a text for a number": Case(
        with_column("id", ["x", "7"], pa.string()), SchemaError, ("'id'", "string", "long")
    ),
    "a number for a text": Case(
        with_column("name", [1, 7], pa.int64()), SchemaError, ("'name'", "long", "string")
    ),
    "a struct for a number": Case(
        with_column("price", [{"x": 1}, None], pa.struct([("x", pa.int64())])), SchemaError, ("'price'",)
    ),
    "an unknown column": Case(
        lambda: rows(1, 7).append_column("colour", pa.array(["red", "blue"])),
        SchemaError,
        ("'colour'",),
        declared={"schema_evolution": {"enabled": False}},
    ),
    "a missing column": Case(lambda: rows(1, 7).drop_columns(["price"]), SchemaError, ("'price'",)),
    "a column twice": Case(
        lambda: rows(1, 7).append_column("name", pa.array(["a", "b"])), SchemaError, ("'name'",)
    ),
    "an integer too great": Case(
        with_column("id", [1, 2**63], pa.uint64()), DataError, ("'id'", "9223372036854775808")
    ),
    "a moment too far away": Case(
        with_column("seen", [0, 2**62], pa.timestamp("s")), DataError, ("'seen'", "4611686018427387904")
    ),
    "a moment too fine": Case(
        with_column("seen", [0, 1001], pa.timestamp("ns")), DataError, ("'seen'", "1001")
    ),
    "a value that is no decimal of the column": Case(
        with_column("price", [Decimal("1.0"), Decimal("12345.0")], pa.decimal128(6, 1)),
        SchemaError,
        ("'price'", "decimal(6, 1)", "decimal(6, 2)"),
        declared={"schema_evolution": {"enabled": False}},
    ),
    "a null where none may be": Case(
        with_column("name", ["a", None], pa.string()),
        DataError,
        ("'name'", "required"),
        declared={"columns": {"name": {"required": True}}},
    ),
    "a null key": Case(with_column("id", [1, None], pa.int64()), DataError, ("'id'", "null"), BY_KEY),
    "a repeated key": Case(with_column("id", [1, 1], pa.int64()), DataError, ("id = 1", "2 times"), BY_KEY),
    "a repeated new key": Case(
        with_column("id", [9, 9], pa.int64()), DataError, ("id = 9", "2 times"), BY_KEY
    ),
    "an unknown key": Case(
        lambda: rows(1, 7), ConfigurationError, ("'idd'",), BY_KEY, {"key_columns": ["idd"]}
    ),
    "an unknown order of repeated keys": Case(
        lambda: rows(1, 7),
        ConfigurationError,
        ("'when'",),
        ("upsert", "upsert by copies"),
        {"on_duplicate": "last", "duplicate_order": "when"},
    ),
    "an unknown partition column": Case(
        lambda: rows(1, 7), ConfigurationError, ("'day'",), declared={"partition_spec": [{"field": "day"}]}
    ),
    "a transform that does not fit": Case(
        lambda: rows(1, 7),
        ConfigurationError,
        ("'name'", "month"),
        declared={"partition_spec": [{"field": "name", "transform": "month"}]},
    ),
    "a condition with an unknown column": Case(
        lambda: rows(1, 7), ConfigurationError, ("'colour'",), ("merge",), condition("source.colour = 1")
    ),
    "a condition that is no SQL": Case(
        lambda: rows(1, 7), ConfigurationError, ("source.id >",), ("merge",), condition("source.id > > 1")
    ),
    "a condition of two statements": Case(
        lambda: rows(1, 7), ConfigurationError, ("DROP",), ("merge",), condition("true; DROP TABLE source")
    ),
    "a condition that fails on a value": Case(
        lambda: rows(1, 7), DataError, ("'n1'",), ("merge",), condition("CAST(source.name AS INT) = 1")
    ),
}
EACH = [(name, mode) for name, case in CASES.items() for mode in case.modes]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """A lake whose table holds three rows in three files, of two partitions."""
    place = Lake(tmp_path)
    for number in (1, 2, 3):
        place.write(rows(number), partition_spec=[{"field": "id", "transform": "truncate[2]"}])
    return place


@pytest.mark.parametrize(("name", "mode"), EACH, ids=lambda part: part.replace(" ", "-"))
def test_bad_input_is_named_and_changes_nothing(lake: Lake, name: str, mode: str) -> None:
    case, declared = CASES[name], MODES[mode]
    before = (lake.table.metadata_location, lake.on_disk())
    with pytest.raises(case.error) as raised:
        lake.write(case.data(), **{**declared, **case.declared})
    for word in (lake.name, *case.says):
        assert word in raised.value.message
    assert raised.value.remedy
    assert (lake.table.metadata_location, lake.on_disk()) == before
    lake.write(rows(1, 7), **declared)
    expected = {"append": (1, 1, 2, 3, 7), "overwrite": (1, 7)}.get(mode, (1, 2, 3, 7))
    assert multiset(lake.rows()) == multiset(rows(*expected).to_pylist())


FILTERS = {
    "an unknown column": ("colour = 'red'", ConfigurationError, ("colour",)),
    "no filter": ("id = = 1", ConfigurationError, ("id = = 1",)),
    "a value of another type": ("id = 'x'", ConfigurationError, ("id", "x")),
    "rows outside": ("id = 1", DataError, ("7", "id")),
}


@pytest.mark.parametrize("name", FILTERS, ids=lambda name: name.replace(" ", "-"))
def test_a_bad_filter_is_named_and_changes_nothing(lake: Lake, name: str) -> None:
    where, error, says = FILTERS[name]
    before = (lake.table.metadata_location, lake.on_disk())
    with pytest.raises(error) as raised:
        lake.write(rows(1, 7), where=where, write_mode="overwrite")
    for word in (lake.name, *says):
        assert word in raised.value.message
    assert raised.value.remedy
    assert (lake.table.metadata_location, lake.on_disk()) == before


def test_a_source_that_fails_keeps_its_own_error(lake: Lake) -> None:
    """A full disk or a lost connection of the source must not be taken for one of the table."""
    before = (lake.table.metadata_location, lake.on_disk())
    own = OSError(28, "no space left where the source keeps its files")

    def failing() -> Any:
        yield from rows(8).to_batches()
        raise own

    for mode, declared in MODES.items():
        with pytest.raises(OSError, match="where the source keeps") as raised:
            lake.write(failing(), **declared)
        assert not isinstance(raised.value, DwhError), mode
        assert (lake.table.metadata_location, lake.on_disk()) == before
