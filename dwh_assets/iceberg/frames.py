"""A planned read as the type that a person asked for: Arrow, pandas, polars, DuckDB or the plan itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
from pyiceberg.table import DataScan

from dwh_assets.errors import ConfigurationError


def read_as(scan: DataScan, annotation: Any) -> Any:
    """Return the rows of `scan` as `annotation` says; no annotation means a `pyarrow.Table`.

    `pyarrow.RecordBatchReader` and `polars.LazyFrame` stream; the others are whole in memory, except a
    DuckDB relation, which may spill to disk. Raises `ConfigurationError` for any other type.
    """
    name = _qualified(annotation)
    if name not in _READERS:
        raise ConfigurationError(
            f"A table cannot be read as {name}.",
            remedy=f"Annotate the input with one of {', '.join(_READERS)}.",
        )
    return _READERS[name](scan)


def _qualified(annotation: Any) -> str:
    if annotation in (None, Any, type(None)):
        return "pyarrow.Table"
    library = getattr(annotation, "__module__", "").split(".")[0].lstrip("_")
    return f"{library}.{getattr(annotation, '__name__', annotation)}"


def _to_pandas(scan: DataScan) -> Any:
    return scan.to_arrow().to_pandas(date_as_object=False)


def _to_polars(scan: DataScan) -> Any:
    import polars

    return polars.from_arrow(scan.to_arrow())


def _to_polars_lazy(scan: DataScan) -> Any:
    """Stream through our own reader: polars' Iceberg reader has left threads that never end."""
    import polars
    from polars.io.plugins import register_io_source

    empty = polars.from_arrow(scan.to_arrow_batch_reader().schema.empty_table())

    def batches(
        with_columns: list[str] | None, predicate: Any, n_rows: int | None, batch_size: int | None
    ) -> Iterator[Any]:
        narrowed = scan.select(*with_columns) if with_columns else scan
        left = n_rows
        for batch in narrowed.to_arrow_batch_reader():
            frame = polars.from_arrow(pa.Table.from_batches([batch]))
            frame = frame if predicate is None else frame.filter(predicate)
            frame = frame if left is None else frame.head(left)
            left = None if left is None else left - frame.height
            yield frame
            if left == 0:
                return

    return register_io_source(batches, schema=empty.schema)


def _to_duckdb(scan: DataScan) -> Any:
    import duckdb

    connection = duckdb.connect()
    rows = scan.to_arrow_batch_reader()
    connection.register("arriving", rows)
    connection.execute("CREATE TABLE scanned AS SELECT * FROM arriving")
    connection.unregister("arriving")
    return connection.table("scanned")


_READERS: dict[str, Callable[[DataScan], Any]] = {
    "pyarrow.Table": lambda scan: scan.to_arrow(),
    "pyarrow.RecordBatchReader": lambda scan: scan.to_arrow_batch_reader(),
    "pandas.DataFrame": _to_pandas,
    "polars.DataFrame": _to_polars,
    "polars.LazyFrame": _to_polars_lazy,
    "duckdb.DuckDBPyRelation": _to_duckdb,
    "pyiceberg.DataScan": lambda scan: scan,
}
