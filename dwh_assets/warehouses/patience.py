"""Wait for somebody else for a while, say so now and then, and give up with the right words."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field

from dwh_assets.errors import UnavailableError

_LOG = logging.getLogger(__name__)
_LONGEST_PAUSE = 1.0
_SECONDS_BETWEEN_MESSAGES = 10.0


@dataclass
class Patience:
    """Waits for somebody else, at most `seconds` in all."""

    seconds: float
    _started: float = field(default_factory=time.monotonic)
    _pause: float = 0.05
    _last_message: float = float("-inf")

    def wait(self, what: str, holder: str, cause: Exception | None = None) -> None:
        """Sleep a little, and say so now and then. Raises `UnavailableError` when time is up."""
        now = time.monotonic()
        if now - self._started >= self.seconds:
            raise UnavailableError(
                f"{what} is held by {holder}, and was not free within {self.seconds:g} seconds.",
                remedy="End that program or wait for it, then repeat; or allow more wait_seconds.",
            ) from cause
        if now - self._last_message >= _SECONDS_BETWEEN_MESSAGES:
            _LOG.warning("waiting for %s, held by %s", what, holder)
            self._last_message = now
        time.sleep(min(self._pause, self._started + self.seconds - now))
        self._pause = min(self._pause * 1.5, _LONGEST_PAUSE)
