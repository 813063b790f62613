"""What a session is asked for, over Snowflake's own connector, against the emulator."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.types import DoubleType, LongType, NestedField, StringType
from snowflake.connector import SnowflakeConnection
from snowflake.connector.cursor import SnowflakeCursor

from dwh_assets.errors import (
    ConfigurationError,
    ConflictError,
    DataError,
    NotFoundError,
    TerminalError,
    UnavailableError,
)
from dwh_assets.warehouses.base import Target
from dwh_assets.warehouses.dialect import ReplicaColumn, TypeOptions
from dwh_assets.warehouses.evolution import ColumnStep
from dwh_assets.warehouses.session import Layout, Purpose
from dwh_assets.warehouses.snowflake.session import SnowflakeSession
from dwh_assets.warehouses.snowflake.warehouse import SnowflakeWarehouse
from dwh_tests.servers.fakesnow import FakeSnow
from dwh_tests.warehouses.snowflake.conftest import Connect, new_session

TABLE = Target("", "PUBLIC", "ORDERS")
NASTY = 'n"; DROP TABLE ORDERS; --'


def column(
    session: SnowflakeSession, number: int, name: str, kind: Any, required: bool = False
) -> ReplicaColumn:
    field = NestedField(number, name, kind, required=required)
    return ReplicaColumn(
        field, session.dialect.name(name), session.dialect.holding(kind, name, TypeOptions())
    )


def orders(session: SnowflakeSession, second: str = "item") -> list[ReplicaColumn]:
    return [column(session, 1, "id", LongType()), column(session, 2, second, StringType())]


def arriving(columns: list[ReplicaColumn], *rows: tuple[Any, ...]) -> pa.RecordBatchReader:
    schema = pa.schema([(one.name, one.holding.arrow_type) for one in columns])
    values = list(zip(*rows, strict=True)) or [() for _ in columns]
    batch = pa.RecordBatch.from_arrays(
        [pa.array(v, f.type) for v, f in zip(values, schema, strict=True)], schema=schema
    )
    return pa.RecordBatchReader.from_batches(schema, [batch])


def rows_of(connect: Connect, table: str = "ORDERS") -> list[tuple[Any, ...]]:
    """What the connector alone reads, over another connection."""
    with connect() as connection:
        cursor = connection.cursor().execute(f'SELECT * FROM "PUBLIC"."{table}" ORDER BY 1')
        assert cursor
        return [tuple(row) for row in cursor.fetchall()]


@pytest.fixture
def filled(session: SnowflakeSession) -> SnowflakeSession:
    columns = orders(session)
    session.create_table(TABLE, columns, Layout(cluster_by=("id",)))
    session.insert(TABLE, columns, arriving(columns, (1, "pen"), (2, None)))
    return session


# --- Tables ---


def test_tables_are_described_made_kept_replaced_and_dropped(
    session: SnowflakeSession, connect: Connect
) -> None:
    columns = orders(session)
    assert session.describe(TABLE) is None
    session.create_table(TABLE, columns, Layout())
    assert session.describe(TABLE) == ["ID", "ITEM"]
    session.insert(TABLE, columns, arriving(columns, (1, "pen")))
    session.create_table(TABLE, columns, Layout(), existing="keep")
    assert rows_of(connect) == [(1, "pen")]
    with pytest.raises(TerminalError, match=r"sales\.orders: Snowflake answered"):
        session.create_table(TABLE, columns, Layout())
    session.create_table(TABLE, columns, Layout(), existing="replace")
    assert rows_of(connect) == []
    session.drop_table(TABLE)
    session.drop_table(TABLE)
    assert session.describe(TABLE) is None


def test_a_view_is_described_and_dropped(filled: SnowflakeSession) -> None:
    view = TABLE.beside("LATEST")
    filled.execute('CREATE VIEW "PUBLIC"."LATEST" AS SELECT "ID" FROM "PUBLIC"."ORDERS"')
    assert filled.describe(view) == ["ID"]
    filled.drop_table(view)
    assert filled.describe(view) is None
    assert filled.describe(TABLE) == ["ID", "ITEM"]


def test_schemas_are_made_once(session: SnowflakeSession) -> None:
    there = Target("", "New Schema", "T")
    session.ensure_schema(there)
    session.ensure_schema(there)
    session.create_table(there, orders(session), Layout())
    assert session.describe(there) == ["ID", "ITEM"]


def test_another_database_is_reached_by_its_name(
    session: SnowflakeSession, fakesnow: FakeSnow, database: str
) -> None:
    with fakesnow.connect(f"{database}_2") as connection:
        connection.cursor().execute("SELECT 1")
    there = session.dialect.target(f"{database}_2.sales.orders")
    columns = orders(session)
    session.ensure_schema(there)
    session.create_table(there, columns, Layout())
    session.insert(there, columns, arriving(columns, (1, "pen")))
    assert session.fetch(f"SELECT * FROM {session.dialect.qualify(there)}") == [(1, "pen")]
    session.sweep(there)
    # Making a schema went there, too.
    with new_session(SnowflakeWarehouse(partial(fakesnow.connect, database))) as other:
        assert other.describe(Target("", "SALES", "ORDERS")) is None


def test_columns_are_changed_and_changes_may_be_repeated(filled: SnowflakeSession, connect: Connect) -> None:
    price = column(filled, 3, "price", DoubleType())
    label = column(filled, 2, "label", StringType())
    steps = [
        ColumnStep("add", "PRICE", price),
        ColumnStep("rename", "ITEM", label),
        ColumnStep("widen", "ID", column(filled, 1, "id", LongType())),
        ColumnStep("relax", "ID", column(filled, 1, "id", LongType())),
    ]
    for step in [*steps, *steps]:
        filled.alter_table(TABLE, step)
    assert filled.describe(TABLE) == ["ID", "LABEL", "PRICE"]
    assert rows_of(connect) == [(1, "pen", None), (2, None, None)]
    for _ in range(2):
        filled.alter_table(TABLE, ColumnStep("drop", "PRICE"))
    assert filled.describe(TABLE) == ["ID", "LABEL"]


def test_a_table_takes_the_place_of_another(filled: SnowflakeSession, connect: Connect) -> None:
    staging = filled.staging(TABLE, "rows")
    columns = [column(filled, 1, "number", LongType())]
    filled.create_table(staging, columns, Layout())
    filled.insert(staging, columns, arriving(columns, (7,)))
    for _ in range(2):
        filled.supplant(TABLE, staging)
    assert filled.describe(TABLE) == ["NUMBER"]
    assert rows_of(connect) == [(7,)]


def test_names_of_any_kind_are_names_and_no_more(session: SnowflakeSession, connect: Connect) -> None:
    columns = orders(session, second=NASTY)
    # A quote in a table's name is too much for the emulator: test_sql.py shows that it is doubled.
    target = Target("", "PUBLIC", "t; DROP TABLE ORDERS; --")
    session.create_table(TABLE, orders(session), Layout())
    session.create_table(target, columns, Layout(cluster_by=(NASTY,)))
    session.insert(target, columns, arriving(columns, (1, "a"), (2, "'); DROP TABLE ORDERS; --")))
    assert session.describe(target) == ["ID", NASTY]
    found = session.fetch(
        f"SELECT * FROM {session.dialect.qualify(target)} WHERE {session.dialect.quote(NASTY)} = ?",
        "'); DROP TABLE ORDERS; --",
    )
    assert found == [(2, "'); DROP TABLE ORDERS; --")]
    assert rows_of(connect) == []


# --- Rows ---


def test_statements_tell_how_many_rows_they_changed(filled: SnowflakeSession) -> None:
    table_sql = filled.dialect.qualify(TABLE)
    assert filled.execute(f'UPDATE {table_sql} SET "ITEM" = ? WHERE "ID" > ?', "ink", 0) == 2
    assert filled.execute(f'INSERT INTO {table_sql} ("ID") VALUES (?)', 3) == 1
    assert filled.execute(f'DELETE FROM {table_sql} WHERE "ITEM" IS NULL') == 1
    assert filled.execute("SELECT 1") == 0
    before = filled.statements
    filled.fetch("SELECT 1")
    assert filled.statements == before + 1


def test_few_rows_need_no_stage_and_many_use_one(connect: Connect) -> None:
    for insert_below, uses_stage in ((3, False), (2, True)):
        with (
            sent_to(connect) as (warehouse, sent),
            new_session(SnowflakeWarehouse(warehouse, insert_below=insert_below)) as session,
        ):
            columns = orders(session)
            session.create_table(TABLE, columns, Layout(), existing="replace")
            session.insert(TABLE, columns, arriving(columns, (1, "pen"), (2, None)))
        assert any(sql.startswith("PUT") for sql, _ in sent) is uses_stage
        assert rows_of(connect) == [(1, "pen"), (2, None)]


def test_an_insert_leaves_other_columns_null(session: SnowflakeSession, connect: Connect) -> None:
    columns = orders(session)
    session.create_table(TABLE, columns, Layout())
    session.insert(TABLE, columns[:1], arriving(columns[:1], (1,)))
    assert rows_of(connect) == [(1, None)]
    session.insert(TABLE, columns, arriving(columns))
    assert rows_of(connect) == [(1, None)]


@pytest.mark.slow
def test_many_rows_go_by_groups_of_files(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of a row group each, two at a time, so that a few groups are written and put."""
    monkeypatch.setattr("dwh_assets.warehouses.snowflake.staged_files._ROW_GROUP_BYTES", 50_000)
    rows = 50_000
    with sent_to(connect) as (counted, sent), new_session(SnowflakeWarehouse(counted)) as session:
        limits = session.dialect.capabilities
        monkeypatch.setattr(
            "dwh_assets.warehouses.snowflake.dialect.SnowflakeDialect.capabilities",
            type(limits)(**{**vars(limits), "file_bytes": 1, "parallel_files": 2}),
        )
        columns = orders(session)
        schema = pa.schema([(one.name, one.holding.arrow_type) for one in columns])
        table = pa.table({"ID": range(rows), "ITEM": [f"item {n}" * 20 for n in range(rows)]}, schema=schema)
        session.create_table(TABLE, columns, Layout())
        session.insert(TABLE, columns, table.to_reader(max_chunksize=1000))
        (found,) = session.fetch(f'SELECT COUNT(*), COUNT(DISTINCT "ID"), MAX("ID") FROM {TABLE}')
    assert found == (rows, rows, rows - 1)
    assert sum(sql.startswith("PUT") for sql, _ in sent) > 3
    assert sum(sql.startswith("COPY") for sql, _ in sent) == 1


