"""Text that hardly varies, as numbers into a small dictionary: quicker to move and to write."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Executor, Future

import pyarrow as pa
import pyarrow.compute as pc

# So many rows tell at first sight how often a column repeats.
FIRST_LOOK_ROWS = 4096
# A file holds the whole dictionary, whichever of its values occur there.
_FEW_VALUES = 64

Coding = Mapping[str, "Future[pa.ChunkedArray]"]


def start_coding(rows: pa.Table, pool: Executor) -> Coding:
    """Begin to make dictionaries of the columns with few different texts."""
    names = [field.name for field in rows.schema if _may_be_coded(rows, field)]
    return {name: pool.submit(pc.dictionary_encode, rows.column(name)) for name in names}


def with_coded(rows: pa.Table, coding: Coding) -> pa.Table:
    """Return the rows with these columns as dictionaries, if small ones; in Parquet they are the same."""
    for name, begun in coding.items():
        coded = begun.result()
        if all(len(chunk.dictionary) <= _FEW_VALUES for chunk in coded.chunks):
            position = rows.schema.get_field_index(name)
            rows = rows.set_column(position, rows.schema.field(position).with_type(coded.type), coded)
    return rows


def _may_be_coded(rows: pa.Table, field: pa.Field) -> bool:
    if not (pa.types.is_string(field.type) or pa.types.is_large_string(field.type)):
        return False
    if rows.column(field.name).null_count:
        return False  # beside nulls, Arrow takes values into a file's bounds that do not occur there
    few = rows.column(field.name).slice(0, FIRST_LOOK_ROWS)
    return bool(pc.count_distinct(few).as_py() <= _FEW_VALUES)
