"""A wrong YAML names the file, the line and the attribute, what was found and what is expected."""

import re
import traceback
from pathlib import Path

import pytest

from dwh_assets.components.compute import load_computation
from dwh_assets.errors import ConfigurationError
from dwh_tests.components.project import COMPUTED, loaded

# Two documents: the mistake stands in the second, at the lines that begin with ">".
GOOD = f"""
type: dwh_assets.components.IcebergTable
attributes:
  table: shop.prices
  compute: {COMPUTED}.orders
---
type: dwh_assets.components.IcebergTable
attributes:
"""
IDENTITY = f"""
  table: shop.orders
  compute: {COMPUTED}.orders
"""

A_DAY = "{column: at, name: a, every: day, start: 2024-01-01}"

# What was written (the line of the mistake is marked), and what the message says besides file and line.
MISTAKES: dict[str, tuple[str, tuple[str, ...]]] = {
    "unknown attribute": ("> partition_specs: []", ("partition_specs", "did you mean partition_spec?")),
    "unknown attribute of a part": (
        "  policy:\n>   keep_snapshot: 5",
        ("policy.keep_snapshot", "did you mean keep_snapshots?"),
    ),
    "unknown attribute of a column": (
        "  columns:\n    id:\n>     kind: int",
        ("columns.id.kind", "description, type, required"),
    ),
    "unknown attribute in a list": (
        "  partition_spec:\n    - field: id\n>     transforms: day",
        ("partition_spec.0.transforms", "did you mean transform?"),
    ),
    "bad transform": (
        "  partition_spec:\n    - field: id\n    - field: place\n>     transform: buckets[4]",
        ("partition_spec.1.transform", "'buckets[4]'", "bucket[n]"),
    ),
    "bad type": (
        "  columns:\n    id: {type: int}\n    place:\n>     type: text",
        ("columns.place.type", "'text'", "expected an Iceberg type", "string"),
    ),
    "bad choice": ("> write_mode: replace", ("write_mode is 'replace'", "'append'", "'overwrite'")),
    "text for a list": ("> key_columns: id", ("key_columns is 'id'", "list")),
    "list for a text": ("> description: [a, b]", ("description is ['a', 'b']", "string")),
    "number out of range": ("> target_file_size_bytes: 5", ("target_file_size_bytes is 5", "1048576")),
    "no number": ("> max_writers: many", ("max_writers is 'many'", "integer")),
    "write mode without its keys": ("> write_mode: upsert", ("shop.orders", "upsert needs key_columns")),
    "two kinds of partitions": (
        "  partitions:\n>   - {column: id, every: month, keys: [a], start: 2013-01-01}",
        ("partitions.0", "exactly one of every, cron, keys or dynamic", "every and keys"),
    ),
    "no kind of partitions": ("  partitions:\n>   - {column: id}", ("partitions.0", "none of them")),
    "no start": ("  partitions:\n>   - {column: id, every: month}", ("partitions.0", "need a start")),
    "no date": (
        "  partitions:\n    - column: id\n      every: month\n>     start: 2013-13-01",
        ("partitions.0.start", "2013-13-01", "month must be in 1..12"),
    ),
    "start inside a day": (
        "  partitions:\n>   - {column: id, every: day, start: '2013-01-01T05:00'}",
        ("partitions.0", "more exact"),
    ),
    "zone in start": (
        "  partitions:\n    - column: id\n      every: hour\n>     start: '2013-01-01T00:00+02:00'",
        ("partitions.0.start", "attribute of its own"),
    ),
    "no zone": (
        "  partitions:\n    - column: id\n      every: month\n      start: 2013-01-01\n>     timezone: Mars",
        ("partitions.0.timezone is 'Mars'", "America/New_York"),
    ),
    "zone of no time": (
        "  partitions:\n>   - {column: id, keys: [a], timezone: UTC}",
        ("partitions.0", "timezone belongs to time windows, not to keys"),
    ),
    "no cron": (
        "  partitions:\n>   - {column: id, cron: monthly, start: 2013-01-01}",
        ("partitions.0", "cron", "'monthly'"),
    ),
    "a key twice": (
        "  partitions:\n    - column: id\n>     keys: [a, b, a]",
        ("partitions.0.keys", "twice: a"),
    ),
    "a key that YAML reads as a number": (
        "  partitions:\n    - column: id\n      keys:\n        - '1'\n>       - 2",
        ("partitions.0.keys.1 is 2", "string"),
    ),
    "dimensions without names": (
        ">partitions: [{column: id, keys: [a]}, {column: place, keys: [b]}]",
        ("partitions", "need a name each"),
    ),
    "dimensions of one name": (
        ">partitions: [{column: id, name: x, keys: [a]}, {column: place, name: x, keys: [b]}]",
        ("partitions", "need a name each"),
    ),
    "three dimensions": (
        ">partitions: [{column: a, keys: [a]}, {column: b, keys: [b]}, {column: c, keys: [c]}]",
        ("partitions", "at most 2 items", "3"),
    ),
    "two dimensions of time": (
        f">partitions: [{A_DAY}, {A_DAY.replace('name: a', 'name: b')}]",
        ("partitions", "only one of two"),
    ),
    "freshness the wrong way round": (
        "> freshness: {fail_after_hours: 1, warn_after_hours: 2}",
        ("freshness", "warn_after_hours must be less"),
    ),
    "freshness of seconds": ("> freshness: {fail_after_hours: 0.001}", ("freshness", "below a minute")),
    "no owner": ("> owners: [nobody]", ("owners is ['nobody']", "team:")),
    "no tag": ("> tags: {'a b!': x}", ("tags", "'a b!'")),
    "unknown warehouse": (
        "  replicas:\n>   - warehouse: oracle",
        ("replicas.0.warehouse is 'oracle'", "'duckdb', 'motherduck', 'snowflake' or 'bigquery'"),
    ),
    "two replicas of one name": (
        "> replicas: [{warehouse: duckdb}, {warehouse: duckdb, into: a.b}]",
        ("replicas", "2 replicas have the key [duckdb, namespace, table]"),
    ),
    "two replicas in one place": (
        "> replicas: [{warehouse: duckdb, into: a.b}, {warehouse: duckdb, into: a.b, name: other}]",
        ("replicas", "2 replicas are in one place of duckdb", "another into"),
    ),
    "no name of a replica": (
        "  replicas:\n    - warehouse: duckdb\n>     name: q3-orders",
        ("replicas.0.name is 'q3-orders'", "plain name"),
    ),
    "no mode": (
        "  replicas:\n    - warehouse: duckdb\n>     mode: mirror",
        ("replicas.0.mode is 'mirror'", "'copy'", "'external'", "'merge_into'", "'append_only'"),
    ),
    "unknown attribute of a replica": (
        "  replicas:\n    - warehouse: snowflake\n>     clusterby: [id]",
        ("replicas.0.clusterby", "did you mean cluster_by?"),
    ),
    "no level of parity": (
        "  replicas:\n    - warehouse: duckdb\n>     parity: rows",
        ("replicas.0.parity is 'rows'", "'fingerprint'"),
    ),
    "no cron of a replica": (
        "  replicas:\n    - warehouse: duckdb\n>     verify_schedule: nightly",
        ("replicas.0.verify_schedule is 'nightly'", "0 3 * * *"),
    ),
    "a pin into the past": (
        "  replicas:\n    - warehouse: duckdb\n>     pin_days: -1",
        ("replicas.0.pin_days is -1", "greater"),
    ),
    "an index where there are none": (
        "  replicas:\n>   - {warehouse: snowflake, indexes: [[id]]}",
        ("replicas.0", "indexes is for duckdb and motherduck; snowflake has no such thing"),
    ),
    "clusters where there are none": (
        "  replicas:\n>   - {warehouse: snowflake, indexes: [[id]]}",
        ("replicas.0", "indexes is for duckdb and motherduck; snowflake has no such thing"),
    ),
    "an index that is no list of columns": (
        "  replicas:\n    - warehouse: duckdb\n      indexes:\n>       - id",
        ("replicas.0.indexes.0 is 'id'", "list"),
    ),
    "partitions where there are none": (
        "  replicas:\n>   - {warehouse: duckdb, partition_by: {field: at}}",
        ("replicas.0", "partition_by is for bigquery"),
    ),
    "partitions of no time": (
        "  replicas:\n    - warehouse: bigquery\n      partition_by:\n>       transform: week",
        ("replicas.0.partition_by.transform is 'week'", "'month'"),
    ),
    "a history that stays where it is": (
        "  replicas:\n>   - {warehouse: duckdb, mode: merge_into, at: q3}",
        ("replicas.0", "at keeps one version; mode merge_into is a history"),
    ),
    "files of another version": (
        "  replicas:\n>   - {warehouse: bigquery, mode: external, at: q3}",
        ("replicas.0", "at needs mode copy in bigquery"),
    ),
    "changes that are compared with rows": (
        "  replicas:\n>   - {warehouse: duckdb, mode: append_only, parity: count}",
        ("replicas.0", "parity is for rows of the table; mode append_only holds changes"),
    ),
    "how to write what is not written": (
        "  replicas:\n>   - {warehouse: snowflake, mode: external, nested: json}",
        ("replicas.0", "nested is for rows that are written; with mode external none are"),
    ),
    "an audit of no kind": (
        "  audits:\n>   - {kind: no_nulls, columns: [id]}",
        ("audits.0", "'no_nulls'", "'not_null'", "'foreign_key'"),
    ),
    "an audit without its columns": (
        "  audits:\n>   - kind: not_null",
        ("audits.0.columns is missing",),
    ),
    "an audit of no columns": (
        "  audits:\n    - kind: unique\n>     columns: []",
        ("audits.0.columns is []", "at least 1"),
    ),
    "unknown attribute of an audit": (
        "  audits:\n    - kind: range\n      column: id\n      min: 0\n>     maximum: 5",
        ("audits.0.maximum is not an attribute", "did you mean max?"),
    ),
    "a range without bounds": (
        "  audits:\n>   - {kind: range, column: id}",
        ("audits.0", "a range needs min, max or both"),
    ),
    "a change the wrong way round": (
        "  audits:\n>   - {kind: row_count_change, min_percent: 5, max_percent: -5}",
        ("audits.0", "min_percent 5.0 is greater than max_percent -5.0"),
    ),
    "a foreign key of other columns": (
        "  audits:\n>   - {kind: foreign_key, columns: [a, b], table: shop.c, references: [id]}",
        ("audits.0", "2 columns cannot refer to 1"),
    ),
    "an audit of no plain name": (
        "  audits:\n    - kind: sql\n>     name: no gifts\n      query: SELECT 1",
        ("audits.0.name is 'no gifts'", "letters, digits and _"),
    ),
    "two audits of one name": (
        "> audits: [{kind: unique, columns: [id]}, {kind: unique, columns: [id]}]",
        ("audits", "two audits are called unique_id"),
    ),
    "an audit called as another check": (
        "> audits: [{kind: sql, name: doctor, query: SELECT 1}]",
        ("audits: doctor is a check of its own",),
    ),
    "no way to publish": ("> publish: at_once", ("publish is 'at_once'", "'after_audit'")),
    "published without audits": ("> publish: after_audit", ("publish: after_audit needs audits",)),
    "a stream that is published": (
        "> publish: after_audit\n  audits: [{kind: unique, columns: [id]}]\n  stream: {name: orders}",
        ("publish goes without stream",),
    ),
    "a branch that is published": (
        "> publish: after_audit\n  audits: [{kind: unique, columns: [id]}]\n  branch: trial",
        ("publish goes without branch",),
    ),
    "no partition in a run": ("> partitions_per_run: 0", ("partitions_per_run is 0", "greater", "'all'")),
    "a stream that overwrites": (
        "> stream: {name: orders}\n  write_mode: overwrite",
        ("stream needs write_mode append, upsert or merge",),
    ),
    "a stream with partitions": (
        "> stream: {name: orders}\n  partitions: [{column: id, keys: [a]}]",
        ("stream goes without partitions",),
    ),
    "a stream without a name": (
        "> stream: {commit_rows: 5}",
        ("stream.name is missing",),
    ),
    "no number of rows": (
        "  stream:\n    name: orders\n>   commit_rows: 0",
        ("stream.commit_rows is 0", "greater"),
    ),
    "partitions of an append": ("> overwrite: partitions", ("overwrite says what", "not append")),
    "two versions": ("> inputs: {orders: {tag: q3, branch: trial}}", ("inputs", "tag and branch say twice")),
    "unknown input": ("> inputs: {prices: {}}", ("inputs", "prices", "no input")),
}


