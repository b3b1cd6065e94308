"""A bearer token of an issuer (JWT) taken apart, before any of it is believed.

Guarantee: only the compact form with three parts is taken, strict base64url, JSON without a name twice, bounded in size;
whatever else comes is one refusal, MALFORMED, never another exception. No part of the token is in the refusal.
Limit: nothing is verified here.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import Any, NamedTuple

from purveyor_server.domain.errors import PurveyorError
from purveyor_server.security.identity.text import refused

MAX_HEADER_BYTES = 2048
MAX_CLAIMS = 200
_PART = re.compile(r"[A-Za-z0-9_-]+")
_TYPES = frozenset({"", "jwt", "at+jwt", "application/at+jwt"})


class Parts(NamedTuple):
    """What a token says of itself. `signed` is what the signature is of."""

    algorithm: str
    key_id: str
    claims: dict[str, Any]
    signed: bytes
    signature: bytes


def looks_like_one(text: str) -> bool:
    """Whether this has the outer form of a web token."""
    return text.count(".") == 2  # noqa: PLR2004 - three parts


def take_apart(text: str) -> Parts:
    """The parts of a token. Raises UNAUTHENTICATED."""
    pieces = text.split(".")
    if len(pieces) != 3:  # noqa: PLR2004 - header, claims, signature
        raise malformed()
    header = _object(pieces[0], MAX_HEADER_BYTES)
    algorithm, key_id, kind = header.get("alg"), header.get("kid", ""), header.get("typ", "")
    if not (isinstance(algorithm, str) and isinstance(key_id, str) and isinstance(kind, str)):
        raise malformed()
    if "crit" in header or "b64" in header or "zip" in header or kind.lower() not in _TYPES:
        raise refused("unsupported", "the token asks for what is not supported here")
    if algorithm.lower() == "none" or not pieces[2]:
        raise refused("unsigned", "the token is not signed")
    claims = _object(pieces[1], len(pieces[1]))
    return Parts(algorithm, key_id, claims, f"{pieces[0]}.{pieces[1]}".encode("ascii"), _bytes(pieces[2]))


def malformed() -> PurveyorError:
    """The refusal of what is no token."""
    return refused("malformed", "the token is damaged")


def _bytes(part: str) -> bytes:
    if _PART.fullmatch(part) is None:
        raise malformed()
    try:
        found = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except (binascii.Error, ValueError):
        raise malformed() from None
    if base64.urlsafe_b64encode(found).rstrip(b"=") != part.encode("ascii"):
        raise malformed()  # two texts of one token would be two in every cache
    return found


def _object(part: str, limit: int) -> dict[str, Any]:
    if len(part) > limit:
        raise malformed()
    try:
        found = json.loads(_bytes(part).decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise malformed() from None
    if not isinstance(found, dict):
        raise malformed()
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs) or len(found) > MAX_CLAIMS:
        raise ValueError("a name twice")
    return found


def _no_constant(_: str) -> Any:
    raise ValueError("no number")
