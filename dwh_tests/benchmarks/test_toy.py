"""Every benchmark at toy size: all contenders come to the same rows and sums. Times mean nothing here."""

import pytest

from dwh_tests.benchmarks.harness import Settings, measure
from dwh_tests.benchmarks.model import Unavailable
from dwh_tests.benchmarks.registry import BENCHMARKS
from dwh_tests.servers.all_servers import servers_required

pytestmark = [pytest.mark.slow, pytest.mark.interop]


@pytest.mark.parametrize("name", BENCHMARKS)
def test_contenders_agree(name: str) -> None:
    try:
        outcome = measure(BENCHMARKS[name], Settings(size="toy", runs=1))
    except Unavailable as reason:
        if servers_required():
            raise
        pytest.skip(str(reason))
    said = {row.contender.name: f"{row.status}: {row.reason}" for row in outcome.rows}
    assert not [text for text in said.values() if text.startswith("failed")], said
    missing = {contender: text for contender, text in said.items() if text.startswith("missing")}
    assert not (missing and servers_required()), missing
    compared = [row.facts for row in outcome.rows if row.status == "measured"]
    assert compared
    if name != "upsert_scaling":  # whose contenders upsert into tables of different sizes
        assert all(facts == compared[0] for facts in compared)
