"""Statements as query jobs: bound values, labels, and the session that holds a transaction together."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

from google.api_core import exceptions as api
from google.cloud import bigquery

from dwh_assets.errors import CommitUnknownError, ConflictError, DwhError, UnsupportedError
from dwh_assets.warehouses.bigquery.faults import TRANSIENT, explain, explained
from dwh_assets.warehouses.session import Purpose

_PAGE_ROWS = 50_000
_JOB_PREFIX = "dwh_"
_LABEL_LENGTH = 63
# Text and names in quotes, and the placeholders outside of them
_PIECE = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|`(?:[^`\\]|\\.)*`|\?""", re.DOTALL)
_TYPES: tuple[tuple[type, str], ...] = (
    (bool, "BOOL"),
    (int, "INT64"),
    (float, "FLOAT64"),
    (str, "STRING"),
    (bytes, "BYTES"),
    (datetime, "DATETIME"),
    (date, "DATE"),
    (time, "TIME"),
)


class Queries:
    """Runs statements for one purpose over one client. `location` is where the datasets are, once known."""

    def __init__(self, client: bigquery.Client, purpose: Purpose) -> None:
        self.client = client
        self.location: str | None = client.location
        self.labels = job_labels(purpose)
        self.count = 0
        self._session: str | None = None

    def run(self, sql: str, parameters: Sequence[Any] = ()) -> tuple[bigquery.QueryJob, Any]:
        """Run a statement to its end; return its job and its rows, which are fetched as they are read."""
        with explained("A statement failed"):
            return self._run(sql, parameters)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit what is run in the block, or undo it when the block raises."""
        with explained("A transaction could not begin"):
            job, _ = self._run("BEGIN TRANSACTION", creates_session=True)
        self._session = job.session_info.session_id if job.session_info else None
        try:
            yield
            self._commit()
        finally:
            # Ends the transaction, too, where it was not committed.
            with suppress(DwhError):
                self.run("CALL BQ.ABORT_SESSION()")
            self._session = None

    def _commit(self) -> None:
        try:
            self._run("COMMIT TRANSACTION")
        except TRANSIENT as error:
            raise CommitUnknownError(
                f"{explain(error, 'A transaction was to be committed').message} Nobody knows whether it was.",
                remedy="Repeat the sync: it looks at the record of the replica first.",
            ) from None
        except api.BadRequest as error:
            # What is wrong with a statement was said when it ran: here it is another transaction.
            raise ConflictError(
                explain(error, "A transaction was not committed").message, remedy="Repeat the call."
            ) from None

    def _run(
        self, sql: str, parameters: Sequence[Any] = (), *, creates_session: bool = False
    ) -> tuple[bigquery.QueryJob, Any]:
        bound_sql, values = bind(sql, parameters)
        config = bigquery.QueryJobConfig(query_parameters=values, labels=self.labels, use_legacy_sql=False)
        if creates_session:
            config.create_session = True
        if self._session:
            config.connection_properties = [bigquery.ConnectionProperty("session_id", self._session)]
        self.count += 1
        options: dict[str, Any] = {"job_retry": None} if creates_session or self._session else {}
        job = self.client.query(
            bound_sql, config, job_id_prefix=_JOB_PREFIX, location=self.location, **options
        )
        return job, job.result(page_size=_PAGE_ROWS)


def bind(sql: str, parameters: Sequence[Any]) -> tuple[str, list[bigquery.ScalarQueryParameter]]:
    """Return the statement and its parameters as BigQuery takes them.

    None becomes NULL in the statement: a parameter has a type, and that of a null is not known here.
    Raises `UnsupportedError` for a value of another type than BigQuery's parameters have.
    """
    given = iter(parameters)
    bound: list[bigquery.ScalarQueryParameter] = []
    sql_with_nulls = _PIECE.sub(lambda piece: _placed(piece[0], given, bound), sql)
    return sql_with_nulls, bound


def _placed(piece: str, given: Iterator[Any], bound: list[bigquery.ScalarQueryParameter]) -> str:
    if piece != "?":
        return piece
    value = next(given)
    if value is None:
        return "NULL"
    bound.append(bigquery.ScalarQueryParameter(None, _parameter_type(value), value))
    return piece


def _parameter_type(value: Any) -> str:
    if isinstance(value, Decimal):
        _, digits, exponent = value.as_tuple()
        scale = -min(int(exponent), 0)
        return "NUMERIC" if scale <= 9 and len(digits) - scale <= 29 else "BIGNUMERIC"
    if isinstance(value, datetime) and value.tzinfo:
        return "TIMESTAMP"
    for python_type, name in _TYPES:
        if isinstance(value, python_type):
            return name
    raise UnsupportedError(
        f"A value of type {type(value).__name__} cannot be given to BigQuery.",
        remedy="Give a number, text, bytes, a date, a time, a moment or None.",
    )


def job_labels(purpose: Purpose) -> dict[str, str]:
    """Return the labels under which the jobs stand in BigQuery's history and bill."""
    labels = {"dwh_table": purpose.table, "dwh_run": purpose.run_id or ""}
    return {key: _label(value) for key, value in labels.items() if value}


def _label(value: str) -> str:
    return re.sub(r"[^a-z0-9_-]", "_", value.lower())[:_LABEL_LENGTH]
