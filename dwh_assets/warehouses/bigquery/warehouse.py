"""A project in Google BigQuery that holds replicas."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TYPE_CHECKING

from google.cloud import bigquery

from dwh_assets.warehouses.base import Mode
from dwh_assets.warehouses.bigquery.dialect import BigQueryDialect
from dwh_assets.warehouses.bigquery.faults import explained
from dwh_assets.warehouses.bigquery.session import BigQuerySession
from dwh_assets.warehouses.options import ReplicaOptions
from dwh_assets.warehouses.replica import Replica, as_recorded
from dwh_assets.warehouses.session import Purpose
from dwh_assets.warehouses.state import Records

if TYPE_CHECKING:
    from google.cloud.bigquery_storage_v1 import BigQueryReadClient, BigQueryWriteClient


class BigQueryWarehouse:
    """A project in BigQuery that holds replicas.

    `connect` is a function without arguments that returns a context manager with a
    `google.cloud.bigquery.Client`: `BigQueryResource.get_client` of Dagster, or `bigquery.Client` itself.
    Datasets that a sync has to make are made in the client's `location`. `read_client` and `write_client`
    do the same for the Storage Read and Storage Write API (`dwh_assets[bigquery]`): with the first, results
    come ten times as fast, with the second few changes arrive in a second. Another sync that changes the
    same tables is waited for, `wait_seconds` at most.
    """

    dialect = BigQueryDialect()

    def __init__(
        self,
        connect: Callable[[], AbstractContextManager[bigquery.Client]],
        *,
        read_client: Callable[[], AbstractContextManager[BigQueryReadClient]] | None = None,
        write_client: Callable[[], AbstractContextManager[BigQueryWriteClient]] | None = None,
        wait_seconds: float = 60.0,
    ) -> None:
        self.wait_seconds = wait_seconds
        self._connect = connect
        self._read_client = read_client
        self._write_client = write_client

    @contextmanager
    def open(self, purpose: Purpose, *, read_only: bool = False) -> Iterator[BigQuerySession]:
        """Yield a session, and close its clients whatever happens."""
        with ExitStack() as stack:
            with explained("BigQuery could not be reached"):
                client = stack.enter_context(self._connect())
                reads = stack.enter_context(self._read_client()) if self._read_client else None
                writes = stack.enter_context(self._write_client()) if self._write_client else None
            yield BigQuerySession(client, self.dialect, purpose, read_client=reads, write_client=writes)

    def replica(
        self,
        table: str,
        into: str | None = None,
        mode: Mode = "copy",
        options: ReplicaOptions | None = None,
    ) -> Replica:
        """Return the replica of the lake's `table` in `into`: dataset.table, or project.dataset.table.

        Without `into` it has the name that the table has in the lake. Raises `ConfigurationError` for what
        is no name of a table in BigQuery.
        """
        return Replica(self, table, self.dialect.target(into or table), mode, options or ReplicaOptions())

    def replicas(self) -> list[Replica]:
        """Return every replica that was loaded into a dataset of the client's project."""
        with self.open(Purpose("", None), read_only=True) as session:
            found = [each for table in session.state_tables() for each in Records(session, table).all()]
            return [as_recorded(self, target, state) for target, state in found if state.synced_at]
