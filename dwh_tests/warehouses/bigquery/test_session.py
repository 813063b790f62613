"""What a session does, looked at with Google's own client."""

import hashlib
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from google.cloud import bigquery
from pyiceberg.types import DateType, DecimalType, LongType, NestedField, StringType

from dwh_assets.errors import (
    ConfigurationError,
    ConflictError,
    DataError,
    NotFoundError,
    TerminalError,
    UnavailableError,
)
from dwh_assets.warehouses.base import Target
from dwh_assets.warehouses.bigquery.session import BigQuerySession
from dwh_assets.warehouses.bigquery.warehouse import BigQueryWarehouse
from dwh_assets.warehouses.evolution import ColumnStep
from dwh_assets.warehouses.session import Layout, encoded
from dwh_tests.servers.local_bigquery import LocalBigQuery
from dwh_tests.servers.proxy import Answer, Request, proxy
from dwh_tests.warehouses.bigquery.columns import DIALECT, ID, ITEM, ORDERS, columns_of, reader
from dwh_tests.warehouses.bigquery.conftest import opened, rows

pytestmark = pytest.mark.server

THREE: list[dict[str, Any]] = [{"id": 1, "item": "pen"}, {"id": 2, "item": None}, {"id": 3, "item": "ink"}]


@pytest.fixture
def orders(session: BigQuerySession, dataset: str) -> Target:
    """A table of three rows."""
    target = Target("", dataset, "orders")
    session.create_table(target, ORDERS, Layout())
    session.insert(target, ORDERS, encoded(reader(ORDERS, THREE), ORDERS))
    return target


def count(client: bigquery.Client, target: Target) -> int:
    return int(rows(client, f"SELECT count(*) FROM {DIALECT.qualify(target)}")[0][0])


# --- Statements ---


def test_values_are_bound_whatever_they_say(session: BigQuerySession, orders: Target) -> None:
    hostile = "'; DROP TABLE orders; -- \\' ? ` \" \n"
    table_sql = DIALECT.qualify(orders)
    assert session.execute(f"UPDATE {table_sql} SET `item` = ? WHERE `id` = ?", hostile, 1) == 1
    assert session.fetch(f"SELECT `id` FROM {table_sql} WHERE `item` = ?", hostile) == [(1,)]


@pytest.mark.parametrize(
    "value",
    [
        True,
        -(2**63),
        0.1,
        "日本語",
        b"\x00\xff",
        Decimal("1.50"),
        Decimal("-12345678901234567890.123456789012345678"),
        date(1, 1, 1),
        datetime(2024, 1, 2, 3, 4, 5, 6, UTC),
    ],
    ids=repr,
)
def test_parameters_keep_their_type(session: BigQuerySession, value: Any) -> None:
    assert session.fetch("SELECT ?, ?", value, None) == [(value, None)]


def test_execute_tells_how_many_rows_changed(session: BigQuerySession, orders: Target) -> None:
    table_sql = DIALECT.qualify(orders)
    assert session.execute(f"DELETE FROM {table_sql} WHERE `id` > ?", 1) == 2
    assert session.execute(f"INSERT INTO {table_sql} (`id`, `item`) VALUES (?, ?)", 9, None) == 1
    assert session.execute("SELECT 1") == 0


def test_statements_and_labels_stand_in_the_history(
    session: BigQuerySession, client: bigquery.Client, orders: Target
) -> None:
    before = session.statements
    session.fetch("SELECT 'for its label'")
    assert session.statements == before + 1
    labelled = [
        job.labels
        for job in client.list_jobs(min_creation_time=datetime.now(UTC) - timedelta(minutes=5))
        if isinstance(job, bigquery.QueryJob) and "for its label" in job.query
    ]
    assert labelled == [{"dwh_table": "sales_orders", "dwh_run": "run-1"}]


# --- Streams ---


