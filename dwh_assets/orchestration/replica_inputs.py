"""A replica as an input: its rows in the type that the parameter's annotation names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import duckdb
import pyarrow as pa

from dwh_assets.errors import ConfigurationError


def reader_for(annotation: Any) -> Callable[[pa.RecordBatchReader], Any]:
    """Return what turns rows into the type of an input; without an annotation that is a `pyarrow.Table`."""
    name = getattr(annotation, "__name__", "Table")
    library = getattr(annotation, "__module__", "pyarrow").split(".")[0].lstrip("_")
    known = "pyarrow.Table" if annotation in (None, Any, type(None)) else f"{library}.{name}"
    if known not in _READERS:
        raise ConfigurationError(
            f"A replica cannot be read as {known}.",
            remedy=f"Annotate the input with one of {', '.join(_READERS)}.",
        )
    return _READERS[known]


def _to_polars(rows: pa.RecordBatchReader) -> Any:
    import polars

    return polars.from_arrow(rows.read_all())


def _to_duckdb(rows: pa.RecordBatchReader) -> Any:
    return duckdb.connect().from_arrow(rows.read_all())


_READERS: dict[str, Callable[[pa.RecordBatchReader], Any]] = {
    "pyarrow.Table": lambda rows: rows.read_all(),
    "pyarrow.RecordBatchReader": lambda rows: rows,
    "pandas.DataFrame": lambda rows: rows.read_all().to_pandas(date_as_object=False),
    "polars.DataFrame": _to_polars,
    "polars.LazyFrame": lambda rows: _to_polars(rows).lazy(),
    "duckdb.DuckDBPyRelation": _to_duckdb,
}
