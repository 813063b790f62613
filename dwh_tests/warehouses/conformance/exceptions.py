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
    ("bigquery", "column a.b"): "BigQuery takes no such name",
    ("bigquery", 'column say "hi"'): "BigQuery takes no such name",
    ("bigquery", "column back`tick"): "BigQuery takes no such name",
    ("bigquery", "column ?"): "BigQuery takes no such name",
    ("bigquery", "column back\\slash"): "BigQuery takes no such name",
    ("bigquery", "column {0}"): "BigQuery takes no such name",
    ("bigquery", "column x'); DROP TABLE _dwh_replicas; --"): "BigQuery takes no such name",
    ("bigquery", 'column x"; DROP TABLE _dwh_replicas; --'): "BigQuery takes no such name",
    ("bigquery", "table a.b"): "BigQuery takes no such name",
    ("bigquery", "table x'); DROP TABLE _dwh_replicas; --"): "BigQuery takes no such name",
    ("bigquery", 'table x"; DROP TABLE y; --'): "BigQuery takes no such name",
    (
        "bigquery",
        "test_values_are_never_sql",
    ): "the emulator keeps statistics of texts in SQL that it does not quote",
    ("bigquery", "test_a_thousand_columns"): "the emulator takes no expression of a thousand parts",
    ("snowflake", "test_a_thousand_columns"): "the emulator takes no expression of a thousand parts",
    (
        "snowflake",
        "test_tables_of_any_name[x'); DROP TABLE _dwh_replicas; ]",
    ): "the emulator does not parse a quote in the name of a table",
    (
        "bigquery",
        "test_columns_of_any_name",
    ): "the emulator takes É and é for one column; other names: see test_dialect",
}


def excepted(place: str, what: str) -> str:
    """Why something does not hold there; empty where it has to."""
    return EXCEPTIONS.get((place, what), "")
