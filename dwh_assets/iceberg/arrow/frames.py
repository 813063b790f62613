"""A planned read as the type that a person asked for: Arrow, pandas, polars, DuckDB or the plan itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
from pyiceberg.io.pyarrow import schema_to_pyarrow
from pyiceberg.table import DataScan

from dwh_assets.errors import ConfigurationError
from dwh_assets.iceberg.scan import read


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
    return read(scan).read_all().to_pandas(date_as_object=False)


def _to_polars(scan: DataScan) -> Any:
    import polars

    return polars.from_arrow(read(scan).read_all())


def _to_polars_lazy(scan: DataScan) -> Any:
    """Stream through our own reader: polars' Iceberg reader has left threads that never end."""
    import polars
    from polars.io.plugins import register_io_source

    columns = schema_to_pyarrow(scan.projection(), include_field_ids=False)
    empty = polars.DataFrame(polars.from_arrow(columns.empty_table()))

    def batches(
        with_columns: list[str] | None, predicate: Any, n_rows: int | None, batch_size: int | None
    ) -> Iterator[Any]:
        selected = with_columns or columns.names
        for batch in read(_narrowed(scan.update(limit=n_rows), selected)):
            frame = polars.DataFrame(polars.from_arrow(pa.Table.from_batches([batch]))).select(selected)
            yield frame if predicate is None else frame.filter(predicate)

    return register_io_source(batches, schema=empty.schema)


def _narrowed(scan: DataScan, columns: list[str]) -> DataScan:
    """Read only these columns, unless the scan asks for parts of structs: it knows better then."""
    whole = "*" in scan.selected_fields or set(columns) <= set(scan.selected_fields)
    return scan.update(selected_fields=tuple(columns)) if whole else scan


def _to_duckdb(scan: DataScan) -> Any:
    import duckdb

    connection = duckdb.connect()
    rows = read(scan)
    connection.register("arriving", rows)
    connection.execute("CREATE TABLE scanned AS SELECT * FROM arriving")
    connection.unregister("arriving")
    return connection.table("scanned")


_READERS: dict[str, Callable[[DataScan], Any]] = {
    "pyarrow.Table": lambda scan: read(scan).read_all(),
    "pyarrow.RecordBatchReader": read,
    "pandas.DataFrame": _to_pandas,
    "polars.DataFrame": _to_polars,
    "polars.LazyFrame": _to_polars_lazy,
    "duckdb.DuckDBPyRelation": _to_duckdb,
    "pyiceberg.DataScan": lambda scan: scan,
}