@pytest.mark.parametrize("insert_below", [0, 1000])
def test_a_failing_stream_is_told_as_itself_and_adds_nothing(connect: Connect, insert_below: int) -> None:
    with new_session(SnowflakeWarehouse(connect, insert_below=insert_below)) as session:
        columns = orders(session)
        session.create_table(TABLE, columns, Layout())
        schema = pa.schema([(one.name, one.holding.arrow_type) for one in columns])

        def batches() -> Iterator[pa.RecordBatch]:
            yield pa.RecordBatch.from_pylist([{"ID": 1, "ITEM": "pen"}], schema)
            raise DataError("a file is cut short")

        with pytest.raises(Exception, match="a file is cut short"):
            session.insert(TABLE, columns, pa.RecordBatchReader.from_batches(schema, batches()))
    assert rows_of(connect) == []


def test_rows_are_streamed_with_their_types_and_none_has_them_too(filled: SnowflakeSession) -> None:
    sql = 'SELECT "ID", "ITEM", CAST(1.5 AS NUMBER(10, 2)) FROM "PUBLIC"."ORDERS" WHERE "ID" < ?'
    types = [pa.decimal128(38, 0), pa.large_string(), pa.decimal128(38, 2)]
    assert filled.stream(sql, 2).schema.types == types
    assert [list(row.values()) for row in filled.stream(sql, 2).read_all().to_pylist()] == [[1, "pen", 1.5]]
    assert filled.stream(sql, 0).read_all().num_rows == 0


