"""Parquet data files: written through the table's FileIO, described with Iceberg's statistics."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from typing import IO, Any, cast
from urllib.parse import quote_plus

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyiceberg.io import FileIO
from pyiceberg.io.pyarrow import parquet_path_to_id_mapping
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import TableProperties
from pyiceberg.table.locations import LocationProvider
from pyiceberg.table.sorting import SortOrder
from pyiceberg.typedef import Record
from pyiceberg.types import IcebergType
from pyiceberg.utils.properties import property_as_bool, property_as_int

from dwh_assets.iceberg.arrow.types import arrow_schema
from dwh_assets.iceberg.files.coding import FIRST_LOOK_ROWS
from dwh_assets.iceberg.files.metrics import MetricsPlan

# How many rows tell whether a column repeats, and above which share of distinct values it hardly does.
_SAMPLE_ROWS = 65_536
_UNIQUE_SHARE = 0.2
# A few rows are enough to tell that a column never repeats, or often.
_NEARLY_ALL = 0.95


@dataclass
class FileTarget:
    """Where one write's data files go and what they look like. Safe to share between threads."""

    io: FileIO
    locations: LocationProvider
    schema: Schema
    spec: PartitionSpec
    sort_order: SortOrder
    properties: dict[str, str]
    file_size: int
    # Columns, by id with their paths, in which nulls are noted as they are written.
    watched: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    nulls: set[int] = field(default_factory=set)
    write_id: str = field(default_factory=lambda: str(uuid.uuid4()))

    def __post_init__(self) -> None:
        self._numbers = count()
        self._lock = threading.Lock()

    @cached_property
    def arrow_schema(self) -> pa.Schema:
        """The table's columns as Arrow, each with its field id."""
        return arrow_schema(self.schema)

    @cached_property
    def metrics_plan(self) -> MetricsPlan:
        """Which metrics to keep for which column, from the table's metrics properties."""
        return MetricsPlan(self.schema, self.properties)

    def choose_dictionaries(self, rows: pa.Table, rows_in_file: int) -> None:
        """Look at rows as they will be written: a column that hardly repeats gains nothing by a dictionary.

        It would only cost time, and space: the dictionary holds nearly every value.
        """
        sample = rows.slice(0, min(rows_in_file, _SAMPLE_ROWS))
        unique = {name for name in rows.column_names if _hardly_repeats(sample.column(name))}
        paths = parquet_path_to_id_mapping(self.schema)
        self.parquet_options["use_dictionary"] = [path for path in paths if path not in unique]

    @cached_property
    def parquet_options(self) -> dict[str, Any]:
        """`pyarrow.parquet.ParquetWriter` options from the table's `write.parquet.*` properties."""
        return _parquet_options(self.properties)

    @cached_property
    def row_group_rows(self) -> int:
        """Rows in a full row group."""
        return self._integer(
            TableProperties.PARQUET_ROW_GROUP_LIMIT, TableProperties.PARQUET_ROW_GROUP_LIMIT_DEFAULT
        )

    def note_nulls(self, rows: pa.RecordBatch) -> None:
        """Remember which of the watched columns hold nulls."""
        self.nulls.update(
            field_id
            for field_id, path in self.watched.items()
            if field_id not in self.nulls and _has_null(rows, path)
        )

    def _integer(self, name: str, default: int) -> int:
        return property_as_int(self.properties, name, default) or default

    def new_path(self, partition: Record) -> str:
        """Return a fresh location for a data file of this partition."""
        with self._lock:
            number = next(self._numbers)
        name = f"{number:05d}-{self.write_id}.parquet"
        with_partition = property_as_bool(
            self.properties,
            TableProperties.WRITE_OBJECT_STORE_PARTITIONED_PATHS,
            TableProperties.WRITE_OBJECT_STORE_PARTITIONED_PATHS_DEFAULT,
        )
        if not self.spec.is_unpartitioned() and with_partition:
            name = f"{self._partition_path(partition)}/{name}"
        return self.locations.new_data_location(name)

    def _partition_path(self, partition: Record) -> str:
        """Name the folder as PyIceberg does, without working out the types for each file anew."""
        fields, kinds = self.spec.fields, self._partition_types
        shown = (
            (field.name, _shown(field, kind, partition[position]))
            for position, (field, kind) in enumerate(zip(fields, kinds, strict=True))
        )
        return "/".join(f"{quote_plus(name, safe='')}={quote_plus(value, safe='')}" for name, value in shown)

    @cached_property
    def _partition_types(self) -> list[IcebergType]:
        return [column.field_type for column in self.spec.partition_type(self.schema).fields]


