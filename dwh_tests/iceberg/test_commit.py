"""One commit lands once and whole: under conflicts, under lost answers, and beside other writers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import (
    CommitFailedException,
    CommitStateUnknownException,
    NoSuchTableError,
    ServerError,
    ServiceUnavailableError,
)
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Operation
from requests.exceptions import ConnectionError as HttpConnectionError
from sqlalchemy.exc import IntegrityError, OperationalError

from dwh_assets.errors import (
    CommitUnknownError,
    ConfigurationError,
    ConflictError,
    SchemaError,
    UnavailableError,
)
from dwh_assets.iceberg import commit as commit_module
from dwh_assets.iceberg.commit import commit
from dwh_assets.iceberg.snapshot import Change
from dwh_tests.iceberg.conftest import Lake, local, multiset

BUSY = OperationalError("UPDATE", None, Exception("database is locked"))
LOST: dict[str, BaseException] = {
    "unknown state": CommitStateUnknownException("504"),
    "busy file": BUSY,
    "http": HttpConnectionError("reset"),
    "socket": ConnectionError("reset"),
}
REFUSED: dict[str, BaseException] = {
    "service": ServiceUnavailableError("503"),
    "value": ValueError("bad update"),
    "anything": RuntimeError("boom"),
}


class Stopped(BaseException):
    """As KeyboardInterrupt, and what Dagster raises in a run that is terminated."""


class Faulty(SqlCatalog):
    """A real catalog whose answers get lost, before the commit takes effect or after; or that then goes."""

    before: BaseException | None = None
    after: BaseException | None = None
    times = 1
    goes = False
    gone = False

    def commit_table(self, *given: Any) -> Any:
        self.times -= 1
        fails = self.times >= 0
        if fails and self.before:
            self.gone = self.goes
            raise self.before
        response = super().commit_table(*given)
        self.gone = self.goes
        if fails and self.after:
            raise self.after
        return response

    def load_table(self, *given: Any) -> Table:
        if self.gone:
            raise ConnectionError("no route to the catalog")
        return super().load_table(*given)


def faulty(lake: Lake, **faults: Any) -> Faulty:
    catalog = Faulty("dwh", **lake.properties)
    for name, value in faults.items():
        setattr(catalog, name, value)
    return catalog


def numbers(*values: int) -> pa.Table:
    return pa.table({"v": pa.array(values, pa.int64())})


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries for half a second instead of minutes."""
    defaults = {**(commit.__kwdefaults__ or {}), "retry_seconds": 0.5}
    monkeypatch.setattr(commit_module.commit, "__kwdefaults__", defaults)


def snapshots(lake: Lake) -> list[dict[str, Any]]:
    return list(lake.metadata["snapshots"])


@pytest.mark.parametrize("error", [*LOST.values(), *REFUSED.values()], ids=[*LOST, *REFUSED])
@pytest.mark.parametrize("mode", ["append", "overwrite"])
def test_a_commit_that_landed_is_found_whatever_was_answered(
    lake: Lake, error: BaseException, mode: str
) -> None:
    lake.write(numbers(1))
    writer = lake.writer(catalog=faulty(lake, after=error), write_mode=mode)
    result = writer.write(numbers(2))
    assert lake.column("v") == ([1, 2] if mode == "append" else [2])
    assert (result.snapshot_id, result.attempts) == (lake.metadata["current-snapshot-id"], 1)
    assert len(snapshots(lake)) == 2
    assert lake.orphans() == set()


def test_a_refusal_of_what_had_landed_does_not_break_the_table(lake: Lake) -> None:
    """A proxy that repeats a request gets a conflict with its own first try."""
    lake.write(numbers(1))
    writer = lake.writer(catalog=faulty(lake, after=CommitFailedException("409")))
    writer.write(numbers(2))
    assert lake.column("v") == [1, 2]
    assert lake.orphans() == set()


@pytest.mark.parametrize("error", [*LOST.values(), CommitFailedException("409")], ids=[*LOST, "conflict"])
@pytest.mark.parametrize("mode", ["append", "overwrite"])
def test_a_commit_that_did_not_land_is_made_again(lake: Lake, error: BaseException, mode: str) -> None:
    lake.write(numbers(1))
    result = lake.writer(catalog=faulty(lake, before=error, times=2), write_mode=mode).write(numbers(2))
    assert lake.column("v") == ([1, 2] if mode == "append" else [2])
    assert (result.attempts, len(snapshots(lake))) == (3, 2)
    assert lake.orphans() == set()


