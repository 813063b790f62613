"""Holds the pool of a table in a run until it is killed: `python -m dwh_tests.orchestration.held_run <file>`.

The file is written when the pool's slot is held. DAGSTER_HOME says which instance the run belongs to.
"""

import sys
import time
from pathlib import Path

import dagster as dg

from dwh_assets.orchestration.runs import process_tag

POOL = "iceberg/shop.orders"


@dg.asset(pool=POOL)
def orders() -> None:
    Path(sys.argv[1]).write_text("held", encoding="utf-8")
    time.sleep(60)


if __name__ == "__main__":
    with dg.DagsterInstance.get() as instance:
        dg.materialize([orders], instance=instance, tags=process_tag())
