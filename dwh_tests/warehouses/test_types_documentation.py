"""docs/types.md says what the dialects do: its table is made from them, and held here."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from pyiceberg.types import (
    BinaryType,
    BooleanType,
    DateType,
    DecimalType,
    DoubleType,
    FixedType,
    FloatType,
    IcebergType,
    IntegerType,
    ListType,
    LongType,
    MapType,
    NestedField,
    StringType,
    StructType,
    TimestampNanoType,
    TimestampType,
    TimestamptzNanoType,
    TimestamptzType,
    TimeType,
    UUIDType,
)

from dwh_assets.errors import UnsupportedError
from dwh_assets.warehouses.bigquery.dialect import BigQueryDialect
from dwh_assets.warehouses.dialect import Dialect, TypeOptions
from dwh_assets.warehouses.duckdb.dialect import DuckDBDialect
from dwh_assets.warehouses.snowflake.dialect import SnowflakeDialect

PAGE = Path(__file__).parents[2] / "docs" / "types.md"
DIALECTS: list[Dialect] = [DuckDBDialect(), SnowflakeDialect(), BigQueryDialect()]
Nanoseconds = Literal["error", "truncate", "text"]
NANOSECONDS: list[Nanoseconds] = ["error", "truncate", "text"]
TYPES: dict[str, IcebergType] = {
    "boolean": BooleanType(),
    "int": IntegerType(),
    "long": LongType(),
    "float": FloatType(),
    "double": DoubleType(),
    "decimal(9, 2)": DecimalType(9, 2),
    "decimal(38, 10)": DecimalType(38, 10),
    "date": DateType(),
    "time": TimeType(),
    "timestamp": TimestampType(),
    "timestamptz": TimestamptzType(),
    "timestamp_ns": TimestampNanoType(),
    "timestamptz_ns": TimestamptzNanoType(),
    "string": StringType(),
    "uuid": UUIDType(),
    "fixed(3)": FixedType(3),
    "binary": BinaryType(),
    "struct<a: long>": StructType(NestedField(2, "a", LongType(), required=False)),
    "list<long>": ListType(3, LongType(), element_required=False),
    "map<string, long>": MapType(4, StringType(), 5, LongType(), value_required=False),
}


def table() -> Iterator[str]:
    yield f"| Iceberg | {' | '.join(one.capabilities.warehouse for one in DIALECTS)} |"
    yield "|---" * (len(DIALECTS) + 1) + "|"
    for name, iceberg in TYPES.items():
        yield f"| `{name}` | {' | '.join(_cell(dialect, iceberg) for dialect in DIALECTS)} |"


def _cell(dialect: Dialect, iceberg: IcebergType) -> str:
    """How a type is held by default, and by which options otherwise."""
    default = _held(dialect, iceberg, TypeOptions())
    others = {
        **{
            f"nanoseconds: {one}": _held(dialect, iceberg, TypeOptions(nanoseconds=one))
            for one in NANOSECONDS
        },
        "nested: native": _held(dialect, iceberg, TypeOptions(nested="native")),
        "nested: json": _held(dialect, iceberg, TypeOptions(nested="json")),
    }
    return "; ".join(
        [default, *(f"`{option}`: {held}" for option, held in others.items() if held != default)]
    )


def _held(dialect: Dialect, iceberg: IcebergType, options: TypeOptions) -> str:
    try:
        holding = dialect.holding(iceberg, "table: column", options)
    except UnsupportedError:
        return "an error"
    hashed = dialect.canonical_sql(iceberg, holding, "value") is not None
    notes = [*([f"loses {holding.lost}"] if holding.lost else []), *([] if hashed else ["not hashed"])]
    mark = "``" if "`" in holding.sql_type else "`"
    shown = f"{mark}{holding.sql_type}{mark}"
    return f"{shown} ({', '.join(notes)})" if notes else shown


def test_the_page_has_the_table_of_the_dialects() -> None:
    assert "\n".join(table()) in PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda one: one.capabilities.warehouse)
def test_nothing_is_lost_unless_an_option_says_so(dialect: Dialect) -> None:
    assert not [name for name, iceberg in TYPES.items() if "loses" in _held(dialect, iceberg, TypeOptions())]


if __name__ == "__main__":
    print("\n".join(table()))
