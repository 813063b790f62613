"""The benchmarks by name."""

from __future__ import annotations

from dwh_tests.benchmarks.model import (
    Benchmark,
    Contender,
    Size,
    Task,
    at_most_times,
    figure_at_most,
    peak_below,
    rows_per_second,
    seconds_at_most,
    stored_at_most_times,
    times_faster,
)

LINEITEM_ROWS = 6_001_215
OURS = Contender("dwh_assets", "ours:Append")
BLIND = {"detect_unchanged": False}
_ORDER_KEYS, _LINE_KEYS = ("o_orderkey",), ("l_orderkey", "l_linenumber")


def _append(size: Size) -> Task:
    return Task("lineitem")


def _orders(size: Size) -> Task:
    return Task("orders")


def _append_by_day(size: Size) -> Task:
    return Task("lineitem", by_day="l_shipdate")


def _upsert(size: Size) -> Task:
    return Task("orders", _ORDER_KEYS, 400_000 if size == "full" else 4_000)


def _upsert_composite(size: Size) -> Task:
    return Task("lineitem", _LINE_KEYS, 20_000 if size == "full" else 200)


def _upsert_composite_by_day(size: Size) -> Task:
    return Task("lineitem", _LINE_KEYS, 20_000 if size == "full" else 200, by_day="l_shipdate")


def _compare_newest(size: Size) -> Task:
    return Task("lineitem", _LINE_KEYS, 6_000 if size == "full" else 60, changes="newest")


def _compare_scattered(size: Size) -> Task:
    return Task("lineitem", _LINE_KEYS, 6_000 if size == "full" else 60, changes="scattered")


def _generated(size: Size) -> None:
    return None


def _scaling() -> tuple[Contender, ...]:
    return tuple(
        Contender(
            f"{label}{' scattered' if scattered else ''}",
            "generated:UpsertRange",
            {"rows": rows, "scattered": scattered},
            prepared=label,
        )
        for scattered in (False, True)
        for label, rows in (("1M", 1_000_000), ("10M", 10_000_000), ("60M", 60_000_000))
    )


_COMPARED = (
    Contender("dwh_assets", "comparing:Ours"),
    Contender("dwh_assets, compacted", "comparing:Ours", {"compacted": True}),
    # Counts only
    Contender("DuckDB join", "comparing:FullOuterJoin"),
    Contender("Spark", "spark_peer:Changelog", once=True),
)

_FOLLOWED = (
    Contender("dwh_assets", "replicas:Follow", prepared="replica"),
    Contender("full load", "replicas:Follow", {"anew": True}, prepared="replica"),
)