def _marked(text: str) -> tuple[str, int]:
    """Return the YAML without the mark, and the number of the line that had it."""
    lines = text.strip("\n").splitlines()
    (number,) = [number for number, line in enumerate(lines, start=1) if line.startswith(">")]
    return "\n".join(f" {line[1:]}" if line.startswith(">") else line for line in lines), number


def _message(yaml: str) -> str:
    """Return the innermost message of the error that loading raises."""
    with pytest.raises(Exception) as caught, loaded(yaml):  # noqa: PT011 - Dagster wraps ours
        pass
    return "".join(traceback.format_exception_only(caught.value.__cause__ or caught.value))


@pytest.mark.parametrize(("written", "said"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_found_where_it_is(written: str, said: tuple[str, ...]) -> None:
    written = re.sub(r"^>(?! )", "> ", written)
    yaml, line = _marked(GOOD.strip("\n") + IDENTITY + written)
    message = _message(yaml + "\n")
    assert f"shop/defs.yaml:{line}: " in message.replace("\\", "/")
    for part in said:
        assert part in message


COMPUTES = {
    "no such function": ("nowhere", "no attribute 'nowhere'"),
    "no function": ("NOT_A_FUNCTION", "not a function"),
    "a class": ("PartitionSlice", "not a function"),
    "unreadable annotation": ("with_an_annotation_of_the_type_checker", "'Decimal' is not defined"),
    "any arguments": ("with_any_arguments", "any number of arguments (orders, more)"),
    "partition without partitions": ("by_place", "declares no partitions"),
    "offset without a stream": ("events", "declares no stream"),
}


@pytest.mark.parametrize(("function", "said"), COMPUTES.values(), ids=COMPUTES)
def test_a_wrong_compute_is_found_where_it_is(function: str, said: str) -> None:
    yaml, line = _marked(GOOD.strip("\n") + f"\n  table: shop.orders\n> compute: {COMPUTED}.{function}")
    message = _message(yaml + "\n")
    assert f"shop/defs.yaml:{line}: shop.orders: " in message.replace("\\", "/")
    assert said in message


def test_a_module_that_fails_is_not_blamed_on_the_yaml_alone() -> None:
    message = _message(GOOD.strip("\n") + "\n  table: shop.orders\n  compute: nowhere.at.all\n")
    assert "ModuleNotFoundError: No module named 'nowhere'" in message
    assert "Write package.module.function" in message


@pytest.mark.parametrize(
    "compute", ["nowhere.at.all", f"{COMPUTED}.gone", f"{COMPUTED}.with_an_annotation_of_the_type_checker"]
)
def test_a_wrong_path_brings_no_chain_of_errors_along(compute: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_computation(compute, "shop.orders")
    assert caught.value.__suppress_context__
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("statement", ["import nowhere_at_all", "[].gone", "1 / 0"])
def test_an_error_inside_a_module_comes_along_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, statement: str
) -> None:
    (tmp_path / "broken_source.py").write_text(f"{statement}\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigurationError) as caught:
        load_computation("broken_source.rows", "shop.orders")
    assert caught.value.__cause__ is not None
    assert "broken_source.py" in "".join(traceback.format_tb(caught.value.__cause__.__traceback__))


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("  compute: a.b", "table is missing"),
        ("  table: shop.orders", "compute is missing"),
        ("  table: orders\n  compute: a.b", "'orders' must be namespace.table"),
        ("  table: shop.my-orders\n  compute: a.b", "'shop.my-orders' must be namespace.table"),
    ],
)
def test_a_table_without_identity_is_refused(written: str, said: str) -> None:
    message = _message(GOOD.strip("\n") + "\n" + written + "\n")
    assert said in message
    assert "shop/defs.yaml:" in message.replace("\\", "/")


def test_every_mistake_is_said_at_once() -> None:
    message = _message(
        GOOD.strip("\n") + IDENTITY + "  write_mode: replace\n  key_columns: id\n  nothing: 1\n"
    )
    for attribute in ("write_mode", "key_columns", "nothing"):
        assert attribute in message


def test_no_attributes_at_all_is_refused() -> None:
    assert "table is missing" in _message("type: dwh_assets.components.IcebergTable\n")
