"""What does not hold everywhere, each with its reason: the only place where a test of the suite is left out.

`docs/replicas.md` shows this record. A key is a warehouse and a test's name, or `test[parameter]`.
"""

from __future__ import annotations

EXCEPTIONS: dict[tuple[str, str], str] = {}
