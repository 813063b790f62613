"""`make demo-warehouses`: the demo, with the emulators of Snowflake and BigQuery as further warehouses.

They run while the demo does, and what they hold goes with them. The DuckDB file stays.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack

from dwh_tests.servers.fakesnow import FakeSnow
from dwh_tests.servers.local_bigquery import LocalBigQuery


def main() -> int:
    """Run the demo, list the replicas of all warehouses; return 1 when anything failed."""
    for server in (FakeSnow, LocalBigQuery):
        if reason := server.why_not():
            print(f"{server.name} cannot run here: {reason}.", file=sys.stderr)
            return 1
    with ExitStack() as stack:
        print("Starting the emulators (the first time, they are installed, which takes a minute or two)")
        snowflake = stack.enter_context(FakeSnow())
        bigquery = stack.enter_context(LocalBigQuery())
        environment = {**os.environ, **snowflake_environment(snowflake), **bigquery_environment(bigquery)}
        demo = _run("dwh_assets.orchestration.demo", environment=environment)
        listed = _run("dwh_assets.cli", "replica", "list", environment=environment)
    return demo or listed


def snowflake_environment(server: FakeSnow) -> dict[str, str]:
    """The variables of `.env.example` by which this server is the Snowflake account."""
    return {
        "DWH_SNOWFLAKE_DATABASE": "LAKEHOUSE",
        "SNOWFLAKE_ACCOUNT": server.account,
        "SNOWFLAKE_USER": server.user,
        "SNOWFLAKE_PASSWORD": server.password,
        "SNOWFLAKE_SCHEMA": "PUBLIC",
        "SNOWFLAKE_HOST": "127.0.0.1",
        "SNOWFLAKE_PORT": str(server.port),
        "SNOWFLAKE_PROTOCOL": "http",
    }


def bigquery_environment(server: LocalBigQuery) -> dict[str, str]:
    """The variables of `.env.example` by which this server is the project in BigQuery."""
    key = server.folder / "service-account.json"
    key.write_text(json.dumps(server.service_account), encoding="utf-8")
    return {
        "DWH_BIGQUERY_PROJECT": server.project,
        "GOOGLE_APPLICATION_CREDENTIALS": str(key),
        **server.client_environment,
    }


def _run(module: str, *arguments: str, environment: Mapping[str, str]) -> int:
    return subprocess.run([sys.executable, "-m", module, *arguments], env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