@pytest.mark.parametrize("error", REFUSED.values(), ids=REFUSED)
def test_a_refused_commit_leaves_nothing(lake: Lake, error: BaseException) -> None:
    lake.write(numbers(1))
    before = lake.on_disk()
    silent = isinstance(error, ServiceUnavailableError)
    with pytest.raises(UnavailableError if silent else type(error)):
        lake.writer(catalog=faulty(lake, before=error)).write(numbers(2))
    assert lake.on_disk() == before
    assert lake.column("v") == [1]


@pytest.mark.usefixtures("quick")
def test_without_any_answer_it_is_unknown_and_no_file_goes(lake: Lake) -> None:
    lake.write(numbers(1))
    before = lake.on_disk(".parquet")
    with pytest.raises(CommitUnknownError, match=lake.name) as raised:
        lake.writer(catalog=faulty(lake, before=BUSY, times=10**6)).write(numbers(2))
    assert "repeat" in raised.value.remedy
    assert len(lake.on_disk(".parquet") - before) == 1


@pytest.mark.parametrize("landed", [True, False])
def test_when_the_catalog_is_gone_it_is_unknown_and_no_file_goes(lake: Lake, landed: bool) -> None:
    lake.write(numbers(1))
    faults = {"after" if landed else "before": BUSY, "goes": True}
    with pytest.raises(CommitUnknownError, match=r"shop.orders.*snapshot \d+"):
        lake.writer(catalog=faulty(lake, **faults)).write(numbers(2))
    assert lake.column("v") == ([1, 2] if landed else [1])
    assert len(lake.on_disk(".parquet")) == 2


def test_a_catalog_that_fails_after_it_said_yes_changes_nothing(lake: Lake) -> None:
    lake.write(numbers(1))
    writer = lake.writer(catalog=faulty(lake, goes=True))
    assert writer.write(numbers(2)).rows_written == 1
    assert lake.column("v") == [1, 2]
    assert lake.orphans() == set()


def test_an_interrupt_while_the_catalog_works_breaks_nothing(lake: Lake) -> None:
    """Whoever stops a run during the commit cannot know whether it landed."""
    lake.write(numbers(1))
    with pytest.raises(Stopped):
        lake.writer(catalog=faulty(lake, after=Stopped())).write(numbers(2))
    assert lake.column("v") == [1, 2]


@pytest.mark.usefixtures("quick")
def test_a_writer_that_is_always_overtaken_gives_up_and_leaves_nothing(lake: Lake) -> None:
    lake.write(numbers(1))
    before = lake.on_disk()
    always = faulty(lake, before=CommitFailedException("409"), times=10**6)
    with pytest.raises(ConflictError, match=r"shop.orders: \d+ attempts.*409"):
        lake.writer(catalog=always).write(numbers(2))
    assert lake.on_disk() == before


def while_reading(data: pa.Table, interfere: Callable[[], Any]) -> Iterator[pa.RecordBatch]:
    """Data during whose reading somebody else commits."""
    yield from data.to_batches()
    interfere()


def test_an_append_beside_an_append_loses_nothing(lake: Lake) -> None:
    lake.write(numbers(1))
    result = lake.write(while_reading(numbers(2), lambda: lake.write(numbers(3))))
    assert (lake.column("v"), result.attempts) == ([1, 2, 3], 2)
    assert result.total_rows == 3
    assert lake.orphans() == set()


def test_two_first_writes_both_land(lake: Lake) -> None:
    lake.write(while_reading(numbers(1), lambda: lake.write(numbers(2))))
    assert lake.column("v") == [1, 2]
    assert len(snapshots(lake)) == 2


class Overtaken(SqlCatalog):
    """A real catalog in which somebody else is always first: to create a table, or to commit once."""

    overtake: Callable[[], Any] | None = None
    says: Exception | None = None

    def _write_metadata(self, *given: Any, **named: Any) -> None:  # type: ignore[override]
        super()._write_metadata(*given, **named)
        overtake, self.overtake = self.overtake, None
        if overtake:
            overtake()
            if self.says:
                raise self.says


CREATION = {
    "refused": None,
    "500 of a REST catalog": ServerError("500: UNIQUE constraint failed"),
    "the database's own": IntegrityError("INSERT", None, Exception("duplicate key")),
}


