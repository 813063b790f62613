"""What does not hold everywhere, each with its reason: the only place where a test of the suite is left out.

`docs/replicas.md` shows this record. A key is a warehouse and a test's name, `test[parameter]`, or
what a test looks up itself.
"""

from __future__ import annotations

EXCEPTIONS: dict[tuple[str, str], str] = {
    (
        "bigquery",
        "test_two_syncs_at_once_double_no_row[first load]",
    ): "the emulator refuses one of two statements that make a table at the same moment",
    ("bigquery", "types[decimal(38,38)]"): "the emulator's BIGNUMERIC has 18 places",
    ("bigquery", "types[decimal(38,10)]"): "the emulator's BIGNUMERIC has 20 digits before the point",
    (
        "snowflake",
        "types[long]",
    ): "the emulator's NUMBER(38, 0) has 64 bits, which -2^63 needs a digit more than",
}


def excepted(place: str, what: str) -> str:
    """Why something does not hold there; empty where it has to."""
    return EXCEPTIONS.get((place, what), "")
