"""The check of a table's keys fails when it should, and says what it saw."""

from typing import Any

import dagster as dg
import pyarrow as pa

from dwh_assets.orchestration.checks import key_check
from dwh_tests.orchestration.lake import Lake, written_by

TABLE = dg.AssetKey(["iceberg", "shop", "orders"])
ROWS = pa.table({"id": [1, 2, 3], "place": ["eu", "eu", "us"]})


def _checked(result: dg.ExecuteInProcessResult) -> tuple[bool, dict[str, Any]]:
    (evaluation,) = result.get_asset_check_evaluations()
    return evaluation.passed, {name: value.value for name, value in evaluation.metadata.items()}


def test_keys_that_repeat_are_counted_and_shown(lake: Lake) -> None:
    orders, check = written_by(lambda _: ROWS), key_check(TABLE, "shop.orders", ["id", "place"])
    passed, found = _checked(lake.run(orders, check))
    assert (passed, found["rows"], found["repeated_keys"]) == (True, 3, 0)
    assert found["dwh/snapshot_id"] == str(lake.snapshots("shop.orders")[-1]["snapshot-id"])

    lake.run(written_by(lambda _: ROWS.slice(0, 1)))
    passed, found = _checked(lake.run(written_by(lambda _: ROWS.slice(2, 1)), check))
    assert (passed, found["rows"], found["repeated_keys"]) == (False, 5, 2)
    assert "'eu'" in found["sample"]
    assert "'us'" in found["sample"]
