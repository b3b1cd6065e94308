"""What is searched for, in which forms, where it was found.

Guarantee: a secret is found as text, as the text that JSON, URLs and `repr` make of it, in UTF-16 of both orders, in
hexadecimal and in base64 wherever it begins within a longer value; keys are found as bytes too.
Limit: what is compressed or encrypted is not opened.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from typing import NamedTuple
from urllib.parse import quote, quote_plus


class Leak(NamedTuple):
    """A secret in clear."""

    place: str
    secret: str
    form: str


def forms(secret: bytes) -> dict[str, bytes]:
    """The forms of a secret by name; equal ones once."""
    found = {
        "raw": secret,
        "hex": secret.hex().encode(),
        "HEX": secret.hex().upper().encode(),
        **{f"base64+{shift}": form for shift, form in enumerate(_base64(secret, base64.b64encode))},
        **{f"base64url+{shift}": form for shift, form in enumerate(_base64(secret, base64.urlsafe_b64encode))},
    }
    try:
        text = secret.decode()
    except UnicodeDecodeError:
        return _once(found)
    found |= {
        "json": json.dumps(text)[1:-1].encode(),
        "json twice": json.dumps(json.dumps(text)[1:-1])[1:-1].encode(),
        "url": quote(text, "").encode(),
        "url+": quote_plus(text).encode(),
        "repr": repr(text)[1:-1].encode(),
        "utf-16-le": text.encode("utf-16-le"),
        "utf-16-be": text.encode("utf-16-be"),
    }
    return _once(found)


def _base64(secret: bytes, encode: object) -> Iterator[bytes]:
    """What base64 makes of the secret behind 0, 1 and 2 other bytes, without the characters that those share."""
    assert callable(encode)
    for shift in range(3):
        whole: bytes = encode(b"\0" * shift + secret)
        first = 0 if shift == 0 else shift + 1
        yield whole[first : (shift + len(secret)) * 8 // 6]


def _once(found: Mapping[str, bytes]) -> dict[str, bytes]:
    kept: dict[bytes, str] = {}
    for name, form in found.items():
        kept.setdefault(form, name)
    return {name: form for form, name in kept.items()}


def search(places: Mapping[str, bytes], secrets: Mapping[str, bytes]) -> list[Leak]:
    """Every secret that is in clear, and where."""
    looked_for = [(name, form, text) for name, secret in secrets.items() for form, text in forms(secret).items()]
    return [
        Leak(place, name, form)
        for place, content in places.items()
        for name, form, text in looked_for
        if text in content
    ]