_ALL = (
    Benchmark(
        "append",
        "append lineitem (6M x 16) to a new table",
        (
            OURS,
            # As tpchgen-cli writes them, on which PyIceberg's partitioned write fails.
            Contender("dwh_assets, string_view", "ours:Append", {"views": True}),
            Contender("pyarrow, 2 threads", "files:PyArrowHalves"),
            Contender("PyIceberg", "pyiceberg_peer:Append"),
            Contender("polars", "files:Polars"),
            Contender("DuckDB COPY", "duckdb_peer:Copy"),
            Contender("DuckDB iceberg", "duckdb_iceberg:CreateTableAs"),
        ),
        (times_faster("pyarrow, 2 threads", 0.9), rows_per_second(LINEITEM_ROWS, 1_000_000)),
        _append,
    ),
    Benchmark(
        "append_by_day",
        "append lineitem into day(l_shipdate), 2,526 partitions",
        (
            OURS,
            Contender("dwh_assets, string_view", "ours:Append", {"views": True}),
            Contender("PyIceberg", "pyiceberg_peer:Append", once=True),
            Contender("DuckDB COPY", "duckdb_peer:Copy", once=True),
            Contender("DuckDB iceberg", "duckdb_iceberg:CreateTableAs", once=True),
            Contender("Spark", "spark_peer:CreateTableAs", once=True),
        ),
        (times_faster("PyIceberg", 9), times_faster("DuckDB COPY", 6)),
        _append_by_day,
    ),
    Benchmark(
        "upsert_blind",
        "upsert 400k (half new) into 1.5M orders, every match rewritten without a look",
        (
            Contender("dwh_assets", "ours:Upsert", BLIND),
            Contender("DuckDB iceberg", "duckdb_iceberg:Merge"),
            Contender("DuckDB native", "duckdb_peer:Merge"),
        ),
        (times_faster("DuckDB iceberg", 1), times_faster("DuckDB native", 1)),
        _upsert,
    ),
    Benchmark(
        "upsert_detect",
        "upsert 400k (half new, a quarter unchanged) into 1.5M orders, unchanged rows left alone",
        (
            Contender("dwh_assets", "ours:Upsert"),
            Contender("PyIceberg", "pyiceberg_peer:Upsert", once=True),
            Contender("delta-rs", "delta_peer:Merge"),
            Contender("Spark", "spark_peer:Merge", once=True),
        ),
        (times_faster("PyIceberg", 50), times_faster("delta-rs", 2), times_faster("Spark", 7)),
        _upsert,
    ),
    Benchmark(
        "upsert_composite",
        "upsert 20k two-column keys (half new) into 6M lineitem",
        (
            Contender("dwh_assets", "ours:Upsert"),
            Contender("dwh_assets, blind", "ours:Upsert", BLIND),
            Contender("DuckDB iceberg", "duckdb_iceberg:Merge"),
            Contender("delta-rs", "delta_peer:Merge"),
            Contender(
                "PyIceberg",
                "pyiceberg_peer:Upsert",
                once=True,
                known_crash="a segmentation fault in the filter of 20,000 two-column keys",
            ),
        ),
        # The extension never looks whether a row changed, and reads the key columns only.
        (
            times_faster("DuckDB iceberg", 1.5, ours="dwh_assets, blind"),
            times_faster("DuckDB iceberg", 1.5),
            times_faster("delta-rs", 4),
        ),
        _upsert_composite,
    ),
    Benchmark(
        "upsert_composite_by_day",
        "the same into day(l_shipdate), 2,526 partitions",
        (
            Contender("dwh_assets", "ours:Upsert", prepared="table"),
            Contender("dwh_assets, blind", "ours:Upsert", BLIND, prepared="table"),
            Contender("DuckDB iceberg", "duckdb_iceberg:Merge"),
        ),
        (times_faster("DuckDB iceberg", 3),),
        _upsert_composite_by_day,
    ),
    Benchmark(
        "upsert_scaling",
        "upsert 1k rows within 1% of the keys into 1M, 10M, 60M rows clustered by key; also scattered",
        _scaling(),
        (at_most_times("60M", "1M", 3),),
        _generated,
    ),
    Benchmark(
        "stream_memory",
        "stream 60M rows, made batch by batch, into 100 partitions",
        (Contender("dwh_assets", "generated:Stream", {"rows": 60_000_000, "partitions": 100}),),
        (peak_below(1024),),
        _generated,
    ),
    Benchmark(
        "compare_newest",
        "compare versions, 0.1% of lineitem upserted in the newest days, sorted by date; with row images",
        _COMPARED,
        (
            times_faster("DuckDB join", 10),
            times_faster("Spark", 100),
            figure_at_most("% of the table's bytes", 3),
            at_most_times("dwh_assets, compacted", "dwh_assets", 1.2),
        ),
        _compare_newest,
    ),
    Benchmark(
        "compare_scattered",
        "the same with the changed rows scattered over the whole table",
        _COMPARED,
        (
            times_faster("DuckDB join", 1),
            times_faster("Spark", 20),
            at_most_times("dwh_assets, compacted", "dwh_assets", 1.2),
        ),
        _compare_scattered,
    ),
    Benchmark(
        "compare_memory",
        "compare two versions of 60M rows that differ everywhere, and stream all row images",
        (Contender("dwh_assets", "comparing:Everywhere", {"rows": 60_000_000}),),
        (peak_below(1024),),
        _generated,
    ),
    Benchmark(
        "parity",
        "prove a DuckDB replica of lineitem (6M x 16) equal to its table",
        (
            Contender("dwh_assets", "parity:Verify", prepared="copy"),
            Contender("dwh_assets, full", "parity:Verify", {"level": "full"}, prepared="copy"),
            Contender("DuckDB EXCEPT ALL", "parity:ExceptAll", prepared="copy"),
            Contender("pyarrow sorted", "parity:SortedArrow", prepared="copy"),
            Contender("pandas merge", "parity:PandasMerge", once=True, prepared="copy"),
        ),
        (
            times_faster("pandas merge", 5),
            times_faster("DuckDB EXCEPT ALL", 1),
            times_faster("pyarrow sorted", 1),
            peak_below(1024),
        ),
        _append,
    ),
    Benchmark(
        "time_travel",
        "read the first row of 1 of 1,000 snapshots, by its moment, 20 times",
        (
            Contender("dwh_assets", "versions:FirstRow", {"travels": True}, prepared="table"),
            Contender("current snapshot", "versions:FirstRow", {"travels": False}, prepared="table"),
        ),
        (at_most_times("dwh_assets", "current snapshot", 1.2),),
        _orders,
    ),
    Benchmark(
        "replica_load",
        "load lineitem (6M x 16) into a new DuckDB file",
        (
            Contender("dwh_assets", "replicas:Load", prepared="table"),
            Contender("DuckDB CREATE TABLE AS", "replicas:CreateTableAs", prepared="table"),
            Contender("pandas", "replicas:FromPandas", prepared="table", once=True),
        ),
        (
            times_faster("DuckDB CREATE TABLE AS", 0.7),
            times_faster("pandas", 5),
            peak_below(1024),
        ),
        _append,
    ),
    Benchmark(
        "replica_newest",
        "bring a DuckDB replica to the version after 0.1% of lineitem were upserted in the newest days",
        _FOLLOWED,
        (times_faster("full load", 20),),
        _compare_newest,
    ),
    Benchmark(
        "replica_scattered",
        "the same with the changed rows scattered over the whole table",
        _FOLLOWED,
        (times_faster("full load", 8),),
        _compare_scattered,
    ),
    Benchmark(
        "replica_unchanged",
        "sync a DuckDB replica of lineitem when nothing changed, or when the table was only compacted",
        (
            Contender("dwh_assets", "replicas:Stay"),
            Contender("dwh_assets, compacted", "replicas:Stay", {"compacted": True}),
        ),
        (
            seconds_at_most(1),
            seconds_at_most(1, "dwh_assets, compacted"),
            figure_at_most("bytes read", 0),
            figure_at_most("bytes read", 0, "dwh_assets, compacted"),
        ),
        _append,
    ),
    Benchmark(
        "storage",
        "upsert a share of lineitem's rows 100 times: bytes stored, metadata included, no maintenance",
        (
            # Folders are named without a percent sign, which a URI would take for an escape.
            Contender("one version", "versions:Versions", {"versions": 0, "share": 0.0}, prepared="one"),
            *(
                Contender(
                    f"100 x {share:.2%}",
                    "versions:Versions",
                    {"versions": 100, "share": share},
                    once=True,
                    prepared=f"share-{share}",
                )
                for share in (0.0005, 0.001)
            ),
        ),
        (
            stored_at_most_times("100 x 0.05%", "one version", 1.10),
            stored_at_most_times("100 x 0.10%", "one version", 1.18),
        ),
        _append,
    ),
)

BENCHMARKS: dict[str, Benchmark] = {benchmark.name: benchmark for benchmark in _ALL}
