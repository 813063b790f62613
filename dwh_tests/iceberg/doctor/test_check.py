"""How an action becomes a check, and what of an error is shown."""

from __future__ import annotations

import pytest

from dwh_assets.errors import ConfigurationError
from dwh_assets.iceberg.doctor.check import Check, Finding, Unchecked, attempt, worst
from dwh_assets.iceberg.doctor.redaction import HIDDEN, without_secrets


def raising(error: Exception) -> str:
    raise error


def test_an_outcome_becomes_a_check() -> None:
    assert attempt("x", lambda: "fine", "do this") == Check("x", "ok", "fine")
    assert attempt("x", lambda: Finding("warning", "hm", "do that"), "do this") == Check(
        "x", "warning", "hm", "do that"
    )


@pytest.mark.parametrize(
    ("error", "check"),
    [
        (ValueError("first\npassword=secret"), Check("x", "failed", "ValueError: first", "do this")),
        (ValueError(), Check("x", "failed", "ValueError", "do this")),
        (ConfigurationError("wrong", remedy="mend it"), Check("x", "failed", "wrong", "mend it")),
        (ConfigurationError("wrong"), Check("x", "failed", "wrong", "do this")),
        (Unchecked("no table"), Check("x", "skipped", "no table")),
    ],
)
def test_an_error_becomes_a_check_without_its_later_lines(error: Exception, check: Check) -> None:
    assert attempt("x", lambda: raising(error), "do this") == check


def test_the_worst_of_checks_counts() -> None:
    checks = [Check("a", "ok", ""), Check("b", "skipped", ""), Check("c", "warning", "")]
    assert worst([]) == "ok"
    assert worst(checks) == "warning"
    assert worst([*checks, Check("d", "failed", "")]) == "failed"
    assert worst(checks[:2]) == "skipped"


SECRETS: list[tuple[str, str, str]] = [
    ("s3.secret-access-key", "wJalrXUt", "wJalrXUt"),
    ("token", "eyJh.eyJl.c2ln", "eyJh.eyJl.c2ln"),
    ("credential", "client:a-long-secret", "a-long-secret"),
    ("adls.connection-string", "AccountName=a;AccountKey=Zm9vYmFyYmF6cXV4", "Zm9vYmFyYmF6cXV4"),
    ("adls.sas-token.acc", "?sv=2024&sig=bG9uZy1zaWduYXR1cmU", "bG9uZy1zaWduYXR1cmU"),
    ("uri", "postgresql://ann:p%40ss@h/db", "p@ss"),
    ("uri", "postgresql://ann:p%40ss@h/db", "p%40ss"),
]


@pytest.mark.parametrize(("name", "value", "leak"), SECRETS)
def test_a_secret_of_the_catalog_is_hidden(name: str, value: str, leak: str) -> None:
    shown = without_secrets(f"cannot log in with {leak} at all", {name: value})
    assert shown == f"cannot log in with {HIDDEN} at all"


def test_a_user_in_any_uri_and_a_nested_secret_are_hidden() -> None:
    assert (
        without_secrets("GET http://ann:pw@host/x?a=b failed", {}) == f"GET http://{HIDDEN}@host/x?a=b failed"
    )
    auth = {"auth": {"type": "basic", "basic": {"username": "ann", "password": "pw"}}}
    assert without_secrets("ann with pw", auth) == f"ann with {HIDDEN}"


def test_what_is_no_secret_stays() -> None:
    harmless = {
        "oauth2-server-uri": "http://tokens",
        "gcs.oauth2.token-expires-at": "1",
        "s3.access-key-id": "AKIA",
        "warehouse": "lake",
        "token": "",
    }
    assert without_secrets("http://tokens 1 AKIA lake", harmless) == "http://tokens 1 AKIA lake"
