"""What is said of a declaration that is wrong."""

from __future__ import annotations

from pydantic import ValidationError


def first_mistake(error: ValidationError) -> str:
    """Say in one sentence where the first mistake is, what was found and what is expected."""
    first, *others = error.errors(include_url=False)
    where = ".".join(str(part) for part in first["loc"])
    found = f"{where} is {first['input']!r}: " if where else ""
    more = f" (and {len(others)} more)" if others else ""
    expected = first["msg"].removeprefix("Value error, ").replace("Input should be", "expected", 1)
    return f"{found}{expected}{more}"
