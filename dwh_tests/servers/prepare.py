"""Fetch ahead of time what the servers need: `python -m dwh_tests.servers.prepare`.

It goes to `DWH_TEST_CACHE`, or `~/.cache/dwh-tests`. May be repeated, and done by several processes at once.
A server that this machine cannot run is named and left out; with `DWH_REQUIRE_SERVERS=1` that is a failure.
"""

import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed

from dwh_tests.servers.all_servers import SERVERS, servers_required
from dwh_tests.servers.downloads import DownloadFailed
from dwh_tests.servers.process import Server


def main() -> int:
    """Fetch all at the same time; what one client fetches comes one after the other. The exit code."""
    missing = 0
    with ThreadPoolExecutor(len(SERVERS)) as pool:
        for result in as_completed([pool.submit(_prepare, server) for server in SERVERS]):
            ready, report = result.result()
            missing += not ready
            if report:
                print(report, flush=True)
    print(f"{len(SERVERS) - missing} of {len(SERVERS)} test servers are ready to start.")
    return 1 if missing and servers_required() else 0


def _prepare(server: type[Server]) -> tuple[bool, str]:
    """Whether the server can start now, and what was done for it, if anything."""
    if (reason := server.why_not()) is not None:
        return False, f"{server.name}: left out, because {reason}."
    if server.download is None:
        return True, ""
    began = time.monotonic()
    try:
        fetched = server.download.fetch()
    except DownloadFailed as error:
        return False, f"{server.name}: not fetched. {error}"
    took = time.monotonic() - began
    return True, f"{server.name}: fetched in {took:.0f} s into {server.download.folder}" if fetched else ""


if __name__ == "__main__":
    sys.exit(main())