def test_stream_brings_rows_page_by_page(session: BigQuerySession) -> None:
    stream = session.stream("SELECT n FROM UNNEST(GENERATE_ARRAY(1, 120000)) AS n")
    sizes = [batch.num_rows for batch in stream]
    assert sum(sizes) == 120_000
    assert max(sizes) < 120_000


@pytest.mark.parametrize("fixture", ["warehouse", "streaming_warehouse"])
def test_stream_without_rows_has_columns(
    request: pytest.FixtureRequest, fixture: str, orders: Target
) -> None:
    with opened(request.getfixturevalue(fixture)) as session:
        stream = session.stream(f"SELECT * FROM {DIALECT.qualify(orders)} WHERE `id` < 0")
        assert stream.schema.names == ["id", "item"]
        assert stream.read_all().num_rows == 0


def test_stream_over_the_storage_api_brings_the_same(
    streaming_warehouse: BigQueryWarehouse, orders: Target
) -> None:
    with opened(streaming_warehouse) as session:
        found = session.stream(f"SELECT * FROM {DIALECT.qualify(orders)}").read_all()
    assert sorted(found.to_pylist(), key=repr) == sorted(THREE, key=repr)


# --- Transactions ---


def test_transaction_is_seen_after_its_end(
    session: BigQuerySession, client: bigquery.Client, orders: Target
) -> None:
    table_sql = DIALECT.qualify(orders)
    with session.transaction():
        session.execute(f"DELETE FROM {table_sql} WHERE TRUE")
        session.execute(f"INSERT INTO {table_sql} (`id`) VALUES (?)", 7)
        assert session.fetch(f"SELECT `id` FROM {table_sql}") == [(7,)]
        assert count(client, orders) == 3
    assert rows(client, f"SELECT `id` FROM {table_sql}") == [(7,)]


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), ValueError("ours")], ids=["interrupt", "error"])
def test_transaction_is_undone_when_its_block_raises(
    session: BigQuerySession, client: bigquery.Client, orders: Target, failure: BaseException
) -> None:
    def fail() -> None:
        with session.transaction():
            session.execute(f"DELETE FROM {DIALECT.qualify(orders)} WHERE TRUE")
            raise failure

    with pytest.raises(type(failure)):
        fail()
    assert count(client, orders) == 3
    with session.transaction():
        assert session.execute(f"DELETE FROM {DIALECT.qualify(orders)} WHERE `id` = 1") == 1
    assert count(client, orders) == 2


def test_statement_that_fails_undoes_the_transaction(
    session: BigQuerySession, client: bigquery.Client, orders: Target
) -> None:
    def fail() -> None:
        with session.transaction():
            session.execute(f"DELETE FROM {DIALECT.qualify(orders)} WHERE TRUE")
            session.execute("SELECT 1 / 0")

    with pytest.raises(TerminalError, match="division by zero"):
        fail()
    assert count(client, orders) == 3


def test_of_two_transactions_at_once_one_conflicts(
    warehouse: BigQueryWarehouse, client: bigquery.Client, orders: Target
) -> None:
    table_sql = DIALECT.qualify(orders)

    def change_twice(first: BigQuerySession, second: BigQuerySession) -> None:
        with first.transaction():
            first.execute(f"UPDATE {table_sql} SET `item` = 'first' WHERE `id` = 1")
            with second.transaction():
                second.execute(f"UPDATE {table_sql} SET `item` = 'second' WHERE `id` = 1")

    with opened(warehouse) as first, opened(warehouse) as second, pytest.raises(ConflictError):
        change_twice(first, second)
    assert rows(client, f"SELECT `item` FROM {table_sql} WHERE `id` = 1") == [("second",)]


# --- Tables ---


def test_describe_tells_columns_or_none(
    session: BigQuerySession, client: bigquery.Client, orders: Target
) -> None:
    client.query_and_wait(
        f"CREATE VIEW `{orders.schema}`.`seen` AS SELECT `item` FROM {DIALECT.qualify(orders)}"
    )
    assert session.describe(orders) == ["id", "item"]
    assert session.describe(orders.beside("seen")) == ["item"]
    assert session.describe(orders.beside("missing")) is None
    assert session.describe(Target("", "no_dataset", "orders")) is None


