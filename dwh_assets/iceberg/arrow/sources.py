"""Anything that holds rows, as one stream of Arrow batches.

Accepted: Arrow tables, batches, readers, datasets and iterators of batches; pandas and polars frames
(lazy ones are streamed); DuckDB relations; PyIceberg scans. Nothing is collected that can be streamed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
from pyiceberg.table import DataScan

from dwh_assets.errors import DataError
from dwh_assets.iceberg.faults import first_line
from dwh_assets.iceberg.scan import read

_BATCH_ROWS = 122_880


def as_reader(data: Any) -> pa.RecordBatchReader:
    """Return `data` as a `pyarrow.RecordBatchReader`; it can be read once.

    Raises `DataError` for a type that holds no rows.
    """
    if isinstance(data, pa.RecordBatchReader):
        return data
    if isinstance(data, pa.RecordBatch):
        return pa.RecordBatchReader.from_batches(data.schema, [data])
    if isinstance(data, pa.Table):
        return data.to_reader(max_chunksize=_BATCH_ROWS)
    if isinstance(data, ds.Dataset):
        return ds.Scanner.from_dataset(data).to_reader()
    try:
        return _from_library(data)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, ValueError) as error:
        raise DataError(
            f"The {type(data).__name__} cannot be read as Arrow: {first_line(error)}.",
            remedy="Give each column one name and values of one type.",
        ) from error


def in_memory(data: Any) -> bool:
    """Tell whether all rows of `data` are in memory already."""
    if isinstance(data, pa.Table | pa.RecordBatch):
        return True
    return type(data).__module__.split(".")[0] in ("pandas", "polars") and hasattr(data, "shape")


def as_batches(data: Any) -> Iterator[pa.RecordBatch]:
    """Yield the rows of `data` batch by batch. Of an iterator or list, each keeps its own columns.

    Unlike a reader, which has columns from the start, these may be none at all.
    Raises `DataError` for what holds no rows.
    """
    is_reader = isinstance(data, pa.RecordBatchReader)
    if is_reader or not isinstance(data, list | tuple | Iterator):
        yield from as_reader(data)
        return
    for number, item in enumerate(data, 1):
        if not isinstance(item, pa.RecordBatch | pa.Table):
            raise DataError(
                f"Item {number} of the stream is a {type(item).__name__}.", remedy="Yield Arrow batches."
            )
        yield from item.to_batches() if isinstance(item, pa.Table) else [item]


def _from_library(data: Any) -> pa.RecordBatchReader:
    """Recognise frames by their module, so that no library is imported for the sake of a check."""
    library = type(data).__module__.split(".")[0]
    if library == "pandas" and hasattr(data, "columns"):
        return (
            pa.Table.from_pandas(data, preserve_index=False).replace_schema_metadata().to_reader(_BATCH_ROWS)
        )
    if library == "polars" and hasattr(data, "collect_schema"):
        return _from_polars(data)
    if library in ("duckdb", "_duckdb"):
        return _from_duckdb(data)
    if isinstance(data, DataScan):
        return read(data)
    is_frame_part = library in ("pandas", "polars")
    if hasattr(data, "__arrow_c_stream__") and not is_frame_part:
        return pa.RecordBatchReader.from_stream(data)
    if isinstance(data, Iterable) and not is_frame_part and not isinstance(data, str | bytes | dict):
        return _from_batches(iter(data))
    raise DataError(
        f"{type(data).__name__} is not tabular data.",
        remedy="Give an Arrow table or reader, a pandas or polars frame, a DuckDB relation or a scan.",
    )


def _from_polars(data: Any) -> pa.RecordBatchReader:
    if not hasattr(data, "collect_batches"):
        return pa.RecordBatchReader.from_stream(data)
    schema = data.collect_schema().to_frame().to_arrow().schema
    batches = (batch for frame in data.collect_batches() for batch in frame.to_arrow().to_batches())
    return pa.RecordBatchReader.from_batches(schema, batches)


def _from_duckdb(data: Any) -> pa.RecordBatchReader:
    reader: pa.RecordBatchReader = data.to_arrow_reader(_BATCH_ROWS)
    return reader


def _from_batches(batches: Iterator[Any]) -> pa.RecordBatchReader:
    first = next(batches, None)
    if not isinstance(first, pa.RecordBatch | pa.Table):
        raise DataError(
            f"An iterator must yield Arrow batches; the first item is {type(first).__name__}.",
            remedy="Yield at least one pyarrow.RecordBatch: it tells the columns.",
        )
    return pa.RecordBatchReader.from_batches(first.schema, _flat(chain([first], batches), first.schema))


def _flat(items: Iterable[Any], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Yield every batch in the columns of the first one, which are those that were decided about."""
    for number, item in enumerate(items, 1):
        same = _in_columns(item, schema)
        if same is None:
            raise DataError(
                f"Item {number} of the iterator is {_described(item)}, the first has {_columns(schema)}.",
                remedy="Yield Arrow batches with the same columns and types all along.",
            )
        yield from same.to_batches() if isinstance(same, pa.Table) else [same]


def _in_columns(item: Any, schema: pa.Schema) -> pa.RecordBatch | pa.Table | None:
    if not isinstance(item, pa.RecordBatch | pa.Table):
        return None
    if item.schema.equals(schema):
        return item
    return item.select(schema.names) if set(item.schema) == set(schema) else None


def _described(item: Any) -> str:
    is_rows = isinstance(item, pa.RecordBatch | pa.Table)
    return f"rows of {_columns(item.schema)}" if is_rows else f"a {type(item).__name__}"


def _columns(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} {field.type}" for field in schema)