@pytest.mark.parametrize("says", CREATION.values(), ids=CREATION)
def test_a_table_that_another_makes_meanwhile_is_written_to(lake: Lake, says: Exception | None) -> None:
    catalog = Overtaken("dwh", **lake.properties)
    catalog.overtake, catalog.says = (lambda: lake.write(numbers(2))), says
    result = lake.writer(catalog=catalog).write(numbers(1))
    assert lake.column("v") == [1, 2]
    assert result.parent_snapshot_id == snapshots(lake)[0]["snapshot-id"]
    assert lake.orphans() == set()


def test_a_table_that_cannot_be_made_is_no_other_s(lake: Lake) -> None:
    catalog = Overtaken("dwh", **lake.properties)
    catalog.overtake, catalog.says = (lambda: None), ServerError("500: out of order")
    with pytest.raises(UnavailableError, match=r"shop.orders.*out of order"):
        lake.writer(catalog=catalog).write(numbers(1))
    assert not lake.catalog.table_exists(lake.name)


def test_metadata_files_of_overtaken_commits_go(lake: Lake) -> None:
    """PyIceberg writes its metadata file first and asks for the row of the database then."""
    lake.write(numbers(1))
    catalog = Overtaken("dwh", **lake.properties)
    catalog.overtake = lambda: lake.write(numbers(2))
    result = lake.writer(catalog=catalog).write(numbers(3))
    assert (lake.column("v"), result.attempts) == ([1, 2, 3], 2)
    assert lake.orphans() == set()


PARTED = [{"field": "p"}]


def parted(*pairs: tuple[str, int]) -> pa.Table:
    return pa.table({"p": [p for p, _ in pairs], "v": [v for _, v in pairs]})


@pytest.mark.parametrize("spec", [[], PARTED], ids=["whole", "partitioned"])
def test_an_overwrite_beside_an_append_is_as_if_it_came_after(lake: Lake, spec: list[dict[str, str]]) -> None:
    lake.write(parted(("a", 1), ("b", 2)), partition_spec=spec)
    data = while_reading(parted(("a", 10)), lambda: lake.write(parted(("a", 3), ("b", 4))))
    result = lake.write(data, where="p = 'a'", write_mode="overwrite")
    assert sorted(row["v"] for row in lake.rows()) == [2, 4, 10]
    assert (result.attempts, result.rows_deleted, result.total_rows) == (2, 2, 3)
    assert lake.orphans() == set()


@pytest.mark.parametrize("spec", [[], PARTED], ids=["whole", "partitioned"])
def test_overwrites_of_different_parts_both_stand(lake: Lake, spec: list[dict[str, str]]) -> None:
    lake.write(parted(("a", 1), ("b", 2), ("c", 3)), partition_spec=spec)
    other = parted(("b", 20))
    data = while_reading(
        parted(("a", 10)), lambda: lake.write(other, where="p = 'b'", write_mode="overwrite")
    )
    lake.write(data, where="p = 'a'", write_mode="overwrite")
    assert sorted(row["v"] for row in lake.rows()) == [3, 10, 20]
    assert lake.orphans() == set()


def test_overwrites_of_the_same_part_end_as_one_after_the_other(lake: Lake) -> None:
    lake.write(parted(("a", 1), ("b", 2)))
    other = parted(("a", 20))
    data = while_reading(
        parted(("a", 10)), lambda: lake.write(other, where="p = 'a'", write_mode="overwrite")
    )
    result = lake.write(data, where="p = 'a'", write_mode="overwrite")
    assert sorted(row["v"] for row in lake.rows()) == [2, 10]
    assert result.rows_deleted == 1
    assert lake.orphans() == set()


def test_rows_deleted_by_another_are_not_brought_back(lake: Lake) -> None:
    lake.write(parted(("a", 1), ("b", 2), ("b", 3)))

    def delete() -> None:
        lake.delete_positions({lake.data_files()[0].file_path: [1]})

    lake.write(while_reading(parted(("a", 10)), delete), where="p = 'a'", write_mode="overwrite")
    assert sorted(row["v"] for row in lake.rows()) == [3, 10]


def test_the_same_new_column_from_two_writers_is_one_column(lake: Lake) -> None:
    lake.write(numbers(1))
    wider = numbers(2).append_column("new", pa.array(["x"]))
    result = lake.write(
        while_reading(wider, lambda: lake.write(numbers(3).append_column("new", pa.array(["y"]))))
    )
    assert result.attempts == 2
    assert multiset(lake.rows()) == multiset(
        [{"v": 1, "new": None}, {"v": 2, "new": "x"}, {"v": 3, "new": "y"}]
    )
    assert len(lake.metadata["schemas"]) == 2