def test_dataset_is_made_once(session: BigQuerySession, client: bigquery.Client, dataset: str) -> None:
    client.delete_dataset(dataset)
    for _ in range(2):
        session.ensure_schema(Target("", dataset, "orders"))
    assert client.get_dataset(dataset).dataset_id == dataset


def test_table_has_partitions_clusters_and_descriptions(
    session: BigQuerySession, client: bigquery.Client, dataset: str
) -> None:
    day = NestedField(3, "day", DateType(), required=False, doc="it's the day\nof \\ sale")
    layout = Layout(partition_by="day", partition_grain="month", cluster_by=("item", "id"))
    session.create_table(Target("", dataset, "t"), columns_of(ID, ITEM, day), layout)
    table = client.get_table(f"{dataset}.t")
    assert table.time_partitioning.field == "day"
    assert table.time_partitioning.type_ == "MONTH"
    assert table.clustering_fields == ["item", "id"]
    assert [(f.name, f.mode, f.description) for f in table.schema] == [
        ("id", "REQUIRED", None),
        ("item", "NULLABLE", None),
        ("day", "NULLABLE", day.doc),
    ]
    assert table.expires is None


def test_existing_table_is_refused_kept_or_replaced(
    session: BigQuerySession, client: bigquery.Client, orders: Target
) -> None:
    with pytest.raises(ConflictError, match="Already Exists"):
        session.create_table(orders, ORDERS, Layout())
    session.create_table(orders, ORDERS, Layout(), existing="keep")
    assert count(client, orders) == 3
    session.create_table(orders, ORDERS[:1], Layout(), existing="replace")
    assert count(client, orders) == 0
    assert session.describe(orders) == ["id"]


def test_steps_change_columns_and_may_be_repeated(session: BigQuerySession, orders: Target) -> None:
    size = columns_of(NestedField(5, "size", LongType(), required=False))[0]
    wide = columns_of(NestedField(5, "size", DecimalType(18, 0), required=False))[0]
    thing = columns_of(NestedField(2, "thing", StringType(), required=False))[0]
    maybe = columns_of(NestedField(1, "id", LongType(), required=False))[0]
    steps = [
        ColumnStep("add", "size", size),
        ColumnStep("widen", "size", wide),
        ColumnStep("rename", "item", thing),
        ColumnStep("relax", "id", maybe),
    ]
    for step in steps:
        session.alter_table(orders, step)
        session.alter_table(orders, step)
    assert session.describe(orders) == ["id", "thing", "size"]
    for _ in range(2):
        session.alter_table(orders, ColumnStep("drop", "size"))
    assert session.describe(orders) == ["id", "thing"]
    assert session.execute(f"INSERT INTO {DIALECT.qualify(orders)} (`id`) VALUES (?)", None) == 1


def test_wide_table_with_odd_names(session: BigQuerySession, client: bigquery.Client, dataset: str) -> None:
    odd = ["select", "a b", "Größe", "日本語", "a-b", "x" * 300, "a%b&c=d+e:f'g<h>i#j|k"]
    names = [*odd, *(f"c{n}" for n in range(1000 - len(odd)))]
    columns = columns_of(
        *(NestedField(n, name, LongType(), required=False) for n, name in enumerate(names, 1))
    )
    target = Target("", dataset, "wide table")
    session.create_table(target, columns, Layout())
    row = {name: number for number, name in enumerate(names)}
    session.insert(target, columns, encoded(reader(columns, [row]), columns))
    (found,) = client.query_and_wait(f"SELECT * FROM {DIALECT.qualify(target)}")
    assert dict(found.items()) == row


def test_drop_takes_tables_and_views_and_nothing(
    session: BigQuerySession, client: bigquery.Client, orders: Target
) -> None:
    client.query_and_wait(f"CREATE VIEW `{orders.schema}`.`seen` AS SELECT 1 AS x")
    for target in (orders.beside("seen"), orders, orders):
        session.drop_table(target)
        assert session.describe(target) is None


