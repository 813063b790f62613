"""Credentials that expire are told with their time; those that do not tell are said to be unknown."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta

import pytest

from dwh_assets.iceberg.doctor.check import Finding
from dwh_assets.iceberg.doctor.credentials import expiry

NOW = datetime.now(UTC)
YESTERDAY, IN_MINUTES, TOMORROW = (
    NOW - timedelta(days=1),
    NOW + timedelta(minutes=20),
    NOW + timedelta(days=1),
)


@pytest.fixture(autouse=True)
def _no_aws(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_SESSION_TOKEN", "AWS_CREDENTIAL_EXPIRATION", "AWS_SESSION_EXPIRATION"):
        monkeypatch.delenv(name, raising=False)


def web_token(until: datetime) -> str:
    """A JSON web token that says nothing but its end, as RFC 7519 has it."""
    parts = [{"alg": "none"}, {"exp": int(until.timestamp())}]
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts]
    return ".".join([*encoded, "c2ln"])


def milliseconds(moment: datetime) -> str:
    return str(int(moment.timestamp() * 1000))


def declared(until: datetime) -> dict[str, dict[str, str]]:
    """One of each credential that says when it ends."""
    signed = f"sv=2024-05-04&se={until:%Y-%m-%dT%H:%M:%SZ}&sr=c&sig=abc%3D"
    return {
        "rest": {"token": web_token(until)},
        "gcs": {"gcs.oauth2.token": "x", "gcs.oauth2.token-expires-at": milliseconds(until)},
        "s3": {"s3.session-token": "x", "s3.session-token-expires-at-ms": milliseconds(until)},
        "sas": {"adls.sas-token": f"?{signed}"},
        "sas of an account": {"adls.sas-token.acc.dfs.core.windows.net": signed},
        "connection string": {
            "adls.connection-string": f"BlobEndpoint=http://h;SharedAccessSignature={signed}"
        },
        "adls token": {"adls.token": web_token(until)},
    }


@pytest.mark.parametrize("kind", declared(NOW))
@pytest.mark.parametrize(
    ("until", "status"), [(YESTERDAY, "failed"), (IN_MINUTES, "warning"), (TOMORROW, "ok")]
)
def test_a_credential_is_judged_by_when_it_expires(kind: str, until: datetime, status: str) -> None:
    told = expiry(declared(until)[kind])
    assert (told.status if isinstance(told, Finding) else "ok") == status
    detail = told.detail if isinstance(told, Finding) else told
    assert f"{until:%Y-%m-%d %H:%M:%S} UTC" in detail
    assert ("expired" in detail) is (until == YESTERDAY)
    assert "does not say" not in detail
    if isinstance(told, Finding):
        assert "Get a new" in told.remedy


@pytest.mark.parametrize(
    "properties",
    [
        {"s3.session-token": "x"},
        {"token": "opaque"},
        {"token": "a.b.c"},
        {"gcs.oauth2.token": "x", "gcs.oauth2.token-expires-at": "soon"},
        {"adls.sas-token": "sig=abc"},
    ],
)
def test_a_credential_that_does_not_tell_is_said_to_be_unknown(properties: dict[str, str]) -> None:
    told = expiry(properties)
    assert isinstance(told, str)
    assert f"{next(iter(properties))} does not say when it expires" in told


def test_credentials_that_do_not_expire_are_no_matter() -> None:
    lasting = {
        "s3.access-key-id": "a",
        "s3.secret-access-key": "b",
        "credential": "id:secret",
        "uri": "http://a.b.c",
    }
    assert expiry(lasting) == "No credential that expires is declared."


def test_the_first_to_expire_counts() -> None:
    told = expiry({"token": web_token(TOMORROW), "adls.token": web_token(YESTERDAY)})
    assert isinstance(told, Finding)
    assert told.status == "failed"
    assert told.detail.index("adls.token expired") < told.detail.index("token expires")


def test_credentials_of_the_environment_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "x")
    assert "AWS_SESSION_TOKEN does not say" in str(expiry({}))
    monkeypatch.setenv("AWS_CREDENTIAL_EXPIRATION", YESTERDAY.isoformat())
    told = expiry({})
    assert isinstance(told, Finding)
    assert told.status == "failed"
