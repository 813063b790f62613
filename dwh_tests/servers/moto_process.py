"""moto's server with optimistic locking made whole: what `MotoServer` runs.

Two gaps would let a lost update pass, or fail a test that is right:

- Glue ignores the table version that an update expects, so of two commits at once the second erases the
  first. AWS refuses it with ConcurrentModificationException.
- S3 looks whether a condition holds and writes later, with other requests in between.
"""

import functools
import threading
from collections.abc import Callable
from typing import Any

from moto.glue.exceptions import GlueClientError
from moto.glue.responses import GlueResponse
from moto.s3.responses import S3Response
from moto.server import main

_LOCK = threading.Lock()


class ConcurrentModification(GlueClientError):
    """The table is not at the version that the update expects."""

    def __init__(self, found: str, expected: str) -> None:
        super().__init__("ConcurrentModificationException", f"Version {found} is current, not {expected}.")


def one_at_a_time(method: Callable[..., Any]) -> Callable[..., Any]:
    """The method, entered by one request at a time."""

    @functools.wraps(method)
    def alone(*arguments: Any, **options: Any) -> Any:
        with _LOCK:
            return method(*arguments, **options)

    return alone


def with_version_check(update_table: Callable[[GlueResponse], Any]) -> Callable[[GlueResponse], Any]:
    """`GlueResponse.update_table`, which refuses to update another version than the expected one."""

    @functools.wraps(update_table)
    def checked(response: GlueResponse) -> Any:
        expected = response.parameters.get("VersionId")
        database, table = response.parameters["DatabaseName"], response.parameters["TableInput"]["Name"]
        found = response.glue_backend.get_table(database, table).as_dict()["VersionId"]
        if expected is not None and expected != found:
            raise ConcurrentModification(found, expected)
        return update_table(response)

    return checked


def close_gaps() -> None:
    """Put the mended methods in the place of moto's."""
    # The middle one completes multipart uploads.
    for name in ("put_object", "_key_response_post", "delete_object"):
        setattr(S3Response, name, one_at_a_time(getattr(S3Response, name)))
    mended = one_at_a_time(with_version_check(GlueResponse.update_table))
    GlueResponse.update_table = mended  # type: ignore[method-assign]


if __name__ == "__main__":
    close_gaps()
    main()