def test_supplant_puts_other_columns_in_place_and_may_be_repeated(
    session: BigQuerySession, client: bigquery.Client, orders: Target
) -> None:
    staging = session.staging(orders, "rows")
    columns = columns_of(ID, NestedField(7, "price", DecimalType(9, 2), required=False))
    session.create_table(staging, columns, Layout())
    session.insert(staging, columns, encoded(reader(columns, [{"id": 5, "price": Decimal("1.50")}]), columns))
    for _ in range(2):
        session.supplant(orders, staging)
        assert rows(client, f"SELECT * FROM {DIALECT.qualify(orders)}") == [(5, Decimal("1.5"))]
    assert session.describe(orders) == ["id", "price"]
    assert client.get_table(f"{orders.schema}.orders").expires is None


def test_supplant_without_its_staging_table_leaves_the_target(
    session: BigQuerySession, client: bigquery.Client, orders: Target
) -> None:
    with pytest.raises(ConfigurationError, match="is gone"):
        session.supplant(orders, session.staging(orders, "rows"))
    assert count(client, orders) == 3


# --- Staging ---


def test_staging_tables_expire_and_are_their_sessions_own(
    warehouse: BigQueryWarehouse, client: bigquery.Client, orders: Target
) -> None:
    with opened(warehouse) as first, opened(warehouse) as second:
        one, other = first.staging(orders, "rows"), second.staging(orders, "rows")
        assert len({orders, one, other, first.staging(orders, "deletes")}) == 4
        first.create_table(one, ORDERS, Layout(), existing="replace")
    expires = client.get_table(f"{one.schema}.{one.name}").expires
    assert expires is not None
    assert timedelta(hours=23) < expires - datetime.now(UTC) < timedelta(hours=25)


def test_sweep_leaves_what_may_be_in_use(
    session: BigQuerySession, client: bigquery.Client, orders: Target
) -> None:
    staging = session.staging(orders, "rows")
    session.create_table(staging, ORDERS, Layout())
    session.sweep(orders)
    assert session.describe(staging) == ["id", "item"]
    assert count(client, orders) == 3


