"""When the credentials of a catalog and its store expire, as far as they say so themselves."""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs

from dwh_assets.iceberg.doctor.check import Finding

SOON = timedelta(hours=1)
_MILLISECONDS = re.compile(r"-expires-at(-ms)?(?=\.|$)")
_SHARED_ACCESS = re.compile(r"sas-token|connection-string")
_TEMPORARY = re.compile(r"token(\.|$)")
# What the AWS command line and its helpers export beside a temporary key
_AWS_EXPIRY = ("AWS_CREDENTIAL_EXPIRATION", "AWS_SESSION_EXPIRATION")


def expiry(properties: Mapping[str, Any]) -> str | Finding:
    """Say when credentials expire, the first to do so first; one that does not tell is said to be unknown."""
    known = dict(_known(properties))
    told = [_told(name, moment) for name, moment in sorted(known.items(), key=lambda found: found[1])]
    told += [f"{name} does not say when it expires" for name in _silent(properties, known)]
    if not told:
        return "No credential that expires is declared."
    detail = f"{'; '.join(told)}."
    name, first = min(
        known.items(), key=lambda found: found[1], default=("", datetime.max.replace(tzinfo=UTC))
    )
    if first <= datetime.now(UTC):
        return Finding("failed", detail, f"Get a new {name}, and start anew with it.")
    if first <= datetime.now(UTC) + SOON:
        return Finding("warning", detail, f"Get a new {name} before a long run begins.")
    return detail


def _told(name: str, moment: datetime) -> str:
    verb = "expired" if moment <= datetime.now(UTC) else "expires"
    return f"{name} {verb} {moment:%Y-%m-%d %H:%M:%S} UTC"


def _known(properties: Mapping[str, Any]) -> Iterator[tuple[str, datetime]]:
    for name, value in properties.items():
        moment = _moment(name, value) if isinstance(value, str) else None
        if moment is not None:
            yield _MILLISECONDS.sub("", name), moment
    if "AWS_SESSION_TOKEN" in os.environ:
        for name in _AWS_EXPIRY:
            moment = _iso_time(os.environ.get(name, ""))
            if moment is not None:
                yield name, moment


def _moment(name: str, value: str) -> datetime | None:
    if _MILLISECONDS.search(name):
        return _epoch(value, 1000)
    if _SHARED_ACCESS.search(name):
        return _signed_until(value)
    return _token_expiry(value)


def _silent(properties: Mapping[str, Any], known: Mapping[str, datetime]) -> Iterator[str]:
    """Yield the temporary credentials that do not say when they end."""
    for name, value in properties.items():
        if isinstance(value, str) and value and _TEMPORARY.search(name) and name not in known:
            yield name
    if "AWS_SESSION_TOKEN" in os.environ and not set(_AWS_EXPIRY) & set(known):
        yield "AWS_SESSION_TOKEN"


def _epoch(value: str, fraction: int) -> datetime | None:
    try:
        return datetime.fromtimestamp(float(value) / fraction, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _signed_until(value: str) -> datetime | None:
    """Return the end of an Azure shared access signature, which carries it as `se`."""
    signature = value.rpartition("SharedAccessSignature=")[2].partition(";")[0].removeprefix("?")
    return _iso_time(parse_qs(signature).get("se", [""])[0])


def _iso_time(value: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _token_expiry(value: str) -> datetime | None:
    """Return the `exp` of a JSON web token (RFC 7519); its signature is the server's business."""
    parts = value.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        return _epoch(str(claims["exp"]), 1)
    except (binascii.Error, UnicodeDecodeError, ValueError, KeyError, TypeError):
        return None
