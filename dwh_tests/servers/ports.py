"""Free ports that two test processes never choose at the same time."""

import fcntl
import getpass
import random
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

# Below the range from which Linux and macOS take the ports of outgoing connections: one of those could take a
# port between our look and the server's start.
_PORTS = range(20_000, 32_000)


@contextmanager
def reserved_port() -> Iterator[int]:
    """A port on which nothing listens, kept from other test processes until the block is left.

    To ask the kernel for port 0 and close the socket again would leave a gap in which a second worker may be
    told the same port, and then take the first one's server for its own.
    """
    folder = Path(tempfile.gettempdir()) / f"dwh-tests-ports-{getpass.getuser()}"
    folder.mkdir(exist_ok=True)
    for port in random.sample(_PORTS, k=100):
        with (folder / str(port)).open("w") as lock:
            if _locked(lock) and _is_free(port):
                yield port
                return
    raise RuntimeError(f"None of 100 ports tried between {_PORTS.start} and {_PORTS.stop} is free.")


def _locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As servers do: a port whose last connection is in TIME_WAIT is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
