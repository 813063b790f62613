"""How far other clocks are from this machine's: snapshots carry its time, and retention counts from there."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime

import requests
from pyiceberg.catalog import Catalog
from pyiceberg.catalog.rest import RestCatalog
from pyiceberg.catalog.sql import SqlCatalog
from sqlalchemy import func, select

from dwh_assets.iceberg.doctor.check import Finding, Unchecked

TOLERATED_SECONDS = 5.0
# HTTP dates and the times of objects are whole seconds.
_RESOLUTION_SECONDS = 1.0
_HTTP_SECONDS = 10.0


def skew(began: float, told: float, ended: float) -> float:
    """Return by how many seconds a clock that was asked between two moments is ahead of ours.

    Negative where it is behind; 0.0 where the answer fits, within the second that such times are told in.
    """
    if told > ended + _RESOLUTION_SECONDS:
        return told - ended
    return min(told + _RESOLUTION_SECONDS - began, 0.0)


def catalog_skew(catalog: Catalog) -> float | None:
    """Return the skew of the clock of a REST catalog or a database server; None where nobody can be asked."""
    if isinstance(catalog, RestCatalog):
        return _asked(lambda: _http_time(f"{catalog.uri.rstrip('/')}/v1/config"))
    if isinstance(catalog, SqlCatalog) and catalog.engine.dialect.name != "sqlite":
        return _asked(lambda: _database_time(catalog))
    return None


def judged(skews: Mapping[str, float], newest_commit: float | None) -> str | Finding:
    """Say whether all clocks agree, and whether the table was changed in what is the future here.

    `skews` are seconds by whose clock it is, `newest_commit` the table's last change in seconds since 1970.
    """
    ahead = newest_commit - time.time() if newest_commit is not None else 0.0
    wrong = [_told(whose, seconds) for whose, seconds in skews.items() if abs(seconds) > TOLERATED_SECONDS]
    if ahead > TOLERATED_SECONDS:
        wrong.append(f"the table's last change is {ahead:.0f} s in the future")
    if not wrong and not skews:
        raise Unchecked("There is no other clock to ask.")
    if not wrong:
        clocks = " and ".join(f"{whose}'s" for whose in skews)
        return f"This machine's clock and {clocks} agree within {TOLERATED_SECONDS:.0f} s."
    return Finding(
        "warning",
        f"By the clock of this machine, {', and '.join(wrong)}.",
        "Let all machines that write keep the same time (NTP): time travel and retention go by it.",
    )


def _told(whose: str, seconds: float) -> str:
    return f"{whose}'s is {abs(seconds):.0f} s {'ahead' if seconds > 0 else 'behind'}"


def _asked(ask: Callable[[], float | None]) -> float | None:
    began = time.time()
    told = ask()
    return None if told is None else skew(began, told, time.time())


def _http_time(url: str) -> float | None:
    """Return the date of an answer, whatever it says; it is asked without credentials."""
    try:
        date = requests.get(url, timeout=_HTTP_SECONDS, allow_redirects=False).headers.get("Date", "")
        return parsedate_to_datetime(date).timestamp()
    except (requests.RequestException, ValueError):
        return None


def _database_time(catalog: SqlCatalog) -> float | None:
    with catalog.engine.connect() as connection:
        told = connection.execute(select(func.now())).scalar()
    return told.timestamp() if told is not None and told.tzinfo else None
