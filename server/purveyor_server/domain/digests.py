"""Digests that decide whether two requests are the same.

Guarantee: the digest of a create is an HMAC-SHA256 over its canonical JSON (sorted keys, no spaces, numbers as JSON
writes them), so two requests with the same content have the same digest whatever the order of their fields, and nobody
without the store's key can test guesses of secret parameters against it.
"""

from __future__ import annotations

import hashlib
import hmac

import msgspec

from purveyor_server.domain.model import Json, PlanSnapshot

_encoder = msgspec.json.Encoder(order="sorted")


def canonical(value: Json) -> bytes:
    """Canonical JSON of `value`: sorted keys, UTF-8; an integral float is written as an integer (Struct has only doubles)."""
    return _encoder.encode(_normal(value))


def _normal(value: Json) -> Json:
    if isinstance(value, float) and value.is_integer() and abs(value) <= 2**53:
        return int(value)
    if isinstance(value, dict):
        return {key: _normal(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_normal(item) for item in value]
    return value


def keyed_digest(key: bytes, *parts: Json) -> str:
    """HMAC-SHA256 in hex over the canonical JSON of `parts`."""
    return hmac.digest(key, canonical(list(parts)), "sha256").hex()


def plan_digest(snapshot: PlanSnapshot) -> str:
    """SHA-256 in hex that names a plan snapshot: everything in it but the digest itself."""
    content = msgspec.to_builtins(snapshot)
    del content["digest"]
    return hashlib.sha256(canonical(content)).hexdigest()
