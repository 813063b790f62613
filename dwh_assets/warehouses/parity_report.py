"""Placeholder."""

from dataclasses import dataclass
from typing import Any, Literal

Level = Literal["count", "fingerprint", "full"]


@dataclass(frozen=True)
class ParityReport:
    """Placeholder."""

    equal: bool
