"""Inputs: TPC-H tables from `tpchgen-cli`, and the rows to upsert; made once and kept in the tests' cache."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from dwh_tests.benchmarks.model import Facts, Size, Task, Unavailable
from dwh_tests.servers.cache import cache_root, fill_once

SCALE: dict[Size, str] = {"full": "1", "toy": "0.01"}
# Changes whenever the inputs made here do: the cache outlives a checkout.
_VERSION = "1"
# TPC-H has 2,526 ship dates at any scale, too many files for a toy.
_TOY_DAYS = "l_shipdate BETWEEN DATE '1995-01-01' AND DATE '1995-01-20'"
_CHANGED = {"orders": "o_totalprice", "lineitem": "l_quantity"}
_DATE = "l_shipdate"
_SUMS = {
    "orders": ("o_orderkey", "o_custkey", "o_totalprice"),
    "lineitem": ("l_orderkey", "l_partkey", "l_quantity", "l_extendedprice"),
}


def inputs(task: Task, size: Size) -> Path:
    """Return the folder with `base.parquet`, `source.parquet` to upsert, and `expected.json`, the facts."""
    tables = _tpch(size)
    folder = cache_root() / "benchmarks" / _VERSION / f"{task.name}-{size}"
    fill_once(folder, "benchmarks", partial(_make, task, size, tables))
    return folder


def facts_sql(task: Task, relation_sql: str) -> str:
    """Select the facts of a relation, one column each."""
    sums = ", ".join(f"sum({column}) AS {column}" for column in _SUMS[task.dataset])
    return f"SELECT count(*) AS rows, {sums} FROM {relation_sql}"


def load(path: Path, *, views: bool = False) -> pa.Table:
    """Read an input into memory, nullable and without field ids; with string views or plain strings."""
    rows = pq.read_table(path)
    text = pa.string_view() if views else pa.string()
    fields = [
        pa.field(field.name, text if _is_text(field.type) else field.type, nullable=True)
        for field in rows.schema
    ]
    return rows.replace_schema_metadata().cast(pa.schema(fields))


def _is_text(type_: pa.DataType) -> bool:
    return type_ in (pa.string(), pa.large_string(), pa.string_view())


def _tpch(size: Size) -> Path:
    folder = cache_root() / "tpch" / SCALE[size]
    fill_once(folder, "tpch", partial(_generate, SCALE[size]))
    return folder


def _generate(scale: str, folder: Path) -> None:
    # pip puts it beside the interpreter, which need not be on the PATH.
    beside = Path(sys.executable).with_name("tpchgen-cli")
    program = str(beside) if beside.exists() else shutil.which("tpchgen-cli")
    if program is None:
        raise Unavailable("tpchgen-cli is not installed (pip install 'dwh_assets[bench]')")
    options = ["parquet", "-s", scale, "--tables=orders,lineitem", f"--output-dir={folder}"]
    subprocess.run([program, *options], check=True, stdout=subprocess.DEVNULL)


def _make(task: Task, size: Size, tables: Path, folder: Path) -> None:
    base, original = folder / "base.parquet", tables / f"{task.dataset}.parquet"
    if task.changes:
        _make_changes(task, original, folder)
        return
    few_days = task.by_day is not None and size == "toy"
    if few_days:
        days = pq.read_table(original)
        with duckdb.connect() as connection:
            kept = connection.sql(f"SELECT * FROM days WHERE {_TOY_DAYS}").to_arrow_table()
        pq.write_table(kept, base)
        del days
    else:
        base.hardlink_to(original)
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        after = f"'{base}'"
        if task.keys:
            source = folder / "source.parquet"
            connection.execute(f"COPY ({_source_sql(task, base)}) TO '{source}'")
            using = ", ".join(task.keys)
            after = f"(FROM '{base}' ANTI JOIN '{source}' USING ({using}) UNION ALL BY NAME FROM '{source}')"
        facts = one_row(connection, facts_sql(task, after))
    (folder / "expected.json").write_text(json.dumps(facts))


def _make_changes(task: Task, original: Path, folder: Path) -> None:
    """Sort by date; change rows of the newest days, or scattered; and keep all rows as they are afterwards.

    The newest are twice as many as are changed of them.
    """
    base, source, after = (folder / f"{name}.parquet" for name in ("base", "source", "after"))
    changed, keys = _CHANGED[task.dataset], ", ".join(task.keys)
    newest = f"QUALIFY row_number() OVER (ORDER BY {_DATE} DESC, {keys}) <= {2 * task.source_rows}"
    with duckdb.connect() as connection:
        connection.execute(f"COPY (FROM '{original}' ORDER BY {_DATE}, {keys}) TO '{base}'")
        drawn = f"SELECT * FROM '{base}' {newest if task.changes == 'newest' else ''}"
        connection.execute(
            f"COPY (SELECT * REPLACE (({changed} + 1)::DECIMAL(15, 2) AS {changed}) FROM ({drawn})"
            f" ORDER BY hash({keys}) LIMIT {task.source_rows}) TO '{source}'"
        )
        unchanged = f"FROM '{base}' ANTI JOIN '{source}' USING ({keys})"
        connection.execute(f"COPY (({unchanged}) UNION ALL BY NAME FROM '{source}') TO '{after}'")
    facts = {"added": "0", "removed": "0", "modified": str(task.source_rows)}
    (folder / "expected.json").write_text(json.dumps(facts))


def _source_sql(task: Task, base: Path) -> str:
    """Half new keys, a quarter of changed rows, a quarter of unchanged ones, all scattered over the table.

    Of every 32 order keys TPC-H uses the first 8, so that `key + 8` is new and lies among the old ones.
    """
    half = task.source_rows // 2
    changed, key = _CHANGED[task.dataset], task.keys[0]
    scattered = f"hash({', '.join(task.keys)})"
    return f"""
        WITH drawn AS (
            SELECT *, row_number() OVER (ORDER BY {scattered}) AS draw FROM '{base}'
            QUALIFY draw <= {2 * half}
        )
        SELECT * EXCLUDE (draw) REPLACE (
            CASE WHEN draw > {half} THEN {key} + 8 ELSE {key} END AS {key},
            CASE WHEN draw <= {half} AND draw % 2 = 0 THEN ({changed} + 1)::DECIMAL(15, 2) ELSE {changed} END
                AS {changed}
        ) FROM drawn ORDER BY hash(draw)
    """


def one_row(connection: duckdb.DuckDBPyConnection, sql: str) -> Facts:
    """Run a query of one row; return its columns as text."""
    cursor = connection.execute(sql)
    names = [column[0] for column in cursor.description or []]
    values = cursor.fetchone() or ()
    return {name: str(value) for name, value in zip(names, values, strict=True)}