# --- Transactions ---


def test_a_transaction_is_committed_or_undone(filled: SnowflakeSession, connect: Connect) -> None:
    with filled.transaction():
        filled.execute('DELETE FROM "PUBLIC"."ORDERS"')
        assert len(rows_of(connect)) == 2, "others see it before it is committed"
    assert rows_of(connect) == []
    with pytest.raises(KeyboardInterrupt), filled.transaction():  # noqa: PT012
        filled.execute('INSERT INTO "PUBLIC"."ORDERS" VALUES (?, ?)', 1, "pen")
        raise KeyboardInterrupt
    assert rows_of(connect) == []
    filled.execute('INSERT INTO "PUBLIC"."ORDERS" VALUES (?, ?)', 2, "ink")
    assert rows_of(connect) == [(2, "ink")]


def test_a_hidden_failure_undoes_the_transaction(filled: SnowflakeSession, connect: Connect) -> None:
    """The emulator answers COMMIT with ok and applies nothing; the service would commit the rest."""
    with pytest.raises(TerminalError, match="nothing of it was committed"), filled.transaction():  # noqa: PT012
        filled.execute('DELETE FROM "PUBLIC"."ORDERS"')
        with pytest.raises(NotFoundError):
            filled.fetch('SELECT * FROM "PUBLIC"."NOWHERE"')
    assert len(rows_of(connect)) == 2
    with filled.transaction():
        filled.execute('DELETE FROM "PUBLIC"."ORDERS"')
    assert rows_of(connect) == []


