"""Take secrets out of what is shown: libraries put whatever they were given into their errors."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

HIDDEN = "***"
_SECRET_NAME = re.compile(
    r"secret|password|passphrase|token|credential|connection-string|account-key|private-key|signature"
)
# Names that speak of a secret without being one: when it expires, who hands it out.
_NOT_SECRET = re.compile(r"(expires-at|expires-at-ms|uri|endpoint|scope|type|-id)(\.[^.]*)?$")
_USER_INFO = re.compile(r"(://)[^/\s@]+@")
# A part of a longer secret (an account key in a connection string) is one too, unless it is a word.
_SHORTEST_PART = 12


def without_secrets(text: str, properties: Mapping[str, Any]) -> str:
    """Return the text with every secret of a catalog's properties, and every user of a URI, hidden."""
    for secret in sorted(set(_secrets(properties)), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return _USER_INFO.sub(rf"\1{HIDDEN}@", text)


def _secrets(properties: Mapping[str, Any]) -> Iterator[str]:
    for name, value in properties.items():
        if isinstance(value, Mapping):  # a REST catalog's `auth`
            yield from _secrets(value)
        elif isinstance(value, str) and value:
            yield from _password(value)
            if _SECRET_NAME.search(name.lower()) and not _NOT_SECRET.search(name.lower()):
                yield value
                yield from (p for p in re.split(r"[;:&?=]", value) if len(p) >= _SHORTEST_PART)


def _password(value: str) -> Iterator[str]:
    """Yield the password of a URI, as it is written there and as a driver is told it."""
    try:
        password = urlsplit(value).password if "://" in value else None
    except ValueError:
        return
    if password:
        yield from (password, unquote(password))