@pytest.mark.parametrize(
    ("interfere", "error"),
    [
        (
            lambda lake: lake.write(numbers(3).append_column("new", pa.array([1]))),
            (SchemaError, ConflictError),
        ),
        (lambda lake: lake.write(numbers(3), partition_spec=[{"field": "v"}]), ConflictError),
        (lambda lake: lake.write(numbers(3), sort_order=[{"field": "v"}]), ConflictError),
        (lambda lake: (lake.catalog.drop_table(lake.name), lake.write(numbers(3))), ConflictError),
    ],
    ids=["columns", "partitioning", "sort order", "another table"],
)
def test_files_that_no_longer_fit_are_refused_and_removed(lake: Lake, interfere: Any, error: Any) -> None:
    lake.write(numbers(1))
    with pytest.raises(error, match=lake.name):
        lake.write(while_reading(numbers(2), lambda: interfere(lake)))
    assert 2 not in lake.column("v")
    known = {local(file.file_path) for file in lake.data_files()}
    assert len(lake.on_disk(".parquet") - known) <= 1


def test_a_table_that_is_gone_is_said_to_be_and_nothing_is_left(lake: Lake) -> None:
    lake.write(numbers(1))
    before = lake.on_disk(".parquet")
    with pytest.raises((NoSuchTableError, ConflictError), match=lake.name):
        lake.write(while_reading(numbers(2), lambda: lake.catalog.drop_table(lake.name)))
    assert lake.on_disk(".parquet") == before


def test_a_property_that_another_sets_meanwhile_stays(lake: Lake) -> None:
    lake.write(numbers(1))
    change = {"theirs": "1"}
    lake.write(
        while_reading(
            numbers(2), lambda: lake.table.transaction().set_properties(change).commit_transaction()
        ),
        table_properties={"mine": "1"},
    )
    assert {key: lake.metadata["properties"][key] for key in ("mine", "theirs")} == {
        "mine": "1",
        "theirs": "1",
    }


def test_a_plan_with_nothing_left_to_do_commits_nothing(lake: Lake) -> None:
    lake.write(numbers(1))
    assert commit(lake.catalog, lake.table, lambda _: None) is None
    assert len(snapshots(lake)) == 1


@pytest.mark.usefixtures("quick")
def test_a_file_that_is_not_in_the_table_cannot_be_removed(lake: Lake) -> None:
    lake.write(numbers(1))
    (file,) = lake.data_files()
    lake.write(numbers(2), write_mode="overwrite")
    with pytest.raises(ConflictError, match="no longer in the table"):
        commit(lake.catalog, lake.table, lambda _: Change(Operation.OVERWRITE, removed=(file,)))
    assert lake.orphans() == set()


def test_time_never_runs_backwards(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    lake.write(numbers(1))
    monkeypatch.setattr("dwh_assets.iceberg.commit.time.time", lambda: 0.0)
    lake.write(numbers(2))
    first, second = snapshots(lake)
    assert second["timestamp-ms"] > first["timestamp-ms"]
    assert second["sequence-number"] == first["sequence-number"] + 1


def test_entries_that_stay_keep_their_history(lake: Lake) -> None:
    lake.write(parted(("a", 1)))
    first = lake.metadata["current-snapshot-id"]
    lake.write(parted(("b", 2)))
    lake.write(parted(("b", 20)), where="p = 'b'", write_mode="overwrite")
    table = lake.table
    snapshot = table.current_snapshot()
    assert snapshot is not None
    entries = [
        entry
        for manifest in snapshot.manifests(table.io)
        for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=False)
    ]
    oldest = next(entry for entry in entries if entry.snapshot_id == first)
    assert (oldest.sequence_number, oldest.data_file.record_count) == (1, 1)
    assert sorted(entry.status for entry in entries) == [1, 1, 2]


def test_a_branch_other_than_main_needs_something_to_begin_at(lake: Lake) -> None:
    """PyIceberg's catalogs refuse it without end; the new table goes again."""
    with pytest.raises(ConfigurationError, match=r"shop\.orders has no snapshot yet.*'audit'"):
        lake.write(pa.table({"v": [1]}), branch="audit")
    assert not lake.catalog.table_exists("shop.orders")
    lake.write(pa.table({"v": pa.array([], pa.int64())}))
    result = lake.write(pa.table({"v": [1]}), branch="audit")
    assert (result.total_rows, lake.rows()) == (1, [])