def test_tables_are_not_made_in_a_transaction(filled: SnowflakeSession, connect: Connect) -> None:
    """There the service would commit what was done so far; the emulator would not."""
    with pytest.raises(TerminalError, match="would commit"), filled.transaction():  # noqa: PT012
        filled.execute('DELETE FROM "PUBLIC"."ORDERS"')
        filled.create_table(TABLE.beside("T"), orders(filled), Layout())
    assert len(rows_of(connect)) == 2


def test_of_two_transactions_on_a_row_one_is_told_to_repeat(
    filled: SnowflakeSession, warehouse: SnowflakeWarehouse, connect: Connect
) -> None:
    with new_session(warehouse) as other:
        with filled.transaction():
            filled.execute('UPDATE "PUBLIC"."ORDERS" SET "ITEM" = ? WHERE "ID" = 1', "first")
            with pytest.raises(ConflictError, match="The transaction was undone"), other.transaction():
                other.execute('UPDATE "PUBLIC"."ORDERS" SET "ITEM" = ? WHERE "ID" = 1', "second")
        assert rows_of(connect)[0] == (1, "first")
        with other.transaction():
            other.execute('UPDATE "PUBLIC"."ORDERS" SET "ITEM" = ? WHERE "ID" = 1', "second")
    assert rows_of(connect)[0] == (1, "second")