def test_sweep_drops_what_is_old(
    session: BigQuerySession, client: bigquery.Client, orders: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    staging = session.staging(orders, "rows")
    session.create_table(staging, ORDERS, Layout())
    monkeypatch.setattr("dwh_assets.warehouses.bigquery.session._STAGING_LIFE", timedelta(seconds=-60))
    session.sweep(orders)
    assert session.describe(staging) is None
    assert count(client, orders) == 3


def test_tables_of_records_are_found(session: BigQuerySession, dataset: str) -> None:
    record = Target("", dataset, "_dwh_replicas")
    assert record not in session.state_tables()
    session.create_table(record, ORDERS, Layout())
    assert record in session.state_tables()


# --- Loads ---


def test_rows_go_in_several_files_side_by_side(
    session: BigQuerySession, client: bigquery.Client, orders: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dwh_assets.warehouses.bigquery.loads._ROW_GROUP_BYTES", 1)
    target = orders.beside("many")
    session.create_table(target, ORDERS, Layout())
    before = session.statements
    many = [{"id": n, "item": hashlib.sha256(str(n).encode()).hexdigest()} for n in range(9)]
    with monkeypatch.context() as small:
        limits = DIALECT.capabilities
        small.setattr(
            "dwh_assets.warehouses.bigquery.dialect.BigQueryDialect.capabilities",
            type(limits)(**{**vars(limits), "file_bytes": 1, "parallel_files": 3}),
        )
        session.insert(target, ORDERS, encoded(reader(ORDERS, many), ORDERS))
    assert session.statements - before == 9
    assert rows(client, f"SELECT * FROM {DIALECT.qualify(target)}") == sorted(
        [(row["id"], row["item"]) for row in many], key=repr
    )


def test_no_rows_need_no_job(session: BigQuerySession, orders: Target) -> None:
    before = session.statements
    session.insert(orders, ORDERS, encoded(reader(ORDERS, []), ORDERS))
    assert session.statements == before


def test_failure_in_the_rows_is_passed_on(
    session: BigQuerySession, client: bigquery.Client, orders: Target
) -> None:
    def failing() -> Any:
        yield from encoded(reader(ORDERS, THREE), ORDERS)
        raise DataError("a file of the lake is damaged")

    schema = encoded(reader(ORDERS, []), ORDERS).schema
    with pytest.raises(DataError, match="damaged"):
        session.insert(orders, ORDERS, pa.RecordBatchReader.from_batches(schema, failing()))
    assert count(client, orders) == 3


def test_rows_that_do_not_fit_name_the_table(session: BigQuerySession, orders: Target) -> None:
    other = columns_of(ID, NestedField(9, "nowhere", StringType(), required=False))
    with pytest.raises(TerminalError, match=r"orders: BigQuery says: .*nowhere"):
        session.insert(orders, other, encoded(reader(other, [{"id": 1, "nowhere": "x"}]), other))


def test_few_rows_go_by_a_stream_and_many_by_a_job(
    streaming_warehouse: BigQueryWarehouse,
    client: bigquery.Client,
    orders: Target,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dwh_assets.warehouses.bigquery.stream_writes._REQUEST_BYTES", 30)
    started = datetime.now(UTC)
    with opened(streaming_warehouse) as session:
        session.insert(orders, ORDERS, encoded(reader(ORDERS, THREE), ORDERS))
        assert not _loads_since(client, started, orders)
        monkeypatch.setattr("dwh_assets.warehouses.bigquery.session._FEW_BYTES", 1)
        session.insert(orders, ORDERS, encoded(reader(ORDERS, THREE), ORDERS))
        assert _loads_since(client, started, orders) == 1
    expected = sorted([tuple(row.values()) for row in THREE] * 3, key=repr)
    assert rows(client, f"SELECT * FROM {DIALECT.qualify(orders)}") == expected


def _loads_since(client: bigquery.Client, moment: datetime, target: Target) -> int:
    return sum(
        isinstance(job, bigquery.LoadJob) and job.destination.dataset_id == target.schema
        for job in client.list_jobs(min_creation_time=moment)
    )


def test_stream_into_a_table_that_is_gone_is_refused(
    streaming_warehouse: BigQueryWarehouse, orders: Target
) -> None:
    missing = orders.beside("missing")
    with opened(streaming_warehouse) as session, pytest.raises(NotFoundError, match="missing"):
        session.insert(missing, ORDERS, encoded(reader(ORDERS, THREE), ORDERS))


# --- What goes wrong on the way ---


def behind(address: str) -> BigQueryWarehouse:
    """A warehouse that is reached at another address."""
    from google.auth.credentials import AnonymousCredentials

    def connect() -> bigquery.Client:
        credentials: Any = AnonymousCredentials()
        options = {"api_endpoint": address}
        return bigquery.Client(LocalBigQuery.project, credentials, client_options=options)

    return BigQueryWarehouse(connect)


def once(answer: Callable[[Request], Answer | None]) -> Callable[[Request], Answer | None]:
    """Let the hook answer until it has done so once."""
    done: list[Answer] = []

    def hook(request: Request) -> Answer | None:
        if done:
            return None
        found = answer(request)
        if found:
            done.append(found)
        return found

    return hook


def test_lost_answer_of_a_load_does_not_double_the_rows(
    local_bigquery: LocalBigQuery, client: bigquery.Client, orders: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dwh_assets.warehouses.bigquery.loads._PAUSES", (0.0, 0.0, 0.0))
    lost: list[str] = []

    def lose(request: Request) -> Answer | None:
        if "/upload/" not in request.path:
            return None
        lost.append(request.path)
        assert _sent(local_bigquery.port, request) == 200
        return 503, b"{}"

    with proxy(local_bigquery.port, request=once(lose)) as address, opened(behind(address)) as session:
        session.insert(orders, ORDERS, encoded(reader(ORDERS, THREE), ORDERS))
    assert lost
    assert count(client, orders) == 6


def _sent(port: int, request: Request) -> int:
    """Pass a request on, and keep its answer."""
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    headers = {name: value for name, value in request.headers.items() if name.lower() != "transfer-encoding"}
    connection.request(request.method, request.path, request.body, headers)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status


@pytest.mark.parametrize(
    ("status", "reason", "kind", "said"),
    [
        (403, "accessDenied", ConfigurationError, "Access Denied.*Grant what docs/bigquery.md lists"),
        (403, "quotaExceeded", UnavailableError, "1,500 load jobs"),
        (400, "invalid", TerminalError, "Access Denied"),
    ],
)
def test_refusals_are_told_with_what_to_do(
    local_bigquery: LocalBigQuery, status: int, reason: str, kind: type[Exception], said: str
) -> None:
    body = f'{{"error": {{"code": {status}, "message": "m", "errors": [{{"reason": "{reason}", "message": '
    body += '"Access Denied: Table dwh-tests:d.t: Permission bigquery.tables.create denied"}]}}'

    def refuse(request: Request) -> Answer | None:
        return (status, body.encode()) if request.path.partition("?")[0].endswith("/jobs") else None

    with (
        proxy(local_bigquery.port, request=refuse) as address,
        opened(behind(address)) as session,
        pytest.raises(kind, match=said),
    ):
        session.fetch("SELECT ?", "a secret")


def test_concurrent_update_is_a_conflict(local_bigquery: LocalBigQuery) -> None:
    body = (
        '{"error": {"code": 400, "message": "m", "errors": [{"reason": "invalidQuery", "message": '
        '"Transaction is aborted due to concurrent update against table p:d.t. Transaction ID: x"}]}}'
    )

    def refuse(request: Request) -> Answer | None:
        return (400, body.encode()) if request.path.partition("?")[0].endswith("/jobs") else None

    with (
        proxy(local_bigquery.port, request=refuse) as address,
        opened(behind(address)) as session,
        pytest.raises(ConflictError, match=r"concurrent update.*docs/bigquery\.md"),
    ):
        session.execute("UPDATE `d`.`t` SET `x` = 1 WHERE TRUE")


def test_missing_table_is_not_found(session: BigQuerySession, dataset: str) -> None:
    with pytest.raises(NotFoundError, match="nothing"):
        session.fetch(f"SELECT * FROM `{dataset}`.`nothing`")


def test_errors_hold_no_values(session: BigQuerySession, orders: Target) -> None:
    with pytest.raises(TerminalError) as caught:
        session.execute(f"SELECT 1 / 0 FROM {DIALECT.qualify(orders)} WHERE `item` <> ?", "s3cr3t")
    shown = repr(caught.value) + str(caught.value) + repr(caught.value.__cause__)
    assert "s3cr3t" not in shown
    assert caught.value.__suppress_context__


def test_credentials_that_google_refuses_are_not_shown(local_bigquery: LocalBigQuery) -> None:
    from google.oauth2 import service_account

    def refuse(request: Request) -> Answer | None:
        return (400, b'{"error": "invalid_grant"}') if request.path == "/token" else None

    with proxy(local_bigquery.port, request=refuse) as address:
        account = {**local_bigquery.service_account, "token_uri": f"{address}/token"}
        credentials: Any = service_account.Credentials.from_service_account_info(
            account, scopes=["https://www.googleapis.com/auth/bigquery"]
        )

        def connect() -> bigquery.Client:
            options = {"api_endpoint": local_bigquery.endpoint}
            return bigquery.Client(LocalBigQuery.project, credentials, client_options=options)

        with (
            opened(BigQueryWarehouse(connect)) as session,
            pytest.raises(ConfigurationError, match="does not take the credentials") as caught,
        ):
            session.fetch("SELECT 1")
    assert "PRIVATE KEY" not in repr(caught.value)