def _shown(field: PartitionField, kind: IcebergType, value: Any) -> str:
    try:
        return field.transform.to_human_string(kind, value)
    except (OverflowError, ValueError):
        return str(value)  # a date beyond those that Python knows


def _hardly_repeats(column: pa.ChunkedArray) -> bool:
    if pa.types.is_nested(column.type):
        return False
    if isinstance(column.type, pa.BaseExtensionType):
        column = column.cast(column.type.storage_type)
    first_look = _distinct_share(column.slice(0, FIRST_LOOK_ROWS))
    if first_look < _UNIQUE_SHARE / 10 or first_look > _NEARLY_ALL:
        return first_look > _UNIQUE_SHARE
    return _distinct_share(column) > _UNIQUE_SHARE


def _has_null(rows: pa.RecordBatch, path: tuple[str, ...]) -> bool:
    """Tell whether a column, or a field of the structs that are there, is null somewhere."""
    array = rows.column(path[0])
    for name in path[1:]:
        array = (array.filter(array.is_valid()) if array.null_count else array).field(name)
    return bool(array.null_count)


def _distinct_share(column: pa.ChunkedArray) -> float:
    return float(pc.count_distinct(column).as_py() / max(len(column), 1))


def compression(properties: Mapping[str, str]) -> dict[str, Any]:
    """Return codec and level as the table's properties have them."""
    p = TableProperties
    codec = properties.get(p.PARQUET_COMPRESSION, p.PARQUET_COMPRESSION_DEFAULT)
    level = properties.get(p.PARQUET_COMPRESSION_LEVEL)
    return {
        "compression": "none" if codec == "uncompressed" else codec,
        "compression_level": None if level is None else int(level),
    }


def _parquet_options(properties: dict[str, str]) -> dict[str, Any]:
    p = TableProperties
    return {
        **compression(properties),
        "data_page_size": property_as_int(
            properties, p.PARQUET_PAGE_SIZE_BYTES, p.PARQUET_PAGE_SIZE_BYTES_DEFAULT
        ),
        "dictionary_pagesize_limit": property_as_int(
            properties, p.PARQUET_DICT_SIZE_BYTES, p.PARQUET_DICT_SIZE_BYTES_DEFAULT
        ),
        "store_decimal_as_integer": True,
        # Readers go by the field ids; Arrow's own description of the columns would only take room and time.
        "store_schema": False,
    }


class OpenDataFile:
    """One Parquet file being written. Not safe to share between threads.

    `schema` is `FileTarget.arrow_schema`, in which text columns may be dictionaries.
    """

    def __init__(self, target: FileTarget, partition: Record, schema: pa.Schema) -> None:
        self.path = target.new_path(partition)
        self._target = target
        self._partition = partition
        self._output = target.io.new_output(self.path)
        self._stream = self._output.create(overwrite=True)
        try:
            self._writer = pq.ParquetWriter(cast("IO[bytes]", self._stream), schema, **target.parquet_options)
        except BaseException:
            self._stream.close()
            target.io.delete(self.path)
            raise

    @property
    def size(self) -> int:
        """Bytes written so far, row groups that are complete."""
        return self._stream.tell()

    def write(self, rows: pa.Table) -> None:
        """Add rows, in row groups of at most the table's row-group limit."""
        self._writer.write_table(rows, row_group_size=self._target.row_group_rows)

    def close(self) -> DataFile:
        """Finish the file and describe it as Iceberg does."""
        self._writer.close()
        size = self.size
        self._stream.close()
        target = self._target
        data_file = DataFile.from_args(
            content=DataFileContent.DATA,
            file_path=self.path,
            file_format=FileFormat.PARQUET,
            partition=self._partition,
            file_size_in_bytes=size,
            sort_order_id=None if target.sort_order.is_unsorted else target.sort_order.order_id,
            equality_ids=None,
            key_metadata=None,
            **target.metrics_plan.metrics(self._writer.writer.metadata),
        )
        data_file.spec_id = target.spec.spec_id
        return data_file

    def abort(self) -> None:
        """Close and delete the unfinished file; on a full disk, closing fails as writing did."""
        for part in (self._writer, self._stream):
            with suppress(OSError):
                part.close()
        self._target.io.delete(self.path)