def test_two_sessions_load_at_once(warehouse: SnowflakeWarehouse, connect: Connect) -> None:
    loading = SnowflakeWarehouse(connect, insert_below=0)
    failures: list[BaseException] = []

    def load(number: int) -> None:
        try:
            with new_session(loading) as session:
                columns = orders(session)
                staging = session.staging(TABLE, "rows")
                session.create_table(staging, columns, Layout())
                session.insert(staging, columns, arriving(columns, *((number, str(n)) for n in range(100))))
                assert session.fetch(
                    f'SELECT COUNT(*), MIN("ID"), MAX("ID") FROM {session.dialect.qualify(staging)}'
                ) == [(100, number, number)]
                session.drop_table(staging)
        except BaseException as error:
            failures.append(error)

    with new_session(warehouse) as session:
        session.fetch("SELECT 1")
    threads = [threading.Thread(target=load, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


# --- Beside ---


def test_what_dead_syncs_left_is_swept_after_a_day(session: SnowflakeSession) -> None:
    def made(age: timedelta) -> Target:
        return TABLE.beside(f"_DWH_STAGING_{datetime.now(UTC) - age:%Y%m%d%H%M%S}_0A1B2C3D_ROWS")

    old, young = made(timedelta(hours=25)), made(timedelta(hours=23))
    others = [TABLE.beside("_DWH_STAGING_BY_HAND"), TABLE, session.staging(TABLE, "rows")]
    for target in (old, young, *others):
        session.create_table(target, orders(session), Layout())
    session.sweep(TABLE)
    assert session.describe(old) is None
    assert None not in [session.describe(target) for target in (young, *others)]


def test_staging_tables_are_a_sessions_own(warehouse: SnowflakeWarehouse, session: SnowflakeSession) -> None:
    with new_session(warehouse) as other:
        names = {one.staging(TABLE, label).name for one in (session, other) for label in ("rows", "deletes")}
    assert len(names) == 4
    assert session.staging(TABLE, "rows") == session.staging(TABLE, "rows")


def test_tables_of_records_are_found(session: SnowflakeSession) -> None:
    assert session.state_tables() == []
    for schema in ("S2", "S1"):
        target = Target("", schema, "T")
        session.ensure_schema(target)
        session.create_table(session.dialect.state_table(target), orders(session), Layout())
    assert session.state_tables() == [Target("", s, "_DWH_REPLICAS") for s in ("S1", "S2")]


def test_every_statement_says_what_it_is_for(connect: Connect) -> None:
    purpose = Purpose("sales.orders", "run-7")
    with (
        sent_to(connect) as (counted, sent),
        SnowflakeWarehouse(counted, insert_below=0).open(purpose) as session,
    ):
        columns = orders(session)
        session.create_table(TABLE, columns, Layout())
        session.insert(TABLE, columns, arriving(columns, (1, "pen")))
        session.stream('SELECT * FROM "PUBLIC"."ORDERS"').read_all()
    ours = [options for sql, options in sent if not sql.lower().startswith("alter session")]
    tags = {options["_statement_params"]["QUERY_TAG"] for options in ours}
    assert tags == {'{"application": "dwh_assets", "table": "sales.orders", "run": "run-7"}'}


def test_the_connection_is_closed_whatever_happens(
    fakesnow: FakeSnow, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dagster's factory leaves it open after a failure."""
    from dagster_snowflake import SnowflakeResource

    closed: list[SnowflakeConnection] = []
    close = SnowflakeConnection.close

    def noted(connection: SnowflakeConnection, retry: bool = True) -> None:
        closed.append(connection)
        close(connection, retry)

    monkeypatch.setattr(SnowflakeConnection, "close", noted)

    resource = SnowflakeResource(
        account=fakesnow.account,
        user=fakesnow.user,
        password=fakesnow.password,
        database=database,
        schema="PUBLIC",
        additional_snowflake_connection_args=fakesnow.connection_options,
    )
    warehouse = SnowflakeWarehouse(resource.get_connection)
    with warehouse.connect() as first:
        assert closed == []
    with pytest.raises(KeyboardInterrupt), warehouse.connect() as second:
        raise KeyboardInterrupt
    assert {id(connection) for connection in closed} == {id(first), id(second)}


def test_failures_are_told_in_our_words_and_without_secrets(session: SnowflakeSession) -> None:
    with pytest.raises(NotFoundError, match=r"^sales\.orders: Snowflake answered 002003 .*NOWHERE"):
        session.fetch('SELECT * FROM "PUBLIC"."NOWHERE"')
    with pytest.raises(DataError, match="100035"):
        session.fetch("SELECT CAST(? AS NUMBER(3, 0))", "no number")
    with pytest.raises(TerminalError, match="001003") as failure:
        session.fetch("SELEC ?", "top secret")
    assert "top secret" not in str(failure.value)


def test_a_server_out_of_reach_is_unavailable(fakesnow: FakeSnow) -> None:
    nobody = partial(fakesnow.connect, "DB", port=1, login_timeout=1, token="hunter2-secret")
    with pytest.raises(UnavailableError, match="Could not connect") as failure:
        SnowflakeWarehouse(nobody).connect().__enter__()
    assert "hunter2" not in str(failure.value)
    assert not isinstance(failure.value, ConfigurationError)


Sent = list[tuple[str, dict[str, Any]]]


@contextmanager
def sent_to(connect: Connect) -> Iterator[tuple[Connect, Sent]]:
    """Connections whose cursors note the text and options of what they send."""
    sent: Sent = []

    class Noting(SnowflakeCursor):
        def execute(self, command: str, *args: Any, **options: Any) -> Any:
            sent.append((command, options))
            return super().execute(command, *args, **options)

    @contextmanager
    def noted() -> Iterator[SnowflakeConnection]:
        with connect() as connection:
            make = connection.cursor
            connection.cursor = lambda cursor_class=Noting: make(cursor_class)  # type: ignore[method-assign]
            yield connection

    yield noted, sent
