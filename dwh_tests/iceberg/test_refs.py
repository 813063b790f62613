"""Tags and branches: what the metadata file says of them after changes that succeed, race or get lost."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
from pydantic import ValidationError
from pyiceberg.catalog import Catalog
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.table import CommitTableResponse, Table
from pyiceberg.table.update import AddSnapshotUpdate, SetSnapshotRefUpdate, TableRequirement, TableUpdate

from dwh_assets.config import IcebergWriterConfig
from dwh_assets.errors import ConfigurationError, ConflictError, DwhError, NotFoundError, UnsupportedError
from dwh_assets.iceberg.refs import (
    Ref,
    create_branch,
    create_tag,
    drop_branch,
    drop_tag,
    ensure_tag,
    list_refs,
    prune_branches,
    set_lifetime,
)
from dwh_assets.iceberg.write import IcebergWriter
from dwh_tests.iceberg.conftest import TABLE, Lake

ROWS = pa.table({"id": [1, 2]})
DAY = timedelta(days=1)


@pytest.fixture
def written(lake: Lake) -> Lake:
    """A table with two versions."""
    lake.write(ROWS)
    lake.write(ROWS)
    return lake


def refs_of(lake: Lake) -> dict[str, dict[str, Any]]:
    """The refs but main, as the metadata file has them."""
    return {name: ref for name, ref in lake.metadata["refs"].items() if name != "main"}


def snapshots_of(lake: Lake) -> list[int]:
    return [snapshot["snapshot-id"] for snapshot in lake.metadata["snapshots"]]


def test_a_tag_names_the_head_or_the_snapshot_that_is_told(written: Lake) -> None:
    first, second = snapshots_of(written)
    create_tag(written.catalog, written.table, "now")
    create_tag(written.catalog, written.table, "before", first)
    assert refs_of(written) == {
        "now": {"snapshot-id": second, "type": "tag"},
        "before": {"snapshot-id": first, "type": "tag"},
    }


def test_a_branch_begins_where_it_is_told_and_goes_on_by_itself(written: Lake) -> None:
    first, second = snapshots_of(written)
    create_branch(written.catalog, written.table, "trial", first)
    written.write(pa.table({"id": [7]}), branch="trial")
    assert sorted(row["id"] for row in written.rows(refs_of(written)["trial"]["snapshot-id"])) == [1, 2, 7]
    assert written.metadata["current-snapshot-id"] == second


def test_a_lifetime_counts_from_now_however_old_the_snapshot_is(written: Lake) -> None:
    old = _snapshot_of_last_year(written)
    before = datetime.now(UTC)
    made = create_tag(written.catalog, written.table, "late", old, lifetime=30 * DAY)
    after = datetime.now(UTC)
    (snapshot,) = [s for s in written.metadata["snapshots"] if s["snapshot-id"] == old]
    dies_at = snapshot["timestamp-ms"] + refs_of(written)["late"]["max-ref-age-ms"]
    assert _ms(before + 30 * DAY) <= dies_at <= _ms(after + 30 * DAY) + 1
    assert made.expires_at is not None
    assert _ms(made.expires_at) == dies_at


def test_a_lifetime_is_given_and_taken_later(written: Lake) -> None:
    create_branch(written.catalog, written.table, "trial", lifetime=DAY)
    assert "max-ref-age-ms" in refs_of(written)["trial"]
    set_lifetime(written.catalog, written.table, "trial", None)
    assert refs_of(written)["trial"].get("max-ref-age-ms") is None


@pytest.mark.parametrize(
    ("first", "then", "kept"),
    [(DAY, 2 * DAY, 2 * DAY), (2 * DAY, DAY, 2 * DAY), (DAY, None, None), (None, DAY, None)],
)
def test_a_tag_that_is_there_is_kept_for_the_longer_of_two_lifetimes(
    written: Lake, first: timedelta | None, then: timedelta | None, kept: timedelta | None
) -> None:
    head = snapshots_of(written)[-1]
    ensure_tag(written.catalog, written.table, "version", head, lifetime=first)
    ensure_tag(written.catalog, written.table, "version", head, lifetime=then)
    age = refs_of(written)["version"].get("max-ref-age-ms")
    days = None if age is None else round(age / DAY.total_seconds() / 1000)
    assert days == (None if kept is None else kept.days)


def test_dropping_leaves_the_others(written: Lake) -> None:
    for name in ("a", "b"):
        create_tag(written.catalog, written.table, name)
    create_branch(written.catalog, written.table, "c")
    drop_tag(written.catalog, written.table, "a")
    drop_branch(written.catalog, written.table, "c")
    assert list(refs_of(written)) == ["b"]
    assert [(ref.name, ref.kind) for ref in list_refs(written.table.metadata)] == [
        ("b", "tag"),
        ("main", "branch"),
    ]


MOMENT = timedelta(milliseconds=1)


def test_branches_whose_time_is_over_go_and_nothing_else(written: Lake) -> None:
    old = _snapshot_of_last_year(written)
    create_tag(written.catalog, written.table, "tag", old, lifetime=MOMENT)
    create_branch(written.catalog, written.table, "over", old, lifetime=MOMENT)
    create_branch(written.catalog, written.table, "later", old, lifetime=DAY)
    create_branch(written.catalog, written.table, "for ever", old)
    time.sleep(0.01)
    assert [ref.name for ref in prune_branches(written.catalog, written.table)] == ["over"]
    assert list(refs_of(written)) == ["tag", "later", "for ever"]
    assert old in snapshots_of(written), "what a snapshot holds goes with its expiry"
    before = written.metadata
    assert prune_branches(written.catalog, written.table) == []
    assert written.metadata == before


def test_a_branch_that_is_written_to_meanwhile_lives_on(written: Lake) -> None:
    old = _snapshot_of_last_year(written)
    create_branch(written.catalog, written.table, "over", old, lifetime=MOMENT)
    time.sleep(0.01)
    catalog = Interrupted(written, before=lambda: written.write(ROWS, branch="over"))
    assert prune_branches(catalog, catalog.load_table(TABLE)) == []
    assert list(refs_of(written)) == ["over"]


def test_a_branch_that_a_writer_makes_is_kept_from_its_newest_commit_on(written: Lake) -> None:
    config = IcebergWriterConfig(table=TABLE, branch="trial")
    for kept in (None, DAY):
        create_branch(written.catalog, written.table, f"kept {kept}", lifetime=kept)
    for branch in ("trial", "kept None", f"kept {DAY}"):
        writer = IcebergWriter(
            config.model_copy(update={"branch": branch}), catalog=written.catalog, branch_lifetime=2 * DAY
        )
        writer.write(ROWS)
        writer.write(ROWS)
    ages = {name: ref.get("max-ref-age-ms") for name, ref in refs_of(written).items()}
    two_days = 2 * 86_400_000
    assert ages == {"trial": two_days, "kept None": None, f"kept {DAY}": two_days}


REFUSED: list[tuple[Callable[[Catalog, Table], Any], type[DwhError], str]] = [
    (lambda c, t: create_tag(c, t, "tag"), ConfigurationError, "a tag 'tag' already, at snapshot"),
    (lambda c, t: create_branch(c, t, "tag"), ConfigurationError, "a tag 'tag' already"),
    (lambda c, t: create_tag(c, t, "branch"), ConfigurationError, "a branch 'branch' already"),
    (lambda c, t: create_tag(c, t, "main"), ConfigurationError, "a branch 'main' already"),
    (lambda c, t: create_tag(c, t, " "), ConfigurationError, "no name"),
    (lambda c, t: create_tag(c, t, "new", 77), NotFoundError, "snapshot 77"),
    (lambda c, t: create_tag(c, t, "new", lifetime=timedelta(0)), ConfigurationError, "cannot be kept"),
    (lambda c, t: set_lifetime(c, t, "main", DAY), ConfigurationError, "main is what readers see"),
    (lambda c, t: set_lifetime(c, t, "new", DAY), NotFoundError, "has no tag or branch 'new'"),
    (lambda c, t: drop_branch(c, t, "main"), ConfigurationError, "main is what readers see"),
    (lambda c, t: drop_branch(c, t, "tag"), ConfigurationError, "'tag' is a tag, not a branch"),
    (lambda c, t: drop_tag(c, t, "branch"), ConfigurationError, "'branch' is a branch, not a tag"),
    (lambda c, t: drop_tag(c, t, "gone"), NotFoundError, "has no tag 'gone'. It has tag."),
]


ODD = {
    "nothing": "",
    "blanks": " \t",
    "at its end": "q3 ",
    "null": "q\x003",
    "line": "q3\nmain",
    "escape": "q3\x1b[31m",
    "turned round": "q3\u202e",
    "half a character": "q\ud800",
    "line separator": "q\u2028",
}


@pytest.mark.parametrize("name", ODD.values(), ids=ODD)
def test_what_no_store_or_terminal_could_hold_is_no_name(written: Lake, name: str) -> None:
    before = written.metadata
    for create in (create_tag, create_branch):
        with pytest.raises(ConfigurationError, match="is no name for a tag or a branch: ") as raised:
            create(written.catalog, written.table, name)
        assert raised.value.message.isprintable()
        assert TABLE in raised.value.message
    with pytest.raises(ValidationError, match=r"no name for a branch|at least 1 character|unicode string"):
        IcebergWriterConfig(table=TABLE, branch=name)
    assert written.metadata == before


@pytest.mark.parametrize("name", ["2026-01-03T00:00:00+01:00", "Käse/50% off?#1", "中", 'it\'s "odd"'])
def test_any_other_name_is_one(written: Lake, name: str) -> None:
    create_tag(written.catalog, written.table, name)
    written.write(ROWS, branch=f"{name} branch")
    assert list(refs_of(written)) == [name, f"{name} branch"]


@pytest.mark.parametrize(("change", "error", "told"), REFUSED)
def test_what_cannot_be_is_refused_and_changes_nothing(
    written: Lake, change: Callable[[Catalog, Table], Any], error: type[DwhError], told: str
) -> None:
    create_tag(written.catalog, written.table, "tag")
    create_branch(written.catalog, written.table, "branch")
    before = written.metadata
    with pytest.raises(error, match=told):
        change(written.catalog, written.table)
    assert written.metadata == before


def test_a_table_without_versions_has_none_to_name(lake: Lake) -> None:
    lake.catalog.create_namespace("shop")
    table = lake.catalog.create_table(TABLE, ROWS.schema)
    with pytest.raises(NotFoundError, match="no version yet"):
        create_tag(lake.catalog, table, "first")


# --- Races, lost answers, and catalogs that forget ---


class Interrupted(SqlCatalog):
    """A catalog in which something happens around the first commit: before it, instead of it, or after."""

    def __init__(self, lake: Lake, before: Callable[[], Any] | None = None, fault: str = "") -> None:
        super().__init__("dwh", **lake.properties)
        self.before, self.fault = before, fault

    def commit_table(
        self, table: Table, requirements: tuple[TableRequirement, ...], updates: tuple[TableUpdate, ...]
    ) -> CommitTableResponse:
        before, self.before = self.before, None
        fault, self.fault = self.fault, ""
        if before:
            before()
        if fault == "request lost":
            raise ConnectionError("reset by peer")
        if fault == "forgets refs":
            updates = tuple(update for update in updates if not isinstance(update, SetSnapshotRefUpdate))
        answer = super().commit_table(table, requirements, updates)
        if fault == "answer lost":
            raise ConnectionError("reset by peer")
        return answer


@pytest.mark.parametrize("fault", ["request lost", "answer lost"])
def test_a_lost_message_leaves_the_tag_made_once(written: Lake, fault: str) -> None:
    made = create_tag(Interrupted(written, fault=fault), written.table, "q3", lifetime=DAY)
    assert isinstance(made, Ref)
    assert list(refs_of(written)) == ["q3"]
    assert not written.orphans()


@pytest.mark.parametrize("fault", ["request lost", "answer lost"])
def test_a_lost_message_leaves_the_tag_dropped(written: Lake, fault: str) -> None:
    create_tag(written.catalog, written.table, "q3")
    drop_tag(Interrupted(written, fault=fault), written.catalog.load_table(TABLE), "q3")
    assert refs_of(written) == {}


def test_a_tag_lands_beside_a_write_that_was_faster(written: Lake) -> None:
    head = snapshots_of(written)[-1]
    catalog = Interrupted(written, before=lambda: written.write(ROWS))
    create_tag(catalog, catalog.load_table(TABLE), "q3")
    assert refs_of(written)["q3"]["snapshot-id"] == head
    assert len(written.rows()) == 6
    assert not written.orphans()


def test_of_two_who_make_the_same_tag_one_is_told(written: Lake) -> None:
    first, second = snapshots_of(written)
    catalog = Interrupted(written, before=lambda: create_tag(written.catalog, written.table, "q3", first))
    with pytest.raises(ConfigurationError, match=f"has a tag 'q3' already, at snapshot {first}"):
        create_tag(catalog, catalog.load_table(TABLE), "q3", second)
    assert refs_of(written)["q3"]["snapshot-id"] == first
    assert not written.orphans()


def test_a_branch_that_somebody_just_wrote_to_is_not_dropped(written: Lake) -> None:
    create_branch(written.catalog, written.table, "trial")
    more = pa.table({"id": [9]})
    catalog = Interrupted(written, before=lambda: written.write(more, branch="trial"))
    with pytest.raises(ConflictError, match="moved by somebody else"):
        drop_branch(catalog, catalog.load_table(TABLE), "trial")
    assert 9 in [row["id"] for row in written.rows(refs_of(written)["trial"]["snapshot-id"])]


def test_a_snapshot_that_expires_meanwhile_is_told(written: Lake) -> None:
    first = snapshots_of(written)[0]
    expire = written.table.maintenance.expire_snapshots().by_id(first)
    catalog = Interrupted(written, before=expire.commit)
    with pytest.raises(NotFoundError, match=str(first)):
        create_tag(catalog, catalog.load_table(TABLE), "q3", first)
    assert refs_of(written) == {}


def test_a_catalog_that_drops_tags_in_silence_is_found_out(written: Lake) -> None:
    catalog = Interrupted(written, fault="forgets refs")
    with pytest.raises(UnsupportedError, match="did not keep it"):
        create_tag(catalog, catalog.load_table(TABLE), "q3")


def _snapshot_of_last_year(lake: Lake) -> int:
    """Add a snapshot that was made a year ago, beside those of main."""
    table = lake.table
    head = table.current_snapshot()
    assert head is not None
    old = head.model_copy(
        update={
            "snapshot_id": head.snapshot_id + 1,
            "parent_snapshot_id": None,
            "sequence_number": table.metadata.last_sequence_number + 1,  # type: ignore[union-attr]
            "timestamp_ms": _ms(datetime.now(UTC) - 365 * DAY),
        }
    )
    lake.catalog.commit_table(table, (), (AddSnapshotUpdate(snapshot=old),))
    return old.snapshot_id


def _ms(at: datetime) -> int:
    return int(at.timestamp() * 1000)
