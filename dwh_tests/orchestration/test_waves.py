"""The order in which the demo materializes assets: nothing is read before it is there."""

import random
from collections.abc import Iterable

import dagster as dg
import pytest

from dwh_assets.orchestration.demo import Wave, waves

MONTHS = dg.MonthlyPartitionsDefinition("2013-01-01", end_date="2013-04-01")
KEYS = ("2013-01-01", "2013-02-01", "2013-03-01")


def graph(*edges: str, partitioned: Iterable[str] = ()) -> list[dg.AssetSpec]:
    """Assets from lines such as `c: a b`, which reads a and b."""
    return [
        dg.AssetSpec(name, deps=reads.split(), partitions_def=MONTHS if name in partitioned else None)
        for name, _, reads in (edge.partition(":") for edge in edges)
    ]


def shown(found: Iterable[Wave]) -> list[str]:
    return [
        " ".join(key.to_user_string() for key in wave.keys)
        + (f" x{len(wave.partitions)}" * bool(wave.partitions))
        for wave in found
    ]


@pytest.mark.parametrize(
    ("edges", "partitioned", "expected"),
    [
        ([], "", []),
        (["a:", "b:", "c: a b"], "", ["a b c"]),
        (["a:", "b: a", "c: b"], "b", ["a", "b x3", "c"]),
        (["a:", "b:", "c: a b", "d: c"], "a", ["b", "a x3", "c d"]),
        (["a:", "b: a", "c: a", "d: b c"], "b c", ["a", "b x3", "c x3", "d"]),
        (["a:", "b: a", "c: a", "d: b c"], "a", ["a x3", "b c d"]),
        (["a:", "b: a", "c: b"], "a b c", ["a x3", "b x3", "c x3"]),
        (["c: b", "b: a", "a:"], "a c", ["a x3", "b", "c x3"]),
        (["a: elsewhere", "b: a"], "", ["a b"]),
    ],
)
def test_a_run_begins_when_everything_that_it_reads_is_there(
    edges: list[str], partitioned: str, expected: list[str]
) -> None:
    assert shown(waves(graph(*edges, partitioned=partitioned.split()))) == expected


def test_any_graph_is_run_once_and_in_order() -> None:
    chosen = random.Random(11)
    for _ in range(300):
        size = chosen.randint(1, 9)
        names = [f"n{number}" for number in range(size)]
        reads = {
            name: [other for other in names[:number] if chosen.random() < 0.35]
            for number, name in enumerate(names)
        }
        partitioned = {name for name in names if chosen.random() < 0.4}
        specs = graph(*(f"{name}: {' '.join(of)}" for name, of in reads.items()), partitioned=partitioned)
        chosen.shuffle(specs)
        done: set[str] = set()
        for wave in waves(specs):
            run = {key.to_user_string() for key in wave.keys}
            assert not run & done
            assert wave.partitions == (KEYS if run & partitioned else ())
            assert len(run) == 1 or not run & partitioned
            assert all(set(reads[name]) <= done | run for name in run)
            done |= run
        assert done == set(names)


def test_an_asset_that_reads_its_own_earlier_partitions_does_not_wait_for_itself() -> None:
    mapping = dg.TimeWindowPartitionMapping(start_offset=-1, end_offset=-1)
    spec = dg.AssetSpec("a", deps=[dg.AssetDep("a", partition_mapping=mapping)], partitions_def=MONTHS)
    assert shown(waves([spec])) == ["a x3"]


def test_dynamic_partitions_are_those_of_the_instance() -> None:
    shops = dg.AssetSpec("a", partitions_def=dg.DynamicPartitionsDefinition(name="wave_shops"))
    report = dg.AssetSpec("b", deps=["a"])
    with dg.DagsterInstance.ephemeral() as instance:
        assert shown(waves([shops, report], instance)) == ["b"], "no partition yet: nothing to run"
        instance.add_dynamic_partitions("wave_shops", ["ann", "bob"])
        assert shown(waves([shops, report], instance)) == ["a x2", "b"]


def test_a_wave_selects_all_partitions_by_their_first_and_last() -> None:
    assert Wave((dg.AssetKey("a"),), KEYS).tags == {
        "dagster/asset_partition_range_start": "2013-01-01",
        "dagster/asset_partition_range_end": "2013-03-01",
    }
    assert Wave((dg.AssetKey("a"),)).tags == {}
